//! What can go wrong between us and the kernel.

use std::borrow::Cow;
use std::io;
use std::time::Duration;

use overlay_core::{BackendError, ErrorKind};

use crate::errno_kind;

/// Why a request was not answered as hoped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetlinkError {
    /// The kernel refused it; it changed nothing.
    #[error("{}{}", io::Error::from_raw_os_error(*errno), explained(text.as_deref()))]
    Refused {
        /// The error number, such as 17 for `EEXIST`.
        errno: i32,
        /// The kernel's own words, if it had some.
        text: Option<Box<str>>,
    },
    /// No answer came in time: the request may or may not be in effect. Open a new socket before asking on.
    #[error("no answer within {deadline:?}")]
    NoAnswer {
        /// How long was waited.
        deadline: Duration,
    },
    /// The socket's receive buffer overflowed and messages are lost: what is in effect must be read anew.
    #[error("the receive buffer of {limit} bytes overflowed")]
    Overrun {
        /// The buffer's size.
        limit: usize,
    },
    /// What was dumped changed during each of several tries. Nothing was changed by asking.
    #[error("it changed during each of {tries} dumps")]
    Changing {
        /// How often it was tried.
        tries: usize,
    },
    /// Something to send is too long: nothing was sent.
    #[error("{what} of {size} bytes, {limit} fit{}", hint(what))]
    TooLarge {
        /// What is too long.
        what: &'static str,
        /// How long it is, in bytes.
        size: usize,
        /// How long it may be.
        limit: usize,
    },
    /// An answer that makes no sense: a mistake here or in the kernel.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The socket itself failed.
    #[error("{call}")]
    Socket {
        /// The call that failed.
        call: &'static str,
        /// How.
        source: io::Error,
    },
}

impl NetlinkError {
    /// Whose fault it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Refused { errno, .. } => errno_kind(*errno),
            Self::NoAnswer { .. } => ErrorKind::Timeout,
            Self::Overrun { .. } | Self::Changing { .. } => ErrorKind::Interrupted,
            Self::TooLarge { .. } => ErrorKind::Limit,
            Self::Malformed(_) => ErrorKind::Protocol,
            Self::Socket { source, .. } => source.raw_os_error().map_or(ErrorKind::Other, errno_kind),
        }
    }

    /// The kernel's error number, if it answered with one.
    pub const fn errno(&self) -> Option<i32> {
        match self {
            Self::Refused { errno, .. } => Some(*errno),
            _ => None,
        }
    }

    /// Whether what was asked may be in effect all the same.
    pub(crate) fn leaves_doubt(&self) -> bool {
        match self {
            Self::Refused { .. } | Self::TooLarge { what: "a request", .. } => false,
            Self::Socket { call, .. } => *call != "sendto",
            _ => true,
        }
    }

    /// The same as a backend's error, with `doing` as an imperative: "create bridge br0".
    pub fn during(self, doing: impl Into<Cow<'static, str>>) -> BackendError {
        BackendError::new(self.kind(), doing).caused_by(self)
    }

    pub(super) fn refused(errno: i32) -> Self {
        Self::Refused { errno, text: None }
    }

    pub(super) fn socket(call: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Socket { call, source }
    }
}

impl From<NetlinkError> for BackendError {
    fn from(error: NetlinkError) -> Self {
        error.during("speak netlink")
    }
}

fn explained(text: Option<&str>) -> String {
    text.map_or_else(String::new, |text| format!(": {text}"))
}

fn hint(what: &str) -> &'static str {
    if what == TRANSACTION { ": raise net.core.wmem_max or run with CAP_NET_ADMIN" } else { "" }
}

pub(super) const TRANSACTION: &str = "a transaction";

/// Bytes that are no netlink message, or lack something a message of their kind has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{what} in a netlink message")]
pub struct Malformed {
    /// What is wrong: "a cut attribute".
    pub what: &'static str,
}

impl Malformed {
    /// A message with `what` wrong in it.
    pub const fn new(what: &'static str) -> Self {
        Self { what }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_refusal_and_what_was_never_sent_leave_no_doubt() {
        let broken = || io::Error::from_raw_os_error(5);
        let sure = [NetlinkError::refused(17), NetlinkError::socket("sendto")(broken())];
        assert!(!sure.iter().any(NetlinkError::leaves_doubt));
        let lost = NetlinkError::NoAnswer { deadline: Duration::ZERO };
        let unsure = [lost, NetlinkError::Overrun { limit: 1 }, NetlinkError::socket("recvfrom")(broken())];
        assert!(unsure.iter().all(NetlinkError::leaves_doubt));
    }
}
