//! The outer source port, chosen by the inner flow.

use std::net::{Ipv4Addr, Ipv6Addr};

use overlay_core::{Mac, Port, Protocol};
use serde::{Deserialize, Serialize};

use crate::malformed::Layer;
use crate::wire::{Ethernet, IPV4, IPV6, Ipv4, Ipv6};

/// What keeps the packets of one conversation on one path of the underlay, in order (RFC 7348 §5).
///
/// ```
/// use overlay_vxlan::{Flow, SourcePorts};
///
/// let frame = b"\x02\x42\x0a\0\0\x03\x02\x42\x0a\0\0\x02\x08\x06an ARP request";
/// let flow = Flow::of(frame);
/// assert!(matches!(flow, Flow::Ethernet { ethertype: 0x0806, .. }));
///
/// let seed = 0x5eed; // drawn once by each node
/// let port = SourcePorts::default().port(flow.hash(seed));
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
        let Ok((ethernet, packet)) = Ethernet::parse(frame, Layer::InnerEthernet) else {
            return Self::stub(frame);
        };
        let ip = match ethernet.ethertype() {
            IPV4 => Self::v4(packet),
            IPV6 => Self::v6(packet),
            _ => None,
        };
        match ip {
            Some(flow) => flow,
            None => Self::Ethernet {
                source: ethernet.source(),
                destination: ethernet.destination(),
                ethertype: ethernet.ethertype(),
            },
        }
    }

    /// 64 bits that spread flows evenly, a function of the flow and `seed` alone and the same on every machine within one
    /// release of this crate. Whoever does not know the seed cannot choose flows that meet; it is no cryptographic hash.
    #[inline]
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
                let destination = u64::from(ethertype) << 48 | number(destination);
                finish(mix(start, number(source)), destination)
            }
        }
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

/// The range that outer source ports are taken from: 49,152 to 65,535 by default, as RFC 7348 §5 recommends.
///
/// ```
/// use overlay_core::Port;
/// use overlay_vxlan::SourcePorts;
///
/// let ports = SourcePorts::new(Port::new(32_768)?, Port::new(60_999)?)?;
/// assert_eq!(ports.port(0), ports.first());
/// assert_eq!(ports.port(u64::MAX), ports.last());
/// assert!(SourcePorts::new(ports.last(), ports.first()).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Range", into = "Range")]
pub struct SourcePorts {
    first: Port,
    last: Port,
}

impl SourcePorts {
    /// The ports from `first` to `last`, both included.
    ///
    /// # Errors
    /// If `last` is below `first`.
    pub const fn new(first: Port, last: Port) -> Result<Self, SourcePortsError> {
        if last.get() < first.get() {
            return Err(SourcePortsError { first, last });
        }
        Ok(Self { first, last })
    }

    /// The port for a flow with this hash ([`Flow::hash`]); its high 32 bits choose.
    #[inline]
    pub const fn port(self, hash: u64) -> Port {
        let count = (self.last.get() - self.first.get()) as u64 + 1;
        let offset = ((hash >> 32) * count) >> 32; // below `count`
        match Port::new(self.first.get() + offset as u16) {
            Ok(port) => port,
            Err(_) => self.first,
        }
    }

    /// The lowest.
    pub const fn first(self) -> Port {
        self.first
    }

    /// The highest.
    pub const fn last(self) -> Port {
        self.last
    }
}

impl Default for SourcePorts {
    /// 49,152 to 65,535, the dynamic ports (RFC 6335 §6).
    fn default() -> Self {
        Self { first: DYNAMIC, last: Port::MAX }
    }
}

/// A range of ports that ends before it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a range of source ports ends where it begins or above, this begins at {first} and ends at {last}")]
pub struct SourcePortsError {
    /// The first port given.
    pub first: Port,
    /// The last port given.
    pub last: Port,
}

/// How a range is written.
#[derive(Serialize, Deserialize)]
struct Range {
    first: Port,
    last: Port,
}

impl TryFrom<Range> for SourcePorts {
    type Error = SourcePortsError;

    fn try_from(range: Range) -> Result<Self, SourcePortsError> {
        Self::new(range.first, range.last)
    }
}

impl From<SourcePorts> for Range {
    fn from(ports: SourcePorts) -> Self {
        Self { first: ports.first, last: ports.last }
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
const FRAGMENT: u8 = 44; // RFC 8200 §4.5
const DYNAMIC: Port = match Port::new(49_152) {
    Ok(port) => port,
    Err(_) => Port::MAX,
};
