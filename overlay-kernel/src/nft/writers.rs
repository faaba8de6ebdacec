//! Writers of one namespace's tables beside one another.

use std::sync::{Arc, Mutex, PoisonError};

/// What those have made of late that write tables of one namespace side by side, so that none takes another for a stranger. A clone is the
/// same.
///
/// A namespace has one generation for all its tables. Of two [`Nft`](super::Nft)s, each with tables of its own, one would come second
/// ([`ErrorKind::Interrupted`](overlay_core::ErrorKind::Interrupted)) whenever the other did something after it had planned. Those that stand
/// [among](super::Nft::among) the same do not, as long as nobody else writes; who is not among them interrupts all.
#[derive(Debug, Clone, Default)]
pub struct Writers(Arc<Mutex<Option<Run>>>);

/// Generations one after the other, all but the first of them made by these.
#[derive(Debug, Clone, Copy)]
struct Run {
    from: u32,
    to: u32,
}

impl Writers {
    /// One of them made this generation of that.
    pub(super) fn made(&self, from: u32, to: u32) {
        let mut run = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *run = match *run {
            _ if from.checked_add(1) != Some(to) => None, // begun anew from 1 on, once in four thousand million
            Some(Run { from: first, to: last }) if last == from => Some(Run { from: first, to }),
            _ => Some(Run { from, to }),
        };
    }

    /// The generation there is if none but them has written since that one.
    pub(super) fn since(&self, known: u32) -> u32 {
        match *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(Run { from, to }) if (from..to).contains(&known) => to,
            _ => known,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_made_is_known_to_all_until_a_stranger_comes() {
        let writers = Writers::default();
        assert_eq!(writers.since(5), 5);
        writers.made(5, 6);
        let beside = writers.clone();
        beside.made(6, 7);
        assert_eq!(beside.since(5), 7);
        assert_eq!([4, 5, 6, 7, 8].map(|known| writers.since(known)), [4, 7, 7, 7, 8]);
        writers.made(8, 9); // somebody else made 8
        assert_eq!([5, 7, 8, 9].map(|known| writers.since(known)), [5, 7, 9, 9]);
        writers.made(u32::MAX, 1);
        assert_eq!([8, u32::MAX].map(|known| writers.since(known)), [8, u32::MAX]);
    }
}
