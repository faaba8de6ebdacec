//! Frames, as etherparse writes and reads them.

use std::net::IpAddr;

use etherparse::{NetHeaders, PacketBuilder, PacketHeaders, TransportHeader};
use overlay_core::Mac;

/// An end of a conversation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct End {
    pub(crate) mac: Mac,
    pub(crate) address: IpAddr,
    pub(crate) port: u16,
}

pub(crate) fn builder(from: End, to: End) -> etherparse::PacketBuilderStep<etherparse::IpHeaders> {
    let ethernet = PacketBuilder::ethernet2(from.mac.octets(), to.mac.octets());
    match (from.address, to.address) {
        (IpAddr::V4(from), IpAddr::V4(to)) => ethernet.ipv4(from.octets(), to.octets(), 64),
        (IpAddr::V6(from), IpAddr::V6(to)) => ethernet.ipv6(from.octets(), to.octets(), 64),
        _ => panic!("of two families"),
    }
}

pub(crate) fn udp(from: End, to: End, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    builder(from, to).udp(from.port, to.port).write(&mut frame, payload).unwrap();
    frame
}

/// A TCP segment with SYN, which asks for segments of 1,460 bytes, or with ACK.
pub(crate) fn tcp(from: End, to: End, begins: bool) -> Vec<u8> {
    let step = builder(from, to).tcp(from.port, to.port, 1, 1_000);
    let mut frame = Vec::new();
    match begins {
        true => {
            let size = etherparse::TcpOptionElement::MaximumSegmentSize(1_460);
            step.syn().options(&[size]).unwrap().write(&mut frame, &[]).unwrap();
        }
        false => step.ack(1).write(&mut frame, b"more").unwrap(),
    }
    frame
}

/// What a frame says of itself; its checksums must be right.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) source: Mac,
    pub(crate) destination: Mac,
    pub(crate) from: (IpAddr, u16),
    pub(crate) to: (IpAddr, u16),
    pub(crate) ttl: u8,
    pub(crate) payload: Vec<u8>,
}

pub(crate) fn see(frame: &[u8]) -> Seen {
    let packet = PacketHeaders::from_ethernet_slice(frame).unwrap();
    let Some(etherparse::LinkHeader::Ethernet2(ethernet)) = &packet.link else { panic!("no Ethernet") };
    let payload = packet.payload.slice();
    let net = packet.net.as_ref().unwrap();
    let (source, destination, ttl) = match net {
        NetHeaders::Ipv4(ip, _) => {
            assert_eq!(ip.header_checksum, ip.calc_header_checksum());
            (IpAddr::from(ip.source), IpAddr::from(ip.destination), ip.time_to_live)
        }
        NetHeaders::Ipv6(ip, _) => (IpAddr::from(ip.source), IpAddr::from(ip.destination), ip.hop_limit),
        NetHeaders::Arp(_) => panic!("ARP"),
    };
    let (from_port, to_port) = match packet.transport.as_ref() {
        Some(TransportHeader::Udp(udp)) => {
            assert_eq!(
                udp.checksum,
                summed(
                    net,
                    |ip| udp.calc_checksum_ipv4(ip, payload).unwrap(),
                    |ip| udp.calc_checksum_ipv6(ip, payload).unwrap()
                )
            );
            (udp.source_port, udp.destination_port)
        }
        Some(TransportHeader::Tcp(tcp)) => {
            assert_eq!(
                tcp.checksum,
                summed(
                    net,
                    |ip| tcp.calc_checksum_ipv4(ip, payload).unwrap(),
                    |ip| tcp.calc_checksum_ipv6(ip, payload).unwrap()
                )
            );
            (tcp.source_port, tcp.destination_port)
        }
        Some(TransportHeader::Icmpv4(icmp)) => {
            assert_eq!(icmp.checksum, icmp.icmp_type.calc_checksum(payload));
            (0, 0)
        }
        Some(TransportHeader::Icmpv6(icmp)) => {
            let NetHeaders::Ipv6(ip, _) = net else { panic!("ICMPv6 in IPv4") };
            assert_eq!(Ok(icmp.checksum), icmp.icmp_type.calc_checksum(ip.source, ip.destination, payload));
            (0, 0)
        }
        Some(TransportHeader::Igmp(_)) => panic!("IGMP"),
        None => (0, 0),
    };
    Seen {
        source: ethernet.source.into(),
        destination: ethernet.destination.into(),
        from: (source, from_port),
        to: (destination, to_port),
        ttl,
        payload: payload.to_vec(),
    }
}

fn summed(
    net: &NetHeaders,
    v4: impl Fn(&etherparse::Ipv4Header) -> u16,
    v6: impl Fn(&etherparse::Ipv6Header) -> u16,
) -> u16 {
    match net {
        NetHeaders::Ipv4(ip, _) => v4(ip),
        NetHeaders::Ipv6(ip, _) => v6(ip),
        NetHeaders::Arp(_) => panic!("ARP"),
    }
}
