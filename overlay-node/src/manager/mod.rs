//! The manager: what it is made of.

mod allocate;
mod change;
#[cfg(feature = "testing")]
pub(crate) mod contradictions;
mod control;
mod endpoint;
mod find;
mod mesh;
mod network;
mod node;
mod orphans;
mod ports;
mod predefined;
mod service;
mod settle;
mod transaction;

pub use settle::Settled;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use overlay_core::{NodeId, Port, PortRange, Prefix, Protocol, Store};
use overlay_ipam::{Allocator, Config, Ipam, Ports, Vnis};
use overlay_lb::Capabilities;

use crate::catalogue::keys::Keys;
use crate::{Refused, RootError};

/// Does what a cluster is told, in transactions over a store: any number of managers may work on it at once.
///
/// It remembers nothing, so whichever manager is asked knows all. See the [crate's page](crate) for what it promises.
pub struct Manager {
    store: Arc<dyn Store>,
    ipam: Arc<dyn Ipam>,
    vnis: Vnis,
    ports: Ports,
    /// Those of encrypted networks that have one of their own.
    own_ports: Ports,
    own_port_range: PortRange,
    keys: Keys,
    /// What all nodes can do for services.
    balancers: Capabilities,
    /// Ports that no service publishes.
    kept: BTreeSet<(Protocol, Port)>,
}

impl Manager {
    /// A manager whose records are below `root`, and those of its allocators of subnets, addresses, VNIs and ports too. `node` is
    /// who works here: two that live at once must differ. `seed` is the address allocator's.
    ///
    /// # Errors
    /// If the root is longer than 200 bytes.
    pub fn new(store: Arc<dyn Store>, root: &Prefix, node: NodeId, seed: [u8; 32]) -> Result<Self, RootError> {
        let keys = Keys::of(root)?;
        let config = Config::default();
        let rest = config.rest;
        let refused = RootError { found: root.as_bytes().len() };
        let below = |what: &str| root.join(what).map_err(|_| refused);
        let ipam = Allocator::new(Arc::clone(&store), &below("ipam/")?, node, config, seed).map_err(|_| refused)?;
        let vnis = Vnis::new(Arc::clone(&store), &below("vni/")?, node, rest).map_err(|_| refused)?;
        let ports = Ports::new(Arc::clone(&store), &below("port/")?, node, Duration::ZERO).map_err(|_| refused)?;
        let own_ports = Ports::new(Arc::clone(&store), &below("tunnel/")?, node, rest).map_err(|_| refused)?;
        let own_port_range = PortRange::VXLAN_ENCRYPTED;
        Ok(Self {
            store,
            ipam: Arc::new(ipam),
            vnis,
            ports,
            own_ports: own_ports.with_range(own_port_range),
            own_port_range,
            keys,
            balancers: Capabilities::nf_tables(),
            kept: usually_kept(),
        })
    }

    /// Takes subnets and addresses from another allocator: one of ours that is configured otherwise, or a company's own. It must
    /// be this cluster's alone: [settling](Self::settle) gives subnets back whose network the catalogue does not know.
    #[must_use]
    pub fn with_ipam(self, ipam: Arc<dyn Ipam>) -> Self {
        Self { ipam, ..self }
    }

    /// Refuses services whose work the nodes cannot share as asked: this is what each of them can. What nf_tables can if nothing is said, as
    /// every node of ours has it; nodes that all balance in user space, say, can more.
    /// A place that is given what it cannot do has none of its services.
    #[must_use]
    pub fn with_balancers(self, balancers: Capabilities) -> Self {
        Self { balancers, ..self }
    }

    /// Refuses services that publish one of these ports, and draws none of them: what nodes need themselves. [What is usual](usually_kept) if
    /// nothing is said. A node keeps [what it was told to](crate::AgentConfig::kept) besides, whatever the catalogue says.
    #[must_use]
    pub fn with_kept(self, kept: impl IntoIterator<Item = (Protocol, Port)>) -> Self {
        Self { kept: kept.into_iter().collect(), ..self }
    }

    /// Gives encrypted networks that ask for a UDP port of [their own](crate::Encryption::Own) one of these, which no service publishes: with
    /// all managers and agents ([`AgentConfig::own_ports`](crate::AgentConfig::own_ports)) the same. [`PortRange::VXLAN_ENCRYPTED`] if nothing is said.
    ///
    /// None of them may be [kept](Self::with_kept), or among those that tunnels send from, from 49152 on: else such networks are refused.
    #[must_use]
    pub fn with_own_ports(self, range: PortRange) -> Self {
        Self { own_ports: self.own_ports.with_range(range), own_port_range: range, ..self }
    }

    /// Whether nodes need a port themselves, so that no service publishes it.
    fn keeps(&self, protocol: Protocol, port: Port) -> bool {
        self.kept.contains(&(protocol, port)) || protocol == Protocol::Udp && self.own_port_range.contains(port)
    }

    /// Refuses a range of own ports with one that is something else's.
    fn check_own_ports(&self) -> Result<(), Refused> {
        let range = self.own_port_range;
        let mut kept = self.kept.iter().filter(|(protocol, _)| *protocol == Protocol::Udp).map(|(_, port)| *port);
        let other = kept.find(|port| range.contains(*port));
        match other.or_else(|| PortRange::DYNAMIC.contains(range.last()).then_some(range.last())) {
            Some(port) => Err(Refused::OwnPorts { range, port }),
            None => Ok(()),
        }
    }
}

/// The ports that a node usually needs itself: SSH's, by which it is administered, and those of the cluster's control, gossip and VXLAN.
///
/// ```
/// use overlay_core::{Port, Protocol};
///
/// assert!(overlay_node::usually_kept().contains(&(Protocol::Tcp, Port::new(22)?)));
/// # Ok::<(), overlay_core::PortError>(())
/// ```
pub fn usually_kept() -> BTreeSet<(Protocol, Port)> {
    let (tcp, udp) = (Protocol::Tcp, Protocol::Udp);
    let ssh = Port::new(22).into_iter().map(|port| (tcp, port));
    ssh.chain([(tcp, Port::CONTROL), (tcp, Port::GOSSIP), (udp, Port::GOSSIP), (udp, Port::VXLAN)])
        .chain([(udp, Port::VXLAN_ENCRYPTED)])
        .collect()
}

impl fmt::Debug for Manager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Manager").field("root", self.keys.root()).finish_non_exhaustive()
    }
}
