//! Networks that are no overlays.

use ipnet::IpNet;
use overlay_core::testing::block_on;
use overlay_ipam::{AddressRange, SubnetKind, SubnetRequest};
use overlay_link::MacvlanMode;
use overlay_node::{Condition, Control, EndpointSpec, Kind, NetworkSpec, ServiceSpec};

use crate::cluster::{node, vni};
use crate::{Cluster, at, name, refused};

#[test]
fn networks_that_are_no_overlays_have_no_vni_and_are_refused_what_only_overlays_have() {
    let cluster = Cluster::new();
    let of = |kind, text| NetworkSpec::of(kind, name(text));
    let macvlan = Kind::Macvlan { parent: "eth0".parse().unwrap(), mode: MacvlanMode::Bridge };
    let lacks =
        |kind, option| format!("a network of kind {kind} has no {option}: leave it out, or choose another kind");
    for kind in [Kind::Bridge, macvlan] {
        let spec = of(kind, "local");
        refused(cluster.create(3, NetworkSpec { ingress: true, ..spec.clone() }), &lacks(kind, "ingress"));
        refused(cluster.create(3, NetworkSpec { encrypted: true, ..spec.clone() }), &lacks(kind, "encrypted"));
        refused(cluster.create(3, NetworkSpec { vni: Some(vni(5000)), ..spec }), &lacks(kind, "VNI"));
    }
    refused(cluster.create(3, NetworkSpec { internal: true, ..of(macvlan, "lan") }), &lacks(macvlan, "internal"));
    let text =
        "a macvlan network has the physical network's subnets: name them, and the range of them that is for containers";
    refused(cluster.create(3, of(macvlan, "lan")), text);
    let lan = SubnetRequest::this("192.0.2.0/24".parse().unwrap());
    let external = SubnetRequest { kind: SubnetKind::External, ..lan.clone() };
    refused(
        cluster.create(3, NetworkSpec { subnets: vec![external], ..of(Kind::Bridge, "local") }),
        &lacks(Kind::Bridge, "external subnets"),
    );
    for kind in [Kind::Host, Kind::None] {
        let text = format!("there is one network of kind {kind} on every node: create one of another kind");
        refused(cluster.create(3, of(kind, "other")), &text);
    }

    let local = cluster.create(3, of(Kind::Bridge, "local")).unwrap();
    assert_eq!((local.vni, local.subnets.len(), local.condition), (None, 1, Condition::Allocated));
    let range = AddressRange::from("192.0.2.64/28".parse::<IpNet>().unwrap());
    let made = NetworkSpec { subnets: vec![SubnetRequest { endpoints: Some(range), ..lan }], ..of(macvlan, "lan") };
    let made = cluster.create(4, made).unwrap();
    assert_eq!((made.vni, made.subnets[0].kind()), (None, SubnetKind::External));
    // Containers are on them without being of a service, and with addresses that no other node's container has.
    let one = cluster.attach(1, at(4, "one")).unwrap();
    assert!(one.addresses.iter().all(|own| range.contains(own.addr())), "{one:?}");
    let [two, three] = [(2, 1), (3, 2)].map(|(number, on)| {
        let spec = EndpointSpec { node: node(on), ..at(3, "two") };
        cluster.attach(number, spec).unwrap().addresses
    });
    assert!(two.is_disjoint(&three), "{two:?} {three:?}");
}

#[test]
fn services_are_on_overlays_only_and_nothing_is_attached_to_the_hosts_own_network_or_to_none() {
    let cluster = Cluster::new();
    let id = |text: &str| block_on(cluster.manager.network(&text.into())).unwrap().id;
    let served = ServiceSpec::new(name("web"), [id("bridge")]);
    let text =
        "a service cannot be on network bridge, of kind bridge, which each node has for itself: name overlay networks";
    refused(cluster.serve(1, served), text);
    for (text, instead) in [
        ("host", "start the container in its node's namespace"),
        ("none", "start the container with a namespace of its own, and leave it as it is"),
    ] {
        let spec = EndpointSpec::new(id(text), name("c"), node(1));
        refused(cluster.attach(1, spec), &format!("nothing is attached to network {text}: {instead}"));
    }
    let lone = cluster.attach(1, EndpointSpec::new(id("bridge"), name("c"), node(1))).unwrap();
    assert_eq!(lone.addresses, ["172.17.0.2/16".parse().unwrap()].into());
}
