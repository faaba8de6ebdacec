//! What a decision has read.

use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;

use crate::{Commit, Compare, Entry, Key, Listing, Prefix, Reading, Revision};

/// What was read for a decision. It remembers what the decision looked at: that is what the commit compares.
///
/// A decision asks for what it needs as if all had been read; what has not been is an [`Unread`] that `?` hands on to the
/// [`Transaction`](crate::Transaction), which reads it and calls the decision again from the start. Ask for
/// many keys at once ([`need`](Self::need)) where they are known together: that is one round trip.
///
/// ```
/// use overlay_core::testing::block_on;
/// use overlay_core::{Commit, Key, MemoryStore, Snapshot, Transaction, Undecided};
///
/// /// Moves what is under one key to another that is free.
/// fn rename(snapshot: &Snapshot, from: &Key, to: &Key) -> Result<(Commit, ()), Undecided<&'static str>> {
///     snapshot.need([from, to])?;
///     let Some(entry) = snapshot.get(from)? else {
///         return Err(Undecided::Refused("there is nothing to rename"));
///     };
///     match snapshot.get(to)? {
///         Some(_) => Err(Undecided::Refused("the new name is taken")),
///         None => Ok((Commit::new().delete(from.clone()).put(to.clone(), entry.value.clone()), ())),
///     }
/// }
///
/// let store = MemoryStore::default();
/// let (old, new) = (Key::new("old")?, Key::new("new")?);
/// let error = block_on(Transaction::on(&store).run(|snapshot| rename(snapshot, &old, &new))).unwrap_err();
/// assert_eq!(error.refusal(), Some(&"there is nothing to rename"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    keys: Sorted<Key, Looked<Option<Entry>>>,
    prefixes: Sorted<Prefix, Looked<Listing>>,
    at: Revision,
    mixed: bool,
    pub(super) lost: u32,
}

impl Snapshot {
    /// What is under `key`; that nothing is, is read too.
    ///
    /// # Errors
    /// If it has not been read yet: hand it on with `?`.
    pub fn get(&self, key: &Key) -> Result<Option<&Entry>, Unread> {
        match self.keys.get(key) {
            Some(read) => Ok(read.look().as_ref()),
            None => Err(Unread { keys: vec![key.clone()], prefixes: Vec::new() }),
        }
    }

    /// What is under `key`, which is probably the one read at this place, in the order of all keys that were read: spares the
    /// search where many keys are looked at. Where it is not, as [`get`](Self::get).
    ///
    /// # Errors
    /// If it has not been read yet: hand it on with `?`.
    pub fn get_near(&self, key: &Key, place: usize) -> Result<Option<&Entry>, Unread> {
        match self.keys.find(key, place) {
            Some(at) => Ok(self.keys.0[at].1.look().as_ref()),
            None => self.get(key),
        }
    }

    /// The place of `key` in the order of all keys that were read, or where it would be.
    pub fn place(&self, key: &Key) -> usize {
        self.keys.0.partition_point(|(other, _)| other < key)
    }

    /// What is under `key`, without resting on it: the commit does not compare it. For hints that may be wrong, such as that
    /// there is nothing to be had there.
    ///
    /// # Errors
    /// If it has not been read yet: hand it on with `?`.
    pub fn peek(&self, key: &Key) -> Result<Option<&Entry>, Unread> {
        match self.keys.get(key) {
            Some(read) => Ok(read.value.as_ref()),
            None => Err(Unread { keys: vec![key.clone()], prefixes: Vec::new() }),
        }
    }

    /// Asks for all of `keys` at once. It does not look at them: what [`get`](Self::get) is not called for is not compared.
    ///
    /// # Errors
    /// If some have not been read yet: hand it on with `?`.
    pub fn need<'k>(&self, keys: impl IntoIterator<Item = &'k Key>) -> Result<(), Unread> {
        let unread: Vec<Key> = keys.into_iter().filter(|key| self.keys.get(key).is_none()).cloned().collect();
        match unread.is_empty() {
            true => Ok(()),
            false => Err(Unread { keys: unread, prefixes: Vec::new() }),
        }
    }

    /// All entries under `prefix`, in the order of their keys. That there are no others is compared too, so the commit
    /// conflicts with any that puts or deletes a key there: every entry is a comparison, so this is for small prefixes
    /// ([`Limits::operations`](crate::Limits::operations)). For a large one let its writers put a guard key, and get that.
    ///
    /// # Errors
    /// If it has not been read yet: hand it on with `?`.
    pub fn list(&self, prefix: &Prefix) -> Result<&[(Key, Entry)], Unread> {
        match self.prefixes.get(prefix) {
            Some(read) => Ok(&read.look().entries),
            None => Err(Unread { keys: Vec::new(), prefixes: vec![prefix.clone()] }),
        }
    }

    /// The revision of what was read; of the first of it, if it was read at several.
    pub const fn at(&self) -> Revision {
        self.at
    }

    /// How many commits of earlier attempts of this transaction have lost their answers: each of them may have been done, and what is
    /// read now may be its effect. All other attempts changed nothing.
    pub const fn lost_answers(&self) -> u32 {
        self.lost
    }

    /// Takes these for true until a commit compares them: nothing says that they were so at one revision. Makes room for so many
    /// more that will be read.
    pub(super) fn assume(&mut self, entries: impl IntoIterator<Item = (Key, Option<Entry>)>, more: usize) {
        let entries = entries.into_iter();
        if self.keys.0.is_empty() {
            self.keys.0 = Vec::with_capacity(entries.size_hint().0 + more);
        }
        self.keys.extend(entries.map(|(key, entry)| (key, Looked::new(entry))));
        self.mixed |= !self.keys.0.is_empty();
    }

    /// What a commit has looked at that compared these keys. Of what was there, only the revisions are known.
    pub(super) fn compared(keys: impl IntoIterator<Item = (Key, Option<Revision>)>) -> Self {
        let mut snapshot = Self::default();
        let entry = |revision| Entry { value: Bytes::new(), revision };
        snapshot.assume(keys.into_iter().map(|(key, revision)| (key, revision.map(entry))), 0);
        snapshot.keys.iter().for_each(|(_, read)| read.looked.store(true, Ordering::Relaxed));
        snapshot
    }

    /// Whether all of it was so at one revision, `at`.
    pub(super) const fn is_of_one_revision(&self) -> bool {
        !self.mixed
    }

    /// Whether a commit that compares what was looked at notices a change of `key`.
    pub(super) fn has_looked_at(&self, key: &Key) -> bool {
        self.first_unseen(std::iter::once(key)).is_none()
    }

    /// The first of `keys` of which a commit that compares what was looked at would not notice a change.
    pub(super) fn first_unseen<'k>(&self, mut keys: impl Iterator<Item = &'k Key>) -> Option<&'k Key> {
        let mut next = 0; // they come in order mostly
        keys.find(|key| {
            let found = self.keys.find(key, next);
            next = found.map_or(next, |at| at + 1);
            let looked = found.is_some_and(|at| self.keys.0[at].1.looked());
            !looked && !self.prefixes.iter().any(|(prefix, read)| read.looked() && prefix.contains(key))
        })
    }

    /// Adds what was looked at, as a commit compares it.
    pub(super) fn compare(&self, compares: &mut Vec<Compare>) {
        compares.reserve_exact(self.keys.0.len() + 1);
        let keys = self.keys.iter().filter(|(_, read)| read.looked());
        compares.extend(keys.map(|(key, read)| compare(key, read.value.as_ref())));
        for (prefix, read) in self.prefixes.iter().filter(|(_, read)| read.looked()) {
            compares.extend(read.value.entries.iter().map(|(key, entry)| compare(key, Some(entry))));
            compares.push(Compare::Prefix { prefix: prefix.clone(), revision: read.value.at });
        }
    }

    /// What was looked at, to be read once more.
    pub(super) fn wanted(&self) -> Unread {
        let keys = self.keys.iter().filter(|(_, read)| read.looked()).map(|(key, _)| key.clone());
        let prefixes = self.prefixes.iter().filter(|(_, read)| read.looked()).map(|(prefix, _)| prefix.clone());
        Unread { keys: keys.collect(), prefixes: prefixes.collect() }
    }

    /// Whether this, read later, shows a change of something that `other` looked at: what rested on `other` has had its effect by
    /// now or will never have one.
    pub(super) fn has_overtaken(&self, other: &Self) -> bool {
        let mut keys = other.keys.iter().filter(|(_, read)| read.looked());
        keys.any(|(key, read)| self.keys.get(key).is_some_and(|now| revision(&now.value) != revision(&read.value)))
            || other.prefixes.iter().filter(|(_, read)| read.looked()).any(|(prefix, read)| {
                self.prefixes.get(prefix).is_some_and(|now| now.value.entries != read.value.entries)
            })
    }

    /// Leaves of the wanted keys those that are not there yet.
    pub(super) fn forget_known(&self, wanted: &mut Unread) {
        let mut place = 0; // they come in order mostly
        wanted.keys.retain(|key| {
            place = self.keys.place_near(key, place);
            self.keys.0.get(place).is_none_or(|(other, _)| other != key)
        });
    }

    /// What was read under these keys.
    pub(super) fn note_reading(&mut self, keys: impl Iterator<Item = Key>, reading: Reading) {
        self.note(reading.at);
        self.keys.extend(keys.zip(reading.entries.into_iter().map(Looked::new)));
    }

    pub(super) fn note_listing(&mut self, prefix: Prefix, listing: Listing) {
        self.note(listing.at);
        self.prefixes.extend([(prefix, Looked::new(listing))]);
    }

    fn note(&mut self, at: Revision) {
        let first = self.keys.0.is_empty() && self.prefixes.0.is_empty();
        self.mixed |= !first && at != self.at;
        if first {
            self.at = at;
        }
    }

    pub(super) fn forget_looks(&self) {
        self.keys.iter().for_each(|(_, read)| read.looked.store(false, Ordering::Relaxed));
        self.prefixes.iter().for_each(|(_, read)| read.looked.store(false, Ordering::Relaxed));
    }
}

/// A decision asked for what has not been read yet. It comes from a [`Snapshot`]; `?` hands it on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unread {
    pub(super) keys: Vec<Key>,
    pub(super) prefixes: Vec<Prefix>,
}

/// Why a decision did not decide.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Undecided<R> {
    /// It needs to know more. Made of an [`Unread`] by `?`.
    Unread(Unread),
    /// What is wanted cannot be had.
    Refused(R),
}

impl<R> From<Unread> for Undecided<R> {
    fn from(unread: Unread) -> Self {
        Self::Unread(unread)
    }
}

/// What was decided.
pub(super) type Decision<T, R> = Result<(Commit, T), R>;

/// How often a decision may ask for more: one that asks oftener walks the store a round trip at a time, or in circles.
pub(super) const ROUNDS: usize = 1000;

/// A map in a vector: what a decision reads is a few keys, or many at once.
#[derive(Debug, Clone)]
struct Sorted<K, V>(Vec<(K, V)>);

impl<K: Ord, V> Sorted<K, V> {
    fn get(&self, key: &K) -> Option<&V> {
        let found = self.0.binary_search_by(|(other, _)| other.cmp(key));
        found.ok().map(|at| &self.0[at].1)
    }

    /// Where a key is: `likely`, or anywhere.
    fn find(&self, key: &K, likely: usize) -> Option<usize> {
        match self.0.get(likely) {
            Some((other, _)) if other == key => Some(likely),
            _ => self.0.binary_search_by(|(other, _)| other.cmp(key)).ok(),
        }
    }

    /// Where a key is or would be: at `likely`, or anywhere.
    fn place_near(&self, key: &K, likely: usize) -> usize {
        let all = &self.0[..];
        let after = likely == 0 || all.get(likely - 1).is_some_and(|(other, _)| other < key);
        match after && all.get(likely).is_none_or(|(other, _)| key <= other) {
            true => likely,
            false => all.partition_point(|(other, _)| other < key),
        }
    }

    fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.0.iter().map(|(key, value)| (key, value))
    }

    /// Of a key that comes again, the last value counts.
    fn extend(&mut self, more: impl IntoIterator<Item = (K, V)>) {
        let (more, before) = (more.into_iter(), self.0.len());
        self.0.reserve_exact(more.size_hint().0);
        self.0.extend(more);
        if self.0.is_sorted_by(|(a, _), (b, _)| a < b) {
            return;
        }
        if self.0.len() == before + 1 {
            return self.settle();
        }
        self.0.sort_by(|(a, _), (b, _)| a.cmp(b));
        self.0.dedup_by(|later, kept| {
            let again = later.0 == kept.0;
            if again {
                mem::swap(later, kept);
            }
            again
        });
    }
}

impl<K: Ord, V> Sorted<K, V> {
    /// Takes the last to its place among the others, which are in order.
    fn settle(&mut self) {
        let Some((last, others)) = self.0.split_last() else { return };
        match others.binary_search_by(|(other, _)| other.cmp(&last.0)) {
            Ok(same) => drop(self.0.swap_remove(same)),
            Err(at) => self.0[at..].rotate_right(1),
        }
    }
}

impl<K, V> Default for Sorted<K, V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

/// Something read, and whether the decision has looked at it.
#[derive(Debug)]
struct Looked<T> {
    value: T,
    looked: AtomicBool, // by one thread at a time; a transaction's future may move between polls
}

impl<T: Clone> Clone for Looked<T> {
    fn clone(&self) -> Self {
        Self { value: self.value.clone(), looked: AtomicBool::new(self.looked()) }
    }
}

impl<T> Looked<T> {
    const fn new(value: T) -> Self {
        Self { value, looked: AtomicBool::new(false) }
    }

    fn look(&self) -> &T {
        self.looked.store(true, Ordering::Relaxed);
        &self.value
    }

    fn looked(&self) -> bool {
        self.looked.load(Ordering::Relaxed)
    }
}

fn compare(key: &Key, entry: Option<&Entry>) -> Compare {
    Compare::Key { key: key.clone(), revision: entry.map(|entry| entry.revision) }
}

fn revision(entry: &Option<Entry>) -> Option<Revision> {
    entry.as_ref().map(|entry| entry.revision)
}
