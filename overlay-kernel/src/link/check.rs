//! What a native state must be for the kernel to hold exactly it.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::IpAddr;

use ipnet::IpNet;
use overlay_core::{IpFamily, Mtu, Refusal};

use super::{Dev, Kind, Link, Route, RouteKey, Site, Solicit, State, Tap};

/// Refuses what no kernel could hold as it stands, by name.
pub(super) fn state(state: &State) -> Result<(), Refusal> {
    state.links.iter().try_for_each(|(dev, link)| self::link(state, dev, link))?;
    tunnels(state)?;
    addresses(state)?;
    entries(state)?;
    stations(state)?;
    state.routes.iter().try_for_each(|(key, route)| self::route(state, key, route))?;
    rules(state)?;
    match state.settings.iter().find(|((_, setting), value)| **value == setting.default_value()) {
        Some(((_, setting), _)) => Err(refuse(&setting, &"its default value", &"a state names what differs from it")),
        None => Ok(()),
    }
}

fn link(state: &State, dev: &Dev, link: &Link) -> Result<(), Refusal> {
    let object = format!("link {dev}");
    if !link.up || !link.marked {
        return Err(refuse(&object, &"down or half-marked", &"what is wanted is up and whole"));
    }
    if !link.mac.is_station() {
        return Err(refuse(&object, &link.mac, &"a device's Ethernet address is one station's"));
    }
    if link.solicit != Solicit::KERNEL && (dev.site == Site::Home || !link.solicit.is_possible()) {
        let wanted = format!("asks for neighbours every {:?}, {} times", link.solicit.interval, link.solicit.times);
        let reason = "in other namespaces only, every 20 ms to 1 min in steps of 20 ms, 1 to 1,000 times";
        return Err(refuse(&object, &wanted, &reason));
    }
    if link.accept_ra || link.link_local {
        fits_ipv6(dev, link, &"IPv6 settings")?;
    }
    if let Some(port) = &link.port {
        let bridge = state.links.get(&Dev { site: dev.site.clone(), name: port.bridge });
        if !bridge.is_some_and(|bridge| matches!(bridge.kind, Kind::Bridge { .. })) {
            return Err(refuse(&object, &format!("port of {}", port.bridge), &"no such bridge is wanted beside it"));
        }
    }
    if let Some(parent) = link.kind.leans_on().and_then(|dev| state.links.get(&dev)) {
        room(link, parent).map_err(|reason| refuse(&object, &format!("mtu {}", link.mtu), &reason))?;
    }
    match &link.kind {
        Kind::Stray(kind) => Err(refuse(&object, &kind, &"strays are only observed")),
        Kind::Bridge { .. } if link.port.is_some() => {
            Err(refuse(&object, &"port of a bridge", &"it is a bridge itself"))
        }
        Kind::Veth { peer } => match state.links.get(peer).map(|link| &link.kind) {
            Some(Kind::Veth { peer: back }) if back == dev && peer != dev => Ok(()),
            _ => Err(refuse(&object, &format!("veth to {peer}"), &"the other end must be wanted too, and point back")),
        },
        Kind::Vxlan(vxlan) if vxlan.local.is_unspecified() || vxlan.local.is_multicast() => {
            Err(refuse(&object, &format!("local address {}", vxlan.local), &"a VTEP is one host's address"))
        }
        Kind::Vxlan(vxlan) if vxlan.source_ports.first() == vxlan.source_ports.last() => {
            let wanted = format!("source port {} only", vxlan.source_ports.first());
            Err(refuse(&object, &wanted, &"the kernel takes a range of one port for none; give it two at least"))
        }
        Kind::Tap(tap) => self::tap(*tap, link.mtu).map_err(|(wanted, reason)| refuse(&object, &wanted, &reason)),
        Kind::Bridge { .. } | Kind::Dummy | Kind::Vxlan(_) | Kind::Macvlan { .. } => Ok(()),
    }
}

/// The kernel takes the last number of users and groups for none (`linux/uidgid.h`), and has room for the Ethernet header in a
/// tap's frame of 65,535 bytes.
fn tap(tap: Tap, mtu: Mtu) -> Result<(), (String, &'static str)> {
    if [tap.owner, tap.group].contains(&Some(u32::MAX)) {
        return Err((tap.to_string(), "no user or group has the last number"));
    }
    if mtu.get() > TAP_MTU {
        return Err((format!("mtu {mtu}"), "a tap has 65521 at most"));
    }
    Ok(())
}

const TAP_MTU: u32 = 65_535 - 14;

/// What stands on a device is no larger than that carries.
fn room(link: &Link, parent: &Link) -> Result<(), String> {
    match &link.kind {
        Kind::Vxlan(vxlan) => vxlan.room_inside(parent.mtu, link.mtu),
        Kind::Macvlan { .. } if link.mtu > parent.mtu => Err(format!("its parent has MTU {}", parent.mtu)),
        _ => Ok(()),
    }
}

/// Two VXLAN devices of one underlay namespace need two VNIs.
fn tunnels(state: &State) -> Result<(), Refusal> {
    let mut taken = BTreeMap::new();
    for (dev, link) in &state.links {
        let Kind::Vxlan(vxlan) = &link.kind else { continue };
        if let Some(other) = taken.insert((&vxlan.underlay, vxlan.vni), dev) {
            return Err(refuse(&format!("link {dev}"), &format!("VNI {}", vxlan.vni), &format!("{other} has it")));
        }
    }
    Ok(())
}

fn addresses(state: &State) -> Result<(), Refusal> {
    for ((dev, address), len) in &state.addresses {
        let object = format!("address {address}/{len}");
        let Some(link) = state.links.get(dev) else {
            return Err(refuse(&object, &dev, &NO_DEVICE));
        };
        if IpNet::new(*address, *len).is_err() {
            return Err(refuse(&object, &format!("prefix length {len}"), &"it is longer than the address"));
        }
        if address.is_ipv6() {
            fits_ipv6(dev, link, &object)?;
        }
    }
    Ok(())
}

/// Below its MTU the kernel takes IPv6 off a device, with all that is on it.
fn fits_ipv6(dev: &Dev, link: &Link, what: &dyn Display) -> Result<(), Refusal> {
    if link.mtu < Mtu::IPV6_MIN {
        let wanted = format!("{what} at mtu {}", link.mtu);
        return Err(refuse(&format!("link {dev}"), &wanted, &"IPv6 needs 1280 at least (RFC 8200 §5)"));
    }
    Ok(())
}

fn entries(state: &State) -> Result<(), Refusal> {
    let mut devices = Devices { links: &state.links, last: None };
    for (dev, address) in state.neighbours.keys() {
        match devices.find(dev) {
            Some(link) if address.is_ipv6() => fits_ipv6(dev, link, &format_args!("neighbour {address}"))?,
            Some(_) => {}
            None => return Err(refuse(&format!("neighbour {address}"), &dev, &NO_DEVICE)),
        }
    }
    if let Some((dev, mac)) = state.forwarding.keys().find(|(_, mac)| !mac.is_station()) {
        return Err(refuse(&format!("forwarding on {dev}"), &mac, &"groups and zero belong in flood"));
    }
    let forwarding = state.forwarding.iter().map(|((dev, _), vtep)| (dev, vtep));
    for (dev, vtep) in forwarding.chain(state.flood.iter().map(|(dev, vtep)| (dev, vtep))) {
        match devices.find(dev).map(|link| &link.kind) {
            Some(Kind::Vxlan(vxlan)) if IpFamily::of(vxlan.local) == IpFamily::of(*vtep) => {}
            Some(Kind::Vxlan(_)) => {
                return Err(refuse(
                    &format!("VTEP {vtep}"),
                    &dev,
                    &"it is not of the family of the device's own address",
                ));
            }
            _ => return Err(refuse(&format!("VTEP {vtep}"), &dev, &"no such VXLAN device is wanted")),
        }
    }
    Ok(())
}

/// A station is behind a port of the bridge, and none of the bridge's own: those it has by itself.
fn stations(state: &State) -> Result<(), Refusal> {
    let mut own = BTreeMap::<_, Vec<_>>::new();
    for (dev, link) in &state.links {
        let bridge = link.port.map_or(dev.name, |port| port.bridge);
        own.entry((&dev.site, bridge)).or_default().push(link.mac);
    }
    own.values_mut().for_each(|macs| macs.sort_unstable());
    for ((bridge, mac), port) in &state.stations {
        let behind = state.links.get(&Dev { site: bridge.site.clone(), name: *port }).and_then(|link| link.port);
        let own = own.get(&(&bridge.site, bridge.name)).is_some_and(|macs| macs.binary_search(mac).is_ok());
        let reason = if !mac.is_station() {
            "groups and zero are no stations"
        } else if behind.is_none_or(|port| port.bridge != bridge.name) {
            "no such port of the bridge is wanted"
        } else if own {
            "a device of the bridge has this address itself"
        } else {
            continue;
        };
        return Err(refuse(&format!("station {mac} on {bridge}"), &format!("behind {port}"), &reason));
    }
    Ok(())
}

/// Finds the devices of entries, which come in the order of their devices: mostly it is the last one again.
struct Devices<'s> {
    links: &'s BTreeMap<Dev, Link>,
    last: Option<(&'s Dev, Option<&'s Link>)>,
}

impl<'s> Devices<'s> {
    fn find(&mut self, dev: &'s Dev) -> Option<&'s Link> {
        match self.last {
            Some((last, link)) if last == dev => link,
            _ => self.last.insert((dev, self.links.get(dev))).1,
        }
    }
}

fn route(state: &State, key: &RouteKey, route: &Route) -> Result<(), Refusal> {
    let (wanted, reason) = match route {
        _ if key.destination.trunc() != key.destination => ("host bits", "a destination has none"),
        _ if matches!(key.destination, IpNet::V6(_)) && key.metric == 0 => {
            ("metric 0", "the kernel would make it 1024; say which")
        }
        _ if key.table == 0 => ("table 0", "the kernel takes it for main; say 254"),
        Route::Blackhole | Route::Unreachable if key.site != Site::Home => ("no device", NO_MARK),
        Route::Via { source: Some(source), .. } if !has_address(state, &key.site, *source) => {
            ("its source", "no such address is wanted there, and the kernel drops the route with the address")
        }
        Route::Via { gateway: None, onlink: true, .. } => ("onlink", "there is no router that could be on the link"),
        Route::Via { device, .. } => {
            let dev = Dev { site: key.site.clone(), name: *device };
            match state.links.get(&dev) {
                Some(link) if !key.is_ipv4() => return fits_ipv6(&dev, link, key),
                Some(_) => return Ok(()),
                None => ("its device", NO_DEVICE),
            }
        }
        Route::Blackhole | Route::Unreachable => return Ok(()),
    };
    Err(refuse(&key, &wanted, &reason))
}

/// The kernel finds a rule to remove by what the request says of it: what it does not say, it takes for anything. So of
/// two rules with one priority it could take the other.
fn rules(state: &State) -> Result<(), Refusal> {
    let mut taken = BTreeMap::new();
    for rule in &state.rules {
        let mut nets = rule.from.iter().chain(&rule.to);
        let (wanted, reason) = match nets.clone().find(|net| IpFamily::of(net.addr()) != rule.family) {
            Some(net) => (net.to_string(), "it is of the other family".to_owned()),
            None if nets.any(|net| net.prefix_len() == 0) => {
                ("a prefix of length 0".to_owned(), "the kernel takes it for none; say none".to_owned())
            }
            None if rule.site != Site::Home => ("another namespace".to_owned(), NO_MARK.to_owned()),
            None if rule.table == 0 => ("table 0".to_owned(), "the kernel would choose one; say which".to_owned()),
            None => match taken.insert((&rule.site, rule.family, rule.priority), rule) {
                Some(other) => (format!("priority {}", rule.priority), format!("{other} has it")),
                None => continue,
            },
        };
        return Err(refuse(&rule, &wanted, &reason));
    }
    Ok(())
}

fn has_address(state: &State, site: &Site, address: IpAddr) -> bool {
    state.addresses.keys().any(|(dev, own)| dev.site == *site && *own == address)
}

const NO_MARK: &str = "its mark does not say whose it is, so it can be in a namespace only that is ours whole";
const NO_DEVICE: &str = "no such device is wanted";

fn refuse(object: &dyn Display, wanted: &dyn Display, reason: &dyn Display) -> Refusal {
    Refusal::new(object.to_string(), wanted.to_string(), reason.to_string())
}

#[cfg(test)]
mod tests {
    use overlay_core::State as _;

    use super::*;
    use crate::link::{Rule, Site};

    fn rule(from: Option<&str>, priority: u32, table: u32) -> Rule {
        let from = from.map(|from| from.parse().unwrap());
        let (site, family, to, mark, incoming) = (Site::Home, IpFamily::V4, None, None, None);
        Rule { site, family, priority, from, to, mark, incoming, table }
    }

    #[test]
    fn a_rule_that_the_kernel_would_change_or_mistake_for_another_is_refused() {
        let check = |rules: &[Rule]| State { rules: rules.iter().cloned().collect(), ..State::default() }.check();
        let good = [rule(None, 7, 100), rule(Some("10.0.0.0/8"), 8, 100)];
        assert_eq!(check(&good), Ok(()));
        let bad = [rule(Some("0.0.0.0/0"), 7, 100), rule(Some("fd00::/8"), 7, 100), rule(None, 7, 0)];
        assert!(bad.into_iter().all(|rule| check(&[rule]).is_err()));
        assert!(check(&[rule(None, 7, 100), rule(Some("10.0.0.0/8"), 7, 100)]).is_err());
    }
}
