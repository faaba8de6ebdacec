//! Why a store could not answer.

use std::error::Error;

use crate::Revision;

/// Why a store could not read, or did not try to write. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// It does not answer now: try again later.
    #[error("the store does not answer: {doing}")]
    Unavailable {
        /// What was being done: "read 3 keys".
        doing: &'static str,
        /// Why.
        source: Box<dyn Error + Send + Sync>,
    },
    /// It does not let us: give the right credentials or permissions.
    #[error("the store refused: {doing}")]
    Denied {
        /// What was being done.
        doing: &'static str,
        /// Why.
        source: Box<dyn Error + Send + Sync>,
    },
    /// What it holds makes no sense: restore it from a copy.
    #[error("the store is damaged: {doing}")]
    Corrupt {
        /// What was being done.
        doing: &'static str,
        /// What makes no sense.
        source: Box<dyn Error + Send + Sync>,
    },
    /// A revision was asked for that it has not reached. It was restored from an older copy, or is another store:
    /// forget what was read and list again.
    #[error("revision {asked} has not come yet: the store is at {at}")]
    Ahead {
        /// The revision asked for.
        asked: Revision,
        /// Where the store is.
        at: Revision,
    },
    /// It answered something that is no answer, or broke in another way: a mistake in the store.
    #[error("the store failed: {doing}")]
    Failed {
        /// What was being done.
        doing: &'static str,
        /// Why.
        source: Box<dyn Error + Send + Sync>,
    },
}

impl StoreError {
    /// Whether the same call may succeed later with nothing else changed.
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }
}
