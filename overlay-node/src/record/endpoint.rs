//! Endpoints.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use overlay_core::{EndpointId, Mac, Name, NetworkId, NodeId, ServiceId, UnixTime};
use overlay_dns::DnsName;
use overlay_lb::Weight;
use serde::{Deserialize, Serialize};

use crate::Condition;

/// The attachment of a container to a network that somebody wants.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct EndpointSpec {
    /// To which network.
    pub network: NetworkId,
    /// Which container: a name that no other container of the node has. It may be attached once to each network.
    pub container: Name,
    /// The node it runs on.
    pub node: NodeId,
    /// The service it serves; `None` needs an attachable network.
    pub service: Option<ServiceId>,
    /// Its names in the network besides the container's: host name, aliases, a task's name.
    #[serde(with = "crate::record::names")]
    pub names: Vec<DnsName>,
    /// At these addresses, at most one of a family; at any if there is none of a family.
    pub addresses: BTreeSet<IpAddr>,
    /// With this Ethernet address; one made of its IPv4 address, or of its id without one, if `None`.
    pub mac: Option<Mac>,
    /// What policies select it by.
    pub labels: BTreeMap<String, String>,
    /// Of the networks a container is on, that with the highest priority gives its default route, of equals that with the
    /// first name. Internal networks give none. 0 is usual.
    pub priority: i32,
    /// Its share of its service's work, relative to the others': see [`Balancing`](crate::Balancing). 1 is usual.
    #[serde(default, skip_serializing_if = "is_usual")]
    pub weight: Weight,
}

impl EndpointSpec {
    /// A container of no service at any address.
    pub const fn new(network: NetworkId, container: Name, node: NodeId) -> Self {
        Self {
            network,
            container,
            node,
            service: None,
            names: Vec::new(),
            addresses: BTreeSet::new(),
            mac: None,
            labels: BTreeMap::new(),
            priority: 0,
            weight: Weight::ONE,
        }
    }
}

/// An endpoint of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Endpoint {
    /// Names it for good.
    pub id: EndpointId,
    /// What was asked for; the node is where it is now.
    pub spec: EndpointSpec,
    /// Its addresses with their subnets' prefix lengths, one for each family the network has; none before it is
    /// [`Allocated`](Condition::Allocated).
    pub addresses: BTreeSet<IpNet>,
    /// Its Ethernet address.
    pub mac: Mac,
    /// How often it has moved: of two nodes that say they have it, the one that was told the higher number is right.
    pub moves: u64,
    /// When it was attached, by the manager's clock.
    pub created: UnixTime,
    /// How far it is.
    pub condition: Condition,
}

impl Endpoint {
    /// Its stay at the node where it is.
    pub const fn stay(&self) -> Stay {
        Stay { node: self.spec.node, moves: self.moves }
    }
}

/// One stay of an endpoint at a node, to which it may come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Stay {
    /// The node.
    pub node: NodeId,
    /// How often it had moved before: [`Endpoint::moves`].
    pub moves: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives it so")]
const fn is_usual(weight: &Weight) -> bool {
    weight.get() == 1
}
