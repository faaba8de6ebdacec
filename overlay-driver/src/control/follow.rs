//! The catalogue, followed from wherever it is.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use overlay_core::StoreError;
use overlay_node::{CatalogueChange, Feed, Reference};

use super::RemoteError;

/// Tells what is in the catalogue, and then every change: once, in order, and without end. Of a store, that is a [`Feed`]; of a server in
/// another process, a [`RemoteFeed`](super::RemoteFeed).
///
/// What was missed is found by looking at all, and what differs from what was told before is told. Within a batch, what goes is
/// before what comes: endpoints go before services and these before networks; they come the other way round.
#[async_trait]
pub trait Follow: Send + fmt::Debug {
    /// The next changes; waits for them. None where nothing but [what cannot be read](Self::unreadable) has changed. The first are all that is there. May be dropped and called again: nothing is
    /// missed.
    ///
    /// # Errors
    /// If the catalogue cannot be reached. Call again after a while.
    async fn next(&mut self) -> Result<Vec<CatalogueChange>, FollowError>;

    /// Has it tell what concerns these services, too, by name or id, and of others no more than it must. Gives what was heard meanwhile, once it is told all of that: at once and
    /// nothing of whoever tells all anyway. Of 1,024 services at most. May be dropped and called again.
    ///
    /// # Errors
    /// As of [`next`](Self::next); it goes on to be asked for.
    async fn watch(&mut self, services: BTreeSet<Reference>) -> Result<Vec<CatalogueChange>, FollowError> {
        drop(services);
        Ok(Vec::new())
    }

    /// Records that cannot be read, by key, and what is wrong with them: of what a manager of a later release tells and this one does not understand, the kind, and the id if
    /// it is known. What they were before stays as it was told.
    fn unreadable(&self) -> BTreeMap<String, String>;
}

/// Why the catalogue cannot be followed now. Nothing is missed by it.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum FollowError {
    /// The store cannot be read, here or where the server is.
    #[error("the store could not be used")]
    Store(#[source] Arc<StoreError>),
    /// The server cannot be reached, or does not serve us.
    #[error("the catalogue's server could not be heard")]
    Remote(#[source] RemoteError),
}

#[async_trait]
impl Follow for Feed {
    async fn next(&mut self) -> Result<Vec<CatalogueChange>, FollowError> {
        Self::next(self).await.map_err(|error| FollowError::Store(Arc::new(error)))
    }

    fn unreadable(&self) -> BTreeMap<String, String> {
        unreadable(self)
    }
}

/// A feed's unreadable records, as texts.
pub(super) fn unreadable(feed: &Feed) -> BTreeMap<String, String> {
    feed.unreadable().iter().map(|(key, flaw)| (key.to_string(), flaw.clone())).collect()
}
