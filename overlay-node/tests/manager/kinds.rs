//! Networks that are no overlays.

use ipnet::IpNet;
use overlay_core::testing::block_on;
use overlay_core::{PortRange, Protocol};
use overlay_ipam::{AddressRange, SubnetKind, SubnetRequest};
use overlay_link::MacvlanMode;
use overlay_node::{
    Condition, Control, Encryption, EndpointSpec, Kind, NetworkSpec, PublishMode, PublishedPort, ServiceSpec,
};

use crate::cluster::{NOW, network, node, port, vni};
use crate::{Cluster, at, name, overlay, refused};

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
        refused(
            cluster.create(3, NetworkSpec { encryption: Encryption::Shared, ..spec.clone() }),
            &lacks(kind, "encrypted"),
        );
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

fn own(text: &str) -> NetworkSpec {
    NetworkSpec { encryption: Encryption::Own, ..overlay(text) }
}

#[test]
fn an_encrypted_network_that_asks_for_it_has_a_port_that_no_other_has_and_gives_it_back() {
    let cluster = Cluster::new();
    let of = |made: &overlay_node::Network| made.port.map(|port| port.get());
    let [one, two] = [(3, "one"), (4, "two")].map(|(number, text)| cluster.create(number, own(text)).unwrap());
    assert_eq!((of(&one), of(&two)), (Some(29_200), Some(29_201)));
    assert_eq!(cluster.create(3, own("one")).unwrap(), one, "a repeated creation gives the same");
    let shared = NetworkSpec { encryption: Encryption::Shared, ..overlay("shared") };
    assert_eq!(of(&cluster.create(5, shared).unwrap()), None);
    let changed = block_on(cluster.manager.change_network(&"shared".into(), own("shared"), NOW));
    refused(changed, "a network's encrypted cannot be changed: leave it as it is, or create another network");
    cluster.remove("one").unwrap();
    assert_eq!(of(&cluster.create(6, own("three")).unwrap()), Some(29_202), "a port rests before another has it");
}

#[test]
fn an_own_port_is_refused_by_name_where_none_is_left_or_the_range_is_used_otherwise() {
    let cluster = Cluster::new();
    let with = |first: u16, last: u16| {
        let range = PortRange::new(port(first), port(last)).unwrap();
        super::manager(std::sync::Arc::new(cluster.store.clone()), 2).with_own_ports(range)
    };
    let create = |manager: &overlay_node::Manager, number: u8, text: &str| {
        block_on(manager.create_network(network(number), own(text), NOW))
    };
    let few = with(29_200, 29_201);
    create(&few, 3, "one").unwrap();
    create(&few, 4, "two").unwrap();
    let text = "no UDP port of its own is left for the network: the range of udp ports is exhausted: 2 in use, 0 resting; share the others', or give \
                managers and nodes a larger range";
    refused(create(&few, 5, "three"), text);
    for (first, last, other) in [(4788, 4790, 4789), (4793, 4795, 4793), (7000, 8000, 7946), (49_000, 49_152, 49_152)] {
        let text = format!(
            "networks cannot have ports of their own among {first}-{last}: nodes need {other}/udp otherwise; give managers and nodes another range"
        );
        refused(create(&with(first, last), 5, "three"), &text);
    }
    assert_eq!(block_on(cluster.manager.networks()).unwrap().len(), 8, "nothing was kept of any of them");
}

#[test]
fn own_ports_are_published_by_nobody_but_for_other_protocols() {
    let cluster = Cluster::new();
    let publishing = |protocol| {
        let port = PublishedPort { published: Some(port(29_255)), ..PublishedPort::new(protocol, port(80)) };
        let ports = vec![PublishedPort { mode: PublishMode::Host, ..port }];
        ServiceSpec { ports, ..ServiceSpec::new(name("web"), [network(1)]) }
    };
    let text =
        "port 29255/udp is kept for the nodes themselves: publish another, or change what managers and nodes keep";
    refused(cluster.serve(1, publishing(Protocol::Udp)), text);
    cluster.serve(1, publishing(Protocol::Tcp)).unwrap();
}
