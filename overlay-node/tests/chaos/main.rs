//! Managers on a store that fails, at once and one after the other's death: nothing is had twice, nothing is lost, nobody was told
//! what is not so.

#![allow(clippy::unwrap_used, reason = "tests, whose helpers clippy does not take for such")]

#[path = "../cluster/mod.rs"]
mod cluster;
mod deaths;
mod races;
mod together;

use std::collections::BTreeSet;
use std::sync::Arc;

use cluster::{NOW, endpoint, manager, network, node, service, tcp};
use overlay_core::testing::{Dice, block_on};
use overlay_core::{MemoryStore, UnixTime};
use overlay_node::testing::{contradictions, leaks};
use overlay_node::{Control, EndpointSpec, Manager, NetworkSpec, PublishMode, ServiceSpec};

pub(crate) fn seeded(seed: u32) -> Dice {
    Dice::new(std::array::from_fn(|at| seed.to_be_bytes()[at % 4]))
}

/// Until nothing is half-done any more.
pub(crate) async fn settle(manager: &Manager, now: UnixTime) {
    for _ in 0..10 {
        let settled = manager.settle(now).await.unwrap();
        if settled.allocated + settled.failed + settled.removed + settled.reclaimed == 0 && settled.troubles.is_empty()
        {
            return;
        }
        if settled.allocated + settled.removed + settled.reclaimed == 0 && settled.troubles.is_empty() {
            return; // what has failed still does
        }
    }
    panic!("{:?}", manager.settle(now).await);
}

pub(crate) async fn sound(manager: &Manager) {
    assert_eq!(contradictions(manager).await.unwrap(), [""; 0]);
}

pub(crate) async fn ids(manager: &Manager) -> BTreeSet<String> {
    let mut ids: BTreeSet<String> = manager.services().await.unwrap().iter().map(|of| of.id.to_string()).collect();
    for network in manager.networks().await.unwrap() {
        ids.insert(network.id.to_string());
        ids.extend(manager.endpoints(network.id).await.unwrap().iter().map(|of| of.id.to_string()));
    }
    ids
}

pub(crate) async fn remove_all(manager: &Manager) {
    for network in manager.networks().await.unwrap() {
        for endpoint in manager.endpoints(network.id).await.unwrap() {
            manager.detach(endpoint.id, NOW).await.unwrap();
        }
    }
    for service in manager.services().await.unwrap() {
        manager.remove_service(&service.id.into(), NOW).await.unwrap();
    }
    let networks = manager.networks().await.unwrap();
    for network in networks.iter().filter(|network| !network.spec.is_predefined()) {
        manager.remove_network(&network.id.into(), NOW).await.unwrap();
    }
    for node in manager.nodes().await.unwrap() {
        manager.remove_node(&node.id.into(), NOW).await.unwrap();
    }
}

pub(crate) fn front(name: &str) -> NetworkSpec {
    NetworkSpec { attachable: true, ..NetworkSpec::overlay(name.parse().unwrap()) }
}

/// A cluster with an ingress network, two others, a service that nobody serves, and two containers on one network.
pub(crate) fn prepared(memory: &MemoryStore) {
    let manager = manager(Arc::new(memory.clone()), 1);
    block_on(async {
        manager.found_cluster(network(0), NOW).await.unwrap();
        manager.create_network(network(1), front("front"), NOW).await.unwrap();
        manager.create_network(network(2), front("unused"), NOW).await.unwrap();
        manager.add_node(node(1), cluster::node_spec("a"), NOW).await.unwrap();
        manager.add_node(node(2), cluster::node_spec("b"), NOW).await.unwrap();
        let mut idle = ServiceSpec::new("idle".parse().unwrap(), [network(1)]);
        idle.ports = vec![tcp(Some(81), 80, PublishMode::Ingress)];
        manager.create_service(service(1), idle, NOW).await.unwrap();
        for (number, name) in [(1, "one"), (2, "two")] {
            let spec = EndpointSpec::new(network(1), name.parse().unwrap(), node(1));
            manager.attach(endpoint(number), spec, NOW).await.unwrap();
        }
    });
}

pub(crate) async fn settled_and_tight(manager: &Manager, context: &str) {
    settle(manager, NOW).await;
    sound(manager).await;
    assert_eq!(leaks(manager).await.unwrap(), [""; 0], "{context}");
}
