//! The outer source port, chosen by the inner flow.

use std::net::{Ipv4Addr, Ipv6Addr};

use overlay_core::{Mac, Protocol};

use crate::malformed::Layer;
use crate::wire::{Ethernet, IPV4, IPV6, Ipv4, Ipv6};

/// What keeps the packets of one conversation on one path of the underlay, in order (RFC 7348 §5).
///
/// ```
/// use overlay_core::PortRange;
/// use overlay_vxlan::Flow;
///
/// let frame = b"\x02\x42\x0a\0\0\x03\x02\x42\x0a\0\0\x02\x08\x06an ARP request";
/// let flow = Flow::of(frame);
/// assert!(matches!(flow, Flow::Ethernet { ethertype: 0x0806, .. }));
///
/// let seed = 0x5eed; // drawn once by each node
/// let port = PortRange::DYNAMIC.pick(flow.hash(seed));
/// assert!(port.get() >= 49_152);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Flow {
    /// IPv4.
    V4 {
        /// The sender's address.
        source: Ipv4Addr,
        /// The receiver's address.
        destination: Ipv4Addr,
        /// What the packet carries (IANA's protocol registry).
        protocol: u8,
        /// Source and destination port of TCP, UDP and SCTP. `None` in every fragment, the first included, so
        /// that the parts of one datagram take one path.
        ports: Option<(u16, u16)>,
    },
    /// IPv6.
    V6 {
        /// The sender's address.
        source: Ipv6Addr,
        /// The receiver's address.
        destination: Ipv6Addr,
        /// What the packet carries behind its extension headers; 44 in every fragment, as only the first one's
        /// next header counts (RFC 8200 §4.5); the first next header where they cannot be followed.
        protocol: u8,
        /// As in IPv4.
        ports: Option<(u16, u16)>,
    },
    /// Everything else, an IP header that is cut short or contradicts itself included.
    Ethernet {
        /// The sender's address.
        source: Mac,
        /// The receiver's address.
        destination: Mac,
        /// What the frame carries, behind VLAN tags.
        ethertype: u16,
    },
}

impl Flow {
    /// The flow of an inner Ethernet frame. Never fails: what is missing from a truncated frame counts as not
    /// there, in a frame shorter than an Ethernet header as zero.
    #[inline]
    pub fn of(frame: &[u8]) -> Self {
        Self::read(frame, |flow| flow)
    }

    /// `Flow::of(frame).hash(seed)`, faster: for packet paths.
    #[inline]
    pub fn hash_of(frame: &[u8], seed: u64) -> u64 {
        Self::read(frame, |flow| flow.hash(seed))
    }

    /// 64 bits that spread flows evenly, a function of the flow and `seed` alone and the same on every machine within one
    /// release of this crate. A random seed keeps those who neither know it nor see the ports from choosing flows that
    /// meet. It is no cryptographic hash: who sees the ports of flows of their own choice may work the seed out.
    #[inline(always)]
    pub fn hash(&self, seed: u64) -> u64 {
        let start = fold(seed ^ KEYS[0], KEYS[1]);
        match *self {
            Self::V4 { source, destination, protocol, ports } => {
                let addresses = u64::from(u32::from(source)) << 32 | u64::from(u32::from(destination));
                finish(mix(start, addresses), word(protocol, ports))
            }
            Self::V6 { source, destination, protocol, ports } => {
                let (source, destination) = (u128::from(source), u128::from(destination));
                let state = mix(mix(start, (source >> 64) as u64), source as u64);
                let state = mix(mix(state, (destination >> 64) as u64), destination as u64);
                finish(state, word(protocol, ports))
            }
            Self::Ethernet { source, destination, ethertype } => {
                let source = u64::from(ethertype) << 48 | number(source);
                finish(mix(start, source), ETHERNET | number(destination))
            }
        }
    }

    /// Gives the flow of `frame` to `then`, from the branch that made it: where the branches' flows meet in one place, they do
    /// in memory.
    #[inline(always)]
    fn read<T>(frame: &[u8], then: impl Fn(Self) -> T) -> T {
        let Ok((ethernet, packet)) = Ethernet::parse(frame, Layer::InnerEthernet) else {
            return then(Self::stub(frame));
        };
        let ethertype = ethernet.ethertype();
        if ethertype == IPV4
            && let Some(flow) = Self::v4(packet)
        {
            return then(flow);
        }
        if ethertype == IPV6
            && let Some(flow) = Self::v6(packet)
        {
            return then(flow);
        }
        then(Self::Ethernet { source: ethernet.source(), destination: ethernet.destination(), ethertype })
    }

    #[inline(always)]
    fn v4(packet: &[u8]) -> Option<Self> {
        let ip = Ipv4::first(packet).ok()?;
        let upper = if ip.is_fragment() { None } else { packet.get(ip.header_len()..) };
        Some(Self::V4 {
            source: ip.source(),
            destination: ip.destination(),
            protocol: ip.protocol(),
            ports: upper.and_then(|upper| ports(ip.protocol(), upper)),
        })
    }

    #[inline(always)]
    fn v6(packet: &[u8]) -> Option<Self> {
        let (ip, payload) = Ipv6::first(packet).ok()?;
        let (protocol, upper) = match ip.upper(payload) {
            Ok(upper) if upper.fragment => (FRAGMENT, None),
            Ok(upper) => (upper.protocol, Some(upper.bytes)),
            Err(_) => (ip.protocol(), None),
        };
        Some(Self::V6 {
            source: ip.source(),
            destination: ip.destination(),
            protocol,
            ports: upper.and_then(|upper| ports(protocol, upper)),
        })
    }

    /// A frame without a whole Ethernet header or its tags.
    #[cold]
    fn stub(frame: &[u8]) -> Self {
        let mut header = [0; 14];
        for (to, from) in header.iter_mut().zip(frame) {
            *to = *from;
        }
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n] = header;
        Self::Ethernet {
            destination: Mac::new([a, b, c, d, e, f]),
            source: Mac::new([g, h, i, j, k, l]),
            ethertype: u16::from_be_bytes([m, n]),
        }
    }
}

/// The ports at the start of a transport header: TCP, UDP and SCTP have them in the same place.
#[inline(always)]
fn ports(protocol: u8, upper: &[u8]) -> Option<(u16, u16)> {
    Protocol::from_number(protocol)?;
    let [a, b, c, d] = *upper.first_chunk()?;
    Some((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])))
}

/// Protocol and ports in one word, no ports apart from ports 0.
#[inline(always)]
const fn word(protocol: u8, ports: Option<(u16, u16)>) -> u64 {
    match ports {
        Some((source, destination)) => 1 << 40 | (protocol as u64) << 32 | (source as u64) << 16 | destination as u64,
        None => (protocol as u64) << 32,
    }
}

#[inline(always)]
const fn number(mac: Mac) -> u64 {
    let [a, b, c, d, e, f] = mac.octets();
    u64::from_be_bytes([0, 0, a, b, c, d, e, f])
}

/// Takes `word` into `state`.
#[inline(always)]
const fn mix(state: u64, word: u64) -> u64 {
    fold(state ^ word, KEYS[1])
}

/// Takes the last word in and lets every bit of it reach the high ones.
#[inline(always)]
const fn finish(state: u64, word: u64) -> u64 {
    fold(mix(state, word), KEYS[2])
}

/// The halves of the 128-bit product, laid over each other.
#[inline(always)]
const fn fold(a: u64, b: u64) -> u64 {
    let product = a as u128 * b as u128;
    product as u64 ^ (product >> 64) as u64
}

/// Odd numbers without a pattern: the fractions of the square roots of 2, 3 and 5, made odd.
const KEYS: [u64; 3] = [0x6a09_e667_f3bc_c909, 0xbb67_ae85_84ca_a73b, 0x3c6e_f372_fe94_f82b];
/// In the last word of an Ethernet flow, above all that [`word`] has: without it, Ethernet addresses could be made up
/// whose flow meets an IPv4 flow under every seed.
const ETHERNET: u64 = 1 << 63;
const FRAGMENT: u8 = 44; // RFC 8200 §4.5

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;
    use overlay_core::PortRange;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn tcp_udp_and_sctp_flows_have_their_ports_whatever_tags_precede_them() {
        for (protocol, tags) in [(6, 0), (17, 1), (132, 2)] {
            let frame = v4(tags, protocol, 0, &[0x12, 0x34, 0x00, 0x50]);
            assert_eq!(Flow::of(&frame), expected_v4(protocol, Some((0x1234, 80))));
        }
    }

    #[test]
    fn every_ipv4_fragment_of_a_datagram_is_of_one_flow() {
        let first = v4(0, 17, 0x2000, &[0x12, 0x34, 0x00, 0x50]);
        let middle = v4(0, 17, 0x2005, b"anything");
        let last = v4(0, 17, 0x000a, b"at all");
        for frame in [first, middle, last] {
            assert_eq!(Flow::of(&frame), expected_v4(17, None));
        }
    }

    #[test]
    fn ports_behind_ipv4_options_are_found() {
        let mut frame = v4(0, 6, 0, &[1, 1, 1, 1, 0x12, 0x34, 0x00, 0x50]);
        frame[14] = 0x46; // 24 bytes of header
        assert_eq!(Flow::of(&frame), expected_v4(6, Some((0x1234, 80))));
    }

    #[test]
    fn ipv6_extension_headers_are_followed_and_fragments_have_no_ports() {
        let ports = [0x12, 0x34, 0x00, 0x50];
        let options =
            [&[60, 0, 0, 0, 0, 0, 0, 0][..], &[6, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], &ports].concat();
        assert_eq!(Flow::of(&v6(0, &options)), expected_v6(6, Some((0x1234, 80))));
        let authenticated = [&[17, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0][..], &ports].concat();
        assert_eq!(Flow::of(&v6(51, &authenticated)), expected_v6(17, Some((0x1234, 80))));
        for next in [6, 60] {
            let fragment = [&[next, 0, 0, 1, 0, 0, 0, 9][..], &ports].concat();
            assert_eq!(Flow::of(&v6(44, &fragment)), expected_v6(44, None));
        }
    }

    #[test]
    fn extension_headers_that_never_end_cost_the_ports_only() {
        let endless = [60, 0, 0, 0, 0, 0, 0, 0].repeat(100);
        assert_eq!(Flow::of(&v6(60, &endless)), expected_v6(60, None));
        assert_eq!(Flow::of(&v6(60, &[60, 255, 0])), expected_v6(60, None));
        assert_eq!(Flow::of(&v6(0, &[0, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0])), expected_v6(0, None));
    }

    #[test]
    fn a_frame_cut_short_is_of_the_flow_that_is_left_of_it() {
        let frame = v4(0, 6, 0, &[0x12, 0x34, 0x00, 0x50]);
        let ethernet = Flow::Ethernet { source: SOURCE, destination: DESTINATION, ethertype: 0x0800 };
        assert_eq!(Flow::of(&frame[..37]), expected_v4(6, None));
        assert_eq!(Flow::of(&frame[..33]), ethernet);
        assert_eq!(Flow::of(&frame[..14]), ethernet);
        let stub = Flow::Ethernet { source: Mac::ZERO, destination: DESTINATION, ethertype: 0 };
        assert_eq!(Flow::of(&frame[..6]), stub);
        assert_ne!(Flow::of(&frame[..13]), Flow::of(&frame[..12]));
    }

    #[test]
    fn the_hash_stays_what_it_is() {
        let flow = expected_v4(6, Some((0x1234, 80)));
        assert_eq!([flow.hash(0), flow.hash(1)], [0xed28_d5bd_957e_97ce, 0x1b2f_2201_9d43_1a59]);
        assert_eq!(expected_v6(6, None).hash(0), 0xe9fa_ab3b_4666_9689);
        assert_eq!(Flow::of(&[]).hash(0), 0x2cf3_4de4_25f0_dc46);
    }

    #[test]
    fn neighbouring_flows_spread_evenly_over_the_ports() {
        for seed in [0, 1, 0x5eed, u64::MAX] {
            let by_port = (1024..=u16::MAX).map(|port| expected_v4(6, Some((port, 443))));
            assert_even(by_port.map(|flow| flow.hash(seed)));
            let by_address = (0..65_536_u32).map(|n| Flow::V4 {
                source: Ipv4Addr::from(0x0a00_0000 + n),
                destination: [10, 1, 0, 1].into(),
                protocol: 17,
                ports: Some((53, 53)),
            });
            assert_even(by_address.map(|flow| flow.hash(seed)));
            let by_subnet = (0..65_536_u128).map(|n| Flow::V6 {
                source: Ipv6Addr::from(0xfd00 << 112 | n << 64 | 1),
                destination: Ipv6Addr::LOCALHOST,
                protocol: 58,
                ports: None,
            });
            assert_even(by_subnet.map(|flow| flow.hash(seed)));
            let by_mac = (0..65_536_u32).map(|n| Flow::Ethernet {
                source: Mac::from_ipv4(n.into()),
                destination: Mac::BROADCAST,
                ethertype: 0x0806,
            });
            assert_even(by_mac.map(|flow| flow.hash(seed)));
        }
    }

    proptest! {
        #[test]
        fn an_ethernet_flow_made_to_look_like_an_ipv4_flow_does_not_meet_it(
            address in any::<[u8; 6]>(), protocol in any::<u8>(), ports in proptest::option::of(any::<(u16, u16)>()), seed in any::<u64>(),
        ) {
            let [a, b, c, d, e, f] = address;
            let v4 = Flow::V4 { source: [0, 0, a, b].into(), destination: [c, d, e, f].into(), protocol, ports };
            let [_, _, ref destination @ ..] = word(protocol, ports).to_be_bytes();
            let ethernet = Flow::Ethernet { source: Mac::new(address), destination: Mac::new(*destination), ethertype: 0 };
            prop_assert_ne!(v4.hash(seed), ethernet.hash(seed));
        }

        #[test]
        fn every_bit_of_the_seed_and_of_the_flow_counts(flow in flow(), other in flow(), seed in any::<u64>(), bit in 0..64) {
            prop_assert_ne!(flow.hash(seed), flow.hash(seed ^ (1_u64 << bit)));
            prop_assert_eq!(flow == other, flow.hash(seed) == other.hash(seed));
        }

        #[test]
        fn any_bytes_have_a_flow(bytes in proptest::collection::vec(any::<u8>(), 0..120), ethertype in 0..5_usize) {
            let mut bytes = bytes;
            if let Some(field) = bytes.get_mut(12..14) {
                field.copy_from_slice(&[[0x08, 0x00], [0x86, 0xdd], [0x81, 0x00], [0x88, 0xa8], [0x08, 0x06]][ethertype]);
            }
            prop_assert_eq!(Flow::of(&bytes).hash(7), Flow::hash_of(&bytes, 7));
        }

        #[test]
        fn the_payload_is_no_part_of_the_flow(ports in any::<(u16, u16)>(), payload in any::<[u8; 32]>()) {
            let build = |payload: &[u8]| {
                let mut frame = Vec::new();
                let builder = PacketBuilder::ethernet2(SOURCE.octets(), DESTINATION.octets()).ipv4([10, 0, 0, 2], [10, 0, 0, 3], 64);
                builder.udp(ports.0, ports.1).write(&mut frame, payload).unwrap();
                frame
            };
            prop_assert_eq!(Flow::of(&build(&payload)), Flow::of(&build(&[])));
        }
    }

    fn flow() -> impl Strategy<Value = Flow> {
        let ports = proptest::option::of(any::<(u16, u16)>());
        prop_oneof![
            (any::<[Ipv4Addr; 2]>(), any::<u8>(), ports.clone())
                .prop_map(|([source, destination], protocol, ports)| Flow::V4 { source, destination, protocol, ports }),
            (any::<[Ipv6Addr; 2]>(), any::<u8>(), ports)
                .prop_map(|([source, destination], protocol, ports)| Flow::V6 { source, destination, protocol, ports }),
            any::<([u8; 6], [u8; 6], u16)>().prop_map(|(source, destination, ethertype)| Flow::Ethernet {
                source: Mac::new(source),
                destination: Mac::new(destination),
                ethertype
            }),
        ]
    }

    /// Pearson's chi-square over 256 buckets of the port range: 255 is expected, above 400 one of 10⁸ random spreads.
    fn assert_even(hashes: impl Iterator<Item = u64>) {
        let mut buckets = [0_u32; 256];
        let mut flows = 0.0;
        for hash in hashes {
            buckets[usize::from(PortRange::DYNAMIC.pick(hash).get() - 49_152) / 64] += 1;
            flows += 1.0;
        }
        let expected = flows / 256.0;
        let chi_square: f64 = buckets.iter().map(|count| (f64::from(*count) - expected).powi(2) / expected).sum();
        assert!((130.0..400.0).contains(&chi_square), "{chi_square}");
    }

    fn expected_v4(protocol: u8, ports: Option<(u16, u16)>) -> Flow {
        Flow::V4 { source: [10, 0, 0, 2].into(), destination: [10, 0, 0, 3].into(), protocol, ports }
    }

    fn expected_v6(protocol: u8, ports: Option<(u16, u16)>) -> Flow {
        Flow::V6 { source: Ipv6Addr::from(2), destination: Ipv6Addr::from(3), protocol, ports }
    }

    /// A frame with `tags` VLAN tags and an IPv4 packet.
    fn v4(tags: usize, protocol: u8, fragmentation: u16, upper: &[u8]) -> Vec<u8> {
        let [high, low] = fragmentation.to_be_bytes();
        let header =
            [0x45, 0, 0, 20 + upper.len() as u8, 0, 9, high, low, 64, protocol, 0, 0, 10, 0, 0, 2, 10, 0, 0, 3];
        let tags = [0x81, 0, 0, 7].repeat(tags);
        [&DESTINATION.octets()[..], &SOURCE.octets(), &tags, &[0x08, 0x00], &header, upper].concat()
    }

    /// A frame with an IPv6 packet.
    fn v6(next: u8, payload: &[u8]) -> Vec<u8> {
        let header = [0x60, 0, 0, 0, 0, payload.len() as u8, next, 64];
        let (source, destination) = (Ipv6Addr::from(2).octets(), Ipv6Addr::from(3).octets());
        [&DESTINATION.octets()[..], &SOURCE.octets(), &[0x86, 0xdd], &header, &source, &destination, payload].concat()
    }

    const SOURCE: Mac = Mac::new([2, 0x42, 10, 0, 0, 2]);
    const DESTINATION: Mac = Mac::new([2, 0x42, 10, 0, 0, 3]);
}
