//! What a machine does with who asks at its own addresses: the pure meaning of published services.

use std::fmt;
use std::net::IpAddr;

use overlay_core::{IfName, IpFamily, Name, Port, Protocol};

use crate::{Bind, Service, State};

/// The first packet of a flow to an address of the machine's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ask {
    /// The interface that it came in by; `None` if it began on the machine itself.
    pub by: Option<IfName>,
    /// Who asks.
    pub from: IpAddr,
    /// The machine's address that was asked.
    pub to: IpAddr,
    /// Of TCP, UDP or SCTP.
    pub protocol: Protocol,
    /// The port that was asked for.
    pub port: Port,
}

/// What becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked<'s> {
    /// It is led to one of the service's replicas, at this port of theirs.
    Served(&'s Name, Port),
    /// It is refused: by a reset, or by an ICMP error. The service has no replica that takes it.
    Refused(&'s Name),
    /// It is dropped: the service is not for who asks.
    Dropped(&'s Name),
    /// No service is published there: whoever listens is asked.
    Left,
}

impl State {
    /// What becomes of who asks at an address of the machine's own: what every backend does that serves published services. O(n) for n services.
    ///
    /// ```
    /// use overlay_core::{Port, Protocol};
    /// use overlay_lb::{Ask, Asked, Bind, Service, State};
    ///
    /// let web = Service::published().port(Protocol::Tcp, Port::new(80)?, Port::new(8080)?);
    /// let web = web.at(Bind::Addresses(["192.0.2.1".parse()?].into())).from("192.0.2.0/24".parse()?);
    /// let state = State { services: [("web".parse()?, web)].into_iter().collect(), ..State::default() };
    /// let ask = |from: &str, to: &str| {
    ///     let (from, to) = (from.parse().unwrap(), to.parse().unwrap());
    ///     let ask = Ask { by: "eth0".parse().ok(), from, to, protocol: Protocol::Tcp, port: Port::new(80).unwrap() };
    ///     state.asked(&ask).to_string()
    /// };
    /// assert_eq!(ask("192.0.2.9", "192.0.2.1"), "refused by web, which has no replica that takes it");
    /// assert_eq!(ask("198.51.100.9", "192.0.2.1"), "dropped by web, which is not for who asks");
    /// assert_eq!(ask("192.0.2.9", "192.0.2.2"), "left to whoever listens there");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn asked(&self, ask: &Ask) -> Asked<'_> {
        if is_near(ask.to) {
            return Asked::Left;
        }
        let found = self.services.iter().find_map(|(name, service)| Some((name, service, service.target_of(ask)?)));
        let Some((name, service, target)) = found else { return Asked::Left };
        match () {
            () if !service.admits(ask) => Asked::Dropped(name),
            () if service.takers(IpFamily::of(ask.to)).next().is_none() => Asked::Refused(name),
            () => Asked::Served(name, target),
        }
    }
}

impl Service {
    /// Where a published service leads who asks for it there.
    fn target_of(&self, ask: &Ask) -> Option<Port> {
        let here = match &self.bind {
            Bind::Any => true,
            Bind::Addresses(addresses) => addresses.contains(&ask.to),
            Bind::Interfaces(interfaces) => ask.by.is_some_and(|by| interfaces.contains(&by)),
        };
        (self.is_published() && here).then(|| self.ports.target(ask.protocol, ask.port)).flatten()
    }

    /// Whether it is for who asks.
    fn admits(&self, ask: &Ask) -> bool {
        ask.by.is_none() || self.sources.is_empty() || self.sources.iter().any(|net| net.contains(&ask.from))
    }
}

/// Addresses of the machine's own at which nothing is published: what is sent there goes no further than the machine, or a link.
pub(crate) const fn is_near(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_loopback(),
        IpAddr::V6(address) => address.is_loopback() || address.is_unicast_link_local(),
    }
}

impl fmt::Display for Asked<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Served(name, target) => write!(f, "led to {name} at port {target}"),
            Self::Refused(name) => write!(f, "refused by {name}, which has no replica that takes it"),
            Self::Dropped(name) => write!(f, "dropped by {name}, which is not for who asks"),
            Self::Left => f.write_str("left to whoever listens there"),
        }
    }
}
