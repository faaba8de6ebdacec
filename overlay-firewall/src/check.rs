//! What a state must be to make sense on any backend.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use overlay_core::{IpFamily, Protocol, Refusal, is_host_address};

use crate::{Bind, BridgePort, Published, State};

/// Refuses what no backend could mean, by name.
pub(crate) fn state(state: &State) -> Result<(), Refusal> {
    gateways(state)?;
    published(state)?;
    guards(state)?;
    ports(state)?;
    policy(state)
}

/// Each address is behind one gateway.
fn gateways(state: &State) -> Result<(), Refusal> {
    let mut subnets = Vec::new();
    for (device, gateway) in &state.gateways {
        let refused =
            |net: &IpNet, reason| Err(Refusal::new(format!("gateway {device}"), format!("subnet {net}"), reason));
        if device.as_str() == "lo" {
            return Err(Refusal::new("gateway lo", "loopback", "a gateway is a bridge's device"));
        }
        for net in &gateway.subnets {
            if net.trunc() != *net {
                return refused(net, "a subnet has no bits behind its prefix");
            }
            if is_mapped(net.addr()) {
                return refused(net, MAPPED);
            }
            subnets.push((*net, device));
        }
    }
    subnets.sort_unstable();
    for pair in subnets.windows(2) {
        // In this order a net stands right behind one that contains it, or behind others that it contains.
        let [(first, _), (second, device)] = pair else { continue };
        if first.contains(second) || second.contains(first) {
            let reason = format!("it overlaps {first}");
            return Err(Refusal::new(format!("gateway {device}"), format!("subnet {second}"), reason));
        }
    }
    Ok(())
}

/// Each place of a port is published once, for each family.
fn published(state: &State) -> Result<(), Refusal> {
    let mut taken = BTreeMap::<Place, &str>::new();
    for (name, port) in &state.published {
        let refused =
            |wanted: String, reason: &'static str| Err(Refusal::new(format!("published {name}"), wanted, reason));
        if let Bind::Address(address) = port.bind
            && (address.is_unspecified() || address.is_multicast() || is_mapped(address))
        {
            return refused(format!("address {address}"), "it is no host's; every address is `Bind::Any`");
        }
        let mut nowhere = true;
        for (place, target) in places(port) {
            nowhere = false;
            if target.port() == 0 || !is_host_address(target.ip()) {
                return refused(format!("target {target}"), "it is no host's port");
            }
            if let Some(other) = taken.insert(place, name.as_str()) {
                let reason = format!("{other} is published there");
                return Err(Refusal::new(format!("published {name}"), bound(port), reason));
            }
        }
        if nowhere {
            return refused(bound(port), "it has no target of the family that clients have there");
        }
        if let Some(net) = port.sources.iter().find(|net| is_mapped(net.addr())) {
            return refused(format!("source {net}"), MAPPED);
        }
    }
    Ok(())
}

/// Where a port is found, for clients of IPv6 or of IPv4.
pub(crate) type Place = (Protocol, u16, Bind, bool);

/// The places of a published port, and where each leads.
pub(crate) fn places(port: &Published) -> impl Iterator<Item = (Place, SocketAddr)> {
    let targets = [IpFamily::V4, IpFamily::V6].into_iter().filter_map(|family| port.target(family));
    targets.map(|target| ((port.protocol, port.port.get(), port.bind, target.is_ipv6()), target))
}

fn bound(port: &Published) -> String {
    format!("{} {} at {}", port.protocol, port.port, port.bind)
}

/// Members are hosts, and a port has one guard.
fn guards(state: &State) -> Result<(), Refusal> {
    let members =
        |object: String, members: &BTreeSet<IpAddr>| match members.iter().find(|member| !is_host_address(**member)) {
            Some(member) => Err(Refusal::new(object, format!("member {member}"), "it is no host's address")),
            None => Ok(()),
        };
    let mut taken = BTreeSet::new();
    for (port, tunnel) in &state.tunnels {
        members(format!("tunnel {port}"), &tunnel.members)?;
        taken.insert((Protocol::Udp, *port));
    }
    members("esp".to_owned(), state.esp.as_ref().unwrap_or(&BTreeSet::new()))?;
    for (name, limit) in &state.limits {
        members(format!("limit {name}"), &limit.members)?;
        if !taken.insert((limit.protocol, limit.port)) {
            let wanted = format!("{} {}", limit.protocol, limit.port);
            return Err(Refusal::new(format!("limit {name}"), wanted, "the port is guarded already"));
        }
    }
    Ok(())
}

/// Ethernet addresses are stations', IP addresses hosts' and one port's each.
fn ports(state: &State) -> Result<(), Refusal> {
    let mut addresses = BTreeSet::<IpAddr>::new();
    for (device, port) in &state.ports {
        let refused =
            |wanted: String, reason: &'static str| Err(Refusal::new(format!("port {device}"), wanted, reason));
        let BridgePort::Pinned(pin) = port else { continue };
        if !pin.mac.is_station() {
            return refused(format!("Ethernet address {}", pin.mac), "an endpoint's is a station's");
        }
        for address in &pin.addresses {
            if !is_host_address(*address) {
                return refused(format!("address {address}"), "an endpoint's is one host's");
            }
            if !addresses.insert(*address) {
                return refused(format!("address {address}"), "another port has it");
            }
        }
    }
    Ok(())
}

/// Addresses are one member's each, and the policy is where no gateway is.
fn policy(state: &State) -> Result<(), Refusal> {
    if state.policy.is_active() && !state.gateways.is_empty() {
        let reason = "a policy is about packets inside a network: it belongs to the network's sandbox";
        return Err(Refusal::new("policy", "gateways at the same place", reason));
    }
    let mut addresses = BTreeSet::new();
    for (endpoint, member) in &state.policy.members {
        for address in &member.addresses {
            let reason = match () {
                () if !is_host_address(*address) => "an endpoint's is one host's",
                () if !addresses.insert(*address) => "another member has it",
                () => continue,
            };
            return Err(Refusal::new(format!("member {}", endpoint.short()), format!("address {address}"), reason));
        }
    }
    Ok(())
}

/// IPv4 in IPv6's form (RFC 4291 §2.5.5.2) is on no wire, and would be a second text for an address.
const fn is_mapped(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.to_ipv4_mapped().is_some())
}

const MAPPED: &str = "write IPv4 as IPv4";
