//! Bodies for overlay-node: what nodes say of themselves and of their endpoints.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;

use overlay_core::{EndpointId, Mac, Mtu, NetworkId, NodeId, NsId, NsKey, Port, PortRange, State, UnixTime, Vni};
use overlay_dns::Health;
use overlay_ipam::SubnetRequest;
use overlay_node::{
    Condition, Endpoint, EndpointSpec, Knowledge, LocalEndpoint, Network, NetworkSpec, NodeFacts, Place, PublishedPort,
    RemoteEndpoint, Section, Settings, Standing, Underlay, derive,
};

use crate::Body;

pub(crate) const TARGETS: &[(&str, Body)] =
    &[("node_facts", facts), ("node_derive", derived), ("node_published", published)];

/// No bytes make a reader panic, and what is read is written as the same again.
fn facts(bytes: &[u8]) {
    if let Ok(underlay) = Underlay::parse(bytes) {
        assert_eq!(underlay.encode(), bytes);
    }
    if let Ok(endpoint) = RemoteEndpoint::parse(node(1), bytes) {
        assert_eq!(endpoint.encode().as_deref(), Ok(bytes));
    }
}

/// A text that says what a service publishes: it says at least one port and at most a thousand, or what is wrong with it.
fn published(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    match PublishedPort::read(text) {
        Ok(ports) => assert!((1..=1_000).contains(&ports.len())),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// Facts of two nodes, each after its length, node and endpoint, in three bytes: whatever they say, what is derived makes sense,
/// and the endpoint here has what is its own.
fn derived(mut bytes: &[u8]) {
    let Some(mut knowledge) = knowledge() else { return };
    let alone = derive(&knowledge);
    let mut remote = BTreeMap::new();
    while let Some(([length, of, endpoint], rest)) = bytes.split_first_chunk() {
        let (fact, rest) = rest.split_at(rest.len().min((*length).into()));
        bytes = rest;
        if let Ok(fact) = RemoteEndpoint::parse(node(1 + of % 3), fact) {
            remote.insert(EndpointId::from_bytes([*endpoint; 16]), Arc::new(fact));
        }
    }
    for section in knowledge.networks.values_mut() {
        Arc::make_mut(section).remote = remote.clone();
    }
    let desired = derive(&knowledge);
    assert!(desired.places.keys().eq(alone.places.keys()));
    for (place, state) in &desired.places {
        assert_eq!((state.vxlan.check(), state.firewall.check()), (Ok(()), Ok(())));
        let before = &alone.places[place];
        assert_eq!((&state.firewall, &state.routes), (&before.firewall, &before.routes));
    }
    let segments = |desired: &overlay_node::Desired| desired.places[&Place::Network(NETWORK)].vxlan.segments.clone();
    for (with, without) in segments(&desired).values().zip(segments(&alone).values()) {
        assert_eq!((&with.ports, &with.gateways), (&without.ports, &without.gateways));
        assert!(!with.peers.contains_key(&mac()));
        let ours =
            |address: &IpAddr| *address == IpAddr::from([10, 9, 0, 2]) || *address == IpAddr::from([10, 9, 0, 1]);
        assert!(!with.peers.values().any(|peer| peer.addresses.iter().any(ours)));
    }
}

const NETWORK: NetworkId = NetworkId::from_bytes([9; 16]);

const fn node(number: u8) -> NodeId {
    NodeId::from_bytes([number; 16])
}

fn mac() -> Mac {
    Mac::from_ipv4([10, 9, 0, 2].into())
}

/// Of three nodes, the first knows of a network with an endpoint of its own.
fn knowledge() -> Option<Knowledge> {
    let facts = |number| {
        let vtep = IpAddr::from([192, 0, 2, number]);
        let facts = NodeFacts { address: (vtep, 7946).into(), vtep, mtu: Mtu::ETHERNET, standing: Standing::Alive };
        (node(number), facts)
    };
    let settings = Settings {
        vxlan_port: Port::VXLAN,
        encrypted_port: Port::VXLAN_ENCRYPTED,
        own_ports: PortRange::VXLAN_ENCRYPTED,
        lanes: Default::default(),
        limits: overlay_crypto::Limits::of(overlay_crypto::RotationConfig::default().usage),
        gossip_port: Port::GOSSIP,
        stranger_rate: NonZeroU32::MIN,
        stranger_burst: 1,
        resolver_port: Port::VXLAN,
        suffixes: Vec::new(),
        gateway: None,
        host: None,
        kept: overlay_node::usually_kept(),
    };
    Some(Knowledge {
        records: Arc::default(),
        rotated: None,
        me: node(1),
        nodes: Arc::new([1, 2, 3].map(facts).into()),
        networks: [(NETWORK, Arc::new(section()?))].into(),
        gateway_ports: Arc::default(),
        protection: Default::default(),
        settings: Arc::new(settings),
    })
}

fn section() -> Option<Section> {
    let nets: Vec<ipnet::IpNet> = ["10.9.0.0/24", "fd00:9::/64"].iter().filter_map(|net| net.parse().ok()).collect();
    let network = Network {
        id: NETWORK,
        spec: NetworkSpec::overlay("front".parse().ok()?),
        subnets: nets.iter().filter_map(|net| SubnetRequest::this(*net).place(*net).ok()).collect(),
        vni: Vni::new(4096).ok(),
        port: None,
        created: UnixTime::from_millis(0),
        condition: Condition::Allocated,
    };
    let id = EndpointId::from_bytes([2; 16]);
    let endpoint = Endpoint {
        id,
        spec: EndpointSpec::new(NETWORK, "web".parse().ok()?, node(1)),
        addresses: ["10.9.0.2/24", "fd00:9::2/64"].iter().filter_map(|net| net.parse().ok()).collect(),
        mac: mac(),
        moves: 0,
        created: UnixTime::from_millis(0),
        condition: Condition::Allocated,
    };
    let namespace = Some(NsKey { name: "web".parse().ok()?, id: NsId { device: 4, inode: 2 } });
    let interface = "eth0".parse().ok()?;
    let local = LocalEndpoint { endpoint: Arc::new(endpoint), namespace, interface, health: Health::Healthy };
    Some(Section {
        network: Arc::new(network),
        local: [(id, Arc::new(local))].into(),
        remote: BTreeMap::new(),
        services: BTreeMap::new(),
    })
}
