//! One upstream server, as it has shown itself.

use std::net::SocketAddr;
use std::time::Duration;

use crate::UpstreamMetrics;

/// What is known of a server.
#[derive(Debug, Clone)]
pub(super) struct Upstream {
    pub(super) address: SocketAddr,
    rtt: Option<Rtt>,
    silent: u32,
    /// Whether it answered what it could not read with EDNS when that was left out, so that it is asked without
    /// (RFC 6891 §6.2.2).
    pub(super) plain: bool,
    pub(super) sent: u64,
    answered: u64,
}

/// Smoothed as TCP does (RFC 6298 §2).
#[derive(Debug, Clone, Copy)]
struct Rtt {
    mean: Duration,
    variance: Duration,
}

/// What a server is taken for that was not heard yet.
const UNKNOWN: Rtt = Rtt { mean: Duration::from_millis(50), variance: Duration::from_millis(25) };
/// A silent server's cost doubles so often: after it, others are asked first for as long as they answer.
const MAX_SILENT: u32 = 8;

impl Upstream {
    pub(super) const fn new(address: SocketAddr) -> Self {
        Self { address, rtt: None, silent: 0, plain: false, sent: 0, answered: 0 }
    }

    /// By what servers are put in order: the time in which an answer can be expected, more if there was none lately.
    pub(super) fn cost(&self) -> Duration {
        self.expected() * (1 << self.silent.min(MAX_SILENT))
    }

    /// In which time nearly all answers come.
    pub(super) fn expected(&self) -> Duration {
        let rtt = self.rtt.unwrap_or(UNKNOWN);
        rtt.mean + 4 * rtt.variance
    }

    /// An answer came after `took`, to a query with or without EDNS.
    pub(super) fn heard(&mut self, took: Duration, with_edns: bool) {
        self.plain = !with_edns;
        self.silent = 0;
        self.answered += 1;
        self.rtt = Some(match self.rtt {
            None => Rtt { mean: took, variance: took / 2 },
            Some(Rtt { mean, variance }) => {
                let off = mean.abs_diff(took);
                Rtt { mean: (mean * 7 + took) / 8, variance: (variance * 3 + off) / 4 }
            }
        });
    }

    /// A query had no answer.
    pub(super) fn was_silent(&mut self) {
        self.silent = self.silent.saturating_add(1);
    }

    pub(super) fn metrics(&self) -> UpstreamMetrics {
        UpstreamMetrics {
            address: self.address,
            rtt: self.rtt.map(|rtt| rtt.mean),
            silent: self.silent,
            sent: self.sent,
            answered: self.answered,
        }
    }
}
