//! How often something may happen.

use std::time::Duration;

use overlay_core::Instant;

/// So many in a second, and so many at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// In a second; none where it is 0.
    pub per_second: u32,
    /// At once, after a while without.
    pub burst: u32,
}

#[derive(Debug)]
pub(crate) struct Bucket {
    rate: Rate,
    tokens: u32,
    since: Instant,
}

impl Bucket {
    pub(crate) const fn new(rate: Rate, now: Instant) -> Self {
        Self { rate, tokens: if rate.per_second == 0 { 0 } else { rate.burst }, since: now }
    }

    pub(crate) fn take(&mut self, now: Instant) -> bool {
        if self.rate.per_second > 0 {
            let between = Duration::from_secs(1) / self.rate.per_second;
            let more = (now - self.since).as_nanos() / between.as_nanos().max(1);
            if more > 0 {
                let more = u32::try_from(more).unwrap_or(u32::MAX);
                self.tokens = self.tokens.saturating_add(more).min(self.rate.burst);
                self.since = now;
            }
        }
        let may = self.tokens > 0;
        self.tokens = self.tokens.saturating_sub(1);
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_at_once_and_then_so_many_in_a_second() {
        let mut bucket = Bucket::new(Rate { per_second: 10, burst: 3 }, Instant::ZERO);
        let mut taken = |millis: u64| {
            let now = Instant::ZERO + Duration::from_millis(millis);
            (0..100).take_while(|_| bucket.take(now)).count()
        };
        assert_eq!([taken(0), taken(50), taken(150), taken(10_000)], [3, 0, 1, 3]);
        assert!(!Bucket::new(Rate { per_second: 0, burst: 9 }, Instant::ZERO).take(Instant::FAR_FUTURE));
    }
}
