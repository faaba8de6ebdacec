//! What must hold whenever anything changes, looked at in what the places hold.

use overlay_core::Phase;
use overlay_core::State as _;
use overlay_firewall::{BridgePort, Strangers};
use overlay_node::{MemoryPlaces, Place, Ran, RoundRun};
use overlay_vxlan::names;

/// After each job: nothing has opened in a place whose guards are not all up, and no guard has gone while something is still open
/// inside.
pub(crate) fn job(places: &MemoryPlaces, run: &RoundRun, ran: &Ran) -> Result<(), String> {
    match ran.phase {
        Phase::Open => opened(places, run, &ran.place),
        Phase::Unguard => guarded(places),
        _ => Ok(()),
    }
}

/// Every place around one that opens has, of its desired guards, all: none of its steps of that phase is left.
fn opened(places: &MemoryPlaces, run: &RoundRun, place: &Place) -> Result<(), String> {
    let within = run.round().desired(place).map(|state| state.within.clone()).unwrap_or_default();
    let networks = within.into_iter().map(Place::Network);
    for around in networks.chain((*place != Place::Host).then_some(Place::Host)) {
        let Some(desired) = run.round().desired(&around) else { continue };
        let held = places.place(&around).map(|held| held.firewall.state()).unwrap_or_default();
        let left =
            held.plan(&desired.firewall).into_iter().find(|step| overlay_firewall::State::phase(step) == Phase::Guard);
        if let Some(step) = left {
            return Err(format!("{place} opens while {around} lacks its guard: {step}"));
        }
        let held = places.place(&around).map(|held| held.crypto.state()).unwrap_or_default();
        let left =
            held.plan(&desired.crypto).into_iter().find(|step| overlay_crypto::State::phase(step) == Phase::Guard);
        if let Some(step) = left {
            return Err(format!("{place} opens while {around} lacks its guard: {step}"));
        }
    }
    Ok(())
}

/// A sandbox that has a port carries nothing but what is pinned there, and the host of one lets only nodes in.
fn guarded(places: &MemoryPlaces) -> Result<(), String> {
    let host = places.place(&Place::Host).map(|held| held.firewall.state()).unwrap_or_default();
    for (place, held) in places.places() {
        let firewall = held.firewall.state();
        for (vni, segment) in &held.vxlan.state().segments {
            if !host.tunnels.contains_key(&segment.vtep.port) && !segment.ports.is_empty() {
                return Err(format!("{place} has ports while the host's tunnels are not guarded"));
            }
            for endpoint in segment.ports.keys() {
                let pinned = names::port(*endpoint).ok().and_then(|port| firewall.ports.get(&port));
                if firewall.strangers != Strangers::Drop || !matches!(pinned, Some(BridgePort::Pinned(_))) {
                    return Err(format!("{place}: endpoint {} in segment {vni} is not pinned", endpoint.short()));
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use overlay_core::{EndpointId, IfName, Mac, Mtu, NetworkId, Port, Vni};
    use overlay_firewall::{Pin, State, Tunnel};
    use overlay_vxlan::{LocalPort, PortEnd, Segment, Vtep};

    use super::*;

    const ENDPOINT: EndpointId = EndpointId::from_bytes([7; 16]);

    /// A sandbox with one port; what its firewall and the host's hold is left out or not.
    fn places(pinned: bool, host: bool) -> MemoryPlaces {
        let places = MemoryPlaces::default();
        let mac = Mac::from_ipv4([10, 0, 9, 2].into());
        let mut segment = Segment::new(Vtep::new([192, 0, 2, 1].into()), Mtu::new(1450).unwrap());
        let end = PortEnd::Tap { interface: IfName::new("tap0").unwrap() };
        segment.ports.insert(ENDPOINT, LocalPort { mac, addresses: ["10.0.9.2/24".parse().unwrap()].into(), end });
        let sandbox = places.make(&Place::Network(NetworkId::from_bytes([1; 16])));
        sandbox.vxlan.update(|state| drop(state.segments.insert(Vni::new(4096).unwrap(), segment)));
        if pinned {
            let pin = BridgePort::Pinned(Pin::new(mac, [[10, 0, 9, 2].into()]));
            let ports = [(names::port(ENDPOINT).unwrap(), pin)].into();
            sandbox.firewall.update(|state| *state = State { strangers: Strangers::Drop, ports, ..State::default() });
        }
        if host {
            let tunnels = [(Port::VXLAN, Tunnel::default())].into();
            places.make(&Place::Host).firewall.update(|state| *state = State { tunnels, ..State::default() });
        }
        places
    }

    #[test]
    fn a_port_that_is_not_pinned_and_a_host_whose_tunnels_are_not_guarded_are_found() {
        assert_eq!(guarded(&places(true, true)), Ok(()));
        assert!(guarded(&places(false, true)).unwrap_err().contains("is not pinned"));
        assert!(guarded(&places(true, false)).unwrap_err().contains("tunnels are not guarded"));
    }
}
