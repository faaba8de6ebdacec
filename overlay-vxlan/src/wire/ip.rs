//! The IP header of either version.

use std::net::IpAddr;

use overlay_core::IpFamily;

use super::{IPV4, IPV6, Ipv4, Ipv6};
use crate::malformed::Flaw;

/// An IP header, lengths checked against the bytes that are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ip<'a> {
    /// RFC 791.
    V4(Ipv4<'a>),
    /// RFC 8200.
    V6(Ipv6<'a>),
}

impl<'a> Ip<'a> {
    /// The version.
    #[inline]
    pub const fn family(&self) -> IpFamily {
        match self {
            Self::V4(_) => IpFamily::V4,
            Self::V6(_) => IpFamily::V6,
        }
    }

    /// The sender's address.
    #[inline]
    pub const fn source(&self) -> IpAddr {
        match self {
            Self::V4(ip) => IpAddr::V4(ip.source()),
            Self::V6(ip) => IpAddr::V6(ip.source()),
        }
    }

    /// The address the packet is for.
    #[inline]
    pub const fn destination(&self) -> IpAddr {
        match self {
            Self::V4(ip) => IpAddr::V4(ip.destination()),
            Self::V6(ip) => IpAddr::V6(ip.destination()),
        }
    }

    /// What the packet carries (IANA's protocol registry); for IPv6, behind the extension headers.
    #[inline]
    pub const fn protocol(&self) -> u8 {
        match self {
            Self::V4(ip) => ip.protocol(),
            Self::V6(ip) => ip.protocol(),
        }
    }

    /// Whether the packet is a part of a datagram, the first part included.
    #[inline]
    pub const fn is_fragment(&self) -> bool {
        match self {
            Self::V4(ip) => ip.is_fragment(),
            Self::V6(ip) => ip.is_fragment(),
        }
    }

    /// Routers the packet may still pass.
    #[inline]
    pub const fn ttl(&self) -> u8 {
        match self {
            Self::V4(ip) => ip.ttl(),
            Self::V6(ip) => ip.ttl(),
        }
    }

    /// DSCP (RFC 2474) and, in the two low bits, ECN (RFC 3168).
    #[inline]
    pub const fn traffic_class(&self) -> u8 {
        match self {
            Self::V4(ip) => ip.traffic_class(),
            Self::V6(ip) => ip.traffic_class(),
        }
    }

    /// Reads what `ethertype` announces, if that is IP, and gives the upper layer's bytes, any trailer cut off.
    #[inline(always)]
    pub(crate) fn parse(ethertype: u16, bytes: &'a [u8]) -> Result<Option<(Self, &'a [u8])>, Flaw> {
        match ethertype {
            IPV4 => Ipv4::parse(bytes).map(|(ip, upper)| Some((Self::V4(ip), upper))),
            IPV6 => Ipv6::parse(bytes).map(|(ip, upper)| Some((Self::V6(ip), upper))),
            _ => Ok(None),
        }
    }
}
