//! An ingress network, and what is published there.

use super::*;

/// The ingress network with this node's part in it, where services publish ports and have replicas, here and elsewhere, some of which drain.
pub(super) fn ingress() -> impl Strategy<Value = Section> {
    let facts = (option::weighted(0.9, local(INGRESS)), btree_map(few_nodes(), remote(INGRESS), 0..3));
    let services = btree_map(few_services(), publishing(), 2..=3);
    let flags = (any::<bool>(), prop_oneof![4 => Just([true; 2]), 1 => Just([true, false]), 1 => Just([false, true])]);
    (
        facts,
        services,
        btree_map(few_replicas(), local(INGRESS), 0..4),
        btree_map(few_replicas(), remote(INGRESS), 0..5),
        flags,
    )
        .prop_map(|((own, nodes), services, here, elsewhere, (internal, has))| {
            let id = network_id(INGRESS);
            let served = |number: u8| Some(ServiceId::from_bytes([number % 3; 16]));
            let mut section = Section {
                network: Arc::new(ingress_network(internal, has)),
                local: BTreeMap::new(),
                remote: BTreeMap::new(),
                services: services.into_iter().map(|(id, service)| (id, Arc::new(Service { id, ..service }))).collect(),
            };
            for (endpoint, (honest, remote)) in elsewhere {
                let service = served(endpoint.to_bytes()[0]);
                section
                    .remote
                    .insert(endpoint, Arc::new(of(INGRESS, endpoint, (honest, RemoteEndpoint { service, ..remote }))));
            }
            for (endpoint, (honest, mut local)) in here {
                Arc::make_mut(&mut local.endpoint).spec.service = served(endpoint.to_bytes()[0]);
                section.remote.remove(&endpoint);
                section.local.insert(endpoint, Arc::new(with_id(INGRESS, endpoint, (honest, local))));
            }
            for (node, (honest, remote)) in nodes.into_iter().filter(|(node, _)| *node != ME) {
                let last = EndpointId::from_bytes([9 + (node.to_bytes()[0] >> 4); 16]); // which address is its own
                let part = of(INGRESS, last, (honest, RemoteEndpoint { node, service: None, ..remote }));
                section.remote.insert(crate::mesh::endpoint(id, node), Arc::new(part));
            }
            let part = own.map(|(honest, local)| {
                part_of_mine(&with_id(INGRESS, EndpointId::from_bytes([9; 16]), (honest, local)))
            });
            section.local.extend(part.map(|part| (part.endpoint.id, Arc::new(part))));
            section
        })
}

/// This node's own endpoint on the ingress network, as an agent plugs it in.
fn part_of_mine(local: &LocalEndpoint) -> LocalEndpoint {
    let id = network_id(INGRESS);
    let own = crate::mesh::endpoint(id, ME);
    let endpoint = Endpoint { id: own, spec: crate::mesh::spec(id, ME).expect("a name"), ..(*local.endpoint).clone() };
    let interface = crate::mesh::interface(id, ME).expect("a name");
    LocalEndpoint { endpoint: Arc::new(endpoint), namespace: settings().host, interface, health: Health::Healthy }
}

fn ingress_network(internal: bool, has: [bool; 2]) -> Network {
    let mut families = subnets(INGRESS);
    families.truncate(2);
    let spec = NetworkSpec::overlay(Name::new("ingress").expect("a name"));
    Network {
        id: network_id(INGRESS),
        spec: NetworkSpec { internal, ingress: true, ..spec },
        subnets: families.into_iter().zip(has).filter(|(_, has)| *has).map(|(subnet, _)| subnet).collect(),
        port: None,
        vni: Vni::new(4096 + u32::from(INGRESS)).ok(),
        created: UnixTime::from_millis(7_000),
        condition: Condition::Allocated,
    }
}

fn few_replicas() -> impl Strategy<Value = EndpointId> {
    (0_u8..9).prop_map(|number| EndpointId::from_bytes([number; 16]))
}

/// A service that publishes some ports, in all modes, at all kinds of places; mostly such as make sense.
fn publishing() -> impl Strategy<Value = Service> {
    let number = select(&[80_u16, 81, 443, 8080][..]).prop_map(|number| Port::new(number).ok());
    let sound = (published(), number, sound_access());
    let sound = sound.prop_map(|(port, published, access)| PublishedPort { published, access, ..port });
    let ports = vec(prop_oneof![4 => sound, 1 => published()], 1..5);
    (service(INGRESS), ports).prop_map(|(service, ports)| Service { ports, condition: Condition::Ready, ..service })
}

/// Everywhere, or at one kind of place; for everybody, or for some.
fn sound_access() -> impl Strategy<Value = Access> {
    let place = (0_u8..8, any::<bool>()).prop_map(|(place, restricted)| {
        let mut access = Access::default();
        match place {
            0 => access.addresses = ["192.0.2.1", "2001:db8::1"].map(|it| it.parse().expect("an address")).into(),
            1 => access.interfaces = ["eth0".parse().expect("a name")].into(),
            2 => access.nodes = [ME].into(),
            _ => {}
        }
        if restricted {
            access.sources = ["192.0.2.0/24", "2001:db8::/32"].map(|it| it.parse().expect("a net")).into();
        }
        access
    });
    prop_oneof![1 => Just(Access::default()), 2 => place]
}

/// Where a port is reached and by whom, in ways that make no sense too.
fn access() -> impl Strategy<Value = Access> {
    let addresses = select(&["192.0.2.1", "2001:db8::1", "127.0.0.1", "fe80::1", "224.0.0.1", "::ffff:192.0.2.1"][..]);
    let addresses = btree_set(addresses.prop_map(|it| it.parse().expect("an address")), 0..3);
    let interfaces = btree_set(select(&["eth0", "eth1", "lo"][..]).prop_map(|it| it.parse().expect("a name")), 0..2);
    let sources = select(&["192.0.2.0/24", "192.0.2.128/25", "192.0.2.1/24", "0.0.0.0/0", "2001:db8::/32"][..]);
    let sources = btree_set(sources.prop_map(|it| it.parse().expect("a net")), 0..3);
    let nodes = btree_set((1_u8..4).prop_map(|it| NodeId::from_bytes([it << 4; 16])), 0..2);
    let said = (addresses, interfaces, nodes, sources);
    let said =
        said.prop_map(|(addresses, interfaces, nodes, sources)| Access { addresses, interfaces, nodes, sources });
    prop_oneof![2 => Just(Access::default()), 3 => said]
}

/// A port, published in any mode.
pub(super) fn published() -> impl Strategy<Value = PublishedPort> {
    let published = option::of(select(&[22_u16, 80, 443, 4789, 7946][..]));
    let published = published.prop_map(|number| number.and_then(|number| Port::new(number).ok()));
    let spot = select(&[PublishMode::Host, PublishMode::Ingress, PublishMode::Local][..]);
    let source = prop_oneof![2 => Just(ClientSource::Client), 1 => Just(ClientSource::Masquerade)];
    let protocol = select(&[Protocol::Tcp, Protocol::Udp][..]);
    (few_names(), any::port(), (published, (spot, source), protocol, access())).prop_map(
        |(name, target, (published, (mode, source), protocol, access))| PublishedPort {
            name: Some(name),
            published,
            mode,
            source,
            access,
            ..PublishedPort::new(protocol, target)
        },
    )
}
