//! Networks.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use overlay_core::{IpFamily, Mtu, Name, NetworkId, UnixTime, Vni};
use overlay_ipam::{Subnet, SubnetRequest};
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
    /// Its subnets, up to 16 of either family; one of IPv4, any, if none is named.
    pub subnets: Vec<SubnetRequest>,
    /// Whether containers may be attached that are of no service.
    pub attachable: bool,
    /// Whether nothing leaves it and nothing comes in.
    pub internal: bool,
    /// Whether it is the routing mesh's. A cluster has at most one such network, and no container is attached to it.
    pub ingress: bool,
    /// Whether its traffic between nodes is inside ESP.
    pub encrypted: bool,
    /// Largest IP packet inside; what the smallest underlay leaves, if `None`. A larger one than that is not used: see
    /// [`Knowledge::mtu`](crate::Knowledge::mtu).
    pub mtu: Option<Mtu>,
    /// Its VNI; any that is free from 4096 on, if `None`.
    pub vni: Option<Vni>,
    /// What its user knows it by. Labels of containers are the endpoints'.
    pub labels: BTreeMap<String, String>,
}

impl NetworkSpec {
    /// An overlay network with any IPv4 subnet and nothing special about it.
    pub const fn overlay(name: Name) -> Self {
        Self {
            name,
            kind: Kind::Overlay,
            subnets: Vec::new(),
            attachable: false,
            internal: false,
            ingress: false,
            encrypted: false,
            mtu: None,
            vni: None,
            labels: BTreeMap::new(),
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
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Overlay => f.pad("overlay"),
        }
    }
}

impl FromStr for Kind {
    type Err = KindError;

    fn from_str(text: &str) -> Result<Self, KindError> {
        match text {
            "overlay" => Ok(Self::Overlay),
            _ => Err(KindError { found: text.to_owned() }),
        }
    }
}

/// A text that names no [`Kind`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no network is of kind {found:?}; there is `overlay`")]
pub struct KindError {
    /// What was given.
    pub found: String,
}

/// Which families a network's subnets are of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Family {
    /// There is a subnet of IPv4.
    pub v4: bool,
    /// There is a subnet of IPv6.
    pub v6: bool,
}

/// A network of the cluster. All its subnets are on one VXLAN segment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Names it for good.
    pub id: NetworkId,
    /// What was asked for.
    pub spec: NetworkSpec,
    /// The subnets it has, in the order asked; none before it is [`Allocated`](Condition::Allocated).
    pub subnets: Vec<Subnet>,
    /// Its VNI; `None` before it is allocated.
    pub vni: Option<Vni>,
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
