//! Three managers of a cluster at work on one store at once, whatever store it is.

use std::collections::BTreeSet;
use std::sync::Arc;

use overlay_core::testing::block_on;
use overlay_core::{EndpointId, IpFamily, NetworkId, NodeId, Prefix, ServiceId, Store, UnixTime};
use overlay_gossip::Role;
use overlay_ipam::SubnetRequest;
use overlay_node::testing::{contradictions, leaks};
use overlay_node::{
    Control, ControlError, EndpointSpec, Feed, Manager, Network, NetworkSpec, NodeSpec, PublishedPort, ServiceSpec,
};

const NOW: UnixTime = UnixTime::from_millis(1_767_225_600_000);
/// Containers that each manager attaches.
const CONTAINERS: u8 = 4;
const NODES: u8 = 3;

fn root() -> Prefix {
    Prefix::new("cluster/").unwrap()
}

fn manager(store: &Arc<dyn Store>, number: u8) -> Manager {
    Manager::new(Arc::clone(store), &root(), node(number), [number; 32]).unwrap()
}

const fn network(number: u8) -> NetworkId {
    NetworkId::from_bytes([number; 16])
}

const fn node(number: u8) -> NodeId {
    NodeId::from_bytes([number; 16])
}

const fn endpoint(by: u8, number: u8) -> EndpointId {
    EndpointId::from_bytes([by, number, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1])
}

fn overlay(name: &str) -> NetworkSpec {
    NetworkSpec { attachable: true, ..NetworkSpec::overlay(name.parse().unwrap()) }
}

/// The same call until it is known what became of it: by its id, it is done once.
fn surely<T>(call: impl Fn() -> Result<T, ControlError>) -> Result<T, ControlError> {
    let known = |result: &Result<T, ControlError>| {
        !matches!(result, Err(ControlError::InDoubt(_) | ControlError::Contended { .. } | ControlError::Store(_)))
    };
    (0..50).map(|_| call()).find(known).unwrap_or_else(&call)
}

/// What one of them does: some things all three do alike, some are its own, some only one can have.
fn work(store: &Arc<dyn Store>, by: u8) -> bool {
    let manager = manager(store, by);
    surely(|| block_on(manager.found_cluster(network(0x99), NOW))).unwrap();
    for number in 1..=NODES {
        let spec = NodeSpec { name: format!("host-{number}").parse().unwrap(), role: Role::Manager };
        surely(|| block_on(manager.add_node(node(number), spec.clone(), NOW))).unwrap();
    }
    let front = surely(|| block_on(manager.network(&"front".into()))).unwrap();
    let own = overlay(&format!("own-{by}"));
    surely(|| block_on(manager.create_network(network(by), own.clone(), NOW))).unwrap();
    let first = surely(|| block_on(manager.create_network(network(0x20 + by), overlay("first"), NOW)));
    for number in 0..CONTAINERS {
        let name = format!("c-{by}-{number}").parse().unwrap();
        let spec = EndpointSpec::new(front.id, name, node(1 + number % NODES));
        surely(|| block_on(manager.attach(endpoint(by, number), spec.clone(), NOW))).unwrap();
    }
    let subnets = vec![SubnetRequest::any(IpFamily::V4), SubnetRequest::this("fd00:7::/64".parse().unwrap())];
    let grown = NetworkSpec { subnets, ..front.spec };
    surely(|| block_on(manager.change_network(&"front".into(), grown.clone(), NOW))).unwrap();
    let mut spec = ServiceSpec::new(format!("web-{by}").parse().unwrap(), [front.id]);
    spec.ports = vec![PublishedPort::new(overlay_core::Protocol::Tcp, overlay_core::Port::new(80).unwrap())];
    surely(|| block_on(manager.create_service(ServiceId::from_bytes([by; 16]), spec.clone(), NOW))).unwrap();
    surely(|| block_on(manager.relocate(endpoint(by, 0), node(3), NOW))).unwrap();
    surely(|| block_on(manager.detach(endpoint(by, 1), NOW))).unwrap();
    first.is_ok()
}

/// Those that every cluster has, ingress, one of each manager's own, the one that the first has, and front.
const NETWORKS: usize = 3 + 1 + 3 + 1 + 1;

/// Three managers, each with a store of its own that is the same as the others', do all that; nothing is had twice or lost.
pub(crate) fn three_managers_make_nothing_twice_and_lose_nothing(stores: &[Arc<dyn Store>; 3]) {
    block_on(manager(&stores[0], 1).create_network(network(0x10), overlay("front"), NOW)).unwrap();
    let firsts: usize = std::thread::scope(|scope| {
        let start = |(by, store)| scope.spawn(move || work(store, by));
        let all = [(1, &stores[0]), (2, &stores[1]), (3, &stores[2])].map(start);
        all.into_iter().map(|done| usize::from(done.join().unwrap())).sum()
    });
    assert_eq!(firsts, 1, "one of three has the name");
    let manager = manager(&stores[0], 4);
    block_on(async {
        let settled = manager.settle(NOW).await.unwrap();
        assert!(settled.troubles.is_empty(), "{:?}", settled.troubles);
        assert_eq!(contradictions(&manager).await.unwrap(), [""; 0]);
        assert_eq!(leaks(&manager).await.unwrap(), [""; 0]);
        let endpoints = manager.endpoints(network(0x10)).await.unwrap();
        assert_eq!(endpoints.len(), 3 * usize::from(CONTAINERS - 1));
        let addresses: Vec<_> = endpoints.iter().flat_map(|endpoint| &endpoint.addresses).collect();
        assert_eq!(addresses.iter().collect::<BTreeSet<_>>().len(), addresses.len());
        let told = Feed::new(Arc::clone(&stores[1]), &root()).unwrap().next().await.unwrap();
        let own = manager.endpoints(network(0x99)).await.unwrap();
        assert_eq!(own.len(), usize::from(NODES), "each node's own on the ingress network, where the services publish");
        let all = usize::from(NODES) + NETWORKS + 3 + endpoints.len() + own.len();
        assert_eq!(told.len(), all, "nodes, networks, services and endpoints");
    });
}

/// The catalogue that the three left, on a store that was opened anew: all of it is there, and can be removed.
pub(crate) fn what_they_made_is_there_and_goes_without_a_trace(store: &Arc<dyn Store>) {
    let manager = manager(store, 5);
    block_on(async {
        assert_eq!(manager.network(&"front".into()).await.unwrap().subnets.len(), 2);
        assert_eq!((manager.networks().await.unwrap().len(), manager.services().await.unwrap().len()), (NETWORKS, 3));
        for endpoint in manager.endpoints(network(0x10)).await.unwrap() {
            manager.detach(endpoint.id, NOW).await.unwrap();
        }
        for service in manager.services().await.unwrap() {
            manager.remove_service(&service.id.into(), NOW).await.unwrap();
        }
        let stays = |network: &Network| network.spec.is_predefined();
        for network in manager.networks().await.unwrap().iter().filter(|network| !stays(network)) {
            manager.remove_network(&network.id.into(), NOW).await.unwrap();
        }
        manager.settle(NOW).await.unwrap();
        assert_eq!(leaks(&manager).await.unwrap(), [""; 0]);
        assert!(manager.networks().await.unwrap().iter().all(stays));
    });
}
