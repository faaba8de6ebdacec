//! What a balancer says itself.

use overlay_core::{IpFamily, Protocol};

use super::checksum::{Delta, finish, sum};
use super::icmp::ICMP_CHECKSUM;
use super::nat::readdress;
use super::view::{ACK, FIN, ICMP, ICMPV6, RST, SYN, Segment, View};
use crate::flow::Tuple;

/// Makes an echo request its own reply.
pub(crate) fn echo_reply(ip: &mut [u8], view: &View) {
    let Some(ip) = ip.get_mut(..view.end) else { return };
    let (head, message) = ip.split_at_mut(view.at);
    // Both addresses turned round have the same sum.
    let turned = Tuple { from: view.to, to: view.from, from_port: 0, to_port: 0, protocol: Protocol::Udp };
    readdress(head, view.family, &turned);
    let kind = if view.family == IpFamily::V4 { 0 } else { 129 };
    if let Some(field) = message.get_mut(..2) {
        Delta::replace(field, &[kind, 0]).mend(message, ICMP_CHECKSUM);
    }
}

/// Appends what a host says to a segment that it has no use for: a reset to TCP's (RFC 9293 §3.10.7.1), an ICMP error to others'.
/// Nothing to what must not be answered.
pub(crate) fn refusal(ip: &[u8], view: &View, segment: Segment, out: &mut Vec<u8>) -> bool {
    match segment.protocol {
        Protocol::Tcp => reset(ip, view, segment, out),
        Protocol::Udp | Protocol::Sctp => unreachable(ip, view, out),
    }
}

fn reset(ip: &[u8], view: &View, segment: Segment, out: &mut Vec<u8>) -> bool {
    let Some(head) = ip.get(view.at..view.end).and_then(|rest| rest.first_chunk::<20>()) else { return false };
    let word = |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let flags = head[13];
    if flags & RST != 0 {
        return false;
    }
    let (sequence, acknowledged, said) = match flags & ACK {
        0 => {
            let header = usize::from(head[12] >> 4) * 4;
            let data = (view.end - view.at).saturating_sub(header) as u32;
            let length = data + u32::from(flags & SYN != 0) + u32::from(flags & FIN != 0);
            (0, word(4).wrapping_add(length), RST | ACK)
        }
        _ => (word(8), 0, RST),
    };
    segment_of(&view.tuple(&segment).turned(), view.family, (sequence, acknowledged, said), out);
    true
}

/// Appends a TCP segment that acknowledges what nobody sent, in a window of nobody's. Whoever has a connection answers it with what he
/// expects instead (RFC 9293 §3.10.7.4), and can be sent a reset that he believes (RFC 5961 §3.2).
pub(crate) fn stir(tuple: &Tuple, family: IpFamily, out: &mut Vec<u8>) {
    segment_of(tuple, family, (0, 0, ACK), out);
}

fn segment_of(tuple: &Tuple, family: IpFamily, (sequence, acknowledged, flags): (u32, u32, u8), out: &mut Vec<u8>) {
    let mut segment = [0_u8; 20];
    segment[..2].copy_from_slice(&tuple.from_port.to_be_bytes());
    segment[2..4].copy_from_slice(&tuple.to_port.to_be_bytes());
    segment[4..8].copy_from_slice(&sequence.to_be_bytes());
    segment[8..12].copy_from_slice(&acknowledged.to_be_bytes());
    segment[12..14].copy_from_slice(&[5 << 4, flags]);
    let checksum = finish(pseudo(tuple, Protocol::Tcp.number(), segment.len()) + sum(&segment));
    segment[16..18].copy_from_slice(&checksum.to_be_bytes());
    head(tuple, family, Protocol::Tcp.number(), segment.len(), out);
    out.extend_from_slice(&segment);
}

/// A "port unreachable" (RFC 792, RFC 4443 §3.1) with as much of the packet as fits the least MTU (RFC 1812 §4.3.2.3, RFC 4443 §3.1).
fn unreachable(ip: &[u8], view: &View, out: &mut Vec<u8>) -> bool {
    let (protocol, kind, most) = match view.family {
        IpFamily::V4 => (ICMP, [3, 3], 576 - 28),
        IpFamily::V6 => (ICMPV6, [1, 4], 1280 - 48),
    };
    let Some(quoted) = ip.get(..view.end.min(most)) else { return false };
    let ends = Tuple { from: view.to, to: view.from, from_port: 0, to_port: 0, protocol: Protocol::Udp };
    let covered = if view.family == IpFamily::V6 { pseudo(&ends, protocol, 8 + quoted.len()) } else { 0 };
    let checksum = finish(covered + sum(&kind) + sum(quoted));
    head(&ends, view.family, protocol, 8 + quoted.len(), out);
    out.extend_from_slice(&kind);
    out.extend_from_slice(&checksum.to_be_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(quoted);
    true
}

/// The sum of the pseudo-header (RFC 9293 §3.1, RFC 8200 §8.1): that of IPv4 addresses is the same in IPv6's form but for the prefix.
fn pseudo(tuple: &Tuple, protocol: u8, length: usize) -> u32 {
    let bytes = [tuple.from, tuple.to].map(|address| match address >> 32 {
        super::nat::MAPPED => address & 0xffff_ffff,
        _ => address,
    });
    bytes.iter().map(|address| sum(&address.to_be_bytes())).sum::<u32>() + u32::from(protocol) + length as u32
}

fn head(tuple: &Tuple, family: IpFamily, protocol: u8, length: usize, out: &mut Vec<u8>) {
    let start = out.len();
    match family {
        IpFamily::V4 => {
            out.extend_from_slice(&[0x45, 0]);
            out.extend_from_slice(&(20 + length as u16).to_be_bytes());
            out.extend_from_slice(&[0, 0, 0x40, 0, HOPS, protocol, 0, 0]); // whole, and to stay so
            out.extend_from_slice(&(tuple.from as u32).to_be_bytes());
            out.extend_from_slice(&(tuple.to as u32).to_be_bytes());
            let checksum = finish(sum(&out[start..])).to_be_bytes();
            out[start + 10..start + 12].copy_from_slice(&checksum);
        }
        IpFamily::V6 => {
            out.extend_from_slice(&[0x60, 0, 0, 0]);
            out.extend_from_slice(&(length as u16).to_be_bytes());
            out.extend_from_slice(&[protocol, HOPS]);
            out.extend_from_slice(&tuple.from.to_be_bytes());
            out.extend_from_slice(&tuple.to.to_be_bytes());
        }
    }
}

const HOPS: u8 = 64;
