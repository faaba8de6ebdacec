//! What segments become, and what is refused.

use overlay_core::{Mac, Mtu, NsId, Port, PortRange, State as _};
use overlay_kernel::link::Step;
use proptest::prelude::*;

use super::*;
use crate::testing::{state, state_among};
use crate::{Peer, Segment, Vtep};

fn key(name: &str, inode: u64) -> NsKey {
    NsKey { name: name.parse().unwrap(), id: NsId { device: 4, inode } }
}

fn vni(vni: u32) -> Vni {
    Vni::new(vni).unwrap()
}

fn plain() -> Segment {
    Segment::new(Vtep::new([192, 0, 2, 1].into()), Mtu::new(1450).unwrap())
}

fn plug(segment: &mut Segment, number: u16, namespace: NsKey, address: &str) {
    let [high, low] = number.to_be_bytes();
    let mut id = [0; 16];
    (id[0], id[1]) = (high, low);
    let end = PortEnd::Namespace { namespace, interface: format!("eth{number}").parse().unwrap() };
    let addresses = if address.is_empty() { BTreeSet::new() } else { [address.parse().unwrap()].into() };
    let port = LocalPort { mac: Mac::new([2, 0x42, 0, 0, high, low]), addresses, end };
    segment.ports.insert(EndpointId::from_bytes(id), port);
}

fn refused(state: &State) -> String {
    links(state, &key("host", 1), Tap::new()).unwrap_err().to_string()
}

proptest! {
    #[test]
    fn lowered_states_pass_the_check(state in state()) {
        prop_assert_eq!(links(&state, &key("host", 1), Tap::new()).unwrap().check(), Ok(()));
    }

    #[test]
    fn every_peer_and_port_is_said_and_nothing_is_learned(state in state_among(vec![key("a", 2), key("b", 3)], true, "u0".parse().unwrap())) {
        let native = links(&state, &key("host", 1), Tap::new()).unwrap();
        let stations = state.segments.values().map(|segment| segment.peers.len() + segment.ports.len()).sum::<usize>();
        prop_assert_eq!(native.stations.len(), stations);
        prop_assert_eq!(native.forwarding.len(), state.segments.values().map(|it| it.peers.len()).sum::<usize>());
        prop_assert!(native.links.values().filter_map(|link| link.port).all(|port| !port.learning && !port.flood));
    }

    #[test]
    fn a_peer_more_makes_no_link(state in state_among(vec![key("a", 2)], true, "u0".parse().unwrap())) {
        let from = links(&state, &key("host", 1), Tap::new()).unwrap();
        let mut wanted = state;
        for segment in wanted.segments.values_mut() {
            let vtep = segment.peers.values().map(|peer| peer.vtep).next();
            let peer = vtep.map(|vtep| Peer { vtep, addresses: Default::default() });
            segment.peers.extend(peer.map(|peer| (Mac::new([2, 9, 9, 9, 9, 9]), peer)));
        }
        let plan = from.plan(&links(&wanted, &key("host", 1), Tap::new()).unwrap());
        let entry = |step: &Step| matches!(step, Step::PutForwarding(..) | Step::PutStation(..));
        prop_assert!(plan.iter().all(entry), "{:?}", plan);
    }
}

#[test]
fn a_network_of_two_subnets_routes_between_them() {
    let (mut one, mut two) = (plain(), plain());
    one.gateways = ["10.0.1.1/24", "fd00:1::1/64"].map(|net| net.parse().unwrap()).into();
    two.gateways = ["10.0.2.1/24", "fd00:2::1/64"].map(|net| net.parse().unwrap()).into();
    plug(&mut one, 1, key("a", 2), "10.0.1.2/24");
    plug(&mut one, 2, key("both", 3), "10.0.1.3/24");
    plug(&mut two, 3, key("both", 3), "10.0.2.3/24");
    plug(&mut two, 4, key("b", 4), "fd00:2::4/64");
    let native =
        links(&State { segments: [(vni(1), one), (vni(2), two)].into() }, &key("host", 1), Tap::new()).unwrap();
    assert_eq!(native.settings.len(), 1);
    assert!(native.links[&Dev::home("br-2".parse().unwrap())].ipv4_forwarding);
    let routes: Vec<_> = native.routes.iter().map(|(key, route)| format!("{key} {route}")).collect();
    let expected = [
        "route to 10.0.2.0/24 in a metric 1024 via 10.0.1.1 by eth1",
        "route to fd00:1::/64 in b metric 1024 via fd00:2::1 by eth4",
    ];
    assert_eq!(routes, expected);
    assert_eq!(native.check(), Ok(()));
}

fn tap(segment: &mut Segment, number: u16, name: &str) {
    plug(segment, number, key("a", 2), "10.0.0.9/24");
    segment.ports.values_mut().next_back().unwrap().end = PortEnd::Tap { interface: name.parse().unwrap() };
}

#[test]
fn a_tap_is_a_port_behind_which_is_the_machine_and_has_nothing_of_its_own() {
    let mut segment = plain();
    segment.gateways.insert("10.0.0.1/24".parse().unwrap());
    tap(&mut segment, 1, "tap0");
    let mac = *segment.ports.values().map(|port| &port.mac).next().unwrap();
    let like = Tap { multi_queue: true, owner: Some(1000), group: Some(107) };
    let native = links(&State { segments: [(vni(7), segment)].into() }, &key("host", 1), like).unwrap();
    let [bridge, dev] = ["br-7", "tap0"].map(|name| Dev::home(name.parse().unwrap()));
    let link = &native.links[&dev];
    assert_eq!((&link.kind, link.mtu.get(), link.mac), (&Kind::Tap(like), 1450, names::port_mac(vni(7))));
    assert_ne!(link.mac, mac);
    assert_eq!(link.port, Some(BridgePort::quiet(bridge.name)));
    assert_eq!(native.stations.get(&(bridge, mac)), Some(&dev.name));
    assert!(native.addresses.keys().all(|(on, _)| *on != dev) && native.routes.is_empty());
    assert_eq!(native.links.len(), 3);
    assert_eq!(native.check(), Ok(()));
}

#[test]
fn a_tap_named_as_another_device_of_the_sandbox_is_refused() {
    for name in ["lo", "br-7", "vx-7", "br-9", "vx-9", "p-00g0000000000"] {
        let (mut one, mut two) = (plain(), plain());
        tap(&mut one, 1, name);
        plug(&mut two, 2, key("b", 3), "");
        let taken = names::port(*two.ports.keys().next().unwrap()).unwrap();
        if name.starts_with("p-") {
            one.ports.values_mut().for_each(|port| port.end = PortEnd::Tap { interface: taken });
        }
        let text = refused(&State { segments: [(vni(7), one), (vni(9), two)].into() });
        assert!(text.starts_with("segment 7: tap ") && text.contains("another device of the sandbox has"), "{text}");
    }
}

#[test]
fn more_ports_than_a_bridge_takes_are_refused_by_number() {
    let mut segment = plain();
    for number in 0..1022 {
        plug(&mut segment, number, key("a", 2), "");
    }
    let full = State { segments: [(vni(7), segment.clone())].into() };
    assert!(links(&full, &key("host", 1), Tap::new()).is_ok());
    plug(&mut segment, 1022, key("a", 2), "");
    let text = refused(&State { segments: [(vni(7), segment)].into() });
    assert!(text.starts_with("segment 7: 1023 ports: a Linux bridge takes 1,022"), "{text}");
}

#[test]
fn a_single_source_port_is_refused_as_the_kernel_would_ignore_it() {
    let mut segment = plain();
    segment.vtep.source_ports = PortRange::new(Port::VXLAN, Port::VXLAN).unwrap();
    let native = links(&State { segments: [(vni(7), segment)].into() }, &key("host", 1), Tap::new()).unwrap();
    let text = native.check().unwrap_err().to_string();
    assert!(text.starts_with("link vx-7: source port 4789 only: the kernel takes a range of one port"), "{text}");
}

#[test]
fn endpoints_that_would_share_a_name_are_refused() {
    let mut segment = plain();
    plug(&mut segment, 1, key("a", 2), "");
    let (endpoint, port) = segment.ports.first_key_value().unwrap();
    let mut id = endpoint.to_bytes();
    id[15] = 1;
    let interface = "eth9".parse().unwrap();
    let end = PortEnd::Namespace { namespace: key("a", 2), interface };
    let twin = LocalPort { mac: Mac::new([2, 0, 0, 0, 0, 9]), end, ..port.clone() };
    segment.ports.insert(EndpointId::from_bytes(id), twin);
    assert!(refused(&State { segments: [(vni(7), segment)].into() }).contains("begins like this one"));
}

#[test]
fn overlapping_subnets_are_refused() {
    let (mut one, mut two) = (plain(), plain());
    one.gateways.insert("10.0.0.1/16".parse().unwrap());
    two.gateways.insert("10.0.2.1/24".parse().unwrap());
    let text = refused(&State { segments: [(vni(1), one), (vni(2), two)].into() });
    assert_eq!(text, "segment 2: gateway 10.0.2.1/24: its subnet overlaps one of segment 1's");
}

#[test]
fn an_endpoint_with_the_gateways_address_is_refused() {
    let mut segment = plain();
    plug(&mut segment, 1, key("a", 2), "");
    segment.ports.values_mut().for_each(|port| port.mac = names::gateway_mac(vni(7)));
    let native = links(&State { segments: [(vni(7), segment)].into() }, &key("host", 1), Tap::new()).unwrap();
    assert!(native.check().unwrap_err().to_string().contains("a device of the bridge has this address itself"));
}
