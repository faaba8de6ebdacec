//! What lowerings of several areas say alike.

use std::collections::BTreeSet;

use ipnet::IpNet;
use overlay_core::{IfName, Mac, Mtu};

use super::{BridgePort, Dev, Kind, Link, Solicit, State, Tap};

/// A port of a bridge at home, and the one station behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plug {
    /// The port's device, at home.
    pub name: IfName,
    /// That device's own Ethernet address. It sends nothing by itself.
    pub mac: Mac,
    /// What it is to the bridge, which gets an entry for the station.
    pub port: BridgePort,
    /// Largest IP packet.
    pub mtu: Mtu,
    /// The station's Ethernet address.
    pub station: Mac,
}

impl State {
    /// A pair from a bridge here to a container's interface, which is the station and has these addresses. Changes nothing and gives
    /// `false` if a device of either name is there.
    #[must_use]
    pub fn plug_container(&mut self, plug: Plug, inside: &Dev, solicit: Solicit, addresses: &BTreeSet<IpNet>) -> bool {
        let near = Dev::home(plug.name);
        if self.links.contains_key(&near) || self.links.contains_key(inside) {
            return false;
        }
        let far = Link { solicit, ..Link::new(Kind::Veth { peer: near }, plug.mtu, plug.station) };
        self.put_port(plug, Kind::Veth { peer: inside.clone() });
        self.links.insert(inside.clone(), far);
        self.put_addresses(inside, plug.station, addresses);
        true
    }

    /// A tap as a port of a bridge here, for a virtual machine that is the station. Changes nothing and gives `false` if a device of the
    /// name is there.
    #[must_use]
    pub fn plug_tap(&mut self, plug: Plug, tap: Tap) -> bool {
        let free = !self.links.contains_key(&Dev::home(plug.name));
        if free {
            self.put_port(plug, Kind::Tap(tap));
        }
        free
    }

    fn put_port(&mut self, plug: Plug, kind: Kind) {
        self.links.insert(Dev::home(plug.name), Link::new(kind, plug.mtu, plug.mac).on_bridge(plug.port));
        self.stations.insert((Dev::home(plug.port.bridge), plug.station), plug.name);
    }

    /// Gives a device these addresses, and beside those of IPv6 the link-local one of its Ethernet address: neighbour discovery needs it,
    /// and the kernel's own would first be checked for duplicates.
    pub fn put_addresses(&mut self, dev: &Dev, mac: Mac, addresses: &BTreeSet<IpNet>) {
        if addresses.iter().any(|net| net.addr().is_ipv6()) {
            self.addresses.insert((dev.clone(), mac.link_local().into()), 64);
        }
        self.addresses.extend(addresses.iter().map(|net| ((dev.clone(), net.addr()), net.prefix_len())));
    }
}
