//! Whose questions may wait.

use std::collections::BTreeMap;
use std::net::IpAddr;

/// How many questions of each client wait.
///
/// A client may have as many as are free for all: so one alone fills half, n of them leave 1/(n + 1) free, and
/// a newcomer always finds a place (dynamic thresholds, as switches share their buffers).
#[derive(Debug)]
pub(super) struct Fairness {
    most: usize,
    all: usize,
    of: BTreeMap<IpAddr, usize>,
}

impl Fairness {
    pub(super) const fn new(most: usize) -> Self {
        Self { most, all: 0, of: BTreeMap::new() }
    }

    /// Counts one more for the client, if it may have it.
    pub(super) fn admit(&mut self, client: IpAddr) -> bool {
        let has = self.of.get(&client).copied().unwrap_or_default();
        let admitted = has < self.most - self.all;
        if admitted {
            self.all += 1;
            self.of.insert(client, has + 1);
        }
        admitted
    }

    /// One of the client's waits no more.
    pub(super) fn done(&mut self, client: IpAddr) {
        let Some(has) = self.of.get_mut(&client) else { return };
        self.all -= 1;
        *has -= 1;
        if *has == 0 {
            self.of.remove(&client);
        }
    }

    /// All that wait.
    pub(super) const fn waiting(&self) -> usize {
        self.all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(fairness: &mut Fairness, client: u8) -> usize {
        (0..10_000).take_while(|_| fairness.admit([192, 0, 2, client].into())).count()
    }

    #[test]
    fn one_client_fills_half_and_every_newcomer_finds_a_place() {
        let mut fairness = Fairness::new(1024);
        assert_eq!(fill(&mut fairness, 1), 512);
        for newcomer in 2..8 {
            assert!(fill(&mut fairness, newcomer) > 0, "client {newcomer}");
        }
        (0..512).for_each(|_| fairness.done([192, 0, 2, 1].into()));
        assert!(fill(&mut fairness, 8) > 100);
    }

    #[test]
    fn a_client_that_is_done_is_forgotten() {
        let mut fairness = Fairness::new(4);
        assert!(fairness.admit([192, 0, 2, 1].into()));
        fairness.done([192, 0, 2, 1].into());
        fairness.done([192, 0, 2, 1].into());
        assert_eq!((fairness.waiting(), fairness.of.len()), (0, 0));
    }

    #[test]
    fn room_for_one_is_had_by_one() {
        let mut fairness = Fairness::new(1);
        assert!(fairness.admit([192, 0, 2, 1].into()));
        assert!(!fairness.admit([192, 0, 2, 2].into()));
    }
}
