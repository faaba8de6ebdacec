//! Bodies for overlay-vxlan: no bytes make its readers panic, and what they read is written and read again alike.

use overlay_core::{Port, PortRange};
use overlay_vxlan::{Addresses, Ethernet, Flow, Frame, Header, Ip, Macs, Outer, Packet};

use crate::Body;

pub(crate) const TARGETS: &[(&str, Body)] = &[("vxlan_header", header), ("vxlan_packet", packet), ("vxlan_flow", flow)];

/// A VXLAN header: what parses encodes to the same bytes, reserved ones zeroed, and parses back.
fn header(data: &[u8]) {
    let Ok((header, frame)) = Header::parse(data) else { return };
    let mut datagram = Vec::new();
    header.push(&mut datagram);
    datagram.extend_from_slice(frame);
    assert_eq!(Header::parse(&datagram), Ok((header, frame)));

    let mut prepended = data.to_vec();
    let (headroom, _) = prepended.split_at_mut(Header::LEN);
    assert_eq!(header.prepend(headroom), Some(0));
    assert_eq!(prepended, datagram);
}

/// A whole packet, with and without an outer Ethernet header: what parses is written anew and parses to the same fields.
fn packet(data: &[u8]) {
    if let Ok(Some(packet)) = Packet::parse(data, Port::VXLAN) {
        write_again(&packet);
    }
    if let Ok(Some(packet)) = Packet::parse_ip(data, Port::VXLAN) {
        write_again(&packet);
    }
}

/// An inner frame: it has one flow, whatever it is, with a source port in range; a frame that parses has the flow its
/// headers say.
fn flow(data: &[u8]) {
    let flow = Flow::of(data);
    assert_eq!(Flow::hash_of(data, 0x5eed), flow.hash(0x5eed));
    let ports = PortRange::DYNAMIC;
    for seed in [0, 0x5eed, u64::MAX] {
        assert!(ports.contains(ports.pick(flow.hash(seed))));
    }
    if let Ok(frame) = Frame::parse(data) {
        assert_flow(&frame, flow);
    }
}

fn write_again(packet: &Packet<'_>) {
    assert!(packet.inner.payload.len() <= packet.frame().len());
    let _ = packet.verify_udp(); // either verdict will do, a panic will not
    let Some(outer) = outer(packet) else { return };
    let mut bytes = vec![0; outer.header_len()];
    match outer.prepend(&mut bytes, packet.frame().len()) {
        Ok(start) => assert_eq!(start, 0),
        Err(refused) => panic!("{refused}: it came in a packet"),
    }
    bytes.extend_from_slice(packet.frame());
    let read = match outer.macs {
        Some(_) => Packet::parse(&bytes, outer.destination_port),
        None => Packet::parse_ip(&bytes, outer.destination_port),
    };
    let Ok(Some(read)) = read else { panic!("ours does not parse: {read:?}") };
    assert_eq!(self::outer(&read), Some(outer));
    assert_eq!((read.frame(), read.inner), (packet.frame(), packet.inner));
    assert_eq!(read.verify_udp(), Ok(()));
}

/// What was read, as what is written; without VLAN tags, IP options and extension headers, which we do not write.
fn outer(packet: &Packet<'_>) -> Option<Outer> {
    let macs = |ethernet: Ethernet<'_>| Macs { source: ethernet.source(), destination: ethernet.destination() };
    Some(Outer {
        macs: packet.ethernet.map(macs),
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

fn assert_flow(frame: &Frame<'_>, flow: Flow) {
    match (frame.ip, flow) {
        (Some(Ip::V4(ip)), Flow::V4 { source, destination, protocol, .. }) => {
            assert_eq!((ip.source(), ip.destination(), ip.protocol()), (source, destination, protocol));
        }
        (Some(Ip::V6(ip)), Flow::V6 { source, destination, protocol, .. }) => {
            let expected = if ip.is_fragment() { 44 } else { ip.protocol() };
            assert_eq!((ip.source(), ip.destination(), expected), (source, destination, protocol));
        }
        (None, Flow::Ethernet { source, destination, ethertype }) => {
            let ethernet = frame.ethernet;
            assert_eq!((ethernet.source(), ethernet.destination()), (source, destination));
            assert_eq!(ethernet.ethertype(), ethertype);
        }
        _ => panic!("{flow:?} of {frame:?}"),
    }
    let ports = match flow {
        Flow::V4 { ports, .. } | Flow::V6 { ports, .. } => ports,
        Flow::Ethernet { .. } => None,
    };
    if let Some(transport) = frame.transport {
        assert_eq!(transport.ports(), ports);
    }
    if frame.ip.is_some_and(|ip| ip.is_fragment()) {
        assert_eq!(ports, None);
    }
}
