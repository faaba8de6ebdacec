//! Routes in a namespace of somebody else's, in the kernel.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use nix::libc::EEXIST;
use overlay_core::{Backend, BackendError, ErrorKind, IfName, IpFamily, Lower, Refusal, StepError, StepOf, Witness};

use super::route_socket::{RouteSocket, one_by_one};
use super::{MAIN_TABLE, MarkedWay, Rule, Site, Way, WayStep, Ways};
use crate::netlink::{NetlinkError, Requests};
use crate::rtnl::{WAYS_PROTOCOL, link, route, rule};
use crate::{Namespace, Sysctl, failed};

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
/// wanted.to.insert("0.0.0.0/0".parse()?, Way { device: "eth0".parse()?, gateway: Some([10, 0, 9, 1].into()) });
/// print!("{}", reconcile(&mut Shadow::new(KernelWays::open(container)?), &wanted)?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct KernelWays {
    socket: RouteSocket,
    /// Whether there are marks, which the kernel tells nobody of when it stops to mind them.
    marks: bool,
}

impl KernelWays {
    /// Works in this namespace.
    ///
    /// # Errors
    /// [`ErrorKind::Permission`] if it may not be entered.
    pub fn open(namespace: Namespace) -> Result<Self, BackendError> {
        Ok(Self { socket: RouteSocket::open(namespace)?, marks: false })
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
            WayStep::PutFrom(from, way) => self.put_from(*from, way)?,
            WayStep::Remove(to) => {
                self.remove(|requests| route::remove(requests, (MAIN_TABLE, *to, Ways::METRIC), WAYS_PROTOCOL))
            }
            WayStep::RemoveFrom(from) => self.remove_from(*from),
            WayStep::PutMarked(mark, way) => self.put_marked(*mark, way)?,
            WayStep::RemoveMarked(mark) => {
                [IpFamily::V4, IpFamily::V6].into_iter().try_for_each(|family| self.remove_marked(*mark, family))
            }
        };
        done.map_err(|error| error.during(step.to_string()))
    }

    /// Removes something that may have gone.
    fn remove(&mut self, write: impl FnOnce(&mut Requests)) -> Result<(), NetlinkError> {
        let mut request = Requests::default();
        write(&mut request);
        self.socket.remove(&request)
    }

    fn index_of(&mut self, device: IfName) -> Result<u32, BackendError> {
        let doing = || format!("find device {device}");
        let found = self.socket.ask(&link::by_name(device), link::parse).map_err(|error| error.during(doing()))?;
        found.first().map(|link| link.index).ok_or_else(|| failed(doing(), nix::errno::Errno::ENODEV))
    }

    /// The route first, so that what leads to it finds it.
    fn put_from(&mut self, from: IpAddr, way: &Way) -> Result<Result<(), NetlinkError>, BackendError> {
        let index = self.index_of(way.device)?;
        let target = route::Target::Device { index, gateway: way.gateway, source: Some(from), onlink: false };
        let (table, destination) = (Ways::table(from), everywhere(from));
        let wanted = route::Found { table, destination, metric: Ways::METRIC, target };
        if let Err(error) = self.socket.request(&route::replace(&wanted, WAYS_PROTOCOL)) {
            return Ok(Err(error));
        }
        for rule in rules(from) {
            let mut request = Requests::default();
            rule::add_marked(&mut request, &rule.rule, rule.but_default, WAYS_PROTOCOL);
            match self.socket.request(&request) {
                Err(error) if error.errno() == Some(EEXIST) => {}
                Err(error) => return Ok(Err(error)),
                Ok(()) => {}
            }
        }
        Ok(Ok(()))
    }

    fn remove_from(&mut self, from: IpAddr) -> Result<(), NetlinkError> {
        for rule in rules(from).into_iter().rev() {
            self.remove(|requests| rule::remove_marked(requests, &rule.rule, rule.but_default, WAYS_PROTOCOL))?;
        }
        let key = (Ways::table(from), everywhere(from), Ways::METRIC);
        self.remove(|requests| route::remove(requests, key, WAYS_PROTOCOL))
    }

    /// Whether the switches are on that marks need, if there are some.
    fn minds_marks(&self) -> Result<bool, BackendError> {
        if !self.marks {
            return Ok(true);
        }
        let switches = switches()?;
        let are_on = || switches.iter().try_fold(true, |on, switch| Ok(on && switch.read()? == "1"));
        self.socket.namespace().run(are_on).flatten()
    }

    /// A family that it has no router of has nothing of the mark afterwards.
    fn put_marked(&mut self, mark: u32, way: &MarkedWay) -> Result<Result<(), NetlinkError>, BackendError> {
        self.marks = true;
        let switches = switches()?;
        let set = self.socket.namespace().run(|| switches.iter().try_for_each(|switch| switch.set("1"))).flatten();
        self.socket.has_changed(); // one of them at least, it may be
        set?;
        let index = self.index_of(way.device)?;
        for (family, router) in [(IpFamily::V4, way.v4.map(IpAddr::V4)), (IpFamily::V6, way.v6.map(IpAddr::V6))] {
            let done = match router {
                Some(router) => self.put_marked_by(mark, (index, router)),
                None => self.remove_marked(mark, family),
            };
            if let Err(error) = done {
                return Ok(Err(error));
            }
        }
        Ok(Ok(()))
    }

    /// The route first, so that what leads to it finds it.
    fn put_marked_by(&mut self, mark: u32, (index, router): (u32, IpAddr)) -> Result<(), NetlinkError> {
        let target = route::Target::Device { index, gateway: Some(router), source: None, onlink: false };
        let (table, destination) = (Ways::table_of_mark(mark), everywhere(router));
        let wanted = route::Found { table, destination, metric: Ways::METRIC, target };
        self.socket.request(&route::replace(&wanted, WAYS_PROTOCOL))?;
        let mut request = Requests::default();
        rule::add_marked(&mut request, &rule_of_mark(mark, IpFamily::of(router)), false, WAYS_PROTOCOL);
        match self.socket.request(&request) {
            Err(error) if error.errno() == Some(EEXIST) => Ok(()),
            done => done,
        }
    }

    fn remove_marked(&mut self, mark: u32, family: IpFamily) -> Result<(), NetlinkError> {
        let rule = rule_of_mark(mark, family);
        let removed = self.remove(|requests| rule::remove_marked(requests, &rule, false, WAYS_PROTOCOL));
        match removed {
            Err(error) if error.kind() == ErrorKind::Unsupported => return Ok(()), // a kernel without that family has none
            removed => removed?,
        }
        let every = match family {
            IpFamily::V4 => IpNet::V4(Ipv4Net::default()),
            IpFamily::V6 => IpNet::V6(Ipv6Net::default()),
        };
        self.remove(|requests| route::remove(requests, (Ways::table_of_mark(mark), every, Ways::METRIC), WAYS_PROTOCOL))
    }

    /// The marks whose rules are there.
    fn marks(&mut self, family: IpFamily) -> Result<BTreeSet<u32>, NetlinkError> {
        let found =
            self.socket.dump(&rule::dump(family), |message| rule::parse_marked(message, &Site::Home, WAYS_PROTOCOL));
        let found = match found {
            Err(error) if error.kind() == ErrorKind::Unsupported => return Ok(BTreeSet::new()),
            found => found?,
        };
        let of_marks = found.into_iter().filter_map(|found| {
            let (mark, _) = found.rule.mark?;
            (found.rule == rule_of_mark(mark, family)).then_some(mark)
        });
        Ok(of_marks.collect())
    }

    /// What is there of marks: of each family its rules, and its routes with their devices.
    fn marked(
        &mut self,
        names: &BTreeMap<u32, IfName>,
    ) -> Result<(BTreeMap<u32, MarkedWay>, BTreeSet<u32>), NetlinkError> {
        let (mut ways, mut half) = (BTreeMap::<u32, MarkedWay>::new(), BTreeSet::new());
        for family in [IpFamily::V4, IpFamily::V6] {
            let ruled = self.marks(family)?;
            let mut routed = BTreeSet::new();
            for found in self.routes(family)? {
                let Some((mark, index, router)) = mark_of(&found) else { continue };
                let Some(device) = names.get(&index).copied() else { continue };
                routed.insert(mark);
                let way = ways.entry(mark).or_insert(MarkedWay { device, v4: None, v6: None });
                match router {
                    IpAddr::V4(router) => way.v4 = Some(router),
                    IpAddr::V6(router) => way.v6 = Some(router),
                }
                half.extend((way.device != device).then_some(mark));
            }
            half.extend(ruled.symmetric_difference(&routed));
        }
        ways.retain(|mark, _| !half.contains(mark));
        Ok((ways, half))
    }

    /// The sources whose rules are there, and those of whose two rules one is.
    fn ruled(&mut self, family: IpFamily) -> Result<(BTreeSet<IpAddr>, BTreeSet<IpAddr>), NetlinkError> {
        let found =
            self.socket.dump(&rule::dump(family), |message| rule::parse_marked(message, &Site::Home, WAYS_PROTOCOL));
        let found: BTreeSet<rule::Found> = match found {
            Err(error) if error.kind() == ErrorKind::Unsupported => BTreeSet::new(),
            found => found?.into_iter().collect(),
        };
        let sources: BTreeSet<IpAddr> =
            found.iter().filter_map(|found| found.rule.from).map(|source| source.addr()).collect();
        Ok(sources.into_iter().partition(|source| rules(*source).iter().all(|rule| found.contains(rule))))
    }

    /// Adds a route, or sets it in place of one of ours; never of another's.
    fn put(&mut self, destination: IpNet, way: &Way) -> Result<Result<(), NetlinkError>, BackendError> {
        let index = self.index_of(way.device)?;
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

/// What leads a source's packets: to the main table, but for its default routes, and then to the source's own.
fn rules(source: IpAddr) -> [rule::Found; 2] {
    let rule = |priority, table| Rule {
        site: Site::Home,
        family: IpFamily::of(source),
        priority,
        from: Some(source.into()),
        to: None,
        mark: None,
        incoming: None,
        table,
    };
    [
        rule::Found { rule: rule(Ways::PRIORITY, MAIN_TABLE), but_default: true },
        rule::Found { rule: rule(Ways::PRIORITY + 1, Ways::table(source)), but_default: false },
    ]
}

/// Of a source's route, its source.
fn source_of(found: &route::Found) -> Option<IpAddr> {
    let route::Target::Device { source, .. } = found.target else { return None };
    let is_its = |source: &IpAddr| found.table == Ways::table(*source) && found.destination == everywhere(*source);
    source.filter(is_its).filter(|_| found.metric == Ways::METRIC)
}

/// What leads packets with a mark to its table.
const fn rule_of_mark(mark: u32, family: IpFamily) -> Rule {
    Rule {
        site: Site::Home,
        family,
        priority: Ways::MARKED_PRIORITY,
        from: None,
        to: None,
        mark: Some((mark, u32::MAX)),
        incoming: None,
        table: Ways::table_of_mark(mark),
    }
}

/// Of a mark's route, the mark, the device and the router.
fn mark_of(found: &route::Found) -> Option<(u32, u32, IpAddr)> {
    let route::Target::Device { index, gateway: Some(router), source: None, .. } = found.target else { return None };
    let mark = found.table ^ Ways::table_of_mark(0);
    let is_its = (1..=Ways::MAX_MARK).contains(&mark) && found.destination == everywhere(router);
    (is_its && found.metric == Ways::METRIC).then_some((mark, index, router))
}

/// The switches by which a packet's mark counts where it is asked whether it may come in where it does, and by which a TCP connection keeps the mark of the
/// packet that began it, so that its answers are not routed twice each; that one is for both families.
fn switches() -> Result<[Sysctl; 2], BackendError> {
    Ok([
        Sysctl::new(["net", "ipv4", "conf", "all", "src_valid_mark"])?,
        Sysctl::new(["net", "ipv4", "tcp_fwmark_accept"])?,
    ])
}

fn everywhere(of: IpAddr) -> IpNet {
    match of {
        IpAddr::V4(_) => IpNet::V4(Ipv4Net::default()),
        IpAddr::V6(_) => IpNet::V6(Ipv6Net::default()),
    }
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
            let (ruled, mut half) = self.ruled(family).map_err(reading)?;
            let mut routed = BTreeMap::new();
            for found in self.routes(family).map_err(reading)? {
                let route::Target::Device { index, gateway, .. } = found.target else { continue };
                let Some(device) = names.get(&index).copied() else { continue };
                let way = Way { device, gateway };
                if is_way(&found) {
                    ways.to.insert(found.destination, way);
                } else if let Some(source) = source_of(&found) {
                    routed.insert(source, way);
                }
            }
            half.extend(ruled.iter().filter(|source| !routed.contains_key(source)));
            half.extend(routed.keys().filter(|source| !ruled.contains(source)));
            ways.half.append(&mut half);
            ways.from.extend(routed.into_iter().filter(|(source, _)| ruled.contains(source)));
        }
        (ways.marked, ways.half_marked) = self.marked(&names).map_err(reading)?;
        self.marks = !ways.marked.is_empty();
        if !self.minds_marks()? {
            ways.half_marked.extend(std::mem::take(&mut ways.marked).into_keys());
        }
        Ok(ways)
    }

    fn apply(&mut self, steps: &[StepOf<Self>]) -> Result<(), StepError> {
        one_by_one(self, steps, |it| it.socket.changes(), Self::step)
    }
}

impl Witness for KernelWays {
    fn watch(&mut self) -> Result<(), BackendError> {
        self.socket.watch()
    }

    fn undisturbed(&mut self) -> Result<bool, BackendError> {
        Ok(self.socket.undisturbed()? && self.minds_marks()?)
    }
}

impl Lower<Ways> for KernelWays {
    type Native = Ways;

    fn lower<'d>(&self, desired: &'d Ways) -> Result<Cow<'d, Ways>, Refusal> {
        Ok(Cow::Borrowed(desired))
    }
}
