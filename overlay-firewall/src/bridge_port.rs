//! Ports of bridges, and who may speak at them.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use overlay_core::Mac;
use serde::{Deserialize, Serialize};

/// A port of a bridge of this place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BridgePort {
    /// An endpoint is behind it, and nobody else.
    Pinned(Pin),
    /// A tunnel: the nodes at its other ends pin their own endpoints.
    Trunk,
}

/// Who is behind a port, so that whoever is there can pretend to be nobody else.
///
/// What is dropped of what comes in there: frames from another Ethernet address, IPv4 and IPv6 packets from another
/// address, ARP that speaks for another address, neighbour advertisements for another address, probes for another's,
/// neighbour discovery with another Ethernet address in it or behind an extension header, router advertisements and
/// redirects, a DHCP server's answers (whatever is from a server's port or to a client's), and all frames that are neither
/// IPv4, IPv6 nor ARP for IPv4. IPv6 packets whose upper header cannot be found are dropped too, as are first fragments
/// that end before it: no other part of such a packet is of use. Later fragments pass where their header comes first.
///
/// ```
/// use overlay_core::Mac;
/// use overlay_firewall::Pin;
///
/// let pin = Pin::new(Mac::from_ipv4([10, 0, 9, 2].into()), ["10.0.9.2".parse()?, "fd00:9::2".parse()?]);
/// assert_eq!(pin.link_local().to_string(), "fe80::42:aff:fe00:902");
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pin {
    /// Its Ethernet address.
    pub mac: Mac,
    /// Its addresses; [`link_local`](Self::link_local) is its own too.
    pub addresses: BTreeSet<IpAddr>,
    /// Whether frames to other isolated ports are dropped: ports of a gateway's bridge are there for the way out only.
    pub isolated: bool,
}

impl Pin {
    /// A port whose endpoint may talk to all others at the bridge.
    pub fn new(mac: Mac, addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        Self { mac, addresses: addresses.into_iter().collect(), isolated: false }
    }

    /// The same, but it may talk to no other isolated port.
    #[must_use]
    pub fn isolated(self) -> Self {
        Self { isolated: true, ..self }
    }

    /// The link-local address made of the Ethernet address.
    pub const fn link_local(&self) -> Ipv6Addr {
        self.mac.link_local()
    }
}

/// What a bridge port that is not listed may do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strangers {
    /// Everything: the bridges of a host may be other programs'.
    #[default]
    Pass,
    /// Nothing: in a sandbox all bridges are ours, and a port that nobody told us of carries nothing.
    Drop,
}

impl fmt::Display for BridgePort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pinned(pin) => pin.fmt(f),
            Self::Trunk => f.write_str("trunk"),
        }
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pinned to {}", self.mac)?;
        self.addresses.iter().try_for_each(|address| write!(f, ", {address}"))?;
        f.write_str(if self.isolated { ", isolated" } else { "" })
    }
}

impl fmt::Display for Strangers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Pass => "pass",
            Self::Drop => "drop",
        })
    }
}
