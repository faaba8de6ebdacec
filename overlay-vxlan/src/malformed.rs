//! Why bytes are no packet.

use std::fmt;

/// Bytes that are not what they claim to be: which header is wrong, and how.
///
/// The sender's fault, or the path's; never the reader's. Traffic that is merely not VXLAN is no error
/// (see [`Packet::parse`](crate::Packet::parse)).
///
/// ```
/// use overlay_vxlan::{Flaw, Header, Layer, Malformed};
///
/// let malformed = Header::parse(&[0x08, 0, 0]).unwrap_err();
/// assert_eq!(malformed, Malformed { layer: Layer::Vxlan, flaw: Flaw::Truncated { need: 8, have: 3 } });
/// assert_eq!(malformed.to_string(), "VXLAN header: 8 bytes are needed, 3 are there");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{layer}: {flaw}")]
pub struct Malformed {
    /// The header that is wrong.
    pub layer: Layer,
    /// What is wrong with it.
    pub flaw: Flaw,
}

/// A header of a VXLAN packet, from the outside in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Layer {
    /// The underlay's Ethernet header and VLAN tags.
    OuterEthernet,
    /// The underlay's IP header and its options or extension headers.
    OuterIp,
    /// The UDP header that carries VXLAN.
    OuterUdp,
    /// The VXLAN header.
    Vxlan,
    /// The Ethernet header and VLAN tags of the frame carried.
    InnerEthernet,
    /// The IP header, with options or extension headers, of the frame carried.
    InnerIp,
    /// The TCP, UDP, SCTP or ICMP header of the frame carried.
    InnerTransport,
}

/// What is wrong with a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Flaw {
    /// The bytes end before what the header, or a length in it, announces.
    #[error("{need} bytes are needed, {have} are there")]
    Truncated {
        /// Bytes that this layer needs from its own start.
        need: usize,
        /// Bytes that are there.
        have: usize,
    },
    /// A length field smaller than the header it stands in.
    #[error("its length field says {found} bytes, {least} are the least")]
    Length {
        /// What the field says, in bytes.
        found: usize,
        /// The least it may say, in bytes.
        least: usize,
    },
    /// An IP version that contradicts the ethertype, or none at all.
    #[error("its IP version is {found}, it must be 4 or 6 and as the ethertype says")]
    Version {
        /// The version found.
        found: u8,
    },
    /// The checksum of an IPv4 header (RFC 791 §3.1) or a UDP datagram (RFC 768) does not match.
    #[error("its checksum is {found:#06x}, {right:#06x} would be right")]
    Checksum {
        /// The checksum in the header.
        found: u16,
        /// What the bytes that it covers sum up to.
        right: u16,
    },
    /// A fragment where only whole packets are read: reassembly is the IP stack's.
    #[error("it is a fragment, only whole packets are read")]
    Fragment,
    /// More IPv6 extension headers than this reader follows.
    #[error("it has more than {limit} extension headers")]
    Extensions {
        /// How many are followed.
        limit: usize,
    },
    /// The I flag is clear, so there is no VNI (RFC 7348 §5).
    #[error("its I flag is clear, it must be set")]
    NoVni,
    /// VNI 0, which no network has ([`Vni`](overlay_core::Vni)).
    #[error("its VNI is 0, a network's is 1 to 16777215")]
    ZeroVni,
}

impl Flaw {
    /// This flaw, found in `layer`.
    #[cold]
    pub(crate) const fn at(self, layer: Layer) -> Malformed {
        Malformed { layer, flaw: self }
    }
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OuterEthernet => "outer Ethernet header",
            Self::OuterIp => "outer IP header",
            Self::OuterUdp => "outer UDP header",
            Self::Vxlan => "VXLAN header",
            Self::InnerEthernet => "inner Ethernet header",
            Self::InnerIp => "inner IP header",
            Self::InnerTransport => "inner transport header",
        })
    }
}
