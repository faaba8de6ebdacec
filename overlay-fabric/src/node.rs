//! What there is of a node besides its agent: what stays when the agent dies.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use overlay_core::{EndpointId, IfName, Name, NetworkId, NodeId, NsId, NsKey, Revision};
use overlay_gossip::Role;
use overlay_node::{Feed, GatewayPort, Input, Manager};

use crate::places::FaultyPlaces;
use crate::seal::Disk;

/// One machine.
pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) role: Role,
    pub(crate) vtep: IpAddr,
    pub(crate) incarnation: u64,
    pub(crate) places: FaultyPlaces,
    /// It outlives the agent, and the machine's power.
    pub(crate) keys: Disk,
    /// The container runtime's: it outlives the agent.
    pub(crate) containers: BTreeMap<Name, Container>,
    /// How many milliseconds its clock is ahead, or behind.
    pub(crate) skew: i64,
    pub(crate) manager: Option<Manager>,
    pub(crate) feed: Option<Connection>,
    /// Whether it was removed from the catalogue: nobody tells its agent anything of it any more.
    pub(crate) is_removed: bool,
    /// What is still to be told to a manager.
    pub(crate) reports: Vec<(EndpointId, u64, Result<(), String>)>,
}

/// A node's feed of the catalogue.
pub(crate) struct Connection {
    pub(crate) feed: Feed,
    /// The store's revision at which it had nothing more to tell.
    pub(crate) seen: Option<Revision>,
}

/// A container on a node.
#[derive(Debug, Clone)]
pub(crate) struct Container {
    pub(crate) namespace: NsKey,
    /// Its port of the node's gateway bridge, which no other container was ever given.
    gateway: Option<GatewayPort>,
    /// By endpoint: its network, and the interface.
    pub(crate) plugs: BTreeMap<EndpointId, (NetworkId, IfName)>,
}

impl Container {
    /// A container with a namespace of its own.
    pub(crate) fn new(name: &Name, number: u64) -> Self {
        let id = NsId { device: 4, inode: 4_026_532_000 + number };
        let gateway = u32::try_from(number).ok().and_then(GatewayPort::new);
        Self { namespace: NsKey { name: name.clone(), id }, gateway, plugs: BTreeMap::new() }
    }

    /// The first name an interface can have.
    pub(crate) fn free_interface(&self) -> Option<IfName> {
        let taken: BTreeSet<IfName> = self.plugs.values().map(|(_, interface)| *interface).collect();
        (0..=taken.len()).filter_map(|number| IfName::new(&format!("eth{number}")).ok()).find(|it| !taken.contains(it))
    }

    /// What an agent is told of one of its endpoints, be it there since an earlier start, and of the container.
    pub(crate) fn plug(&self, endpoint: EndpointId, adopted: bool) -> Vec<Input> {
        let Some((_, interface)) = self.plugs.get(&endpoint).copied() else { return Vec::new() };
        let gateway = Input::GatewayPort { container: self.namespace.name.clone(), port: self.gateway };
        vec![gateway, Input::Plug { endpoint, namespace: Some(self.namespace.clone()), interface, adopted }]
    }
}

/// The VTEP of node `number`, of a range that is for such purposes (RFC 2544).
pub(crate) fn vtep(number: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from(0xc612_0001 + number as u32))
}

/// Which node has that VTEP; it may be one that there is not.
pub(crate) fn node_at(vtep: IpAddr) -> Option<usize> {
    let IpAddr::V4(vtep) = vtep else { return None };
    u32::from(vtep).checked_sub(0xc612_0001).map(|number| number as usize)
}
