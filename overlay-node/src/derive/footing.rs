//! Whether a network can be on this node at all.

use overlay_core::{Encapsulation, IpFamily, Mtu, MtuError, Vni};

use super::is_vtep;
use crate::{Condition, Knowledge, NodeFacts, Section};

/// What a network stands on here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Footing {
    pub(crate) vni: Vni,
    pub(crate) mtu: Mtu,
    pub(crate) me: NodeFacts,
}

/// Why a network is not on this node, though it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unready {
    #[error("the network has no VNI yet")]
    NotAllocated,
    #[error("the network is encrypted, which this release cannot do: it carries nothing. Create it without encryption")]
    Encrypted,
    #[error("{found} bytes are left for a packet, which is too little for the network's addresses: IPv6 needs 1280")]
    Mtu { found: u32 },
    #[error("the node's VTEP is no host's address")]
    Vtep,
}

impl Footing {
    pub(crate) fn of(knowledge: &Knowledge, section: &Section) -> Result<Self, Unready> {
        let network = &section.network;
        let vni = network.vni.filter(|_| network.condition != Condition::Accepted).ok_or(Unready::NotAllocated)?;
        if network.spec.encrypted {
            return Err(Unready::Encrypted);
        }
        let me = knowledge.nodes.get(&knowledge.me).filter(|me| is_vtep(me.vtep)).ok_or(Unready::Vtep)?;
        let mtu = knowledge.mtu(network).map_err(|MtuError { found }| Unready::Mtu { found })?;
        Ok(Self { vni, mtu, me: *me })
    }

    /// Whether another node's VTEP can be sent to from here, and its underlay carries this network.
    pub(crate) fn reaches(&self, facts: &NodeFacts) -> bool {
        let (here, there) = (self.me.vtep, facts.vtep);
        let family = IpFamily::of(here);
        let large = Encapsulation::vxlan(family).inner_mtu(facts.mtu).is_ok_and(|inner| inner >= self.mtu);
        is_vtep(there)
            && large
            && there != here
            && family == IpFamily::of(there)
            && here.is_loopback() == there.is_loopback()
    }
}
