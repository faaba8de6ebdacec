//! Transport ports and the protocols that have them.

use std::fmt;
use std::num::NonZeroU16;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A transport port, 1 to 65,535.
///
/// ```
/// use overlay_core::{Port, PortError};
///
/// assert_eq!(Port::new(4789), Ok(Port::VXLAN));
/// assert_eq!(Port::new(0), Err(PortError));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct Port(NonZeroU16);

impl Port {
    /// The first that nobody is assigned (RFC 6335 §6).
    pub const DYNAMIC: Self = Self::known(49_152);
    /// The largest, 65,535.
    pub const MAX: Self = Self(NonZeroU16::MAX);
    /// VXLAN over UDP (RFC 7348 §8.1).
    pub const VXLAN: Self = Self::known(4789);
    /// What encrypted networks usually have: one that is assigned to nobody, neither VXLAN's nor VXLAN-GPE's 4790.
    pub const VXLAN_ENCRYPTED: Self = Self::known(4793);
    /// Gossip over UDP and TCP, as Docker Swarm has it.
    pub const GOSSIP: Self = Self::known(7946);
    /// The managers' API over TCP, as Docker Swarm has it.
    pub const CONTROL: Self = Self::known(2377);
    /// DNS over UDP and TCP (RFC 1035 §4.2).
    pub const DNS: Self = Self::known(53);
    /// Where a container's resolver usually listens, its port 53 being led there: nobody's as far as IANA knows, and below
    /// those that kernels give out by themselves.
    pub const RESOLVER: Self = Self::known(10_053);

    /// Checks that `port` is not 0.
    pub const fn new(port: u16) -> Result<Self, PortError> {
        match NonZeroU16::new(port) {
            Some(port) => Ok(Self(port)),
            None => Err(PortError),
        }
    }

    /// The number.
    #[inline]
    pub const fn get(self) -> u16 {
        self.0.get()
    }

    const fn known(port: u16) -> Self {
        match Self::new(port) {
            Ok(port) => port,
            Err(_) => Self::MAX,
        }
    }
}

impl TryFrom<u16> for Port {
    type Error = PortError;

    fn try_from(port: u16) -> Result<Self, PortError> {
        Self::new(port)
    }
}

impl From<Port> for u16 {
    fn from(port: Port) -> Self {
        port.get()
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Port({self})")
    }
}

/// Port 0, which nothing listens on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a port is 1 to 65535, this is 0")]
pub struct PortError;

/// A transport protocol whose ports can be published and balanced; shown in lower case.
///
/// ```
/// use overlay_core::Protocol;
///
/// assert_eq!("TCP".parse(), Ok(Protocol::Tcp));
/// assert_eq!(Protocol::Sctp.number(), 132);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// RFC 9293.
    Tcp,
    /// RFC 768.
    Udp,
    /// RFC 9260.
    Sctp,
}

impl Protocol {
    /// The number in an IP header (IANA's protocol registry).
    #[inline]
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }

    /// The protocol an IP header names by `number`, if it is one of these.
    #[inline]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            6 => Some(Self::Tcp),
            17 => Some(Self::Udp),
            132 => Some(Self::Sctp),
            _ => None,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

impl FromStr for Protocol {
    type Err = ProtocolError;

    /// Reads `tcp`, `udp` or `sctp` in any case.
    fn from_str(text: &str) -> Result<Self, ProtocolError> {
        [Self::Tcp, Self::Udp, Self::Sctp]
            .into_iter()
            .find(|protocol| text.eq_ignore_ascii_case(&protocol.to_string()))
            .ok_or(ProtocolError)
    }
}

/// A text that names no protocol with ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a protocol is tcp, udp or sctp")]
pub struct ProtocolError;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_texts_lead_back_to_the_protocol() {
        for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
            assert_eq!(Protocol::from_number(protocol.number()), Some(protocol));
            assert_eq!(protocol.to_string().parse(), Ok(protocol));
        }
        assert_eq!(Protocol::from_number(1), None);
        assert_eq!("icmp".parse::<Protocol>(), Err(ProtocolError));
    }

    #[test]
    fn the_known_ports_are_what_they_say() {
        assert_eq!([Port::VXLAN, Port::GOSSIP, Port::CONTROL, Port::DNS].map(Port::get), [4789, 7946, 2377, 53]);
        assert_eq!(Port::DYNAMIC.get(), 49_152);
    }
}
