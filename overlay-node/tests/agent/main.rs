//! What agents promise to each other and to who runs them, on a virtual network.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on is to fail")]

mod drain;
mod encrypted;
mod explain;
mod fresh;
mod sealed;
mod town;
mod watch;

use std::sync::Arc;

use std::net::IpAddr;

use overlay_core::{Mtu, ServiceId, UnixTime};
use overlay_dns::Health;
use overlay_gossip::testing::Net;
use overlay_link::MacvlanMode;
use overlay_node::{
    AgentEvent, CatalogueChange, Condition, Encryption, Endpoint, EndpointMode, EndpointSpec, Input, InputError, Kind,
    Network, NetworkSpec, Place, Service, ServiceSpec,
};
use town::{NETWORK, Node, Town, agent, container, endpoint, eth0, id, mac, network};

#[test]
fn a_network_is_absent_until_an_endpoint_is_plugged_in_and_gone_after_the_last() {
    let mut town = Town::new(1, 3);
    town.assign(2, 0, 0);
    town.assign(3, 1, 0);
    town.run(2);
    assert!((0..3).all(|node| town.desired(node).places.is_empty()), "nothing is plugged in");
    town.plug(2, 0);
    town.plug(3, 1);
    town.run(2);
    assert_eq!((town.peer(0, 3), town.peer(1, 2)), (Some(1), Some(0)));
    let places: Vec<Place> = town.desired(0).places.keys().cloned().collect();
    assert_eq!(places, [Place::Host, Place::Network(NETWORK), Place::Container(container(2))]);
    assert!(town.desired(2).places.is_empty(), "it has no endpoint");
    town.tell(0, Input::Unplug(id(2)));
    town.run(2);
    assert!(town.desired(0).places.is_empty());
    assert_eq!(town.peer(1, 2), None);
}

#[test]
fn peers_that_were_known_before_the_first_endpoint_are_in_place_when_it_is_plugged_in() {
    let mut town = Town::new(2, 2);
    town.assign(3, 1, 0);
    town.plug(3, 1);
    town.assign(2, 0, 0);
    town.run(2);
    town.plug(2, 0);
    assert_eq!(town.peer(0, 3), Some(1), "at once, no time has passed");
}

#[test]
fn a_container_finds_another_on_another_node_by_name_and_id() {
    let mut town = Town::new(3, 2);
    for number in 2..=3 {
        town.assign(number, usize::from(number) - 2, 0);
        town.plug(number, usize::from(number) - 2);
    }
    town.run(2);
    let desired = town.desired(0);
    let view = &desired.places[&Place::Container(container(2))].view;
    let addresses = vec!["10.9.0.3".parse().unwrap(), "fd00:9::3".parse().unwrap()];
    for name in ["c3", "c3.customoverlay", &id(3).short().to_string()] {
        assert_eq!(view.addresses(&name.parse().unwrap()), Some(addresses.clone()), "{name}");
    }
}

#[test]
fn an_endpoint_that_moves_is_where_it_moved_to_for_all_and_nowhere_twice() {
    let mut town = Town::new(4, 3);
    town.assign(2, 0, 0);
    town.assign(3, 1, 0);
    town.plug(2, 0);
    town.plug(3, 1);
    town.run(2);
    town.events();
    town.assign(3, 2, 1);
    town.plug(3, 2);
    assert!(town.events().contains(&(1, AgentEvent::Withdrawn(id(3)))));
    town.run(2);
    assert_eq!(town.peer(0, 3), Some(2));
    assert!(town.desired(1).places.is_empty());
}

#[test]
fn of_two_nodes_that_say_they_have_an_endpoint_the_one_where_the_catalogue_has_it_is_believed() {
    let mut town = Town::new(5, 4);
    town.assign(2, 0, 0);
    town.plug(2, 0);
    // Node 1 has not heard that the endpoint moved to node 2.
    town.tell(1, Input::Catalogue(CatalogueChange::Endpoint(Arc::new(endpoint(3, 1, 4)))));
    town.plug(3, 1);
    for node in [0, 2] {
        town.tell(node, Input::Catalogue(CatalogueChange::Endpoint(Arc::new(endpoint(3, 2, 5)))));
    }
    town.plug(3, 2);
    town.run(3);
    assert_eq!(town.peer(0, 3), Some(2));
    assert_eq!(town.net.machine(0).map(|node| node.0.metrics().contested), Some(1));
    town.net.crash(2);
    town.run(30);
    assert_eq!(town.peer(0, 3), None, "the better word is out of sight, and the other is no better for it");
}

#[test]
fn an_endpoint_that_a_node_invents_is_nowhere_and_one_that_the_catalogue_has_later_is_not_lost() {
    let mut town = Town::new(16, 3);
    town.assign(2, 0, 0);
    town.plug(2, 0);
    // Only the liar's own catalogue has the third: it stands for a node that says what it likes.
    let invented = CatalogueChange::Endpoint(Arc::new(endpoint(3, 1, u64::MAX)));
    town.tell(1, Input::Catalogue(invented));
    town.plug(3, 1);
    town.run(2);
    let waits = |town: &Town| town.net.machine(0).map(|node| node.0.metrics().contested);
    assert_eq!((town.peer(0, 3), waits(&town)), (None, Some(1)));
    let view = town.desired(0).places[&Place::Container(container(2))].view.clone();
    assert_eq!(view.addresses(&"c3".parse().unwrap()), None);
    for wrong in [
        endpoint(3, 2, 0),
        Endpoint { mac: mac(4), ..endpoint(3, 1, 0) },
        Endpoint { addresses: endpoint(4, 1, 0).addresses, ..endpoint(3, 1, 0) },
        Endpoint { condition: Condition::Removing, ..endpoint(3, 1, 0) },
    ] {
        town.tell(0, Input::Catalogue(CatalogueChange::Endpoint(Arc::new(wrong))));
        assert_eq!((town.peer(0, 3), waits(&town)), (None, Some(1)));
    }
    town.tell(0, Input::Catalogue(CatalogueChange::Endpoint(Arc::new(endpoint(3, 1, 0)))));
    assert_eq!((town.peer(0, 3), waits(&town)), (Some(1), Some(0)), "at once, no time has passed");
    town.tell(0, Input::Catalogue(CatalogueChange::EndpointGone(id(3))));
    assert_eq!((town.peer(0, 3), waits(&town)), (None, Some(1)));
}

#[test]
fn a_node_cannot_have_an_endpoint_of_its_own_serve_a_service_that_the_catalogue_does_not_say_it_serves() {
    let mut town = Town::new(18, 2);
    town.assign(2, 0, 0);
    town.plug(2, 0);
    let spec = ServiceSpec { mode: EndpointMode::RoundRobin, ..ServiceSpec::new("web".parse().unwrap(), [NETWORK]) };
    let of = ServiceId::from_bytes([7; 16]);
    let service = Service {
        id: of,
        spec,
        vips: Default::default(),
        ports: Vec::new(),
        created: UnixTime::EPOCH,
        condition: Condition::Allocated,
    };
    town.publish(&CatalogueChange::Service(Arc::new(service)));
    let plain = endpoint(3, 1, 0);
    let serving = Endpoint { spec: EndpointSpec { service: Some(of), ..plain.spec.clone() }, ..plain.clone() };
    town.tell(0, Input::Catalogue(CatalogueChange::Endpoint(Arc::new(plain))));
    town.tell(1, Input::Catalogue(CatalogueChange::Endpoint(Arc::new(serving.clone()))));
    town.plug(3, 1);
    town.run(2);
    let served = |town: &mut Town| {
        let view = town.desired(0).places[&Place::Container(container(2))].view.clone();
        view.addresses(&"tasks.web".parse().unwrap()).map(|all| all.len())
    };
    assert_eq!(served(&mut town), Some(0), "its node alone says so");
    town.tell(0, Input::Catalogue(CatalogueChange::Endpoint(Arc::new(serving))));
    assert_eq!(served(&mut town), Some(2), "at once, no time has passed");
}

#[test]
fn an_endpoint_that_moves_while_the_catalogue_is_late_here_is_found_when_it_comes() {
    let mut town = Town::new(17, 3);
    town.assign(2, 0, 0);
    town.plug(2, 0);
    town.assign(3, 1, 0);
    town.plug(3, 1);
    town.run(2);
    assert_eq!(town.peer(0, 3), Some(1));
    let moved = CatalogueChange::Endpoint(Arc::new(endpoint(3, 2, 1)));
    for node in [1, 2] {
        town.tell(node, Input::Catalogue(moved.clone()));
    }
    town.plug(3, 2);
    town.run(2);
    assert_eq!(
        town.peer(0, 3),
        None,
        "where it was it is no more, and that it is elsewhere the catalogue has not said"
    );
    town.tell(0, Input::Catalogue(moved));
    assert_eq!(town.peer(0, 3), Some(2));
}

#[test]
fn a_dead_nodes_endpoints_are_forgotten() {
    let mut town = Town::new(6, 4);
    town.assign(2, 0, 0);
    town.assign(3, 1, 0);
    town.plug(2, 0);
    town.plug(3, 1);
    town.run(2);
    town.net.crash(1);
    town.run(30);
    assert_eq!(town.peer(0, 3), None);
    let view = town.desired(0).places[&Place::Container(container(2))].view.clone();
    assert_eq!(view.addresses(&"c3".parse().unwrap()), None);
}

#[test]
fn a_node_that_starts_anew_is_found_again_with_what_is_plugged_in_then() {
    let mut town = Town::new(7, 3);
    town.assign(2, 0, 0);
    town.plug(2, 0);
    town.assign(3, 1, 0);
    town.plug(3, 1);
    town.run(2);
    town.net.crash(1);
    town.net.restart(1, |address, seed, now| agent(1, 2, address, seed, now));
    town.tell(1, Input::Join(vec![Net::<Node>::address(0)]));
    town.tell(1, Input::Catalogue(CatalogueChange::Network(Arc::new(network()))));
    town.tell(1, Input::Catalogue(CatalogueChange::Endpoint(Arc::new(endpoint(2, 0, 0)))));
    town.assign(4, 1, 0);
    town.plug(4, 1);
    town.run(5);
    assert_eq!((town.peer(0, 3), town.peer(0, 4)), (None, Some(1)));
    assert_eq!(town.peer(1, 2), Some(0));
}

#[test]
fn packets_are_as_small_as_the_smallest_underlay_demands_on_every_node() {
    let mut town = Town::new(8, 3);
    for number in 2..=4 {
        town.assign(number, usize::from(number) - 2, 0);
        town.plug(number, usize::from(number) - 2);
    }
    town.run(2);
    let all = |town: &mut Town| (0..3).map(|node| town.segment(node).map(|it| it.mtu.get())).collect::<Vec<_>>();
    assert_eq!(all(&mut town), [Some(1450); 3]);
    let vtep = Net::<Node>::address(2).ip();
    town.tell(2, Input::Underlay { vtep, mtu: Mtu::new(1400).unwrap() });
    town.run(2);
    assert_eq!(all(&mut town), [Some(1350); 3]);
    // Too small for IPv6: that node takes no part, and says so; the others go on.
    town.events();
    town.tell(2, Input::Underlay { vtep, mtu: Mtu::new(1300).unwrap() });
    town.run(2);
    assert_eq!(all(&mut town), [Some(1450), Some(1450), None]);
    assert_eq!(town.peer(0, 4), None);
    let events = town.events();
    let reported = |(node, event): &(usize, AgentEvent)| {
        *node == 2
            && matches!(event, AgentEvent::Report { endpoint, result: Err(why), .. } if *endpoint == id(4) && why.contains("1250 bytes"))
    };
    assert!(events.iter().any(reported), "{events:?}");
}

#[test]
fn an_endpoint_is_reported_when_its_places_hold_it_and_not_before() {
    let mut town = Town::new(9, 1);
    town.assign(2, 0, 0);
    town.plug(2, 0);
    let old = town.desired(0);
    town.assign(3, 0, 0);
    town.plug(3, 0);
    assert_eq!(town.events(), []);
    for (place, state) in &old.places {
        let state = Some(Arc::clone(state));
        town.tell(0, Input::Applied { place: place.clone(), state, result: Ok(()) });
    }
    let ready = |number| (0, AgentEvent::Report { endpoint: id(number), moves: 0, result: Ok(()) });
    assert_eq!(town.events(), [ready(2)], "the third endpoint is not in what was applied");
    let container = Place::Container(container(3));
    town.tell(0, Input::Applied { place: container, state: None, result: Err("no such namespace".into()) });
    let failed = AgentEvent::Report { endpoint: id(3), moves: 0, result: Err("no such namespace".into()) };
    assert_eq!(town.events(), [(0, failed)]);
    town.apply(0);
    assert_eq!(town.events(), [ready(3)]);
    town.apply(0);
    assert_eq!(town.events(), [], "said once");
    // The catalogue does not have it yet, or lost it: it is said again.
    town.assign(2, 0, 0);
    assert_eq!(town.events(), [ready(2)]);
    let written = Endpoint { condition: Condition::Ready, ..endpoint(2, 0, 0) };
    town.publish(&CatalogueChange::Endpoint(Arc::new(written)));
    assert_eq!(town.events(), []);
}

#[test]
fn a_container_that_was_started_anew_is_reported_when_its_new_namespace_is_plugged_in() {
    let mut town = Town::new(15, 1);
    town.assign(2, 0, 0);
    town.plug(2, 0);
    let old = town.desired(0);
    town.apply(0);
    town.events();
    town.tell(0, Input::Unplug(id(2)));
    let namespace = Some(overlay_core::NsKey { name: container(2), id: overlay_core::NsId { device: 4, inode: 99 } });
    town.tell(0, Input::Plug { endpoint: id(2), namespace, interface: eth0(), adopted: false });
    for (place, state) in &old.places {
        let state = Some(Arc::clone(state));
        town.tell(0, Input::Applied { place: place.clone(), state, result: Ok(()) });
    }
    assert_eq!(town.events(), [], "that was its old namespace");
    town.apply(0);
    assert_eq!(town.events(), [(0, AgentEvent::Report { endpoint: id(2), moves: 0, result: Ok(()) })]);
}

/// Two containers on two nodes, and the network is of that kind.
fn of_kind(kind: Kind) -> Town {
    let mut town = Town::new(31, 2);
    let spec = NetworkSpec { kind, ..network().spec };
    town.publish(&CatalogueChange::Network(Arc::new(Network { spec, vni: None, ..network() })));
    for number in 2..=3 {
        town.assign(number, usize::from(number) - 2, 0);
        town.plug(number, usize::from(number) - 2);
    }
    town.run(2);
    town.events();
    town
}

/// Reports the second endpoint of this place alone.
fn reported(town: &mut Town, place: &Place) -> bool {
    let state = town.desired(0).places[place].clone();
    town.tell(0, Input::Applied { place: place.clone(), state: Some(state), result: Ok(()) });
    town.events() == [(0, AgentEvent::Report { endpoint: id(2), moves: 0, result: Ok(()) })]
}

#[test]
fn a_bridge_is_each_nodes_own_and_names_only_who_is_on_it() {
    let mut town = of_kind(Kind::Bridge);
    let (desired, c2) = (town.desired(0), Place::Container(container(2)));
    assert_eq!(desired.places.keys().collect::<Vec<_>>(), [&Place::Host, &c2]);
    let bridges: Vec<_> = desired.places[&Place::Host].link.bridges.values().collect();
    assert!(matches!(&bridges[..], [bridge] if bridge.ports.len() == 1 && bridge.routed && !bridge.isolated));
    let (view, routes) = (&desired.places[&c2].view, &desired.places[&c2].routes);
    assert!(view.addresses(&"c2".parse().unwrap()).is_some());
    assert_eq!(view.addresses(&"c3".parse().unwrap()), None, "it is on another bridge");
    assert_eq!(
        routes.to.values().filter_map(|route| route.via).collect::<Vec<_>>(),
        ["10.9.0.1", "fd00:9::1"].map(|via| via.parse::<IpAddr>().unwrap())
    );
    assert!(!reported(&mut town, &c2), "the host does not hold its port yet");
    assert!(reported(&mut town, &Place::Host));
}

#[test]
fn a_container_on_a_physical_network_holds_its_interface_itself_and_finds_those_of_other_nodes() {
    let kind = Kind::Macvlan { parent: eth0(), mode: MacvlanMode::Private };
    let mut town = of_kind(kind);
    let (desired, c2) = (town.desired(0), Place::Container(container(2)));
    assert_eq!(desired.places.keys().collect::<Vec<_>>(), [&Place::Host, &c2]);
    let macvlan = &desired.places[&c2].link.macvlans[&id(2)];
    assert_eq!((macvlan.parent, macvlan.mode, macvlan.mac), (eth0(), MacvlanMode::Private, mac(2)));
    let c3 = desired.places[&c2].view.addresses(&"c3".parse().unwrap());
    assert_eq!(c3, Some(vec!["10.9.0.3".parse().unwrap(), "fd00:9::3".parse().unwrap()]));
    assert!(!reported(&mut town, &Place::Host));
    assert!(reported(&mut town, &c2));
}

#[test]
fn a_virtual_machine_is_told_that_it_can_be_on_overlays_only() {
    let mut town = of_kind(Kind::Bridge);
    town.assign(4, 0, 0);
    town.tell(0, Input::Plug { endpoint: id(4), namespace: None, interface: "tap0".parse().unwrap(), adopted: false });
    town.run(1);
    let events = town.events();
    assert!(
        matches!(&events[..], [(0, AgentEvent::Report { result: Err(why), .. })] if why.contains("virtual machine")),
        "{events:?}"
    );
}

#[test]
fn on_a_node_that_cannot_encrypt_an_encrypted_network_carries_nothing_and_says_so() {
    let mut town = Town::new(10, 2);
    let spec = NetworkSpec { encryption: Encryption::Shared, ..network().spec };
    town.publish(&CatalogueChange::Network(Arc::new(Network { spec, ..network() })));
    town.assign(2, 0, 0);
    town.assign(3, 1, 0);
    town.run(1);
    town.events();
    town.plug(2, 0);
    town.plug(3, 1);
    let reports = town.events();
    assert!(matches!(&reports[..], [(0, AgentEvent::Report { result: Err(why), .. }), _] if why.contains("encrypted")));
    town.run(2);
    let desired = town.desired(0);
    assert_eq!(desired.places.keys().collect::<Vec<_>>(), [&Place::Host]);
    let tunnels = &desired.places[&Place::Host].firewall.tunnels;
    assert!(tunnels.values().any(|tunnel| tunnel.encrypted.len() == 1 && tunnel.members.len() == 1));
    assert_eq!(town.net.machine(1).map(|node| node.0.metrics().remote), Some(0), "nobody is told of it");
}

#[test]
fn services_are_named_with_the_networks_they_are_on_whenever_they_come() {
    let mut town = Town::new(11, 1);
    town.assign(2, 0, 0);
    town.plug(2, 0);
    let spec = ServiceSpec::new("web".parse().unwrap(), [NETWORK]);
    let service = Service {
        id: ServiceId::from_bytes([5; 16]),
        spec,
        vips: [(NETWORK, [[10, 9, 0, 77].into()].into())].into(),
        ports: Vec::new(),
        created: UnixTime::from_millis(0),
        condition: Condition::Allocated,
    };
    let named = |town: &mut Town| {
        town.desired(0).places[&Place::Container(container(2))].view.addresses(&"web".parse().unwrap())
    };
    town.publish(&CatalogueChange::Service(Arc::new(service.clone())));
    assert_eq!(named(&mut town), Some(vec![[10, 9, 0, 77].into()]));
    town.publish(&CatalogueChange::ServiceGone(service.id));
    assert_eq!(named(&mut town), None);
}

#[test]
fn two_endpoints_cannot_be_plugged_in_at_one_interface_and_one_may_be_plugged_in_anew() {
    let mut town = Town::new(12, 1);
    town.assign(2, 0, 0);
    town.plug(2, 0);
    town.apply(0);
    let before = town.segment(0).unwrap().ports[&id(2)].clone();
    let namespace = |inode| {
        let id = overlay_core::NsId { device: 4, inode };
        Some(overlay_core::NsKey { name: container(2), id })
    };
    let other = Input::Plug { endpoint: id(3), namespace: namespace(2), interface: eth0(), adopted: false };
    let refused = town.net.with(0, |agent, now| agent.0.handle(other, now)).unwrap();
    assert_eq!(refused, Err(InputError::Occupied { by: id(2), interface: eth0() }));
    town.tell(0, Input::Plug { endpoint: id(2), namespace: namespace(77), interface: eth0(), adopted: false });
    assert_ne!(town.segment(0).unwrap().ports[&id(2)], before);
    town.tell(0, Input::Health(id(2), Health::Draining));
    let view = town.desired(0).places[&Place::Container(container(2))].view.clone();
    assert_eq!(view.addresses(&"c2".parse().unwrap()), Some(vec![]), "it ends, so it is given to nobody");
}

#[test]
fn what_was_plugged_in_before_the_catalogue_knew_of_it_is_in_effect_when_it_does() {
    let mut town = Town::new(13, 1);
    town.plug(2, 0);
    assert!(town.desired(0).places.is_empty());
    town.assign(2, 0, 0);
    assert!(town.segment(0).is_some_and(|segment| segment.ports.contains_key(&id(2))));
    town.publish(&CatalogueChange::EndpointGone(id(2)));
    assert_eq!(town.events(), [(0, AgentEvent::Withdrawn(id(2)))]);
    assert!(town.desired(0).places.is_empty());
}

#[test]
fn an_agent_that_was_superseded_goes_on_with_all_that_it_was_told() {
    let mut town = Town::new(17, 3);
    let again = |town: &mut Town, incarnation| {
        town.net.crash(0);
        town.net.restart(0, |address, seed, now| agent(0, incarnation, address, seed, now));
        town.tell(0, Input::Join(vec![Net::<Node>::address(1)]));
    };
    again(&mut town, 7);
    town.run(3);
    again(&mut town, 2); // it was told a wrong number: a clock went back
    town.tell(0, Input::Catalogue(CatalogueChange::Network(Arc::new(network()))));
    for number in 2..=4 {
        town.assign(number, usize::from(number) - 2, 0);
        town.plug(number, usize::from(number) - 2);
    }
    town.run(3);
    assert!(town.events().contains(&(0, AgentEvent::Superseded { incarnation: 7 })));
    assert_eq!(town.peer(1, 2), None, "it is not believed");
    town.net.with(0, |node, now| node.0.begin_anew(8, [8; 32], now));
    let segment = town.segment(0).unwrap();
    assert!(segment.ports.contains_key(&id(2)) && segment.peers.is_empty());
    town.tell(0, Input::Join(vec![Net::<Node>::address(1)]));
    town.run(3);
    assert_eq!((town.peer(0, 3), town.peer(0, 4)), (Some(1), Some(2)));
    assert_eq!((town.peer(1, 2), town.peer(2, 2)), (Some(0), Some(0)), "the others hear of it");
}

#[test]
fn a_goodbye_takes_a_nodes_endpoints_out_of_all_tables() {
    let mut town = Town::new(14, 3);
    town.assign(2, 0, 0);
    town.plug(2, 0);
    town.assign(3, 1, 0);
    town.plug(3, 1);
    town.run(2);
    town.tell(1, Input::Leave);
    town.run(3);
    assert_eq!(town.peer(0, 3), None);
    assert!(town.events().contains(&(1, AgentEvent::Gone)));
    assert_eq!(town.net.machine(0).map(|node| node.0.knowledge().nodes.len()), Some(2));
}
