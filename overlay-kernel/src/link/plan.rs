//! The steps from one native state to another.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::BTreeSet;

use overlay_core::{Change, Mtu, Vni, in_phases, keyed_diff};

use super::state::net;
use super::{Dev, Kind, Link, MacvlanMode, Site, State, Step};

/// Settings first, then devices, then what is on them; what goes, the other way round.
pub(super) fn steps(from: &State, to: &State) -> Vec<Step> {
    let mut steps = Vec::new();
    settings(from, to, &mut steps);
    let left = links(from, to, &mut steps);
    routes(&left, to, &mut steps);
    addresses(&left, to, &mut steps); // before what the kernel takes along with an address
    entries(&left, to, &mut steps);
    rules(&left, to, &mut steps);
    in_phases::<State>(steps)
}

fn settings(from: &State, to: &State, steps: &mut Vec<Step>) {
    steps.extend(keyed_diff(&from.settings, &to.settings).map(|change| {
        let ((site, setting), value) = match change {
            Change::Add(key, value) | Change::Replace(key, _, value) => (key, *value),
            Change::Remove(key, _) => (key, key.1.default_value()),
        };
        Step::SetSetting(site.clone(), *setting, value)
    }));
}

/// Plans the devices, and gives what is left of the state by then, so that what went with them is planned anew.
fn links<'a>(from: &'a State, to: &State, steps: &mut Vec<Step>) -> Cow<'a, State> {
    let unfit = from.links.iter().filter(|(dev, link)| to.links.get(dev).is_none_or(|new| new.kind != link.kind));
    let gone = from.closure(unfit.map(|(dev, _)| dev.clone()).collect());
    let left = left(from, to, &gone);
    removals(from, to, &gone, steps);

    let (mut added, mut set, mut raised) = (Vec::new(), Vec::new(), Vec::new());
    for change in keyed_diff(&left.links, &to.links) {
        let (dev, up, new) = match change {
            Change::Add(dev, new) => {
                added.push((dev, new));
                (dev, false, new)
            }
            Change::Replace(dev, old, new) => {
                if *old != (Link { up: old.up, ..new.clone() }) {
                    set.push((dev, new));
                }
                (dev, old.up, new)
            }
            Change::Remove(..) => continue, // such a device is in `gone`
        };
        if new.up && !up {
            raised.push(Step::RaiseLink(dev.clone()));
        }
    }
    added.sort_by_key(|(_, link)| build_order(&link.kind));
    set.sort_by_key(|(_, link)| build_order(&link.kind));
    // A device may be only as large as what it stands on has become.
    let on_others = added.split_off(added.partition_point(|(_, link)| !link.kind.stands_on_another()));
    steps.extend(added.into_iter().filter_map(|(dev, link)| addition(to, dev, link)));
    steps.extend(set.into_iter().map(|(dev, link)| Step::SetLink(dev.clone(), Box::new(link.clone()))));
    steps.extend(on_others.into_iter().filter_map(|(dev, link)| addition(to, dev, link)));
    steps.extend(raised);
    left
}

/// The state without the devices that go, without the neighbours of those whose Ethernet address changes, without all
/// that is IPv6 of those that become too small for it, without the stations behind those that leave their bridge, and
/// without the IPv4 routes and neighbours of those that lose their last IPv4 address.
fn left<'a>(from: &'a State, to: &State, gone: &BTreeSet<Dev>) -> Cow<'a, State> {
    let mut left = Cow::Borrowed(from);
    if !gone.is_empty() {
        left.to_mut().forget(gone);
    }
    let readdressed = |dev: &Dev, link: &Link| to.links.get(dev).is_some_and(|new| new.mac != link.mac);
    let readdressed: BTreeSet<_> =
        left.links.iter().filter(|(dev, link)| readdressed(dev, link)).map(|(dev, _)| dev.clone()).collect();
    if !readdressed.is_empty() {
        left.to_mut().forget_neighbours(|dev| readdressed.contains(dev));
    }
    let shrunk = |dev: &Dev, link: &Link| link.mtu >= Mtu::IPV6_MIN && to.links.get(dev).is_some_and(is_small);
    let shrunk: BTreeSet<_> =
        left.links.iter().filter(|(dev, link)| shrunk(dev, link)).map(|(dev, _)| dev.clone()).collect();
    if !shrunk.is_empty() {
        left.to_mut().forget_ipv6(|dev| shrunk.contains(dev));
    }
    let parted = |(dev, link): (&Dev, &Link)| {
        let bridge = link.left_for(to.links.get(dev)?)?;
        Some((Dev { site: dev.site.clone(), name: bridge }, dev.name))
    };
    let parted: BTreeSet<_> = left.links.iter().filter_map(parted).collect();
    if !parted.is_empty() {
        left.to_mut().forget_stations(|bridge, port| parted.contains(&(bridge.clone(), port)));
    }
    let bared = bared(&left, to);
    if !bared.is_empty() {
        left.to_mut().forget_ipv4_ways(|dev| bared.contains(dev));
    }
    left
}

/// Whether a device is too small for IPv6.
fn is_small(link: &Link) -> bool {
    link.mtu < Mtu::IPV6_MIN
}

/// Devices with IPv4 routes or neighbours to come, but without an IPv4 address, of which they have one now.
fn bared(now: &State, to: &State) -> BTreeSet<Dev> {
    let mut bared: BTreeSet<_> =
        now.links.keys().filter(|dev| now.has_ipv4(dev) && !to.has_ipv4(dev)).cloned().collect();
    if !bared.is_empty() {
        let routes = to.routes.iter().filter(|(key, _)| key.is_ipv4());
        let routed: BTreeSet<_> = routes.filter_map(|(key, route)| route.device(&key.site)).collect();
        bared.retain(|dev| routed.contains(dev) || to.knows_ipv4(dev));
    }
    bared
}

/// A device that goes makes room first if another takes its name, its peer's, its VNI, its parent, or may take its altname.
fn removals(from: &State, to: &State, gone: &BTreeSet<Dev>, steps: &mut Vec<Step>) {
    let fresh = || to.links.iter().filter(|(dev, _)| gone.contains(dev) || !from.links.contains_key(dev));
    let tunnels: BTreeSet<_> = fresh().filter_map(|(_, link)| tunnel(&link.kind)).collect();
    let macvlans: Vec<_> =
        fresh().map(|(_, link)| link).filter(|link| matches!(link.kind, Kind::Macvlan { .. })).collect();
    let mut leaving: Vec<_> = gone.iter().filter_map(|dev| Some((dev, from.links.get(dev)?))).collect();
    leaving.sort_by_key(|(_, link)| Reverse(build_order(&link.kind)));
    for (dev, link) in leaving {
        let peer = match &link.kind {
            Kind::Veth { peer } if peer < dev && from.links.contains_key(peer) => continue, // goes with the near end
            Kind::Veth { peer } => Some(peer),
            _ => None,
        };
        let in_the_way = to.links.contains_key(dev)
            || !link.marked // a renamed one keeps the altname that is due to the next of its old name
            || peer.is_some_and(|peer| to.links.contains_key(peer))
            || tunnel(&link.kind).is_some_and(|tunnel| tunnels.contains(&tunnel))
            || macvlans.iter().any(|other| exclude(link, other));
        steps.push(if in_the_way { Step::ClearLink(dev.clone()) } else { Step::RemoveLink(dev.clone()) });
    }
}

/// What two VXLAN devices cannot share.
const fn tunnel(kind: &Kind) -> Option<(&Site, Vni)> {
    match kind {
        Kind::Vxlan(vxlan) => Some((&vxlan.underlay, vxlan.vni)),
        _ => None,
    }
}

/// Whether two macvlan devices cannot be at once: one takes the parent over, or they are one station.
fn exclude(one: &Link, other: &Link) -> bool {
    match (&one.kind, &other.kind) {
        (Kind::Macvlan { parent, mode }, Kind::Macvlan { parent: same, mode: and }) => {
            parent == same && ([*mode, *and].contains(&MacvlanMode::Passthru) || one.mac == other.mac)
        }
        _ => false,
    }
}

fn addition(to: &State, dev: &Dev, link: &Link) -> Option<Step> {
    let Kind::Veth { peer } = &link.kind else {
        return Some(Step::AddLink(dev.clone(), Box::new(link.clone())));
    };
    let far = to.links.get(peer).filter(|_| dev < peer)?; // the far end comes with the near one
    Some(Step::AddPair(dev.clone(), Box::new((link.clone(), far.clone()))))
}

/// Bridges before their ports, parents before what stands on them.
const fn build_order(kind: &Kind) -> u8 {
    match kind {
        Kind::Bridge { .. } => 0,
        Kind::Dummy => 1,
        Kind::Veth { .. } | Kind::Tap(_) => 2,
        Kind::Vxlan(_) => 3,
        Kind::Macvlan { .. } | Kind::Stray(_) => 4,
    }
}

/// A route by way of a router comes after the one that reaches the router, and goes before it.
fn routes(now: &State, to: &State, steps: &mut Vec<Step>) {
    let (mut put, mut removed) = (Vec::new(), Vec::new());
    for change in keyed_diff(&now.routes, &to.routes) {
        match change {
            Change::Add(key, route) | Change::Replace(key, _, route) => put.push((key, route)),
            Change::Remove(key, route) => removed.push((key, route)),
        }
    }
    put.sort_by_key(|(_, route)| route.has_gateway());
    removed.sort_by_key(|(_, route)| !route.has_gateway());
    steps.extend(put.into_iter().map(|(key, route)| Step::PutRoute(key.clone(), route.clone())));
    steps.extend(removed.into_iter().map(|(key, _)| Step::RemoveRoute(key.clone())));
}

/// A neighbour is known before the forwarding entry that leads to it, and forgotten after.
fn entries(now: &State, to: &State, steps: &mut Vec<Step>) {
    let mut forgotten = Vec::new();
    for change in keyed_diff(&now.neighbours, &to.neighbours) {
        match change {
            Change::Add((dev, address), mac) | Change::Replace((dev, address), _, mac) => {
                steps.push(Step::PutNeighbour(dev.clone(), *address, *mac));
            }
            Change::Remove((dev, address), _) => forgotten.push(Step::RemoveNeighbour(dev.clone(), *address)),
        }
    }
    steps.extend(keyed_diff(&now.forwarding, &to.forwarding).map(|change| match change {
        Change::Add((dev, mac), vtep) | Change::Replace((dev, mac), _, vtep) => {
            Step::PutForwarding(dev.clone(), *mac, *vtep)
        }
        Change::Remove((dev, mac), _) => Step::RemoveForwarding(dev.clone(), *mac),
    }));
    steps.extend(keyed_diff(&now.stations, &to.stations).map(|change| match change {
        Change::Add((dev, mac), port) | Change::Replace((dev, mac), _, port) => {
            Step::PutStation(dev.clone(), *mac, *port)
        }
        Change::Remove((dev, mac), port) => Step::RemoveStation(dev.clone(), *mac, *port),
    }));
    steps.extend(to.flood.difference(&now.flood).map(|(dev, vtep)| Step::AddFlood(dev.clone(), *vtep)));
    steps.extend(now.flood.difference(&to.flood).map(|(dev, vtep)| Step::RemoveFlood(dev.clone(), *vtep)));
    steps.extend(forgotten);
}

fn rules(now: &State, to: &State, steps: &mut Vec<Step>) {
    steps.extend(to.rules.difference(&now.rules).map(|rule| Step::AddRule(rule.clone())));
    steps.extend(now.rules.difference(&to.rules).map(|rule| Step::RemoveRule(rule.clone())));
}

fn addresses(now: &State, to: &State, steps: &mut Vec<Step>) {
    let bared = bared(now, to);
    steps.extend(keyed_diff(&now.addresses, &to.addresses).map(|change| match change {
        Change::Add((dev, address), len) => Step::PutAddress(dev.clone(), net(*address, *len), None),
        Change::Replace((dev, address), old, len) => Step::PutAddress(dev.clone(), net(*address, *len), Some(*old)),
        Change::Remove((dev, address), len) if address.is_ipv4() && bared.contains(dev) => {
            Step::ClearAddress(dev.clone(), net(*address, *len))
        }
        Change::Remove((dev, address), len) => Step::RemoveAddress(dev.clone(), net(*address, *len)),
    }));
}
