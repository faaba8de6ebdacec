//! What local networks must be to make sense on any backend.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::net::IpAddr;

use ipnet::IpNet;
use overlay_core::{IfName, Mac, Mtu, NsId, Refusal, is_host_address, is_of_all_hosts};

use crate::{Bridge, Inside, Macvlan, MacvlanMode, State};

/// Refuses what no backend could hold, by name.
pub(crate) fn state(state: &State) -> Result<(), Refusal> {
    for (name, bridge) in &state.bridges {
        self::bridge(bridge).map_err(|unfit| unfit.of(&format_args!("bridge {name}")))?;
    }
    for (endpoint, macvlan) in &state.macvlans {
        self::macvlan(macvlan).map_err(|unfit| unfit.of(&format_args!("macvlan of {}", endpoint.short())))?;
    }
    devices(state)?;
    insides(state)?;
    subnets(state)?;
    parents(state)
}

/// What was wanted, and why it cannot be.
struct Unfit(String, &'static str);

impl Unfit {
    fn of(self, object: &dyn Display) -> Refusal {
        Refusal::new(object.to_string(), self.0, self.1)
    }
}

fn bridge(bridge: &Bridge) -> Result<(), Unfit> {
    let ports = bridge.ports.values();
    let (mut macs, mut addresses) = (BTreeSet::from([bridge.mac]), BTreeSet::new());
    if let Some(twice) = ports.clone().map(|port| port.mac).find(|mac| !macs.insert(*mac)) {
        return Err(Unfit(format!("Ethernet address {twice}"), "two stations have it; give each its own"));
    }
    let nets = || bridge.addresses.iter().chain(ports.clone().flat_map(|port| &port.addresses));
    macs.iter().try_for_each(|mac| station(*mac))?;
    nets().try_for_each(address)?;
    if let Some(twice) = nets().map(IpNet::addr).find(|address| !addresses.insert(*address)) {
        return Err(Unfit(format!("address {twice}"), "two stations have it; give each its own"));
    }
    mtu(bridge.mtu, nets())
}

fn macvlan(macvlan: &Macvlan) -> Result<(), Unfit> {
    station(macvlan.mac)?;
    macvlan.addresses.iter().try_for_each(address)?;
    mtu(macvlan.mtu, macvlan.addresses.iter())
}

fn station(mac: Mac) -> Result<(), Unfit> {
    match mac.is_station() {
        true => Ok(()),
        false => Err(Unfit(format!("Ethernet address {mac}"), "a station's is no group's and not zero")),
    }
}

fn address(net: &IpNet) -> Result<(), Unfit> {
    let reason = if !is_host_address(net.addr()) || net.addr().is_loopback() {
        "a station's is one host's"
    } else if is_of_all_hosts(*net) {
        "it is the subnet's own or its broadcast address"
    } else if net.prefix_len() == 0 {
        "a prefix length of 0 leaves no subnet; give that of its subnet"
    } else {
        return Ok(());
    };
    Err(Unfit(format!("address {net}"), reason))
}

fn mtu<'n>(mtu: Mtu, mut nets: impl Iterator<Item = &'n IpNet>) -> Result<(), Unfit> {
    match mtu < Mtu::IPV6_MIN && nets.any(|net| net.addr().is_ipv6()) {
        true => Err(Unfit(format!("mtu {mtu}"), "IPv6 needs 1280 at least (RFC 8200 §5)")),
        false => Ok(()),
    }
}

/// Bridges and their ports are devices of one namespace.
fn devices(state: &State) -> Result<(), Refusal> {
    let mut names: BTreeSet<IfName> = state.bridges.keys().copied().collect();
    if names.iter().any(is_loopback) {
        return Err(Refusal::new("bridge lo", "this name", "it is the loopback device's"));
    }
    for (bridge, port) in
        state.bridges.iter().flat_map(|(name, bridge)| bridge.ports.keys().map(move |port| (name, port)))
    {
        if is_loopback(port) || !names.insert(*port) {
            let wanted = format!("port {port}");
            return Err(Refusal::new(
                format!("bridge {bridge}"),
                wanted,
                "another device has this name; give the port another",
            ));
        }
    }
    Ok(())
}

fn is_loopback(name: &IfName) -> bool {
    name.as_str() == "lo"
}

/// Each station has an interface of its own.
fn insides(state: &State) -> Result<(), Refusal> {
    let ports = state.bridges.iter().flat_map(|(name, bridge)| {
        let insides = bridge.ports.values().filter_map(|port| port.inside.as_ref());
        insides.map(move |inside| (format!("bridge {name}"), inside))
    });
    let macvlans = state.macvlans.iter().map(|(id, macvlan)| (format!("macvlan of {}", id.short()), &macvlan.inside));
    let mut taken = BTreeSet::<(NsId, IfName)>::new();
    for (object, Inside { namespace, interface }) in ports.chain(macvlans) {
        if is_loopback(interface) || !taken.insert((namespace.id, *interface)) {
            let wanted = format!("{interface} in {}", namespace.name);
            return Err(Refusal::new(object, wanted, "another interface has this name there"));
        }
    }
    Ok(())
}

/// A host that had two ways to an address would take one.
fn subnets(state: &State) -> Result<(), Refusal> {
    let mut all = BTreeMap::<IpNet, IfName>::new();
    for (name, bridge) in &state.bridges {
        for net in bridge.addresses.iter().map(IpNet::trunc) {
            let overlaps =
                |(other, of): &(&IpNet, &IfName)| **of != *name && (other.contains(&net) || net.contains(*other));
            if let Some((other, of)) = all.iter().find(overlaps) {
                let reason = format!("it overlaps {other} of bridge {of}");
                return Err(Refusal::new(format!("bridge {name}"), format!("subnet {net}"), reason));
            }
            all.insert(net, *name);
        }
    }
    Ok(())
}

/// The macvlans of one parent are stations of one network.
fn parents(state: &State) -> Result<(), Refusal> {
    let mut macs = BTreeSet::<(IfName, Mac)>::new();
    let mut addresses = BTreeSet::<(IfName, IpAddr)>::new();
    let mut alone = BTreeMap::<IfName, bool>::new();
    for (endpoint, macvlan) in &state.macvlans {
        let Macvlan { parent, mode, mac, .. } = macvlan;
        let refuse =
            |wanted: String, reason| Err(Refusal::new(format!("macvlan of {}", endpoint.short()), wanted, reason));
        if !macs.insert((*parent, *mac)) {
            return refuse(
                format!("Ethernet address {mac}"),
                "another macvlan of the parent has it; give each its own",
            );
        }
        if let Some(net) = macvlan.addresses.iter().find(|net| !addresses.insert((*parent, net.addr()))) {
            return refuse(
                format!("address {}", net.addr()),
                "another macvlan of the parent has it; give each its own",
            );
        }
        let passthru = *mode == MacvlanMode::Passthru;
        if alone.insert(*parent, passthru).is_some_and(|other| other || passthru) {
            return refuse(format!("parent {parent}"), "a macvlan in mode passthru is its parent's only one");
        }
    }
    Ok(())
}
