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
    let text = "only containers of a service that publishes a port in mode ingress or local are attached to the ingress network ingress: \
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

#[test]
fn a_container_of_a_service_that_publishes_is_on_the_ingress_network_as_long_as_it_serves() {
    let cluster = Cluster::new();
    let ports = publishing(&[(Some(80), PublishMode::Local)]).ports;
    cluster.serve(1, ServiceSpec { ports, ..web(&[1, 2]) }).unwrap();
    cluster.serve(2, ServiceSpec { name: name("inside"), ..web(&[1]) }).unwrap();
    let on_mesh = || {
        let all = block_on(cluster.manager.endpoints(network(0))).unwrap();
        let all = all.into_iter().filter(|endpoint| endpoint.spec.service.is_some());
        all.map(|endpoint| (endpoint.spec.container.to_string(), endpoint.id)).collect::<Vec<_>>()
    };
    let serving = |on, of, container| EndpointSpec { service: Some(service(of)), ..at(on, container) };
    let detach = |number| block_on(cluster.manager.detach(endpoint(number), NOW)).unwrap().unwrap();
    let replica = ("c1".to_owned(), mesh_replica(service(1), node(1), &name("c1")));
    cluster.attach(1, serving(1, 1, "c1")).unwrap();
    assert_eq!(on_mesh(), std::slice::from_ref(&replica));
    // Once, however often the call is repeated, and by however many networks it serves.
    cluster.attach(1, serving(1, 1, "c1")).unwrap();
    cluster.attach(2, serving(2, 1, "c1")).unwrap();
    cluster.attach(3, serving(1, 2, "c2")).unwrap();
    assert_eq!(on_mesh(), std::slice::from_ref(&replica));
    detach(1);
    assert_eq!(on_mesh(), [replica]);
    detach(2);
    assert_eq!(on_mesh(), []);
    // It goes along where the container is moved, and not by itself.
    cluster.attach(6, serving(1, 1, "c6")).unwrap();
    let [here, there] = [1, 2].map(|number| mesh_replica(service(1), node(number), &name("c6")));
    let alone = block_on(cluster.manager.relocate(here, node(2), NOW)).unwrap_err().to_string();
    assert!(alone.contains("move the endpoint by which it serves"), "{alone}");
    block_on(cluster.manager.relocate(endpoint(6), node(2), NOW)).unwrap();
    assert_eq!(on_mesh(), [("c6".to_owned(), there)]);
    detach(6);
    assert_eq!(on_mesh(), []);
    // One that somebody attached there stays until somebody detaches it.
    cluster.attach(4, serving(0, 1, "c4")).unwrap();
    cluster.attach(5, serving(1, 1, "c4")).unwrap();
    assert_eq!(on_mesh(), [("c4".to_owned(), endpoint(4))]);
    detach(5);
    assert_eq!(on_mesh(), [("c4".to_owned(), endpoint(4))]);
    detach(4);
    // What a manager that died left is taken away when the cluster is settled.
    let left = mesh_replica(service(1), node(1), &name("c6"));
    block_on(cluster.manager.attach(left, serving(0, 1, "c6"), NOW)).unwrap();
    block_on(cluster.manager.settle(NOW)).unwrap();
    assert_eq!(on_mesh(), []);
    detach(3);
}

#[test]
fn a_container_that_finds_no_room_on_the_ingress_network_is_not_attached_at_all() {
    let cluster = Cluster::new();
    block_on(cluster.manager.remove_network(&"ingress".into(), NOW)).unwrap();
    let subnets = vec![SubnetRequest::this("192.0.2.0/29".parse().unwrap())]; // the gateway's, a VIP, two nodes, and two more
    cluster.create(3, NetworkSpec { ingress: true, subnets, ..NetworkSpec::overlay(name("mesh")) }).unwrap();
    cluster.serve(1, publishing(&[(Some(80), PublishMode::Ingress)])).unwrap();
    let serving = |container: &str| EndpointSpec { service: Some(service(1)), ..at(1, container) };
    cluster.attach(1, serving("c1")).unwrap();
    cluster.attach(2, serving("c2")).unwrap();
    let refused = cluster.attach(3, serving("c3")).unwrap_err();
    assert!(refused.refusal().is_some() && !refused.is_in_doubt(), "{refused:?}");
    assert_eq!(block_on(cluster.manager.endpoint(endpoint(3))).unwrap(), None);
    for number in [1, 2] {
        block_on(cluster.manager.detach(endpoint(number), NOW)).unwrap();
    }
}
