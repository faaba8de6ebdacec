//! etherparse as an independent judge of the packets we read and write.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::{LinkSlice, NetSlice, PacketBuilder, SlicedPacket, TransportSlice, VlanId};
use overlay_core::testing::any as arbitrary;
use overlay_core::{IpFamily, Mac, Port};
use overlay_vxlan::{Addresses, Ethernet, Frame, Header, Ip, Macs, Outer, Packet, Transport};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

proptest! {
    #[test]
    fn what_etherparse_builds_we_read_alike(outer in recipe(), inner in recipe(), vni in arbitrary::vni(), padding in 0_usize..40) {
        let frame = inner.build();
        let mut datagram = Header { vni }.encode().to_vec();
        datagram.extend(&frame);
        let mut bytes = Recipe { payload: datagram, transport: Kind::Udp, ports: (outer.ports.0, 4789), ..outer }.build();
        bytes.resize(bytes.len() + padding, 0xa5);

        let packet = Packet::parse(&bytes, Port::VXLAN).unwrap().unwrap();
        prop_assert_eq!(packet.header.vni, vni);
        prop_assert_eq!(packet.frame(), &frame[..]);
        prop_assert_eq!(packet.verify_udp(), Ok(()));
        let outer = SlicedPacket::from_ethernet(&bytes).unwrap();
        assert_ethernet(&packet.ethernet.unwrap(), &outer);
        assert_ip(&packet.ip, &outer);
        prop_assert_eq!((packet.udp.source(), packet.udp.destination()), ports(&outer).unwrap());
        assert_frame(&packet.inner, &frame);
        prop_assert_eq!(packet.inner.payload, &inner.payload[..]);
    }

    #[test]
    fn what_we_write_etherparse_and_we_read_alike(outer in outer(), inner in recipe(), room in 0_usize..20) {
        let frame = inner.build();
        let mut buffer = vec![0xee; room + outer.header_len()];
        prop_assert_eq!(outer.prepend(&mut buffer, frame.len()), Ok(room));
        buffer.extend(&frame);
        prop_assert!(buffer[..room].iter().all(|byte| *byte == 0xee));

        let bytes = &buffer[room..];
        let (packet, sliced) = match outer.macs {
            Some(_) => (Packet::parse(bytes, outer.destination_port), SlicedPacket::from_ethernet(bytes).unwrap()),
            None => (Packet::parse_ip(bytes, outer.destination_port), SlicedPacket::from_ip(bytes).unwrap()),
        };
        let packet = packet.unwrap().unwrap();
        prop_assert_eq!(fields(&packet), Some(outer));
        prop_assert_eq!(packet.frame(), &frame[..]);
        prop_assert_eq!(packet.verify_udp(), Ok(()));
        if let Some(ethernet) = &packet.ethernet {
            assert_ethernet(ethernet, &sliced);
        }
        assert_ip(&packet.ip, &sliced);
        prop_assert_eq!(ports(&sliced), Some((outer.source_port.get(), outer.destination_port.get())));
        if let Some(NetSlice::Ipv4(ip)) = &sliced.net {
            prop_assert_eq!(ip.header().header_checksum(), ip.header().to_header().calc_header_checksum());
            prop_assert_eq!(ip.header().dont_fragment(), outer.identification.is_none());
        }
        assert_frame(&packet.inner, &frame);
    }

    #[test]
    fn what_we_accept_of_damaged_packets_etherparse_accepts(
        outer in outer(), inner in recipe(), damage in vec((any::<Index>(), any::<u8>()), 0..6),
        cut in proptest::option::of(any::<Index>()), mend in any::<bool>(),
    ) {
        let outer = Outer { macs: Some(outer.macs.unwrap_or(MACS)), destination_port: Port::VXLAN, ..outer };
        let frame = inner.build();
        let mut bytes = vec![0; outer.header_len()];
        outer.prepend(&mut bytes, frame.len()).unwrap();
        bytes.extend(&frame);
        for (at, value) in damage {
            *at.get_mut(&mut bytes[..]) = value;
        }
        if mend {
            mend_checksum(&mut bytes);
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }

        let sliced = SlicedPacket::from_ethernet(&bytes);
        if let Ok(Some(packet)) = Packet::parse(&bytes, Port::VXLAN) {
            let sliced = sliced.unwrap();
            assert_ip(&packet.ip, &sliced);
            prop_assert_eq!(ports(&sliced), Some((packet.udp.source(), 4789)));
            // etherparse knows more VLAN tags, follows AH (51) in IPv4 too, and wants some ICMP messages of one length
            let judged = |ip: Ip<'_>| !matches!((ip.family(), ip.protocol()), (IpFamily::V4, 1 | 51));
            if packet.inner.ip.is_some_and(judged) {
                assert_frame(&packet.inner, packet.frame());
            }
        }
    }
}

/// A packet for etherparse to build.
#[derive(Debug, Clone)]
struct Recipe {
    macs: [[u8; 6]; 2],
    vlans: Vec<u16>,
    addresses: Addresses,
    transport: Kind,
    ports: (u16, u16),
    payload: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Tcp,
    Udp,
    Icmp,
}

fn recipe() -> impl Strategy<Value = Recipe> {
    let kind = prop_oneof![Just(Kind::Tcp), Just(Kind::Udp), Just(Kind::Icmp)];
    (any::<[[u8; 6]; 2]>(), vec(0_u16..4096, 0..=2), addresses(), kind, any::<(u16, u16)>(), vec(any::<u8>(), 0..200))
        .prop_map(|(macs, vlans, addresses, transport, ports, payload)| Recipe {
            macs,
            vlans,
            addresses,
            transport,
            ports,
            payload,
        })
}

fn addresses() -> impl Strategy<Value = Addresses> {
    prop_oneof![
        any::<[Ipv4Addr; 2]>().prop_map(|[source, destination]| Addresses::V4 { source, destination }),
        any::<[Ipv6Addr; 2]>().prop_map(|[source, destination]| Addresses::V6 { source, destination }),
    ]
}

fn outer() -> impl Strategy<Value = Outer> {
    let macs = (arbitrary::mac(), arbitrary::mac()).prop_map(|(source, destination)| Macs { source, destination });
    let numbers = (1_u8.., any::<u8>(), proptest::option::of(any::<u16>()));
    (proptest::option::of(macs), addresses(), arbitrary::port(), arbitrary::port(), arbitrary::vni(), numbers).prop_map(
        |(macs, addresses, source_port, destination_port, vni, (ttl, traffic_class, identification))| Outer {
            macs,
            addresses,
            source_port,
            destination_port,
            vni,
            ttl,
            traffic_class,
            identification: identification.filter(|_| addresses.family() == IpFamily::V4),
        },
    )
}

impl Recipe {
    fn build(&self) -> Vec<u8> {
        let [source, destination] = self.macs;
        let ethernet = PacketBuilder::ethernet2(source, destination);
        let id = |vlan: u16| VlanId::try_new(vlan).unwrap();
        match *self.vlans {
            [] => self.ip(|ip| ethernet.ip(ip)),
            [vlan] => self.ip(|ip| ethernet.single_vlan(id(vlan)).ip(ip)),
            [outer, inner, ..] => self.ip(|ip| ethernet.double_vlan(id(outer), id(inner)).ip(ip)),
        }
    }

    fn ip(
        &self,
        on: impl FnOnce(etherparse::IpHeaders) -> etherparse::PacketBuilderStep<etherparse::IpHeaders>,
    ) -> Vec<u8> {
        let protocol = etherparse::IpNumber::UDP; // overwritten by the builder
        let ip = on(match self.addresses {
            Addresses::V4 { source, destination } => etherparse::IpHeaders::Ipv4(
                etherparse::Ipv4Header::new(0, 7, protocol, source.octets(), destination.octets()).unwrap(),
                etherparse::Ipv4Extensions::default(),
            ),
            Addresses::V6 { source, destination } => etherparse::IpHeaders::Ipv6(
                etherparse::Ipv6Header {
                    hop_limit: 7,
                    source: source.octets(),
                    destination: destination.octets(),
                    ..etherparse::Ipv6Header::default()
                },
                etherparse::Ipv6Extensions::default(),
            ),
        });
        let (from, to) = self.ports;
        let mut bytes = Vec::new();
        match (self.transport, self.addresses.family()) {
            (Kind::Tcp, _) => ip.tcp(from, to, 1, 2).write(&mut bytes, &self.payload).unwrap(),
            (Kind::Udp, _) => ip.udp(from, to).write(&mut bytes, &self.payload).unwrap(),
            (Kind::Icmp, IpFamily::V4) => ip.icmpv4_echo_request(from, to).write(&mut bytes, &self.payload).unwrap(),
            (Kind::Icmp, IpFamily::V6) => ip.icmpv6_echo_request(from, to).write(&mut bytes, &self.payload).unwrap(),
        }
        bytes
    }
}

/// What was read, as what would have been written.
fn fields(packet: &Packet<'_>) -> Option<Outer> {
    Some(Outer {
        macs: packet.ethernet.map(|ethernet| Macs { source: ethernet.source(), destination: ethernet.destination() }),
        addresses: match packet.ip {
            Ip::V4(ip) => Addresses::V4 { source: ip.source(), destination: ip.destination() },
            Ip::V6(ip) => Addresses::V6 { source: ip.source(), destination: ip.destination() },
        },
        source_port: Port::new(packet.udp.source()).ok()?,
        destination_port: Port::new(packet.udp.destination()).ok()?,
        vni: packet.header.vni,
        ttl: packet.ip.ttl(),
        traffic_class: packet.ip.traffic_class(),
        identification: match packet.ip {
            Ip::V4(ip) if !ip.is_unfragmentable() => Some(ip.identification()),
            _ => None,
        },
    })
}

fn assert_frame(frame: &Frame<'_>, bytes: &[u8]) {
    let sliced = SlicedPacket::from_ethernet(bytes).unwrap();
    assert_ethernet(&frame.ethernet, &sliced);
    let Some(ip) = &frame.ip else {
        return assert!(!sliced.net.is_some_and(|net| net.is_ip()));
    };
    assert_ip(ip, &sliced);
    if let Some(transport) = frame.transport.filter(|transport| !matches!(transport, Transport::Sctp(_))) {
        assert_eq!(transport.ports(), ports(&sliced));
        let alike = match (&transport, &sliced.transport) {
            (Transport::Tcp(ours), Some(TransportSlice::Tcp(theirs))) => ours.sequence() == theirs.sequence_number(),
            (Transport::Udp(ours), Some(TransportSlice::Udp(theirs))) => ours.checksum() == theirs.checksum(),
            (Transport::Icmp(ours), Some(TransportSlice::Icmpv4(theirs))) => ours.kind() == theirs.type_u8(),
            (Transport::Icmp(ours), Some(TransportSlice::Icmpv6(theirs))) => ours.kind() == theirs.type_u8(),
            _ => false,
        };
        assert!(alike, "{transport:?} {:?}", sliced.transport);
    }
}

fn assert_ethernet(ours: &Ethernet<'_>, theirs: &SlicedPacket<'_>) {
    let Some(LinkSlice::Ethernet2(link)) = &theirs.link else { panic!("no Ethernet: {theirs:?}") };
    assert_eq!(ours.source(), Mac::new(link.source()));
    assert_eq!(ours.destination(), Mac::new(link.destination()));
    assert_eq!(ours.vlan(), theirs.vlan_ids().first().map(|vlan| vlan.value()));
}

fn assert_ip(ours: &Ip<'_>, theirs: &SlicedPacket<'_>) {
    let (source, destination, ttl, payload) = match &theirs.net {
        Some(NetSlice::Ipv4(ip)) => (
            IpAddr::from(ip.header().source_addr()),
            IpAddr::from(ip.header().destination_addr()),
            ip.header().ttl(),
            ip.payload(),
        ),
        Some(NetSlice::Ipv6(ip)) => (
            IpAddr::from(ip.header().source_addr()),
            IpAddr::from(ip.header().destination_addr()),
            ip.header().hop_limit(),
            ip.payload(),
        ),
        other => panic!("no IP: {other:?}"),
    };
    assert_eq!((ours.source(), ours.destination(), ours.ttl()), (source, destination, ttl));
    if !ours.is_fragment() {
        assert_eq!(ours.protocol(), payload.ip_number.0);
    }
    assert!(ours.is_fragment() || !payload.fragmented);
}

fn ports(sliced: &SlicedPacket<'_>) -> Option<(u16, u16)> {
    match &sliced.transport {
        Some(TransportSlice::Tcp(tcp)) => Some((tcp.source_port(), tcp.destination_port())),
        Some(TransportSlice::Udp(udp)) => Some((udp.source_port(), udp.destination_port())),
        _ => None,
    }
}

/// Makes the outer IPv4 checksum right again, so that damage gets past it.
fn mend_checksum(bytes: &mut [u8]) {
    if let [_, _, _, _, _, _, _, _, _, _, _, _, 8, 0, ip @ ..] = bytes
        && let Ok((header, _)) = etherparse::Ipv4Header::from_slice(ip)
    {
        ip[10..12].copy_from_slice(&header.calc_header_checksum().to_be_bytes());
    }
}

const MACS: Macs = Macs { source: Mac::ZERO, destination: Mac::BROADCAST };
