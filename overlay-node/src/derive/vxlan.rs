//! The segment of a network.

use overlay_core::NsKey;
use overlay_vxlan::{LocalPort, Peer, PortEnd, Segment, State, Vtep};

use super::Footing;
use super::admission::{self, Admission, Port};
use crate::{Knowledge, Section};

/// One segment for all subnets, so that who is where does not depend on them.
pub(super) fn state(knowledge: &Knowledge, _: &Section, footing: &Footing, admission: &Admission<'_>) -> State {
    let mut segment = empty(knowledge, footing);
    segment.gateways.clone_from(&admission.gateways);
    segment.ports = admission.ports.iter().map(|(id, at)| (*id, port(at))).collect();
    segment.peers = admission.peers.values().map(|at| (at.remote.mac, peer(at))).collect();
    State { segments: [(footing.vni, segment)].into() }
}

fn empty(knowledge: &Knowledge, footing: &Footing) -> Segment {
    Segment::new(Vtep { port: knowledge.settings.vxlan_port, ..Vtep::new(footing.me.vtep) }, footing.mtu)
}

fn port(port: &Port<'_>) -> LocalPort {
    let endpoint = &port.local.endpoint;
    LocalPort {
        mac: endpoint.mac,
        addresses: endpoint.addresses.clone(),
        end: end(port.local.namespace.as_ref(), port),
    }
}

fn end(namespace: Option<&NsKey>, port: &Port<'_>) -> PortEnd {
    let interface = port.local.interface;
    match namespace {
        Some(namespace) => PortEnd::Namespace { namespace: namespace.clone(), interface },
        None => PortEnd::Tap { interface },
    }
}

pub(super) fn peer(peer: &admission::Peer<'_>) -> Peer {
    Peer { vtep: peer.vtep, addresses: peer.addresses.clone() }
}
