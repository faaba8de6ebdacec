//! What is missing is named, hop by hop.

use std::sync::Arc;

use overlay_dns::{Health, View};
use overlay_link::MacvlanMode;
use overlay_node::{
    CatalogueChange, Condition, Desired, Endpoint, Explanation, Input, Kind, Place, PlaceState, Service, ServiceSpec,
    Target,
};
use overlay_vxlan::Segment;

use crate::of_kind;
use crate::town::{NETWORK, Town, container, endpoint, id, mac, node_id};

/// An endpoint on each of two nodes.
fn two() -> Town {
    let mut town = Town::new(21, 2);
    for number in 2..=3 {
        town.assign(number, usize::from(number) - 2, 0);
        town.plug(number, usize::from(number) - 2);
    }
    town.run(2);
    town
}

fn explain(town: &Town, to: &str, held: &Desired) -> Explanation {
    let to = to.parse().map_or_else(|_| Target::Name(to.parse().unwrap()), Target::Address);
    town.net.machine(0).unwrap().0.explain(id(2), &to, held)
}

/// What is desired, but for a change of one place.
fn but(desired: &Desired, place: &Place, change: impl FnOnce(&mut PlaceState)) -> Desired {
    let mut held = desired.clone();
    change(Arc::make_mut(held.places.get_mut(place).unwrap()));
    held
}

#[test]
fn a_way_that_is_whole_is_told_hop_by_hop() {
    let mut town = two();
    let held = town.desired(0);
    let wanted = [
        "from      c2, plugged in to customoverlay".to_owned(),
        "name      c3. is 10.9.0.3, fd00:9::3".to_owned(),
        "route     10.9.0.3 by eth0, to customoverlay".to_owned(),
        "policy    accepted by otherwise".to_owned(),
        format!("peer      c3 at {}", mac(3)),
        format!("vtep      10.0.0.2 of node {}, alive", node_id(1).short()),
        format!("entry     segment 4097 sends {} to 10.0.0.2", mac(3)),
    ];
    assert_eq!(explain(&town, "c3", &held).to_string().lines().collect::<Vec<_>>(), wanted);
    assert!(explain(&town, "fd00:9::3", &held).broken.is_none());
}

#[test]
fn each_break_is_named_where_it_is_and_says_what_repairs_it() {
    let mut town = two();
    let desired = town.desired(0);
    let (network, c2) = (Place::Network(NETWORK), Place::Container(container(2)));
    let segment =
        |change: fn(&mut Segment)| but(&desired, &network, |state| state.vxlan.segments.values_mut().for_each(change));
    let breaks = [
        (but(&desired, &c2, |state| state.view = View::default()), 1, "does not have c3. as it is known: 10.9.0.3"),
        (segment(|segment| segment.ports.clear()), 3, "the port of the container is missing"),
        (but(&desired, &network, |state| state.vxlan.segments.clear()), 3, "the network's segment is missing"),
        (but(&desired, &network, |state| state.firewall.ports.clear()), 3, "a packet to 10.9.0.3 is dropped by "),
        (
            but(&desired, &Place::Host, |state| state.firewall.tunnels.clear()),
            5,
            "the host drops datagrams from 10.0.0.2",
        ),
        (segment(|segment| segment.peers.clear()), 6, "the segment has no entry for 02:42:0a:09:00:03"),
        (
            segment(|segment| segment.peers.values_mut().for_each(|peer| peer.vtep = [10, 0, 0, 9].into())),
            6,
            "are sent to 10.0.0.9 instead of 10.0.0.2",
        ),
        (
            segment(|segment| segment.peers.values_mut().for_each(|peer| peer.addresses.clear())),
            6,
            "10.9.0.3 is not answered for",
        ),
    ];
    for (held, hops, missing) in breaks {
        let explained = explain(&town, "c3", &held);
        let broken = explained.broken.clone().unwrap();
        assert!(broken.missing.contains(missing) && !broken.repair.is_empty(), "{missing}: {explained}");
        assert_eq!(explained.hops.len(), hops, "{explained}");
    }
}

#[test]
fn what_is_not_known_or_not_fit_is_named_too() {
    let mut town = two();
    let service = Service {
        id: overlay_core::ServiceId::from_bytes([5; 16]),
        spec: ServiceSpec::new("web".parse().unwrap(), [NETWORK]),
        vips: [(NETWORK, [[10, 9, 0, 77].into()].into())].into(),
        ports: Vec::new(),
        created: overlay_core::UnixTime::from_millis(0),
        condition: Condition::Allocated,
    };
    town.publish(&CatalogueChange::Service(Arc::new(service)));
    for (to, missing) in [
        ("nobody", "nobody is called nobody. on the networks of c2: customoverlay"),
        ("10.9.0.9", "nobody is known to have 10.9.0.9 on customoverlay"),
        ("192.0.2.7", "no network of c2 has 192.0.2.7"),
        ("web", "no endpoint of service web takes work"),
    ] {
        breaks(&mut town, to, missing);
    }
    town.tell(1, Input::Health(id(3), Health::Draining));
    town.run(2);
    breaks(&mut town, "c3", "and given to nobody: it is about to end");
    // Another node says it has the address of the endpoint here; so does a catalogue that is wrong. The endpoint here keeps it.
    let liar = Endpoint { addresses: endpoint(2, 1, 0).addresses, ..endpoint(4, 1, 0) };
    let wrong = CatalogueChange::Endpoint(Arc::new(liar));
    town.tell(1, Input::Catalogue(wrong.clone()));
    town.plug(4, 1);
    town.run(2);
    breaks(&mut town, "c4", "says that it has c4, which does not count: the catalogue has no such endpoint");
    town.tell(0, Input::Catalogue(wrong));
    breaks(&mut town, "c4", "is another's");
    assert_eq!(town.net.machine(0).map(|node| node.0.metrics().unfit), Some(1));
    town.tell(0, Input::Unplug(id(2)));
    breaks(&mut town, "c3", "is not plugged in on this node");
}

#[test]
fn behind_a_vip_a_replica_is_explained_and_what_is_not_balanced_is_named() {
    let mut town = two();
    let id = overlay_core::ServiceId::from_bytes([5; 16]);
    let service = Service {
        id,
        spec: ServiceSpec::new("web".parse().unwrap(), [NETWORK]),
        vips: [(NETWORK, [[10, 9, 0, 77].into()].into())].into(),
        ports: Vec::new(),
        created: overlay_core::UnixTime::from_millis(0),
        condition: Condition::Allocated,
    };
    town.publish(&CatalogueChange::Service(Arc::new(service)));
    let mut serving = endpoint(4, 1, 0);
    serving.spec.service = Some(id);
    town.publish(&CatalogueChange::Endpoint(Arc::new(serving)));
    town.plug(4, 1);
    town.run(2);
    let held = town.desired(0);
    let whole = explain(&town, "web", &held);
    let text = whole.to_string();
    assert!(
        whole.broken.is_none() && text.contains("service   10.9.0.77 of web goes to one of 1, say 10.9.0.4"),
        "{text}"
    );
    assert!(text.contains("peer      c4") && text.contains("to 10.0.0.2"), "{text}");
    assert!(text.contains("name      web. is 10.9.0.77, the VIP of service web"), "{text}");
    let tasks = explain(&town, "tasks.web", &held).to_string();
    assert!(
        tasks.contains("name      tasks.web. is 10.9.0.4") && tasks.contains("the endpoints of service web"),
        "{tasks}"
    );
    // A second replica that ends is told, and passed over.
    let mut ending = endpoint(6, 1, 0);
    ending.spec.service = Some(id);
    town.publish(&CatalogueChange::Endpoint(Arc::new(ending)));
    town.plug(6, 1);
    town.tell(1, Input::Health(super::town::id(6), Health::Draining));
    town.run(2);
    let of_two = town.desired(0);
    let said = explain(&town, "web", &of_two);
    assert!(said.to_string().contains("goes to one of 1, say 10.9.0.4; not to 10.9.0.6"), "{said}");
    let told = serde_json::to_value(&said).unwrap();
    assert_eq!(told["hops"][3]["backends"][1]["condition"], "draining");
    assert_eq!(told["hops"][1]["of"]["vip"], "web");
    town.tell(1, Input::Unplug(super::town::id(6)));
    town.run(2);
    let held = town.desired(0);
    let c2 = Place::Container(container(2));
    let (vip, own) = ("10.9.0.77".parse().unwrap(), "10.9.0.2".parse().unwrap());
    assert_eq!(held.places[&c2].lb.sources.get(&vip), Some(&own));
    for change in [(|lb| lb.services.clear()) as fn(&mut overlay_lb::State), |lb| lb.sources.clear()] {
        let broken = explain(&town, "web", &but(&held, &c2, |state| change(&mut state.lb))).broken.unwrap();
        assert!(broken.missing.contains("container c2 does not balance 10.9.0.77 of web"), "{broken}");
    }
    // Whose node is suspected gets work while nobody else is left, whoever ends none.
    town.tell(1, Input::Health(super::town::id(4), Health::Draining));
    town.run(2);
    let held = town.desired(0);
    let broken = explain(&town, "10.9.0.77", &held).broken.unwrap();
    assert!(broken.missing.contains("no endpoint of service web takes work"), "{broken}");
}

#[test]
fn a_way_on_a_bridge_ends_on_its_node_and_one_on_a_physical_network_leaves_it() {
    let mut town = of_kind(Kind::Bridge);
    let held = town.desired(0);
    let gone = explain(&town, "10.9.0.3", &held).broken.unwrap();
    assert!(gone.missing.contains("nobody on this node's bridge of customoverlay has 10.9.0.3"), "{gone}");
    town.assign(4, 0, 0);
    town.plug(4, 0);
    let held = town.desired(0);
    let whole = explain(&town, "c4", &held);
    assert!(whole.broken.is_none() && whole.to_string().contains("here      c4"), "{whole}");
    let out = explain(&town, "198.51.100.1", &held);
    assert!(out.broken.is_none() && out.to_string().contains("outside   198.51.100.1 by eth0 via 10.9.0.1"), "{out}");
    let without = but(&held, &Place::Host, |host| host.link.bridges.clear());
    for (to, missing) in [
        ("c4", "host: the interface of c2 is missing"),
        ("198.51.100.1", "the bridge of the host that leads out is missing"),
    ] {
        let broken = explain(&town, to, &without).broken.unwrap();
        assert!(broken.missing.contains(missing), "{broken}");
    }

    let mut town = of_kind(Kind::Macvlan { parent: "lan0".parse().unwrap(), mode: MacvlanMode::Bridge });
    let held = town.desired(0);
    for to in ["c3", "198.51.100.1"] {
        let leaves = explain(&town, to, &held);
        assert!(leaves.broken.is_none() && leaves.to_string().contains(" by lan0, as itself"), "{leaves}");
    }
    let without = but(&held, &Place::Container(container(2)), |c2| c2.link.macvlans.clear());
    let broken = explain(&town, "c3", &without).broken.unwrap();
    assert!(broken.missing.contains("container c2: the interface of c2 is missing"), "{broken}");
}

#[test]
fn who_is_not_believed_is_named_with_the_reason_instead_of_nobody() {
    let mut town = two();
    // The other node's catalogue has an endpoint that nobody else's has: it stands for a node that says what it likes.
    town.tell(1, Input::Catalogue(CatalogueChange::Endpoint(Arc::new(endpoint(5, 1, u64::MAX)))));
    town.plug(5, 1);
    town.run(2);
    let liar = node_id(1).short();
    breaks(
        &mut town,
        "c5",
        &format!("node {liar} says that it has c5, which does not count: the catalogue has no such"),
    );
    breaks(&mut town, "10.9.0.5", &format!("node {liar} says that c5 has 10.9.0.5, which does not count"));
    // The catalogue here has it with another Ethernet address.
    let other = Endpoint { mac: mac(6), ..endpoint(5, 1, 0) };
    town.tell(0, Input::Catalogue(CatalogueChange::Endpoint(Arc::new(other))));
    breaks(&mut town, "10.9.0.5", &format!("the endpoint was given {}", mac(6)));
    // It agrees, and the way is whole.
    town.tell(0, Input::Catalogue(CatalogueChange::Endpoint(Arc::new(endpoint(5, 1, 1)))));
    let held = town.desired(0);
    assert_eq!(explain(&town, "c5", &held).broken, None);
}

#[test]
fn programs_read_each_hop_by_its_name_and_what_mends_a_break() {
    let mut town = two();
    let mut held = (*town.desired(0)).clone();
    let told = |town: &Town, to: &str, held: &Desired| serde_json::to_value(explain(town, to, held)).unwrap();
    let whole = told(&town, "c3", &held);
    let hops: Vec<&str> = whole["hops"].as_array().unwrap().iter().map(|hop| hop["hop"].as_str().unwrap()).collect();
    assert_eq!(hops, ["from", "name", "route", "policy", "peer", "vtep", "entry"]);
    assert_eq!(whole["hops"][1]["name"], "c3.");
    assert_eq!(whole["hops"][1]["of"], "endpoint");
    assert_eq!((&whole["hops"][5]["standing"], &whole["hops"][6]["vni"]), (&"alive".into(), &4097.into()));
    assert_eq!(whole["broken"], serde_json::Value::Null);
    Arc::make_mut(held.places.get_mut(&Place::Network(NETWORK)).unwrap()).vxlan.segments.clear();
    let broken = told(&town, "c3", &held);
    assert!(broken["broken"]["missing"].as_str().unwrap().contains("the network's segment is missing"), "{broken}");
    assert!(broken["broken"]["repair"].as_str().unwrap().starts_with("have network"), "{broken}");
}

fn breaks(town: &mut Town, to: &str, missing: &str) {
    let held = town.desired(0);
    let explained = explain(town, to, &held);
    assert!(explained.broken.as_ref().is_some_and(|broken| broken.missing.contains(missing)), "{to}: {explained}");
}
