//! Outer headers: what is written around a frame, and read of a packet that arrives.

use std::net::IpAddr;
use std::ops::Range;

use overlay_core::{DontFragment, Ttl};
use overlay_crypto::{Datagram, SaId, Verdict};
use overlay_vxlan::{Addresses, Header, Outer};

use crate::content::Contents;
use crate::header::ECN;
use crate::tables::{SegmentTable, Tables};
use crate::{Buffer, Reason, checksum};

/// Writes VXLAN, UDP and IP in front of a frame, for a node, and says from which source port that leaves.
#[inline(always)]
pub(crate) fn encapsulate(
    segment: &SegmentTable,
    to: IpAddr,
    (seed, identification): (u64, u16),
    contents: &Contents,
    buffer: &mut Buffer,
) -> Result<u16, Reason> {
    let vtep = &segment.vtep;
    let addresses = match (vtep.local, to) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => Addresses::V4 { source, destination },
        (IpAddr::V6(source), IpAddr::V6(destination)) => Addresses::V6 { source, destination },
        _ => return Err(Reason::NoTunnel),
    };
    let source_port = vtep.source_ports.pick(contents.flow_hash(buffer.packet(), seed));
    let inner = contents.inner;
    let outer = Outer {
        destination_port: vtep.port,
        ttl: match (vtep.ttl, inner) {
            (Ttl::Hops(hops), _) => hops.get(),
            (Ttl::Inherit, Some(inner)) => inner.ttl.max(1),
            _ => 64,
        },
        traffic_class: inner.map_or(0, |inner| inner.congestion), // RFC 6040 §4.1
        identification: match (vtep.dont_fragment, inner) {
            (DontFragment::Set, _) => None,
            (DontFragment::Inherit, Some(inner)) if inner.unfragmentable => None,
            _ => Some(identification),
        },
        ..Outer::new(addresses, source_port, segment.vni)
    };
    let len = buffer.len();
    let start = outer.prepend(buffer.headroom(), len).map_err(|_| Reason::Room)?;
    let end = buffer.range().end;
    buffer.set(start..end).ok_or(Reason::Room)?;
    if vtep.udp_checksum {
        sum_datagram(buffer.packet_mut(), addresses.family().header_len()).ok_or(Reason::Room)?;
    }
    Ok(source_port.get())
}

/// By which association a segment's datagrams to a node leave from a source port; none where they leave in the clear.
#[inline(always)]
pub(crate) fn protected(
    tables: &Tables,
    segment: &SegmentTable,
    (to, source_port): (IpAddr, u16),
) -> Result<Option<SaId>, Reason> {
    let (source, destination_port) = (segment.vtep.local, segment.vtep.port.get());
    match tables.guards.outgoing(&Datagram { source, destination: to, source_port, destination_port }) {
        Verdict::Pass if segment.sealed => Err(Reason::Clear),
        Verdict::Pass => Ok(None),
        Verdict::Seal(id) => Ok(Some(id)),
        Verdict::Drop(overlay_crypto::Reason::NoAssociation) => Err(Reason::NoAssociation),
        Verdict::Drop(_) | Verdict::Open(_) => Err(Reason::NoTunnel),
    }
}

/// Writes the UDP checksum of a packet (RFC 768).
fn sum_datagram(packet: &mut [u8], header_len: usize) -> Option<()> {
    let sum = datagram_sum(packet, header_len)?;
    let field = packet.get_mut(header_len + 6..header_len + 8)?;
    field.copy_from_slice(&(if sum == 0 { 0xffff } else { sum }).to_be_bytes());
    Some(())
}

/// The checksum of the UDP datagram that a packet ends with, over what stands in its field, too.
fn datagram_sum(packet: &[u8], header_len: usize) -> Option<u16> {
    let addresses = if packet.first()? >> 4 == 4 { 12..20 } else { 8..40 };
    let pseudo = checksum::sum(packet.get(addresses)?) + u64::from(crate::protection::UDP);
    let datagram = packet.get(header_len..)?;
    Some(checksum::finish(pseudo + datagram.len() as u64 + checksum::sum(datagram)))
}

/// Says in the header of an IP packet what it carries now, and how long it is.
pub(crate) fn carry(packet: &mut [u8], protocol: u8) -> Option<()> {
    let len = packet.len();
    match packet.first()? >> 4 {
        4 => {
            let header_len = usize::from(packet.first()? & 15) * 4;
            let header = packet.get_mut(..header_len).filter(|header| header.len() >= 20)?;
            header[2..4].copy_from_slice(&u16::try_from(len).ok()?.to_be_bytes());
            header[9] = protocol;
            header[10..12].copy_from_slice(&[0; 2]);
            let sum = checksum::finish(sum_header(header)).to_be_bytes();
            header[10..12].copy_from_slice(&sum);
        }
        _ => {
            let header: &mut [u8; 40] = packet.first_chunk_mut()?;
            header[4..6].copy_from_slice(&u16::try_from(len.checked_sub(40)?).ok()?.to_be_bytes());
            header[6] = protocol;
        }
    }
    Some(())
}

/// The sum of an IPv4 header.
#[inline]
fn sum_header(header: &[u8]) -> u64 {
    header.try_into().map_or_else(|_| checksum::sum(header), checksum::sum_header)
}

/// The outer header of a packet that arrived, as far as it says whose it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Arrival {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) protocol: u8,
    /// Bytes of the IP header.
    pub(crate) header_len: usize,
    /// Bytes of the packet; what is behind them is padding.
    pub(crate) len: usize,
    /// Whether it met congestion (RFC 3168 §5).
    pub(crate) congested: bool,
}

impl Arrival {
    /// Reads it: no fragment, with no extension headers. Nodes send none.
    #[inline(always)]
    pub(crate) fn read(packet: &[u8]) -> Option<Self> {
        let congested = |class: u8| class & ECN == ECN;
        match packet.first()? >> 4 {
            4 => {
                let head: &[u8; 20] = packet.first_chunk()?;
                let header_len = usize::from(head[0] & 15) * 4;
                let len = usize::from(u16::from_be_bytes([head[2], head[3]]));
                let part = u16::from_be_bytes([head[6], head[7]]) & 0x3fff != 0;
                let sum = checksum::finish(sum_header(packet.get(..header_len)?));
                let whole = header_len >= 20 && len >= header_len && packet.len() >= len && sum == 0 && !part;
                let address = |at: usize| IpAddr::from([head[at], head[at + 1], head[at + 2], head[at + 3]]);
                let (source, destination) = (address(12), address(16));
                let (protocol, congested) = (head[9], congested(head[1]));
                whole.then_some(Self { source, destination, protocol, header_len, len, congested })
            }
            6 => {
                let head: &[u8; 40] = packet.first_chunk()?;
                let len = 40 + usize::from(u16::from_be_bytes([head[4], head[5]]));
                let address = |at: usize| head[at..].first_chunk::<16>().map(|octets| IpAddr::from(*octets));
                let (source, destination) = (address(8)?, address(24)?);
                let (protocol, congested) = (head[6], congested(head[1] >> 4));
                (packet.len() >= len).then_some(Self { source, destination, protocol, header_len: 40, len, congested })
            }
            _ => None,
        }
    }

    /// The datagram that the packet carries.
    #[inline(always)]
    pub(crate) fn datagram(&self, packet: &[u8]) -> Option<Datagram> {
        let [a, b, c, d] = *packet.get(self.header_len..)?.first_chunk()?;
        let (source_port, destination_port) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        Some(Datagram { source: self.source, destination: self.destination, source_port, destination_port })
    }

    /// The VXLAN header in the datagram that the packet carries, and where the frame is. A UDP checksum is held to what it covers.
    #[inline(always)]
    pub(crate) fn vxlan(&self, packet: &[u8]) -> Option<(Header, Range<usize>)> {
        let udp: &[u8; 8] = packet.get(self.header_len..self.len)?.first_chunk()?;
        let [_, _, _, _, a, b, sum @ ..] = *udp;
        let end = self.header_len + usize::from(u16::from_be_bytes([a, b]));
        let whole = packet.get(..end).filter(|_| end <= self.len)?;
        if sum != [0; 2] && datagram_sum(whole, self.header_len)? != 0 {
            return None;
        }
        let (header, frame) = Header::parse(whole.get(self.header_len + udp.len()..)?).ok()?;
        Some((header, end - frame.len()..end))
    }
}
