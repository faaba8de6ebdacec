//! Routes in a namespace of somebody else's, as a value.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

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
    /// Sources of which a rule or the route is missing. Observed only: nobody wants such.
    pub half: BTreeSet<IpAddr>,
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
}

impl Ways {
    /// The metric of these routes.
    pub const METRIC: u32 = 1024;
    /// The priority of the rules by which a source's packets are first sought in the main table, but for its default routes. The next one leads
    /// to the source's own table.
    pub const PRIORITY: u32 = 32_000;

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
        in_phases::<Self>(to.chain(from).chain(half).collect())
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
        }
    }

    fn phase(step: &WayStep) -> Phase {
        match step {
            WayStep::Put(..) | WayStep::PutFrom(..) => Phase::Open,
            WayStep::Remove(_) | WayStep::RemoveFrom(_) => Phase::Close,
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

impl fmt::Display for WayStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Put(to, way) => write!(f, "put route to {to} {way}"),
            Self::Remove(to) => write!(f, "remove route to {to}"),
            Self::PutFrom(from, way) => write!(f, "put route from {from} {way}"),
            Self::RemoveFrom(from) => write!(f, "remove route from {from}"),
        }
    }
}
