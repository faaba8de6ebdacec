//! What etcd's errors mean.

use std::error::Error as _;
use std::io;

use etcd_client::Error;
use overlay_core::{CommitError, Revision, StoreError};

/// Why a call came to nothing.
#[derive(Debug)]
pub(super) enum Failure {
    /// No answer within the deadline.
    Late,
    /// The runtime ended, or the client panicked.
    Ended,
    /// An error from the client or the server.
    Etcd(Error),
    /// An answer without what every answer has.
    Malformed(&'static str),
    /// The server ends a watch, for this reason.
    Cancelled(String),
}

impl Failure {
    /// For a call that changes nothing.
    pub(super) fn reading(self, doing: &'static str) -> StoreError {
        match &self {
            Self::Late => StoreError::Unavailable { doing, source: "no answer within the deadline".into() },
            Self::Ended => StoreError::Failed { doing, source: "its task has ended".into() },
            Self::Malformed(what) => StoreError::Failed { doing, source: format!("an answer without {what}").into() },
            Self::Cancelled(why) if DENIALS.iter().any(|denial| why.contains(denial)) => {
                StoreError::Denied { doing, source: why.as_str().into() }
            }
            Self::Cancelled(why) => {
                StoreError::Unavailable { doing, source: format!("the server ended it: {why}").into() }
            }
            Self::Etcd(Error::GRpcStatus(status)) => {
                let code = status.code() as i32;
                let source = self.source();
                match code {
                    PERMISSION_DENIED | UNAUTHENTICATED => StoreError::Denied { doing, source },
                    INVALID_ARGUMENT | UNIMPLEMENTED | DATA_LOSS => StoreError::Failed { doing, source },
                    _ => StoreError::Unavailable { doing, source },
                }
            }
            Self::Etcd(_) => StoreError::Unavailable { doing, source: self.source() },
        }
    }

    /// For a commit that changes something: only what surely was not done may say so.
    pub(super) fn committing(self) -> CommitError {
        let not_done = match &self {
            Self::Etcd(Error::GRpcStatus(status)) => {
                REFUSALS.contains(&(status.code() as i32)) || was_never_sent(status.source())
            }
            Self::Etcd(Error::InvalidArgs(_)) => true,
            _ => false,
        };
        match self.reading("commit") {
            error if not_done => CommitError::Failed(error),
            error => CommitError::Ambiguous(error),
        }
    }

    /// Whether a revision that was asked for is forgotten already.
    pub(super) fn is_compacted(&self) -> bool {
        matches!(self, Self::Etcd(Error::GRpcStatus(status)) if status.code() as i32 == OUT_OF_RANGE)
    }

    fn source(&self) -> Box<dyn std::error::Error + Send + Sync> {
        match self {
            Self::Etcd(Error::GRpcStatus(status)) => {
                let (code, message) = (status.code(), status.message());
                let causes: String = causes(status.source()).map(|cause| format!(": {cause}")).collect();
                format!("{code:?}: {message}{causes}").into()
            }
            other => format!("{other:?}").into(),
        }
    }
}

/// What etcd says in an answer to who may not watch, which gRPC has codes for elsewhere.
const DENIALS: [&str; 2] = ["permission denied", "auth"];

// gRPC's status codes, <https://grpc.io/docs/guides/status-codes/>.
const INVALID_ARGUMENT: i32 = 3;
const PERMISSION_DENIED: i32 = 7;
const RESOURCE_EXHAUSTED: i32 = 8;
const FAILED_PRECONDITION: i32 = 9;
const OUT_OF_RANGE: i32 = 11;
const UNIMPLEMENTED: i32 = 12;
const DATA_LOSS: i32 = 15;
const UNAUTHENTICATED: i32 = 16;

/// With these a server says that it did not do what was asked: it checks before it does anything.
const REFUSALS: [i32; 7] = [
    INVALID_ARGUMENT,
    PERMISSION_DENIED,
    RESOURCE_EXHAUSTED,
    FAILED_PRECONDITION,
    OUT_OF_RANGE,
    UNIMPLEMENTED,
    UNAUTHENTICATED,
];

/// Whether there was no connection to send it over.
fn was_never_sent(cause: Option<&(dyn std::error::Error + 'static)>) -> bool {
    causes(cause).any(|cause| {
        cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
    })
}

fn causes<'e>(
    first: Option<&'e (dyn std::error::Error + 'static)>,
) -> impl Iterator<Item = &'e (dyn std::error::Error + 'static)> {
    std::iter::successors(first, |cause: &&'e (dyn std::error::Error + 'static)| (*cause).source())
}

/// A revision as we count, from etcd's.
pub(super) fn revision(number: i64) -> Revision {
    Revision(u64::try_from(number).unwrap_or(0))
}

/// A revision as etcd counts, from ours.
pub(super) fn number(revision: Revision) -> i64 {
    i64::try_from(revision.0).unwrap_or(i64::MAX)
}
