//! What is allowed and forbidden: at the host, and at a network's bridge.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use overlay_core::{Name, Port, Protocol, Vni, is_host_address};
use overlay_firewall::{Bind, BridgePort, Limit, Pin, Published, State, Strangers, Tunnel};
use overlay_vxlan::names;

use super::admission::Admission;
use super::claim::{At, Claim};
use crate::{Knowledge, LocalEndpoint, NodeFacts, RESOLVER, Section, mesh};

/// Only nodes send to the ports of VXLAN, and what is encrypted passes there inside ESP only, which is seen to by the associations' own
/// guard too; whoever is no node may knock at
/// gossip's now and then.
pub(super) fn host(knowledge: &Knowledge) -> State {
    let mut state = State::default();
    let settings = &knowledge.settings;
    let tunnel = Tunnel { members: others(knowledge, |facts| facts.vtep), encrypted: encrypted(knowledge) };
    if knowledge.protection.lacking().is_none() {
        let sections = knowledge.networks.values().filter(|section| section.is_encrypted());
        let ports = sections.filter_map(|section| settings.tunnel_port(&section.network));
        state.tunnels.extend(ports.map(|port| (port, tunnel.clone())));
    }
    state.tunnels.insert(settings.vxlan_port, tunnel);
    let members = others(knowledge, |facts| facts.address.ip());
    for (name, protocol) in [("gossip-datagrams", Protocol::Udp), ("gossip-streams", Protocol::Tcp)] {
        let Ok(name) = Name::new(name) else { continue };
        if protocol == Protocol::Udp && state.tunnels.contains_key(&settings.gossip_port) {
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
    others.map(|(_, facts)| address(facts)).filter(|address| is_host_address(*address)).collect()
}

fn encrypted(knowledge: &Knowledge) -> BTreeSet<Vni> {
    let encrypted = knowledge.networks.values().filter(|section| section.network.spec.encryption.is_some());
    encrypted.filter_map(|section| section.network.vni).collect()
}

/// Who asks for a name at the resolver's address comes to where it listens.
pub(super) fn container(knowledge: &Knowledge) -> State {
    let mut state = State::default();
    let to = SocketAddr::new(RESOLVER.into(), knowledge.settings.resolver_port.get());
    for (name, protocol) in [("resolver-datagrams", Protocol::Udp), ("resolver-streams", Protocol::Tcp)] {
        let Ok(name) = Name::new(name) else { continue };
        state.published.insert(name, Published::new(protocol, Port::DNS).at(Bind::Address(RESOLVER.into())).to(to));
    }
    state
}

/// Each endpoint speaks for itself only; frames from other nodes come by the tunnel; nothing else is carried.
pub(super) fn sandbox(vni: Vni, section: &Section, admission: &Admission<'_>) -> State {
    let mut state = State { strangers: Strangers::Drop, ..State::default() };
    for (_, local, claim) in &admission.ports {
        if let At::Port { device, .. } = claim.at {
            state.ports.insert(device, bridge_port(section, local, claim));
        }
    }
    state.ports.extend(names::tunnel(vni).map(|tunnel| (tunnel, BridgePort::Trunk)));
    state
}

/// The node's own part of the routing mesh sends what clients sent, with their addresses.
pub(super) fn bridge_port(section: &Section, local: &LocalEndpoint, claim: &Claim<'_>) -> BridgePort {
    if mesh::is_part(&section.network, &local.endpoint) { BridgePort::Trunk } else { pinned(claim) }
}

pub(super) fn pinned(claim: &Claim<'_>) -> BridgePort {
    BridgePort::Pinned(Pin::new(claim.mac, claim.addresses.iter().copied()))
}
