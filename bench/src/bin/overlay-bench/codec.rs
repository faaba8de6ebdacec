//! `codec`: VXLAN packets in memory.
//!
//! Every figure works through a ring of 64 packets in turn, each with its own addresses, ports and VNI, so that neither
//! the branch predictor nor the optimiser knows the next one; their headers fit the first-level cache, as a
//! packet's do right after it was received. Ring, loop and `black_box` cost 1 ns at most and are in every figure. The inner
//! payload is 1,400 bytes of TCP and is never read. The memcpy is from and to one place each, so also within the
//! first-level cache.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::hint::black_box;
use std::io;
use std::net::Ipv4Addr;

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use overlay_bench::Bench;
use overlay_core::{Mac, Port, Vni};
use overlay_vxlan::{Addresses, Flow, Header, Ip, Macs, Outer, Packet};
use smoltcp::wire::{EthernetFrame, EthernetProtocol, IpProtocol, Ipv4Packet, TcpPacket, UdpPacket};

pub(crate) fn run(bench: &mut Bench<'_>) -> io::Result<()> {
    let ring = Ring::new();
    header(bench, &ring)?;
    parse_full(bench, &ring)?;
    flow_hash(bench, &ring)?;
    encode_outer(bench, &ring)
}

/// The 8 bytes alone: written in front of a frame, and read with the frame split off.
fn header(bench: &mut Bench<'_>, ring: &Ring) -> io::Result<()> {
    let mut buffer = [0; 64];
    bench
        .figure("codec/vxlan-encode", "ns")
        .each(|n| {
            black_box(Header { vni: ring.at(n).outer.vni }.prepend(black_box(&mut buffer)));
        })
        .yardstick(MEMCPY, memcpy())
        .report()?;
    bench
        .figure("codec/vxlan-parse", "ns")
        .each(|n| {
            black_box(Header::parse(black_box(&ring.at(n).bytes[VXLAN..])).is_ok_and(|(header, frame)| {
                black_box(header.vni);
                black_box(frame.len()) > 0
            }));
        })
        .yardstick(MEMCPY, memcpy())
        .report()
}

/// From the outer Ethernet header to the inner TCP payload: all lengths and the outer IPv4 checksum checked, and from
/// each header what a data path needs: outer addresses, VNI, inner addresses and ports, payload.
fn parse_full(bench: &mut Bench<'_>, ring: &Ring) -> io::Result<()> {
    bench
        .figure("codec/parse-full", "ns")
        .each(|n| {
            black_box(ours(black_box(&ring.at(n).bytes)).map_or(0, sum));
        })
        .yardstick("smoltcp wire types", |n| {
            black_box(smoltcp(black_box(&ring.at(n).bytes)).map_or(0, sum));
        })
        .yardstick("etherparse sliced, no checksum", |n| {
            black_box(etherparse(black_box(&ring.at(n).bytes)).map_or(0, sum));
        })
        .report()
}

/// From an inner frame to its outer source port's hash.
fn flow_hash(bench: &mut Bench<'_>, ring: &Ring) -> io::Result<()> {
    bench
        .figure("codec/inner-flow-hash", "ns")
        .each(|n| {
            black_box(Flow::hash_of(black_box(&ring.at(n).bytes[INNER..]), 0x5eed));
        })
        .yardstick("etherparse sliced and std's hash", |n| {
            black_box(etherparse_hash(black_box(&ring.at(n).bytes[INNER..])));
        })
        .report()
}

/// All 50 bytes of Ethernet, IPv4 with checksum, UDP and VXLAN, in front of a frame of 1,454 bytes.
fn encode_outer(bench: &mut Bench<'_>, ring: &Ring) -> io::Result<()> {
    let mut buffer = [0; 64];
    bench
        .figure("codec/encode-outer", "ns")
        .each(|n| {
            black_box(black_box(&ring.at(n).outer).prepend(black_box(&mut buffer), FRAME).is_ok());
        })
        .yardstick(MEMCPY, memcpy())
        .report()
}

/// Takes every field into account, so that none goes unread, without writing them all to memory for the optimiser's sake.
#[inline(always)]
fn sum((source, destination, vni, from, to, port, other, payload): Read<'_>) -> usize {
    [source, destination, from, to].map(|address| u32::from(address) as usize).iter().sum::<usize>()
        + vni as usize
        + usize::from(port)
        + usize::from(other)
        + payload.len()
}

/// What a data path reads of a packet.
type Read<'a> = (Ipv4Addr, Ipv4Addr, u32, Ipv4Addr, Ipv4Addr, u16, u16, &'a [u8]);

#[inline(always)]
fn ours(bytes: &[u8]) -> Option<Read<'_>> {
    let packet = Packet::parse(bytes, Port::VXLAN).ok()??;
    let (Ip::V4(outer), Some(Ip::V4(inner))) = (packet.ip, packet.inner.ip) else { return None };
    let (from, to) = packet.inner.transport?.ports()?;
    let vni = packet.header.vni.get();
    Some((
        outer.source(),
        outer.destination(),
        vni,
        inner.source(),
        inner.destination(),
        from,
        to,
        packet.inner.payload,
    ))
}

#[inline(always)]
fn smoltcp(bytes: &[u8]) -> Option<Read<'_>> {
    let ethernet = EthernetFrame::new_checked(bytes).ok()?;
    if ethernet.ethertype() != EthernetProtocol::Ipv4 {
        return None;
    }
    let outer = Ipv4Packet::new_checked(ethernet.payload()).ok()?;
    if outer.next_header() != IpProtocol::Udp || !outer.verify_checksum() {
        return None;
    }
    let udp = UdpPacket::new_checked(outer.payload()).ok()?;
    if udp.dst_port() != 4789 {
        return None;
    }
    let (vni, frame) = vxlan(udp.payload())?;
    let ethernet = EthernetFrame::new_checked(frame).ok()?;
    if ethernet.ethertype() != EthernetProtocol::Ipv4 {
        return None;
    }
    let inner = Ipv4Packet::new_checked(ethernet.payload()).ok()?;
    if inner.next_header() != IpProtocol::Tcp {
        return None;
    }
    let tcp = TcpPacket::new_checked(inner.payload()).ok()?;
    let (from, to) = (tcp.src_port(), tcp.dst_port());
    Some((outer.src_addr(), outer.dst_addr(), vni, inner.src_addr(), inner.dst_addr(), from, to, tcp.payload()))
}

#[inline(always)]
fn etherparse(bytes: &[u8]) -> Option<Read<'_>> {
    let sliced = SlicedPacket::from_ethernet(bytes).ok()?;
    let (Some(NetSlice::Ipv4(outer)), Some(TransportSlice::Udp(udp))) = (&sliced.net, &sliced.transport) else {
        return None;
    };
    if udp.destination_port() != 4789 {
        return None;
    }
    let (vni, frame) = vxlan(udp.payload())?;
    let sliced = SlicedPacket::from_ethernet(frame).ok()?;
    let (Some(NetSlice::Ipv4(inner)), Some(TransportSlice::Tcp(tcp))) = (&sliced.net, &sliced.transport) else {
        return None;
    };
    let (outer, inner) = (outer.header(), inner.header());
    Some((
        outer.source_addr(),
        outer.destination_addr(),
        vni,
        inner.source_addr(),
        inner.destination_addr(),
        tcp.source_port(),
        tcp.destination_port(),
        tcp.payload(),
    ))
}

#[inline(never)]
fn etherparse_hash(frame: &[u8]) -> Option<u64> {
    let sliced = SlicedPacket::from_ethernet(frame).ok()?;
    let (Some(NetSlice::Ipv4(ip)), Some(TransportSlice::Tcp(tcp))) = (&sliced.net, &sliced.transport) else {
        return None;
    };
    let tuple = (
        ip.header().source(),
        ip.header().destination(),
        ip.header().protocol().0,
        tcp.source_port(),
        tcp.destination_port(),
    );
    let mut hasher = DefaultHasher::new();
    tuple.hash(&mut hasher);
    Some(hasher.finish())
}

/// The VXLAN header by hand, for the peers that have none.
fn vxlan(datagram: &[u8]) -> Option<(u32, &[u8])> {
    match datagram {
        [flags, _, _, _, a, b, c, _, frame @ ..] if flags & 0x08 != 0 => {
            Some((u32::from_be_bytes([0, *a, *b, *c]), frame))
        }
        _ => None,
    }
}

/// The yardstick of what only touches headers: copying a packet of this size once, between cache lines' starts.
fn memcpy() -> impl FnMut(usize) {
    #[repr(align(64))]
    struct Aligned([u8; COPY]);
    let (from, mut to) = (Box::new(Aligned([0xa5; COPY])), Box::new(Aligned([0; COPY])));
    move |_| black_box(&mut to.0[..]).copy_from_slice(black_box(&from.0[..]))
}

/// Packets to take in turn.
struct Ring(Vec<Example>);

/// A packet, and the outer headers it has.
struct Example {
    outer: Outer,
    bytes: Vec<u8>,
}

impl Ring {
    fn new() -> Self {
        Self((0..RING as u32).map(Example::new).collect())
    }

    #[inline]
    fn at(&self, n: usize) -> &Example {
        &self.0[n % RING]
    }
}

impl Example {
    fn new(n: u32) -> Self {
        let scatter = n.wrapping_mul(0x9e37_79b9); // neighbours differ in all bytes
        let node = |n: u32| Ipv4Addr::from(0xc000_0201 + n % 250);
        let container = |n: u32| Ipv4Addr::from(0x0a00_0002 + n % 65_000);
        let (from, to) = (container(scatter >> 8), container(scatter >> 16));
        let mut frame = Vec::new();
        let inner = etherparse::PacketBuilder::ethernet2(Mac::from_ipv4(from).octets(), Mac::from_ipv4(to).octets())
            .ipv4(from.octets(), to.octets(), 64)
            .tcp(32_768 + (scatter >> 17) as u16, 443, scatter, 65_535);
        inner.write(&mut frame, &[scatter as u8; 1_400]).unwrap_or_default();
        let addresses = Addresses::V4 { source: node(scatter >> 3), destination: node(scatter >> 12) };
        let port = Port::new(49_152 + (scatter >> 18) as u16).unwrap_or(Port::MAX);
        let macs = Macs { source: Mac::from_ipv4(from), destination: Mac::from_ipv4(to) };
        let vni = Vni::new(4096 + n).unwrap_or(Vni::MAX);
        let outer = Outer { macs: Some(macs), ..Outer::new(addresses, port, vni) };
        let mut bytes = vec![0; INNER];
        assert_eq!(outer.prepend(&mut bytes, frame.len()), Ok(0));
        bytes.extend(frame);
        Self { outer, bytes }
    }
}

const RING: usize = 64;
const COPY: usize = 1_450;
const MEMCPY: &str = "memcpy of 1450 bytes";
const VXLAN: usize = 42; // the VXLAN header's offset in a packet
const INNER: usize = 50; // the inner frame's
const FRAME: usize = 1_454;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_readers_read_the_same_of_every_packet() {
        for example in Ring::new().0 {
            let read = ours(&example.bytes).unwrap();
            assert_eq!(read.7.len(), 1_400);
            assert_eq!(Some(read), smoltcp(&example.bytes));
            assert_eq!(Some(read), etherparse(&example.bytes));
            assert!(etherparse_hash(&example.bytes[INNER..]).is_some());
        }
    }
}
