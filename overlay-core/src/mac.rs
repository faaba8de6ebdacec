//! Ethernet addresses.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use crate::text::serde_as_text;

/// An Ethernet address (EUI-48), shown as `02:42:0a:00:00:02`.
///
/// ```
/// use overlay_core::Mac;
///
/// let mac = Mac::from_ipv4([10, 0, 0, 2].into());
/// assert_eq!(mac.to_string(), "02:42:0a:00:00:02");
/// assert_eq!("02-42-0A-00-00-02".parse(), Ok(mac));
/// assert!(mac.is_local() && !mac.is_multicast());
/// assert_eq!(mac.link_local().to_string(), "fe80::42:aff:fe00:2");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac([u8; 6]);

impl Mac {
    /// `ff:ff:ff:ff:ff:ff`: every station of a segment.
    pub const BROADCAST: Self = Self([0xff; 6]);
    /// `00:00:00:00:00:00`: no station; to a VXLAN forwarding table, the default entry.
    pub const ZERO: Self = Self([0; 6]);

    /// The address with these octets, in the order of the wire.
    #[inline]
    pub const fn new(octets: [u8; 6]) -> Self {
        Self(octets)
    }

    /// `02:42` and the four octets of `address`: what Docker gives a container, so unique where the address is.
    pub const fn from_ipv4(address: Ipv4Addr) -> Self {
        let [a, b, c, d] = address.octets();
        Self([0x02, 0x42, a, b, c, d])
    }

    /// Makes any six octets, random ones say, a locally administered unicast address by two bits of the first.
    pub const fn local(octets: [u8; 6]) -> Self {
        let [first, b, c, d, e, f] = octets;
        Self([first & !0x01 | 0x02, b, c, d, e, f])
    }

    /// The octets in the order of the wire.
    #[inline]
    pub const fn octets(self) -> [u8; 6] {
        self.0
    }

    /// Whether the address names a group of stations; broadcast does.
    #[inline]
    pub const fn is_multicast(self) -> bool {
        self.0[0] & 0x01 != 0
    }

    /// Whether the address is one station's: neither a group nor [`ZERO`](Self::ZERO).
    pub const fn is_station(self) -> bool {
        let [a, b, c, d, e, f] = self.0;
        !self.is_multicast() && (a | b | c | d | e | f) != 0
    }

    /// The IPv6 link-local address made of it (RFC 4291, appendix A).
    pub const fn link_local(self) -> Ipv6Addr {
        let [a, b, c, d, e, f] = self.0;
        Ipv6Addr::from_octets([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 0x02, b, c, 0xff, 0xfe, d, e, f])
    }

    /// Whether the address was given by an administrator, not by the maker of the hardware.
    pub const fn is_local(self) -> bool {
        self.0[0] & 0x02 != 0
    }
}

impl From<[u8; 6]> for Mac {
    fn from(octets: [u8; 6]) -> Self {
        Self::new(octets)
    }
}

impl From<Mac> for [u8; 6] {
    fn from(mac: Mac) -> Self {
        mac.octets()
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mac({self})")
    }
}

impl FromStr for Mac {
    type Err = MacError;

    /// Reads six pairs of hex digits, all separated by `:` or all by `-`.
    fn from_str(text: &str) -> Result<Self, MacError> {
        let separator = if text.contains('-') { '-' } else { ':' };
        let mut octets = [0; 6];
        let mut parts = text.split(separator);
        for octet in &mut octets {
            let part = parts.next().filter(|part| part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit()));
            *octet = part.and_then(|part| u8::from_str_radix(part, 16).ok()).ok_or(MacError)?;
        }
        parts.next().is_none().then_some(Self(octets)).ok_or(MacError)
    }
}

serde_as_text!(Mac);

/// A text that is no Ethernet address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an Ethernet address is six pairs of hex digits, as in 02:42:0a:00:00:02")]
pub struct MacError;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn other_shapes_are_refused() {
        for text in
            ["", "02:42:0a:00:00", "02:42:0a:00:00:02:03", "02:42:0a:00:00:+2", "02:42-0a:00:00:02", "2:42:a:0:0:2"]
        {
            assert_eq!(text.parse::<Mac>(), Err(MacError), "{text}");
        }
    }

    proptest! {
        #[test]
        fn text_round_trips(octets in any::<[u8; 6]>()) {
            let mac = Mac::new(octets);
            prop_assert_eq!(<[u8; 6]>::from(Mac::from(octets)), octets);
            prop_assert_eq!(mac.to_string().parse(), Ok(mac));
            prop_assert_eq!(mac.to_string().to_uppercase().replace(':', "-").parse(), Ok(mac));
        }

        #[test]
        fn local_makes_a_station_of_anything(octets in any::<[u8; 6]>()) {
            prop_assert!(Mac::local(octets).is_local() && Mac::local(octets).is_station());
        }
    }
}
