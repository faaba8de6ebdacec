//! The headers of TCP, UDP, SCTP and ICMP.

use overlay_core::IpFamily;

use super::split;
use crate::malformed::Flaw;

/// The transport header of a packet, where it is one of these and not in a fragment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport<'a> {
    /// RFC 9293.
    Tcp(Tcp<'a>),
    /// RFC 768.
    Udp(Udp<'a>),
    /// RFC 9260.
    Sctp(Sctp<'a>),
    /// ICMP (RFC 792) in IPv4, ICMPv6 (RFC 4443) in IPv6.
    Icmp(Icmp<'a>),
}

impl<'a> Transport<'a> {
    /// Source and destination port; ICMP has none.
    #[inline]
    pub const fn ports(&self) -> Option<(u16, u16)> {
        match self {
            Self::Tcp(tcp) => Some((tcp.source(), tcp.destination())),
            Self::Udp(udp) => Some((udp.source(), udp.destination())),
            Self::Sctp(sctp) => Some((sctp.source(), sctp.destination())),
            Self::Icmp(_) => None,
        }
    }

    /// Reads the header of `protocol`, if it is one of these, and gives what it carries.
    #[inline(always)]
    pub(crate) fn parse(family: IpFamily, protocol: u8, bytes: &'a [u8]) -> Result<(Option<Self>, &'a [u8]), Flaw> {
        match (protocol, family) {
            (TCP, _) => Tcp::parse(bytes).map(|(tcp, payload)| (Some(Self::Tcp(tcp)), payload)),
            (UDP, _) => Udp::parse(bytes).map(|(udp, payload)| (Some(Self::Udp(udp)), payload)),
            (SCTP, _) => split(bytes).map(|(header, chunks)| (Some(Self::Sctp(Sctp { header })), chunks)),
            (ICMP, IpFamily::V4) | (ICMPV6, IpFamily::V6) => {
                split(bytes).map(|(header, body)| (Some(Self::Icmp(Icmp { header })), body))
            }
            _ => Ok((None, bytes)),
        }
    }
}

/// A TCP header (RFC 9293 §3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tcp<'a> {
    header: &'a [u8; 20],
}

impl<'a> Tcp<'a> {
    /// The sender's port.
    #[inline]
    pub const fn source(&self) -> u16 {
        u16::from_be_bytes([self.header[0], self.header[1]])
    }

    /// The receiver's port.
    #[inline]
    pub const fn destination(&self) -> u16 {
        u16::from_be_bytes([self.header[2], self.header[3]])
    }

    /// Sequence number of the first byte carried.
    #[inline]
    pub const fn sequence(&self) -> u32 {
        u32::from_be_bytes([self.header[4], self.header[5], self.header[6], self.header[7]])
    }

    /// The flags CWR, ECE, URG, ACK, PSH, RST, SYN, FIN, from the high bit to the low one.
    #[inline]
    pub const fn flags(&self) -> u8 {
        self.header[13]
    }

    /// Bytes of the header with its options: 20 to 60.
    #[inline]
    pub const fn header_len(&self) -> usize {
        (self.header[12] >> 4) as usize * 4
    }

    #[inline(always)]
    fn parse(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), Flaw> {
        let (header, _) = split(bytes)?;
        let tcp = Self { header };
        if tcp.header_len() < TCP_LEN {
            return Err(Flaw::Length { found: tcp.header_len(), least: TCP_LEN });
        }
        match bytes.get(tcp.header_len()..) {
            Some(payload) => Ok((tcp, payload)),
            None => Err(Flaw::Truncated { need: tcp.header_len(), have: bytes.len() }),
        }
    }
}

/// A UDP header (RFC 768).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Udp<'a> {
    header: &'a [u8; 8],
}

impl<'a> Udp<'a> {
    /// The sender's port; 0 if it expects no answer.
    #[inline]
    pub const fn source(&self) -> u16 {
        u16::from_be_bytes([self.header[0], self.header[1]])
    }

    /// The receiver's port.
    #[inline]
    pub const fn destination(&self) -> u16 {
        u16::from_be_bytes([self.header[2], self.header[3]])
    }

    /// Bytes of header and payload, 8 to 65,535; what an IP packet has beyond them is no part of the datagram.
    #[inline]
    pub const fn datagram_len(&self) -> usize {
        u16::from_be_bytes([self.header[4], self.header[5]]) as usize
    }

    /// The checksum; 0 if the sender computed none, as VXLAN's should not (RFC 7348 §5, RFC 6935).
    #[inline]
    pub const fn checksum(&self) -> u16 {
        u16::from_be_bytes([self.header[6], self.header[7]])
    }

    #[inline(always)]
    pub(crate) const fn bytes(&self) -> &'a [u8; 8] {
        self.header
    }

    #[inline(always)]
    fn parse(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), Flaw> {
        let (header, _) = split(bytes)?;
        let udp = Self { header };
        Ok((udp, udp.payload(bytes)?))
    }

    /// The header that `bytes` begin with, its length not yet looked at.
    #[inline(always)]
    pub(crate) fn first(bytes: &'a [u8]) -> Result<Self, Flaw> {
        split(bytes).map(|(header, _)| Self { header })
    }

    /// What the datagram in `bytes` carries, by its length field.
    #[inline(always)]
    pub(crate) fn payload(&self, bytes: &'a [u8]) -> Result<&'a [u8], Flaw> {
        let len = self.datagram_len();
        if len < UDP_LEN {
            return Err(Flaw::Length { found: len, least: UDP_LEN });
        }
        bytes.get(UDP_LEN..len).ok_or(Flaw::Truncated { need: len, have: bytes.len() })
    }
}

/// An SCTP common header (RFC 9260 §3.1); what it carries are chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sctp<'a> {
    header: &'a [u8; 12],
}

impl Sctp<'_> {
    /// The sender's port.
    #[inline]
    pub const fn source(&self) -> u16 {
        u16::from_be_bytes([self.header[0], self.header[1]])
    }

    /// The receiver's port.
    #[inline]
    pub const fn destination(&self) -> u16 {
        u16::from_be_bytes([self.header[2], self.header[3]])
    }

    /// The verification tag, which names the association.
    #[inline]
    pub const fn tag(&self) -> u32 {
        u32::from_be_bytes([self.header[4], self.header[5], self.header[6], self.header[7]])
    }
}

/// The 8 bytes that ICMP's messages (RFC 792) and ICMPv6's (RFC 4443) begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Icmp<'a> {
    header: &'a [u8; 8],
}

impl Icmp<'_> {
    /// The message's type; ICMP and ICMPv6 number them differently.
    #[inline]
    pub const fn kind(&self) -> u8 {
        self.header[0]
    }

    /// The code, which says more about the type.
    #[inline]
    pub const fn code(&self) -> u8 {
        self.header[1]
    }
}

const ICMP: u8 = 1; // RFC 792
const TCP: u8 = 6; // RFC 9293 §3.1
pub(crate) const UDP: u8 = 17; // RFC 768
const ICMPV6: u8 = 58; // RFC 4443 §1
const SCTP: u8 = 132; // RFC 9260 §3
const TCP_LEN: usize = 20; // RFC 9293 §3.1, without options
const UDP_LEN: usize = 8; // RFC 768
