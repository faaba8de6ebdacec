//! Where a container is that looks for itself.

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, Icmpv6Packet, Icmpv6Repr,
    IpProtocol, Ipv6Packet, Ipv6Repr, NdiscNeighborFlags, NdiscRepr,
};

/// What a stack hears that asks its link for an address of its own, as it does when it answers a client that is itself: nobody else says
/// where that is, and a kernel would not ask. `None` for any other frame.
pub(super) fn answer(frame: &[u8], own: EthernetAddress, has: impl Fn(std::net::IpAddr) -> bool) -> Option<Vec<u8>> {
    let asked = EthernetFrame::new_checked(frame).ok()?;
    match asked.ethertype() {
        EthernetProtocol::Arp => arp(asked.payload(), own, has),
        EthernetProtocol::Ipv6 => neighbour(asked.payload(), own, has),
        _ => None,
    }
}

fn arp(packet: &[u8], own: EthernetAddress, has: impl Fn(std::net::IpAddr) -> bool) -> Option<Vec<u8>> {
    let ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Request,
        source_protocol_addr,
        target_protocol_addr: wanted,
        ..
    } = ArpRepr::parse(&ArpPacket::new_checked(packet).ok()?).ok()?
    else {
        return None;
    };
    if !has(wanted.into()) {
        return None;
    }
    let said = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Reply,
        source_hardware_addr: own,
        source_protocol_addr: wanted,
        target_hardware_addr: own,
        target_protocol_addr: source_protocol_addr,
    };
    let mut bytes = framed(own, EthernetProtocol::Arp, said.buffer_len());
    said.emit(&mut ArpPacket::new_unchecked(&mut bytes[14..]));
    Some(bytes)
}

fn neighbour(packet: &[u8], own: EthernetAddress, has: impl Fn(std::net::IpAddr) -> bool) -> Option<Vec<u8>> {
    let ip = Ipv6Repr::parse(&Ipv6Packet::new_checked(packet).ok()?).ok()?;
    let (checks, at) = (ChecksumCapabilities::default(), 40);
    if ip.next_header != IpProtocol::Icmpv6 {
        return None;
    }
    let asked = Icmpv6Packet::new_checked(packet.get(at..)?).ok()?;
    let asked = Icmpv6Repr::parse(&ip.src_addr, &ip.dst_addr, &asked, &checks).ok()?;
    let Icmpv6Repr::Ndisc(NdiscRepr::NeighborSolicit { target_addr: wanted, .. }) = asked else { return None };
    if !has(wanted.into()) {
        return None;
    }
    let flags = NdiscNeighborFlags::SOLICITED | NdiscNeighborFlags::OVERRIDE;
    let said = NdiscRepr::NeighborAdvert { flags, target_addr: wanted, lladdr: Some(own.into()) };
    let said = Icmpv6Repr::Ndisc(said);
    let head = Ipv6Repr {
        src_addr: wanted,
        dst_addr: ip.src_addr,
        next_header: IpProtocol::Icmpv6,
        payload_len: said.buffer_len(),
        hop_limit: 255,
    };
    let mut bytes = framed(own, EthernetProtocol::Ipv6, at + said.buffer_len());
    head.emit(&mut Ipv6Packet::new_unchecked(&mut bytes[14..]));
    let message = &mut Icmpv6Packet::new_unchecked(&mut bytes[14 + at..]);
    said.emit(&head.src_addr, &head.dst_addr, message, &checks);
    Some(bytes)
}

fn framed(own: EthernetAddress, kind: EthernetProtocol, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; 14 + len];
    let mut frame = EthernetFrame::new_unchecked(&mut bytes);
    frame.set_src_addr(own);
    frame.set_dst_addr(own);
    frame.set_ethertype(kind);
    bytes
}
