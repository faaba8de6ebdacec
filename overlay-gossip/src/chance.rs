//! Chance from a seed.

use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// Draws that are a function of a seed.
#[derive(Debug, Clone)]
pub(crate) struct Chance(ChaCha8Rng);

impl Chance {
    pub(crate) fn new(seed: [u8; 32]) -> Self {
        Self(ChaCha8Rng::from_seed(seed))
    }

    /// A number from 0 up to, not including, `end`; 0 for 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        match end {
            0 => 0,
            _ => (self.0.next_u64() % end as u64) as usize,
        }
    }

    pub(crate) fn number(&mut self) -> u32 {
        self.0.next_u32()
    }

    /// True with the probability `part / whole`.
    pub(crate) fn one_of(&mut self, part: usize, whole: usize) -> bool {
        self.below(whole.max(1)) < part
    }

    /// A span from three quarters of `span` to five quarters.
    pub(crate) fn around(&mut self, span: Duration) -> Duration {
        span.mul_f64(0.75 + self.below(1_000) as f64 / 2_000.0)
    }

    /// A span from none to `span`.
    pub(crate) fn within(&mut self, span: Duration) -> Duration {
        span.mul_f64(self.below(1_000) as f64 / 1_000.0)
    }

    pub(crate) fn seed(&mut self) -> [u8; 32] {
        let mut seed = [0; 32];
        self.0.fill_bytes(&mut seed);
        seed
    }
}
