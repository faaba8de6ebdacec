//! What a deadline is for.

use std::fmt;

/// Why [`Gossip::poll_timeout`](crate::Gossip::poll_timeout) wants to be woken: for logs, and for tests that ask what a machine
/// waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// The next member is due to be probed, or the running probe to be repeated or judged.
    Probe,
    /// A suspected member's time to object runs out.
    Suspicion,
    /// News is to be passed on.
    Gossip,
    /// A seed or a suspended member is to be called.
    Seed,
    /// Membership is to be compared with another node's.
    Sync,
    /// A suspended or left member is to be forgotten.
    Expiry,
    /// A leave is complete.
    Leave,
    /// The tables wait for an answer, or are due to be compared.
    Tables,
    /// A timer of foca's.
    Foca,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Probe => "probe",
            Self::Suspicion => "suspicion",
            Self::Gossip => "gossip",
            Self::Seed => "seed",
            Self::Sync => "sync",
            Self::Expiry => "expiry",
            Self::Leave => "leave",
            Self::Tables => "tables",
            Self::Foca => "foca",
        })
    }
}
