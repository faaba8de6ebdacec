//! What a segment must be to make sense on any backend.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use overlay_core::{Encapsulation, IfName, IpFamily, Mac, Mtu, NsId, Refusal, Vni, is_host_address, is_of_all_hosts};

use crate::{PortEnd, Segment};

/// Refuses what no backend could hold, by name.
pub(crate) fn segments(segments: &BTreeMap<Vni, Segment>) -> Result<(), Refusal> {
    let mut plugged = BTreeSet::new();
    for (vni, segment) in segments {
        let checks = vteps(segment).and_then(|()| stations(segment)).and_then(|()| addresses(segment));
        let checks = checks.and_then(|()| mtu(segment)).and_then(|()| ends(segment, &mut plugged));
        checks.map_err(|(wanted, reason)| Refusal::new(format!("segment {vni}"), wanted, reason))?;
    }
    Ok(())
}

type Unfit = (String, &'static str);

/// The VTEPs are hosts of one family, and the remote ones are not this one.
fn vteps(segment: &Segment) -> Result<(), Unfit> {
    let local = segment.vtep.local;
    let adrift = |vtep| is_link_local(vtep) && segment.vtep.device.is_none();
    if !is_host_address(local) {
        return Err((format!("local address {local}"), "a VTEP is one host's address"));
    }
    if adrift(local) {
        return Err((format!("local address {local}"), ADRIFT));
    }
    let peers = segment.peers.values().map(|peer| &peer.vtep);
    for vtep in peers.chain(&segment.flood) {
        let reason = if *vtep == local || vtep.is_loopback() && !local.is_loopback() {
            "this is the node's own address, so the endpoint belongs in ports"
        } else if IpFamily::of(*vtep) != segment.vtep.underlay() {
            "all VTEPs of a segment have the family of the local address"
        } else if !is_host_address(*vtep) {
            "a VTEP is one host's address"
        } else if local.is_loopback() && !vtep.is_loopback() {
            "no datagram goes there from a loopback address"
        } else if adrift(*vtep) {
            ADRIFT
        } else {
            continue;
        };
        return Err((format!("VTEP {vtep}"), reason));
    }
    Ok(())
}

/// Ethernet addresses are stations', one endpoint each.
fn stations(segment: &Segment) -> Result<(), Unfit> {
    let mut ports = BTreeMap::<Mac, ()>::new();
    for port in segment.ports.values() {
        if ports.insert(port.mac, ()).is_some() || segment.peers.contains_key(&port.mac) {
            return Err((format!("Ethernet address {}", port.mac), "two endpoints have it; give each its own"));
        }
    }
    match ports.keys().chain(segment.peers.keys()).find(|mac| !mac.is_station()) {
        Some(mac) => Err((format!("Ethernet address {mac}"), "an endpoint's is a station's, no group's and not zero")),
        None => Ok(()),
    }
}

/// IP addresses are hosts', one endpoint or gateway each.
fn addresses(segment: &Segment) -> Result<(), Unfit> {
    let ports = segment.ports.values().flat_map(|port| &port.addresses);
    let with_subnet = segment.gateways.iter().chain(ports);
    if let Some(net) = with_subnet.clone().find(|net| is_of_all_hosts(**net)) {
        return Err((format!("address {net}"), "it is the subnet's own or its broadcast address"));
    }
    if let Some(net) = with_subnet.clone().find(|net| net.prefix_len() == 0) {
        return Err((format!("address {net}"), "a prefix length of 0 leaves no subnet; give that of its subnet"));
    }
    let peers = segment.peers.values().flat_map(|peer| peer.addresses.iter().copied());
    let mut all: Vec<_> = with_subnet.map(IpNet::addr).chain(peers).collect();
    all.sort_unstable();
    if let Some(twice) = all.iter().zip(all.iter().skip(1)).find_map(|(a, b)| (a == b).then_some(a)) {
        return Err((format!("address {twice}"), "two endpoints have it; give each its own"));
    }
    match all.iter().find(|address| !is_host_address(**address) || address.is_loopback()) {
        Some(address) => Err((format!("address {address}"), "an endpoint's is one host's")),
        None => Ok(()),
    }
}

/// The MTU carries the addresses' families, and the underlay's IP packets carry the MTU.
fn mtu(segment: &Segment) -> Result<(), Unfit> {
    let ports = segment.ports.values().flat_map(|port| &port.addresses);
    let peers = segment.peers.values().flat_map(|peer| &peer.addresses);
    let v6 = segment.gateways.iter().chain(ports).map(IpNet::addr).chain(peers.copied()).any(|it| it.is_ipv6());
    let most = Encapsulation::vxlan(segment.vtep.underlay()).inner_mtu(Mtu::MAX);
    if v6 && segment.mtu < Mtu::IPV6_MIN {
        return Err((format!("mtu {}", segment.mtu), "IPv6 needs 1280 at least (RFC 8200 §5)"));
    }
    if most.is_ok_and(|most| segment.mtu > most) {
        return Err((format!("mtu {}", segment.mtu), "with the outer headers no IP packet carries that"));
    }
    Ok(())
}

/// Each endpoint has an interface of its own, in all segments: they share the sandbox, and a container may be in several.
fn ends(segment: &Segment, plugged: &mut BTreeSet<(Option<NsId>, IfName)>) -> Result<(), Unfit> {
    for port in segment.ports.values() {
        let end = match &port.end {
            PortEnd::Namespace { namespace, interface } => (Some(namespace.id), *interface),
            PortEnd::Tap { interface } => (None, *interface),
        };
        if !plugged.insert(end) {
            return Err((port.end.to_string(), "another endpoint is plugged in there"));
        }
    }
    Ok(())
}

fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}

const ADRIFT: &str = "a link-local address needs the interface it is at, in device";
