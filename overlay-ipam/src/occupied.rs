//! What is in use already, so that no network is put there.

use std::fmt;

use ipnet::IpNet;
use overlay_core::{BackendError, NodeId};
use serde::{Deserialize, Serialize};

/// Says which addresses a machine has in use: one implementation reads a Linux kernel (`HostNetworks`, feature `kernel`),
/// another could ask a cloud. Nodes send what they find to the managers ([`Allocator::report`](crate::Allocator::report)).
///
/// ```
/// use overlay_core::BackendError;
/// use overlay_ipam::{Occupant, Occupation, Occupied};
///
/// /// The company's list.
/// struct Corporate;
///
/// impl Occupied for Corporate {
///     fn occupied(&mut self) -> Result<Vec<Occupation>, BackendError> {
///         let net = ipnet::IpNet::new_assert([10, 20, 0, 0].into(), 16);
///         Ok(vec![Occupation { net, by: Occupant::Excluded }])
///     }
/// }
/// ```
pub trait Occupied {
    /// What is in use now.
    ///
    /// # Errors
    /// If it could not be found out; a part is never given for the whole.
    fn occupied(&mut self) -> Result<Vec<Occupation>, BackendError>;
}

/// Addresses in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Occupation {
    /// The addresses.
    pub net: IpNet,
    /// By what.
    pub by: Occupant,
}

/// What occupies addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Occupant {
    /// Somebody said so: configured not to be used.
    Excluded,
    /// A host has a route to it.
    Route,
    /// It is a host's name server.
    NameServer,
    /// A node reported it.
    Node(NodeId),
}

impl fmt::Display for Occupant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Excluded => f.write_str("an exclusion"),
            Self::Route => f.write_str("a route of a host"),
            Self::NameServer => f.write_str("a host's name server"),
            Self::Node(node) => write!(f, "something on node {}", node.short()),
        }
    }
}
