//! Networks.

use std::collections::BTreeMap;
use std::fmt;

use overlay_core::{IfName, IpFamily, Mtu, Name, NetworkId, Port, UnixTime, Vni};
use overlay_ipam::{Subnet, SubnetKind, SubnetRequest};
use overlay_link::MacvlanMode;
use serde::{Deserialize, Serialize};

use crate::Condition;

/// A network that somebody wants.
///
/// ```
/// use overlay_ipam::SubnetRequest;
/// use overlay_node::NetworkSpec;
///
/// let front = NetworkSpec {
///     subnets: vec![SubnetRequest::this("10.9.0.0/24".parse()?)],
///     attachable: true,
///     ..NetworkSpec::overlay("front".parse()?)
/// };
/// assert!(!front.internal && front.subnets.len() == 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkSpec {
    /// Its name: unique among networks, capitals or not, since DNS does not tell them apart.
    pub name: Name,
    /// What it is made of.
    pub kind: Kind,
    /// Its subnets, up to 16 of either family; one of IPv4, any, if none is named. Those of a macvlan network are the physical network's
    /// ([`SubnetKind::External`]), and must be named.
    pub subnets: Vec<SubnetRequest>,
    /// Whether containers may be attached that are of no service; to networks that are no overlays they always may.
    pub attachable: bool,
    /// Whether nothing leaves it and nothing comes in.
    pub internal: bool,
    /// Whether it is the routing mesh's. A cluster has at most one such network, and no container is attached to it.
    pub ingress: bool,
    /// Whether its traffic between nodes is inside ESP, and what it shares for that.
    #[serde(rename = "encrypted")]
    pub encryption: Encryption,
    /// Largest IP packet inside. If `None`, what the smallest underlay leaves to an overlay, what the node's underlay carries to a bridge, and
    /// Ethernet's 1,500 bytes to a macvlan. A larger one than an underlay has room for is not used: see
    /// [`Knowledge::mtu`](crate::Knowledge::mtu).
    pub mtu: Option<Mtu>,
    /// Its VNI, of an overlay; any that is free from 4096 on, if `None`.
    pub vni: Option<Vni>,
    /// What its user knows it by. Labels of containers are the endpoints'.
    pub labels: BTreeMap<String, String>,
}

impl NetworkSpec {
    /// An overlay network with any IPv4 subnet and nothing special about it.
    pub const fn overlay(name: Name) -> Self {
        Self::of(Kind::Overlay, name)
    }

    /// A network of this kind with nothing special about it. A macvlan network needs its subnets besides.
    pub const fn of(kind: Kind, name: Name) -> Self {
        Self {
            name,
            kind,
            subnets: Vec::new(),
            attachable: false,
            internal: false,
            ingress: false,
            encryption: Encryption::None,
            mtu: None,
            vni: None,
            labels: BTreeMap::new(),
        }
    }

    /// The subnets it wants: of an overlay and a bridge one of IPv4, if it names none.
    pub(crate) fn requests(&self) -> Vec<SubnetRequest> {
        let named = self.subnets.iter().cloned();
        match self.kind {
            Kind::Macvlan { .. } => {
                named.map(|request| SubnetRequest { kind: SubnetKind::External, ..request }).collect()
            }
            Kind::Overlay | Kind::Bridge if self.subnets.is_empty() => vec![SubnetRequest::any(IpFamily::V4)],
            Kind::Overlay | Kind::Bridge => named.collect(),
            Kind::Host | Kind::None => Vec::new(),
        }
    }
}

/// Whether an overlay's traffic between nodes is inside ESP. Written as `false`, `true` or `"own"`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "Written", into = "Written")]
pub enum Encryption {
    /// It is not.
    #[default]
    None,
    /// It is, at the UDP port and by the keys that all such networks of two nodes have together.
    Shared,
    /// It is, at a UDP port of its own and by keys of its own.
    Own,
}

impl Encryption {
    /// Whether there is any.
    pub const fn is_some(self) -> bool {
        !matches!(self, Self::None)
    }
}

impl fmt::Display for Encryption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::None => "none",
            Self::Shared => "shared",
            Self::Own => "own",
        })
    }
}

/// How an [`Encryption`] is written: as releases that had one alone wrote it, which refuse what they do not know.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Written {
    Whether(bool),
    Word(Word),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Word {
    Own,
}

impl From<Written> for Encryption {
    fn from(written: Written) -> Self {
        match written {
            Written::Whether(false) => Self::None,
            Written::Whether(true) => Self::Shared,
            Written::Word(Word::Own) => Self::Own,
        }
    }
}

impl From<Encryption> for Written {
    fn from(encryption: Encryption) -> Self {
        match encryption {
            Encryption::None => Self::Whether(false),
            Encryption::Shared => Self::Whether(true),
            Encryption::Own => Self::Word(Word::Own),
        }
    }
}

/// What a network is made of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Kind {
    /// VXLAN between nodes.
    #[default]
    Overlay,
    /// On each node a bridge of its own, with its gateway's address: those of one node reach each other, and the outside by it, as the node. The
    /// addresses are the cluster's, so that no two containers have the same.
    Bridge,
    /// Each container is a station of the physical network that this interface of its node is on. The interface has the same name on all nodes, and
    /// is not changed.
    Macvlan {
        /// The interface.
        parent: IfName,
        /// Whom of the parent's other macvlans a container hears.
        #[serde(default)]
        mode: MacvlanMode,
    },
    /// The nodes' own network: containers are on it by sharing their node's namespace, and nothing is attached to it.
    Host,
    /// No network: containers have their loopback device alone, and nothing is attached to it.
    None,
}

impl Kind {
    /// Whether it is one network on all nodes, or each node's own.
    pub const fn scope(self) -> Scope {
        match self {
            Self::Overlay => Scope::Cluster,
            Self::Bridge | Self::Macvlan { .. } | Self::Host | Self::None => Scope::Local,
        }
    }
}

/// Where a network is the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// On all nodes.
    Cluster,
    /// On one: each has its own of that name.
    Local,
}

impl fmt::Display for Kind {
    /// The kind alone, as `network ls` has it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Overlay => "overlay",
            Self::Bridge => "bridge",
            Self::Macvlan { .. } => "macvlan",
            Self::Host => "host",
            Self::None => "none",
        })
    }
}

/// Which families a network's subnets are of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Family {
    /// There is a subnet of IPv4.
    pub v4: bool,
    /// There is a subnet of IPv6.
    pub v6: bool,
}

/// A network of the cluster. All subnets of an overlay are on one VXLAN segment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Names it for good.
    pub id: NetworkId,
    /// What was asked for.
    pub spec: NetworkSpec,
    /// The subnets it has, in the order asked; none before it is [`Allocated`](Condition::Allocated).
    pub subnets: Vec<Subnet>,
    /// Its VNI; `None` before it is allocated, and of networks that are no overlays.
    pub vni: Option<Vni>,
    /// The UDP port of its own, of one that asked for [that](Encryption::Own), from when it is allocated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<Port>,
    /// When it was created, by the manager's clock.
    pub created: UnixTime,
    /// How far it is.
    pub condition: Condition,
}

impl Network {
    /// Which families its subnets are of.
    pub fn families(&self) -> Family {
        let has = |family| self.subnets.iter().any(|subnet| subnet.family() == family);
        Family { v4: has(IpFamily::V4), v6: has(IpFamily::V6) }
    }
}
