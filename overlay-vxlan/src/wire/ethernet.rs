//! The Ethernet header.

use overlay_core::Mac;

use super::split;
use crate::malformed::{Flaw, Layer, Malformed};

/// An Ethernet II header (IEEE 802.3) with up to two VLAN tags (IEEE 802.1Q), without preamble and FCS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ethernet<'a> {
    header: &'a [u8; 14],
    ethertype: u16,
    tags: u8,
    vlan: u16,
}

impl<'a> Ethernet<'a> {
    /// The station or group the frame is for.
    #[inline]
    pub const fn destination(&self) -> Mac {
        match self.header.first_chunk() {
            Some(octets) => Mac::new(*octets),
            None => Mac::ZERO,
        }
    }

    /// The station that sent the frame.
    #[inline]
    pub const fn source(&self) -> Mac {
        match self.header.split_at(6).1.first_chunk() {
            Some(octets) => Mac::new(*octets), // copied as a whole, not byte by byte
            None => Mac::ZERO,
        }
    }

    /// What the frame carries: the type field behind the tags. Below 0x0600 it is a length (IEEE 802.3 §3.2.6).
    #[inline]
    pub const fn ethertype(&self) -> u16 {
        self.ethertype
    }

    /// The VLAN of the outermost tag, 0 to 4,095; 0 is a priority tag. RFC 7348 §6.1 wants frames that
    /// arrive with an inner tag dropped unless configured otherwise.
    #[inline]
    pub const fn vlan(&self) -> Option<u16> {
        if self.tags == 0 { None } else { Some(self.vlan) }
    }

    /// Bytes of the header with its tags: 14, 18 or 22.
    #[inline]
    pub const fn header_len(&self) -> usize {
        LEN + self.tags as usize * TAG_LEN
    }

    #[inline(always)]
    pub(crate) fn parse(bytes: &'a [u8], layer: Layer) -> Result<(Self, &'a [u8]), Malformed> {
        let (header, payload) = split(bytes).map_err(|flaw| flaw.at(layer))?;
        if is_tag(ethertype(header)) {
            return Self::untag(header, payload).map_err(|flaw| flaw.at(layer));
        }
        Ok((Self::untagged(header), payload))
    }

    #[inline(always)]
    const fn untagged(header: &'a [u8; LEN]) -> Self {
        Self { header, ethertype: ethertype(header), tags: 0, vlan: 0 }
    }

    /// Reads the tags at the start of `payload`. Out of line and given no struct, so that the untagged path keeps its
    /// own in registers.
    #[inline(never)]
    fn untag(header: &'a [u8; LEN], mut payload: &'a [u8]) -> Result<(Self, &'a [u8]), Flaw> {
        let mut ethernet = Self::untagged(header);
        while is_tag(ethernet.ethertype) && ethernet.tags < MAX_TAGS {
            let need = ethernet.header_len() + TAG_LEN;
            let Some(([a, b, c, d], rest)) = payload.split_first_chunk() else {
                return Err(Flaw::Truncated { need, have: ethernet.header_len() + payload.len() });
            };
            if ethernet.tags == 0 {
                ethernet.vlan = u16::from_be_bytes([*a, *b]) & 0x0fff;
            }
            ethernet.tags += 1;
            ethernet.ethertype = u16::from_be_bytes([*c, *d]);
            payload = rest;
        }
        Ok((ethernet, payload))
    }
}

#[inline]
const fn ethertype(header: &[u8; LEN]) -> u16 {
    let [.., high, low] = *header;
    u16::from_be_bytes([high, low])
}

#[inline]
const fn is_tag(ethertype: u16) -> bool {
    matches!(ethertype, 0x8100 | 0x88a8) // IEEE 802.1Q: C-tag, S-tag
}

const LEN: usize = 14; // IEEE 802.3 §3.1.1, without preamble and FCS
const TAG_LEN: usize = 4; // IEEE 802.1Q §9.3
const MAX_TAGS: u8 = 2;
pub(crate) const IPV4: u16 = 0x0800; // RFC 894
pub(crate) const IPV6: u16 = 0x86dd; // RFC 2464 §3
