//! Proptest strategies for this crate's values (feature `testing`).

#![expect(clippy::expect_used, reason = "the texts are fixed")]

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU8;

use ipnet::IpNet;
use overlay_core::testing::any;
use overlay_core::{
    DontFragment, EndpointId, IfName, IpFamily, Mac, Mtu, Name, NsId, NsKey, Port, PortRange, Ttl, Vni,
};
use proptest::collection::{btree_map, btree_set};
use proptest::prelude::*;

use crate::{LocalPort, Peer, PortEnd, Segment, State, Vtep};

/// States that pass their check, small and alike enough that two of them differ in every way a plan can meet:
/// endpoints that move between nodes, change their addresses, come and go.
pub fn state() -> impl Strategy<Value = State> {
    btree_map(1_u32..4, segment(), 0..3).prop_map(|segments| State {
        segments: segments
            .into_iter()
            .filter_map(|(vni, segment)| Some((Vni::new(vni).ok()?, of(vni, segment))))
            .collect(),
    })
}

/// States that a kernel can hold: all endpoints here are plugged into these containers, of which there must be one at
/// least, or are `taps` if there can be some, and tunnels that are bound to an interface are bound to `device`, which should have an MTU of 1,600 or more.
pub fn state_among(containers: Vec<NsKey>, taps: bool, device: IfName) -> impl Strategy<Value = State> {
    state().prop_map(move |mut state| {
        for segment in state.segments.values_mut() {
            segment.vtep.device = segment.vtep.device.map(|_| device);
            for (number, port) in segment.ports.values_mut().enumerate() {
                let (PortEnd::Namespace { interface, .. } | PortEnd::Tap { interface }) = port.end;
                if taps && matches!(port.end, PortEnd::Tap { .. }) {
                    continue;
                }
                port.end = PortEnd::Namespace { namespace: containers[number % containers.len()].clone(), interface };
            }
        }
        state
    })
}

/// The segment with what no other has: names of interfaces, as they share the containers, endpoints, and subnets.
fn of(vni: u32, mut segment: Segment) -> Segment {
    let here = |net: &IpNet| IpNet::new(moved(net.addr(), vni), net.prefix_len()).expect("the prefix it had");
    segment.gateways = segment.gateways.iter().map(here).collect();
    for peer in segment.peers.values_mut() {
        peer.addresses = peer.addresses.iter().map(|address| moved(*address, vni)).collect();
    }
    segment.ports = std::mem::take(&mut segment.ports)
        .into_iter()
        .map(|(endpoint, port)| {
            let mut id = endpoint.to_bytes();
            id[0] = vni as u8;
            (EndpointId::from_bytes(id), LocalPort { addresses: port.addresses.iter().map(here).collect(), ..port })
        })
        .collect();

    for port in segment.ports.values_mut() {
        let (PortEnd::Namespace { interface, .. } | PortEnd::Tap { interface }) = &mut port.end;
        *interface = IfName::new(&format!("s{vni}-{interface}")).expect("a short name");
    }
    segment
}

/// The same host in the subnet of that number.
fn moved(address: IpAddr, subnet: u32) -> IpAddr {
    match address {
        IpAddr::V4(address) => IpAddr::from((u32::from(address) | subnet << 8).to_be_bytes()),
        IpAddr::V6(address) => Ipv6Addr::from(u128::from(address) | u128::from(subnet) << 64).into(),
    }
}

/// One endpoint's draw: where it is (0 is here) and which of its addresses it has.
type Placed = (u8, bool, bool);

/// Segments that pass their check, with up to 12 endpoints.
pub fn segment() -> impl Strategy<Value = Segment> {
    let endpoints = btree_map(2_u8..14, (0_u8..4, any::<bool>(), any::<bool>()), 0..12);
    // Around what IPv6 needs more often than chance would have it: below, there is only IPv4.
    let mtu = prop_oneof![1280_u32..1500, 1278_u32..1282, Just(68_u32)];
    (vtep(), mtu, any::<[bool; 2]>(), endpoints, btree_set(1_u8..4, 0..3)).prop_map(
        |(vtep, mtu, gateways, endpoints, flood)| {
            let mut segment = Segment::new(vtep, Mtu::new(mtu).unwrap_or(Mtu::ETHERNET));
            let families = if segment.mtu < Mtu::IPV6_MIN { &FAMILIES[..1] } else { &FAMILIES };
            let wanted = gateways.into_iter().zip(families);
            segment.gateways = wanted.filter(|(wanted, _)| *wanted).map(|(_, family)| inner(*family, 1)).collect();
            segment.flood = flood.into_iter().map(|node| outer(vtep.underlay(), node)).collect();
            for (number, placed) in endpoints {
                place(&mut segment, number, placed, families);
            }
            segment
        },
    )
}

const FAMILIES: [IpFamily; 2] = [IpFamily::V4, IpFamily::V6];

fn place(segment: &mut Segment, number: u8, (node, v4, v6): Placed, families: &[IpFamily]) {
    let mac = Mac::from_ipv4([10, 0, 0, number].into());
    let has = families.iter().zip([v4, v6]).filter(|(_, has)| *has);
    let addresses: BTreeSet<IpNet> = has.map(|(family, _)| inner(*family, number)).collect();
    if node == 0 {
        let port = LocalPort { mac, addresses, end: port_end(number, v4) };
        segment.ports.insert(EndpointId::from_bytes([number; 16]), port);
    } else {
        let vtep = outer(segment.vtep.underlay(), node);
        segment.peers.insert(mac, Peer { vtep, addresses: addresses.iter().map(IpNet::addr).collect() });
    }
}

fn port_end(number: u8, tap: bool) -> PortEnd {
    let interface = IfName::new(&format!("eth{number}")).expect("a short name");
    if tap {
        return PortEnd::Tap { interface };
    }
    let name = Name::new(&format!("c{number}")).expect("a short name");
    PortEnd::Namespace { namespace: NsKey { name, id: NsId { device: 4, inode: number.into() } }, interface }
}

/// Ends of tunnels over both families with all kinds of settings.
pub fn vtep() -> impl Strategy<Value = Vtep> {
    let ttl = prop_oneof![
        Just(Ttl::Auto),
        Just(Ttl::Inherit),
        (1_u8..).prop_filter_map("not 0", |hops| NonZeroU8::new(hops).map(Ttl::Hops))
    ];
    let dont_fragment = prop_oneof![Just(DontFragment::Unset), Just(DontFragment::Set), Just(DontFragment::Inherit)];
    let port = prop_oneof![Just(Port::VXLAN), any::port()];
    let device = proptest::option::of(any::if_name());
    let several = any::port_range().prop_filter("a kernel needs two", |range| range.first() != range.last());
    let source_ports = prop_oneof![Just(PortRange::DYNAMIC), several];
    (any::ip_family(), device, port, source_ports, ttl, dont_fragment, any::<bool>()).prop_map(
        |(family, device, port, source_ports, ttl, dont_fragment, udp_checksum)| Vtep {
            local: outer(family, 100),
            device,
            port,
            source_ports,
            ttl,
            dont_fragment,
            udp_checksum,
        },
    )
}

fn outer(family: IpFamily, node: u8) -> IpAddr {
    match family {
        IpFamily::V4 => [192, 0, 2, node].into(),
        IpFamily::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, node.into()).into(),
    }
}

fn inner(family: IpFamily, host: u8) -> IpNet {
    let (address, prefix) = match family {
        IpFamily::V4 => (IpAddr::from([10, 0, 0, host]), 24),
        IpFamily::V6 => (Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, host.into()).into(), 64),
    };
    IpNet::new(address, prefix).expect("a prefix of the family")
}
