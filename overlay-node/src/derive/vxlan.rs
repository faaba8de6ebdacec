//! The segment of a network.

use std::net::IpAddr;

use overlay_core::{AddressSet, Vni};
use overlay_vxlan::{LocalPort, Peer, PortEnd, Segment, State, Vtep};

use super::Footing;
use super::admission::Admission;
use super::claim::{At, Claim, gateways};
use super::touched::Known;
use crate::LocalEndpoint;

/// One segment for all subnets, so that who is where does not depend on them.
pub(super) fn state(known: Known<'_>, vni: Vni, footing: &Footing, admission: &Admission<'_>) -> State {
    let vtep = Vtep { port: footing.port, ..Vtep::new(footing.me.vtep) };
    let mut segment = Segment::new(vtep, footing.mtu);
    segment.gateways = gateways(known.section);
    segment.ports = admission.ports.iter().map(|(id, local, _)| (*id, port(local))).collect();
    let peers = admission.peers_by_mac().map(|peer| &peer.claim);
    segment.peers = peers.filter_map(|claim| Some((claim.mac, peer(elsewhere(claim)?, claim)))).collect();
    State { segments: [(vni, segment)].into() }
}

pub(super) fn port(local: &LocalEndpoint) -> LocalPort {
    let interface = local.interface;
    let end = match local.namespace.clone() {
        Some(namespace) => PortEnd::Namespace { namespace, interface },
        None => PortEnd::Tap { interface },
    };
    LocalPort { mac: local.endpoint.mac, addresses: local.endpoint.addresses.clone(), end }
}

pub(super) fn peer(vtep: IpAddr, claim: &Claim<'_>) -> Peer {
    Peer { vtep, addresses: AddressSet::clone(&claim.addresses) }
}

const fn elsewhere(claim: &Claim<'_>) -> Option<IpAddr> {
    match claim.at {
        At::Vtep(vtep) => Some(vtep),
        At::Port { .. } => None,
    }
}
