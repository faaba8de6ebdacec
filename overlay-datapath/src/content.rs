//! What a frame carries, as far as a firewall looks at it.

use std::net::{Ipv4Addr, Ipv6Addr};

use overlay_core::{IpFamily, Mac};
use overlay_firewall::{Content, Ends, Icmpv6, Transport};
use overlay_vxlan::{Flow, Frame, Icmp, Ip, Tcp, Transport as Upper, Udp};

use crate::Reason;
use crate::header::ECN;

/// What of a frame decides where it goes and how, read once. It is to be read again when more than Ethernet addresses has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Contents {
    pub(crate) source: Mac,
    pub(crate) destination: Mac,
    pub(crate) content: Content,
    /// What of an IP header counts outside of it, too.
    pub(crate) inner: Option<Inner>,
    /// Whether it is a part of an IP packet.
    pub(crate) fragment: bool,
    /// Whether it is a TCP segment with SYN set.
    pub(crate) synchronises: bool,
    /// Whether it is one with FIN or RST set.
    pub(crate) closes: bool,
}

/// What an outer header has of an inner one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Inner {
    /// What it carries: of an IPv6 fragment, that it is one.
    protocol: u8,
    pub(crate) ttl: u8,
    pub(crate) congestion: u8,
    pub(crate) unfragmentable: bool,
}

impl Contents {
    /// Reads a frame.
    #[inline(always)]
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, Reason> {
        let mut read = Err(Reason::Malformed);
        Self::read_to(&mut read, bytes);
        read
    }

    /// Reads a frame, to where it is kept.
    #[inline(always)]
    pub(crate) fn read_to(to: &mut Result<Self, Reason>, bytes: &[u8]) {
        match Frame::parse(bytes) {
            Ok(frame) if frame.ethernet.vlan().is_some() => *to = Err(Reason::Tagged),
            Ok(frame) => Self::put(to, &frame, bytes),
            Err(_) => *to = Err(Reason::Malformed),
        }
    }

    /// Of a frame without tags, whose bytes are given too.
    #[inline(always)]
    fn put(to: &mut Result<Self, Reason>, frame: &Frame<'_>, bytes: &[u8]) {
        let (source, destination) = (frame.ethernet.source(), frame.ethernet.destination());
        let Some(ip) = frame.ip else {
            let content = if frame.ethernet.ethertype() == ARP { arp(frame.payload) } else { Content::Other };
            let (inner, fragment, synchronises, closes) = (None, false, false, false);
            *to = Ok(Self { source, destination, content, inner, fragment, synchronises, closes });
            return;
        };
        let fragment = ip.is_fragment();
        let (protocol, unfragmentable) = match ip {
            Ip::V4(ip) => (ip.protocol(), ip.is_unfragmentable()),
            Ip::V6(ip) => (if fragment { FRAGMENT } else { ip.protocol() }, true),
        };
        let inner = Inner { protocol, ttl: ip.ttl(), congestion: ip.traffic_class() & ECN, unfragmentable };
        let flags = if let Some(Upper::Tcp(tcp)) = frame.transport { tcp.flags() } else { 0 };
        let (synchronises, closes) = (flags & SYN != 0, flags & (FIN | RST) != 0);
        // Each branch makes its own value: where they meet before, they do so in memory, piece by piece.
        let mut with = |content| {
            *to = Ok(Self { source, destination, content, inner: Some(inner), fragment, synchronises, closes });
        };
        let mut of = |transport| match ip {
            Ip::V4(ip) => with(Content::Ip(overlay_firewall::Ip::v4(ip.source(), ip.destination(), transport))),
            Ip::V6(ip) => with(Content::Ip(overlay_firewall::Ip::v6(ip.source(), ip.destination(), transport))),
        };
        match (fragment, frame.transport) {
            (true, _) => of(part(&ip, frame, bytes)),
            (false, Some(Upper::Tcp(tcp))) => of(of_tcp(tcp)),
            (false, Some(Upper::Udp(udp))) => of(of_udp(udp, frame.payload)),
            (false, Some(Upper::Sctp(sctp))) => {
                of(Transport::Sctp { source: sctp.source(), destination: sctp.destination() });
            }
            (false, Some(Upper::Icmp(icmp))) => of(of_icmp(&ip, icmp, frame, bytes)),
            (false, None) => of(other(ip.protocol())),
        }
    }

    /// As [`read`](Self::read) of the same frame again, which then had nothing but other IP addresses and ports.
    #[inline(always)]
    pub(crate) fn translated(&self, bytes: &[u8]) -> Result<Self, Reason> {
        match self.with_ends(bytes) {
            Some(content) => Ok(Self { content: Content::Ip(content), ..*self }),
            None => Self::read(bytes),
        }
    }

    /// What a frame carries that has the ends that these bytes say; nothing if it has no ports, or they are not found at once.
    #[inline(always)]
    fn with_ends(&self, bytes: &[u8]) -> Option<overlay_firewall::Ip> {
        let (Content::Ip(ip), Some(inner), false) = (&self.content, self.inner, self.fragment) else { return None };
        let (ends, at) = match ip.ends {
            Ends::V4 { .. } => {
                let [first, _, _, _, _, _, _, _, _, _, _, _, a, b, c, d, e, f, g, h] =
                    *bytes.get(14..)?.first_chunk()?;
                let (source, destination) = (Ipv4Addr::new(a, b, c, d), Ipv4Addr::new(e, f, g, h));
                (Ends::V4 { source, destination }, 14 + usize::from(first & 15) * 4)
            }
            Ends::V6 { .. } => {
                let head: &[u8; 40] = bytes.get(14..)?.first_chunk()?;
                let address = |at: usize| head[at..].first_chunk::<16>().map(|octets| Ipv6Addr::from(*octets));
                let (source, destination) = (address(8)?, address(24)?);
                (head[6] == inner.protocol).then_some((Ends::V6 { source, destination }, 54))?
            }
        };
        let [a, b, c, d] = *bytes.get(at..)?.first_chunk()?;
        let (source, destination) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        let transport = match ip.transport {
            Transport::Tcp { begins, .. } => Transport::Tcp { source, destination, begins },
            Transport::Udp { vni, .. } => Transport::Udp { source, destination, vni },
            Transport::Sctp { .. } => Transport::Sctp { source, destination },
            _ => return None,
        };
        Some(overlay_firewall::Ip { ends, transport })
    }

    /// The hash of its flow, whose bytes are given too: [`Flow::hash_of`].
    #[inline(always)]
    pub(crate) fn flow_hash(&self, bytes: &[u8], seed: u64) -> u64 {
        let (Content::Ip(ip), Some(inner)) = (&self.content, self.inner) else { return Flow::hash_of(bytes, seed) };
        let ports = if self.fragment { None } else { ip.transport.ports() };
        let protocol = inner.protocol;
        match ip.ends {
            Ends::V4 { source, destination } => Flow::V4 { source, destination, protocol, ports }.hash(seed),
            Ends::V6 { source, destination } => Flow::V6 { source, destination, protocol, ports }.hash(seed),
        }
    }
}

/// ARP for IPv4 over Ethernet (RFC 826).
#[cold]
fn arp(bytes: &[u8]) -> Content {
    let Some([0, 1, 8, 0, 6, 4, _, _, sender @ .., d0, d1, d2, d3]) = bytes.first_chunk::<28>() else {
        return Content::Other;
    };
    let [a, b, c, d, e, f, s0, s1, s2, s3, ..] = *sender;
    Content::Arp {
        sender: Mac::new([a, b, c, d, e, f]),
        address: Ipv4Addr::new(s0, s1, s2, s3),
        target: Ipv4Addr::new(*d0, *d1, *d2, *d3),
    }
}

#[inline(always)]
const fn of_tcp(tcp: Tcp<'_>) -> Transport {
    let begins = tcp.flags() & (SYN | ACK | RST | FIN) == SYN;
    Transport::Tcp { source: tcp.source(), destination: tcp.destination(), begins }
}

#[inline(always)]
const fn of_udp(udp: Udp<'_>, payload: &[u8]) -> Transport {
    let vni = match *payload {
        [_, _, _, _, a, b, c, ..] => u32::from_be_bytes([0, a, b, c]),
        _ => 0,
    };
    Transport::Udp { source: udp.source(), destination: udp.destination(), vni }
}

#[inline(never)]
fn of_icmp(ip: &Ip<'_>, icmp: Icmp<'_>, frame: &Frame<'_>, bytes: &[u8]) -> Transport {
    match ip.family() {
        IpFamily::V4 if matches!(icmp.kind(), 5 | 9) => Transport::IcmpRouter, // RFC 792, RFC 1256 §3
        IpFamily::V4 => Transport::Other(ip.protocol()),
        IpFamily::V6 => Transport::Icmpv6(icmpv6(icmp, frame, bytes)),
    }
}

/// A message of ICMPv6, of neighbour discovery above all (RFC 4861 §4).
fn icmpv6(icmp: Icmp<'_>, frame: &Frame<'_>, bytes: &[u8]) -> Icmpv6 {
    let next = bytes.get(frame.ethernet.header_len() + 6).copied();
    let (body, fixed) = match icmp.kind() {
        134 | 137 => return Icmpv6::Router,
        131 | 132 | 143 => return Icmpv6::Solicitation,
        133 => (frame.payload, 0),
        135 | 136 => (frame.payload, 16),
        _ => return Icmpv6::Other,
    };
    let Some((target, options)) = body.split_at_checked(fixed) else { return Icmpv6::Improper };
    let nameless = frame.ip.is_some_and(|ip| ip.source().is_unspecified());
    if next != Some(ICMPV6) || !is_proper(options, icmp.kind(), frame.ethernet.source(), nameless) {
        return Icmpv6::Improper;
    }
    match (icmp.kind(), target.first_chunk()) {
        (135, Some(target)) => Icmpv6::Probe(Ipv6Addr::from(*target)),
        (136, Some(target)) => Icmpv6::Advertisement(Ipv6Addr::from(*target)),
        _ => Icmpv6::Solicitation,
    }
}

/// No option, or the one that tells the sender's Ethernet address; of who has no address yet, any one.
fn is_proper(options: &[u8], kind: u8, source: Mac, nameless: bool) -> bool {
    match options {
        [] => true,
        [of, 1, mac @ ..] if mac.len() == 6 => {
            nameless && kind != 136 || *of == if kind == 136 { 2 } else { 1 } && *mac == source.octets()
        }
        _ => false,
    }
}

/// A part of a packet: its first has the ports, if it is long enough.
#[cold]
fn part(ip: &Ip<'_>, frame: &Frame<'_>, bytes: &[u8]) -> Transport {
    let upper = frame.payload;
    let (first, behind_header) = match ip {
        Ip::V4(_) => (offset(bytes, frame.ethernet.header_len() + 6) & 0x1fff == 0, true),
        Ip::V6(v6) => {
            let start = frame.ethernet.header_len() + 40;
            let at = start + v6.payload_len() - upper.len().min(v6.payload_len());
            (offset(bytes, at.saturating_sub(6)) & 0xfff8 == 0, at == start + 8)
        }
    };
    let protocol = ip.protocol();
    match (first, ip.family(), upper) {
        (false, IpFamily::V6, _) if !behind_header => Transport::Headless,
        (false, ..) => Transport::Other(protocol),
        (true, IpFamily::V6, _) if protocol == ICMPV6 => Transport::Icmpv6(Icmpv6::Improper),
        (true, IpFamily::V6, _) if upper.len() < least(protocol) => Transport::Headless,
        (true, _, [a, b, c, d, ..]) => {
            let (source, destination) = (u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d]));
            match protocol {
                6 => Transport::Tcp { source, destination, begins: begins(upper) },
                17 => Transport::Udp { source, destination, vni: 0 },
                132 => Transport::Sctp { source, destination },
                1 if ip.family() == IpFamily::V4 && matches!(a, 5 | 9) => Transport::IcmpRouter,
                _ => other(protocol),
            }
        }
        _ => other(protocol),
    }
}

fn offset(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..).and_then(|bytes| bytes.first_chunk()).map_or(0, |bytes| u16::from_be_bytes(*bytes))
}

fn begins(tcp: &[u8]) -> bool {
    tcp.get(13).is_some_and(|flags| flags & (SYN | ACK | RST | FIN) == SYN)
}

/// Bytes that a first fragment needs, to show what the packet is; more than there are, where another header comes first (RFC 7112 §5).
const fn least(protocol: u8) -> usize {
    match protocol {
        0 | 43 | 44 | 51 | 60 | 135 => usize::MAX,
        6 => 20,
        17 => 8,
        132 => 12,
        _ => 0,
    }
}

const fn other(protocol: u8) -> Transport {
    match protocol {
        50 => Transport::Esp,
        _ => Transport::Other(protocol),
    }
}

pub(crate) const IPV4: u16 = 0x0800; // RFC 894
pub(crate) const IPV6: u16 = 0x86dd; // RFC 2464 §3
pub(crate) const ARP: u16 = 0x0806; // RFC 826
const ICMPV6: u8 = 58;
const FRAGMENT: u8 = 44; // RFC 8200 §4.5
const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

#[cfg(test)]
mod tests {
    use proptest::collection;
    use proptest::prelude::*;

    use super::*;

    const MAC: [u8; 6] = [2, 0x42, 10, 0, 9, 1];

    fn contents(ethertype: [u8; 2], packet: &[u8]) -> Contents {
        let frame = [&[2, 0x42, 10, 0, 9, 2][..], &MAC, &ethertype, packet].concat();
        Contents::read(&frame).unwrap()
    }

    /// What an IPv6 packet carries, from fe80::1 to fe80::2.
    fn v6(next: u8, body: &[u8]) -> Contents {
        let mut packet = vec![0x60, 0, 0, 0, 0, body.len() as u8, next, 255];
        for last in [1, 2] {
            packet.extend([&[0xfe, 0x80][..], &[0; 13], &[last]].concat());
        }
        packet.extend(body);
        contents([0x86, 0xdd], &packet)
    }

    fn transport(contents: &Contents) -> Option<Transport> {
        match &contents.content {
            Content::Ip(ip) => Some(ip.transport),
            _ => None,
        }
    }

    fn discovery(kind: u8, options: &[u8]) -> Option<Transport> {
        let target = [&[0xfe, 0x80][..], &[0; 13], &[9]].concat();
        transport(&v6(58, &[&[kind, 0, 0, 0, 0, 0, 0, 0][..], &target, options].concat()))
    }

    proptest! {
        #[test]
        fn a_flow_is_the_same_whoever_reads_it(mut bytes in collection::vec(any::<u8>(), 14..90), kind in 0..3_usize, at in 0..4_usize) {
            bytes[12..14].copy_from_slice(&[[8, 0], [0x86, 0xdd], [8, 6]][kind]);
            let len = bytes.len();
            if let (Some(ip), true) = (bytes.get_mut(14..34), kind == 0) {
                ip[0] = 0x45;
                ip[2..4].copy_from_slice(&(len as u16 - 14).to_be_bytes());
                ip[6..8].copy_from_slice(&[0x40, u8::from(at == 3)]);
                ip[9] = [6, 17, 132, 1][at];
            }
            if let (Some(ip), true) = (bytes.get_mut(14..54), kind == 1) {
                ip[0] = 0x60;
                ip[4..6].copy_from_slice(&(len as u16 - 54).to_be_bytes());
                ip[6] = [6, 17, 44, 58][at];
            }
            if let Ok(contents) = Contents::read(&bytes) {
                prop_assert_eq!(contents.flow_hash(&bytes, 7), Flow::hash_of(&bytes, 7));
            }
        }

        #[test]
        fn what_was_translated_is_read_as_if_for_the_first_time(
            protocol in 0..6_usize, is_v6: bool, flags: u8, ends in any::<[[u8; 36]; 2]>(), options in 0..3_usize, len in 0..40_usize,
        ) {
            let protocol = [6, 17, 132, 1, 58, 47][protocol];
            let upper = [&ends[0][..4], &[0; 8], &[0x50, flags], &[7; 30]].concat();
            let upper = &upper[..len];
            let mut frame = match is_v6 {
                true => {
                    let extension = [protocol, 0, 1, 4, 0, 0, 0, 0].repeat(options.min(1));
                    let next = if options == 0 { protocol } else { 60 };
                    let body = [&extension[..], upper].concat();
                    let head = [0x60, 0, 0, 0, 0, body.len() as u8, next, 64];
                    [&MAC[..], &MAC, &[0x86, 0xdd], &head, &ends[0][4..], &body].concat()
                }
                false => {
                    let head_len = 20 + 4 * options;
                    let (first, total) = (0x40 | (head_len / 4) as u8, (head_len + upper.len()) as u8);
                    let head = [first, 0, 0, total, 0, 0, 0x40, 0, 64, protocol, 0, 0];
                    [&MAC[..], &MAC, &[8, 0], &head, &ends[0][4..12], &[1; 8][..4 * options], upper].concat()
                }
            };
            let Ok(before) = Contents::read(&frame) else { return Ok(()) };
            prop_assert_eq!(before.translated(&frame), Ok(before));
            let addresses = if is_v6 { 22..54 } else { 26..34 };
            let (new, ports) = (&ends[1][4..4 + addresses.len()], frame.len() - upper.len());
            frame[addresses].copy_from_slice(new);
            if matches!(protocol, 6 | 17 | 132) {
                frame[ports..ports + 4].copy_from_slice(&ends[1][..4]);
            }
            prop_assert_eq!(before.translated(&frame), Contents::read(&frame));
        }
    }

    #[test]
    fn neighbour_discovery_names_no_station_but_its_senders() {
        let target = "fe80::9".parse().unwrap();
        let own = [&[1, 1][..], &MAC].concat();
        let others = [1, 1, 2, 0x42, 10, 0, 9, 7];
        let improper = Some(Transport::Icmpv6(Icmpv6::Improper));
        assert_eq!(discovery(135, &[]), Some(Transport::Icmpv6(Icmpv6::Probe(target))));
        assert_eq!(discovery(135, &own), Some(Transport::Icmpv6(Icmpv6::Probe(target))));
        assert_eq!(
            discovery(136, &[&[2, 1][..], &MAC].concat()),
            Some(Transport::Icmpv6(Icmpv6::Advertisement(target)))
        );
        assert_eq!(discovery(136, &own), improper, "a source's option in an advertisement");
        assert_eq!(discovery(135, &others), improper);
        assert_eq!(discovery(135, &[own.clone(), own].concat()), improper);
        let behind = [&[58, 0, 1, 4, 0, 0, 0, 0, 135][..], &[0; 23]].concat();
        assert_eq!(transport(&v6(60, &behind)), improper, "behind another header (RFC 6980 §5)");
    }

    #[test]
    fn a_fragment_shows_what_it_is_of_or_is_headless() {
        let udp = [0x13, 0x88, 0, 53, 0, 16, 0, 0];
        let part = |next: u8, offset: u8, body: &[u8]| v6(44, &[&[next, 0, 0, offset, 0, 0, 0, 1][..], body].concat());
        let first = part(17, 1, &udp);
        assert!(first.fragment);
        assert_eq!(transport(&first), Some(Transport::udp(5_000, 53)));
        assert_eq!(transport(&part(17, 1, &udp[..4])), Some(Transport::Headless));
        assert_eq!(transport(&part(60, 1, &udp)), Some(Transport::Headless), "another header comes first");
        assert_eq!(transport(&part(17, 9, &udp)), Some(Transport::Other(17)), "a later one has no ports");
        assert_eq!(transport(&part(58, 1, &udp)), Some(Transport::Icmpv6(Icmpv6::Improper)));
    }

    #[test]
    fn arp_is_read_if_it_is_for_ipv4_over_ethernet() {
        let mut packet = [&[0, 1, 8, 0, 6, 4, 0, 1][..], &MAC, &[10, 0, 9, 1], &[0; 6], &[10, 0, 9, 2]].concat();
        let expected = Content::Arp { sender: MAC.into(), address: [10, 0, 9, 1].into(), target: [10, 0, 9, 2].into() };
        assert_eq!(contents([8, 6], &packet).content, expected);
        packet[3] = 1;
        assert_eq!(contents([8, 6], &packet).content, Content::Other);
        assert_eq!(contents([8, 6], &packet[..20]).content, Content::Other);
    }
}
