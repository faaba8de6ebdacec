//! What a node knows: the one input of what it should hold.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use overlay_core::{EndpointId, IfName, Mac, Mtu, Name, NetworkId, NodeId, NsKey, Port, ServiceId};
use overlay_dns::{DnsName, Health};

use crate::{Endpoint, Network, Service};

/// Everything a node knows of the cluster, in sections that change one by one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Knowledge {
    /// Which node it is.
    pub me: NodeId,
    /// What each node says of itself, this one's included. Without those that are gone.
    pub nodes: Arc<BTreeMap<NodeId, NodeFacts>>,
    /// What is known of each network that this node follows.
    pub networks: BTreeMap<NetworkId, Arc<Section>>,
    /// The UDP port of VXLAN, one in the cluster.
    pub vxlan_port: Port,
}

/// What a node tells about itself, in its gossip metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeFacts {
    /// Where its datagrams are sent from and received at.
    pub vtep: IpAddr,
    /// Largest packet of the underlay there.
    pub mtu: Mtu,
    /// Whether it answers.
    pub standing: Standing,
}

/// Whether a node answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// It does.
    Alive,
    /// Somebody's probes of it failed, and it has time to object: its endpoints are named after all others.
    Suspected,
    /// It is believed failed: its endpoints are out of sight.
    Suspended,
}

/// What is known of one network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// The network.
    pub network: Arc<Network>,
    /// Its endpoints that are plugged in on this node.
    pub local: BTreeMap<EndpointId, Arc<LocalEndpoint>>,
    /// Its endpoints on other nodes, those of suspended nodes left out; of one that two nodes claim, the one that
    /// [moved](Endpoint::moves) more often.
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
    /// Whether it should be sent to.
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
    pub addresses: BTreeSet<IpAddr>,
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
}
