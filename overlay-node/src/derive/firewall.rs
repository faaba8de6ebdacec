//! What is allowed and forbidden: at the host, and at a network's bridge.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use overlay_core::{Name, Protocol};
use overlay_firewall::{BridgePort, Limit, Pin, State, Strangers, Tunnel};
use overlay_vxlan::names;

use super::Footing;
use super::admission::{Admission, is_host};
use crate::{Knowledge, NodeFacts};

/// Only nodes send to the VXLAN port, and what is encrypted passes there inside ESP only; whoever is no node may knock at
/// gossip's now and then.
pub(super) fn host(knowledge: &Knowledge) -> State {
    let mut state = State::default();
    let settings = &knowledge.settings;
    let encrypted = knowledge.networks.values().filter(|section| section.network.spec.encrypted);
    let encrypted = encrypted.filter_map(|section| section.network.vni).collect();
    let tunnel = Tunnel { members: others(knowledge, |facts| facts.vtep), encrypted };
    state.tunnels.insert(settings.vxlan_port, tunnel);
    let members = others(knowledge, |facts| facts.address.ip());
    for (name, protocol) in [("gossip-datagrams", Protocol::Udp), ("gossip-streams", Protocol::Tcp)] {
        let Ok(name) = Name::new(name) else { continue };
        if protocol == Protocol::Udp && settings.gossip_port == settings.vxlan_port {
            continue;
        }
        let limit = Limit {
            protocol,
            port: settings.gossip_port,
            members: members.clone(),
            per_second: settings.stranger_rate,
            burst: settings.stranger_burst,
        };
        state.limits.insert(name, limit);
    }
    state
}

fn others(knowledge: &Knowledge, address: impl Fn(&NodeFacts) -> IpAddr) -> BTreeSet<IpAddr> {
    let others = knowledge.nodes.iter().filter(|(id, _)| **id != knowledge.me);
    others.map(|(_, facts)| address(facts)).filter(|address| is_host(*address)).collect()
}

/// Each endpoint speaks for itself only; frames from other nodes come by the tunnel; nothing else is carried.
pub(super) fn sandbox(footing: &Footing, admission: &Admission<'_>) -> State {
    let mut state = State { strangers: Strangers::Drop, ..State::default() };
    for port in admission.ports.values() {
        let endpoint = &port.local.endpoint;
        let pin = Pin::new(endpoint.mac, endpoint.addresses.iter().map(IpNet::addr));
        state.ports.insert(port.device, BridgePort::Pinned(pin));
    }
    state.ports.extend(names::tunnel(footing.vni).map(|tunnel| (tunnel, BridgePort::Trunk)));
    state
}
