//! Who is led to an endpoint that is not in effect yet.

use std::collections::BTreeMap;
use std::sync::Arc;

use overlay_core::{EndpointId, NsId, NsKey};
use overlay_lb::Condition as Taking;
use overlay_node::{CatalogueChange, Condition, Endpoint, Input, Place};

use crate::town::{Node, Town, agent, container, eth0, id, network};
use crate::watch::{put, replica, web};

/// Two nodes: on the second a container that asks, on the first those that serve.
fn town(seed: u64) -> Town {
    let mut town = Town::new(seed, 2);
    town.publish(&CatalogueChange::Service(Arc::new(web())));
    town.assign(2, 1, 0);
    town.plug(2, 1);
    town
}

fn serve(town: &mut Town, number: u8) {
    put(town, &replica(number, 0, 0, 1));
    town.plug(number, 0);
    town.run(2);
}

/// What a container on a node leads to the replicas, and who is named.
fn led(town: &mut Town, node: usize, from: u8) -> (BTreeMap<EndpointId, Taking>, usize) {
    let state = town.desired(node).places[&Place::Container(container(from))].clone();
    let taking = state.lb.services.values().flat_map(|service| &service.replicas);
    let named = state.view.addresses(&"tasks.web".parse().unwrap()).unwrap();
    (taking.map(|(id, replica)| (*id, replica.condition)).collect(), named.len() / 2)
}

#[test]
fn nobody_is_led_to_one_that_is_not_in_effect_while_another_serves_though_all_know_where_it_is() {
    let mut town = town(61);
    serve(&mut town, 3);
    town.live(1);
    serve(&mut town, 4);
    assert_eq!(town.peer(1, 4), Some(0), "what it sends is answered");
    let waits = || ([(id(3), Taking::Active), (id(4), Taking::Draining)].into(), 1);
    for (node, from) in [(1, 2), (0, 3)] {
        assert_eq!(led(&mut town, node, from), waits());
    }
    town.tell(0, Input::Applied { place: Place::Container(container(4)), state: None, result: Err("busy".into()) });
    town.run(2);
    assert_eq!(led(&mut town, 1, 2), waits(), "it could not be plugged in");
    town.live(2);
    for (node, from) in [(1, 2), (0, 3)] {
        assert_eq!(led(&mut town, node, from), ([3, 4].map(|it| (id(it), Taking::Active)).into(), 2));
    }
}

#[test]
fn where_nobody_else_serves_one_that_is_not_in_effect_is_better_than_none() {
    let mut town = town(62);
    serve(&mut town, 3);
    assert_eq!(led(&mut town, 1, 2), ([(id(3), Taking::Active)].into(), 1));
}

#[test]
fn one_that_was_in_effect_stays_so_when_a_place_fails_or_its_node_starts_again() {
    let mut town = town(63);
    serve(&mut town, 3);
    serve(&mut town, 4);
    town.live(2);
    let both = || ([3, 4].map(|it| (id(it), Taking::Active)).into(), 2);
    town.tell(0, Input::Applied { place: Place::Container(container(4)), state: None, result: Err("busy".into()) });
    town.run(2);
    assert_eq!(led(&mut town, 1, 2), both());

    town.net.crash(0);
    town.net.restart(0, |address, seed, now| agent(0, 2, address, seed, now));
    town.tell(0, Input::Join(vec![overlay_gossip::testing::Net::<Node>::address(1)]));
    town.tell(0, Input::Catalogue(CatalogueChange::Network(Arc::new(network()))));
    town.tell(0, Input::Catalogue(CatalogueChange::Service(Arc::new(web()))));
    for number in [3, 4] {
        let ready = Endpoint { condition: Condition::Ready, ..replica(number, 0, 0, 1) };
        town.plug(number, 0);
        put(&mut town, &ready);
    }
    for _ in 0..20 {
        town.net.run_for(std::time::Duration::from_millis(100));
        assert_eq!(led(&mut town, 1, 2), both(), "what the catalogue says of the start before counts");
    }
}

#[test]
fn one_whose_container_is_another_now_waits_again() {
    let mut town = town(64);
    serve(&mut town, 3);
    serve(&mut town, 4);
    town.live(2);
    let namespace = Some(NsKey { name: container(4), id: NsId { device: 4, inode: 99 } });
    town.tell(0, Input::Plug { endpoint: id(4), namespace, interface: eth0() });
    town.run(2);
    assert_eq!(led(&mut town, 1, 2), ([(id(3), Taking::Active), (id(4), Taking::Draining)].into(), 1));
    town.live(2);
    assert_eq!(led(&mut town, 1, 2), ([3, 4].map(|it| (id(it), Taking::Active)).into(), 2));
}
