//! Who a certificate says that one is.

use std::fmt;
use std::str::FromStr;

use overlay_core::{ClusterId, NodeId};
use serde::{Deserialize, Serialize};

/// What a node may do in its cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// It serves the catalogue, and may do so for others.
    Manager,
    /// It runs containers, and may speak for itself alone.
    Worker,
}

/// A text that is no role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no role {0:?}: manager, worker")]
pub struct RoleError(pub String);

/// A node of a cluster, and its role: the subject of its certificate. Common name the node's id, organisational unit `swarm-manager` or `swarm-worker`, organisation the
/// cluster's id; the same two as DNS names, with `swarm-ca` for managers.
///
/// ```
/// use overlay_core::{ClusterId, NodeId};
/// use overlay_crypto::pki::{Identity, Role};
///
/// let (node, cluster) = (NodeId::from_bytes([1; 16]), ClusterId::from_bytes([2; 16]));
/// let ann = Identity { node, role: Role::Worker, cluster };
/// assert_eq!(ann.to_string(), format!("worker {node} of cluster {cluster}"));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Identity {
    /// The node.
    pub node: NodeId,
    /// What it may do.
    pub role: Role,
    /// Its cluster.
    pub cluster: ClusterId,
}

impl Role {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Manager, Self::Worker];

    /// The organisational unit of a certificate.
    pub(super) const fn unit(self) -> &'static str {
        match self {
            Self::Manager => "swarm-manager",
            Self::Worker => "swarm-worker",
        }
    }

    pub(super) fn of_unit(unit: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.unit() == unit)
    }
}

impl Identity {
    /// The DNS names of its certificate.
    pub(super) fn names(&self) -> Vec<String> {
        let both = [self.role.unit().to_owned(), self.node.to_string()];
        let more = (self.role == Role::Manager).then(|| AUTHORITY.to_owned());
        both.into_iter().chain(more).collect()
    }
}

/// The common name of a root, and what managers are called too.
pub(super) const AUTHORITY: &str = "swarm-ca";

impl FromStr for Role {
    type Err = RoleError;

    fn from_str(text: &str) -> Result<Self, RoleError> {
        Self::ALL.into_iter().find(|role| role.to_string() == text).ok_or_else(|| RoleError(text.to_owned()))
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Manager => "manager",
            Self::Worker => "worker",
        })
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} of cluster {}", self.role, self.node, self.cluster)
    }
}
