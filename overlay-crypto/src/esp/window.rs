//! Which sequence numbers were seen (RFC 4303 §3.4.3, RFC 6479), and which one 32 bits of one mean (RFC 4303 appendix A2).

use std::fmt;

use serde::{Deserialize, Serialize};

/// How many sequence numbers a receiver remembers: a multiple of 64 from 1,024 to 4,096, of which a packet may be late by one less.
///
/// 4,096 is the most that Linux takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct WindowSize(u32);

/// A number of sequence numbers that no receiver remembers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a replay window of {0} is no multiple of 64 from 1024 to 4096")]
pub struct WindowSizeError(pub u32);

impl WindowSize {
    /// The least, 1,024: a millisecond's disorder at a million packets a second.
    pub const MIN: Self = Self(1024);
    /// The most, 4,096.
    pub const MAX: Self = Self(4096);

    /// A window of so many sequence numbers.
    ///
    /// # Errors
    /// If it is out of range or no multiple of 64.
    pub const fn new(size: u32) -> Result<Self, WindowSizeError> {
        if size < Self::MIN.0 || size > Self::MAX.0 || !size.is_multiple_of(WORD) {
            return Err(WindowSizeError(size));
        }
        Ok(Self(size))
    }

    /// How many.
    pub const fn get(self) -> u32 {
        self.0
    }
}

/// [`MIN`](WindowSize::MIN).
impl Default for WindowSize {
    fn default() -> Self {
        Self::MIN
    }
}

impl TryFrom<u32> for WindowSize {
    type Error = WindowSizeError;

    fn try_from(size: u32) -> Result<Self, WindowSizeError> {
        Self::new(size)
    }
}

impl From<WindowSize> for u32 {
    fn from(size: WindowSize) -> Self {
        size.0
    }
}

/// The sequence numbers that a receiver has seen: the highest, and which of those below it.
///
/// A bitmap that is never shifted: moving on clears the words that are entered (RFC 6479). Constant time, but for that; 136 to
/// 1,024 bytes.
///
/// ```
/// use overlay_crypto::{ReplayWindow, WindowSize};
///
/// let mut window = ReplayWindow::new(WindowSize::MIN);
/// assert!(window.is_new(5));
/// window.mark(5);
/// assert!(!window.is_new(5), "seen");
/// assert!(window.is_new(4), "late");
/// window.mark(5_000);
/// assert!(!window.is_new(4), "too late: nobody knows");
/// ```
#[derive(Clone)]
pub struct ReplayWindow {
    highest: u64,
    size: WindowSize,
    words: Box<[u64]>, // a power of two, one more than the window's at least
}

const WORD: u32 = u64::BITS;

impl ReplayWindow {
    /// A window that has seen nothing. The one allocation there is.
    pub fn new(size: WindowSize) -> Self {
        let words = (size.0 / WORD + 1).next_power_of_two() as usize;
        Self { highest: 0, size, words: vec![0; words].into() }
    }

    /// Takes `sequence` for seen: only what was found authentic may be.
    #[inline]
    pub fn mark(&mut self, sequence: u64) {
        if sequence > self.highest {
            self.enter(sequence);
        }
        let (word, bit) = self.place(sequence);
        if let Some(word) = self.words.get_mut(word) {
            *word |= bit;
        }
    }

    /// Moves on to `sequence`, and forgets what stood in the words it comes to.
    fn enter(&mut self, sequence: u64) {
        let (from, to) = (self.highest / u64::from(WORD), sequence / u64::from(WORD));
        let entered = (to - from).min(self.words.len() as u64);
        for number in 0..entered {
            let index = self.wrap(to - number);
            if let Some(word) = self.words.get_mut(index) {
                *word = 0;
            }
        }
        self.highest = sequence;
    }

    /// Whether `sequence` was not seen, as far as is known: false for what is too old to be known. 0 is no sequence number.
    #[inline]
    pub fn is_new(&self, sequence: u64) -> bool {
        if sequence > self.highest {
            return true;
        }
        if sequence == 0 || self.highest - sequence >= u64::from(self.size.0) {
            return false;
        }
        let (word, bit) = self.place(sequence);
        self.words.get(word).is_some_and(|word| word & bit == 0)
    }

    /// The highest number that was seen, 0 at first.
    pub const fn highest(&self) -> u64 {
        self.highest
    }

    /// The sequence number whose low half is `low`, if it is less than 2^32 less the window's size ahead, or in the window
    /// (RFC 4303 appendix A2.1). `None` where the count would be past its end.
    #[inline]
    pub fn infer(&self, low: u32) -> Option<u64> {
        let (high, newest) = ((self.highest >> 32) as u32, self.highest as u32);
        let oldest = newest.wrapping_sub(self.size.0 - 1);
        let high = if newest >= self.size.0 - 1 {
            if low >= oldest { high } else { high.checked_add(1)? } // the window lies within one count of 2^32
        } else if low >= oldest {
            high.saturating_sub(1) // it began in the count before; the first has none before
        } else {
            high
        };
        Some(u64::from(high) << 32 | u64::from(low))
    }

    const fn wrap(&self, word: u64) -> usize {
        word as usize & (self.words.len() - 1)
    }

    const fn place(&self, sequence: u64) -> (usize, u64) {
        (self.wrap(sequence / WORD as u64), 1 << (sequence % WORD as u64))
    }
}

impl fmt::Debug for ReplayWindow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { highest, size, words: _ } = self;
        f.debug_struct("ReplayWindow").field("highest", highest).field("size", &size.0).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// The same by a set of all numbers ever seen.
    #[derive(Default)]
    struct Model(BTreeSet<u64>);

    impl Model {
        fn is_new(&self, sequence: u64, size: u64) -> bool {
            let highest = self.0.last().copied().unwrap_or(0);
            sequence != 0 && !self.0.contains(&sequence) && sequence.saturating_add(size) > highest
        }
    }

    fn size() -> impl Strategy<Value = WindowSize> {
        (16_u32..=64).prop_filter_map("in range", |words| WindowSize::new(words * 64).ok())
    }

    proptest! {
        #[test]
        fn a_window_says_what_a_set_of_all_numbers_would(
            size in size(),
            start in prop_oneof![Just(0_u64), (1_u64 << 32) - 3_000..(1 << 32) + 3_000, Just(u64::MAX - 5_000_000)],
            jumps in proptest::collection::vec(prop_oneof![-5_000_i64..100, -3..4_i64, 0_i64..20_000], 1..200),
        ) {
            let (mut window, mut model) = (ReplayWindow::new(size), Model::default());
            let mut at = start;
            for jump in jumps {
                at = at.saturating_add_signed(jump);
                let is_new = window.is_new(at);
                prop_assert_eq!(is_new, model.is_new(at, u64::from(size.get())), "{} of {:?}", at, window);
                if is_new {
                    window.mark(at);
                    model.0.insert(at);
                }
                prop_assert_eq!(Some(window.highest()), model.0.last().copied().or(Some(0)));
            }
        }

        /// RFC 4303 appendix A2: whatever is in the window or up to 2^32 less the window ahead is told from 32 bits.
        #[test]
        fn the_high_half_is_inferred_for_all_that_is_near(
            size in size(),
            highest in prop_oneof![0_u64..1 << 34, (1_u64 << 32) - 5_000..(1 << 32) + 5_000, any::<u64>()],
            ahead in prop_oneof![Just(1_u64 << 31), 0_u64..(1 << 32) - 4096, 0_u64..5_000],
            behind in 0_u64..4096,
        ) {
            let mut window = ReplayWindow::new(size);
            window.mark(highest);
            let later = highest.checked_add(ahead);
            if let Some(later) = later {
                prop_assert_eq!(window.infer(later as u32), Some(later));
            }
            let behind = behind % u64::from(size.get());
            if let Some(earlier) = highest.checked_sub(behind) {
                prop_assert_eq!(window.infer(earlier as u32), Some(earlier));
            }
        }
    }

    #[test]
    fn past_the_end_of_the_count_nothing_is_inferred() {
        let mut window = ReplayWindow::new(WindowSize::MIN);
        window.mark(u64::MAX);
        assert_eq!((window.infer(u32::MAX), window.infer(5)), (Some(u64::MAX), None));
    }

    #[test]
    fn a_window_of_another_size_is_refused() {
        for size in [0, 512, 1023, 1025, 4160] {
            assert_eq!(WindowSize::new(size), Err(WindowSizeError(size)));
        }
    }
}
