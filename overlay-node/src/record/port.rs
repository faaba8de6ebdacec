//! Published ports.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use overlay_core::{IfName, Name, NodeId, Port, Protocol, is_host_address};
use serde::{Deserialize, Serialize};

/// A port of a service that is reached from outside.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PublishedPort {
    /// Its name, by which SRV finds it, if it has one.
    pub name: Option<Name>,
    /// Of which the port is.
    pub protocol: Protocol,
    /// The container's port.
    pub target: Port,
    /// The port that clients ask for; any from 30000 to 32767 if `None`.
    pub published: Option<Port>,
    /// Where.
    pub mode: PublishMode,
    /// Whom containers see.
    #[serde(default, skip_serializing_if = "ClientSource::is_kept")]
    pub source: ClientSource,
    /// Where on a node, on which of them, and by whom: everywhere and by everybody, if nothing is said.
    #[serde(default, skip_serializing_if = "Access::is_open")]
    pub access: Access,
}

impl PublishedPort {
    /// A port of containers, published everywhere at any port.
    pub fn new(protocol: Protocol, target: Port) -> Self {
        let (published, mode) = (None, PublishMode::Ingress);
        let (source, access) = Default::default();
        Self { name: None, protocol, target, published, mode, source, access }
    }

    /// Whether it makes sense.
    ///
    /// # Errors
    /// The first thing that does not.
    pub fn check(&self) -> Result<(), AccessError> {
        match (self.mode, self.source) {
            (PublishMode::Host, ClientSource::Masquerade) => Err(AccessError::HostMasquerade),
            _ => self.access.check(),
        }
    }
}

/// As `service ls` shows it: `*:80->8080/tcp`, and what is not usual of it.
impl fmt::Display for PublishedPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { published, target, protocol, mode, source, .. } = self;
        match published {
            Some(published) => write!(f, "*:{published}->{target}/{protocol}")?,
            None => write!(f, "{target}/{protocol}")?,
        }
        f.write_str(match mode {
            PublishMode::Ingress => "",
            PublishMode::Local => " local",
            PublishMode::Host => " host",
        })?;
        f.write_str(if source.is_kept() { "" } else { " masqueraded" })
    }
}

/// Where a published port is reached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PublishMode {
    /// At every node of the cluster, through the ingress network.
    #[default]
    Ingress,
    /// The same, but a node leads who asks there to containers of its own only, and refuses who asks where there is none.
    Local,
    /// At the nodes that its endpoints are on, by their own ways out, with no ingress network between.
    Host,
}

impl PublishMode {
    /// Whether it takes the ingress network.
    pub const fn is_of_mesh(self) -> bool {
        matches!(self, Self::Ingress | Self::Local)
    }
}

/// Whom the containers behind a published port see as the client.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientSource {
    /// Who asks.
    #[default]
    Client,
    /// The node that takes the client in, by its address on the ingress network: for containers that cannot be made to answer through it, as those
    /// in virtual machines, or that have marks and routes of their own. Not in mode host. What [`Access::sources`] allows is still who asks.
    ///
    /// A container all of whose service's ports of the mesh are so gets no marks, routes or rules of the mesh: so who else is on the ingress
    /// network is not kept from its other ports there.
    Masquerade,
}

impl ClientSource {
    /// Whether containers see who asks.
    pub const fn is_kept(&self) -> bool {
        matches!(self, Self::Client)
    }
}

/// Where on a node a published port is reached, on which nodes, and by whom.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Access {
    /// At these addresses only, whichever node has one; at all of a node where empty. No loopback ones: what is sent there does not leave a node.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub addresses: BTreeSet<IpAddr>,
    /// By these interfaces of a node only, and not from the node itself; by all where empty. Not besides addresses.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub interfaces: BTreeSet<IfName>,
    /// At these nodes only; at all where empty. Elsewhere the port is the node's own.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub nodes: BTreeSet<NodeId>,
    /// By clients of these subnets only, and those on the node itself; by everybody where empty. What others send is dropped.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub sources: BTreeSet<IpNet>,
}

impl Access {
    /// The most addresses, interfaces or sources of one port.
    pub const MOST: usize = 64;
    /// The most nodes.
    pub const MOST_NODES: usize = 1024;

    /// Whether nothing is said.
    pub fn is_open(&self) -> bool {
        *self == Self::default()
    }

    /// Whether the port is reached at this node at all.
    pub fn is_at(&self, node: NodeId) -> bool {
        self.nodes.is_empty() || self.nodes.contains(&node)
    }

    /// Whether it makes sense.
    ///
    /// # Errors
    /// The first thing that does not.
    pub fn check(&self) -> Result<(), AccessError> {
        let Self { addresses, interfaces, nodes, sources } = self;
        let sizes = [
            ("addresses", addresses.len(), Self::MOST),
            ("interfaces", interfaces.len(), Self::MOST),
            ("nodes", nodes.len(), Self::MOST_NODES),
            ("sources", sources.len(), Self::MOST),
        ];
        if let Some((what, found, most)) = sizes.into_iter().find(|(_, found, most)| found > most) {
            return Err(AccessError::TooMany { what, found, most });
        }
        if !addresses.is_empty() && !interfaces.is_empty() {
            return Err(AccessError::AddressAndInterface);
        }
        addresses.iter().try_for_each(|address| bound(*address))?;
        if interfaces.iter().any(|interface| interface.as_str() == "lo") {
            return Err(AccessError::LoopbackInterface);
        }
        match sources.iter().find(|net| net.trunc() != **net || is_mapped(net.addr())) {
            Some(net) => Err(AccessError::Source(*net)),
            None => Ok(()),
        }
    }
}

fn bound(address: IpAddr) -> Result<(), AccessError> {
    let link_local = matches!(address, IpAddr::V6(address) if address.is_unicast_link_local());
    match () {
        () if address.is_loopback() => Err(AccessError::Loopback(address)),
        () if !is_host_address(address) || is_mapped(address) || link_local => Err(AccessError::Address(address)),
        () => Ok(()),
    }
}

const fn is_mapped(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.to_ipv4_mapped().is_some())
}

/// Why a port cannot be published so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AccessError {
    /// No host's address, or one of a link.
    #[error("nothing is published at {0}: name an address that a node has, and not a link-local one, or none for all")]
    Address(IpAddr),
    /// A loopback address.
    #[error(
        "nothing is published at {0}, as what is sent there does not leave a node: name another address, and allow that one alone"
    )]
    Loopback(IpAddr),
    /// The loopback interface.
    #[error("nobody comes in by interface lo: name an address of the node instead, and allow that one alone")]
    LoopbackInterface,
    /// Both addresses and interfaces.
    #[error("a port is published at addresses or by interfaces, not both: leave one of them out")]
    AddressAndInterface,
    /// A node that is in place of clients where it runs the container.
    #[error(
        "a source is masqueraded in modes ingress and local alone: in mode host the node that is asked runs the container; leave it out"
    )]
    HostMasquerade,
    /// No network.
    #[error("{0} is no subnet of clients: write the first address of it, and IPv4 as IPv4")]
    Source(IpNet),
    /// More than a port may name.
    #[error("{found} {what} for one port are too many: name {most} at most")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many.
        found: usize,
        /// How many there may be.
        most: usize,
    },
}
