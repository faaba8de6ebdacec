//! Why a manager did not do what it was told.

use std::sync::Arc;

use overlay_core::StoreError;
use overlay_ipam::IpamError;

/// Why a call of [`Control`](crate::Control) failed. Nothing was changed unless it [is in doubt](Self::is_in_doubt).
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// The caller's to mend.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The store could not be used. Nothing was changed; try again.
    #[error("the store could not be used")]
    Store(#[source] Arc<StoreError>),
    /// Others were faster, every time. Nothing was changed; try again after a while.
    #[error("gave up after {attempts} attempts: others were faster")]
    Contended {
        /// How many commits were tried.
        attempts: u32,
    },
    /// An answer was lost, or the manager got stuck half-way: repeat the call with the same id. What is half-done is finished or
    /// undone by the next call, or by a manager's own settling.
    #[error("it may be done or not: repeat it with the same id")]
    InDoubt(#[source] Arc<dyn std::error::Error + Send + Sync>),
    /// The allocator failed, not for want of addresses. Nothing is kept.
    #[error("addresses could not be had")]
    Ipam(#[source] IpamError),
    /// A record cannot be read: something else wrote it, or a later release.
    #[error("the record {key} cannot be read: {flaw}")]
    Corrupt {
        /// Its key.
        key: String,
        /// What is wrong with it.
        flaw: String,
    },
}

impl ControlError {
    /// Whether it may have been done all the same.
    pub const fn is_in_doubt(&self) -> bool {
        matches!(self, Self::InDoubt(_))
    }
}

/// What is wrong with a request, or in its way. Its text says what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// Nothing is called so.
    #[error("{what} {reference} not found")]
    NotFound {
        /// `network`, `service`, `node`.
        what: &'static str,
        /// What was given.
        reference: String,
    },
}
