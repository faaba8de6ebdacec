//! Packets that are translated, held against checksums computed whole by somebody else.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail loudly too")]

use std::net::{IpAddr, SocketAddr};

use etherparse::{IpNumber, LaxSlicedPacket, PacketBuilder, SlicedPacket, TransportSlice};
use overlay_core::Protocol;
use overlay_lb::{Tuple, Untranslatable, translate};
use proptest::collection::vec;
use proptest::prelude::*;

fn addresses() -> impl Strategy<Value = [IpAddr; 4]> {
    prop_oneof![
        any::<[[u8; 4]; 4]>().prop_map(|all| all.map(IpAddr::from)),
        // Those of IPv4 in IPv6's form are no IPv6 addresses on a wire.
        any::<[[u8; 16]; 4]>().prop_map(|all| all.map(|mut it| {
            it[0] |= 0x20;
            IpAddr::from(it)
        })),
    ]
}

fn ip_step(from: IpAddr, to: IpAddr) -> etherparse::PacketBuilderStep<etherparse::IpHeaders> {
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => PacketBuilder::ipv4(from.octets(), to.octets(), 64),
        (IpAddr::V6(from), IpAddr::V6(to)) => PacketBuilder::ipv6(from.octets(), to.octets(), 64),
        _ => unreachable!("of one family"),
    }
}

/// A packet with right checksums, from and to here.
fn packet(protocol: Protocol, from: SocketAddr, to: SocketAddr, data: &[u8]) -> Vec<u8> {
    let step = ip_step(from.ip(), to.ip());
    let mut bytes = Vec::new();
    match protocol {
        Protocol::Tcp => step.tcp(from.port(), to.port(), 7, 1000).ack(9).write(&mut bytes, data).unwrap(),
        Protocol::Udp => step.udp(from.port(), to.port()).write(&mut bytes, data).unwrap(),
        Protocol::Sctp => {
            let mut chunk = [from.port().to_be_bytes(), to.port().to_be_bytes()].concat();
            chunk.extend([1, 2, 3, 4, 0, 0, 0, 0]);
            chunk.extend(data);
            let crc = crc32c(&chunk);
            chunk[8..12].copy_from_slice(&crc);
            step.write(&mut bytes, IpNumber::SCTP, &chunk).unwrap();
        }
    }
    bytes
}

/// Bit by bit, as RFC 9260 appendix A has it.
fn crc32c(bytes: &[u8]) -> [u8; 4] {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
        }
    }
    (!crc).to_le_bytes()
}

fn protocol() -> impl Strategy<Value = Protocol> {
    prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp), Just(Protocol::Sctp)]
}

proptest! {
    #[test]
    fn a_translated_packet_is_the_packet_that_would_have_been_sent(
        protocol in protocol(), [a, b, c, d] in addresses(), ports: [u16; 4], data in vec(any::<u8>(), 0..200),
    ) {
        let [from, to, new_from, new_to] = [(a, 0), (b, 1), (c, 2), (d, 3)].map(|(ip, at): (IpAddr, usize)| SocketAddr::new(ip, ports[at]));
        let mut translated = packet(protocol, from, to, &data);
        translate(&mut translated, &Tuple::new(protocol, new_from, new_to)).unwrap();
        prop_assert_eq!(translated, packet(protocol, new_from, new_to, &data));
    }

    /// A checksum that is wrong tells the receiver; to make it right would hide the damage.
    #[test]
    fn what_was_damaged_stays_damaged(
        protocol in protocol(), [a, b, c, d] in addresses(), ports: [u16; 4], data in vec(any::<u8>(), 1..60), flip in 0_u8..8,
    ) {
        let [from, to, new_from, new_to] = [(a, 0), (b, 1), (c, 2), (d, 3)].map(|(ip, at): (IpAddr, usize)| SocketAddr::new(ip, ports[at]));
        let mut damaged = packet(protocol, from, to, &data);
        *damaged.last_mut().unwrap() ^= 1 << flip;
        translate(&mut damaged, &Tuple::new(protocol, new_from, new_to)).unwrap();
        let mut data = data;
        *data.last_mut().unwrap() ^= 1 << flip;
        prop_assert_ne!(damaged, packet(protocol, new_from, new_to, &data));
    }

    #[test]
    fn a_datagram_without_a_checksum_stays_without(a: [u8; 4], b: [u8; 4], ports: [u16; 2]) {
        let to = SocketAddr::from((b, ports[1]));
        let mut datagram = packet(Protocol::Udp, SocketAddr::from((a, 1)), "192.0.2.1:2".parse().unwrap(), b"data");
        datagram[26..28].fill(0);
        translate(&mut datagram, &Tuple::new(Protocol::Udp, SocketAddr::from((a, ports[0])), to)).unwrap();
        prop_assert_eq!(&datagram[26..28], &[0, 0]);
    }

    #[test]
    fn there_and_back_again_is_the_same(protocol in protocol(), [a, b, c, d] in addresses(), ports: [u16; 4], data in vec(any::<u8>(), 0..99)) {
        let [from, to, new_from, new_to] = [(a, 0), (b, 1), (c, 2), (d, 3)].map(|(ip, at): (IpAddr, usize)| SocketAddr::new(ip, ports[at]));
        let before = packet(protocol, from, to, &data);
        let mut turned = before.clone();
        translate(&mut turned, &Tuple::new(protocol, new_from, new_to)).unwrap();
        translate(&mut turned, &Tuple::new(protocol, from, to)).unwrap();
        prop_assert_eq!(turned, before);
    }

    #[test]
    fn no_bytes_are_more_than_untranslatable(mut bytes in vec(any::<u8>(), 0..120), version in prop_oneof![Just(0x45_u8), Just(0x60), any::<u8>()], protocol in protocol()) {
        if let Some(first) = bytes.first_mut() {
            *first = version;
        }
        let before = bytes.clone();
        for to in ["192.0.2.1:1", "[2001:db8::1]:1"] {
            let to: SocketAddr = to.parse().unwrap();
            if translate(&mut bytes, &Tuple::new(protocol, to, to)).is_err() {
                prop_assert_eq!(&bytes, &before);
            }
        }
    }
}

#[test]
fn what_is_no_whole_packet_of_the_kind_is_left_alone() {
    let [from, to]: [SocketAddr; 2] = ["10.0.0.1:1", "10.0.0.2:2"].map(|it| it.parse().unwrap());
    let whole = packet(Protocol::Tcp, from, to, b"data");
    let tuple = Tuple::new(Protocol::Tcp, to, from);
    for cut in 0..whole.len() {
        let mut packet = whole[..cut].to_vec();
        assert_eq!(translate(&mut packet, &tuple), Err(Untranslatable), "{cut}");
        assert_eq!(packet, whole[..cut]);
    }
    let mut fragment = whole.clone();
    fragment[6] |= 0x20;
    assert_eq!(translate(&mut fragment, &tuple), Err(Untranslatable));
    assert_eq!(translate(&mut whole.clone(), &Tuple::new(Protocol::Udp, to, from)), Err(Untranslatable));
    let v6 = "[fd00::1]:1".parse().unwrap();
    assert_eq!(translate(&mut whole.clone(), &Tuple::new(Protocol::Tcp, v6, v6)), Err(Untranslatable));
    let mut padded = whole;
    padded.extend([0; 6]);
    assert_eq!(translate(&mut padded, &tuple), Ok(()));
    assert!(SlicedPacket::from_ip(&padded).is_ok() && LaxSlicedPacket::from_ip(&padded).is_ok());
    let Some(TransportSlice::Tcp(tcp)) = SlicedPacket::from_ip(&padded).unwrap().transport else { panic!() };
    assert_eq!((tcp.source_port(), tcp.destination_port()), (2, 1));
}
