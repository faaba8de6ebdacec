//! A client does as the manager that it is a client of.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use overlay_core::testing::{Dice, FlakyStore};
use overlay_core::{MemoryStore, Name};
use overlay_driver::control::{ControlClient, ControlServer};
use overlay_node::{Control, ControlError, EndpointSpec, NetworkSpec, PublishMode, Reference, ServiceSpec, Stay};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use crate::kit::{Directory, NOW, endpoint, manager, network, node, node_spec, overlay, service};

/// A call, of few objects.
#[derive(Debug, Clone)]
enum Op {
    CreateNetwork(u8, Box<NetworkSpec>),
    ChangeNetwork(Reference, Box<NetworkSpec>),
    RemoveNetwork(Reference),
    Network(Reference),
    Networks,
    CreateService(u8, Box<ServiceSpec>),
    RemoveService(Reference),
    Service(Reference),
    Services,
    Attach(u8, Box<EndpointSpec>),
    Relocate(u8, u8),
    Detach(u8),
    Endpoint(u8),
    Endpoints(u8),
    Report(u8, u8, Result<(), String>),
    AddNode(u8, String),
    RemoveNode(Reference),
    Node(Reference),
    Nodes,
}

fn number() -> impl Strategy<Value = u8> {
    0_u8..4
}

fn name(what: &'static str) -> impl Strategy<Value = Name> {
    number().prop_map(move |number| format!("{what}{number}").parse().unwrap())
}

fn reference(what: &'static str, byte: u8) -> impl Strategy<Value = Reference> {
    prop_oneof![
        4 => name(what).prop_map(|name| Reference::from(&name)),
        1 => number().prop_map(move |number| Reference::from(&*format!("{byte:02x}{number:02x}"))),
        1 => ".{0,12}".prop_map(|text| Reference::from(&*text)),
        1 => Just(Reference::from("ingress")),
        1 => Just(Reference::from("Bridge")),
    ]
}

fn labels() -> impl Strategy<Value = BTreeMap<String, String>> {
    btree_map(".{0,8}", ".{0,20}", 0..3)
}

fn network_spec() -> impl Strategy<Value = NetworkSpec> {
    let subnets = prop_oneof![
        4 => Just(serde_json::json!([])),
        1 => Just(serde_json::json!(["10.7.0.0/24"])),
        1 => Just(serde_json::json!(["10.7.0.0/16", "fd00:7::/64"])),
        1 => Just(serde_json::json!(["10.7.0.1/24"])),
        1 => Just(serde_json::json!(["127.0.0.0/8"])),
    ];
    let vni = proptest::option::weighted(0.2, 4096_u32..4099);
    (name("n"), subnets, any::<[bool; 3]>(), proptest::option::weighted(0.2, 68_u32..1600), vni, labels()).prop_map(
        |(name, subnets, [attachable, internal, ingress], mtu, vni, labels)| NetworkSpec {
            subnets: subnets.as_array().unwrap().iter().map(|net| this(net.as_str().unwrap())).collect(),
            attachable,
            internal,
            ingress,
            mtu: mtu.and_then(|mtu| overlay_core::Mtu::new(mtu).ok()),
            vni: vni.and_then(|vni| overlay_core::Vni::new(vni).ok()),
            labels,
            ..NetworkSpec::overlay(name)
        },
    )
}

fn this(net: &str) -> overlay_ipam::SubnetRequest {
    overlay_ipam::SubnetRequest::this(net.parse().unwrap())
}

fn service_spec() -> impl Strategy<Value = ServiceSpec> {
    let mode = prop_oneof![Just(PublishMode::Ingress), Just(PublishMode::Host)];
    let port = (proptest::option::of(8080_u16..8082), mode).prop_map(|(published, mode)| overlay_node::PublishedPort {
        published: published.and_then(|port| overlay_core::Port::new(port).ok()),
        mode,
        ..overlay_node::PublishedPort::new(overlay_core::Protocol::Tcp, overlay_core::Port::new(80).unwrap())
    });
    (name("s"), vec(number(), 0..3), vec(port, 0..3), labels()).prop_map(|(name, networks, ports, labels)| {
        ServiceSpec { ports, labels, ..ServiceSpec::new(name, networks.into_iter().map(network)) }
    })
}

fn endpoint_spec() -> impl Strategy<Value = EndpointSpec> {
    let address = proptest::option::weighted(0.4, (0_u8..2, 0_u8..6));
    let serves = proptest::option::weighted(0.3, number());
    (number(), name("c"), number(), address, serves, labels()).prop_map(|(on, container, at, address, of, labels)| {
        EndpointSpec {
            addresses: address.map(|(net, host)| [10, net * 7, 0, host].into()).into_iter().collect(),
            service: of.map(service),
            labels,
            ..EndpointSpec::new(network(on), container, node(at))
        }
    })
}

fn op() -> impl Strategy<Value = Op> {
    let result = prop_oneof![Just(Ok(())), ".{0,30}".prop_map(Err)];
    prop_oneof![
        4 => (number(), network_spec()).prop_map(|(id, spec)| Op::CreateNetwork(id, Box::new(spec))),
        2 => number().prop_map(|id| Op::CreateNetwork(id, Box::new(overlay(&format!("n{id}"))))),
        2 => (reference("n", 0x20), network_spec()).prop_map(|(of, spec)| Op::ChangeNetwork(of, Box::new(spec))),
        2 => reference("n", 0x20).prop_map(Op::RemoveNetwork),
        1 => reference("n", 0x20).prop_map(Op::Network),
        1 => Just(Op::Networks),
        4 => (number(), service_spec()).prop_map(|(id, spec)| Op::CreateService(id, Box::new(spec))),
        1 => reference("s", 0x30).prop_map(Op::RemoveService),
        1 => reference("s", 0x30).prop_map(Op::Service),
        1 => Just(Op::Services),
        6 => (number(), endpoint_spec()).prop_map(|(id, spec)| Op::Attach(id, Box::new(spec))),
        1 => (number(), number()).prop_map(|(id, to)| Op::Relocate(id, to)),
        1 => number().prop_map(Op::Detach),
        1 => number().prop_map(Op::Endpoint),
        1 => number().prop_map(Op::Endpoints),
        1 => (number(), number(), result).prop_map(|(id, at, result)| Op::Report(id, at, result)),
        4 => (number(), number()).prop_map(|(id, name)| Op::AddNode(id, format!("host{name}"))),
        1 => reference("host", 0x50).prop_map(Op::RemoveNode),
        1 => reference("host", 0x50).prop_map(Op::Node),
        1 => Just(Op::Nodes),
    ]
}

/// What somebody sees of a result: all of it, and of what is no refusal its kind and its text.
fn seen<T: Debug>(result: Result<T, ControlError>) -> Result<String, (String, String)> {
    result.map(|value| format!("{value:?}")).map_err(|error| {
        let kind = match &error {
            ControlError::Refused(refused) => format!("{refused:?}"),
            ControlError::Store(error) => format!("store, transient: {}", error.is_transient()),
            ControlError::InDoubt(_) => "in doubt".to_owned(),
            other => format!("{other:?}"),
        };
        (kind, error.to_string())
    })
}

async fn done(control: &dyn Control, op: Op) -> Result<String, (String, String)> {
    match op {
        Op::CreateNetwork(id, spec) => seen(control.create_network(network(id), *spec, NOW).await),
        Op::ChangeNetwork(of, spec) => seen(control.change_network(&of, *spec, NOW).await),
        Op::RemoveNetwork(of) => seen(control.remove_network(&of, NOW).await),
        Op::Network(of) => seen(control.network(&of).await),
        Op::Networks => seen(control.networks().await),
        Op::CreateService(id, spec) => seen(control.create_service(service(id), *spec, NOW).await),
        Op::RemoveService(of) => seen(control.remove_service(&of, NOW).await),
        Op::Service(of) => seen(control.service(&of).await),
        Op::Services => seen(control.services().await),
        Op::Attach(id, spec) => seen(control.attach(endpoint(id), *spec, NOW).await),
        Op::Relocate(id, to) => seen(control.relocate(endpoint(id), node(to), NOW).await),
        Op::Detach(id) => seen(control.detach(endpoint(id), NOW).await),
        Op::Endpoint(id) => seen(control.endpoint(endpoint(id)).await),
        Op::Endpoints(of) => seen(control.endpoints(network(of)).await),
        Op::Report(id, at, result) => {
            seen(control.report(endpoint(id), Stay { node: node(at), moves: 0 }, result).await)
        }
        Op::AddNode(id, name) => seen(control.add_node(node(id), node_spec(&name), NOW).await),
        Op::RemoveNode(of) => seen(control.remove_node(&of, NOW).await),
        Op::Node(of) => seen(control.node(&of).await),
        Op::Nodes => seen(control.nodes().await),
    }
}

/// One of two stores that do and fail alike.
fn store(seed: [u8; 32], rate: usize) -> FlakyStore<MemoryStore> {
    FlakyStore::new(MemoryStore::default(), Dice::new(seed), rate)
}

/// How often calls were done, refused, and in doubt.
#[derive(Debug, Default)]
struct Met {
    done: AtomicUsize,
    refused: AtomicUsize,
    in_doubt: AtomicUsize,
}

impl Met {
    fn note(&self, result: &Result<String, (String, String)>) {
        let count = match result {
            Ok(_) => &self.done,
            Err((kind, _)) if kind == "in doubt" => &self.in_doubt,
            Err(_) => &self.refused,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

async fn same(ops: Vec<Op>, seed: [u8; 32], rate: usize, met: &Met) -> Result<(), TestCaseError> {
    let here = manager(Arc::new(store(seed, rate)));
    let there = manager(Arc::new(store(seed, rate)));
    let directory = Directory::new();
    let server = ControlServer::new(Arc::new(there)).with_clock(|| NOW);
    let serving = server.bind(directory.join("control.sock")).await.unwrap();
    let client = ControlClient::new(serving.path());
    for op in ops {
        let expected = done(&here, op.clone()).await;
        met.note(&expected);
        prop_assert_eq!(done(&client, op.clone()).await, expected, "{:?}", op);
    }
    serving.stop().await;
    Ok(())
}

#[test]
fn whatever_is_asked_a_client_gets_what_the_manager_gives() {
    let met = Met::default();
    let rate = prop_oneof![Just(1_000_000_usize), Just(12)];
    let run = (vec(op(), 1..50), any::<[u8; 32]>(), rate);
    let mut runner = TestRunner::new(ProptestConfig { cases: 64, ..ProptestConfig::default() });
    let held = runner.run(&run, |(ops, seed, rate)| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(same(ops, seed, rate, &met))
    });
    held.unwrap();
    let Met { done, refused, in_doubt } = met;
    assert!([done, refused, in_doubt].into_iter().all(|count| count.into_inner() > 10), "too little is tried");
}
