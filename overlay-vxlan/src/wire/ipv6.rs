//! The IPv6 header and its extension headers.

use std::net::Ipv6Addr;

use super::split;
use crate::malformed::Flaw;

/// An IPv6 header (RFC 8200 §3), its extension headers followed to what the packet carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ipv6<'a> {
    header: &'a [u8; 40],
    protocol: u8,
    fragment: bool,
}

impl<'a> Ipv6<'a> {
    /// The sender's address.
    #[inline]
    pub const fn source(&self) -> Ipv6Addr {
        let (_, addresses) = self.header.split_at(8);
        address(addresses)
    }

    /// The address in the header: the packet's destination, or the next stop of a source route.
    #[inline]
    pub const fn destination(&self) -> Ipv6Addr {
        let (_, addresses) = self.header.split_at(24);
        address(addresses)
    }

    /// What the packet carries behind the extension headers (IANA's protocol registry); in a fragment, what its
    /// fragment header names.
    #[inline]
    pub const fn protocol(&self) -> u8 {
        self.protocol
    }

    /// Hop limit: routers the packet may still pass.
    #[inline]
    pub const fn ttl(&self) -> u8 {
        self.header[7]
    }

    /// DSCP (RFC 2474) and, in the two low bits, ECN (RFC 3168).
    #[inline]
    pub const fn traffic_class(&self) -> u8 {
        self.header[0] << 4 | self.header[1] >> 4
    }

    /// The flow label (RFC 6437), 20 bits.
    #[inline]
    pub const fn flow_label(&self) -> u32 {
        u32::from_be_bytes([0, self.header[1] & 0x0f, self.header[2], self.header[3]])
    }

    /// Whether the packet has a fragment header, one that holds the whole datagram (RFC 6946) included.
    #[inline]
    pub const fn is_fragment(&self) -> bool {
        self.fragment
    }

    /// Bytes behind the 40 of this header, extension headers included.
    #[inline]
    pub const fn payload_len(&self) -> usize {
        u16::from_be_bytes([self.header[4], self.header[5]]) as usize
    }

    #[inline(always)]
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), Flaw> {
        let (ip, rest) = Self::first(bytes)?;
        let Some(payload) = rest.get(..ip.payload_len()) else {
            return Err(Flaw::Truncated { need: LEN + ip.payload_len(), have: bytes.len() });
        };
        let upper = ip.upper(payload)?;
        Ok((Self { protocol: upper.protocol, fragment: upper.fragment, ..ip }, upper.bytes))
    }

    /// The header that `bytes` begin with and the bytes behind it, its payload length not yet looked at.
    #[inline(always)]
    pub(crate) fn first(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), Flaw> {
        let (header, rest) = split(bytes)?;
        if header[0] >> 4 != 6 {
            return Err(Flaw::Version { found: header[0] >> 4 });
        }
        Ok((Self { header, protocol: header[6], fragment: false }, rest))
    }

    /// What follows the extension headers, if there are any.
    #[inline(always)]
    pub(crate) fn upper(&self, payload: &'a [u8]) -> Result<Upper<'a>, Flaw> {
        if is_extension(self.protocol) {
            return Upper::follow(self.protocol, payload);
        }
        Ok(Upper { protocol: self.protocol, fragment: false, bytes: payload })
    }
}

/// What follows the extension headers of an IPv6 packet.
pub(crate) struct Upper<'a> {
    pub(crate) protocol: u8,
    pub(crate) fragment: bool,
    pub(crate) bytes: &'a [u8],
}

impl<'a> Upper<'a> {
    /// Follows at most [`MAX_EXTENSIONS`] headers. It stops behind a fragment header: what follows it is complete
    /// in the first fragment at best.
    #[inline(never)]
    fn follow(first: u8, payload: &'a [u8]) -> Result<Self, Flaw> {
        let mut upper = Self { protocol: first, fragment: false, bytes: payload };
        for _ in 0..MAX_EXTENSIONS {
            let len = upper.extension_len(payload.len())?;
            let Some((extension, bytes)) = upper.bytes.split_at_checked(len) else {
                return Err(upper.truncated(len, payload.len()));
            };
            upper.fragment = upper.protocol == FRAGMENT;
            upper.protocol = extension.first().copied().unwrap_or(NO_NEXT);
            upper.bytes = bytes;
            if upper.fragment || upper.protocol == HOP_BY_HOP || !is_extension(upper.protocol) {
                return Ok(upper);
            }
        }
        Err(Flaw::Extensions { limit: MAX_EXTENSIONS })
    }

    /// Bytes of the extension header that comes next.
    fn extension_len(&self, payload: usize) -> Result<usize, Flaw> {
        let Some([_, len]) = self.bytes.first_chunk() else {
            return Err(self.truncated(2, payload));
        };
        let len = usize::from(*len);
        match self.protocol {
            FRAGMENT => Ok(8),
            AUTHENTICATION if len == 0 => Err(Flaw::Length { found: 8, least: 12 }),
            AUTHENTICATION => Ok((len + 2) * 4),
            _ => Ok((len + 1) * 8),
        }
    }

    /// The flaw of a packet whose next extension header needs `len` bytes.
    fn truncated(&self, len: usize, payload: usize) -> Flaw {
        let before = LEN + payload - self.bytes.len();
        Flaw::Truncated { need: before + len, have: LEN + payload }
    }
}

#[inline]
const fn address(bytes: &[u8]) -> Ipv6Addr {
    match bytes.first_chunk() {
        Some(octets) => Ipv6Addr::from_octets(*octets),
        None => Ipv6Addr::UNSPECIFIED,
    }
}

#[inline(always)]
const fn is_extension(protocol: u8) -> bool {
    matches!(protocol, HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION)
}

const LEN: usize = 40; // RFC 8200 §3
/// RFC 8200 §4.1 recommends an order of at most seven; one more is room for a stranger.
const MAX_EXTENSIONS: usize = 8;
const HOP_BY_HOP: u8 = 0; // RFC 8200 §4.3: only directly behind the IPv6 header
const ROUTING: u8 = 43; // RFC 8200 §4.4
const FRAGMENT: u8 = 44; // RFC 8200 §4.5
const AUTHENTICATION: u8 = 51; // RFC 4302 §2: its length is in units of 4 bytes
const NO_NEXT: u8 = 59; // RFC 8200 §4.7
const DESTINATION: u8 = 60; // RFC 8200 §4.6
