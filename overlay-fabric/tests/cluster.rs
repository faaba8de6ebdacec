//! Clusters that do what they should.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail loudly too")]

use std::time::Duration;

use overlay_core::{IpFamily, NetworkId};
use overlay_fabric::{Broken, Checked, Cluster};
use overlay_ipam::SubnetRequest;
use overlay_node::{EndpointSpec, NetworkSpec, Place, PublishedPort, ServiceSpec};

const LIMIT: Duration = Duration::from_secs(30);

fn attachable(name: &str) -> NetworkSpec {
    NetworkSpec { attachable: true, ..NetworkSpec::overlay(name.parse().unwrap()) }
}

#[test]
fn containers_of_one_network_reach_each_other_by_name_and_the_network_is_only_where_they_are() {
    let mut cluster = Cluster::new(1, 3);
    cluster.create_network(attachable("front")).unwrap();
    cluster.attach("web", 0, "front").unwrap();
    cluster.attach("db", 1, "front").unwrap();
    let checked = settle(&mut cluster);
    assert_eq!((checked.endpoints, checked.peers, checked.answered), (2, 2, 2));
    assert!(cluster.probe("web", "db").arrives());
    assert!(cluster.places(2).unwrap().places().is_empty());
}

#[test]
fn a_network_that_grows_while_it_is_used_carries_what_comes_and_what_was_there() {
    let mut cluster = web_and_db(30);
    let mut spec = cluster.network("front").unwrap().spec;
    let more = ["10.77.0.0/24", "fd00:77::/64"].map(|net| SubnetRequest::this(net.parse().unwrap()));
    spec.subnets = [vec![SubnetRequest::any(IpFamily::V4)], more.into()].concat();
    cluster.change_network("front", spec).unwrap();
    cluster.attach("new", 2, "front").unwrap();
    let checked = settle(&mut cluster);
    assert_eq!(checked.endpoints, 3);
    assert!(cluster.probe("web", "db").arrives() && cluster.probe("new", "web").arrives());
    let front = cluster.network("front").unwrap();
    let new = cluster.endpoints(front.id).unwrap().into_iter().find(|it| it.spec.container.as_str() == "new").unwrap();
    assert_eq!((front.subnets.len(), new.addresses.len()), (3, 2), "it has an address of the family that came");
}

/// A cluster of three in which web is on node 0, db on node 1, and all is as it should be.
fn web_and_db(seed: u64) -> Cluster {
    let mut cluster = Cluster::new(seed, 3);
    cluster.create_network(attachable("front")).unwrap();
    cluster.attach("web", 0, "front").unwrap();
    cluster.attach("db", 1, "front").unwrap();
    settle(&mut cluster);
    cluster
}

fn settle(cluster: &mut Cluster) -> Checked {
    cluster.settle(LIMIT).unwrap_or_else(|violation| panic!("{violation}"))
}

/// What the sandboxes of a node hold.
fn sandboxes(cluster: &Cluster, node: usize) -> Vec<overlay_vxlan::State> {
    let places = cluster.places(node).unwrap().places();
    places
        .into_iter()
        .filter(|(place, _)| matches!(place, Place::Network(_)))
        .map(|(_, held)| held.vxlan.state())
        .collect()
}

#[test]
fn an_agent_that_dies_leaves_the_data_path_and_one_that_comes_back_takes_nothing_away() {
    let mut cluster = web_and_db(2);
    let held = sandboxes(&cluster, 0);
    let db = cluster.endpoints(cluster.network("front").unwrap().id).unwrap();
    let db = db.iter().find(|it| it.spec.container.as_str() == "db").unwrap().addresses.first().unwrap().addr();
    cluster.crash(0);
    assert_eq!(cluster.probe("web", "db").broken, Some(Broken::NoResolver));
    assert!(cluster.observe().probe_address(&"web".parse().unwrap(), db).arrives(), "by address it goes on");
    cluster.run_for(Duration::from_secs(1));
    cluster.restart(0).unwrap();
    for _ in 0..1_000 {
        cluster.run_for(Duration::from_millis(10));
        assert_eq!(sandboxes(&cluster, 0), held, "at {}", cluster.now());
    }
    settle(&mut cluster);
}

#[test]
fn what_is_cut_off_is_forgotten_and_comes_back_when_the_cut_heals() {
    let mut cluster = web_and_db(3);
    cluster.partition([1]);
    assert_eq!(cluster.probe("web", "db").broken, Some(Broken::Underlay { from: 0, to: 1 }));
    let forgotten = |cluster: &Cluster| matches!(cluster.probe("web", "db").broken, Some(Broken::UnknownName(_)));
    assert!(cluster.run_until(LIMIT, forgotten).is_some(), "{cluster:?}");
    assert!(sandboxes(&cluster, 0).iter().all(|state| state.segments.values().all(|it| it.peers.is_empty())));
    cluster.heal();
    settle(&mut cluster);
}

#[test]
fn a_cut_of_one_way_is_seen_as_such() {
    let mut cluster = web_and_db(4);
    cluster.cut(1, 0);
    let trace = cluster.probe("web", "db");
    assert!(trace.is_one_way() && trace.broken == Some(Broken::Underlay { from: 1, to: 0 }), "{trace}");
    assert!(!cluster.probe("db", "web").is_one_way());
}

#[test]
fn a_container_on_two_networks_reaches_both_and_joins_none_of_them_to_the_other() {
    let mut cluster = Cluster::new(5, 3);
    let v6 = SubnetRequest::this("fd00:9::/64".parse().unwrap());
    let both = vec![SubnetRequest::any(IpFamily::V4), v6];
    cluster.create_network(attachable("front")).unwrap();
    cluster.create_network(NetworkSpec { subnets: both, ..attachable("back") }).unwrap();
    cluster.attach("web", 0, "front").unwrap();
    cluster.attach("app", 1, "front").unwrap();
    cluster.attach("app", 1, "back").unwrap();
    cluster.attach("db", 2, "back").unwrap();
    let checked = settle(&mut cluster);
    assert_eq!((checked.answered, checked.refused > 2), (4, true), "{checked:?}");
    assert!(cluster.probe("app", "web").arrives() && cluster.probe("app", "db").arrives());
    assert!(matches!(cluster.probe("web", "db").broken, Some(Broken::UnknownName(_))));
    let addresses = |name: &str| {
        let all = cluster.endpoints(cluster.network("back").unwrap().id).unwrap();
        all.into_iter().find(|it| it.spec.container.as_str() == name).unwrap().addresses
    };
    for address in addresses("db") {
        assert!(cluster.observe().probe_address(&"app".parse().unwrap(), address.addr()).arrives(), "{address}");
    }
    assert_eq!(addresses("db").len(), 2, "one of each family");
}

#[test]
fn peers_are_there_when_the_first_container_of_a_node_comes() {
    let mut cluster = web_and_db(6);
    cluster.attach("cache", 2, "front").unwrap();
    let there = |cluster: &Cluster| !sandboxes(cluster, 2).is_empty();
    assert!(cluster.run_until(LIMIT, there).is_some());
    let peers: usize = sandboxes(&cluster, 2).iter().flat_map(|it| it.segments.values()).map(|it| it.peers.len()).sum();
    assert_eq!(peers, 2, "all of them from the first moment");
}

#[test]
fn a_check_finds_what_somebody_did_to_a_place() {
    let cluster = web_and_db(9);
    assert!(cluster.check().is_ok());
    let (_, held) = cluster.places(0).unwrap().places().into_iter().nth(1).unwrap();
    held.vxlan.update(|state| state.segments.values_mut().for_each(|segment| segment.peers.clear()));
    let violation = cluster.check().unwrap_err();
    assert!(violation.to_string().starts_with("seed 9 at ") && violation.what.len() == 2, "{violation}");
    assert!(violation.what.iter().any(|what| what.contains("is missing")), "{violation}");
    held.firewall.update(|state| state.ports.clear());
    assert!(matches!(cluster.probe("web", "db").broken, Some(Broken::NoNeighbour(_))));
    assert!(matches!(cluster.probe("db", "web").broken, Some(Broken::Dropped { node: 0, .. })));
}

#[test]
fn a_run_is_a_function_of_its_seed() {
    let run = |seed| {
        let mut cluster = web_and_db(seed);
        cluster.crash(1);
        cluster.run_for(Duration::from_secs(7));
        let id = cluster.network("front").unwrap().id;
        (id, cluster.now(), (0..3).map(|node| sandboxes(&cluster, node)).collect::<Vec<_>>())
    };
    assert_eq!(run(11), run(11));
    assert_ne!(run(11).0, run(12).0);
}

#[test]
fn an_agent_explains_a_way_that_is_whole_and_names_what_is_missing_of_one_that_is_not() {
    let mut cluster = web_and_db(13);
    let whole = cluster.explain("web", "db").unwrap();
    assert!(whole.broken.is_none() && cluster.probe("web", "db").arrives(), "{whole:?}");
    let (_, held) = cluster.places(0).unwrap().places().into_iter().nth(1).unwrap();
    held.vxlan.update(|state| state.segments.values_mut().for_each(|segment| segment.peers.clear()));
    let broken = cluster.explain("web", "db").unwrap();
    assert!(broken.broken.is_some() && !cluster.probe("web", "db").arrives(), "{broken:?}");
    cluster.crash(0);
    assert!(cluster.explain("web", "db").is_none());
}

#[test]
fn a_container_that_moves_away_and_back_before_anybody_hears_of_it_is_where_it_was() {
    let mut cluster = web_and_db(14);
    cluster.relocate("db", 2).unwrap();
    cluster.relocate("db", 1).unwrap();
    assert_eq!(settle(&mut cluster).answered, 2);
}

/// Another ingress network than the first, which may have the nodes' own addresses.
fn ingress(cluster: &mut Cluster, subnet: &str) -> NetworkId {
    cluster.remove_network("ingress").unwrap();
    let subnets = vec![SubnetRequest::this(subnet.parse().unwrap())];
    let spec = NetworkSpec { ingress: true, subnets, ..NetworkSpec::overlay("mesh".parse().unwrap()) };
    cluster.create_network(spec).unwrap().id
}

/// A port that is published in the mesh.
fn published(number: u16, target: u16) -> Vec<PublishedPort> {
    PublishedPort::read(&format!("{number}:{target}")).unwrap()
}

#[test]
fn a_published_port_is_balanced_at_every_node_as_long_as_its_service_is_there_and_only_among_who_is_reached() {
    let mut cluster = Cluster::new(40, 3);
    ingress(&mut cluster, "10.40.0.0/24");
    let front = cluster.create_network(attachable("front")).unwrap();
    let spec = ServiceSpec { ports: published(80, 8080), ..ServiceSpec::new("web".parse().unwrap(), [front.id]) };
    let web = cluster.create_service(spec).unwrap();
    for (node, name) in ["web-0", "web-1"].into_iter().enumerate() {
        let spec = EndpointSpec::new(front.id, name.parse().unwrap(), cluster.node_id(node).unwrap());
        cluster.attach_as(node, EndpointSpec { service: Some(web.id), ..spec }).unwrap(); // to the ingress network too
    }
    // At each node as many replicas as there are; each container has a way back through each node.
    let replicas = |cluster: &Cluster, node: usize| -> Option<usize> {
        let host = cluster.places(node).unwrap().place(&Place::Host)?.lb.state();
        let services: Vec<_> = host.services.values().cloned().collect();
        let [service] = &services[..] else { return None };
        Some(service.takers(IpFamily::V4).count())
    };
    let all = |count: usize| move |cluster: &Cluster| (0..3).all(|node| replicas(cluster, node) == Some(count));
    assert!(cluster.run_until(LIMIT, all(2)).is_some(), "{cluster:?}");
    let container = cluster.places(0).unwrap().place(&Place::Container("web-0".parse().unwrap())).unwrap();
    let (marks, routes) = (container.lb.state().arrivals.unwrap().marks, container.routes.state().marked);
    assert!(marks.len() == 3 && marks.values().all(|mark| routes.contains_key(mark)), "{marks:?} {routes:?}");
    // Who is cut off is led to nobody there, and the others no more to it.
    cluster.partition([1]);
    let apart = |cluster: &Cluster| [0, 2].into_iter().all(|node| replicas(cluster, node) == Some(1));
    assert!(cluster.run_until(LIMIT, apart).is_some(), "{cluster:?}");
    cluster.heal();
    assert!(cluster.run_until(LIMIT, all(2)).is_some(), "{cluster:?}");
    for name in ["web-0", "web-1"] {
        cluster.stop(name).unwrap();
    }
    cluster.remove_service(web.id).unwrap();
    let nothing = |cluster: &Cluster| (0..3).all(|node| cluster.places(node).unwrap().places().is_empty());
    assert!(cluster.run_until(LIMIT, nothing).is_some(), "{cluster:?}");
}

#[test]
fn a_check_finds_a_service_that_somebody_took_away() {
    let mut cluster = Cluster::new(41, 2);
    let front = cluster.create_network(attachable("front")).unwrap();
    cluster.create_service(ServiceSpec::new("web".parse().unwrap(), [front.id])).unwrap();
    cluster.attach("db", 0, "front").unwrap();
    settle(&mut cluster);
    let held = cluster.places(0).unwrap().place(&Place::Container("db".parse().unwrap())).unwrap();
    assert_eq!(held.lb.state().services.len(), 1);
    held.lb.update(|state| *state = overlay_lb::State::default());
    let violation = cluster.check().unwrap_err();
    assert!(violation.to_string().contains("container db does not hold what is desired"), "{violation}");
}

#[test]
fn a_node_whose_own_address_is_in_the_ingress_network_publishes_nothing_and_says_so() {
    let mut cluster = Cluster::new(41, 2);
    let own = cluster.agent(0).unwrap().knowledge().nodes[&cluster.node_id(0).unwrap()].vtep;
    let subnet = ipnet::IpNet::new(own, 24).unwrap().trunc().to_string();
    let ingress = ingress(&mut cluster, &subnet);
    let front = cluster.create_network(attachable("front")).unwrap();
    let spec = ServiceSpec { ports: published(80, 8080), ..ServiceSpec::new("web".parse().unwrap(), [front.id]) };
    cluster.create_service(spec).unwrap();
    let failed = |cluster: &Cluster| {
        let endpoints = cluster.endpoints(ingress).unwrap();
        endpoints.len() == 2
            && endpoints
                .iter()
                .all(|endpoint| endpoint.condition.to_string().contains("create that network with another subnet"))
    };
    assert!(cluster.run_until(LIMIT, failed).is_some(), "{:?}", cluster.endpoints(ingress));
    assert!((0..2).all(|node| cluster.places(node).unwrap().places().is_empty()));
}

#[test]
fn what_names_no_node_and_no_container_harms_nothing_and_is_refused_by_name() {
    let mut cluster = web_and_db(42);
    settle(&mut cluster);
    let nobody = 99;
    cluster.crash(nobody);
    cluster.power_off(nobody);
    cluster.pause(nobody, Duration::from_secs(1));
    cluster.partition([nobody]);
    cluster.cut(nobody, 0);
    cluster.rotate_keys(nobody);
    cluster.rotate_gossip_keys(nobody, [nobody]);
    cluster.dismiss(nobody);
    cluster.skew(nobody, i64::MIN);
    cluster.fail_places(nobody, 1);
    cluster.begin_anew(nobody);
    cluster.capture(overlay_fabric::Link::Node(nobody));
    cluster.narrow(nobody, overlay_core::Mtu::ETHERNET);
    assert!(
        cluster.places(nobody).is_none() && cluster.agent(nobody).is_none() && cluster.packet_counts(nobody).is_none()
    );
    assert_eq!(cluster.restart(nobody).unwrap_err().to_string(), "there is no node 99");
    assert_eq!(cluster.attach("web", nobody, "front").unwrap_err().to_string(), "there is no node 99");
    assert_eq!(cluster.relocate("web", nobody).unwrap_err().to_string(), "there is no node 99");
    assert!(cluster.stop("nobody").unwrap_err().to_string().contains("container nobody is not there"));
    assert!(cluster.detach("nobody", "front").unwrap_err().to_string().contains("container nobody is not there"));
    assert!(cluster.container("nobody").ping("db").unwrap_err().to_string().contains("no container nobody runs"));
    assert!(cluster.container("web").ping("nobody").unwrap_err().to_string().contains("nobody has no address"));
    assert!(cluster.container("web").udp("db", &[7; 70_000]).is_err());
    assert!(matches!(cluster.probe("nobody", "db").broken, Some(Broken::NoContainer(_))));
    settle(&mut cluster);
    (0..cluster.len()).for_each(|node| cluster.crash(node));
    assert!(cluster.create_network(attachable("late")).unwrap_err().to_string().contains("no manager is running"));
    let mut empty = Cluster::new(43, 0);
    empty.run_for(Duration::from_secs(1));
    assert!(empty.create_network(attachable("front")).unwrap_err().to_string().contains("no manager is running"));
}
