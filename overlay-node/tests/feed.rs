//! What agents are told of a catalogue.

#![allow(clippy::unwrap_used, reason = "tests, whose helpers clippy does not take for such")]

mod cluster;

use std::collections::BTreeMap;
use std::sync::Arc;

use cluster::{NOW, endpoint, manager, network, node, node_spec, root, service};
use overlay_core::testing::{Dice, FlakyStore, block_on};
use overlay_core::{Commit, EndpointId, Key, MemoryStore, NetworkId, NodeId, ServiceId};
use overlay_node::{
    CatalogueChange, Control, Endpoint, EndpointSpec, Feed, Manager, Network, NetworkSpec, Node, Service, ServiceSpec,
    Stay,
};

/// What somebody knows who heeds what is told.
#[derive(Debug, Default, PartialEq)]
struct Mirror {
    nodes: BTreeMap<NodeId, Arc<Node>>,
    networks: BTreeMap<NetworkId, Arc<Network>>,
    services: BTreeMap<ServiceId, Arc<Service>>,
    endpoints: BTreeMap<EndpointId, Arc<Endpoint>>,
}

impl Mirror {
    /// Heeds a change, which must be one.
    fn heed(&mut self, change: CatalogueChange) {
        match change {
            CatalogueChange::Node(of) => assert_ne!(self.nodes.insert(of.id, Arc::clone(&of)), Some(of)),
            CatalogueChange::NodeGone(id) => {
                assert!(self.nodes.remove(&id).is_some());
                assert!(self.endpoints.values().all(|of| of.spec.node != id), "its endpoints go before it");
            }
            CatalogueChange::Network(of) => assert_ne!(self.networks.insert(of.id, Arc::clone(&of)), Some(of)),
            CatalogueChange::Service(of) => assert_ne!(self.services.insert(of.id, Arc::clone(&of)), Some(of)),
            CatalogueChange::Endpoint(of) => {
                assert!(self.networks.contains_key(&of.spec.network), "its network is told before it");
                assert_ne!(self.endpoints.insert(of.id, Arc::clone(&of)), Some(of));
            }
            CatalogueChange::NetworkGone(id) => {
                assert!(self.networks.remove(&id).is_some(), "what was never told is gone");
                assert!(self.endpoints.values().all(|of| of.spec.network != id), "its endpoints go before it");
            }
            CatalogueChange::ServiceGone(id) => assert!(self.services.remove(&id).is_some()),
            CatalogueChange::EndpointGone(id) => assert!(self.endpoints.remove(&id).is_some()),
        }
    }

    /// What there is.
    fn of(manager: &Manager) -> Self {
        let networks = block_on(manager.networks()).unwrap();
        let endpoints = networks.iter().flat_map(|of| block_on(manager.endpoints(of.id)).unwrap());
        let endpoints = endpoints.map(|of| (of.id, Arc::new(of))).collect();
        let services = block_on(manager.services()).unwrap().into_iter().map(|of| (of.id, Arc::new(of))).collect();
        let nodes = block_on(manager.nodes()).unwrap().into_iter().map(|of| (of.id, Arc::new(of))).collect();
        Self { nodes, networks: networks.into_iter().map(|of| (of.id, Arc::new(of))).collect(), services, endpoints }
    }
}

fn one_call(manager: &Manager, dice: &mut Dice) {
    let number = dice.below(3) as u8;
    let name = |what: &str| format!("{what}{number}").parse().unwrap();
    block_on(async {
        match dice.below(7) {
            0 | 1 => {
                let spec = NetworkSpec { attachable: true, ..NetworkSpec::overlay(name("n")) };
                drop(manager.create_network(network(dice.below(100) as u8), spec, NOW).await);
            }
            2 => drop(manager.remove_network(&format!("n{number}").as_str().into(), NOW).await),
            3 => {
                let networks = manager.networks().await.unwrap();
                let spec = ServiceSpec::new(name("s"), networks.first().map(|of| of.id));
                drop(manager.create_service(service(number), spec, NOW).await);
            }
            4 => drop(manager.remove_service(&service(number).into(), NOW).await),
            5 => {
                if let Some(of) = manager.networks().await.unwrap().last() {
                    let spec = EndpointSpec::new(of.id, name("c"), node(0));
                    drop(manager.attach(endpoint(number), spec, NOW).await);
                    drop(manager.report(endpoint(number), Stay { node: node(0), moves: 0 }, Ok(())).await);
                }
            }
            _ => drop(manager.detach(endpoint(number), NOW).await),
        }
    });
}

#[test]
fn who_heeds_all_that_is_told_knows_what_there_is_whatever_was_missed() {
    let mut resets = 0;
    for seed in 0..60 {
        let mut dice = Dice::new([seed; 32]);
        let memory = MemoryStore::with_history(20); // forgets soon
        let flaky = FlakyStore::new(memory.clone(), Dice::new(dice.seed()), 6);
        let manager = manager(Arc::new(memory.clone()), 1);
        block_on(manager.add_node(node(0), node_spec("a"), NOW)).unwrap();
        let mut feed = Feed::new(Arc::new(flaky.clone()), &root()).unwrap();
        let mut beside = feed.beside();
        let (mut mirror, mut other) = (Mirror::default(), Mirror::default());
        for _ in 0..60 {
            (0..dice.below(6)).for_each(|_| one_call(&manager, &mut dice));
            if dice.one_in(8) {
                memory.compact();
            }
            if dice.one_in(2) {
                listen(&mut feed, &mut mirror, &manager);
            }
            if dice.one_in(3) {
                listen(&mut beside, &mut other, &manager);
            }
        }
        listen(&mut feed, &mut mirror, &manager);
        listen(&mut beside, &mut other, &manager);
        resets += flaky.injected().resets;
    }
    assert!(resets > 0);
}

/// Until all is known.
fn listen(feed: &mut Feed, mirror: &mut Mirror, manager: &Manager) {
    let there = Mirror::of(manager);
    while *mirror != there {
        let Ok(told) = block_on(feed.next()) else { continue };
        assert!(!told.is_empty());
        told.into_iter().for_each(|change| mirror.heed(change));
    }
}

#[test]
fn a_record_that_cannot_be_read_is_named_and_what_was_told_of_it_stays() {
    let store = MemoryStore::default();
    let manager = manager(Arc::new(store.clone()), 1);
    let spec = NetworkSpec::overlay("front".parse().unwrap());
    let made = block_on(manager.create_network(network(1), spec.clone(), NOW)).unwrap();
    let mut feed = Feed::new(Arc::new(store.clone()), &root()).unwrap();
    assert_eq!(block_on(feed.next()).unwrap(), [CatalogueChange::Network(Arc::new(made))]);

    let key = Key::new(format!("cluster/catalogue/network/{}", network(1))).unwrap();
    store.commit_now(Commit::new().put(key.clone(), r#"{"format":2,"object":{}}"#)).unwrap();
    let other = NetworkSpec { name: "other".parse().unwrap(), ..spec };
    block_on(manager.create_network(network(2), other, NOW)).unwrap();
    let told = block_on(feed.next()).unwrap();
    assert!(matches!(&told[..], [CatalogueChange::Network(of)] if of.id == network(2)), "{told:?}");
    let flaw = "it is of format 2; this release knows 1".to_owned();
    assert_eq!(feed.unreadable(), &BTreeMap::from([(key.clone(), flaw)]));
    drop(block_on(feed.next()).unwrap());

    store.commit_now(Commit::new().delete(key)).unwrap();
    assert_eq!(block_on(feed.next()).unwrap(), [CatalogueChange::NetworkGone(network(1))]);
    assert!(feed.unreadable().is_empty());
}

/// A record that no manager writes: an endpoint that is on another network already.
fn forge(store: &MemoryStore, manager: &Manager, on: NetworkId) -> Key {
    let mut endpoint = block_on(manager.endpoint(endpoint(1))).unwrap().unwrap();
    endpoint.spec.network = on;
    let key = Key::new(format!("cluster/catalogue/endpoint/{on}/{}", endpoint.id)).unwrap();
    let record = serde_json::json!({ "format": 1, "object": endpoint }).to_string();
    store.commit_now(Commit::new().put(key.clone(), record)).unwrap();
    key
}

#[test]
fn an_endpoint_that_somebody_wrote_down_on_two_networks_is_on_the_first_whoever_came_first() {
    let store = MemoryStore::default();
    let manager = manager(Arc::new(store.clone()), 1);
    block_on(async {
        manager.add_node(node(0), node_spec("a"), NOW).await.unwrap();
        for number in 1..=3 {
            let spec = NetworkSpec::overlay(format!("n{number}").parse().unwrap());
            let spec = NetworkSpec { attachable: true, ..spec };
            manager.create_network(network(number), spec, NOW).await.unwrap();
        }
        let spec = EndpointSpec::new(network(2), "c".parse().unwrap(), node(0));
        manager.attach(endpoint(1), spec, NOW).await.unwrap();
    });
    let mut feed = Feed::new(Arc::new(store.clone()), &root()).unwrap();
    let next = |feed: &mut Feed| loop {
        let told = block_on(feed.advance()).unwrap();
        let networks = told.into_iter().filter_map(|change| match change {
            CatalogueChange::Endpoint(of) => Some(Some(of.spec.network)),
            CatalogueChange::EndpointGone(_) => Some(None),
            _ => None,
        });
        let networks: Vec<_> = networks.collect();
        if !networks.is_empty() {
            return networks;
        }
    };
    let is_on = |number| vec![Some(network(number))];
    assert_eq!(next(&mut feed), is_on(2));
    let third = forge(&store, &manager, network(3));
    assert!(block_on(feed.advance()).unwrap().is_empty(), "it is on the second");
    let text = format!("endpoint {} is on network {}", endpoint(1), network(2));
    assert_eq!(feed.unreadable(), &BTreeMap::from([(third.clone(), text)]));
    let first = forge(&store, &manager, network(1));
    assert_eq!(next(&mut feed), is_on(1));
    let mut late = Feed::new(Arc::new(store.clone()), &root()).unwrap();
    assert_eq!(next(&mut late), is_on(1), "who comes later is told the same");
    for (gone, left) in
        [(first, 2), (Key::new(format!("cluster/catalogue/endpoint/{}/{}", network(2), endpoint(1))).unwrap(), 3)]
    {
        store.commit_now(Commit::new().delete(gone)).unwrap();
        for feed in [&mut feed, &mut late] {
            assert_eq!(next(feed), [None]);
            assert!(feed.hears(), "who passes on only what a feed tells that hears of all, passes this on");
            assert_eq!(next(feed), is_on(left));
            assert!(feed.hears());
        }
    }
    store.commit_now(Commit::new().delete(third)).unwrap();
    assert_eq!(next(&mut feed), [None]);
    assert!(feed.unreadable().is_empty());
}

#[test]
fn a_root_that_is_too_long_is_refused() {
    let root = overlay_core::Prefix::new("x".repeat(201)).unwrap();
    let error = Feed::new(Arc::new(MemoryStore::default()), &root).unwrap_err();
    assert_eq!(error.to_string(), "the root of a catalogue's keys has at most 200 bytes, not 201");
}
