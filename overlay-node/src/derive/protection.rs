//! Which tunnels the host protects.

use std::collections::BTreeMap;
use std::net::IpAddr;

use overlay_core::{IpFamily, Port};
use overlay_crypto::{Direction, Issued, Limits, Numbers, Sa, SaId, Spi, State, Tunnel, WindowSize};

use super::is_vtep;
use crate::{Carried, Knowledge, LaneKeys, Protection, TunnelKeys};

/// Guarded from before the first segment of an encrypted network at the port opens until after the last has gone; protected, with whom keys were agreed
/// on. The host has this, as the sockets of all segments are there.
pub(super) fn host(knowledge: &Knowledge) -> State {
    let Protection::Keys(keys) = &knowledge.protection else { return State::default() };
    let sections = knowledge.networks.values().filter(|section| section.needs_protection());
    let at_ports =
        sections.filter_map(|section| Some((section.carried()?, knowledge.settings.tunnel_port(&section.network)?)));
    let at_ports: BTreeMap<Carried, Port> = at_ports.collect();
    let mut state = State { ports: at_ports.values().copied().collect(), ..State::default() };
    let limits = knowledge.settings.limits;
    let mut at: BTreeMap<IpAddr, Option<&TunnelKeys>> = BTreeMap::new();
    for keys in keys.values() {
        // Of nodes that say that they are at one address, none gets what is for the others.
        at.entry(keys.peer).and_modify(|other| *other = None).or_insert(Some(keys));
    }
    for keys in at.values().flatten() {
        let TunnelKeys { local, peer, tunnels, record: _ } = keys;
        let tunnels = tunnels.iter().filter_map(|(carried, lanes)| Some((*at_ports.get(carried)?, lanes)));
        tunnels.for_each(|(port, lanes)| put(&mut state, (Tunnel { port, local: *local, peer: *peer }, limits), lanes));
    }
    state
}

fn put(state: &mut State, (tunnel, limits): (Tunnel, Limits), LaneKeys { sends, takes }: &LaneKeys) {
    let Tunnel { local, peer, .. } = &tunnel;
    let ends = is_vtep(*local) && is_vtep(*peer) && local != peer && IpFamily::of(*local) == IpFamily::of(*peer);
    let mut all: Vec<(SaId, Sa)> =
        sends.iter().map(|issued| association(&tunnel, (Direction::Out, Some(limits)), issued)).collect();
    all.extend(takes.iter().map(|issued| association(&tunnel, (Direction::In, None), issued)));
    let free = all.iter().all(|(id, _)| !state.sas.contains_key(id));
    if !ends || !free || state.tunnels.contains_key(&tunnel) {
        return;
    }
    state.sas.extend(all);
    let lanes: Vec<Spi> = sends.iter().map(|issued| issued.spi).collect();
    state.tunnels.insert(tunnel, lanes);
}

/// What is sealed has limits, which who opens it need not keep.
fn association(tunnel: &Tunnel, (direction, limits): (Direction, Option<Limits>), issued: &Issued) -> (SaId, Sa) {
    let (source, destination) = match direction {
        Direction::In => (tunnel.peer, tunnel.local),
        Direction::Out => (tunnel.local, tunnel.peer),
    };
    let (port, key) = (tunnel.port, issued.key.clone());
    let (numbers, window) = (Numbers::Extended, WindowSize::default());
    let sa = Sa { direction, source, port, numbers, window, limits, udp: None, epochs: issued.epochs, key };
    (SaId { destination, spi: issued.spi }, sa)
}
