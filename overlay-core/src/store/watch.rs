//! Changes as they come.

use async_trait::async_trait;
use bytes::Bytes;

use crate::{Key, Revision, StoreError};

/// Tells the changes under a prefix: made by [`Store::watch`](crate::Store::watch).
///
/// ```
/// use overlay_core::testing::block_on;
/// use overlay_core::{Commit, Key, MemoryStore, Prefix, Revision, Store, WatchEvent};
///
/// let store = MemoryStore::default();
/// block_on(async {
///     let nodes = Prefix::new("node/")?;
///     let mut watch = store.watch(&nodes, Revision::ZERO).await?;
///     let at = store.commit(Commit::new().put(nodes.key("a")?, "10.0.0.1").put(Key::new("other")?, "")).await?;
///     let WatchEvent::Changes { revision, changes } = watch.next().await? else { panic!("nothing was compacted") };
///     assert_eq!((revision, changes.len()), (at, 1));
///     assert_eq!(changes[0].value.as_deref(), Some(&b"10.0.0.1"[..]));
///     Ok::<(), Box<dyn std::error::Error>>(())
/// })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[async_trait]
pub trait Watch: Send {
    /// The next commit that changed something under the prefix; waits for it. May be dropped and called again: nothing is missed.
    ///
    /// # Errors
    /// If the store cannot be reached. The watch stays where it is: call again.
    async fn next(&mut self) -> Result<WatchEvent, StoreError>;
}

#[async_trait]
impl<W: Watch + ?Sized> Watch for Box<W> {
    async fn next(&mut self) -> Result<WatchEvent, StoreError> {
        (**self).next().await
    }
}

/// What a watch tells.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum WatchEvent {
    /// A commit changed these.
    Changes {
        /// The commit.
        revision: Revision,
        /// Its changes under the prefix, in the order of their keys; at least one.
        changes: Vec<KeyChange>,
    },
    /// Changes were missed: history was compacted, or the watch was lost for too long. List again, and watch from that
    /// listing. This watch has ended and tells nothing else any more.
    Reset,
}

/// What a commit did to a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyChange {
    /// The key.
    pub key: Key,
    /// What is under it now; `None` if it was deleted.
    pub value: Option<Bytes>,
}
