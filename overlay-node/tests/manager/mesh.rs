//! The nodes' endpoints on the ingress network.

use super::*;

#[test]
fn a_node_that_finds_no_room_on_the_ingress_network_is_added_and_settling_tells_of_it_and_goes_on() {
    let cluster = Cluster::new();
    block_on(cluster.manager.remove_network(&"ingress".into(), NOW)).unwrap();
    let subnets = vec![SubnetRequest::this("192.0.2.0/29".parse().unwrap())]; // the gateway's, a VIP, and four more
    cluster.create(3, NetworkSpec { ingress: true, subnets, ..NetworkSpec::overlay(name("mesh")) }).unwrap();
    cluster.serve(1, publishing(&[(Some(80), PublishMode::Ingress)])).unwrap();
    let add = |number: u8| block_on(cluster.manager.add_node(node(number), node_spec(&format!("n{number}")), NOW));
    (3..=7).for_each(|number| drop(add(number).unwrap()));
    let on_mesh = || block_on(cluster.manager.endpoints(network(3))).unwrap().len();
    assert_eq!(on_mesh(), 4);
    let settled = block_on(cluster.manager.settle(NOW)).unwrap();
    assert_eq!(settled.troubles.len(), 3, "{settled:?}"); // of seven nodes
    assert!(
        cluster.serve(2, ServiceSpec { name: name("more"), ..publishing(&[(Some(81), PublishMode::Host)]) }).is_ok()
    );
    // Who is late gets a place that is free again.
    block_on(cluster.manager.remove_node(&"n3".into(), NOW)).unwrap();
    let rested = NOW + Duration::from_secs(3_600);
    block_on(cluster.manager.settle(rested)).unwrap();
    assert_eq!(on_mesh(), 4);
}

#[test]
fn every_node_is_on_the_ingress_network_while_a_service_publishes_there_and_containers_that_serve_it_may_be() {
    let cluster = Cluster::new();
    let on_mesh = || block_on(cluster.manager.endpoints(network(0))).unwrap();
    assert_eq!(on_mesh(), []);
    cluster.serve(2, ServiceSpec { name: name("inside"), ..web(&[1]) }).unwrap();
    assert_eq!(on_mesh(), []);
    cluster.serve(1, publishing(&[(Some(80), PublishMode::Ingress)])).unwrap();
    let nodes: BTreeSet<_> = on_mesh().iter().map(|endpoint| endpoint.spec.node).collect();
    assert_eq!(nodes, [node(1), node(2)].into());
    assert!(
        on_mesh().iter().all(|endpoint| endpoint.addresses.len() == 1 && endpoint.condition == Condition::Allocated)
    );
    block_on(cluster.manager.add_node(node(3), node_spec("n3"), NOW)).unwrap();
    assert_eq!(on_mesh().len(), 3);
    // Nobody moves one, or has what is a node's.
    let own = on_mesh().into_iter().find(|endpoint| endpoint.spec.node != node(3)).unwrap();
    let text = "only containers of a service that publishes a port in mode ingress are attached to the ingress network ingress: \
                name such a service, or choose another network";
    let elsewhere = [node(1), node(2), node(3)].into_iter().find(|node| *node != own.spec.node).unwrap();
    refused(block_on(cluster.manager.relocate(own.id, elsewhere, NOW)), text);
    // Containers of a service that publishes there are let in, others are not.
    let serving = |number, container| EndpointSpec { service: Some(service(number)), ..at(0, container) };
    refused(cluster.attach(1, at(0, "c1")), text);
    refused(cluster.attach(1, serving(2, "c1")), text);
    let replica = cluster.attach(1, serving(1, "c1")).unwrap();
    assert!(!on_mesh().iter().any(|endpoint| endpoint.addresses == replica.addresses && endpoint.id != replica.id));
    // A node takes its own along, and is told of containers only.
    let ended = block_on(cluster.manager.remove_node(&"n3".into(), NOW)).unwrap();
    assert_eq!((ended, on_mesh().len()), (Vec::new(), 3));
    // What a manager that died left undone is done when the cluster is settled.
    block_on(cluster.manager.detach(own.id, NOW)).unwrap();
    assert_eq!(on_mesh().len(), 2);
    block_on(cluster.manager.settle(NOW)).unwrap();
    assert_eq!(on_mesh().len(), 3);
    // The network goes with them, once nobody publishes there.
    block_on(cluster.manager.detach(replica.id, NOW)).unwrap();
    block_on(cluster.manager.remove_service(&"web".into(), NOW)).unwrap();
    cluster.remove("ingress").unwrap();
}
