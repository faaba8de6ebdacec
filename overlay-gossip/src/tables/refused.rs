//! Why a change of one's own is not made.

use overlay_core::NetworkId;

use crate::tables::VALUE_LIMIT;

/// A change that the tables did not make; nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// Entries are made in networks that the node subscribes to.
    #[error("this node does not subscribe to network {network}; subscribe first")]
    NotSubscribed {
        /// The network.
        network: NetworkId,
    },
    /// The id of all zeros is where subscriptions are kept.
    #[error("the network of all zeros is reserved")]
    Reserved,
    /// A value above the limit.
    #[error("a value has at most {VALUE_LIMIT} bytes, this has {found}")]
    ValueTooLong {
        /// Bytes given.
        found: usize,
    },
    /// This node's entries in the network are at a limit of [`TablesConfig`](crate::TablesConfig).
    #[error("this node has {entries} entries of {bytes} bytes in the network, which is the limit; remove some")]
    Full {
        /// Entries it has.
        entries: usize,
        /// What they count for.
        bytes: usize,
    },
    /// As many networks as [`TablesConfig::networks_limit`](crate::TablesConfig::networks_limit) allows.
    #[error("this node subscribes to {found} networks, which is the limit")]
    TooManyNetworks {
        /// Networks it subscribes to.
        found: usize,
    },
}
