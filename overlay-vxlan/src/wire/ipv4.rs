//! The IPv4 header.

use std::net::Ipv4Addr;

use super::{checksum, split};
use crate::malformed::Flaw;

/// An IPv4 header (RFC 791 §3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ipv4<'a> {
    header: &'a [u8; 20],
}

impl<'a> Ipv4<'a> {
    /// The sender's address.
    #[inline]
    pub const fn source(&self) -> Ipv4Addr {
        let [_, _, _, _, _, _, _, _, _, _, _, _, a, b, c, d, ..] = *self.header;
        Ipv4Addr::new(a, b, c, d)
    }

    /// The address the packet is for.
    #[inline]
    pub const fn destination(&self) -> Ipv4Addr {
        let [.., a, b, c, d] = *self.header;
        Ipv4Addr::new(a, b, c, d)
    }

    /// What the packet carries (IANA's protocol registry).
    #[inline]
    pub const fn protocol(&self) -> u8 {
        self.header[9]
    }

    /// Routers the packet may still pass.
    #[inline]
    pub const fn ttl(&self) -> u8 {
        self.header[8]
    }

    /// DSCP (RFC 2474) and, in the two low bits, ECN (RFC 3168).
    #[inline]
    pub const fn traffic_class(&self) -> u8 {
        self.header[1]
    }

    /// What the fragments of one datagram have in common; of no meaning with DF set (RFC 6864 §4.1).
    #[inline]
    pub const fn identification(&self) -> u16 {
        u16::from_be_bytes([self.header[4], self.header[5]])
    }

    /// Whether routers may not fragment the packet (DF).
    #[inline]
    pub const fn is_unfragmentable(&self) -> bool {
        self.header[6] & DF != 0
    }

    /// Whether the packet is a part of a datagram, the first part included.
    #[inline]
    pub const fn is_fragment(&self) -> bool {
        u16::from_be_bytes([self.header[6], self.header[7]]) & MF_AND_OFFSET != 0
    }

    /// Bytes of the header with its options: 20 to 60.
    #[inline]
    pub const fn header_len(&self) -> usize {
        (self.header[0] & 0x0f) as usize * 4
    }

    /// Bytes of the whole packet, this header included.
    #[inline]
    pub const fn total_len(&self) -> usize {
        u16::from_be_bytes([self.header[2], self.header[3]]) as usize
    }

    #[inline(always)]
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), Flaw> {
        let ip = Self::first(bytes)?;
        let (header_len, total_len) = (ip.header_len(), ip.total_len());
        if total_len < header_len {
            return Err(Flaw::Length { found: total_len, least: header_len });
        }
        match bytes.get(header_len..total_len) {
            Some(upper) => Ok((ip, upper)),
            None => Err(Flaw::Truncated { need: total_len, have: bytes.len() }),
        }
    }

    /// The header that `bytes` begin with, its total length not yet looked at.
    #[inline(always)]
    pub(crate) fn first(bytes: &'a [u8]) -> Result<Self, Flaw> {
        let (header, _) = split(bytes)?;
        let ip = Self { header };
        if matches!(header[0], 0x45..=0x4f) { Ok(ip) } else { Err(ip.misbegun()) }
    }

    /// The flaw in the header's first byte: version and header length.
    #[cold]
    const fn misbegun(&self) -> Flaw {
        match self.header[0] >> 4 {
            4 => Flaw::Length { found: self.header_len(), least: LEN },
            found => Flaw::Version { found },
        }
    }

    /// Checks the checksum of the header that `packet` begins with, options included.
    #[inline(always)]
    pub(crate) fn verify(&self, packet: &[u8]) -> Result<(), Flaw> {
        let right = if self.header_len() == LEN {
            checksum::is_whole(checksum::sum_in_host_order(self.header))
        } else {
            checksum::is_whole(self.options_sum(packet))
        };
        if right { Ok(()) } else { Err(self.wrong(packet)) }
    }

    #[cold]
    fn options_sum(&self, packet: &[u8]) -> u64 {
        checksum::sum(packet.get(..self.header_len()).unwrap_or_default())
    }

    #[cold]
    fn wrong(&self, packet: &[u8]) -> Flaw {
        let found = u16::from_be_bytes([self.header[10], self.header[11]]);
        Flaw::Checksum { found, right: !checksum::fold(self.options_sum(packet) + u64::from(!found)) }
    }
}

const LEN: usize = 20; // RFC 791 §3.1, without options
const DF: u8 = 0x40; // RFC 791 §3.1
const MF_AND_OFFSET: u16 = 0x3fff; // RFC 791 §3.1
