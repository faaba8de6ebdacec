//! Hearing which associations come to their end.

use std::os::fd::{AsFd, BorrowedFd};

use overlay_core::BackendError;

use super::{Claim, SaId, wire};
use crate::Namespace;
use crate::netlink::{Drained, Family, Malformed, NetlinkError, Notices};

/// Hears from the kernel when claimed associations reach a [limit](super::Limits), from when it was opened on.
#[derive(Debug)]
pub struct Expiries {
    notices: Notices,
    claim: Claim,
}

/// An association has reached a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Expiry {
    /// Which.
    pub id: SaId,
    /// Whether the limit is a hard one, so that it is gone; else it needs a successor soon.
    pub is_gone: bool,
}

/// What was heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    /// In order.
    pub expiries: Vec<Expiry>,
    /// Whether others were lost: read what is there.
    pub overrun: bool,
}

impl Expiries {
    /// Hears of this namespace, of what is claimed.
    ///
    /// # Errors
    /// Of kind `Permission` without `CAP_NET_ADMIN`, `Unsupported` in a kernel without XFRM.
    pub fn open(namespace: &Namespace, claim: Claim) -> Result<Self, BackendError> {
        let opened = namespace.run(|| Notices::open(Family::Xfrm, &[GROUP], BUFFER))?;
        let notices = opened.map_err(|error| error.during("hear which SAs expire"))?;
        Ok(Self { notices, claim })
    }

    /// All that is there, without waiting.
    ///
    /// # Errors
    /// If the socket fails, or the kernel says what makes no sense.
    pub fn drain(&mut self) -> Result<Heard, BackendError> {
        let (mut expiries, mut fault, claim) = (Vec::new(), None::<Malformed>, self.claim);
        let drained = self.notices.drain(|notice| match wire::parse_expiry(&notice) {
            Ok(Some((id, reqid, is_gone))) if claim.has_reqid(reqid) => expiries.push(Expiry { id, is_gone }),
            Ok(_) => {}
            Err(error) => fault = fault.or(Some(error)),
        });
        let failed = |error: NetlinkError| error.during("hear which SAs expire");
        let overrun = drained.map_err(failed)? == Drained::Overrun;
        fault.map_or(Ok(Heard { expiries, overrun }), |error| Err(failed(error.into())))
    }
}

impl AsFd for Expiries {
    /// For a poll: readable when something is there.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.notices.as_fd()
    }
}

const GROUP: u32 = 2; // XFRMNLGRP_EXPIRE
const BUFFER: usize = 1 << 20;
