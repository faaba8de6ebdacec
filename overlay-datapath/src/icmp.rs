//! What is told to who sent a packet that goes no further, and the gateway's own answers (RFC 792, RFC 4443).

use std::net::IpAddr;

use overlay_core::{Mac, Mtu, is_host_address};
use overlay_vxlan::{Frame, Ip, Transport};

use crate::{Buffer, checksum};

/// What is wrong with a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// It is longer than this.
    TooBig(Mtu),
    /// It has passed enough routers.
    Expired,
}

/// Makes of a frame the error that its sender is told, in place; nothing if none may be told (RFC 1122 §3.2.2, RFC 4443 §2.4 e).
/// It comes from the gateway, or, where there is none of the family, from where the packet was to go.
pub(crate) fn tell(buffer: &mut Buffer, trouble: Trouble, (mac, gateway): (Mac, Option<IpAddr>)) -> Option<()> {
    let frame = Frame::parse(buffer.packet()).ok()?;
    let ip = frame.ip?;
    let (to, source, destination) = (frame.ethernet.source(), ip.source(), ip.destination());
    let is_first = !ip.is_fragment();
    let may = is_first
        && is_host_address(source)
        && is_host_address(destination)
        && !frame.ethernet.destination().is_multicast();
    if !may || is_error(&frame) || frame.ethernet.header_len() != ETHERNET {
        return None;
    }
    if let (Trouble::TooBig(_), Ip::V4(v4)) = (trouble, ip)
        && !v4.is_unfragmentable()
    {
        return None;
    }
    let from = gateway.unwrap_or(destination);
    let head = Head { to, from: mac };
    match (from, source) {
        (IpAddr::V4(from), IpAddr::V4(source)) => write_v4(buffer, trouble, head, [from.octets(), source.octets()]),
        (IpAddr::V6(from), IpAddr::V6(source)) => write_v6(buffer, trouble, head, [from.octets(), source.octets()]),
        _ => None,
    }
}

#[derive(Clone, Copy)]
struct Head {
    to: Mac,
    from: Mac,
}

impl Head {
    fn write(&self, frame: &mut [u8], ethertype: [u8; 2]) -> Option<()> {
        let head: &mut [u8; ETHERNET] = frame.first_chunk_mut()?;
        head[..6].copy_from_slice(&self.to.octets());
        head[6..12].copy_from_slice(&self.from.octets());
        head[12..].copy_from_slice(&ethertype);
        Some(())
    }
}

/// As much of the packet as RFC 1812 §4.3.2.3 wants: 576 bytes in all.
fn write_v4(buffer: &mut Buffer, trouble: Trouble, head: Head, [from, to]: [[u8; 4]; 2]) -> Option<()> {
    let (kind, code, mtu) = match trouble {
        Trouble::TooBig(mtu) => (3, 4, u16::try_from(mtu.get()).unwrap_or(u16::MAX)), // RFC 1191 §4
        Trouble::Expired => (11, 0, 0),
    };
    buffer.truncate(ETHERNET + 576 - 28);
    buffer.grow(28)?;
    let total = buffer.packet().len().checked_sub(ETHERNET)?;
    head.write(buffer.packet_mut(), [8, 0])?;
    let packet = buffer.packet_mut().get_mut(ETHERNET..)?;
    let [t0, t1] = u16::try_from(total).ok()?.to_be_bytes();
    let fields: &mut [u8; 28] = packet.first_chunk_mut()?;
    fields[..12].copy_from_slice(&[0x45, 0xc0, t0, t1, 0, 0, 0x40, 0, 64, 1, 0, 0]); // precedence: RFC 1812 §4.3.2.5
    fields[12..16].copy_from_slice(&from);
    fields[16..20].copy_from_slice(&to);
    let sum = checksum::finish(checksum::sum(&fields[..20])).to_be_bytes();
    fields[10..12].copy_from_slice(&sum);
    let [m0, m1] = mtu.to_be_bytes();
    fields[20..].copy_from_slice(&[kind, code, 0, 0, 0, 0, m0, m1]);
    let sum = checksum::finish(checksum::sum(packet.get(20..)?)).to_be_bytes();
    packet.get_mut(22..24)?.copy_from_slice(&sum);
    Some(())
}

/// As much of the packet as fits the least MTU (RFC 4443 §2.4 c).
fn write_v6(buffer: &mut Buffer, trouble: Trouble, head: Head, [from, to]: [[u8; 16]; 2]) -> Option<()> {
    let (kind, mtu) = match trouble {
        Trouble::TooBig(mtu) => (2, mtu.get()),
        Trouble::Expired => (3, 0),
    };
    buffer.truncate(ETHERNET + 1280 - 48);
    buffer.grow(48)?;
    let length = buffer.packet().len().checked_sub(ETHERNET + 40)?;
    head.write(buffer.packet_mut(), [0x86, 0xdd])?;
    let packet = buffer.packet_mut().get_mut(ETHERNET..)?;
    let [l0, l1] = u16::try_from(length).ok()?.to_be_bytes();
    let fields: &mut [u8; 48] = packet.first_chunk_mut()?;
    fields[..8].copy_from_slice(&[0x60, 0, 0, 0, l0, l1, 58, 64]);
    fields[8..24].copy_from_slice(&from);
    fields[24..40].copy_from_slice(&to);
    fields[40..44].copy_from_slice(&[kind, 0, 0, 0]);
    fields[44..].copy_from_slice(&mtu.to_be_bytes());
    let sum = checksum::sum(packet.get(8..)?) + length as u64 + 58;
    packet.get_mut(42..44)?.copy_from_slice(&checksum::finish(sum).to_be_bytes());
    Some(())
}

/// Makes of an echo request its reply, in place; nothing if it is none.
pub(crate) fn echo(buffer: &mut Buffer) -> Option<()> {
    let frame = Frame::parse(buffer.packet()).ok()?;
    let (Some(ip), Some(Transport::Icmp(icmp))) = (frame.ip, frame.transport) else { return None };
    let (kind, reply, addresses) = match ip {
        Ip::V4(_) => (8, 0, 12..20),
        Ip::V6(_) => (128, 129, 8..40),
    };
    if icmp.kind() != kind || icmp.code() != 0 || !is_host_address(ip.source()) {
        return None;
    }
    let (start, whole) = (frame.ethernet.header_len(), buffer.packet().len());
    let at = match ip {
        Ip::V4(v4) => start + v4.header_len(),
        Ip::V6(v6) => start + 40 + v6.payload_len() - frame.payload.len().checked_add(8)?,
    };
    let packet = buffer.packet_mut();
    let (to, from) =
        packet.split_first_chunk_mut::<6>().and_then(|(to, rest)| Some((to, rest.first_chunk_mut::<6>()?)))?;
    std::mem::swap(to, from);
    let addresses = packet.get_mut(start + addresses.start..start + addresses.end)?;
    let (one, other) = addresses.split_at_mut(addresses.len() / 2);
    one.swap_with_slice(other);
    let head: &mut [u8; 4] = packet.get_mut(at..whole)?.first_chunk_mut()?;
    let before = u16::from_be_bytes([head[0], head[1]]);
    head[0] = reply;
    let sum = checksum::mended(u16::from_be_bytes([head[2], head[3]]), before, u16::from_be_bytes([head[0], head[1]]));
    head[2..].copy_from_slice(&sum.to_be_bytes());
    Some(())
}

/// Whether it is an ICMP message that none may be told about: all but echo and its like.
fn is_error(frame: &Frame<'_>) -> bool {
    match (frame.ip, frame.transport) {
        (Some(Ip::V4(_)), Some(Transport::Icmp(icmp))) => !matches!(icmp.kind(), 0 | 8 | 13 | 14),
        (Some(Ip::V6(_)), Some(Transport::Icmp(icmp))) => icmp.kind() < 128 || icmp.kind() == 137,
        _ => false,
    }
}

const ETHERNET: usize = 14;
