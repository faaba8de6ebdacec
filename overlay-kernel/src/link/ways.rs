//! Routes in a namespace of somebody else's, as a value.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use overlay_core::{Change, IfName, Phase, Refusal, in_phases, keyed_diff};
use serde::{Deserialize, Serialize};

/// The routes of ours in a container's namespace: each leaves by a device of whoever's there.
///
/// Where [`links::State`](super::State) holds routes by devices of its owner, along with those, this holds routes that depend on
/// all that a container is plugged into, such as its default route.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ways {
    /// By destination: in the main table, with metric [`METRIC`](Self::METRIC), so that a route that the container's runtime has set without one
    /// comes first.
    pub to: BTreeMap<IpNet, Way>,
    /// Default routes by source, an address of the container's, for packets to where the main table has only a default route: each in a
    /// [table](Self::table) of its own, with two rules that lead there.
    pub from: BTreeMap<IpAddr, Way>,
    /// Default routes by packets' marks, which come before all others: each in a [table](Self::table_of_mark) of its own, with a rule of each family
    /// that leads there. While there are some, marks count where it is asked whether packets may come in where they do (`src_valid_mark`),
    /// and TCP connections keep the mark that they began with (`tcp_fwmark_accept`): those switches are turned on with them, and stay on.
    pub marked: BTreeMap<u32, MarkedWay>,
    /// Sources of which a rule or the route is missing. Observed only: nobody wants such.
    pub half: BTreeSet<IpAddr>,
    /// Marks of which something is missing. Observed only, too.
    pub half_marked: BTreeSet<u32>,
}

/// Where packets with a mark go, of each family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct MarkedWay {
    /// The device they leave by.
    pub device: IfName,
    /// The next router of IPv4; such packets go as if they had no mark if `None`.
    pub v4: Option<Ipv4Addr>,
    /// The next router of IPv6, likewise.
    pub v6: Option<Ipv6Addr>,
}

/// Where packets go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Way {
    /// The device they leave by.
    pub device: IfName,
    /// The next router; where `None`, destinations are on the link itself.
    pub gateway: Option<IpAddr>,
}

/// One change of [`Ways`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WayStep {
    /// A route is made, or replaced.
    Put(IpNet, Way),
    /// A route goes.
    Remove(IpNet),
    /// The default route of a source is made, or replaced, and led to.
    PutFrom(IpAddr, Way),
    /// The default route of a source goes, and what leads to it.
    RemoveFrom(IpAddr),
    /// The default routes of a mark are made, or replaced, and led to.
    PutMarked(u32, MarkedWay),
    /// The default routes of a mark go, and what leads to them.
    RemoveMarked(u32),
}

impl Ways {
    /// The metric of these routes.
    pub const METRIC: u32 = 1024;
    /// The priority of the rules by which a source's packets are first sought in the main table, but for its default routes. The next one leads
    /// to the source's own table.
    pub const PRIORITY: u32 = 32_000;

    /// The priority of the rules by which marks lead to their tables.
    pub const MARKED_PRIORITY: u32 = 31_000;
    /// Marks are from 1 to this.
    pub const MAX_MARK: u32 = (1 << 30) - 1;

    /// The table of a mark: the mark above 2³¹, where no source's is.
    pub const fn table_of_mark(mark: u32) -> u32 {
        1 << 31 | mark
    }

    /// The table of a source: 30 bits of FNV-1a of its address, above 2³⁰, where nobody numbers tables by hand.
    pub fn table(source: IpAddr) -> u32 {
        let fold = |bytes: &[u8]| {
            bytes.iter().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
        };
        let hash = match source {
            IpAddr::V4(source) => fold(&source.octets()),
            IpAddr::V6(source) => fold(&source.octets()),
        };
        1 << 30 | hash >> 2
    }
}

impl overlay_core::State for Ways {
    type Step = WayStep;

    fn plan(&self, desired: &Self) -> Vec<WayStep> {
        let to = keyed_diff(&self.to, &desired.to).map(|change| match change {
            Change::Add(to, way) | Change::Replace(to, _, way) => WayStep::Put(*to, *way),
            Change::Remove(to, _) => WayStep::Remove(*to),
        });
        let from = keyed_diff(&self.from, &desired.from).map(|change| match change {
            Change::Add(from, way) | Change::Replace(from, _, way) => WayStep::PutFrom(*from, *way),
            Change::Remove(from, _) => WayStep::RemoveFrom(*from),
        });
        let unwanted =
            self.half.iter().filter(|half| !desired.from.contains_key(half) && !self.from.contains_key(half));
        let half = unwanted.map(|half| WayStep::RemoveFrom(*half));
        let marked = keyed_diff(&self.marked, &desired.marked).map(|change| match change {
            Change::Add(mark, way) | Change::Replace(mark, _, way) => WayStep::PutMarked(*mark, *way),
            Change::Remove(mark, _) => WayStep::RemoveMarked(*mark),
        });
        let is_known = |mark: &&u32| desired.marked.contains_key(mark) || self.marked.contains_key(mark);
        let half_marked =
            self.half_marked.iter().filter(|mark| !is_known(mark)).map(|mark| WayStep::RemoveMarked(*mark));
        in_phases::<Self>(to.chain(from).chain(half).chain(marked).chain(half_marked).collect())
    }

    fn apply(&mut self, step: &WayStep) {
        match step {
            WayStep::Put(to, way) => drop(self.to.insert(*to, *way)),
            WayStep::Remove(to) => drop(self.to.remove(to)),
            WayStep::PutFrom(from, way) => {
                self.half.remove(from);
                self.from.insert(*from, *way);
            }
            WayStep::RemoveFrom(from) => {
                self.half.remove(from);
                self.from.remove(from);
            }
            WayStep::PutMarked(mark, way) => {
                self.half_marked.remove(mark);
                self.marked.insert(*mark, *way);
            }
            WayStep::RemoveMarked(mark) => {
                self.half_marked.remove(mark);
                self.marked.remove(mark);
            }
        }
    }

    fn phase(step: &WayStep) -> Phase {
        match step {
            WayStep::Put(..) | WayStep::PutFrom(..) | WayStep::PutMarked(..) => Phase::Open,
            WayStep::Remove(_) | WayStep::RemoveFrom(_) | WayStep::RemoveMarked(_) => Phase::Close,
        }
    }

    fn check(&self) -> Result<(), Refusal> {
        let host_bits = |to: &&IpNet| to.trunc() != **to;
        if let Some(to) = self.to.keys().find(host_bits) {
            return Err(Refusal::new(format!("route to {to}"), "host bits", format!("{} has none", to.trunc())));
        }
        if let Some(half) = self.half.first() {
            return Err(Refusal::new(format!("route from {half}"), "half of it", "want all of it, or nothing"));
        }
        if let Some(half) = self.half_marked.first() {
            return Err(Refusal::new(format!("route of mark {half}"), "half of it", "want all of it, or nothing"));
        }
        for (mark, way) in &self.marked {
            let refuse = |wanted: String, reason| Err(Refusal::new(format!("route of mark {mark}"), wanted, reason));
            if *mark == 0 || *mark > Self::MAX_MARK {
                return refuse("the number".to_owned(), "a mark is from 1 to 1,073,741,823");
            }
            if way.v4.is_none() && way.v6.is_none() {
                return refuse(way.to_string(), "it needs a router");
            }
        }
        let to = self.to.iter().map(|(to, way)| (to.addr(), way));
        let from = self.from.iter().map(|(from, way)| (*from, way));
        let mixed = |(end, way): &(IpAddr, &Way)| way.gateway.is_some_and(|via| via.is_ipv4() != end.is_ipv4());
        match to.chain(from).find(mixed) {
            Some((end, way)) => {
                Err(Refusal::new(format!("route of {end}"), way.to_string(), "a router is of its family"))
            }
            None => Ok(()),
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.gateway.iter().try_for_each(|gateway| write!(f, "via {gateway} "))?;
        write!(f, "by {}", self.device)
    }
}

impl fmt::Display for MarkedWay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.v4.iter().try_for_each(|via| write!(f, "via {via} "))?;
        self.v6.iter().try_for_each(|via| write!(f, "via {via} "))?;
        write!(f, "by {}", self.device)
    }
}

impl fmt::Display for WayStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Put(to, way) => write!(f, "put route to {to} {way}"),
            Self::Remove(to) => write!(f, "remove route to {to}"),
            Self::PutFrom(from, way) => write!(f, "put route from {from} {way}"),
            Self::RemoveFrom(from) => write!(f, "remove route from {from}"),
            Self::PutMarked(mark, way) => write!(f, "put route of mark {mark} {way}"),
            Self::RemoveMarked(mark) => write!(f, "remove route of mark {mark}"),
        }
    }
}
