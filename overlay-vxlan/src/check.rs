//! What a segment must be to make sense on any backend.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use overlay_core::{IpFamily, Mac, Mtu, Refusal, Vni};

use crate::Segment;

/// Refuses what no backend could hold, by name.
pub(crate) fn segment(vni: Vni, segment: &Segment) -> Result<(), Refusal> {
    let object = || format!("segment {vni}");
    vteps(segment).map_err(|(wanted, reason)| Refusal::new(object(), wanted, reason))?;
    stations(segment).map_err(|(wanted, reason)| Refusal::new(object(), wanted, reason))?;
    addresses(segment).map_err(|(wanted, reason)| Refusal::new(object(), wanted, reason))
}

/// An interface is plugged into one port, of whichever segment.
pub(crate) fn ends(segments: &BTreeMap<Vni, Segment>) -> Result<(), Refusal> {
    let mut ends = BTreeSet::new();
    for (vni, segment) in segments {
        if let Some(port) = segment.ports.values().find(|port| !ends.insert(&port.end)) {
            let wanted = format!("a port for {}", port.end);
            return Err(Refusal::new(format!("segment {vni}"), wanted, "another port has it; give each its own"));
        }
    }
    Ok(())
}

type Unfit = (String, &'static str);

/// The VTEPs are hosts of one family, and the remote ones are not this one.
fn vteps(segment: &Segment) -> Result<(), Unfit> {
    let local = segment.vtep.local;
    if !is_host(local) {
        return Err((format!("local address {local}"), "a VTEP is one host's address"));
    }
    let peers = segment.peers.values().map(|peer| &peer.vtep);
    for vtep in peers.chain(&segment.flood) {
        let reason = if *vtep == local {
            "this is the node's own address, so the endpoint belongs in ports"
        } else if IpFamily::of(*vtep) != segment.vtep.underlay() {
            "all VTEPs of a segment have the family of the local address"
        } else if !is_host(*vtep) {
            "a VTEP is one host's address"
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

/// IP addresses are hosts', one endpoint or gateway each, and the MTU carries their family.
fn addresses(segment: &Segment) -> Result<(), Unfit> {
    let gateways = segment.gateways.iter().map(IpNet::addr);
    let ports = segment.ports.values().flat_map(|port| port.addresses.iter().map(IpNet::addr));
    let peers = segment.peers.values().flat_map(|peer| peer.addresses.iter().copied());
    let mut all: Vec<_> = gateways.chain(ports).chain(peers).collect();
    all.sort_unstable();
    if let Some(twice) = all.iter().zip(all.iter().skip(1)).find_map(|(a, b)| (a == b).then_some(a)) {
        return Err((format!("address {twice}"), "two endpoints have it; give each its own"));
    }
    if let Some(address) = all.iter().find(|address| !is_host(**address)) {
        return Err((format!("address {address}"), "an endpoint's is one host's"));
    }
    if all.iter().any(IpAddr::is_ipv6) && segment.mtu < Mtu::IPV6_MIN {
        return Err((format!("mtu {}", segment.mtu), "IPv6 needs 1280 at least (RFC 8200 §5)"));
    }
    Ok(())
}

fn is_host(address: IpAddr) -> bool {
    !address.is_unspecified() && !address.is_multicast() && address != IpAddr::from([255; 4])
}
