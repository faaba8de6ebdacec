//! Published ports.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6};

use ipnet::IpNet;
use overlay_core::{IfName, IpFamily, Port, Protocol};
use serde::{Deserialize, Serialize};

/// A port of this machine that leads to an endpoint: the one way in.
///
/// In *host mode* the target is the endpoint itself, on the node that it runs on; in *ingress mode* it is, on every node,
/// where the load balancer is reached. In a container it may be another port of the container.
///
/// ```
/// use overlay_core::{Port, Protocol};
/// use overlay_firewall::{Bind, Published};
///
/// let web = Published::new(Protocol::Tcp, Port::new(8080)?)
///     .to("172.18.0.5:80".parse()?)
///     .to("[fd00:18::5]:80".parse()?)
///     .from("192.0.2.0/24".parse()?);
/// let local = Published { bind: Bind::Address([127, 0, 0, 1].into()), ..web.clone() };
/// assert_eq!(web.to_string(), "tcp 8080 at any address from 192.0.2.0/24 to 172.18.0.5:80 and [fd00:18::5]:80");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// Of which the port is.
    pub protocol: Protocol,
    /// The port that clients ask for.
    pub port: Port,
    /// Where they find it.
    pub bind: Bind,
    /// Who may ask, of those that are not on this machine; everybody where it is empty.
    pub sources: BTreeSet<IpNet>,
    /// Where clients of IPv4 get to; without one the port is not published for them.
    pub v4: Option<SocketAddrV4>,
    /// Where clients of IPv6 get to; without one the port is not published for them.
    pub v6: Option<SocketAddrV6>,
}

impl Published {
    /// A port at every address, for everybody, that leads nowhere yet.
    pub const fn new(protocol: Protocol, port: Port) -> Self {
        Self { protocol, port, bind: Bind::Any, sources: BTreeSet::new(), v4: None, v6: None }
    }

    /// The same with this target for clients of its family.
    #[must_use]
    pub fn to(self, target: SocketAddr) -> Self {
        match target {
            SocketAddr::V4(v4) => Self { v4: Some(v4), ..self },
            SocketAddr::V6(v6) => Self { v6: Some(v6), ..self },
        }
    }

    /// The same for clients of this subnet too, and for no others but those allowed before.
    #[must_use]
    pub fn from(mut self, source: IpNet) -> Self {
        self.sources.insert(source);
        self
    }

    /// The same at this place.
    #[must_use]
    pub const fn at(mut self, bind: Bind) -> Self {
        self.bind = bind;
        self
    }

    /// Where clients of a family get to, if the port is published for them.
    pub fn target(&self, family: IpFamily) -> Option<SocketAddr> {
        if !self.bind.serves(family) {
            return None;
        }
        match family {
            IpFamily::V4 => self.v4.map(SocketAddr::V4),
            IpFamily::V6 => self.v6.map(SocketAddr::V6),
        }
    }
}

/// Where a published port is found. A port may be published at several; an address is asked first, then an interface.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bind {
    /// At every address of the machine: of IPv6 but for the loopback one and those of a link, as nothing that is behind a gateway can answer there.
    /// At IPv4's loopback addresses an endpoint answers if its gateway's device lets them pass (`route_localnet`).
    #[default]
    Any,
    /// At one address; at a loopback address for clients on this machine only.
    Address(IpAddr),
    /// At all these addresses, for packets that come in by one interface.
    Interface(IfName),
}

impl Bind {
    /// Whether clients of the family can find it.
    pub(crate) const fn serves(&self, family: IpFamily) -> bool {
        match self {
            Self::Address(address) => {
                matches!((address, family), (IpAddr::V4(_), IpFamily::V4) | (IpAddr::V6(_), IpFamily::V6))
            }
            Self::Any | Self::Interface(_) => true,
        }
    }

    /// Whether an address is one that only a port at just that address takes.
    pub(crate) const fn is_near(address: IpAddr) -> bool {
        matches!(address, IpAddr::V6(address) if address.is_loopback() || address.is_unicast_link_local())
    }

    /// Whether it is for this machine's own clients only.
    pub(crate) const fn is_loopback(&self) -> bool {
        matches!(self, Self::Address(address) if address.is_loopback())
    }
}

impl fmt::Display for Published {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} at {}", self.protocol, self.port, self.bind)?;
        for (number, net) in self.sources.iter().enumerate() {
            write!(f, "{}{net}", if number == 0 { " from " } else { ", " })?;
        }
        let v4 = self.v4.map(|target| target.to_string());
        let targets: Vec<_> = v4.into_iter().chain(self.v6.map(|target| target.to_string())).collect();
        write!(f, " to {}", if targets.is_empty() { "nothing".to_owned() } else { targets.join(" and ") })
    }
}

impl fmt::Display for Bind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any address"),
            Self::Address(address) => address.fmt(f),
            Self::Interface(interface) => interface.fmt(f),
        }
    }
}
