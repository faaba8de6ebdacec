//! A namespace that a backend works in, and its sockets there.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd};

use overlay_core::{BackendError, IfName};

use crate::Namespace;
use crate::netlink::{Family, NetlinkError, Notices, Socket};
use crate::rtnl::{GROUPS, link, netns};

/// One namespace: where to ask, and what was learned of it.
#[derive(Debug)]
pub(super) struct Door {
    pub(super) namespace: Namespace,
    pub(super) socket: Socket,
    pub(super) notices: Option<Notices>,
    /// Indices of devices by name, as last seen.
    pub(super) indices: BTreeMap<IfName, u32>,
}

impl Door {
    pub(super) fn open(namespace: Namespace) -> Result<Self, BackendError> {
        let socket = namespace.run(|| Socket::open(Family::Route))?;
        let socket = socket.map_err(|error| error.during(format!("open rtnetlink in {}", namespace.id())))?;
        Ok(Self { namespace, socket, notices: None, indices: BTreeMap::new() })
    }

    /// All links, and remembers their indices.
    pub(super) fn links(&mut self) -> Result<Vec<link::Found>, BackendError> {
        let links = self.socket.dump(&link::dump(), link::parse).map_err(|error| error.during("read links"))?;
        self.indices = links.iter().filter_map(|link| Some((link.name?, link.index))).collect();
        Ok(links)
    }

    /// The link of this name, if there is one.
    pub(super) fn link(&mut self, name: IfName) -> Result<Option<link::Found>, BackendError> {
        match self.socket.ask(&link::by_name(name), link::parse) {
            Ok(found) => {
                let found = found.into_iter().next();
                match &found {
                    Some(link) => drop(self.indices.insert(name, link.index)),
                    None => drop(self.indices.remove(&name)),
                }
                Ok(found)
            }
            Err(error) if error.errno() == Some(nix::libc::ENODEV) => {
                self.indices.remove(&name);
                Ok(None)
            }
            Err(error) => Err(error.during(format!("read link {name}"))),
        }
    }

    /// The index of the device of this name, as last seen or as it is.
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
}

impl AsFd for Door {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.namespace.as_fd()
    }
}

const NOTICES: usize = 4 << 20; // some thousand notices
