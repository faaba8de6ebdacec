//! From segments to links, where somebody else carries the frames. A pure function.

use overlay_core::{EndpointId, NsKey, Refusal, Vni};
use overlay_kernel::link::{self, BridgePort, Dev, Kind, Link, Plug, Tap};

use super::lower::{LOOPBACK, OFTEN, Subnets};
use crate::{LocalPort, PortEnd, Segment, State, names};

/// The links that mean the ports of `state`: taps in containers; for machines, whose taps are like `theirs`, what leads from these to ours; the host is
/// the namespace `host`.
pub(super) fn links(state: &State, host: &NsKey, theirs: Tap) -> Result<link::State, Refusal> {
    let subnets = Subnets::of(state)?;
    let mut native = link::State::default();
    let ports =
        || state.segments.iter().flat_map(|(vni, segment)| segment.ports.iter().map(move |it| (vni, segment, it)));
    for (vni, segment, (endpoint, port)) in ports() {
        let is_free = match &port.end {
            PortEnd::Namespace { namespace, .. } => {
                container(&mut native, (*vni, segment), port, (&subnets, namespace == host))
            }
            PortEnd::Tap { .. } => {
                gateway(&mut native, (*vni, segment))?;
                joint(&mut native, (*vni, segment), *endpoint)?
            }
        };
        check(is_free, (*vni, *endpoint, port))?;
    }
    // Machines' own come last, so that none has the name of another device.
    for (vni, segment, (endpoint, port)) in ports() {
        if let PortEnd::Tap { interface } = port.end {
            let bridge = BridgePort::quiet(names::joint(*endpoint)?);
            let (mac, mtu) = (names::port_mac(*vni), segment.mtu);
            let plug = Plug { name: interface, mac, port: bridge, mtu, station: port.mac };
            let is_free = interface.as_str() != LOOPBACK && native.plug_tap(plug, theirs);
            check(is_free, (*vni, *endpoint, port))?;
        }
    }
    Ok(native)
}

fn check(is_free: bool, (vni, endpoint, port): (Vni, EndpointId, &LocalPort)) -> Result<(), Refusal> {
    const TAKEN: &str = "another device there is called so, or another endpoint's id begins like this one";
    let object = || format!("segment {vni}: endpoint {endpoint}");
    if is_free { Ok(()) } else { Err(Refusal::new(object(), port.end.to_string(), TAKEN)) }
}

/// A container's interface, with its addresses, and routes to the other segments.
fn container(
    native: &mut link::State,
    (vni, segment): (Vni, &Segment),
    port: &LocalPort,
    (subnets, is_hosts): (&Subnets<'_>, bool),
) -> bool {
    let PortEnd::Namespace { namespace, interface } = &port.end else { return true };
    let inside = Dev::far(namespace.clone(), *interface);
    // What comes out of one of the host's own is forwarded.
    let link = Link { solicit: OFTEN, ipv4_forwarding: is_hosts, ..ours(segment, port.mac) };
    let is_free = native.links.insert(inside.clone(), link).is_none();
    native.put_addresses(&inside, port.mac, &port.addresses);
    if !is_hosts {
        subnets.routes(native, vni, port, &inside);
    }
    is_free
}

/// A bridge for one machine, and our end of it: whatever is for another than the machine comes to us.
fn joint(native: &mut link::State, (vni, segment): (Vni, &Segment), endpoint: EndpointId) -> Result<bool, Refusal> {
    let (bridge, end, mac) = (names::joint(endpoint)?, names::port(endpoint)?, names::port_mac(vni));
    let kind = Kind::Bridge { multicast_snooping: false };
    let is_free = native.links.insert(Dev::home(bridge), Link::new(kind, segment.mtu, mac)).is_none();
    let port = BridgePort { flood: true, ..BridgePort::quiet(bridge) };
    Ok(is_free && native.links.insert(Dev::home(end), ours(segment, mac).on_bridge(port)).is_none())
}

/// The gateway of machines, which they ask for names.
fn gateway(native: &mut link::State, (vni, segment): (Vni, &Segment)) -> Result<(), Refusal> {
    let (dev, mac) = (Dev::home(names::bridge(vni)?), names::gateway_mac(vni));
    native.links.insert(dev.clone(), ours(segment, mac));
    native.put_addresses(&dev, mac, &segment.gateways);
    Ok(())
}

/// A tap that the carrier has.
fn ours(segment: &Segment, mac: overlay_core::Mac) -> Link {
    Link::new(Kind::Tap(Tap::new()), segment.mtu, mac)
}

#[cfg(test)]
mod tests {
    use overlay_core::{Mtu, NsId, State as _};
    use proptest::prelude::*;

    use super::*;
    use crate::Vtep;
    use crate::testing::state_among;

    fn key(name: &str, inode: u64) -> NsKey {
        NsKey { name: name.parse().unwrap(), id: NsId { device: 4, inode } }
    }

    fn machine(interface: &str) -> (EndpointId, State) {
        let (endpoint, mac) = (EndpointId::from_bytes([7; 16]), [2, 0x42, 10, 0, 0, 9].into());
        let mut segment = Segment::new(Vtep::new([192, 0, 2, 1].into()), Mtu::new(1_450).unwrap());
        segment.gateways.insert("10.0.0.1/24".parse().unwrap());
        let end = PortEnd::Tap { interface: interface.parse().unwrap() };
        segment.ports.insert(endpoint, LocalPort { mac, addresses: ["10.0.0.9/24".parse().unwrap()].into(), end });
        (endpoint, State { segments: [(Vni::new(7).unwrap(), segment)].into() })
    }

    proptest! {
        #[test]
        fn lowered_states_pass_the_check(state in state_among(vec![key("a", 2), key("b", 3)], true, "u0".parse().unwrap())) {
            let native = links(&state, &key("host", 1), Tap::new()).unwrap();
            prop_assert_eq!(native.check(), Ok(()));
            let machines = state.segments.values().flat_map(|segment| segment.ports.values());
            let machines = machines.filter(|port| matches!(port.end, PortEnd::Tap { .. })).count();
            let bridges = native.links.values().filter(|link| matches!(link.kind, Kind::Bridge { .. })).count();
            prop_assert_eq!(bridges, machines);
            prop_assert_eq!(native.stations.len(), machines);
            prop_assert!(native.forwarding.is_empty() && native.neighbours.is_empty() && native.flood.is_empty());
        }
    }

    #[test]
    fn a_machine_and_who_carries_for_it_have_a_bridge_between_them_and_a_gateway_beside() {
        let (endpoint, state) = machine("tap0");
        let like = Tap { multi_queue: true, owner: Some(1000), group: Some(107) };
        let native = links(&state, &key("host", 1), like).unwrap();
        let dev = |name: String| Dev::home(name.parse().unwrap());
        let (theirs, ours) = (dev("tap0".to_owned()), Dev::home(names::port(endpoint).unwrap()));
        let bridge = names::joint(endpoint).unwrap();
        assert_eq!(native.links[&theirs].kind, Kind::Tap(like));
        assert_eq!(native.links[&ours].kind, Kind::Tap(Tap::new()));
        let flooded = |at: &Dev| native.links[at].port.map(|port| (port.bridge, port.flood, port.learning));
        assert_eq!((flooded(&theirs), flooded(&ours)), (Some((bridge, false, false)), Some((bridge, true, false))));
        let gateway = dev("br-7".to_owned());
        assert!(native.addresses.contains_key(&(gateway.clone(), [10, 0, 0, 1].into())));
        assert_eq!(native.links[&gateway].mac, names::gateway_mac(Vni::new(7).unwrap()));
        assert_eq!(native.links.len(), 4);
    }

    #[test]
    fn a_tap_named_as_another_device_is_refused() {
        let (endpoint, _) = machine("tap0");
        let others = [names::port(endpoint), names::joint(endpoint)].map(|name| name.unwrap().to_string());
        for name in others.iter().map(String::as_str).chain(["lo", "br-7"]) {
            let refused = links(&machine(name).1, &key("host", 1), Tap::new()).unwrap_err().to_string();
            assert!(refused.contains("is called so"), "{refused}");
        }
    }
}
