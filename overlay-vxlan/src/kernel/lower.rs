//! From segments to links. A pure function.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use overlay_core::{DontFragment, EndpointId, IfName, IpFamily, NsKey, Refusal, Vni};
use overlay_kernel::link::{
    self, BridgePort, Dev, Kind, Link, MAIN_TABLE, Plug, Route, RouteKey, Setting, Site, Solicit, Tap, Vxlan,
};

use crate::{LocalPort, PortEnd, Segment, State, Vtep, names};

/// The links that mean `state`, in a sandbox whose tunnels' sockets are in `underlay` and whose taps are like `tap`.
pub(super) fn links(state: &State, underlay: &NsKey, tap: Tap) -> Result<link::State, Refusal> {
    let subnets = Subnets::of(state)?;
    let mut native = link::State::default();
    if subnets.routed(IpFamily::V6) {
        native.settings.insert((Site::Home, Setting::Ipv6Forwarding), true);
    }
    for (vni, segment) in &state.segments {
        let names = Names::of(*vni)?;
        if segment.ports.len() > MOST_PORTS {
            return Err(Refusal::new(format!("segment {vni}"), format!("{} ports", segment.ports.len()), FULL));
        }
        backbone(&mut native, &names, segment, underlay, subnets.routed(IpFamily::V4));
        peers(&mut native, &names, segment);
        for (endpoint, port) in &segment.ports {
            self::port(&mut native, &names, segment, (*endpoint, port), &subnets)?;
        }
        hosts(&mut native, segment, underlay);
    }
    taps(&mut native, state, tap)?;
    Ok(native)
}

/// A Linux bridge has 1,023 ports, and the tunnel is one.
const MOST_PORTS: usize = 1022;
const FULL: &str = "a Linux bridge takes 1,022 beside the tunnel; spread the endpoints over more nodes or subnets";
/// The tunnel answers a container that asks for a neighbour, so it may ask often: one that is known a moment too late is not noticed
/// a second too late. It gives up after 3 s, as the kernel does.
pub(super) const OFTEN: Solicit = Solicit { interval: Duration::from_millis(60), times: 50 };
/// Above that of the kernel's own routes to where a device is.
const METRIC: u32 = 1024;

struct Names {
    vni: Vni,
    bridge: IfName,
    tunnel: IfName,
}

impl Names {
    fn of(vni: Vni) -> Result<Self, Refusal> {
        Ok(Self { vni, bridge: names::bridge(vni)?, tunnel: names::tunnel(vni)? })
    }
}

/// The bridge with the gateway, and the tunnel as its port.
fn backbone(native: &mut link::State, names: &Names, segment: &Segment, underlay: &NsKey, routed: bool) {
    let mac = names::gateway_mac(names.vni);
    let bridge = Link::new(Kind::Bridge { multicast_snooping: false }, segment.mtu, mac);
    native.links.insert(Dev::home(names.bridge), Link { ipv4_forwarding: routed, ..bridge });
    native.put_addresses(&Dev::home(names.bridge), mac, &segment.gateways);

    let kind = Kind::Vxlan(tunnel(names.vni, &segment.vtep, underlay));
    let tunnel = Link::new(kind, segment.mtu, names::port_mac(names.vni)).on_bridge(BridgePort::quiet(names.bridge));
    native.links.insert(Dev::home(names.tunnel), tunnel);
}

fn tunnel(vni: Vni, vtep: &Vtep, underlay: &NsKey) -> Vxlan {
    Vxlan {
        vni,
        underlay: Site::far(underlay.clone()),
        local: vtep.local,
        device: vtep.device,
        port: vtep.port,
        source_ports: vtep.source_ports,
        ttl: vtep.ttl,
        dont_fragment: match vtep.underlay() {
            IpFamily::V4 => vtep.dont_fragment,
            IpFamily::V6 => DontFragment::Unset, // there is no such bit
        },
        udp_checksum: vtep.udp_checksum,
        learning: false,
        proxy: true,
    }
}

/// Who is elsewhere: the tunnel answers for their addresses, the bridge hands it their frames, it knows their VTEPs.
fn peers(native: &mut link::State, names: &Names, segment: &Segment) {
    let (bridge, tunnel) = (Dev::home(names.bridge), Dev::home(names.tunnel));
    for (mac, peer) in &segment.peers {
        // A container elsewhere with IPv6 has a link-local address, as those here have, whatever else it is said to have.
        if peer.addresses.iter().any(IpAddr::is_ipv6) {
            let link_local = mac.link_local().into();
            native.neighbours.entry((tunnel.clone(), link_local)).or_insert(*mac);
        }
        let neighbours = peer.addresses.iter().map(|address| ((tunnel.clone(), *address), *mac));
        native.neighbours.extend(neighbours);
        native.forwarding.insert((tunnel.clone(), *mac), peer.vtep);
        native.stations.insert((bridge.clone(), *mac), names.tunnel);
    }
    native.flood.extend(segment.flood.iter().map(|vtep| (tunnel.clone(), *vtep)));
}

/// Who is here: a pair from the bridge into the container, the addresses there, routes to the other segments.
fn port(
    native: &mut link::State,
    names: &Names,
    segment: &Segment,
    (endpoint, port): (EndpointId, &LocalPort),
    subnets: &Subnets<'_>,
) -> Result<(), Refusal> {
    let PortEnd::Namespace { namespace, interface } = &port.end else { return Ok(()) };
    let plug = plug(names, segment, names::port(endpoint)?, port);
    let inside = Dev::far(namespace.clone(), *interface);
    if !native.plug_container(plug, &inside, OFTEN, &port.addresses) {
        let reason = "another endpoint's id begins like this one, so its link would have the same name";
        let object = format!("segment {}: endpoint {endpoint}", names.vni);
        return Err(Refusal::new(object, plug.name.to_string(), reason));
    }
    subnets.routes(native, names.vni, port, &inside);
    Ok(())
}

/// Interfaces in the underlay's namespace are the host's own: what comes out of them is forwarded.
fn hosts(native: &mut link::State, segment: &Segment, underlay: &NsKey) {
    for port in segment.ports.values() {
        let PortEnd::Namespace { namespace, interface } = &port.end else { continue };
        let inside = native.links.get_mut(&Dev::far(namespace.clone(), *interface)).filter(|_| namespace == underlay);
        inside.into_iter().for_each(|link| link.ipv4_forwarding = true);
    }
}

/// Virtual machines here: a tap each, as a port of the bridge. What is inside is theirs, so nothing of it is said; the tap's own
/// Ethernet address is not the machine's. They come last, so that none has the name of another device.
fn taps(native: &mut link::State, state: &State, tap: Tap) -> Result<(), Refusal> {
    for (vni, segment) in &state.segments {
        let names = Names::of(*vni)?;
        for port in segment.ports.values() {
            let PortEnd::Tap { interface } = port.end else { continue };
            let plug = plug(&names, segment, interface, port);
            if interface.as_str() == LOOPBACK || !native.plug_tap(plug, tap) {
                let reason = "another device of the sandbox has this name; give the tap another";
                return Err(Refusal::new(format!("segment {vni}"), port.end.to_string(), reason));
            }
        }
    }
    Ok(())
}

fn plug(names: &Names, segment: &Segment, name: IfName, port: &LocalPort) -> Plug {
    let (mac, mtu) = (names::port_mac(names.vni), segment.mtu);
    Plug { name, mac, port: BridgePort::quiet(names.bridge), mtu, station: port.mac }
}

pub(super) const LOOPBACK: &str = "lo";

/// The subnets that the segments' gateways join, and which containers are in which.
pub(super) struct Subnets<'s> {
    gateways: Vec<(Vni, IpNet)>,
    inside: BTreeMap<&'s NsKey, BTreeSet<IpNet>>,
}

impl<'s> Subnets<'s> {
    /// Two segments with one subnet would leave open which of them a packet is for.
    pub(super) fn of(state: &'s State) -> Result<Self, Refusal> {
        let mut gateways = Vec::new();
        for (vni, segment) in &state.segments {
            for gateway in &segment.gateways {
                let overlaps =
                    |other: &&(Vni, IpNet)| other.0 != *vni && (covers(&other.1, gateway) || covers(gateway, &other.1));
                if let Some((other, _)) = gateways.iter().find(overlaps) {
                    let reason = format!("its subnet overlaps one of segment {other}'s");
                    return Err(Refusal::new(format!("segment {vni}"), format!("gateway {gateway}"), reason));
                }
                gateways.push((*vni, *gateway));
            }
        }
        let mut inside = BTreeMap::<_, BTreeSet<_>>::new();
        for port in state.segments.values().flat_map(|segment| segment.ports.values()) {
            if let PortEnd::Namespace { namespace, .. } = &port.end {
                inside.entry(namespace).or_default().extend(port.addresses.iter().map(IpNet::trunc));
            }
        }
        Ok(Self { gateways, inside })
    }

    /// Whether more than one segment has a gateway of the family, so that packets go from one to another.
    fn routed(&self, family: IpFamily) -> bool {
        let of_family = self.gateways.iter().filter(|(_, gateway)| IpFamily::of(gateway.addr()) == family);
        of_family.map(|(vni, _)| vni).collect::<BTreeSet<_>>().len() > 1
    }

    /// Routes from a port to the other segments' subnets, by this segment's gateway; not to where its container is itself.
    pub(super) fn routes(&self, native: &mut link::State, vni: Vni, port: &LocalPort, far: &Dev) {
        let Site::Far(namespace) = &far.site else { return };
        let inside = self.inside.get(&**namespace);
        for (_, other) in self.gateways.iter().filter(|(other, _)| *other != vni) {
            let destination = other.trunc();
            let reaches = |(on, gateway): &&(Vni, IpNet)| {
                let here = |net: &IpNet| covers(gateway, net) && covers(net, gateway);
                let family = IpFamily::of(gateway.addr()) == IpFamily::of(other.addr());
                *on == vni && family && port.addresses.iter().any(here)
            };
            let Some((_, gateway)) = self.gateways.iter().find(reaches) else { continue };
            if inside.is_some_and(|inside| inside.contains(&destination)) {
                continue;
            }
            let key = RouteKey { site: far.site.clone(), table: MAIN_TABLE, destination, metric: METRIC };
            native.routes.entry(key).or_insert_with(|| via(far.name, gateway.addr()));
        }
    }
}

/// Whether the address of `net` is in the subnet of `subnet`.
fn covers(subnet: &IpNet, net: &IpNet) -> bool {
    subnet.contains(&net.addr())
}

const fn via(device: IfName, gateway: IpAddr) -> Route {
    Route::Via { device, gateway: Some(gateway), source: None, onlink: false }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
