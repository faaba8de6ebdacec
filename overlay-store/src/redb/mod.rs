//! The store in one file.

mod answer;
mod file;
mod writer;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use overlay_core::{
    Commit, CommitError, Entry, Key, Limits, Listing, MemoryStore, Prefix, Reading, Revision, Store, StoreError, Watch,
};

pub use file::OpenError;
use writer::Writer;

/// A [`Store`] in one file: for one manager, and for a single machine. Crash-safe; needs no server.
///
/// A commit is answered once it is on the disk. Commits of many callers that come while one is being written share
/// the next write, so many callers get many more commits a second than the disk does flushes. Reads, listings and watches
/// are answered from memory and never wait: they show what is on the disk, and nothing that a crash could take back.
///
/// It holds everything in memory besides, some 450 bytes an entry and its value; opening reads the file, and verifies it.
/// One thread of its own writes; it ends with the last handle, which waits for it. It works under any executor. History for watches begins
/// anew with each opening, and keeps [`MemoryStore::HISTORY`] changes.
///
/// A commit whose future is dropped is done all the same if it was polled once.
///
/// ```
/// use overlay_core::testing::block_on; // any executor will do
/// use overlay_core::{Commit, Key, Store};
/// use overlay_store::RedbStore;
///
/// # let folder = std::env::temp_dir().join(format!("overlay-store-example-{}", std::process::id()));
/// # std::fs::create_dir_all(&folder)?;
/// let path = folder.join("catalogue");
/// let key = Key::new("greeting")?;
/// let store = RedbStore::open(&path)?;
/// block_on(store.commit(Commit::new().put(key.clone(), "hello")))?;
/// drop(store);
///
/// let store = RedbStore::open(&path)?; // after a restart, or a crash
/// assert_eq!(block_on(store.get(&key))?.map(|entry| entry.value).as_deref(), Some(&b"hello"[..]));
/// # std::fs::remove_dir_all(&folder)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct RedbStore {
    durable: MemoryStore, // what is on the disk
    writer: Arc<Writer>,
}

impl RedbStore {
    /// What a commit may have at most.
    pub const LIMITS: Limits = Limits { operations: 4096, value: 4 << 20, commit: 16 << 20 };

    /// Opens the file at `path`, or makes it, readable by its owner only. Reads and verifies all of it, so it takes time in
    /// proportion: it is a call for start-up, not for an executor's thread.
    ///
    /// # Errors
    /// Why it cannot be had; the file is left as it was.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        let (file, listing) = file::File::open(path.as_ref())?;
        let durable = MemoryStore::restored(listing.clone()).with_limits(Self::LIMITS);
        let ahead = MemoryStore::restored(listing).with_limits(Self::LIMITS);
        let writer = Writer::spawn(file, ahead, durable.clone()).map_err(OpenError::Io)?;
        Ok(Self { durable, writer: Arc::new(writer) })
    }

    /// Forgets the history that watches are told from, as if it had been opened just now.
    pub fn compact(&self) {
        self.durable.compact();
    }
}

#[async_trait]
impl Store for RedbStore {
    async fn read(&self, keys: &[Key]) -> Result<Reading, StoreError> {
        self.durable.read(keys).await
    }

    async fn list(&self, prefix: &Prefix) -> Result<Listing, StoreError> {
        self.durable.list(prefix).await
    }

    async fn commit(&self, commit: Commit) -> Result<Revision, CommitError> {
        commit.check(Self::LIMITS)?;
        if commit.is_empty() {
            return self.durable.commit_now(commit);
        }
        self.writer.commit(commit)?.await
    }

    async fn watch(&self, prefix: &Prefix, from: Revision) -> Result<Box<dyn Watch>, StoreError> {
        self.durable.watch(prefix, from).await
    }

    fn limits(&self) -> Limits {
        Self::LIMITS
    }

    async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        self.durable.get(key).await
    }
}

impl fmt::Debug for RedbStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RedbStore").field(&self.durable).finish()
    }
}
