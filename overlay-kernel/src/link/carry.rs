//! Steps, carried out.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::AsFd;

use ipnet::IpNet;
use nix::libc::{EADDRINUSE, EADDRNOTAVAIL, EEXIST, ENODEV, ENOENT, ESRCH};
use overlay_core::{Applied, BackendError, ErrorKind, Mtu, StepError};

use super::door::Door;
use super::links::Links;
use super::stand_in::StandIns;
use super::{Dev, Kind, Link, Route, RouteKey, Setting, Site, Step, Tap};
use crate::Sysctl;
use crate::netlink::{BatchError, NetlinkError, Requests};
use crate::rtnl::link::Data;
use crate::rtnl::link_request::{self, Change, New};
use crate::rtnl::neighbour::{self, Notice, Toward};
use crate::rtnl::{PROTOCOL, address, route, rule};
use crate::tap::NewTap;

/// Carries out steps in order, the simple ones many at once.
pub(super) fn out(links: &mut Links, steps: &[Step]) -> Result<(), StepError> {
    let mut run = Run { links, steps, queue: Queue::default(), raised: Vec::new(), stand_ins: StandIns::default() };
    let done = (0..steps.len()).try_for_each(|at| run.step(at)).and_then(|()| run.flush());
    run.stand_ins.dismiss(run.links);
    done?;
    run.await_carriers();
    Ok(())
}

struct Run<'a> {
    links: &'a mut Links,
    steps: &'a [Step],
    queue: Queue,
    raised: Vec<&'a Dev>,
    stand_ins: StandIns,
}

/// Requests to one namespace that wait to be sent together.
#[derive(Default)]
struct Queue {
    site: Site,
    requests: Requests,
    /// For each request the step it is for, and the refusals that are as good as done.
    origins: Vec<(usize, &'static [i32])>,
}

/// A step that takes several acts and broke off.
struct Broken {
    /// Whether some of its acts are in effect.
    begun: bool,
    source: BackendError,
}

impl Broken {
    /// The first act failed: only one that was refused left nothing for sure.
    fn asking(error: NetlinkError, doing: String) -> Self {
        Self { begun: error.leaves_doubt(), source: error.during(doing) }
    }
}

/// What fails before the first act left nothing.
impl From<BackendError> for Broken {
    fn from(source: BackendError) -> Self {
        Self { begun: false, source }
    }
}

const GONE: &[i32] = &[ENODEV, ENOENT, ESRCH, EADDRNOTAVAIL];
const THERE: &[i32] = &[EEXIST];

impl<'a> Run<'a> {
    fn step(&mut self, at: usize) -> Result<(), StepError> {
        let steps = self.steps;
        let step = &steps[at];
        if self.queue.site != *step.site() {
            self.flush()?;
        }
        let queued = self.queued(at, step);
        if matches!(queued, Ok(true)) {
            return Ok(());
        }
        self.flush()?;
        queued.map_err(|source| self.failed(at, Applied::Before, source))?;
        let result = match step {
            Step::PutRoute(key, to) => self.put_route(key, to),
            Step::SetSetting(site, setting, value) => self.set(site, *setting, *value),
            Step::ClearLink(dev) | Step::RemoveLink(dev) => self.remove(dev),
            Step::AddLink(dev, link) => self.add(dev, link),
            Step::AddPair(dev, pair) => self.add_pair(dev, &pair.0, &pair.1),
            Step::SetLink(dev, link) => self.set_link(dev, link),
            _ => Ok(()), // queued
        };
        self.links.watch.blur();
        result.map_err(|Broken { begun, source }| {
            self.failed(at, if begun { Applied::Unknown } else { Applied::Before }, source)
        })
    }

    /// Puts a step that is a request or two into the queue; says whether it is one.
    fn queued(&mut self, at: usize, step: &'a Step) -> Result<bool, BackendError> {
        match step {
            Step::PutAddress(dev, net, old) => self.put_address(at, dev, *net, *old)?,
            Step::ClearAddress(dev, net) | Step::RemoveAddress(dev, net) => {
                self.links.watch.blur();
                self.on_device(at, dev, GONE, |requests, index| address::remove(requests, index, *net))?;
            }
            Step::RaiseLink(dev) => {
                self.links.watch.blur();
                self.on_device(at, dev, &[], link_request::raise)?;
                self.raised.push(dev);
            }
            Step::PutNeighbour(dev, ip, mac) => {
                self.allow(dev, *ip)?;
                self.on_device(at, dev, &[], |requests, index| neighbour::put(requests, index, *ip, *mac))?;
            }
            Step::RemoveNeighbour(dev, ip) => {
                self.on_device(at, dev, GONE, |requests, index| neighbour::remove(requests, index, *ip))?;
            }
            Step::PutForwarding(dev, mac, vtep) => {
                self.expect(dev, Notice::Put(*mac, *vtep))?;
                let to = self.toward(dev, *vtep)?;
                let put = |requests: &mut _, index| neighbour::put_forwarding(requests, index, *mac, to);
                self.on_device(at, dev, &[], put)?;
            }
            Step::RemoveForwarding(dev, mac) => {
                self.expect(dev, Notice::Removed(*mac))?;
                self.on_device(at, dev, GONE, |requests, index| neighbour::remove_forwarding(requests, index, *mac))?;
            }
            Step::AddFlood(dev, vtep) => {
                self.expect(dev, Notice::Put(overlay_core::Mac::ZERO, *vtep))?;
                let to = self.toward(dev, *vtep)?;
                self.on_device(at, dev, THERE, |requests, index| neighbour::add_flood(requests, index, to))?;
            }
            Step::RemoveFlood(dev, vtep) => {
                self.expect(dev, Notice::NoFlood(*vtep))?;
                let to = self.toward(dev, *vtep)?;
                self.on_device(at, dev, GONE, |requests, index| neighbour::remove_flood(requests, index, to))?;
            }
            Step::PutStation(bridge, mac, port) => {
                let port = Dev { name: *port, ..bridge.clone() };
                self.expect(&port, Notice::Placed(*mac))?;
                self.on_device(at, &port, &[], |requests, index| neighbour::put_station(requests, index, *mac))?;
            }
            Step::RemoveStation(bridge, mac, port) => {
                let port = Dev { name: *port, ..bridge.clone() };
                self.expect(&port, Notice::Displaced(*mac))?;
                self.on_device(at, &port, GONE, |requests, index| neighbour::remove_station(requests, index, *mac))?;
            }
            Step::RemoveRoute(key) => self.enqueue(at, GONE, |requests| {
                route::remove(requests, (key.table, key.destination, key.metric), PROTOCOL);
            }),
            Step::AddRule(new) => self.enqueue(at, THERE, |requests| rule::add(requests, new)),
            Step::RemoveRule(old) => self.enqueue(at, GONE, |requests| rule::remove(requests, old)),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// IPv6 has an address once per device, whatever its prefix; an IPv4 device that loses its last loses its routes too.
    fn put_address(&mut self, at: usize, dev: &Dev, net: IpNet, old: Option<u8>) -> Result<(), BackendError> {
        self.links.watch.blur();
        self.allow(dev, net.addr())?;
        let old = old.map(|len| super::state::net(net.addr(), len));
        if let Some(old) = old.filter(|old| old.addr().is_ipv6()) {
            self.on_device(at, dev, GONE, |requests, index| address::remove(requests, index, old))?;
        }
        self.on_device(at, dev, &[], |requests, index| address::put(requests, index, net))?;
        match old.filter(|old| old.addr().is_ipv4()) {
            Some(old) => self.on_device(at, dev, GONE, |requests, index| address::remove(requests, index, old)),
            None => Ok(()),
        }
    }

    /// Lets a device have something of an address's family.
    fn allow(&mut self, dev: &Dev, address: IpAddr) -> Result<(), BackendError> {
        if address.is_ipv6() && self.links.door(&dev.site)?.allow_ipv6(dev.name)? {
            self.links.watch.blur();
        }
        Ok(())
    }

    /// Adds a route, or sets it in place of one of ours; never of another's.
    fn put_route(&mut self, key: &RouteKey, to: &Route) -> Result<(), Broken> {
        let target = match to {
            Route::Blackhole => route::Target::Blackhole,
            Route::Unreachable => route::Target::Unreachable,
            Route::Via { device, gateway, source, onlink } => {
                let dev = Dev { site: key.site.clone(), name: *device };
                route::Target::Device {
                    index: self.own_index(&dev)?,
                    gateway: *gateway,
                    source: *source,
                    onlink: *onlink,
                }
            }
        };
        let wanted = route::Found { table: key.table, destination: key.destination, metric: key.metric, target };
        let doing = |error: NetlinkError| Broken::asking(error, format!("put {key}"));
        let door = self.links.door(&key.site)?;
        let taken = match door.socket.request(&route::add(&wanted, PROTOCOL)) {
            Err(error) if error.errno() == Some(EEXIST) => error,
            other => return other.map_err(doing),
        };
        match door.route_like(&wanted).map_err(doing)? {
            Some(found) if found == wanted => Ok(()),
            Some(_) => door.socket.request(&route::replace(&wanted, PROTOCOL)).map_err(doing),
            None => Err(doing(taken)),
        }
    }

    /// Queues a request to a device. What is to be taken from one that is gone is gone.
    fn on_device(
        &mut self,
        at: usize,
        dev: &Dev,
        forgiven: &'static [i32],
        write: impl FnOnce(&mut Requests, u32),
    ) -> Result<(), BackendError> {
        match self.own_index(dev) {
            Ok(index) => self.enqueue(at, forgiven, |requests| write(requests, index)),
            Err(error) if error.kind() == ErrorKind::Gone && forgiven.contains(&ENODEV) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn enqueue(&mut self, at: usize, forgiven: &'static [i32], write: impl FnOnce(&mut Requests)) {
        self.queue.site.clone_from(self.steps[at].site());
        write(&mut self.queue.requests);
        self.queue.origins.push((at, forgiven));
    }

    /// Sends what waits.
    fn flush(&mut self) -> Result<(), StepError> {
        if self.queue.requests.is_empty() {
            return Ok(());
        }
        let Queue { site, requests, origins } = std::mem::take(&mut self.queue);
        let first = origins.first().map_or(0, |(at, _)| *at);
        let door = match self.links.door(&site) {
            Ok(door) => door,
            Err(source) => return Err(self.failed(first, Applied::Before, source)),
        };
        let result = door.socket.batch(&requests, |at, errno| origins[at].1.contains(&errno));
        result.map_err(|error| self.refused(&origins, error))
    }

    /// The kernel lets a device carry packets some time after it was raised, unless asked how it is, which has it done
    /// first. Bridges were raised before their ports, so the last comes first.
    fn await_carriers(&mut self) {
        let mut raised = BTreeMap::<_, Vec<_>>::new();
        for dev in std::mem::take(&mut self.raised).into_iter().rev() {
            // It is up either way; what cannot be asked now is seen by the next reading.
            let found = self.links.door(&dev.site).and_then(|door| door.link(dev.name));
            if let Some(found) = found.ok().flatten().filter(|found| found.running) {
                raised.entry(&dev.site).or_default().push(found.index);
            }
        }
        for (site, indices) in raised {
            let _ = self.links.door(site).and_then(|door| await_addresses(door, &indices));
        }
    }

    fn refused(&mut self, origins: &[(usize, &'static [i32])], error: BatchError) -> StepError {
        let at = origins[error.at].0;
        let half_done = error.at.checked_sub(1).is_some_and(|before| origins[before].0 == at);
        let applied = match error.applied() {
            Applied::Nothing | Applied::Before if !half_done => Applied::Before,
            _ => Applied::Unknown,
        };
        let doing = self.doing(at, &error.source);
        self.failed(at, applied, error.source.during(doing))
    }

    /// The step, and of a tunnel whose port is taken the port, which the kernel does not say.
    fn doing(&mut self, at: usize, error: &NetlinkError) -> String {
        let step = &self.steps[at];
        if let (Step::RaiseLink(dev), Some(EADDRINUSE)) = (step, error.errno())
            && let Ok(Some(found)) = self.links.door(&dev.site).and_then(|door| door.link(dev.name))
            && let Data::Vxlan(vxlan) = found.data
        {
            return format!("{step}, which listens at UDP port {}", vxlan.port);
        }
        step.to_string()
    }

    fn failed(&self, at: usize, applied: Applied, source: BackendError) -> StepError {
        let applied = if at == 0 && applied == Applied::Before { Applied::Nothing } else { applied };
        StepError { at, applied, source }
    }

    fn expect(&mut self, dev: &Dev, notice: Notice) -> Result<(), BackendError> {
        match self.own_index(dev) {
            Ok(index) => self.links.watch.expect(&dev.site, index, notice),
            Err(error) if error.kind() == ErrorKind::Gone => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Where a tunnel's datagrams go. Those of one that is bound to an interface leave by that, which each entry says.
    fn toward(&mut self, dev: &Dev, vtep: IpAddr) -> Result<Toward, BackendError> {
        let door = self.links.door(&dev.site)?;
        let there = door.own_index(dev.name)?.is_some();
        let via = door.bound(dev.name).filter(|_| there);
        if let Some(via) = via {
            let mark = self.links.mark;
            if self.stand_ins.call(self.links.door(&dev.site)?, (&dev.site, via), mark)? {
                self.links.watch.blur();
            }
        }
        Ok(Toward { vtep, via })
    }

    fn own_index(&mut self, dev: &Dev) -> Result<u32, BackendError> {
        self.links.door(&dev.site)?.own_index(dev.name)?.ok_or_else(|| no_device(dev))
    }

    /// Also of a device that is not ours: what one of ours stands on.
    fn index(&mut self, dev: &Dev) -> Result<u32, BackendError> {
        self.links.door(&dev.site)?.index(dev.name)?.ok_or_else(|| no_device(dev))
    }

    fn set(&mut self, site: &Site, setting: Setting, value: bool) -> Result<(), Broken> {
        let sysctl = Sysctl::new(setting.path().split('/'))?;
        let set = self.links.door(site)?.namespace.run(|| sysctl.set(if value { "1" } else { "0" }))?;
        set.map_err(|source| {
            let refused = matches!(source.kind(), ErrorKind::Gone | ErrorKind::Permission);
            Broken { begun: !refused, source }
        })
    }

    /// Removes a device if it is ours: somebody else's that has the name by now is none of ours, and ours is gone.
    fn remove(&mut self, dev: &Dev) -> Result<(), Broken> {
        let door = self.links.door(&dev.site)?;
        let Some(found) = door.own(dev.name)? else { return Ok(()) };
        door.forget(dev.name);
        match door.socket.request(&link_request::remove(found.index)) {
            Err(error) if error.errno() == Some(ENODEV) => Ok(()),
            other => other.map_err(|error| Broken::asking(error, format!("remove link {dev}"))),
        }
    }

    fn add(&mut self, dev: &Dev, link: &Link) -> Result<(), Broken> {
        if let Kind::Tap(tap) = &link.kind {
            return Ok(self.add_tap(dev, link, *tap)?);
        }
        let (asked_at, base) = match &link.kind {
            Kind::Vxlan(vxlan) => (vxlan.underlay.clone(), vxlan.device),
            Kind::Macvlan { parent, .. } => (parent.site.clone(), Some(parent.name)),
            _ => (dev.site.clone(), None),
        };
        let base = match base {
            Some(name) => Some(self.index(&Dev { site: asked_at.clone(), name })?),
            None => None,
        };
        self.room_inside(dev, link)?;
        let target = self.links.door(&dev.site)?.namespace.try_clone()?;
        let netns = (asked_at != dev.site).then_some(target.as_fd());
        let first = at_first(link);
        let new = New { name: dev.name, netns, link: &first, group: self.links.mark.group() };
        let request = link_request::create(new, base).ok_or_else(|| unmakeable(dev, link))?;
        let made = self.links.door(&asked_at)?.socket.request(&request);
        self.made(made, dev, None)?;
        self.settle(dev, link).map_err(|source| Broken { begun: true, source })
    }

    /// A tap cannot be born with a group, but goes with the file that made it until it is told to stay. That comes last, so
    /// a process killed at any system call leaves a tap that is whole, or none; and what failed left none.
    fn add_tap(&mut self, dev: &Dev, link: &Link, tap: Tap) -> Result<(), BackendError> {
        let group = Change { group: Some(self.links.mark.group()), ..Change::default() };
        let door = self.links.door(&dev.site)?;
        let new = match door.namespace.run(|| NewTap::create(dev.name, tap.multi_queue))? {
            Err(error) if error.kind() == ErrorKind::Conflict && door.own(dev.name)?.is_some() => return Ok(()),
            made => made?,
        };
        let index = door.link(dev.name)?.ok_or_else(|| no_device(dev))?.index;
        let marked = door.socket.request(&link_request::change(index, group));
        let kept = marked
            .map_err(|error| error.during(format!("make link {dev}")))
            .and_then(|()| self.settle(dev, link))
            .and_then(|()| new.keep(tap));
        if kept.is_err() {
            self.links.door(&dev.site)?.forget(dev.name);
        }
        kept
    }

    /// A tunnel bound to an interface is no larger than that carries; the kernel would cut it down in silence.
    fn room_inside(&mut self, dev: &Dev, link: &Link) -> Result<(), BackendError> {
        let Kind::Vxlan(vxlan) = &link.kind else { return Ok(()) };
        let Some(name) = vxlan.device else { return Ok(()) };
        let base = Dev { site: vxlan.underlay.clone(), name };
        let found = self.links.door(&base.site)?.link(name)?.ok_or_else(|| no_device(&base))?;
        let mtu = Mtu::new(found.mtu).unwrap_or(Mtu::MAX); // the loopback's is 65,536
        vxlan.room_inside(mtu, link.mtu).map_err(|cause| {
            BackendError::new(ErrorKind::Invalid, format!("give link {dev} mtu {}", link.mtu)).caused_by(cause)
        })
    }

    fn add_pair(&mut self, dev: &Dev, near: &Link, far: &Link) -> Result<(), Broken> {
        let Kind::Veth { peer } = &near.kind else { return Err(unmakeable(dev, near).into()) };
        let target = self.links.door(&peer.site)?.namespace.try_clone()?;
        let netns = (peer.site != dev.site).then_some(target.as_fd());
        let group = self.links.mark.group();
        let near_end = New { name: dev.name, netns: None, link: near, group };
        let far_end = New { name: peer.name, netns, link: far, group };
        let request = link_request::create_pair(near_end, far_end);
        let made = self.links.door(&dev.site)?.socket.request(&request);
        self.made(made, dev, Some(peer))?;
        let settled = self.settle(dev, near).and_then(|()| self.settle(peer, far));
        settled.map_err(|source| Broken { begun: true, source })
    }

    /// A device of ours that is there already was made when an answer was lost: it is as good as new. Of a pair the
    /// kernel does not say which name is taken.
    fn made(&mut self, result: Result<(), NetlinkError>, dev: &Dev, peer: Option<&Dev>) -> Result<(), Broken> {
        let Err(error) = result else { return Ok(()) };
        let mut taken = dev;
        if error.errno() == Some(EEXIST) {
            let door = self.links.door(&dev.site)?;
            if door.own(dev.name)?.is_some() {
                return Ok(());
            }
            taken = peer.filter(|_| !door.indices.contains_key(&dev.name)).unwrap_or(dev);
        }
        Err(Broken::asking(error, format!("make link {taken}")))
    }

    fn set_link(&mut self, dev: &Dev, link: &Link) -> Result<(), Broken> {
        self.settle(dev, link).map_err(|source| Broken { begun: true, source })
    }

    /// Gives a device everything that [`Link`] says but its kind and whether it is up; its whole mark last.
    fn settle(&mut self, dev: &Dev, link: &Link) -> Result<(), BackendError> {
        let mark = self.links.mark;
        let door = self.links.door(&dev.site)?;
        let mut found = door.link(dev.name)?.ok_or_else(|| no_device(dev))?;
        if !mark.is_on(found.group, &found.altnames) {
            let cause = "the device of this name is not ours";
            return Err(BackendError::new(ErrorKind::Conflict, format!("set up link {dev}")).caused_by(cause));
        }
        let master = match link.port {
            Some(port) => {
                door.index(port.bridge)?.ok_or_else(|| no_device(&Dev { name: port.bridge, ..dev.clone() }))?
            }
            None => 0,
        };
        let doing = |error: NetlinkError| error.during(format!("set up link {dev}"));
        let change = Change {
            mtu: (found.mtu != link.mtu.get()).then_some(link.mtu),
            mac: (found.mac != Some(link.mac)).then_some(link.mac),
            group: (found.group != mark.group()).then_some(mark.group()),
            master: (found.master.unwrap_or(0) != master).then_some(master),
        };
        if change != Change::default() {
            let changed = door.socket.request(&link_request::change(found.index, change));
            if let Err(error) = changed {
                if change.mtu.is_some() {
                    self.room_inside(dev, link)?;
                }
                return Err(doing(error));
            }
        }
        let door = self.links.door(&dev.site)?;
        if (found.mtu < Mtu::IPV6_MIN.get()) != (link.mtu < Mtu::IPV6_MIN) {
            // IPv6 came with its defaults, or went.
            found = door.link(dev.name)?.ok_or_else(|| no_device(dev))?;
        }
        door.socket.request(&link_request::settings(found.index, link, found.ipv6)).map_err(doing)?;
        if found.up && found.link_local && !link.link_local {
            remove_kernels_addresses(door, found.index).map_err(doing)?;
        }
        if let Some(port) = link.port {
            door.socket.request(&link_request::port(found.index, port)).map_err(doing)?;
        }
        if found.ipv6 && found.accept_ra != link.accept_ra {
            let sysctl = Sysctl::of_interface(overlay_core::IpFamily::V6, &dev.name, "accept_ra")?;
            door.namespace.run(|| sysctl.set(if link.accept_ra { "1" } else { "0" }))??;
        }
        if dev.site != Site::Home {
            door.solicit(found.index, link.solicit, found.ipv6).map_err(doing)?;
        }
        if matches!(link.kind, Kind::Bridge { .. }) {
            door.socket.request(&neighbour::put_own(found.index, link.mac)).map_err(doing)?;
        }
        let altname = mark.altname(dev.name);
        if !found.altnames.contains(&altname) {
            door.socket.request(&link_request::altname(found.index, &altname)).map_err(doing)?;
        }
        Ok(())
    }
}

/// A bridge takes the size of its smallest port until its own is changed: it is made with another, and then changed.
fn at_first(link: &Link) -> Link {
    let other = match link.kind {
        Kind::Bridge { .. } if link.mtu == Mtu::MAX => Mtu::new(Mtu::MAX.get() - 1),
        Kind::Bridge { .. } => Mtu::new(link.mtu.get() + 1),
        _ => Ok(link.mtu),
    };
    Link { mtu: other.unwrap_or(link.mtu), ..link.clone() }
}

/// A work queue of the kernel puts the IPv6 addresses of a device that was raised to work: until then it answers nobody,
/// and who asked asks again after a second. The last it does is their routes.
fn await_addresses(door: &mut Door, indices: &[u32]) -> Result<(), BackendError> {
    let found = door.socket.dump(&address::dump(), address::parse).map_err(|error| error.during("read addresses"))?;
    let at_work = |found: &address::Found| found.ours && indices.contains(&found.index);
    let wanted: Vec<_> = found
        .iter()
        .filter(|found| at_work(found))
        .filter_map(|found| match found.address {
            IpAddr::V6(address) => Some(format!("{:032x} 80 ", u128::from(address))), // as a destination of 128 bits
            IpAddr::V4(_) => None,
        })
        .collect();
    if wanted.is_empty() {
        return Ok(());
    }
    door.namespace.run(|| {
        for _ in 0..PATIENCE {
            let routes = std::fs::read_to_string("/proc/thread-self/net/ipv6_route").unwrap_or_default();
            if wanted.iter().all(|address| routes.contains(address)) {
                break;
            }
            std::thread::yield_now();
        }
    })
}

/// How often is looked.
const PATIENCE: usize = 500;

/// A device that is up has got them already when it is told to have none.
fn remove_kernels_addresses(door: &mut Door, index: u32) -> Result<(), NetlinkError> {
    let mut requests = Requests::default();
    let found = door.socket.dump(&address::dump(), address::parse)?;
    for found in found.into_iter().filter(|found| found.index == index && found.kernels) {
        address::remove(&mut requests, index, super::state::net(found.address, found.prefix_len));
    }
    door.socket.batch(&requests, |_, errno| GONE.contains(&errno)).map_err(|error| error.source)
}

fn no_device(dev: &Dev) -> BackendError {
    BackendError::new(ErrorKind::Gone, format!("find link {dev}"))
}

fn unmakeable(dev: &Dev, link: &Link) -> BackendError {
    BackendError::new(ErrorKind::Invalid, format!("make link {dev}: {link}"))
}
