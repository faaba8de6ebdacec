//! What a node knows: the one input of what it should hold.

mod claims;
pub(crate) mod gateway;
mod protection;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::Arc;

use overlay_core::{
    AddressSet, Encapsulation, EndpointId, Esp, IfName, IpFamily, Mac, Mtu, MtuError, Name, NetworkId, NodeId, NsKey,
    Port, PortRange, Protocol, ServiceId,
};
use overlay_crypto::{Cause, EpochRecords, Lanes, Limits};
use overlay_dns::{DnsName, Health};
use overlay_lb::Weight;
use serde::Serialize;

pub use gateway::{GatewayBridge, GatewayPort};
pub use protection::{Carried, LaneKeys, Protection, TunnelKeys};

pub use claims::Contest;
pub(crate) use claims::{Assigned, Assignments, Claims};

use crate::{Encryption, Endpoint, Kind, Network, Service};

/// Everything a node knows of the cluster, in sections that change one by one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Knowledge {
    /// Which node it is.
    pub me: NodeId,
    /// What each node says of itself, this one's included. Without those that are gone.
    pub nodes: Arc<BTreeMap<NodeId, NodeFacts>>,
    /// What is known of each network that this node follows.
    pub networks: BTreeMap<NetworkId, Arc<Section>>,
    /// Which of this node's containers are where at its gateway bridge, by their names.
    pub gateway_ports: Arc<BTreeMap<Name, GatewayPort>>,
    /// Whether encrypted networks can be here, and by which keys their tunnels are protected.
    pub protection: Protection,
    /// What the cluster's nodes, as the catalogue has them, have published of their keys, this one included: those that take part in an encrypted network that this node is on.
    pub records: Arc<BTreeMap<NodeId, EpochRecords>>,
    /// Why this node's keys were changed for others last; `None` if they were not yet.
    pub rotated: Option<Cause>,
    /// What does not change while the node runs.
    pub settings: Arc<Settings>,
}

/// Where a container asks for names, at port 53: an address of its own loopback device.
pub const RESOLVER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);

/// What holds for all that a node does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The UDP port of VXLAN, one in the cluster.
    pub vxlan_port: Port,
    /// The UDP port that encrypted networks share, one in the cluster and no other's.
    pub encrypted_port: Port,
    /// The UDP ports of which encrypted networks have their own, the cluster's and nobody else's.
    pub own_ports: PortRange,
    /// How many associations a protected tunnel sends by, one number in the cluster.
    pub lanes: Lanes,
    /// How much each of those seals.
    pub limits: Limits,
    /// This node's gossip port, for datagrams and streams. Not VXLAN's.
    pub gossip_port: Port,
    /// Packets in a second that pass there from all that are no nodes together.
    pub stranger_rate: NonZeroU32,
    /// As many more may pass at once.
    pub stranger_burst: u32,
    /// Where a container's resolver listens, at [`RESOLVER`] in the container; what is asked at port 53 there is led to it.
    pub resolver_port: Port,
    /// Domains under which containers find all names as well.
    pub suffixes: Vec<DnsName>,
    /// The bridge by which containers reach the outside; they do not if `None`.
    pub gateway: Option<GatewayBridge>,
    /// The host's namespace, in which the node takes part in the routing mesh; it does not if `None`.
    pub host: Option<NsKey>,
    /// Ports that the node needs itself and does not publish, besides its gossip port and VXLAN's.
    pub kept: BTreeSet<(Protocol, Port)>,
}

impl Settings {
    /// The UDP port of an overlay's tunnels; of one that should have its own, none before it is given one of those that are for that.
    pub(crate) fn tunnel_port(&self, network: &Network) -> Option<Port> {
        match network.spec.encryption {
            Encryption::None => Some(self.vxlan_port),
            Encryption::Shared => Some(self.encrypted_port),
            Encryption::Own if network.id == protection::SHARED => None,
            Encryption::Own => network.port.filter(|port| self.own_ports.contains(*port)),
        }
    }
}

impl Section {
    /// Whether its datagrams are to pass in ESP only.
    pub(crate) fn is_encrypted(&self) -> bool {
        self.network.spec.encryption.is_some() && self.network.spec.kind == Kind::Overlay
    }

    /// What carries it between nodes, if that is protected.
    pub(crate) fn carried(&self) -> Option<Carried> {
        let own = Carried::Own(self.network.id);
        let is_own = self.network.spec.encryption == Encryption::Own;
        self.is_encrypted().then_some(if is_own { own } else { Carried::Shared })
    }

    /// Whether something of it is plugged in here that passes in ESP only.
    pub(crate) fn needs_protection(&self) -> bool {
        self.is_encrypted() && !self.local.is_empty()
    }
}

impl Knowledge {
    /// The largest packet inside a network: what the smallest underlay leaves, of all nodes that are known and this one, and at
    /// most what the network was created with. All nodes that know of the same nodes come to the same, so no packet is
    /// dropped on its way for being too large.
    ///
    /// Nodes whose underlay leaves too little for the network, 1,280 bytes with IPv6, do not count: they take no part in it.
    ///
    /// A bridge has what this node's underlay carries, a macvlan network what it was created with, or Ethernet's 1,500 bytes.
    ///
    /// # Errors
    /// If this node is one of those, or the network was created with less than its families need; `found` says what is left.
    pub fn mtu(&self, network: &Network) -> Result<Mtu, MtuError> {
        let least = if network.families().v6 { Mtu::IPV6_MIN } else { Mtu::MIN };
        let Some(me) = self.nodes.get(&self.me) else { return Err(MtuError { found: 0 }) };
        let inner = |underlay| encapsulation(me.vtep, network.spec.encryption.is_some()).inner_mtu(underlay);
        let enough = |mtu: Mtu| if mtu < least { Err(MtuError { found: mtu.get() }) } else { Ok(mtu) };
        let most = match network.spec.kind {
            Kind::Overlay => {
                let here = enough(inner(me.mtu)?)?;
                let others = self.nodes.values().filter_map(|facts| inner(facts.mtu).and_then(enough).ok());
                others.fold(here, Mtu::min)
            }
            Kind::Macvlan { .. } => return enough(network.spec.mtu.unwrap_or(Mtu::ETHERNET)),
            Kind::Bridge | Kind::Host | Kind::None => me.mtu,
        };
        enough(network.spec.mtu.map_or(most, |wanted| wanted.min(most)))
    }
}

/// What is around the packets of an overlay, between VTEPs of that one's family.
pub(crate) fn encapsulation(vtep: IpAddr, encrypted: bool) -> Encapsulation {
    let plain = Encapsulation::vxlan(IpFamily::of(vtep));
    if encrypted { plain.with_esp(Esp::default()) } else { plain }
}

/// What a node tells about itself, in its gossip metadata, and what is believed of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeFacts {
    /// Where its gossip is from.
    pub address: SocketAddr,
    /// Where its datagrams are sent from and received at.
    pub vtep: IpAddr,
    /// Largest packet of the underlay there.
    pub mtu: Mtu,
    /// Whether it answers.
    pub standing: Standing,
}

/// Whether a node answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// It does.
    Alive,
    /// Somebody's probes of it failed, and it has time to object: its endpoints are named after all others.
    Suspected,
    /// It is believed failed: its endpoints are named after all others, and out of sight after a grace.
    Suspended,
}

/// What is known of one network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// The network.
    pub network: Arc<Network>,
    /// Its endpoints that are plugged in on this node.
    pub local: BTreeMap<EndpointId, Arc<LocalEndpoint>>,
    /// Its endpoints on other nodes, those of nodes that were suspended for long left out: as their nodes say, where the catalogue
    /// says so too. None of them is in [`local`](Self::local).
    pub remote: BTreeMap<EndpointId, Arc<RemoteEndpoint>>,
    /// The services that are on it.
    pub services: BTreeMap<ServiceId, Arc<Service>>,
}

/// An endpoint that is plugged in on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalEndpoint {
    /// As the catalogue has it.
    pub endpoint: Arc<Endpoint>,
    /// The container's namespace; a virtual machine has none, but a tap in the sandbox.
    pub namespace: Option<NsKey>,
    /// The interface: in the container's namespace, or the tap.
    pub interface: IfName,
    /// Whether it should be sent to: one that serves, or has names besides its container's, is [`Suspect`](Health::Suspect) at best until it has been in effect.
    pub health: Health,
}

/// An endpoint on another node, as that node tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteEndpoint {
    /// The node it is on.
    pub node: NodeId,
    /// The container.
    pub container: Name,
    /// Its Ethernet address.
    pub mac: Mac,
    /// Its addresses.
    pub addresses: AddressSet,
    /// Its names besides the container's.
    pub names: Vec<DnsName>,
    /// The service it serves.
    pub service: Option<ServiceId>,
    /// What policies select it by.
    pub labels: BTreeMap<String, String>,
    /// Whether it should be sent to.
    pub health: Health,
    /// How often it had moved when its node was given it.
    pub moves: u64,
    /// Its share of its service's work, as the catalogue has it: its node does not say.
    pub weight: Weight,
}
