//! Whether a network can be on this node at all.

use overlay_core::{EndpointId, IfName, IpFamily, Mtu, MtuError, Port, PortRange, Vni};
use overlay_link::MacvlanMode;

use super::is_vtep;
use crate::knowledge::encapsulation;
use crate::{Condition, Kind, Knowledge, NodeFacts, Section};

/// What a network stands on here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Footing {
    pub(crate) ground: Ground,
    pub(crate) mtu: Mtu,
    /// Whether its datagrams pass in ESP only.
    pub(crate) encrypted: bool,
    /// The UDP port of a segment's tunnels.
    pub(crate) port: Port,
    pub(crate) me: NodeFacts,
}

/// What carries a network's frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ground {
    /// A VXLAN segment, between nodes.
    Segment(Vni),
    /// A bridge of this node.
    Bridge,
    /// The network that an interface of this node is on.
    Macvlan {
        parent: IfName,
        mode: MacvlanMode,
        /// The one endpoint that may take the parent over, if that is what the mode is.
        sole: Option<EndpointId>,
    },
}

/// Why a network is not on this node, though it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unready {
    #[error("the network is not allocated yet")]
    NotAllocated,
    #[error("the network is encrypted, which this node cannot do, so it carries nothing here: {reason}")]
    Encrypted { reason: String },
    #[error(
        "the network's own port, {found}, is none of those that this node keeps for that, {range}: have managers and nodes keep the same"
    )]
    OwnPort { found: Port, range: PortRange },
    #[error("{found} bytes are left for a packet, which is too little for the network's addresses: IPv6 needs 1280")]
    Mtu { found: u32 },
    #[error("the node's VTEP is no host's address")]
    Vtep,
    #[error("nothing is attached to a network of kind {0}")]
    Kind(Kind),
}

impl Footing {
    pub(crate) fn of(knowledge: &Knowledge, section: &Section) -> Result<Self, Unready> {
        let network = &section.network;
        if network.condition == Condition::Accepted {
            return Err(Unready::NotAllocated);
        }
        let ground = Ground::of(knowledge, section)?;
        let me = *knowledge.nodes.get(&knowledge.me).ok_or(Unready::Vtep)?;
        if matches!(ground, Ground::Segment(_)) && !is_vtep(me.vtep) {
            return Err(Unready::Vtep);
        }
        let mtu = knowledge.mtu(network).map_err(|MtuError { found }| Unready::Mtu { found })?;
        let port = match ground {
            Ground::Segment(_) => tunnel_port(knowledge, section)?,
            Ground::Bridge | Ground::Macvlan { .. } => knowledge.settings.vxlan_port,
        };
        Ok(Self { ground, mtu, encrypted: section.is_encrypted(), port, me })
    }

    /// Whether what is on another node is reached from here: its VTEP can be sent to, and its underlay carries this network; or both are on the
    /// physical network.
    pub(crate) fn reaches(&self, facts: &NodeFacts) -> bool {
        match self.ground {
            Ground::Segment(_) => self.tunnels_to(facts),
            Ground::Bridge => false,
            Ground::Macvlan { .. } => true,
        }
    }

    fn tunnels_to(&self, facts: &NodeFacts) -> bool {
        let (here, there) = (self.me.vtep, facts.vtep);
        let family = IpFamily::of(here);
        let large = encapsulation(here, self.encrypted).inner_mtu(facts.mtu).is_ok_and(|inner| inner >= self.mtu);
        is_vtep(there)
            && large
            && there != here
            && family == IpFamily::of(there)
            && here.is_loopback() == there.is_loopback()
    }
}

fn tunnel_port(knowledge: &Knowledge, section: &Section) -> Result<Port, Unready> {
    let (settings, network) = (&knowledge.settings, &section.network);
    let range = settings.own_ports;
    let found = || network.port.map_or(Unready::NotAllocated, |found| Unready::OwnPort { found, range });
    settings.tunnel_port(network).ok_or_else(found)
}

impl Ground {
    fn of(knowledge: &Knowledge, section: &Section) -> Result<Self, Unready> {
        let network = &section.network;
        match network.spec.kind {
            Kind::Overlay => match knowledge.protection.lacking().filter(|_| network.spec.encryption.is_some()) {
                Some(reason) => Err(Unready::Encrypted { reason: reason.to_owned() }),
                None => network.vni.map(Self::Segment).ok_or(Unready::NotAllocated),
            },
            Kind::Bridge => Ok(Self::Bridge),
            Kind::Macvlan { parent, mode } => Ok(Self::Macvlan { parent, mode, sole: sole(knowledge, parent) }),
            kind @ (Kind::Host | Kind::None) => Err(Unready::Kind(kind)),
        }
    }
}

/// Who may take a parent over: the first endpoint here whose network does, if no other network's endpoint is on the parent.
fn sole(knowledge: &Knowledge, parent: IfName) -> Option<EndpointId> {
    let of = knowledge.networks.values().filter_map(|section| match section.network.spec.kind {
        Kind::Macvlan { parent: at, mode } if at == parent => Some((mode, section.local.first_key_value()?.0)),
        _ => None,
    });
    let others = of.clone().any(|(mode, _)| mode != MacvlanMode::Passthru);
    of.map(|(_, first)| *first).min().filter(|_| !others)
}
