//! A namespace that a backend works in, and its sockets there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;

use overlay_core::{BackendError, IfName, IpFamily};

use super::links::Mark;
use super::{Setting, Solicit};
use crate::netlink::{Family, NetlinkError, Notices, Socket};
use crate::rtnl::{GROUPS, PROTOCOL, link, neighbour_table, netns, route};
use crate::{Namespace, Sysctl};

/// One namespace: where to ask, and what was learned of it.
#[derive(Debug)]
pub(super) struct Door {
    pub(super) namespace: Namespace,
    pub(super) socket: Socket,
    pub(super) notices: Option<Notices>,
    /// Indices of devices by name, as last seen.
    pub(super) indices: BTreeMap<IfName, u32>,
    /// The same of ours alone.
    owned: BTreeMap<IfName, u32>,
    /// Of our tunnels, the index of the interface they are bound to, in the namespace of their socket.
    bound: BTreeMap<IfName, u32>,
    /// Those of ours that IPv6 is switched off on, as last seen.
    without_ipv6: BTreeSet<IfName>,
    mark: Mark,
    /// The settings' files, held open, and what they said when the watch began.
    settings: Vec<(File, Value)>,
}

/// The beginning of a setting's text: more than a switch's value takes.
type Value = [u8; 8];

impl Door {
    pub(super) fn open(namespace: Namespace, mark: Mark) -> Result<Self, BackendError> {
        let socket = namespace.run(|| Socket::open(Family::Route))?;
        let socket = socket.map_err(|error| error.during(format!("open rtnetlink in {}", namespace.id())))?;
        let (indices, owned, bound, without_ipv6) = Default::default();
        Ok(Self { namespace, socket, notices: None, indices, owned, bound, without_ipv6, mark, settings: Vec::new() })
    }

    /// All links, and remembers their indices.
    pub(super) fn links(&mut self) -> Result<Vec<link::Found>, BackendError> {
        let links = self.socket.dump(&link::dump(), link::parse).map_err(|error| error.during("read links"))?;
        self.indices = links.iter().filter_map(|link| Some((link.name?, link.index))).collect();
        let ours = links.iter().filter(|link| self.mark.is_on(link.group, &link.altnames));
        self.owned = ours.clone().filter_map(|link| Some((link.name?, link.index))).collect();
        self.bound = ours.clone().filter_map(|link| Some((link.name?, bound(link)?))).collect();
        self.without_ipv6 = ours.filter(|link| link.ipv6_off).filter_map(|link| link.name).collect();
        Ok(links)
    }

    /// How devices ask for neighbours.
    pub(super) fn solicits(&mut self) -> Result<BTreeMap<(u32, IpFamily), Solicit>, BackendError> {
        let found = self.socket.dump(&neighbour_table::dump(), neighbour_table::parse);
        let found = found.map_err(|error| error.during("read how devices ask for neighbours"))?;
        Ok(found.into_iter().map(|found| ((found.index, found.family), found.solicit)).collect())
    }

    /// Has a device of ours ask so.
    pub(super) fn solicit(&mut self, index: u32, solicit: Solicit, ipv6: bool) -> Result<(), NetlinkError> {
        self.socket.request(&neighbour_table::set(index, IpFamily::V4, solicit))?;
        if ipv6 {
            self.socket.request(&neighbour_table::set(index, IpFamily::V6, solicit))?;
        }
        Ok(())
    }

    /// The link of this name, if there is one.
    pub(super) fn link(&mut self, name: IfName) -> Result<Option<link::Found>, BackendError> {
        match self.socket.ask(&link::by_name(name), link::parse) {
            Ok(found) => {
                let found = found.into_iter().next();
                self.forget(name);
                if let Some(link) = &found {
                    self.indices.insert(name, link.index);
                    if self.mark.is_on(link.group, &link.altnames) {
                        self.owned.insert(name, link.index);
                        self.bound.extend(bound(link).map(|index| (name, index)));
                        self.without_ipv6.extend(link.ipv6_off.then_some(name));
                    }
                }
                Ok(found)
            }
            Err(error) if error.errno() == Some(nix::libc::ENODEV) => {
                self.forget(name);
                Ok(None)
            }
            Err(error) => Err(error.during(format!("read link {name}"))),
        }
    }

    /// The device of ours of this name, as it is: one that only has the name is not ours to touch.
    pub(super) fn own(&mut self, name: IfName) -> Result<Option<link::Found>, BackendError> {
        let mark = self.mark;
        Ok(self.link(name)?.filter(|link| mark.is_on(link.group, &link.altnames)))
    }

    /// The index of the device of ours of this name, as last seen or as it is. The kernel gives that of a device
    /// that is gone to no new one.
    pub(super) fn own_index(&mut self, name: IfName) -> Result<Option<u32>, BackendError> {
        match self.owned.get(&name) {
            Some(index) => Ok(Some(*index)),
            None => Ok(self.own(name)?.map(|link| link.index)),
        }
    }

    /// The index of the interface that a tunnel of ours is bound to, as last seen.
    pub(super) fn bound(&self, name: IfName) -> Option<u32> {
        self.bound.get(&name).copied()
    }

    /// Switches IPv6 on for a device of ours where it is off, as container runtimes have it who give out no addresses of it.
    /// Says whether that was so.
    pub(super) fn allow_ipv6(&mut self, name: IfName) -> Result<bool, BackendError> {
        if self.own_index(name)?.is_none() || !self.without_ipv6.contains(&name) {
            return Ok(false);
        }
        let sysctl = Sysctl::of_interface(IpFamily::V6, &name, "disable_ipv6")?;
        self.namespace.run(|| sysctl.set("0"))??;
        self.without_ipv6.remove(&name);
        Ok(true)
    }

    /// Whether a device has this index.
    pub(super) fn has_index(&mut self, index: u32) -> Result<bool, BackendError> {
        match self.socket.ask(&link::by_index(index), link::parse) {
            Ok(found) => Ok(!found.is_empty()),
            Err(error) if error.errno() == Some(nix::libc::ENODEV) => Ok(false),
            Err(error) => Err(error.during(format!("read link {index}"))),
        }
    }

    pub(super) fn forget(&mut self, name: IfName) {
        self.indices.remove(&name);
        self.owned.remove(&name);
        self.bound.remove(&name);
        self.without_ipv6.remove(&name);
    }

    /// The index of the device of this name, ours or not, as last seen or as it is.
    pub(super) fn index(&mut self, name: IfName) -> Result<Option<u32>, BackendError> {
        match self.indices.get(&name) {
            Some(index) => Ok(Some(*index)),
            None => Ok(self.link(name)?.map(|link| link.index)),
        }
    }

    /// The number by which this namespace knows another.
    pub(super) fn number_of(&mut self, other: BorrowedFd<'_>) -> Result<Option<i32>, BackendError> {
        let found = self.socket.ask(&netns::number(other), netns::parse);
        Ok(found.map_err(|error| error.during("read a namespace's number"))?.into_iter().next())
    }

    /// The route of ours with the same key, if there is one; what leaves by another's device is another's.
    pub(super) fn route_like(&mut self, route: &route::Found) -> Result<Option<route::Found>, NetlinkError> {
        let key = |route: &route::Found| (route.table, route.destination, route.metric);
        let family = IpFamily::of(route.destination.addr());
        let found = self
            .socket
            .dump(&route::dump(family, PROTOCOL), |message| route::parse(message, PROTOCOL))?
            .into_iter()
            .find(|found| key(found) == key(route));
        Ok(found.filter(|found| match found.target {
            route::Target::Device { index, .. } => self.owned.values().any(|own| *own == index),
            route::Target::Blackhole | route::Target::Unreachable => true,
        }))
    }

    /// Hears of all changes from now on, but for those that its own socket makes and the kernel says so.
    pub(super) fn watch(&mut self) -> Result<(), BackendError> {
        let port = self.socket.port();
        let notices = self.namespace.run(|| {
            let notices = Notices::open(Family::Route, &GROUPS, NOTICES)?;
            notices.ignore(port)?;
            Ok(notices)
        })?;
        self.notices = Some(notices.map_err(|error: NetlinkError| error.during("watch links"))?);
        Ok(())
    }

    /// Holds the settings' files and remembers what they say: no notice tells of them. One that this kernel does not
    /// have, or not yet, is not held.
    pub(super) fn hold_settings(&mut self) -> Result<(), BackendError> {
        let open = |setting: &Setting| File::open(format!("/proc/sys/{}", setting.path())).ok();
        let files = self.namespace.run(|| Setting::ALL.iter().filter_map(open).collect::<Vec<_>>())?;
        self.settings = files
            .into_iter()
            .map(|file| {
                let value = value(&file);
                (file, value)
            })
            .collect();
        Ok(())
    }

    /// Whether the settings that are held say what they said.
    pub(super) fn settings_stand(&self) -> bool {
        self.settings.iter().all(|(file, before)| value(file) == *before)
    }
}

const fn bound(link: &link::Found) -> Option<u32> {
    match &link.data {
        link::Data::Vxlan(vxlan) => vxlan.device,
        _ => None,
    }
}

/// What a setting's file says now: nothing if it cannot be read.
fn value(file: &File) -> Value {
    let mut value = Value::default();
    let _ = file.read_at(&mut value, 0);
    value
}

impl AsFd for Door {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.namespace.as_fd()
    }
}

const NOTICES: usize = 4 << 20; // some thousand notices
