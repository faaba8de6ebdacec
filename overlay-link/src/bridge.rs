//! Bridges of a host.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use ipnet::IpNet;
use overlay_core::{IfName, Mac, Mtu, NsKey};
use serde::{Deserialize, Serialize};

/// An Ethernet segment of this host, and who is on it.
///
/// Nothing is learned from traffic: a frame for a station that is not in here goes nowhere. ARP and neighbour discovery reach all ports, of an
/// isolated bridge the host alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bridge {
    /// Its own Ethernet address, the gateway's.
    pub mac: Mac,
    /// Largest IP packet on it.
    pub mtu: Mtu,
    /// Its own addresses, the gateway's, each with its subnet's prefix length.
    pub addresses: BTreeSet<IpNet>,
    /// Whether ports reach the bridge alone, not each other: of a way out.
    pub isolated: bool,
    /// Whether packets that come in by it are forwarded: where there is a way out, or a way to another bridge.
    pub routed: bool,
    /// Whether what the host sends from its IPv4 loopback addresses may pass: of a bridge behind which ports are published at such. What its ports
    /// send to loopback addresses then gets to who listens there, so a firewall is to keep it out.
    #[serde(default)]
    pub localnet: bool,
    /// Who is behind its ports, by the ports' devices.
    pub ports: BTreeMap<IfName, Port>,
}

impl Bridge {
    /// A bridge without addresses or ports, whose ports reach each other, and by which nothing leaves.
    pub const fn new(mac: Mac, mtu: Mtu) -> Self {
        Self {
            mac,
            mtu,
            addresses: BTreeSet::new(),
            isolated: false,
            routed: false,
            localnet: false,
            ports: BTreeMap::new(),
        }
    }

    /// The same, by which packets leave.
    #[must_use]
    pub fn routed(self) -> Self {
        Self { routed: true, ..self }
    }

    /// The same, by which the host's own IPv4 loopback clients pass.
    #[must_use]
    pub fn localnet(self) -> Self {
        Self { localnet: true, ..self }
    }

    /// The same, whose ports do not reach each other.
    #[must_use]
    pub fn isolated(self) -> Self {
        Self { isolated: true, ..self }
    }
}

/// A station on a bridge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// Its Ethernet address.
    pub mac: Mac,
    /// Its IP addresses, each with its subnet's prefix length. A container's interface is given them, a virtual machine sets its own.
    pub addresses: BTreeSet<IpNet>,
    /// The container's interface; `None` for a virtual machine, whose tap the port's device is.
    pub inside: Option<Inside>,
}

/// An interface in a container.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Inside {
    /// The container's namespace.
    pub namespace: NsKey,
    /// The interface's name there.
    pub interface: IfName,
}

impl fmt::Display for Inside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {}", self.interface, self.namespace.name)
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.inside {
            Some(inside) => write!(f, "{inside}, as {} with ", self.mac)?,
            None => write!(f, "a machine's tap, as {} with ", self.mac)?,
        }
        list(f, &self.addresses)
    }
}

pub(crate) fn list(f: &mut fmt::Formatter<'_>, addresses: &BTreeSet<IpNet>) -> fmt::Result {
    let Some(first) = addresses.first() else { return f.write_str("no address") };
    write!(f, "{first}")?;
    addresses.iter().skip(1).try_for_each(|address| write!(f, ", {address}"))
}
