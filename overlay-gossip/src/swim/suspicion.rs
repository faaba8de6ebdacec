//! A suspected member's time to object.

use std::time::Duration;

use overlay_core::{Instant, NodeId};

use crate::Config;

/// Who accuses a member, and until when it may object (Lifeguard §4.2).
#[derive(Debug, Clone)]
pub(super) struct Suspicion {
    pub(super) start: Instant,
    pub(super) deadline: Instant,
    pub(super) accusers: Vec<NodeId>,
}

impl Suspicion {
    /// Adds accusers that are new; true if there were any.
    pub(super) fn confirm(&mut self, by: impl IntoIterator<Item = NodeId>, limit: usize) -> bool {
        let before = self.accusers.len();
        for accuser in by {
            if self.accusers.len() < limit && !self.accusers.contains(&accuser) {
                self.accusers.push(accuser);
            }
        }
        self.accusers.len() > before
    }
}

/// How long a member that `accusers` accuse in a cluster of `n` has: the longest for one accuser, the least for
/// `confirmations` more, logarithmically between. A cluster too small for so many expects as many as it can have.
pub(super) fn time_to_object(config: &Config, n: usize, accusers: usize) -> Duration {
    let least = config.suspicion_factor * (n.max(1) as f64).log10().max(1.0) * config.probe_period.as_secs_f64();
    let longest = least * config.suspicion_stretch;
    let expected = usize::from(config.confirmations).min(n.saturating_sub(2));
    if expected == 0 {
        return Duration::from_secs_f64(least);
    }
    let share = (accusers as f64).ln().max(0.0) / ((expected + 1) as f64).ln();
    Duration::from_secs_f64((longest - (longest - least) * share).max(least))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn confirmations_shorten_the_time_to_the_least() {
        let config = Config::lan();
        let seconds = |n, accusers| time_to_object(&config, n, accusers).as_secs_f64();
        assert!((seconds(1_000, 1) - 22.5).abs() < 1e-9);
        assert!((seconds(1_000, 4) - 4.5).abs() < 1e-9);
        assert!(seconds(1_000, 2) < seconds(1_000, 1) && seconds(1_000, 3) < seconds(1_000, 2));
        assert!((seconds(2, 1) - 1.5).abs() < 1e-9, "nobody else could confirm");
        assert!((seconds(3, 2) - 1.5).abs() < 1e-9);
    }

    #[test]
    fn an_accuser_counts_once() {
        let mut suspicion = Suspicion { start: Instant::ZERO, deadline: Instant::ZERO, accusers: vec![] };
        let [a, b, c] = [1, 2, 3].map(|n| NodeId::from_bytes([n; 16]));
        assert!(suspicion.confirm([a, b], 2));
        assert!(!suspicion.confirm([a, b, c], 2), "known, and above the limit");
    }
}
