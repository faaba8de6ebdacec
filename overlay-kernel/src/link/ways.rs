//! Routes in a namespace of somebody else's.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use nix::libc::{EEXIST, ENODEV, ENOENT, ESRCH};
use overlay_core::{
    Applied, Backend, BackendError, Change, ErrorKind, IfName, IpFamily, Lower, Phase, Refusal, StepError, StepOf,
    Witness, in_phases, keyed_diff,
};
use serde::{Deserialize, Serialize};

use super::MAIN_TABLE;
use crate::netlink::{Drained, Family, NetlinkError, Notices, Requests, Socket};
use crate::rtnl::{GROUPS, WAYS_PROTOCOL, link, route};
use crate::{Namespace, failed};

/// The routes of ours in a container's namespace, by destination: each leaves by a device of whoever's there.
///
/// Where [`links::State`](super::State) holds routes by devices of its owner, along with those, this holds routes that depend on
/// all that a container is plugged into, such as its default route. They are in the main table, with metric
/// [`METRIC`](Self::METRIC): a route that the container's runtime has set without one comes first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ways(pub BTreeMap<IpNet, Way>);

/// Where packets for a destination go.
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
}

impl Ways {
    /// The metric of these routes.
    pub const METRIC: u32 = 1024;
}

impl overlay_core::State for Ways {
    type Step = WayStep;

    fn plan(&self, desired: &Self) -> Vec<WayStep> {
        let steps = keyed_diff(&self.0, &desired.0).map(|change| match change {
            Change::Add(to, way) | Change::Replace(to, _, way) => WayStep::Put(*to, *way),
            Change::Remove(to, _) => WayStep::Remove(*to),
        });
        in_phases::<Self>(steps.collect())
    }

    fn apply(&mut self, step: &WayStep) {
        match step {
            WayStep::Put(to, way) => drop(self.0.insert(*to, *way)),
            WayStep::Remove(to) => drop(self.0.remove(to)),
        }
    }

    fn phase(step: &WayStep) -> Phase {
        match step {
            WayStep::Put(..) => Phase::Open,
            WayStep::Remove(_) => Phase::Close,
        }
    }

    fn check(&self) -> Result<(), Refusal> {
        let host_bits = |to: &&IpNet| to.trunc() != **to;
        if let Some(to) = self.0.keys().find(host_bits) {
            return Err(Refusal::new(format!("route to {to}"), "host bits", format!("{} has none", to.trunc())));
        }
        let mixed = |(to, way): &(&IpNet, &Way)| way.gateway.is_some_and(|via| via.is_ipv4() != to.addr().is_ipv4());
        match self.0.iter().find(mixed) {
            Some((to, way)) => {
                Err(Refusal::new(format!("route to {to}"), way.to_string(), "a router is of its family"))
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
        }
    }
}

/// Holds [`Ways`] in the kernel, in one namespace.
///
/// What it makes has a protocol of its own (KERNEL.md), which is any owner's: two agents must not do this in one namespace.
/// Needs `CAP_NET_ADMIN` over the namespace, and `CAP_SYS_ADMIN` to enter it.
///
/// ```no_run
/// use overlay_core::{Shadow, reconcile};
/// use overlay_kernel::Namespace;
/// use overlay_kernel::link::{KernelWays, Way, Ways};
///
/// let container = Namespace::open("/run/netns/web")?;
/// let mut wanted = Ways::default();
/// wanted.0.insert("0.0.0.0/0".parse()?, Way { device: "eth0".parse()?, gateway: Some([10, 0, 9, 1].into()) });
/// print!("{}", reconcile(&mut Shadow::new(KernelWays::open(container)?), &wanted)?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct KernelWays {
    namespace: Namespace,
    socket: Socket,
    notices: Option<Notices>,
}

impl KernelWays {
    /// Works in this namespace.
    ///
    /// # Errors
    /// [`ErrorKind::Permission`] if it may not be entered.
    pub fn open(namespace: Namespace) -> Result<Self, BackendError> {
        let socket = namespace.netlink(Family::Route)?;
        Ok(Self { namespace, socket, notices: None })
    }

    fn routes(&mut self, family: IpFamily) -> Result<Vec<route::Found>, NetlinkError> {
        let found =
            self.socket.dump(&route::dump(family, WAYS_PROTOCOL), |message| route::parse(message, WAYS_PROTOCOL));
        match found {
            Err(error) if error.kind() == ErrorKind::Unsupported => Ok(Vec::new()),
            found => found,
        }
    }

    fn step(&mut self, step: &WayStep) -> Result<(), BackendError> {
        let done = match step {
            WayStep::Put(to, way) => self.put(*to, way)?,
            WayStep::Remove(to) => {
                let mut request = Requests::default();
                route::remove(&mut request, (MAIN_TABLE, *to, Ways::METRIC), WAYS_PROTOCOL);
                match self.socket.request(&request) {
                    Err(error) if matches!(error.errno(), Some(ESRCH | ENOENT | ENODEV)) => Ok(()),
                    done => done,
                }
            }
        };
        done.map_err(|error| error.during(step.to_string()))
    }

    /// Adds a route, or sets it in place of one of ours; never of another's.
    fn put(&mut self, destination: IpNet, way: &Way) -> Result<Result<(), NetlinkError>, BackendError> {
        let found = self.socket.ask(&link::by_name(way.device), link::parse);
        let index = found.map_err(|error| error.during(format!("find device {}", way.device)))?.into_iter().next();
        let gone = || failed(format!("find device {}", way.device), nix::errno::Errno::ENODEV);
        let index = index.ok_or_else(gone)?.index;
        let target = route::Target::Device { index, gateway: way.gateway, source: None, onlink: false };
        let wanted = route::Found { table: MAIN_TABLE, destination, metric: Ways::METRIC, target };
        let taken = match self.socket.request(&route::add(&wanted, WAYS_PROTOCOL)) {
            Err(error) if error.errno() == Some(EEXIST) => error,
            done => return Ok(done),
        };
        let ours = self.routes(IpFamily::of(destination.addr()));
        let ours = ours.map_err(|error| error.during(format!("look for the route to {destination}")))?;
        Ok(match ours.into_iter().find(|found| is_way(found) && found.destination == destination) {
            Some(found) if found == wanted => Ok(()),
            Some(_) => self.socket.request(&route::replace(&wanted, WAYS_PROTOCOL)),
            None => Err(taken),
        })
    }
}

fn is_way(found: &route::Found) -> bool {
    (found.table, found.metric) == (MAIN_TABLE, Ways::METRIC)
}

impl Backend for KernelWays {
    type State = Ways;

    fn observe(&mut self) -> Result<Ways, BackendError> {
        let reading = |error: NetlinkError| error.during("read routes");
        let names: BTreeMap<u32, IfName> = self
            .socket
            .dump(&link::dump(), link::parse)
            .map_err(reading)?
            .iter()
            .filter_map(|link| Some((link.index, link.name?)))
            .collect();
        let mut ways = Ways::default();
        for family in [IpFamily::V4, IpFamily::V6] {
            for found in self.routes(family).map_err(reading)?.into_iter().filter(is_way) {
                if let route::Target::Device { index, gateway, .. } = found.target
                    && let Some(device) = names.get(&index)
                {
                    ways.0.insert(found.destination, Way { device: *device, gateway });
                }
            }
        }
        Ok(ways)
    }

    fn apply(&mut self, steps: &[StepOf<Self>]) -> Result<(), StepError> {
        for (at, step) in steps.iter().enumerate() {
            let applied = if at == 0 { Applied::Nothing } else { Applied::Before };
            self.step(step).map_err(|source| {
                let doubt = matches!(source.kind(), ErrorKind::Timeout | ErrorKind::Interrupted);
                StepError { at, applied: if doubt { Applied::Unknown } else { applied }, source }
            })?;
        }
        Ok(())
    }
}

impl Witness for KernelWays {
    fn watch(&mut self) -> Result<(), BackendError> {
        self.notices = None;
        let notices = self.namespace.notices(Family::Route, &GROUPS, 1 << 16)?;
        notices.ignore(self.socket.port()).map_err(|error| error.during("watch routes"))?;
        self.notices = Some(notices);
        Ok(())
    }

    fn undisturbed(&mut self) -> Result<bool, BackendError> {
        let Some(notices) = &mut self.notices else { return Ok(false) };
        Ok(notices.drain(|_| {}).map_err(|error| error.during("hear what changed"))? == Drained::Quiet)
    }
}

impl Lower<Ways> for KernelWays {
    type Native = Ways;

    fn lower<'d>(&self, desired: &'d Ways) -> Result<Cow<'d, Ways>, Refusal> {
        Ok(Cow::Borrowed(desired))
    }
}
