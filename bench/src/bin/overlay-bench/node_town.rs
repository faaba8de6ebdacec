//! What one node knows of a town: 10 networks, 100 nodes, 1,000 services, 10,000 endpoints of both families, 100 of them here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::Arc;

use ipnet::IpNet;
use overlay_core::{
    EndpointId, Mac, Mtu, Name, NetworkId, NodeId, NsId, NsKey, Port, PortRange, ServiceId, UnixTime, Vni,
};
use overlay_dns::Health;
use overlay_ipam::SubnetRequest;
use overlay_node::{
    Condition, Endpoint, EndpointSpec, Knowledge, LocalEndpoint, Network, NetworkSpec, NodeFacts, RemoteEndpoint,
    Section, Service, ServiceSpec, Settings, Standing,
};

use crate::firewall::{Outcome, must};

pub(crate) const NETWORKS: u16 = 10;
pub(crate) const NODES: u16 = 100;
/// Of each network.
pub(crate) const SERVICES: u16 = 100;
/// Of each network, as many on each node.
pub(crate) const ENDPOINTS: u16 = 1_000;

/// What the first node knows.
pub(crate) fn knowledge() -> Knowledge {
    let facts = |node| {
        let vtep = vtep(node);
        (node_id(node), NodeFacts { address: (vtep, 7946).into(), vtep, mtu: Mtu::ETHERNET, standing: Standing::Alive })
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
    Knowledge {
        records: Arc::default(),
        rotated: None,
        me: node_id(0),
        nodes: Arc::new((0..NODES).map(facts).collect()),
        networks: (0..NETWORKS).map(|number| (network_id(number), Arc::new(must(section(number))))).collect(),
        gateway_ports: Arc::default(),
        protection: Default::default(),
        settings: Arc::new(settings),
    }
}

fn section(number: u16) -> Outcome<Section> {
    let mut section = Section {
        network: Arc::new(network(number)?),
        local: Default::default(),
        remote: Default::default(),
        services: (0..SERVICES)
            .map(|of| Ok((service_id(number, of), Arc::new(service(number, of)?))))
            .collect::<Outcome<_>>()?,
    };
    for of in 0..ENDPOINTS {
        let endpoint = endpoint(number, of)?;
        if endpoint.spec.node == node_id(0) {
            section.local.insert(endpoint.id, Arc::new(local(endpoint, number, of)?));
        } else {
            section.remote.insert(endpoint.id, Arc::new(remote(&endpoint)));
        }
    }
    Ok(section)
}

pub(crate) fn network(number: u16) -> Outcome<Network> {
    let nets = [IpNet::new(v4(number, 0).into(), 16)?, IpNet::new(v6(number, 0).into(), 64)?];
    let subnets = nets.iter().map(|net| Ok(SubnetRequest::this(*net).place(*net)?)).collect::<Outcome<_>>()?;
    Ok(Network {
        id: network_id(number),
        spec: NetworkSpec::overlay(Name::new(&format!("network-{number}"))?),
        subnets,
        vni: Some(Vni::new(4096 + u32::from(number))?),
        port: None,
        created: UnixTime::from_millis(0),
        condition: Condition::Ready,
    })
}

pub(crate) fn service(network: u16, number: u16) -> Outcome<Service> {
    let vips = [v4(network, 0x8000 | number).into(), v6(network, 0x8000 | number).into()];
    Ok(Service {
        id: service_id(network, number),
        spec: ServiceSpec::new(Name::new(&format!("service-{number}"))?, [network_id(network)]),
        vips: [(network_id(network), vips.into())].into(),
        ports: Vec::new(),
        created: UnixTime::from_millis(0),
        condition: Condition::Ready,
    })
}

/// A task of a service, on one of the nodes in turn.
pub(crate) fn endpoint(network: u16, number: u16) -> Outcome<Endpoint> {
    let of = number % SERVICES;
    let spec = EndpointSpec {
        service: Some(service_id(network, of)),
        names: vec![format!("service-{of}.{}.7x{network}k{number}", number / SERVICES).parse()?],
        ..EndpointSpec::new(network_id(network), container(network, number)?, node_id(number % NODES))
    };
    let host = number + 2;
    Ok(Endpoint {
        id: endpoint_id(network, number),
        spec,
        addresses: [IpNet::new(v4(network, host).into(), 16)?, IpNet::new(v6(network, host).into(), 64)?].into(),
        mac: Mac::from_ipv4(v4(network, host)),
        moves: 0,
        created: UnixTime::from_millis(0),
        condition: Condition::Ready,
    })
}

pub(crate) fn plug(network: u16, number: u16) -> Outcome<NsKey> {
    let inode = u64::from(network) << 16 | u64::from(number);
    Ok(NsKey { name: container(network, number)?, id: NsId { device: 4, inode } })
}

fn local(endpoint: Endpoint, network: u16, number: u16) -> Outcome<LocalEndpoint> {
    let namespace = Some(plug(network, number)?);
    Ok(LocalEndpoint { endpoint: Arc::new(endpoint), namespace, interface: "eth0".parse()?, health: Health::Healthy })
}

pub(crate) fn remote(endpoint: &Endpoint) -> RemoteEndpoint {
    RemoteEndpoint {
        node: endpoint.spec.node,
        container: endpoint.spec.container.clone(),
        mac: endpoint.mac,
        addresses: endpoint.addresses.iter().map(IpNet::addr).collect(),
        names: endpoint.spec.names.clone(),
        service: endpoint.spec.service,
        labels: endpoint.spec.labels.clone(),
        health: Health::Healthy,
        moves: endpoint.moves,
        weight: endpoint.spec.weight,
    }
}

fn container(network: u16, number: u16) -> Outcome<Name> {
    Ok(Name::new(&format!("container-{network}-{number}"))?)
}

pub(crate) fn vtep(node: u16) -> IpAddr {
    Ipv4Addr::from(0xc000_0201 + u32::from(node)).into()
}

pub(crate) fn node_id(node: u16) -> NodeId {
    NodeId::from_bytes(spread(1, 0, node))
}

pub(crate) fn network_id(number: u16) -> NetworkId {
    NetworkId::from_bytes(spread(2, 0, number))
}

fn service_id(network: u16, number: u16) -> ServiceId {
    ServiceId::from_bytes(spread(3, network, number))
}

pub(crate) fn endpoint_id(network: u16, number: u16) -> EndpointId {
    EndpointId::from_bytes(spread(4, network, number))
}

/// All bits of an id, as drawn ids are.
fn spread(kind: u16, high: u16, low: u16) -> [u8; 16] {
    let number = u128::from(kind) << 32 | u128::from(high) << 16 | u128::from(low);
    number.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835).to_be_bytes()
}

fn v4(network: u16, host: u16) -> Ipv4Addr {
    Ipv4Addr::from(0x0a40_0000 + (u32::from(network) << 16) + u32::from(host))
}

fn v6(network: u16, host: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, network, 0, 0, 0, 0, 0, host)
}
