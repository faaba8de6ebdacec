//! Settings of a tunnel's outer headers.

use std::num::NonZeroU8;

use serde::{Deserialize, Serialize};

/// Time to live, or hop limit, of a tunnel's outer header.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ttl {
    /// The sender's usual value, 64 for Linux.
    #[default]
    Auto,
    /// That of the inner packet.
    Inherit,
    /// This many hops.
    Hops(NonZeroU8),
}

/// The DF bit of a tunnel's outer IPv4 header.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DontFragment {
    /// Clear: routers may fragment the datagram. Linux's default.
    #[default]
    Unset,
    /// Set: a datagram too large for a link is dropped, as RFC 7348 §4.3 advises.
    Set,
    /// That of the inner packet.
    Inherit,
}
