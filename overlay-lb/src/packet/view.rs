//! What a packet is: enough of IPv4 (RFC 791), IPv6 (RFC 8200), TCP, UDP, SCTP, ICMP and ICMPv6 to find its flow.

use std::net::{Ipv4Addr, Ipv6Addr};

use overlay_core::{IpFamily, Protocol};

use crate::flow::{Signal, Tuple};

/// What was read of an IP packet whose lengths were found to be right.
#[derive(Debug, Clone, Copy)]
pub(crate) struct View {
    pub(crate) family: IpFamily,
    /// Where the packet ends: what follows in the buffer is padding.
    pub(crate) end: usize,
    /// Where the header behind IP's begins.
    pub(crate) at: usize,
    pub(crate) from: u128,
    pub(crate) to: u128,
    pub(crate) content: Content,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content {
    Segment(Segment),
    /// An ICMP error: what it is about begins at this offset.
    Error {
        quote: usize,
    },
    /// An ICMP echo request.
    Echo,
    /// A later fragment, or one of several: its ports are elsewhere, or its checksum covers more than it has.
    Fragment,
    Other,
}

/// A segment, datagram or packet of a protocol with ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) protocol: Protocol,
    pub(crate) from_port: u16,
    pub(crate) to_port: u16,
}

impl View {
    /// Reads a packet; nothing if it is none, or cut.
    #[inline(always)]
    pub(crate) fn read(ip: &[u8]) -> Option<Self> {
        match ip.first()? >> 4 {
            4 => Self::read_v4(ip),
            6 => Self::read_v6(ip),
            _ => None,
        }
    }

    #[inline(always)]
    fn read_v4(ip: &[u8]) -> Option<Self> {
        let head: &[u8; 20] = ip.first_chunk()?;
        let at = usize::from(head[0] & 15) * 4;
        let end = usize::from(u16::from_be_bytes([head[2], head[3]]));
        if at < 20 || end < at || ip.len() < end {
            return None;
        }
        let fragment = u16::from_be_bytes([head[6], head[7]]) & 0x3fff != 0; // more of them, or an offset
        let address = |at: usize| {
            let bytes = [head[at], head[at + 1], head[at + 2], head[at + 3]];
            Ipv4Addr::from(bytes).to_ipv6_mapped().to_bits()
        };
        let content = if fragment { Content::Fragment } else { content(ip.get(..end)?, at, head[9])? };
        Some(Self { family: IpFamily::V4, end, at, from: address(12), to: address(16), content })
    }

    #[inline]
    fn read_v6(ip: &[u8]) -> Option<Self> {
        let head: &[u8; 40] = ip.first_chunk()?;
        let end = 40 + usize::from(u16::from_be_bytes([head[4], head[5]]));
        let address = |at: usize| head[at..].first_chunk().map(|bytes| Ipv6Addr::from(*bytes).to_bits());
        let (from, to) = (address(8)?, address(24)?);
        let ip = ip.get(..end)?;
        let (at, content) = match extensions(ip, head[6])? {
            (at, FRAGMENT) => (at, Content::Fragment),
            (at, next) => (at, content(ip, at, next)?),
        };
        Some(Self { family: IpFamily::V6, end, at, from, to, content })
    }

    /// What tells the flow of a segment.
    #[inline]
    pub(crate) const fn tuple(&self, segment: &Segment) -> Tuple {
        let Segment { protocol, from_port, to_port } = *segment;
        Tuple { from: self.from, to: self.to, from_port, to_port, protocol }
    }

    /// What a segment means to its flow.
    #[inline(always)]
    pub(crate) fn signal(&self, ip: &[u8], protocol: Protocol) -> Signal {
        match protocol {
            Protocol::Udp => Signal::More,
            Protocol::Tcp => match ip.get(self.at + 13).map_or(0, |flags| flags & (FIN | SYN | RST | ACK)) {
                flags if flags & RST != 0 => Signal::Abort,
                SYN => Signal::Begin,
                flags if flags & FIN != 0 => Signal::End,
                _ => Signal::More,
            },
            // RFC 9260 §3.2: the first chunk tells; INIT, ABORT and SHUTDOWN COMPLETE come alone or first.
            Protocol::Sctp => match ip.get(self.at + 12) {
                Some(1) => Signal::Begin,
                Some(6 | 14) => Signal::Abort,
                Some(7 | 8) => Signal::End,
                _ => Signal::More,
            },
        }
    }
}

#[inline(always)]
fn content(ip: &[u8], at: usize, next: u8) -> Option<Content> {
    match (next, Protocol::from_number(next)) {
        (_, Some(protocol)) => {
            let least = match protocol {
                Protocol::Tcp => 20,
                Protocol::Udp => 8,
                Protocol::Sctp => 12,
            };
            let ports = u32::from_be_bytes(*ip.get(at..).filter(|rest| rest.len() >= least)?.first_chunk()?);
            let (from_port, to_port) = ((ports >> 16) as u16, ports as u16);
            Some(Content::Segment(Segment { protocol, from_port, to_port }))
        }
        (ICMP | ICMPV6, _) => {
            let kind = *ip.get(at..).filter(|rest| rest.len() >= 8)?.first()?;
            Some(match (next, kind) {
                (ICMP, 3 | 11 | 12) | (ICMPV6, 1..=4) => Content::Error { quote: at + 8 },
                (ICMP, 8) | (ICMPV6, 128) => Content::Echo,
                _ => Content::Other,
            })
        }
        _ => Some(Content::Other),
    }
}

/// Behind IPv6's extension headers (RFC 8200 §4): where the next header begins, and what it is.
fn extensions(ip: &[u8], mut next: u8) -> Option<(usize, u8)> {
    let mut at = 40;
    for _ in 0..MOST_EXTENSIONS {
        let length = match (next, ip.get(at..at + 2)) {
            (0 | 43 | 60, Some(head)) => 8 + 8 * usize::from(head[1]),
            (0 | 43 | 60, None) => return None,
            // One that is not in parts (RFC 6946) is a packet as others are, but its header would have to go along: leave it alone, too.
            (FRAGMENT, _) => return Some((at, FRAGMENT)),
            _ => return Some((at, next)),
        };
        next = *ip.get(at)?;
        at += length;
    }
    Some((at, NO_NEXT))
}

pub(super) const ICMP: u8 = 1;
pub(super) const ICMPV6: u8 = 58;
const FRAGMENT: u8 = 44;
const NO_NEXT: u8 = 59;
const MOST_EXTENSIONS: usize = 8;
pub(super) const FIN: u8 = 1;
pub(super) const SYN: u8 = 2;
pub(super) const RST: u8 = 4;
pub(super) const ACK: u8 = 16;
