//! What every store can do.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::{Commit, CommitError, Key, Limits, Prefix, StoreError, Watch};

/// Where the catalogue is kept: entries under keys, changed by commits that are done whole or not at all.
///
/// All commits lie in one order, and a [`Revision`] counts them. A commit says what it has read; if that has changed
/// since, it conflicts and changes nothing. Reading, deciding and committing in a loop is
/// [`Transaction`](crate::Transaction)'s; who uses a store rarely calls [`commit`](Self::commit) by hand.
///
/// It is object-safe, and a handle: what holds `Arc<dyn Store>` does not care what lies beneath. It works under any
/// executor. `overlay_core::testing::store_laws` (feature `testing`) tries what it promises:
/// - a commit that succeeded is seen by every read that begins after it;
/// - a read shows the store as it was at one revision, and so does a listing;
/// - a commit that fails changes nothing, but for [`CommitError::Ambiguous`], which says that nobody knows;
/// - a future dropped before it ended may have had its effect or not.
///
/// ```
/// use overlay_core::testing::block_on;
/// use overlay_core::{Commit, CommitError, Key, MemoryStore, Prefix, Store};
///
/// let store = MemoryStore::default();
/// block_on(async {
///     let key = Key::new("greeting")?;
///     let first = store.commit(Commit::new().absent(key.clone()).put(key.clone(), "hello")).await?;
///     let entry = store.get(&key).await?.ok_or("it was just put")?;
///     assert_eq!((&entry.value[..], entry.revision), (&b"hello"[..], first));
///
///     store.commit(Commit::new().unchanged(key.clone(), first).put(key.clone(), "hi")).await?;
///     let late = store.commit(Commit::new().unchanged(key.clone(), first).delete(key.clone())).await;
///     assert!(matches!(late, Err(CommitError::Conflict { .. }))); // somebody was faster
///
///     assert_eq!(store.list(&Prefix::ALL).await?.entries.len(), 1);
///     Ok::<(), Box<dyn std::error::Error>>(())
/// })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[async_trait]
pub trait Store: Send + Sync + fmt::Debug {
    /// What is under each of `keys`, in their order, all at one revision. One round trip where there is a way to go.
    ///
    /// # Errors
    /// If it could not be read whole.
    async fn read(&self, keys: &[Key]) -> Result<Reading, StoreError>;

    /// Everything under `prefix`, at one revision.
    ///
    /// # Errors
    /// If it could not be read whole: a part is never given for the whole.
    async fn list(&self, prefix: &Prefix) -> Result<Listing, StoreError>;

    /// Does all that `commit` says if what it compares is so, or nothing. Gives the revision at which it is in effect;
    /// for a commit that puts and deletes nothing, a revision at which its comparisons held.
    ///
    /// # Errors
    /// What was in the way; nothing was changed unless it says [`Ambiguous`](CommitError::Ambiguous).
    async fn commit(&self, commit: Commit) -> Result<Revision, CommitError>;

    /// Tells every change under `prefix` that came after `from`, once each and in order. To follow a
    /// [`Listing`], watch from its [`at`](Listing::at).
    ///
    /// # Errors
    /// If watching cannot be begun. That history since `from` is gone is no error but the first event:
    /// [`WatchEvent::Reset`](crate::WatchEvent::Reset).
    async fn watch(&self, prefix: &Prefix, from: Revision) -> Result<Box<dyn Watch>, StoreError>;

    /// What a commit may have at most. Constant for the life of the handle.
    fn limits(&self) -> Limits;

    /// What is under `key`.
    ///
    /// # Errors
    /// If it could not be read.
    async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        Ok(self.read(std::slice::from_ref(key)).await?.entries.pop().flatten())
    }
}

/// How many commits there were: every one that changes something has a higher number than those before it.
///
/// They need not follow without gaps, and compare only within one store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

impl Revision {
    /// Before the first commit.
    pub const ZERO: Self = Self(0);
    /// After which no commit can come; a store that has reached it was not led there by commits.
    pub const LAST: Self = Self(u64::MAX);
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What is under a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The bytes.
    pub value: Bytes,
    /// The commit that put them last.
    pub revision: Revision,
}

/// What [`Store::read`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// The revision at which all of it was so.
    pub at: Revision,
    /// One for each key, in the order asked; `None` where there is nothing.
    pub entries: Vec<Option<Entry>>,
}

/// What [`Store::list`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// The revision at which all of it was so: watch from here to hear of every later change.
    pub at: Revision,
    /// All entries, in the order of their keys.
    pub entries: Vec<(Key, Entry)>,
}

macro_rules! by_pointer {
    ($pointer:ty) => {
        #[async_trait]
        impl<S: Store + ?Sized> Store for $pointer {
            async fn read(&self, keys: &[Key]) -> Result<Reading, StoreError> {
                (**self).read(keys).await
            }

            async fn list(&self, prefix: &Prefix) -> Result<Listing, StoreError> {
                (**self).list(prefix).await
            }

            async fn commit(&self, commit: Commit) -> Result<Revision, CommitError> {
                (**self).commit(commit).await
            }

            async fn watch(&self, prefix: &Prefix, from: Revision) -> Result<Box<dyn Watch>, StoreError> {
                (**self).watch(prefix, from).await
            }

            fn limits(&self) -> Limits {
                (**self).limits()
            }

            async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
                (**self).get(key).await
            }
        }
    };
}

by_pointer!(Arc<S>);
by_pointer!(Box<S>);
