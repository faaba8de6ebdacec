//! By which keys the tunnels of encrypted networks are protected.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use overlay_core::{NetworkId, NodeId};
use overlay_crypto::{EpochRecord, Issued};

/// Whether encrypted networks can be on this node, and by which keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Protection {
    /// They cannot, and why.
    Lacking(Arc<str>),
    /// They can: the keys that were agreed on with each other node.
    Keys(Arc<BTreeMap<NodeId, TunnelKeys>>),
}

/// What two nodes agreed on for the tunnels between them.
///
/// A key is put to work once, so these are kept as long as both epochs last, whether or not the other node answers: who comes back as it was finds the
/// associations as they were. They go with the node, when it has left or is given up, and those of a network with that network here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunnelKeys {
    /// The other node's present record, for which this node seals.
    pub record: EpochRecord,
    /// This node's VTEP.
    pub local: IpAddr,
    /// The other's.
    pub peer: IpAddr,
    /// The keys of each tunnel.
    pub tunnels: BTreeMap<Carried, LaneKeys>,
}

/// What a tunnel between two nodes carries, at a port and by keys that nothing else has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Carried {
    /// All encrypted networks that [share](crate::Encryption::Shared) a port.
    Shared,
    /// This network, which has its [own](crate::Encryption::Own).
    Own(NetworkId),
}

/// The keys of a tunnel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LaneKeys {
    /// What this node sends by, lane by lane.
    pub sends: Vec<Issued>,
    /// What it takes: of each epoch that is to be opened, lane by lane.
    pub takes: Vec<Issued>,
}

impl Carried {
    /// What its keys are bound to.
    pub(crate) const fn network(self) -> NetworkId {
        match self {
            Self::Shared => SHARED,
            Self::Own(network) => network,
        }
    }
}

/// What keys are for that several networks share. No network that has its own has this id.
pub(super) const SHARED: NetworkId = NetworkId::from_bytes([0; 16]);

impl Default for Protection {
    fn default() -> Self {
        Self::Lacking("nobody gave it chance for keys".into())
    }
}

impl Protection {
    /// Why there is none, if so.
    pub fn lacking(&self) -> Option<&str> {
        match self {
            Self::Lacking(reason) => Some(reason),
            Self::Keys(_) => None,
        }
    }

    /// What was agreed on with a node.
    pub fn with(&self, node: NodeId) -> Option<&TunnelKeys> {
        match self {
            Self::Lacking(_) => None,
            Self::Keys(keys) => keys.get(&node),
        }
    }
}
