//! From local networks to links. A pure function.

use overlay_core::{IfName, Mac, Refusal};
use overlay_kernel::link::{self, BridgePort, Dev, Kind, Link, Plug, Solicit, Tap};

use crate::{Bridge, Inside, Macvlan, MacvlanMode, State};

/// The links that mean `state`, on a host whose taps are like `tap`.
pub(super) fn links(state: &State, tap: Tap) -> Result<link::State, Refusal> {
    let mut native = link::State::default();
    for (name, bridge) in &state.bridges {
        self::bridge(&mut native, *name, bridge, tap)?;
    }
    state.macvlans.values().for_each(|macvlan| self::macvlan(&mut native, macvlan));
    Ok(native)
}

/// A Linux bridge has as many ports.
const MOST_PORTS: usize = 1023;

fn bridge(native: &mut link::State, name: IfName, bridge: &Bridge, tap: Tap) -> Result<(), Refusal> {
    let object = || format!("bridge {name}");
    if bridge.ports.len() > MOST_PORTS {
        let wanted = format!("{} ports", bridge.ports.len());
        return Err(Refusal::new(object(), wanted, "a Linux bridge takes 1,023; use several"));
    }
    let dev = Dev::home(name);
    let link = Link::new(Kind::Bridge { multicast_snooping: false }, bridge.mtu, bridge.mac);
    native.links.insert(dev.clone(), Link { ipv4_forwarding: bridge.routed, ipv4_localnet: bridge.localnet, ..link });
    native.put_addresses(&dev, bridge.mac, &bridge.addresses);
    for (name_of_port, port) in &bridge.ports {
        let at = BridgePort { isolated: bridge.isolated, ..BridgePort::quiet(name) };
        let plug =
            Plug { name: *name_of_port, mac: of_ports(bridge.mac), port: at, mtu: bridge.mtu, station: port.mac };
        let plugged = match &port.inside {
            Some(inside) => native.plug_container(plug, &far(inside), Solicit::KERNEL, &port.addresses),
            None => native.plug_tap(plug, tap),
        };
        if !plugged {
            return Err(Refusal::new(object(), format!("port {name_of_port}"), "another device has a name of it"));
        }
    }
    Ok(())
}

/// The Ethernet address of a bridge's port devices, which send nothing by themselves.
const fn of_ports(bridge: Mac) -> Mac {
    let [a, b, c, d, e, f] = bridge.octets();
    Mac::local([a ^ 0x04, b, c, d, e, f])
}

fn macvlan(native: &mut link::State, macvlan: &Macvlan) {
    let mode = match macvlan.mode {
        MacvlanMode::Bridge => link::MacvlanMode::Bridge,
        MacvlanMode::Vepa => link::MacvlanMode::Vepa,
        MacvlanMode::Private => link::MacvlanMode::Private,
        MacvlanMode::Passthru => link::MacvlanMode::Passthru,
    };
    let dev = far(&macvlan.inside);
    let kind = Kind::Macvlan { parent: Dev::home(macvlan.parent), mode };
    native.links.insert(dev.clone(), Link::new(kind, macvlan.mtu, macvlan.mac));
    native.put_addresses(&dev, macvlan.mac, &macvlan.addresses);
}

fn far(inside: &Inside) -> Dev {
    Dev::far(inside.namespace.clone(), inside.interface)
}
