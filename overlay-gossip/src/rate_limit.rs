//! How many messages of strangers are read.

use overlay_core::Instant;

/// A bucket of tokens: `burst` at once, `rate` per second after that.
#[derive(Debug)]
pub(crate) struct RateLimit {
    rate: u64,
    burst: u64,
    /// In billionths of a token, so that none is lost to rounding.
    tokens: u64,
    filled: Instant,
}

const WHOLE: u64 = 1_000_000_000;

impl RateLimit {
    pub(crate) fn new(rate: u32, burst: u32, now: Instant) -> Self {
        Self { rate: rate.into(), burst: burst.into(), tokens: u64::from(burst) * WHOLE, filled: now }
    }

    /// Takes a token; false if there is none.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        let is_there = self.is_left(now);
        if is_there {
            self.tokens -= WHOLE;
        }
        is_there
    }

    /// Whether there is a token.
    pub(crate) fn is_left(&mut self, now: Instant) -> bool {
        let nanos = (now - self.filled).as_nanos().min(u64::MAX.into()) as u64;
        self.filled = self.filled.max(now);
        self.tokens = self.tokens.saturating_add(nanos.saturating_mul(self.rate)).min(self.burst * WHOLE);
        self.tokens >= WHOLE
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_burst_passes_and_then_as_many_as_the_rate_allows() {
        let mut limit = RateLimit::new(10, 5, Instant::ZERO);
        let mut passed = |from: u64, count: u64, step: u64| {
            (0..count).filter(|n| limit.take(Instant::ZERO + Duration::from_millis(from + n * step))).count()
        };
        assert_eq!(passed(0, 20, 0), 5);
        assert_eq!(passed(0, 1_001, 1), 10);
        assert_eq!(passed(10_000, 20, 0), 5, "no more than a burst is saved up");
    }
}
