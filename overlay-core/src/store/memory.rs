//! The store in memory.

use std::cmp::Ordering;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::iter::{Peekable, Zip};
use std::mem;
use std::slice;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use async_trait::async_trait;
use bytes::Bytes;

use super::shelves::{Place, Shelves};
use super::text::Text;
use crate::{
    Commit, CommitError, Compare, Entry, Key, KeyChange, Limits, Listing, Prefix, Reading, Revision, Store, StoreError,
    Watch, WatchEvent,
};

/// A [`Store`] in memory: for tests, and for one process whose catalogue need not outlive it.
///
/// A clone is another handle on the same entries, as a second manager has. Reads and commits never wait. To read,
/// compare or write a key takes O(log n); a listing and a comparison of a [prefix](Compare::Prefix), O(log n + entries).
///
/// ```
/// use overlay_core::testing::block_on;
/// use overlay_core::{Commit, Key, MemoryStore, Store};
///
/// let (ours, theirs) = { let store = MemoryStore::default(); (store.clone(), store) };
/// let key = Key::new("leader")?;
/// block_on(ours.commit(Commit::new().absent(key.clone()).put(key.clone(), "a")))?;
/// assert_eq!(block_on(theirs.get(&key))?.map(|entry| entry.value).as_deref(), Some(&b"a"[..]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct MemoryStore {
    held: Arc<Mutex<Held>>,
    limits: Limits,
}

impl MemoryStore {
    /// How many changes of keys are kept for watches unless [`with_history`](Self::with_history) says otherwise.
    pub const HISTORY: usize = 4096;

    /// What a commit may have unless [`with_limits`](Self::with_limits) says otherwise: far more than another store takes.
    pub const LIMITS: Limits = Limits { operations: 1 << 20, value: 1 << 26, commit: 1 << 30 };

    /// An empty store that keeps the last `changes` changes of keys for watches; one that lags further is reset.
    #[must_use]
    pub fn with_history(changes: usize) -> Self {
        let held = Held { keep: changes, ..Held::default() };
        Self { held: Arc::new(Mutex::new(held)), limits: Self::LIMITS }
    }

    /// A store that holds what another was found to hold: the entries with their revisions, no history.
    ///
    /// With [`commit_now`](Self::commit_now), this is the memory of a store that keeps its entries elsewhere.
    #[must_use]
    pub fn restored(listing: Listing) -> Self {
        let Listing { at, entries } = listing;
        let mut held = Held { at, compacted: at, keep: Self::HISTORY, ..Held::default() };
        entries.into_iter().for_each(|(key, entry)| held.entries.put(key, entry.into(), None));
        Self { held: Arc::new(Mutex::new(held)), limits: Self::LIMITS }
    }

    /// [`commit`](Store::commit) without a future: it never waits.
    ///
    /// # Errors
    /// As there; never [`Ambiguous`](CommitError::Ambiguous), and [`Failed`](CommitError::Failed) only after [`Revision::LAST`].
    pub fn commit_now(&self, commit: Commit) -> Result<Revision, CommitError> {
        commit.check(self.limits)?;
        let mut held = self.lock();
        held.compare_all(&commit.compares)?;
        if commit.is_empty() {
            return Ok(held.at);
        }
        if held.at == Revision::LAST {
            return Err(StoreError::Failed { doing: "commit", source: "no revision is left".into() }.into());
        }
        let (revision, waiting) = held.apply(commit);
        drop(held);
        waiting.into_values().for_each(Waker::wake);
        Ok(revision)
    }

    /// A handle on the same entries that refuses larger commits: to try how a program does with the limits of another store.
    #[must_use]
    pub fn with_limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// Forgets all history: watches that have not told all of it are reset.
    pub fn compact(&self) {
        let mut held = self.lock();
        held.compacted = held.at;
        held.history.clear();
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.lock().entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn read(&self, keys: &[Key]) -> Result<Reading, StoreError> {
        let mut held = self.lock();
        let entries = match keys {
            [key] => vec![held.entry(key)],
            _ => held.several(keys),
        };
        Ok(Reading { at: held.at, entries })
    }

    async fn list(&self, prefix: &Prefix) -> Result<Listing, StoreError> {
        let held = self.lock();
        let under = held.entries.under(prefix).into_iter();
        let entries = under.map(|(key, slot)| (key.clone(), slot.entry())).collect();
        Ok(Listing { at: held.at, entries })
    }

    async fn commit(&self, commit: Commit) -> Result<Revision, CommitError> {
        self.commit_now(commit)
    }

    async fn watch(&self, prefix: &Prefix, from: Revision) -> Result<Box<dyn Watch>, StoreError> {
        let mut held = self.lock();
        if from > held.at {
            return Err(StoreError::Ahead { asked: from, at: held.at });
        }
        held.watches += 1;
        let told = Some(from);
        Ok(Box::new(MemoryWatch { held: Arc::clone(&self.held), id: held.watches, prefix: prefix.clone(), told }))
    }

    fn limits(&self) -> Limits {
        self.limits
    }

    async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        Ok(self.lock().entry(key))
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::with_history(Self::HISTORY)
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let held = self.lock();
        f.debug_struct("MemoryStore").field("at", &held.at).field("entries", &held.entries.len()).finish()
    }
}

/// What is under a key. Small values lie in it: a store of a million leases has no million small pieces of memory.
#[derive(Debug)]
pub(super) struct Slot {
    value: Text,
    revision: Revision,
}

impl Slot {
    #[cfg(test)]
    pub(super) const fn revision(&self) -> Revision {
        self.revision
    }

    fn entry(&self) -> Entry {
        Entry { value: self.value.to_bytes(), revision: self.revision }
    }
}

impl From<Entry> for Slot {
    fn from(Entry { value, revision }: Entry) -> Self {
        Self { value: value.into(), revision }
    }
}

/// A key's change as it is remembered.
struct Past {
    revision: Revision,
    key: Key,
    value: Option<Text>,
}

impl Past {
    fn change(&self) -> KeyChange {
        KeyChange { key: self.key.clone(), value: self.value.as_ref().map(Text::to_bytes) }
    }
}

#[derive(Default)]
struct Held {
    at: Revision,
    entries: Shelves,
    history: VecDeque<Past>, // by revision, then by key
    keep: usize,
    compacted: Revision, // up to here history is forgotten
    changes: Vec<Past>,  // empty between commits: kept for its room
    seen: Vec<Place>,    // where the commit's compared keys are
    waiting: BTreeMap<u64, Waker>,
    watches: u64,
}

impl Held {
    fn entry(&mut self, key: &Key) -> Option<Entry> {
        self.entries.get(key).map(Slot::entry)
    }

    /// The small values among them share one piece of memory.
    fn several(&mut self, keys: &[Key]) -> Vec<Option<Entry>> {
        let (mut entries, mut small) = (Vec::with_capacity(keys.len()), Vec::new());
        let mut ends = Vec::with_capacity(keys.len());
        let mut place = Place::default();
        for key in keys {
            place = self.entries.find_after(key, place);
            let entry = self.entries.at(place).map(|slot| match slot.value.short() {
                Some(value) => {
                    small.extend_from_slice(value);
                    Entry { value: Bytes::new(), revision: slot.revision }
                }
                None => slot.entry(),
            });
            entries.push(entry);
            ends.push(small.len());
        }
        let (small, mut start) = (Bytes::from(small), 0);
        for (entry, end) in entries.iter_mut().zip(ends) {
            if let (Some(entry), true) = (entry, end > start) {
                entry.value = small.slice(start..end);
            }
            start = end;
        }
        entries
    }

    /// Remembers where it found the keys: a commit mostly writes those.
    fn compare_all(&mut self, compares: &[Compare]) -> Result<(), CommitError> {
        self.seen.clear();
        let (mut before, many) = (Place::default(), compares.len() > 8);
        for compare in compares {
            let place = match compare {
                Compare::Key { key, .. } => self.entries.find_after(key, before),
                Compare::Prefix { .. } => Place::default(),
            };
            if many {
                before = place;
            }
            self.compare(compare, place)?;
            self.seen.push(place);
        }
        Ok(())
    }

    fn compare(&self, compare: &Compare, place: Place) -> Result<(), CommitError> {
        let (holds, found) = match compare {
            Compare::Key { revision, .. } => {
                let found = self.entries.at(place).map(|slot| slot.revision);
                (found == *revision, found)
            }
            Compare::Prefix { prefix, revision } => {
                let found = self.entries.under(prefix).into_iter().map(|(_, slot)| slot.revision).max();
                (found <= Some(*revision), found)
            }
        };
        match holds {
            true => Ok(()),
            false => Err(CommitError::Conflict { compare: compare.clone(), found }),
        }
    }

    /// Gives who has to be woken, too.
    fn apply(&mut self, commit: Commit) -> (Revision, BTreeMap<u64, Waker>) {
        let revision = Revision(self.at.0 + 1);
        let mut changes = mem::take(&mut self.changes);
        let seen = mem::take(&mut self.seen);
        let mut compared = Compared { seen: commit.compares.iter().zip(&seen).peekable() };
        for (key, value) in commit.puts {
            let value = Text::from(value);
            let slot = Slot { value: value.clone(), revision };
            self.entries.put(key.clone(), slot, compared.place(&key));
            changes.push(Past { revision, key, value: Some(value) });
        }
        let mut compared = Compared { seen: commit.compares.iter().zip(&seen).peekable() };
        for key in commit.deletes {
            if self.entries.remove(&key, compared.place(&key)) {
                changes.push(Past { revision, key, value: None });
            }
        }
        self.seen = seen;
        if changes.is_empty() {
            return (self.at, BTreeMap::new());
        }
        self.at = revision;
        self.remember(revision, changes);
        (revision, mem::take(&mut self.waiting))
    }

    /// The changes of a commit are kept or forgotten together.
    fn remember(&mut self, revision: Revision, mut changes: Vec<Past>) {
        if changes.len() > self.keep {
            self.history.clear();
            self.compacted = revision;
            return;
        }
        changes.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        self.history.extend(changes.drain(..));
        self.changes = changes;
        if let Some(over @ 1..) = self.history.len().checked_sub(self.keep) {
            self.compacted = self.history[over - 1].revision;
        }
        while self.history.front().is_some_and(|past| past.revision <= self.compacted) {
            self.history.pop_front();
        }
    }

    /// What came after `told` under `prefix` first: `None` if nothing has.
    fn since(&self, told: Revision, prefix: &Prefix) -> Option<WatchEvent> {
        if told < self.compacted {
            return Some(WatchEvent::Reset);
        }
        let first = self.history.partition_point(|past| past.revision <= told);
        let mut under = self.history.range(first..).filter(|past| prefix.contains(&past.key)).peekable();
        let revision = under.peek()?.revision;
        let changes = under.take_while(|past| past.revision == revision).map(Past::change).collect();
        Some(WatchEvent::Changes { revision, changes })
    }
}

/// Compared keys, and where they were found, for those who ask in their order.
struct Compared<'c> {
    seen: Peekable<Zip<slice::Iter<'c, Compare>, slice::Iter<'c, Place>>>,
}

impl Compared<'_> {
    /// Where `key` was found, if it was compared; what is asked for out of order is not known.
    fn place(&mut self, key: &Key) -> Option<Place> {
        loop {
            let (compare, place) = self.seen.peek()?;
            let order = match compare {
                Compare::Key { key: other, .. } => other.cmp(key),
                Compare::Prefix { .. } => Ordering::Less,
            };
            if order == Ordering::Greater {
                return None;
            }
            let place = (order == Ordering::Equal).then_some(**place);
            self.seen.next();
            if place.is_some() {
                return place;
            }
        }
    }
}

struct MemoryWatch {
    held: Arc<Mutex<Held>>,
    id: u64,
    prefix: Prefix,
    told: Option<Revision>, // `None` after a reset
}

impl MemoryWatch {
    fn poll(&mut self, context: &Context<'_>) -> Poll<WatchEvent> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let event = match self.told {
            None => WatchEvent::Reset,
            Some(told) => match held.since(told, &self.prefix) {
                Some(event) => event,
                None => {
                    self.told = Some(held.at);
                    held.waiting.insert(self.id, context.waker().clone());
                    return Poll::Pending;
                }
            },
        };
        self.told = match &event {
            WatchEvent::Changes { revision, .. } => Some(*revision),
            WatchEvent::Reset => None,
        };
        Poll::Ready(event)
    }
}

#[async_trait]
impl Watch for MemoryWatch {
    async fn next(&mut self) -> Result<WatchEvent, StoreError> {
        Ok(std::future::poll_fn(|context| self.poll(context)).await)
    }
}

impl Drop for MemoryWatch {
    fn drop(&mut self) {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).waiting.remove(&self.id);
    }
}
