//! The routes of a container.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use overlay_core::{Change, IfName, Phase, Refusal, State, in_phases, keyed_diff};
use serde::{Deserialize, Serialize};

/// Where a container's packets go that is on several networks: by their destinations, and by their sources where there are several ways out.
///
/// ```
/// use overlay_core::{Memory, reconcile};
/// use overlay_link::{Route, Routes};
///
/// let mut wanted = Routes::default();
/// let by = |interface: &str, via: [u8; 4]| Ok::<_, overlay_core::IfNameError>(Route { interface: interface.parse()?, via: Some(via.into()) });
/// wanted.to.insert("0.0.0.0/0".parse()?, by("eth0", [172, 17, 0, 1])?);
/// wanted.from.insert([192, 0, 2, 80].into(), by("lan0", [192, 0, 2, 1])?); // who asks for it there is answered there
///
/// let done = reconcile(&mut Memory::<Routes>::default(), &wanted)?;
/// assert_eq!(
///     done.to_string(),
///     "open       route 0.0.0.0/0 via 172.17.0.1 by eth0\n\
///      open       route from 192.0.2.80 via 192.0.2.1 by lan0\n"
/// );
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Routes {
    /// By destination; the longest prefix wins.
    pub to: BTreeMap<IpNet, Route>,
    /// By source, an address of the container: for packets whose destination has no route but a default one.
    pub from: BTreeMap<IpAddr, Route>,
    /// By mark, from 1 to 2³⁰ - 1: for packets that were marked so, before all others.
    pub marked: BTreeMap<u32, Marked>,
}

/// Where packets with a mark go, whatever their destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Marked {
    /// By which of the container's interfaces.
    pub interface: IfName,
    /// Through which router, of IPv4; such packets go as if they had no mark if `None`.
    pub v4: Option<Ipv4Addr>,
    /// Through which router, of IPv6, likewise.
    pub v6: Option<Ipv6Addr>,
}

/// One route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Route {
    /// By which of the container's interfaces.
    pub interface: IfName,
    /// Through which router; `None` for what is on the link.
    pub via: Option<IpAddr>,
}

/// One change of [`Routes`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RoutesStep {
    /// A route to a destination is made, or replaced.
    Put(IpNet, Route),
    /// A route to a destination goes.
    Remove(IpNet),
    /// The route of a source is made, or replaced.
    PutFrom(IpAddr, Route),
    /// The route of a source goes.
    RemoveFrom(IpAddr),
    /// The routes of a mark are made, or replaced.
    PutMarked(u32, Marked),
    /// The routes of a mark go.
    RemoveMarked(u32),
}

impl State for Routes {
    type Step = RoutesStep;

    /// O(n) for n routes.
    fn plan(&self, desired: &Self) -> Vec<RoutesStep> {
        let to = keyed_diff(&self.to, &desired.to).map(|change| match change {
            Change::Add(to, route) | Change::Replace(to, _, route) => RoutesStep::Put(*to, *route),
            Change::Remove(to, _) => RoutesStep::Remove(*to),
        });
        let from = keyed_diff(&self.from, &desired.from).map(|change| match change {
            Change::Add(from, route) | Change::Replace(from, _, route) => RoutesStep::PutFrom(*from, *route),
            Change::Remove(from, _) => RoutesStep::RemoveFrom(*from),
        });
        let marked = keyed_diff(&self.marked, &desired.marked).map(|change| match change {
            Change::Add(mark, route) | Change::Replace(mark, _, route) => RoutesStep::PutMarked(*mark, *route),
            Change::Remove(mark, _) => RoutesStep::RemoveMarked(*mark),
        });
        in_phases::<Self>(to.chain(from).chain(marked).collect())
    }

    fn apply(&mut self, step: &RoutesStep) {
        match step {
            RoutesStep::Put(to, route) => drop(self.to.insert(*to, *route)),
            RoutesStep::Remove(to) => drop(self.to.remove(to)),
            RoutesStep::PutFrom(from, route) => drop(self.from.insert(*from, *route)),
            RoutesStep::RemoveFrom(from) => drop(self.from.remove(from)),
            RoutesStep::PutMarked(mark, route) => drop(self.marked.insert(*mark, *route)),
            RoutesStep::RemoveMarked(mark) => drop(self.marked.remove(mark)),
        }
    }

    /// Routes open: they are there when all that they lead through is.
    fn phase(step: &RoutesStep) -> Phase {
        match step {
            RoutesStep::Put(..) | RoutesStep::PutFrom(..) | RoutesStep::PutMarked(..) => Phase::Open,
            RoutesStep::Remove(_) | RoutesStep::RemoveFrom(_) | RoutesStep::RemoveMarked(_) => Phase::Close,
        }
    }

    fn check(&self) -> Result<(), Refusal> {
        let host_bits = |to: &&IpNet| to.trunc() != **to;
        if let Some(to) = self.to.keys().find(host_bits) {
            return Err(Refusal::new(format!("route {to}"), "host bits", format!("{} has none", to.trunc())));
        }
        for (mark, route) in &self.marked {
            let refuse = |wanted: String, reason| Err(Refusal::new(format!("route of mark {mark}"), wanted, reason));
            if !(1..1 << 30).contains(mark) {
                return refuse("the number".to_owned(), "a mark is from 1 to 1,073,741,823");
            }
            if route.v4.is_none() && route.v6.is_none() {
                return refuse(route.to_string(), "it needs a router");
            }
        }
        let to = self.to.iter().map(|(to, route)| (to.addr(), route));
        let from = self.from.iter().map(|(from, route)| (*from, route));
        let mixed = |(end, route): &(IpAddr, &Route)| route.via.is_some_and(|via| via.is_ipv4() != end.is_ipv4());
        match to.chain(from).find(mixed) {
            Some((end, route)) => {
                Err(Refusal::new(format!("route of {end}"), route.to_string(), "a router is of its family"))
            }
            None => Ok(()),
        }
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.via.iter().try_for_each(|via| write!(f, "via {via} "))?;
        write!(f, "by {}", self.interface)
    }
}

impl fmt::Display for Marked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.v4.iter().try_for_each(|via| write!(f, "via {via} "))?;
        self.v6.iter().try_for_each(|via| write!(f, "via {via} "))?;
        write!(f, "by {}", self.interface)
    }
}

impl fmt::Display for RoutesStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Put(to, route) => write!(f, "route {to} {route}"),
            Self::Remove(to) => write!(f, "remove route {to}"),
            Self::PutFrom(from, route) => write!(f, "route from {from} {route}"),
            Self::RemoveFrom(from) => write!(f, "remove route from {from}"),
            Self::PutMarked(mark, route) => write!(f, "route of mark {mark} {route}"),
            Self::RemoveMarked(mark) => write!(f, "remove route of mark {mark}"),
        }
    }
}
