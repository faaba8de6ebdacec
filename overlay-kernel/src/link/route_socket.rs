//! One namespace's routes: a socket that changes them step by step, and the notices of what others change.

use std::ops::{Deref, DerefMut};

use nix::libc::{ENODEV, ENOENT, ESRCH};
use overlay_core::{Applied, BackendError, ErrorKind, StepError};

use crate::Namespace;
use crate::netlink::{Drained, Family, NetlinkError, Notices, Requests, Socket};
use crate::rtnl::GROUPS;

/// What [`KernelWays`](super::KernelWays) and [`KernelLocals`](super::KernelLocals) work through.
#[derive(Debug)]
pub(super) struct RouteSocket {
    namespace: Namespace,
    socket: Socket,
    notices: Option<Notices>,
    /// How often something was changed.
    changes: u64,
}

impl RouteSocket {
    pub(super) fn open(namespace: Namespace) -> Result<Self, BackendError> {
        let socket = namespace.netlink(Family::Route)?;
        Ok(Self { namespace, socket, notices: None, changes: 0 })
    }

    /// Where it is.
    pub(super) const fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Changes something.
    pub(super) fn request(&mut self, request: &Requests) -> Result<(), NetlinkError> {
        self.socket.request(request)?;
        self.has_changed();
        Ok(())
    }

    /// Something was changed by another way than a request of this socket's.
    pub(super) const fn has_changed(&mut self) {
        self.changes += 1;
    }

    /// How often something was changed.
    pub(super) const fn changes(&self) -> u64 {
        self.changes
    }

    /// Removes something that may have gone.
    pub(super) fn remove(&mut self, request: &Requests) -> Result<(), NetlinkError> {
        match self.request(request) {
            Err(error) if matches!(error.errno(), Some(ESRCH | ENOENT | ENODEV)) => Ok(()),
            done => done,
        }
    }

    /// Begins to hear what others change.
    pub(super) fn watch(&mut self) -> Result<(), BackendError> {
        self.notices = None;
        let notices = self.namespace.notices(Family::Route, &GROUPS, 1 << 16)?;
        notices.ignore(self.socket.port()).map_err(|error| error.during("watch routes"))?;
        self.notices = Some(notices);
        Ok(())
    }

    /// Whether they changed nothing since.
    pub(super) fn undisturbed(&mut self) -> Result<bool, BackendError> {
        let Some(notices) = &mut self.notices else { return Ok(false) };
        Ok(notices.drain(|_| {}).map_err(|error| error.during("hear what changed"))? == Drained::Quiet)
    }
}

impl Deref for RouteSocket {
    type Target = Socket;

    fn deref(&self) -> &Socket {
        &self.socket
    }
}

impl DerefMut for RouteSocket {
    fn deref_mut(&mut self) -> &mut Socket {
        &mut self.socket
    }
}

/// Carries out steps, and says what is in effect where one fails. A step is several requests, of which some may be in effect then: each is carried out by a socket
/// that [counts](RouteSocket::changes) what it changes.
pub(super) fn one_by_one<B, S>(
    backend: &mut B,
    steps: &[S],
    changes: impl Fn(&B) -> u64,
    mut step: impl FnMut(&mut B, &S) -> Result<(), BackendError>,
) -> Result<(), StepError> {
    for (at, wanted) in steps.iter().enumerate() {
        let before = changes(backend);
        step(backend, wanted).map_err(|source| {
            let is_half_done = changes(backend) != before;
            let doubt = matches!(source.kind(), ErrorKind::Timeout | ErrorKind::Interrupted);
            let applied = match at {
                _ if doubt || is_half_done => Applied::Unknown,
                0 => Applied::Nothing,
                _ => Applied::Before,
            };
            StepError { at, applied, source }
        })?;
    }
    Ok(())
}
