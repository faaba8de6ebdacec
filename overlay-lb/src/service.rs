//! A virtual service.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use overlay_core::{AddressSet, EndpointId, IfName, IpFamily, Port, Protocol};
use serde::{Deserialize, Serialize};

use crate::{Condition, Replica, Scheduler};

/// A virtual service: an address, the VIP, behind which replicas share the work; or ports of the machine's own addresses.
///
/// A packet for a VIP and a port that nothing serves is rejected: TCP by a reset, the rest by an ICMP error. So is one for a service
/// that has no replica to take it. An ICMP echo request to a VIP is answered by whoever has the VIP, not by a replica.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// The VIP: one address of each family at most. Several services may have one VIP, on ports of their own.
    ///
    /// Without one, the service is *published*: at ports, which it must name, of all addresses that the machine itself has, of both families,
    /// but of loopback ones and IPv6's link-local ones. Whatever listens there is not asked.
    pub vips: AddressSet,
    /// What of it is served.
    pub ports: Ports,
    /// Where on the machine a published service is found; of others [`Bind::Any`].
    #[serde(default)]
    pub bind: Bind,
    /// Who may ask for a published service, of those that are not on the machine itself: everybody where it is empty. What others send is dropped.
    /// It is asked when a flow begins: flows that stand go on. Of others it is empty.
    #[serde(default)]
    pub sources: BTreeSet<IpNet>,
    /// Whether replicas of a published service see the machine in place of who asks: its address at the interface by which it sends there. They answer
    /// that, so they need [no way back](crate::Arrivals) for what comes to them. Who may ask is decided before, by who it is. A flow that stands stays
    /// as it began. Of other services it is not.
    #[serde(default)]
    pub masquerade: bool,
    /// How replicas are chosen for new flows.
    pub scheduler: Scheduler,
    /// Whether a source comes back to the replica that it had last.
    pub affinity: Option<Affinity>,
    /// For how long flows may be idle; where `None`, as long as the backend has it.
    pub timeouts: Option<Timeouts>,
    /// Who serves.
    pub replicas: BTreeMap<EndpointId, Replica>,
}

impl Service {
    /// The most replicas of one service.
    pub const MAX_REPLICAS: usize = 4096;

    /// A service at these VIPs, at all ports, round robin, without replicas yet.
    pub fn new(vips: impl IntoIterator<Item = IpAddr>) -> Self {
        Self {
            vips: vips.into_iter().collect(),
            ports: Ports::All,
            bind: Bind::Any,
            sources: BTreeSet::new(),
            masquerade: false,
            scheduler: Scheduler::RoundRobin,
            affinity: None,
            timeouts: None,
            replicas: BTreeMap::new(),
        }
    }

    /// A service at ports of the machine's own addresses, which are still to be named.
    pub fn published() -> Self {
        Self::new([])
    }

    /// Serves this port too, at another port of the replicas, and no others than those named so.
    #[must_use]
    pub fn port(mut self, protocol: Protocol, port: Port, target: Port) -> Self {
        let mut named = match self.ports {
            Ports::All => BTreeSet::new(),
            Ports::Named(named) => named,
        };
        named.insert(ServedPort { protocol, port, target });
        self.ports = Ports::Named(named);
        self
    }

    /// The same at this place of the machine.
    #[must_use]
    pub fn at(self, bind: Bind) -> Self {
        Self { bind, ..self }
    }

    /// The same for clients of this subnet too, and for no others but those allowed before.
    #[must_use]
    pub fn from(mut self, source: IpNet) -> Self {
        self.sources.insert(source);
        self
    }

    /// The same with the machine in place of who asks.
    #[must_use]
    pub fn masqueraded(self) -> Self {
        Self { masquerade: true, ..self }
    }

    /// Whether it is at the machine's own addresses.
    pub fn is_published(&self) -> bool {
        self.vips.is_empty()
    }

    /// Whether clients of a family find it: at a VIP, or at the machine's own addresses.
    pub fn serves(&self, family: IpFamily) -> bool {
        self.is_published() || self.vip(family).is_some()
    }

    /// The VIP of a family.
    pub fn vip(&self, family: IpFamily) -> Option<IpAddr> {
        of_family(&self.vips, family)
    }

    /// The replicas that get new flows of this family, with their addresses.
    pub fn takers(&self, family: IpFamily) -> impl Iterator<Item = (EndpointId, &Replica, IpAddr)> {
        let active = self.replicas.iter().filter(|(_, replica)| replica.condition == Condition::Active);
        active.filter_map(move |(endpoint, replica)| Some((*endpoint, replica, replica.address(family)?)))
    }

    pub(crate) fn differs_in_replicas_only(&self, other: &Self) -> bool {
        let Self { vips, ports, bind, sources, masquerade, scheduler, affinity, timeouts, replicas: _ } = self;
        (vips, ports, scheduler) == (&other.vips, &other.ports, &other.scheduler)
            && (bind, sources, masquerade) == (&other.bind, &other.sources, &other.masquerade)
            && (affinity, timeouts) == (&other.affinity, &other.timeouts)
    }
}

pub(crate) fn of_family(addresses: &[IpAddr], family: IpFamily) -> Option<IpAddr> {
    addresses.iter().copied().find(|address| IpFamily::of(*address) == family)
}

/// Where on a machine a published service is found.
///
/// Elsewhere its ports are not taken: whoever listens there is asked.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bind {
    /// At every address of the machine's own, but loopback ones and IPv6's link-local ones.
    #[default]
    Any,
    /// At these of its addresses, one at least; a machine that has none of them does not serve.
    Addresses(BTreeSet<IpAddr>),
    /// At every address, for what comes in by one of these interfaces, one at least; not for what begins on the machine itself.
    Interfaces(BTreeSet<IfName>),
}

/// Which ports of a VIP are served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ports {
    /// Every port of TCP, UDP and SCTP, each at the same port of a replica.
    All,
    /// These, one at least.
    Named(BTreeSet<ServedPort>),
}

impl Ports {
    /// Those that are named; none where all are served.
    #[cfg(feature = "kernel")]
    pub(crate) fn named(&self) -> impl Iterator<Item = &ServedPort> {
        let named = match self {
            Self::All => None,
            Self::Named(named) => Some(named),
        };
        named.into_iter().flatten()
    }

    /// Where a port leads, if it is served. O(log n).
    pub(crate) fn target(&self, protocol: Protocol, port: Port) -> Option<Port> {
        let Self::Named(named) = self else { return Some(port) };
        let to = |target| ServedPort { protocol, port, target };
        named.range(to(crate::check::LOWEST)..=to(Port::MAX)).next().map(|served| served.target)
    }
}

/// A port of a VIP, and where it leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ServedPort {
    /// Its protocol.
    pub protocol: Protocol,
    /// The port of the VIP.
    pub port: Port,
    /// The port of the replicas.
    pub target: Port,
}

/// That a source comes back to its replica: new flows go to the replica that the source's last flow to the service went
/// to, while that is active.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Affinity {
    /// For how long after its last flow began: whole seconds, 1 s to 30 days.
    pub timeout: Duration,
}

/// For how long flows may be idle before they are forgotten, each in whole seconds, 1 s to 30 days.
///
/// ```
/// use overlay_lb::Timeouts;
///
/// assert_eq!(Timeouts::default().established.as_secs(), 7_440); // 2 hours and 4 minutes
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Timeouts {
    /// TCP connections and SCTP associations that stand. The default is the least that RFC 5382 allows (REQ-5).
    pub established: Duration,
    /// Those that open or close; 4 minutes by default, from the same place.
    pub transitory: Duration,
    /// UDP; 5 minutes by default (RFC 4787, REQ-5).
    pub datagram: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        let [established, transitory, datagram] = [7_440, 240, 300].map(Duration::from_secs);
        Self { established, transitory, datagram }
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<_> = self.vips.iter().map(ToString::to_string).collect();
        let active = self.replicas.values().filter(|replica| replica.condition == Condition::Active).count();
        let (ports, scheduler, all) = (&self.ports, self.scheduler, self.replicas.len());
        let at = if texts.is_empty() { format!("the machine's{}", self.bind) } else { texts.join(" and ") };
        write!(f, "{at} {ports}")?;
        if !self.sources.is_empty() {
            write!(f, " from {}", listed(&self.sources))?;
        }
        f.write_str(if self.masquerade { ", as the machine" } else { "" })?;
        write!(f, ", {scheduler} among {active} of {all} replicas")?;
        if let Some(Affinity { timeout }) = self.affinity {
            write!(f, ", sources come back for {} s", timeout.as_secs())?;
        }
        if let Some(Timeouts { established, transitory, datagram }) = self.timeouts {
            let [a, b, c] = [established, transitory, datagram].map(|it| it.as_secs());
            write!(f, ", idle for {a}/{b}/{c} s at most")?;
        }
        Ok(())
    }
}

impl fmt::Display for Bind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => Ok(()),
            Self::Addresses(addresses) => write!(f, " {}", listed(addresses)),
            Self::Interfaces(interfaces) => write!(f, " by {}", listed(interfaces)),
        }
    }
}

fn listed<T: fmt::Display>(all: &BTreeSet<T>) -> String {
    let texts: Vec<_> = all.iter().map(ToString::to_string).collect();
    texts.join(" and ")
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("at all ports"),
            Self::Named(named) => {
                let texts: Vec<_> = named.iter().map(ToString::to_string).collect();
                f.write_str(&texts.join(" and "))
            }
        }
    }
}

impl fmt::Display for ServedPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { protocol, port, target } = self;
        write!(f, "{protocol} {port}")?;
        if port == target { Ok(()) } else { write!(f, " to {target}") }
    }
}
