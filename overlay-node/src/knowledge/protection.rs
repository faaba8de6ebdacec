//! By which keys the tunnels of encrypted networks are protected.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use overlay_core::NodeId;
use overlay_crypto::{EpochRecord, Issued};

/// Whether encrypted networks can be on this node, and by which keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Protection {
    /// They cannot, and why.
    Lacking(Arc<str>),
    /// They can: the keys that were agreed on with each other node.
    Keys(Arc<BTreeMap<NodeId, TunnelKeys>>),
}

/// What two nodes agreed on for the tunnel between them.
///
/// A key is put to work once, so these are kept as long as both epochs last, whether or not the other node is heard: who comes back as it was finds the
/// associations as they were.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunnelKeys {
    /// The other node's record.
    pub record: EpochRecord,
    /// This node's VTEP.
    pub local: IpAddr,
    /// The other's.
    pub peer: IpAddr,
    /// What this node sends by, lane by lane.
    pub sends: Vec<Issued>,
    /// What it takes, lane by lane.
    pub takes: Vec<Issued>,
}

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
