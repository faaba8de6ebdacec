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
}

impl RouteSocket {
    pub(super) fn open(namespace: Namespace) -> Result<Self, BackendError> {
        let socket = namespace.netlink(Family::Route)?;
        Ok(Self { namespace, socket, notices: None })
    }

    /// Where it is.
    pub(super) const fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Removes something that may have gone.
    pub(super) fn remove(&mut self, request: &Requests) -> Result<(), NetlinkError> {
        match self.socket.request(request) {
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

/// Carries out steps that are a request each, and says what is in effect where one fails.
pub(super) fn one_by_one<S>(
    steps: &[S],
    mut step: impl FnMut(&S) -> Result<(), BackendError>,
) -> Result<(), StepError> {
    for (at, wanted) in steps.iter().enumerate() {
        step(wanted).map_err(|source| {
            let doubt = matches!(source.kind(), ErrorKind::Timeout | ErrorKind::Interrupted);
            let applied = match at {
                _ if doubt => Applied::Unknown,
                0 => Applied::Nothing,
                _ => Applied::Before,
            };
            StepError { at, applied, source }
        })?;
    }
    Ok(())
}
