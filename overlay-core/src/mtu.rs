//! Sizes of packets on a link.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A maximum transmission unit: bytes of the largest IP packet a link carries, 68 to 65,535.
///
/// 68 is what IPv4 demands of every link (RFC 791); IPv6 demands 1,280 ([`Mtu::IPV6_MIN`]). What an
/// encapsulation leaves of an MTU is [`Encapsulation::inner_mtu`](crate::Encapsulation::inner_mtu).
///
/// ```
/// use overlay_core::Mtu;
///
/// assert_eq!(Mtu::new(1500), Ok(Mtu::ETHERNET));
/// assert_eq!(Mtu::new(67).unwrap_err().to_string(), "an MTU is 68 to 65535 bytes, this is 67");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Mtu(u16);

impl Mtu {
    /// The least a link may have (RFC 791 §3.2).
    pub const MIN: Self = Self(68);
    /// The least a link may have that carries IPv6 (RFC 8200 §5).
    pub const IPV6_MIN: Self = Self(1280);
    /// Ethernet's usual size.
    pub const ETHERNET: Self = Self(1500);
    /// The largest an IPv4 packet can be.
    pub const MAX: Self = Self(u16::MAX);

    /// Checks that `bytes` is 68 to 65,535.
    pub const fn new(bytes: u32) -> Result<Self, MtuError> {
        if bytes < Self::MIN.get() || bytes > Self::MAX.get() {
            return Err(MtuError { found: bytes });
        }
        Ok(Self(bytes as u16))
    }

    /// The size in bytes.
    #[inline]
    pub const fn get(self) -> u32 {
        self.0 as u32
    }
}

impl TryFrom<u32> for Mtu {
    type Error = MtuError;

    fn try_from(bytes: u32) -> Result<Self, MtuError> {
        Self::new(bytes)
    }
}

impl From<Mtu> for u32 {
    fn from(mtu: Mtu) -> Self {
        mtu.get()
    }
}

impl fmt::Display for Mtu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for Mtu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mtu({self})")
    }
}

/// A size that no link has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an MTU is 68 to 65535 bytes, this is {found}")]
pub struct MtuError {
    /// The size given, or left over by an encapsulation, in bytes.
    pub found: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_edges_hold() {
        assert_eq!(Mtu::new(67), Err(MtuError { found: 67 }));
        assert_eq!(Mtu::new(68), Ok(Mtu::MIN));
        assert_eq!(Mtu::new(65_535), Ok(Mtu::MAX));
        assert_eq!(Mtu::new(65_536), Err(MtuError { found: 65_536 }));
    }
}
