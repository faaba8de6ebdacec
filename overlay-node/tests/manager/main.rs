//! One manager: what is promised, one by one, and what is refused.

#![allow(clippy::unwrap_used, reason = "tests, whose helpers clippy does not take for such")]

#[path = "../cluster/mod.rs"]
mod cluster;
mod kinds;
mod mesh;
mod published;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use cluster::{NOW, endpoint, mac, manager, network, node, node_spec, port, service, tcp, vni};
use ipnet::IpNet;
use overlay_core::testing::block_on;
use overlay_core::{Commit, Key, MemoryStore, Mtu, Name, Store};
use overlay_ipam::{Gateway, SubnetRequest};
use overlay_lb::{Affinity, Balancer, Scheduler};
use overlay_node::testing::{contradictions, leaks};
use overlay_node::{
    Balancing, Condition, Control, ControlError, Encryption, Endpoint, EndpointMode, EndpointSpec, Manager, Network,
    NetworkSpec, PublishMode, Service, ServiceSpec, Stay, mesh_replica,
};

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn overlay(text: &str) -> NetworkSpec {
    NetworkSpec { attachable: true, ..NetworkSpec::overlay(name(text)) }
}

fn stay(number: u8, moves: u64) -> Stay {
    Stay { node: node(number), moves }
}

fn at(number: u8, container: &str) -> EndpointSpec {
    EndpointSpec::new(network(number), name(container), node(1))
}

/// A cluster with ingress (0), an attachable network (1) and one that is not (2), and two nodes.
struct Cluster {
    store: MemoryStore,
    manager: Manager,
}

impl Cluster {
    fn new() -> Self {
        let store = MemoryStore::default();
        let manager = manager(Arc::new(store.clone()), 1);
        block_on(async {
            manager.found_cluster(network(0), NOW).await.unwrap();
            manager.create_network(network(1), overlay("front"), NOW).await.unwrap();
            manager.create_network(network(2), NetworkSpec::overlay(name("back")), NOW).await.unwrap();
            manager.add_node(node(1), node_spec("a"), NOW).await.unwrap();
            manager.add_node(node(2), node_spec("b"), NOW).await.unwrap();
        });
        Self { store, manager }
    }

    fn create(&self, number: u8, spec: NetworkSpec) -> Result<Network, ControlError> {
        block_on(self.manager.create_network(network(number), spec, NOW))
    }

    fn serve(&self, number: u8, spec: ServiceSpec) -> Result<Service, ControlError> {
        block_on(self.manager.create_service(service(number), spec, NOW))
    }

    fn attach(&self, number: u8, spec: EndpointSpec) -> Result<Endpoint, ControlError> {
        block_on(self.manager.attach(endpoint(number), spec, NOW))
    }

    fn remove(&self, network: &str) -> Result<Network, ControlError> {
        block_on(self.manager.remove_network(&network.into(), NOW))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert_eq!(block_on(contradictions(&self.manager)).unwrap(), [""; 0]);
            assert_eq!(block_on(leaks(&self.manager)).unwrap(), [""; 0]);
        }
    }
}

#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T, ControlError>, text: &str) {
    let error = result.unwrap_err();
    assert!(error.refusal().is_some() && !error.is_in_doubt(), "{error:?}");
    assert_eq!(error.to_string(), text);
}

fn web(networks: &[u8]) -> ServiceSpec {
    ServiceSpec::new(name("web"), networks.iter().map(|number| network(*number)))
}

fn publishing(ports: &[(Option<u16>, PublishMode)]) -> ServiceSpec {
    let ports = ports.iter().map(|(published, mode)| tcp(*published, 80, *mode)).collect();
    ServiceSpec { ports, ..web(&[1]) }
}

#[test]
fn networks_that_make_no_sense_are_refused_and_told_what_would() {
    let cluster = Cluster::new();
    for text in ["bridge", "host", "none", "Host"] {
        let text_of =
            format!("{text} is a pre-defined network: it can be neither created nor removed; choose another name");
        refused(cluster.create(3, overlay(text)), &text_of);
        let network = text.to_lowercase();
        refused(cluster.remove(text), &text_of.replacen(text, &network, 1));
    }
    let ingress = NetworkSpec { ingress: true, ..NetworkSpec::overlay(name("mesh")) };
    refused(
        cluster.create(3, NetworkSpec { attachable: true, ..ingress.clone() }),
        "ingress network cannot be attachable: leave out one of the two",
    );
    refused(
        cluster.create(3, NetworkSpec { internal: true, ..ingress.clone() }),
        "ingress network cannot be internal: leave out one of the two",
    );
    let present = format!("ingress network ({}) is already present: remove it first", network(0));
    refused(cluster.create(3, ingress), &present);
    let both = vec![SubnetRequest::this("fd00:5::/64".parse().unwrap())];
    let small = NetworkSpec { mtu: Some(Mtu::new(1279).unwrap()), subnets: both, ..overlay("six") };
    refused(cluster.create(3, small), "a network with IPv6 subnets needs an MTU of 1280 or more, not 1279");
    let taken = format!("network FRONT already exists, with id {}: choose another name", network(1));
    refused(cluster.create(3, overlay("FRONT")), &taken);
    let differs =
        format!("network {} exists and is not what is asked for: choose another id, or remove it first", network(1));
    refused(cluster.create(1, overlay("other")), &differs);
    let vni = NetworkSpec { vni: Some(vni(4097)), ..overlay("other") };
    refused(cluster.create(3, vni), "VNI 4097 is in use");
    let inside = SubnetRequest::this("10.0.1.0/25".parse().unwrap());
    let overlapping = NetworkSpec { subnets: vec![inside.clone()], ..overlay("other") };
    let text = format!("10.0.1.0/25 overlaps 10.0.1.0/24 of network {}", network(1));
    refused(cluster.create(3, overlapping), &text);
    let gateway = SubnetRequest { gateway: Gateway::This([10, 9, 0, 1].into()), ..inside };
    let outside = NetworkSpec { subnets: vec![gateway], ..overlay("other") };
    refused(cluster.create(3, outside), "gateway 10.9.0.1 is not of subnet 10.0.1.0/25");
    assert!(cluster.create(3, overlay("other")).is_ok(), "nothing was kept of any of them");
}

#[test]
fn a_repeated_creation_gives_the_same_and_a_removed_networks_id_is_spent() {
    let cluster = Cluster::new();
    let made = cluster.create(3, overlay("other")).unwrap();
    assert_eq!(cluster.create(3, overlay("other")).unwrap(), made);
    assert_eq!(made.condition, Condition::Allocated);
    cluster.remove("other").unwrap();
    refused(cluster.remove("other"), "network other not found");
    let spent = format!("network {} was removed: choose another id", network(3));
    refused(cluster.create(3, overlay("other")), &spent);
    let later = NOW + Duration::from_secs(3600);
    assert_eq!(block_on(cluster.manager.settle(NOW)).unwrap().forgotten, 0);
    assert_eq!(block_on(cluster.manager.settle(later)).unwrap().forgotten, 1);
    block_on(cluster.manager.create_network(network(3), overlay("other"), later)).unwrap();
}

#[test]
fn a_network_in_use_grows_by_subnets_and_changes_what_may_change() {
    let cluster = Cluster::new();
    let change = |spec: NetworkSpec| block_on(cluster.manager.change_network(&"front".into(), spec, NOW));
    let spec = NetworkSpec { subnets: vec![SubnetRequest::this("10.7.0.0/29".parse().unwrap())], ..overlay("small") };
    cluster.create(3, spec.clone()).unwrap();
    let into =
        |number: u8, container: &str| cluster.attach(number, EndpointSpec::new(network(3), name(container), node(1)));
    let full = (1..10).take_while(|number| into(*number, &format!("c{number}")).is_ok()).count() as u8;
    assert!((1..9).contains(&full));
    let grown = NetworkSpec {
        subnets: [
            &spec.subnets[..],
            &[SubnetRequest::this("10.8.0.0/29".parse().unwrap()), SubnetRequest::this("fd00:7::/64".parse().unwrap())],
        ]
        .concat(),
        labels: [("team".into(), "a".into())].into(),
        mtu: Some(Mtu::new(1400).unwrap()),
        attachable: false,
        ..spec.clone()
    };
    for _ in 0..2 {
        let has = block_on(cluster.manager.change_network(&"small".into(), grown.clone(), NOW)).unwrap();
        assert_eq!((&has.spec, has.subnets.len(), has.condition), (&grown, 3, Condition::Allocated));
    }
    refused(into(20, "late"), "network small not manually attachable: name a service, or create it attachable");
    block_on(cluster.manager.change_network(&"small".into(), NetworkSpec { attachable: true, ..grown }, NOW)).unwrap();
    let more = into(20, "late").unwrap();
    let inside = |text: &str| more.addresses.iter().any(|net| text.parse::<IpNet>().unwrap().contains(net));
    assert!(inside("10.8.0.0/29") && inside("fd00:7::/64"), "{:?}", more.addresses);

    let front = block_on(cluster.manager.network(&"front".into())).unwrap();
    let fixed =
        |option: &str| format!("a network's {option} cannot be changed: leave it as it is, or create another network");
    refused(change(NetworkSpec { name: name("other"), ..front.spec.clone() }), &fixed("name"));
    refused(change(NetworkSpec { internal: true, ..front.spec.clone() }), &fixed("internal"));
    refused(change(NetworkSpec { encryption: Encryption::Shared, ..front.spec.clone() }), &fixed("encrypted"));
    refused(change(NetworkSpec { vni: Some(vni(5000)), ..front.spec.clone() }), &fixed("VNI"));
    refused(change(NetworkSpec { ingress: true, attachable: false, ..front.spec.clone() }), &fixed("ingress"));
    let kept =
        "a network keeps its subnets, in their order: name them as they were asked for, and those to add behind them";
    let other = vec![SubnetRequest::this("10.9.0.0/24".parse().unwrap())];
    refused(change(NetworkSpec { subnets: other, ..front.spec.clone() }), kept);
    refused(block_on(cluster.manager.change_network(&"small".into(), spec, NOW)), kept);
    let taken = SubnetRequest::this("10.8.0.0/24".parse().unwrap());
    let any = SubnetRequest::any(overlay_core::IpFamily::V4);
    let labels = [("not".into(), "kept".into())].into();
    let overlapping = NetworkSpec { subnets: vec![any, taken], labels, ..front.spec.clone() };
    refused(change(overlapping), &format!("10.8.0.0/24 overlaps 10.8.0.0/29 of network {}", network(3)));
    let still = block_on(cluster.manager.network(&"front".into())).unwrap();
    assert_eq!(
        (still.subnets, still.spec.labels),
        (front.subnets, front.spec.labels.clone()),
        "nothing of it was done"
    );
    let none = block_on(cluster.manager.change_network(&"none-such".into(), front.spec, NOW));
    refused(none, "network none-such not found");
}

#[test]
fn a_network_in_use_is_not_removed_and_its_user_is_named() {
    let cluster = Cluster::new();
    cluster.serve(1, web(&[2])).unwrap();
    refused(cluster.remove("back"), "network back is in use by service web: remove that first");
    cluster.attach(1, at(1, "c1")).unwrap();
    let text = format!("network front is in use by container c1 on node {}: remove that first", node(1).short());
    refused(cluster.remove("front"), &text);
    refused(cluster.remove("fron"), "network fron not found");
    block_on(cluster.manager.detach(endpoint(1), NOW)).unwrap();
    cluster.remove("Front").unwrap();
}

#[test]
fn the_ingress_network_is_removed_when_nobody_publishes_on_it_and_made_anew_with_its_own_subnet() {
    let cluster = Cluster::new();
    cluster.serve(1, publishing(&[(Some(8080), PublishMode::Ingress)])).unwrap();
    let text = "ingress network ingress cannot be removed because service web depends on it: remove that first";
    refused(cluster.remove("ingress"), text);
    block_on(cluster.manager.remove_service(&"web".into(), NOW)).unwrap();
    cluster.remove("ingress").unwrap();
    let text = "service needs ingress network, but no ingress network is present: create one, or publish in host mode";
    refused(cluster.serve(1, publishing(&[(Some(8080), PublishMode::Ingress)])), text);
    block_on(cluster.manager.found_cluster(network(4), NOW)).unwrap();
    let networks = block_on(cluster.manager.networks()).unwrap();
    assert!(networks.iter().all(|network| !network.spec.ingress), "a cluster is founded once: {networks:?}");
    let subnet = SubnetRequest {
        gateway: Gateway::This([172, 16, 0, 1].into()),
        ..SubnetRequest::this("172.16.0.0/16".parse().unwrap())
    };
    let spec = NetworkSpec { ingress: true, subnets: vec![subnet], ..NetworkSpec::overlay(name("mesh")) };
    let made = cluster.create(3, spec).unwrap();
    assert_eq!(made.subnets[0].gateway(), Some([172, 16, 0, 1].into()));
    let web = cluster.serve(1, publishing(&[(Some(8080), PublishMode::Ingress)])).unwrap();
    assert!(made.subnets[0].net().contains(web.vips[&network(3)].first().unwrap()));
}

#[test]
fn services_that_make_no_sense_are_refused_and_told_what_would() {
    use PublishMode::{Host, Ingress};
    let cluster = Cluster::new();
    refused(cluster.serve(1, web(&[9])), &format!("network {} not found", network(9)));
    let text = "service cannot be explicitly attached to the ingress network ingress: leave it out";
    refused(cluster.serve(1, web(&[0])), text);
    let dnsrr = ServiceSpec { mode: EndpointMode::RoundRobin, ..publishing(&[(Some(80), Ingress)]) };
    let text =
        "a port published with ingress mode can't be used with dnsrr mode: publish in host mode, or use mode vip";
    refused(cluster.serve(1, dnsrr), text);
    let like = |scheduler, affinity: Option<u64>| {
        let affinity = affinity.map(|seconds| Affinity { timeout: Duration::from_secs(seconds) });
        ServiceSpec { balancing: Balancing { scheduler, affinity, timeouts: None }, ..web(&[1]) }
    };
    let fewest = like(Scheduler::LeastConnection, None);
    refused(cluster.serve(1, fewest.clone()), "service web: least connection: nf_tables has no such scheduler");
    let text = "service web: affinity 0ns: it is 1 s to 30 days, in whole seconds";
    refused(cluster.serve(1, like(Scheduler::Maglev, Some(0))), text);
    let come_back = ServiceSpec { ports: vec![tcp(Some(80), 80, Ingress)], ..like(Scheduler::Maglev, Some(60)) };
    let text = "service web: affinity with a port published in mode ingress: the routing mesh brings no client back: \
                publish the port in mode host, or leave affinity out";
    refused(cluster.serve(1, come_back), text);
    let text = "a service of mode dnsrr has no scheduler, affinity or timeouts: leave them out, or use mode vip";
    refused(cluster.serve(1, ServiceSpec { mode: EndpointMode::RoundRobin, ..fewest.clone() }), text);
    let elsewhere = manager(Arc::new(cluster.store.clone()), 2).with_balancers(Balancer::capabilities());
    block_on(elsewhere.create_service(service(8), ServiceSpec { name: name("fewest"), ..fewest }, NOW)).unwrap();
    let twice = publishing(&[(Some(80), Ingress), (Some(80), Host)]);
    refused(cluster.serve(1, twice), "duplicate published ports provided: 80/tcp");
    let called = |number| overlay_node::PublishedPort { name: Some(name("http")), ..tcp(None, number, Ingress) };
    let alike = ServiceSpec { ports: vec![called(80), called(80), called(81)], ..web(&[1]) };
    refused(cluster.serve(1, alike), "tcp ports 80 and 81 are both called http: by a name, one port is found");
    let many = ServiceSpec { ports: vec![tcp(None, 80, Ingress); 1001], ..web(&[1]) };
    refused(cluster.serve(1, many), "a service has at most 1000 published ports, not 1001");

    cluster.serve(1, publishing(&[(Some(80), Ingress), (Some(443), Host)])).unwrap();
    let other = |ports: &[(Option<u16>, PublishMode)]| ServiceSpec { name: name("other"), ..publishing(ports) };
    let id = service(1);
    for mode in [Ingress, Host] {
        let text = format!("port '80' is already in use by service 'web' ({id}) as an ingress port");
        refused(cluster.serve(2, other(&[(Some(80), mode)])), &text);
    }
    let text = format!("port '443' is already in use by service 'web' ({id}) as a host-published port");
    refused(cluster.serve(2, other(&[(Some(443), Ingress)])), &text);
    cluster.serve(2, other(&[(Some(443), Host)])).unwrap(); // nodes keep them apart
    let taken = format!("service Web already exists, with id {id}: choose another name");
    refused(cluster.serve(3, ServiceSpec { name: name("Web"), ..web(&[1]) }), &taken);
}

#[test]
fn a_port_that_is_drawn_is_none_that_another_publishes_at_hosts() {
    let cluster = Cluster::new();
    cluster.serve(1, publishing(&[(Some(30_000), PublishMode::Host), (Some(30_001), PublishMode::Host)])).unwrap();
    let drawn = ServiceSpec { name: name("other"), ..publishing(&[(None, PublishMode::Ingress)]) };
    let made = cluster.serve(2, drawn.clone()).unwrap();
    assert_eq!(made.ports[0].published, Some(port(30_002)));
    assert_eq!(cluster.serve(2, drawn).unwrap(), made);
    block_on(cluster.manager.remove_service(&"other".into(), NOW)).unwrap();
}

#[test]
fn a_service_of_a_thousand_ports_is_made_and_removed_on_a_store_with_small_commits() {
    let cluster = Cluster::new();
    let limits = overlay_core::Limits { operations: 128, value: 1 << 20, commit: 1 << 20 };
    let manager = manager(Arc::new(cluster.store.clone().with_limits(limits)), 2);
    let ports = (0..1000).map(|number| match number % 2 {
        0 => tcp(Some(10_000 + number), 80, PublishMode::Host),
        _ => tcp(None, 80, PublishMode::Ingress),
    });
    let spec = ServiceSpec { ports: ports.collect(), ..web(&[1, 2]) };
    let made = block_on(manager.create_service(service(1), spec, NOW)).unwrap();
    assert!(made.ports.iter().all(|port| port.published.is_some()));
    block_on(manager.remove_service(&"web".into(), NOW)).unwrap();
    let scattered = (0..200).map(|number| tcp(Some(1000 + 256 * number), 80, PublishMode::Host));
    let spec = ServiceSpec { ports: scattered.collect(), ..web(&[1]) };
    refused(
        block_on(manager.create_service(service(1), spec, NOW)),
        "a service has at most 64 groups of 256 published ports, not 200",
    );
}

#[test]
fn attachments_that_make_no_sense_are_refused_and_told_what_would() {
    let cluster = Cluster::new();
    refused(cluster.attach(1, at(9, "c1")), &format!("network {} not found", network(9)));
    let nowhere = EndpointSpec { node: node(9), ..at(1, "c1") };
    refused(cluster.attach(1, nowhere), &format!("node {} not found", node(9)));
    let text = "network back not manually attachable: name a service, or create it attachable";
    refused(cluster.attach(1, at(2, "c1")), text);
    let text = "only containers of a service that publishes a port in mode ingress or local are attached to the ingress network ingress: \
                name such a service, or choose another network";
    refused(cluster.attach(1, at(0, "c1")), text);
    let of = EndpointSpec { service: Some(service(1)), ..at(2, "c1") };
    refused(cluster.attach(1, of.clone()), &format!("service {} not found", service(1)));
    cluster.serve(1, web(&[1])).unwrap();
    refused(cluster.attach(1, of), "service web is not on network back: attach to one of its networks");
    let two = EndpointSpec { addresses: [[10, 0, 1, 7].into(), [10, 0, 1, 8].into()].into(), ..at(1, "c1") };
    refused(cluster.attach(1, two), "two IPv4 addresses for one endpoint: give one");
    let six = EndpointSpec { addresses: ["fd00::7".parse().unwrap()].into(), ..at(1, "c1") };
    refused(cluster.attach(1, six), "address the network has no IPv6 subnet");
    let group = EndpointSpec { mac: Some(overlay_core::Mac::BROADCAST), ..at(1, "c1") };
    refused(cluster.attach(1, group), "ff:ff:ff:ff:ff:ff is a group's address or zero: give a station's");
    let gateway = EndpointSpec { mac: Some("02:6f:76:00:10:01".parse().unwrap()), ..at(1, "c1") };
    let text = "02:6f:76:00:10:01 is a segment's own: give one that does not begin with 02:6f:76 or 06:6f:76";
    refused(cluster.attach(1, gateway), text);
    let long = EndpointSpec { labels: [("a".into(), "b".repeat(20_000))].into(), ..at(1, "c1") };
    assert!(cluster.attach(1, long).unwrap_err().to_string().contains("give fewer or shorter names and labels"));
}

#[test]
fn an_address_outside_reserved_or_taken_is_refused_by_name() {
    let cluster = Cluster::new();
    let wanting = |address: [u8; 4], container| EndpointSpec { addresses: [address.into()].into(), ..at(1, container) };
    let taken = cluster.attach(1, wanting([10, 0, 1, 7], "c1")).unwrap();
    assert_eq!(taken.addresses.first().unwrap().to_string(), "10.0.1.7/24");
    refused(cluster.attach(2, wanting([10, 0, 1, 7], "c2")), "address 10.0.1.7 is in use");
    refused(
        cluster.attach(2, wanting([10, 9, 0, 7], "c2")),
        "address 10.9.0.7 is in no subnet of the network: choose one that is, or leave it open",
    );
    refused(cluster.attach(2, wanting([10, 0, 1, 1], "c2")), "address 10.0.1.1 is the gateway's");
    refused(cluster.attach(2, wanting([10, 0, 1, 255], "c2")), "address 10.0.1.255 is the subnet's broadcast address");
    let text = format!("container c1 is already attached to network front, by endpoint {}", endpoint(1));
    refused(cluster.attach(2, at(1, "c1")), &text);
    block_on(cluster.manager.detach(endpoint(1), NOW)).unwrap();
    let resting = cluster.attach(2, wanting([10, 0, 1, 7], "c2")).unwrap_err().to_string();
    assert!(resting.starts_with("address 10.0.1.7 was in use and rests until "), "{resting}");
    let later = NOW + Duration::from_secs(200);
    block_on(cluster.manager.attach(endpoint(2), wanting([10, 0, 1, 7], "c2"), later)).unwrap();
}

#[test]
fn an_ethernet_address_is_one_endpoints_whether_it_was_chosen_or_made() {
    let cluster = Cluster::new();
    let first = EndpointSpec { mac: Some(mac(0)), ..at(1, "c1") };
    cluster.attach(1, first).unwrap();
    let second = EndpointSpec { mac: Some(mac(0)), ..at(1, "c2") };
    let text = format!("{} is the Ethernet address of endpoint {}: give another, or none", mac(0), endpoint(1));
    refused(cluster.attach(2, second), &text);
    // 10.0.1.10 is next: somebody has chosen the address that is made of it.
    let chosen = EndpointSpec {
        mac: Some("02:42:0a:00:01:0a".parse().unwrap()),
        addresses: [[10, 0, 1, 9].into()].into(),
        ..at(1, "c3")
    };
    cluster.attach(3, chosen).unwrap();
    let made: Vec<Endpoint> = (4..8).map(|n| cluster.attach(n, at(1, &format!("c{n}"))).unwrap()).collect();
    assert!(made.iter().any(|endpoint| !endpoint.mac.to_string().starts_with("02:42:0a:00:01")), "{made:?}");
}

#[test]
fn an_exhausted_network_refuses_until_something_is_given_back_and_has_rested() {
    let cluster = Cluster::new();
    let subnets = vec![SubnetRequest::this("10.9.0.0/30".parse().unwrap())];
    cluster.create(3, NetworkSpec { subnets, ..overlay("small") }).unwrap();
    cluster.attach(1, at(3, "c1")).unwrap();
    refused(cluster.attach(2, at(3, "c2")), "address 10.9.0.0/30 is exhausted: 1 in use, 0 resting");
    block_on(cluster.manager.detach(endpoint(1), NOW)).unwrap();
    block_on(cluster.manager.attach(endpoint(2), at(3, "c2"), NOW + Duration::from_secs(200))).unwrap();
}

#[test]
fn an_endpoint_moves_with_all_it_has_and_only_its_node_reports_on_it() {
    let cluster = Cluster::new();
    let manager = &cluster.manager;
    let made = cluster.attach(1, at(1, "c1")).unwrap();
    block_on(async {
        assert_eq!(manager.network(&"front".into()).await.unwrap().condition, Condition::Allocated);
        manager.report(endpoint(1), stay(2, 0), Err("not mine".into())).await.unwrap();
        assert_eq!(manager.endpoint(endpoint(1)).await.unwrap().unwrap(), made);
        manager.report(endpoint(1), stay(1, 0), Ok(())).await.unwrap();
        assert_eq!(manager.network(&"front".into()).await.unwrap().condition, Condition::Ready);
        let moved = manager.relocate(endpoint(1), node(2), NOW).await.unwrap();
        assert_eq!((moved.moves, moved.spec.node, &moved.condition), (1, node(2), &Condition::Allocated));
        assert_eq!((&moved.addresses, moved.mac), (&made.addresses, made.mac));
        assert_eq!(manager.relocate(endpoint(1), node(2), NOW).await.unwrap(), moved);
        manager.report(endpoint(1), stay(1, 0), Ok(())).await.unwrap();
        manager.report(endpoint(1), stay(2, 1), Err("no VXLAN".into())).await.unwrap();
        let failed = manager.network(&"front".into()).await.unwrap().condition;
        let text = format!("failed: container c1 on node {}: no VXLAN", node(2).short());
        assert_eq!(failed.to_string(), text);
        manager.report(endpoint(1), stay(2, 1), Err("é".repeat(1000))).await.unwrap();
        let long = manager.endpoint(endpoint(1)).await.unwrap().unwrap().condition;
        assert_eq!(long, Condition::Failed { reason: "é".repeat(512) });
        // Repeated, the attachment gives it as it is, wherever it is.
        assert_eq!(manager.attach(endpoint(1), at(1, "c1"), NOW).await.unwrap().spec.node, node(2));
    });
    let text = format!("container c1 is already attached to network front, by endpoint {}", endpoint(1));
    cluster.attach(2, at(1, "c1")).unwrap();
    refused(block_on(manager.relocate(endpoint(2), node(2), NOW)), &text);
    refused(block_on(manager.relocate(endpoint(1), node(9), NOW)), &format!("node {} not found", node(9)));
    refused(block_on(manager.relocate(endpoint(9), node(1), NOW)), &format!("endpoint {} not found", endpoint(9)));
}

#[test]
fn a_service_is_ready_when_all_its_endpoints_are_and_is_not_removed_before_they_are_gone() {
    let cluster = Cluster::new();
    let manager = &cluster.manager;
    let made = cluster.serve(1, web(&[1, 2])).unwrap();
    assert_eq!(made.vips.len(), 2);
    for (number, of) in [(1, 1), (2, 2)] {
        cluster.attach(number, EndpointSpec { service: Some(service(1)), ..at(of, "c1") }).unwrap();
    }
    block_on(async {
        manager.report(endpoint(1), stay(1, 0), Ok(())).await.unwrap();
        assert_eq!(manager.service(&"web".into()).await.unwrap().condition, Condition::Allocated);
        manager.report(endpoint(2), stay(1, 0), Ok(())).await.unwrap();
        assert_eq!(manager.service(&"web".into()).await.unwrap().condition, Condition::Ready);
        assert_eq!(manager.services().await.unwrap(), [made]);
    });
    let text = format!("service web is served by container c1 on node {} still: detach that first", node(1).short());
    refused(block_on(manager.remove_service(&"web".into(), NOW)), &text);
    assert_eq!(block_on(manager.remove_node(&"a".into(), NOW)).unwrap().len(), 2);
    block_on(manager.remove_service(&"web".into(), NOW)).unwrap();
    cluster.remove("back").unwrap();
}

#[test]
fn nodes_have_names_of_their_own_and_keep_their_ids() {
    let cluster = Cluster::new();
    let manager = &cluster.manager;
    let text = format!("node A already exists, with id {}: choose another name", node(1));
    refused(block_on(manager.add_node(node(3), node_spec("A"), NOW)), &text);
    let made = block_on(manager.node(&"a".into())).unwrap();
    assert_eq!(block_on(manager.add_node(node(1), node_spec("a"), NOW)).unwrap(), made);
    block_on(manager.add_node(node(1), node_spec("c"), NOW)).unwrap();
    block_on(manager.add_node(node(3), node_spec("a"), NOW)).unwrap();
    let names: Vec<String> = block_on(manager.nodes()).unwrap().iter().map(|node| node.spec.name.to_string()).collect();
    assert_eq!(names, ["a", "b", "c"]);
    refused(block_on(manager.remove_node(&"d".into(), NOW)), "node d not found");
}

#[test]
fn things_are_called_by_name_id_or_the_beginning_of_an_id() {
    let cluster = Cluster::new();
    let find = |text: &str| block_on(cluster.manager.network(&text.into())).map(|network| network.id);
    let id = network(1).to_string();
    assert_eq!(find("FRONT").unwrap(), network(1));
    assert_eq!(find(&id).unwrap(), network(1));
    assert_eq!(find(&id[..12]).unwrap(), network(1));
    refused(find("1w"), "network 1w is ambiguous: 3 ids begin so; give more of it, or the name");
    refused(find(""), "network  not found");
    refused(find("no such"), "network no such not found");
    cluster.create(3, overlay(&id[..12])).unwrap(); // a name that is the beginning of an id
    assert_eq!(find(&id[..12]).unwrap(), network(3));
}

#[test]
fn a_record_that_cannot_be_read_is_an_error_by_name_and_keeps_nothing_else_from_being_settled() {
    let cluster = Cluster::new();
    let key = Key::new(format!("cluster/catalogue/network/{}", network(1))).unwrap();
    let good = block_on(cluster.store.get(&key)).unwrap().unwrap().value;
    for (bad, flaw) in [
        ("{", "EOF while parsing an object at line 1 column 1".to_owned()),
        (r#"{"format":2}"#, "it is of format 2; this release knows 1".to_owned()),
        (r#"{"format":1}"#, "missing field `object` at line 1 column 12".to_owned()),
    ] {
        cluster.store.commit_now(Commit::new().put(key.clone(), bad)).unwrap();
        let error = block_on(cluster.manager.network(&"front".into())).unwrap_err();
        assert_eq!(error.to_string(), format!("the record {key} cannot be read: {flaw}"));
        let settled = block_on(cluster.manager.settle(NOW)).unwrap();
        assert_eq!((settled.troubles.len(), settled.reclaimed), (1, 0), "what it has is not taken from it");
    }
    let elsewhere = String::from_utf8(good.to_vec()).unwrap().replace(&network(1).to_string(), &network(7).to_string());
    cluster.store.commit_now(Commit::new().put(key.clone(), elsewhere)).unwrap();
    assert!(block_on(cluster.manager.networks()).unwrap_err().to_string().contains("whose place is elsewhere"));
    cluster.store.commit_now(Commit::new().put(key, good)).unwrap();
}

#[test]
fn an_endpoint_whose_record_says_it_moved_as_often_as_can_be_told_still_moves() {
    let cluster = Cluster::new();
    cluster.attach(1, at(1, "db")).unwrap();
    let key = Key::new(format!("cluster/catalogue/endpoint/{}/{}", network(1), endpoint(1))).unwrap();
    let record = block_on(cluster.store.get(&key)).unwrap().unwrap().value;
    let record = String::from_utf8(record.to_vec()).unwrap();
    let often = record.replace(r#""moves":0"#, &format!(r#""moves":{}"#, u64::MAX));
    assert_ne!(often, record);
    cluster.store.commit_now(Commit::new().put(key, often)).unwrap();
    let moved = block_on(cluster.manager.relocate(endpoint(1), node(2), NOW)).unwrap();
    assert_eq!((moved.spec.node, moved.moves), (node(2), u64::MAX));
}

#[test]
fn what_was_accepted_and_cannot_be_had_says_why_until_it_can_or_is_removed() {
    let cluster = Cluster::new();
    let subnets = vec![SubnetRequest::this("10.9.0.0/30".parse().unwrap())];
    cluster.create(3, NetworkSpec { subnets, ..overlay("small") }).unwrap();
    let mortal = cluster::Mortal::new(cluster.store.clone(), 1, cluster::Last::Lost);
    let dead = manager(Arc::new(mortal), 2);
    let error = block_on(dead.attach(endpoint(1), at(3, "c1"), NOW)).unwrap_err();
    assert!(error.is_in_doubt());
    cluster.attach(2, at(3, "c2")).unwrap();
    let settled = block_on(cluster.manager.settle(NOW)).unwrap();
    assert_eq!((settled.failed, settled.allocated), (1, 0));
    let failed = block_on(cluster.manager.endpoint(endpoint(1))).unwrap().unwrap();
    let text = "failed: address 10.9.0.0/30 is exhausted: 1 in use, 0 resting";
    assert_eq!(failed.condition.to_string(), text);
    let text = format!("endpoint {} is not allocated yet: try again", endpoint(1));
    refused(block_on(cluster.manager.relocate(endpoint(1), node(2), NOW)), &text);
    block_on(cluster.manager.detach(endpoint(2), NOW)).unwrap();
    let settled = block_on(cluster.manager.settle(NOW + Duration::from_secs(200))).unwrap();
    assert_eq!((settled.failed, settled.allocated), (0, 1));
    assert_eq!(block_on(cluster.manager.endpoint(endpoint(1))).unwrap().unwrap().condition, Condition::Allocated);
}
