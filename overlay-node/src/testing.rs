//! Proptest strategies for what a node knows (feature `testing`): few of each, so that they meet, and nodes that lie.

#![expect(clippy::expect_used, reason = "the texts are fixed")]

mod mesh;
pub mod parity;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use overlay_core::testing::any;
use overlay_core::{
    AddressSet, EndpointId, IfName, Mac, Mtu, Name, NetworkId, NodeId, NsId, NsKey, Port, PortRange, Protocol,
    ServiceId, UnixTime, Vni,
};
use overlay_dns::testing::{dns_name, few_names};
use overlay_dns::{DnsName, Health};
use overlay_ipam::{Subnet, SubnetRequest};
use overlay_lb::{Affinity, Scheduler, Weight};
use overlay_link::MacvlanMode;
use proptest::collection::{btree_map, btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use self::mesh::{ingress, published};
pub use crate::catalogue::record::reread_records;
pub use crate::manager::contradictions::{contradictions, leaks};
use crate::{
    Access, Balancing, Carried, ClientSource, Condition, Encryption, Endpoint, EndpointMode, EndpointSpec,
    GatewayBridge, GatewayPort, Kind, Knowledge, LocalEndpoint, Network, NetworkSpec, NodeFacts, Protection,
    PublishMode, PublishedPort, RemoteEndpoint, Section, Service, ServiceSpec, Settings, Standing,
};

/// The node whose knowledge it is.
pub const ME: NodeId = NodeId::from_bytes([0x10; 16]);

/// What a node of few others knows of few networks, all of them wrong in every way now and then.
pub fn knowledge() -> impl Strategy<Value = Knowledge> {
    let nodes = btree_map(few_nodes(), node_facts(), 0..5);
    let rest = (underlay_of_mine(), any::<bool>(), gateway_ports(), protection());
    let sections = (vec(section(), 0..4), option::weighted(0.6, ingress()));
    let sections = sections.prop_map(|(sections, ingress)| sections.into_iter().chain(ingress).collect::<Vec<_>>());
    (nodes, sections, rest).prop_map(|(mut nodes, sections, (mine, known, ports, protection))| {
        nodes.remove(&ME);
        nodes.extend(known.then_some((ME, mine)).into_iter().chain((!known).then_some((ME, plain_facts()))));
        Knowledge {
            records: Arc::default(),
            rotated: None,
            me: ME,
            nodes: Arc::new(nodes),
            networks: sections.into_iter().map(|section| (section.network.id, Arc::new(section))).collect(),
            gateway_ports: Arc::new(ports),
            protection,
            settings: Arc::new(settings()),
        }
    })
}

/// One change of what a node knows.
#[derive(Debug, Clone)]
pub enum Change {
    /// A node is otherwise than before, or gone.
    Node(NodeId, Option<NodeFacts>),
    /// All of a network is.
    Section(NetworkId, Option<Box<Section>>),
    /// A network's options are, or its subnets.
    Network(Box<Network>),
    /// An endpoint that is plugged in.
    Local(NetworkId, EndpointId, Option<Box<LocalEndpoint>>),
    /// One that is elsewhere.
    Remote(NetworkId, EndpointId, Option<Box<RemoteEndpoint>>),
    /// Where a container is at the gateway bridge.
    GatewayPort(Name, Option<GatewayPort>),
    /// What was agreed on for tunnels.
    Protection(Protection),
    /// A service.
    Service(NetworkId, ServiceId, Option<Box<Service>>),
}

impl Change {
    /// Makes it.
    pub fn apply(self, knowledge: &mut Knowledge) {
        match self {
            Self::Node(id, facts) => put(Arc::make_mut(&mut knowledge.nodes), id, facts),
            Self::Section(id, section) => put(&mut knowledge.networks, id, section.map(|section| Arc::new(*section))),
            Self::Network(network) => {
                if let Some(section) = knowledge.networks.get_mut(&network.id) {
                    Arc::make_mut(section).network = Arc::new(*network);
                }
            }
            Self::Local(network, id, local) => {
                if let Some(section) = knowledge.networks.get_mut(&network) {
                    put(&mut Arc::make_mut(section).local, id, local.map(|local| Arc::new(*local)));
                }
            }
            Self::Remote(network, id, remote) => {
                if let Some(section) = knowledge.networks.get_mut(&network) {
                    put(&mut Arc::make_mut(section).remote, id, remote.map(|remote| Arc::new(*remote)));
                }
            }
            Self::GatewayPort(name, port) => put(Arc::make_mut(&mut knowledge.gateway_ports), name, port),
            Self::Protection(protection) => knowledge.protection = protection,
            Self::Service(network, id, service) => {
                if let Some(section) = knowledge.networks.get_mut(&network) {
                    put(&mut Arc::make_mut(section).services, id, service.map(|service| Arc::new(*service)));
                }
            }
        }
    }
}

fn put<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) {
    match value {
        Some(value) => drop(map.insert(key, value)),
        None => drop(map.remove(&key)),
    }
}

/// Changes that meet each other.
pub fn change() -> impl Strategy<Value = Change> {
    let boxed = |strategy: BoxedStrategy<Section>| strategy.prop_map(|section| (section.network.id, Box::new(section)));
    let facts = prop_oneof![4 => node_facts().prop_map(Some), 1 => Just(None)];
    prop_oneof![
        2 => (few_nodes(), facts).prop_map(|(id, facts)| Change::Node(id, facts)),
        1 => (boxed(section().boxed()), any::<bool>()).prop_map(|((id, section), there)| Change::Section(id, there.then_some(section))),
        1 => network().prop_map(|network| Change::Network(Box::new(network))),
        1 => protection().prop_map(Change::Protection),
        2 => (few_containers(), option::weighted(0.8, gateway_port())).prop_map(|(name, port)| Change::GatewayPort(name, port)),
        4 => few_networks().prop_flat_map(|number| {
            (few_endpoints(), option::weighted(0.7, local(number)))
                .prop_map(move |(id, local)| Change::Local(network_id(number), meshed(number, id, ME), local.map(|local| Box::new(with_id(number, id, local)))))
        }),
        8 => few_networks().prop_flat_map(|number| {
            (few_endpoints(), option::weighted(0.8, remote(number)))
                .prop_map(move |(id, remote)| Change::Remote(network_id(number), meshed(number, id, remote.as_ref().map_or(ME, |it| it.1.node)), remote.map(|remote| Box::new(of(number, id, remote)))))
        }),
        2 => few_networks().prop_flat_map(|number| {
            (few_services(), option::weighted(0.8, service(number)))
                .prop_map(move |(id, service)| Change::Service(network_id(number), id, service.map(|service| Box::new(Service { id, ..service }))))
        }),
    ]
}

/// What is known of one of few networks.
pub fn section() -> impl Strategy<Value = Section> {
    network().prop_flat_map(|network| {
        let number = network.id.to_bytes()[15];
        let local = btree_map(few_endpoints(), local(number), 0..4);
        let remote = btree_map(few_endpoints(), remote(number), 0..8);
        let services = btree_map(few_services(), service(number), 0..3);
        (Just(network), local, remote, services).prop_map(move |(network, local, remote, services)| Section {
            network: Arc::new(network),
            local: local
                .into_iter()
                .map(|(id, local)| (meshed(number, id, ME), Arc::new(with_id(number, id, local))))
                .collect(),
            remote: remote
                .into_iter()
                .map(|(id, remote)| (meshed(number, id, remote.1.node), Arc::new(of(number, id, remote))))
                .collect(),
            services: services.into_iter().map(|(id, service)| (id, Arc::new(Service { id, ..service }))).collect(),
        })
    })
}

/// An endpoint elsewhere with any words of any length.
pub fn any_remote_endpoint() -> impl Strategy<Value = RemoteEndpoint> {
    let addresses = btree_set(any::ip_family().prop_flat_map(any::ip), 0..6);
    let labels = btree_map(".{0,12}", ".{0,40}", 0..4);
    let service = option::of(any::<[u8; 16]>().prop_map(ServiceId::from_bytes));
    let what = (any::node_id(), any::name(), any::mac(), addresses, any::<u64>());
    (what, vec(dns_name(), 0..4), service, labels, health()).prop_map(
        |((node, container, mac, addresses, moves), names, service, labels, health)| RemoteEndpoint {
            node,
            container,
            mac,
            addresses: addresses.into(),
            names,
            service,
            labels,
            health,
            moves,
            weight: Weight::ONE,
        },
    )
}

/// One of few networks, with subnets of either family or both.
pub fn network() -> impl Strategy<Value = Network> {
    let mtu = prop_oneof![4 => Just(None), 1 => (68_u32..2000).prop_map(|mtu| Mtu::new(mtu).ok())];
    let condition =
        prop_oneof![6 => Just(Condition::Allocated), 1 => Just(Condition::Accepted), 1 => Just(Condition::Removing)];
    let flags = (any::<bool>(), encryption(), any::<[bool; 3]>());
    let what = (few_networks(), kind());
    (what, flags, mtu, condition).prop_map(|((number, kind), (internal, encryption, has), mtu, condition)| Network {
        id: network_id(number),
        spec: NetworkSpec {
            internal,
            encryption,
            ingress: number == INGRESS && kind == Kind::Overlay,
            mtu,
            ..NetworkSpec::of(kind, Name::new(&format!("net{number}")).expect("a name"))
        },
        subnets: subnets(number).into_iter().zip(has).filter(|(_, has)| *has).map(|(subnet, _)| subnet).collect(),
        vni: Vni::new(4096 + u32::from(number)).ok().filter(|_| condition != Condition::Accepted),
        port: own_port(number).filter(|_| encryption == Encryption::Own && condition != Condition::Accepted),
        created: UnixTime::from_millis(7_000),
        condition,
    })
}

fn encryption() -> impl Strategy<Value = Encryption> {
    prop_oneof![14 => Just(Encryption::None), 1 => Just(Encryption::Shared), 2 => Just(Encryption::Own)]
}

/// That of network 3 is none of those that nodes keep for that.
fn own_port(number: u8) -> Option<Port> {
    let range = settings().own_ports;
    Port::new(if number == 3 { 29_000 } else { range.first().get() + u16::from(number) }).ok()
}

fn kind() -> impl Strategy<Value = Kind> {
    let parent = prop_oneof![4 => Just("eth0"), 1 => Just("eth1")];
    let mode =
        prop_oneof![2 => Just(MacvlanMode::Bridge), 1 => Just(MacvlanMode::Private), 1 => Just(MacvlanMode::Passthru)];
    let macvlan = (parent, mode);
    let macvlan = macvlan.prop_map(|(parent, mode)| Kind::Macvlan { parent: parent.parse().expect("a name"), mode });
    prop_oneof![8 => Just(Kind::Overlay), 3 => Just(Kind::Bridge), 3 => macvlan, 1 => Just(Kind::Host)]
}

fn subnets(number: u8) -> Vec<Subnet> {
    let nets = [format!("10.{number}.0.0/28"), format!("fd00:{number}::/64"), format!("10.{number}.1.0/29")];
    let place = |text: &String| {
        let net: IpNet = text.parse().expect("a subnet");
        SubnetRequest::this(net).place(net).expect("it is its own place")
    };
    nets.iter().map(place).collect()
}

/// One of few nodes, [`ME`] among them.
pub fn few_nodes() -> impl Strategy<Value = NodeId> {
    (1_u8..6).prop_map(|number| NodeId::from_bytes([number << 4; 16]))
}

/// The number of the one network that may be an ingress network.
const INGRESS: u8 = 3;

fn few_networks() -> impl Strategy<Value = u8> {
    1_u8..4
}

fn network_id(number: u8) -> NetworkId {
    let mut bytes = [0x77; 16];
    (bytes[0], bytes[15]) = (number, number); // they differ where names are made of them
    NetworkId::from_bytes(bytes)
}

fn few_endpoints() -> impl Strategy<Value = EndpointId> {
    // Two pairs begin alike, so their devices have one name.
    (0_u8..12).prop_map(|number| {
        EndpointId::from_bytes(if number < 4 {
            [7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, number]
        } else {
            [number; 16]
        })
    })
}

/// The id of a node's own endpoint on an ingress network, by which it takes part in the routing mesh.
pub fn mesh_endpoint(network: NetworkId, node: NodeId) -> EndpointId {
    crate::mesh::endpoint(network, node)
}

/// Two of the endpoints are nodes' own in the routing mesh, on a network that has one.
fn meshed(number: u8, id: EndpointId, node: NodeId) -> EndpointId {
    let own = id.to_bytes().first().is_some_and(|first| *first >= 10);
    if own { crate::mesh::endpoint(network_id(number), node) } else { id }
}

fn few_services() -> impl Strategy<Value = ServiceId> {
    (0_u8..3).prop_map(|number| ServiceId::from_bytes([number; 16]))
}

/// What a node says of itself: wrong families, others' addresses, no host's addresses, small packets.
pub fn node_facts() -> impl Strategy<Value = NodeFacts> {
    let odd = prop_oneof![
        Just(IpAddr::from([0; 4])),
        Just([224, 0, 0, 1].into()),
        Just([255; 4].into()),
        Just([127, 0, 0, 1].into()),
        Just(Ipv6Addr::UNSPECIFIED.into()),
        Just("fe80::1".parse().expect("an address")),
        Just("::ffff:192.0.2.9".parse().expect("an address")),
        Just("2001:db8::3".parse().expect("an address")),
    ];
    let vtep = prop_oneof![5 => (1_u8..6).prop_map(|host| IpAddr::from([192, 0, 2, host])), 1 => odd];
    let mtu =
        prop_oneof![4 => Just(1500_u32), 1 => 576_u32..1600].prop_map(|mtu| Mtu::new(mtu).unwrap_or(Mtu::ETHERNET));
    let standing =
        prop_oneof![3 => Just(Standing::Alive), 1 => Just(Standing::Suspected), 1 => Just(Standing::Suspended)];
    (vtep, mtu, standing).prop_map(|(vtep, mtu, standing)| NodeFacts {
        address: (vtep, 7946).into(),
        vtep,
        mtu,
        standing,
    })
}

/// None, or keys with few nodes at few addresses, now and then two at one.
fn protection() -> impl Strategy<Value = Protection> {
    let keys = btree_map(few_nodes(), ((1_u8..6), (1_u8..6), (1_u64..3)), 0..4);
    option::weighted(0.8, keys).prop_map(|keys| {
        let Some(keys) = keys else { return Protection::default() };
        let host = |host: u8| IpAddr::from([192, 0, 2, host]);
        let own = (1..4).map(|number| Carried::Own(network_id(number)));
        let carried: BTreeSet<Carried> = own.chain([Carried::Shared]).collect();
        let agreed = keys.into_iter().filter(|(node, _)| *node != ME).map(|(node, (local, peer, epoch))| {
            (node, crate::agent::agreed((ME, host(local)), (node, host(peer)), (epoch, &carried)))
        });
        Protection::Keys(Arc::new(agreed.collect()))
    })
}

fn underlay_of_mine() -> impl Strategy<Value = NodeFacts> {
    node_facts()
}

fn plain_facts() -> NodeFacts {
    let vtep = IpAddr::from([192, 0, 2, 1]);
    NodeFacts { address: (vtep, 7946).into(), vtep, mtu: Mtu::ETHERNET, standing: Standing::Alive }
}

fn settings() -> Settings {
    Settings {
        vxlan_port: Port::VXLAN,
        encrypted_port: Port::VXLAN_ENCRYPTED,
        own_ports: PortRange::VXLAN_ENCRYPTED,
        lanes: Default::default(),
        limits: overlay_crypto::Limits::of(overlay_crypto::RotationConfig::default().usage),
        gossip_port: Port::GOSSIP,
        stranger_rate: NonZeroU32::MIN,
        stranger_burst: 5,
        resolver_port: Port::RESOLVER,
        suffixes: vec!["swarm.internal".parse().expect("a domain")],
        gateway: Some(GatewayBridge {
            v4: Some("172.18.0.0/29".parse().expect("a net")),
            v6: Some("fd00:18::/64".parse().expect("a net")),
        }),
        host: Some(NsKey { name: "host".parse().expect("a name"), id: NsId { device: 4, inode: 1 } }),
        kept: crate::usually_kept(),
    }
}

/// Addresses inside and outside of the network's subnets, reserved ones among them.
fn few_addresses(number: u8) -> BoxedStrategy<IpAddr> {
    let odd = prop_oneof![
        Just(IpAddr::from([127, 0, 0, 1])),
        Just([0; 4].into()),
        Just([10, 9, 9, 9].into()),
        Just([192, 0, 2, 1].into()),
        Just("::ffff:10.1.0.3".parse().expect("an address")),
        Just("fe80::42:aff:fe01:3".parse().expect("an address")),
        Just(Ipv6Addr::UNSPECIFIED.into()),
        Just("ff02::1".parse().expect("an address")),
    ];
    prop_oneof![
        6 => (0_u8..16).prop_map(move |host| IpAddr::from([10, number, 0, host])),
        2 => (0_u8..8).prop_map(move |host| IpAddr::from([10, number, 1, host])),
        4 => (0_u16..8).prop_map(move |host| format!("fd00:{number}::{host:x}").parse().expect("an address")),
        1 => odd,
    ]
    .boxed()
}

fn few_macs(number: u8) -> BoxedStrategy<Mac> {
    let odd = prop_oneof![
        Just(Mac::ZERO),
        Just(Mac::BROADCAST),
        Just(overlay_vxlan::names::gateway_mac(Vni::new(4096 + u32::from(number)).expect("a VNI"))),
        Just(Mac::new([0x01, 0, 0x5e, 0, 0, 1])),
    ];
    prop_oneof![8 => (1_u8..12).prop_map(move |host| Mac::from_ipv4([10, number, 0, host].into())), 1 => odd].boxed()
}

/// More than there is room for.
fn gateway_port() -> impl Strategy<Value = GatewayPort> {
    (1_u32..8).prop_filter_map("not 0", GatewayPort::new)
}

fn gateway_ports() -> impl Strategy<Value = BTreeMap<Name, GatewayPort>> {
    btree_map(few_containers(), gateway_port(), 0..4)
}

fn few_containers() -> impl Strategy<Value = Name> {
    (1_u8..4).prop_map(|number| Name::new(&format!("c{number}")).expect("a name"))
}

fn few_labels() -> impl Strategy<Value = BTreeMap<String, String>> {
    btree_map("[a-c]", "[x-z]", 0..2)
}

fn health() -> impl Strategy<Value = Health> {
    prop_oneof![3 => Just(Health::Healthy), 1 => Just(Health::Suspect), 1 => Just(Health::Draining)]
}

/// What some node says of an endpoint of the network of this number.
fn remote(number: u8) -> impl Strategy<Value = (bool, RemoteEndpoint)> {
    let addresses = btree_set(few_addresses(number), 0..4);
    let what = (few_nodes(), few_containers(), few_macs(number), addresses, (0_u64..3, few_weights()));
    let names = vec(few_names().prop_map(|name| DnsName::from(&name)), 0..2);
    let remote = (what, names, option::of(few_services()), few_labels(), health()).prop_map(
        |((node, container, mac, addresses, (moves, weight)), names, service, labels, health)| RemoteEndpoint {
            node,
            container,
            mac,
            addresses: addresses.into(),
            names,
            service,
            labels,
            health,
            moves,
            weight,
        },
    );
    (honest(), remote)
}

/// Mostly, endpoints have addresses of their own.
fn honest() -> impl Strategy<Value = bool> {
    prop::bool::weighted(0.85)
}

/// The address and Ethernet address that only this endpoint has.
fn own(number: u8, id: EndpointId) -> (AddressSet, Mac) {
    let host = id.to_bytes()[15] + 2;
    let v6 = Ipv6Addr::new(0xfd00, number.into(), 0, 0, 0, 0, 0, host.into());
    ([IpAddr::from([10, number, 0, host]), v6.into()].into(), Mac::from_ipv4([10, number, 0, host].into()))
}

fn of(number: u8, id: EndpointId, (honest, remote): (bool, RemoteEndpoint)) -> RemoteEndpoint {
    let (addresses, mac) = own(number, id);
    if honest { RemoteEndpoint { addresses, mac, ..remote } } else { remote }
}

fn local(number: u8) -> impl Strategy<Value = (bool, LocalEndpoint)> {
    let addresses = btree_set(few_addresses(number), 0..3);
    let end = (any::<bool>(), 0_u8..3);
    let what = (few_containers(), few_macs(number), addresses, end, (-1_i32..2, few_weights()));
    let names = vec(few_names().prop_map(|name| DnsName::from(&name)), 0..2);
    let local = (what, names, option::of(few_services()), health()).prop_map(
        move |((container, mac, addresses, (machine, end), (priority, weight)), names, service, health)| {
            let spec = EndpointSpec {
                names,
                service,
                priority,
                weight,
                ..EndpointSpec::new(network_id(number), container.clone(), ME)
            };
            let endpoint = Endpoint {
                id: EndpointId::from_bytes([0; 16]),
                spec,
                addresses: addresses.into_iter().map(net).collect(),
                mac,
                moves: 0,
                created: UnixTime::from_millis(7_000),
                condition: Condition::Allocated,
            };
            let namespace = NsKey { name: container, id: NsId { device: 4, inode: 1 } };
            LocalEndpoint {
                endpoint: Arc::new(endpoint),
                namespace: (!machine).then_some(namespace),
                interface: IfName::new(&format!("eth{number}{end}")).expect("a short name"),
                health,
            }
        },
    );
    (honest(), local)
}

fn with_id(number: u8, id: EndpointId, (honest, local): (bool, LocalEndpoint)) -> LocalEndpoint {
    let mut endpoint = Endpoint { id: meshed(number, id, ME), ..(*local.endpoint).clone() };
    let mut interface = local.interface;
    if honest {
        let (addresses, mac) = own(number, id);
        (endpoint.addresses, endpoint.mac) = (addresses.iter().copied().map(net).collect(), mac);
        interface = IfName::new(&format!("eth{number}-{}", id.to_bytes()[15])).expect("a short name");
    }
    LocalEndpoint { endpoint: Arc::new(endpoint), interface, ..local }
}

/// With the length of its subnet.
fn net(address: IpAddr) -> IpNet {
    let small = matches!(address, IpAddr::V4(v4) if v4.octets()[2] == 1);
    let length = if address.is_ipv6() { 64 } else { 28 + u8::from(small) };
    IpNet::new(address, length).expect("a length")
}

fn few_weights() -> impl Strategy<Value = Weight> {
    (1_u16..4).prop_map(|weight| Weight::new(weight).expect("not 0"))
}

/// How the work is shared, in ways that make no sense too.
fn balancing() -> impl Strategy<Value = Balancing> {
    let affinity = option::of((0_u64..3).prop_map(|seconds| Affinity { timeout: Duration::from_secs(seconds) }));
    (select(&Scheduler::ALL[..]), affinity).prop_map(|(scheduler, affinity)| Balancing {
        scheduler,
        affinity,
        timeouts: None,
    })
}

fn service(number: u8) -> impl Strategy<Value = Service> {
    let vips = btree_set(few_addresses(number), 0..2);
    let mode = prop_oneof![
        Just((EndpointMode::Vip, Balancing::default())),
        (Just(EndpointMode::Vip), balancing()),
        Just((EndpointMode::RoundRobin, Balancing::default()))
    ];
    let condition = prop_oneof![5 => Just(Condition::Ready), 1 => Just(Condition::Accepted)];
    (few_names(), vips, mode, vec(published(), 0..2), btree_set(few_names(), 0..2), condition).prop_map(
        move |(name, vips, (mode, balancing), ports, aliases, condition): (_, BTreeSet<IpAddr>, _, _, _, _)| {
            let mut spec = ServiceSpec { mode, balancing, ..ServiceSpec::new(name, [network_id(number)]) };
            spec.networks.insert(network_id(number), aliases);
            Service {
                id: ServiceId::from_bytes([0; 16]),
                spec,
                vips: [(network_id(number), vips)].into(),
                ports,
                created: UnixTime::from_millis(7_000),
                condition,
            }
        },
    )
}
