//! A map whose copies share what they have in common.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::fmt;
use std::iter::FusedIterator;
use std::ops::Index;
use std::sync::Arc;

use serde::de::{Deserialize, Deserializer};
use serde::ser::{Serialize, Serializer};

use crate::Change;
use crate::diff::{Entries, step};

/// An ordered map for values that are large and change little: a copy shares all that neither changes later, and what two
/// of them do not share is found without looking at the rest.
///
/// It is used as a [`BTreeMap`] is. Entries stand in chunks of up to 64: a copy costs a reference count for each chunk, a
/// look-up O(log n), a change the copy of one chunk if that is shared, and [`diff`](Self::diff) a comparison of pointers for
/// each chunk that is shared. So who keeps the last value and is given the next learns in microseconds what
/// changed in ten thousand entries, if the next was made from the last.
///
/// ```
/// use overlay_core::{Change, SharedMap};
///
/// let before: SharedMap<u32, &str> = (0..10_000).map(|n| (n, "idle")).collect();
/// let mut after = before.clone();
/// after.insert(4711, "busy");
/// after.remove(&9);
/// let changes: Vec<_> = before.diff(&after).collect();
/// assert_eq!(changes, [Change::Remove(&9, &"idle"), Change::Replace(&4711, &"idle", &"busy")]);
/// ```
#[derive(Clone)]
pub struct SharedMap<K, V> {
    /// In order; none is empty.
    chunks: Vec<Arc<Chunk<K, V>>>,
    len: usize,
}

type Chunk<K, V> = Vec<(K, V)>;

/// The most entries of a chunk.
const MOST: usize = 64;
/// As many entries a chunk has that is made with others.
const FILL: usize = 48;

impl<K, V> SharedMap<K, V> {
    /// An empty map.
    pub const fn new() -> Self {
        Self { chunks: Vec::new(), len: 0 }
    }

    /// How many entries there are.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Takes all entries away.
    pub fn clear(&mut self) {
        *self = Self::new();
    }

    /// The entries in the order of their keys.
    pub fn iter(&self) -> SharedIter<'_, K, V> {
        SharedIter { chunks: &self.chunks, at: 0 }
    }

    /// The keys in their order.
    pub fn keys(&self) -> impl Iterator<Item = &K> + Clone {
        self.iter().map(|(key, _)| key)
    }

    /// The values in the order of their keys.
    pub fn values(&self) -> impl Iterator<Item = &V> + Clone {
        self.iter().map(|(_, value)| value)
    }

    /// The entry with the first key.
    pub fn first_key_value(&self) -> Option<(&K, &V)> {
        self.iter().next()
    }
}

impl<K: Ord, V> SharedMap<K, V> {
    /// The value of a key.
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        let (chunk, at) = self.find(key);
        self.chunks.get(chunk)?.get(at.ok()?).map(|(_, value)| value)
    }

    /// Whether there is such a key.
    pub fn contains_key<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.find(key).1.is_ok()
    }

    /// The differences from this map to `new`, in the order of their keys.
    ///
    /// Chunks that both share are passed over; the rest is a merge, in time linear in it.
    pub fn diff<'a>(&'a self, new: &'a Self) -> SharedDiff<'a, K, V> {
        SharedDiff { old: self.iter(), new: new.iter() }
    }

    /// The chunk where a key is or belongs, and its place there: `Err` if it is not there.
    fn find<Q: Ord + ?Sized>(&self, key: &Q) -> (usize, Result<usize, usize>)
    where
        K: Borrow<Q>,
    {
        let after = self.chunks.partition_point(|chunk| chunk.first().is_some_and(|(first, _)| first.borrow() <= key));
        let number = after.saturating_sub(1);
        let chunk = self.chunks.get(number).map_or(&[][..], |chunk| chunk);
        (number, chunk.binary_search_by(|(other, _)| other.borrow().cmp(key)))
    }
}

impl<K: Ord + Clone, V: Clone> SharedMap<K, V> {
    /// Sets the value of a key, and gives the one it had.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let (number, at) = self.find(&key);
        let Some(chunk) = self.chunks.get_mut(number) else {
            self.chunks.push(Arc::new(vec![(key, value)]));
            self.len = 1;
            return None;
        };
        let chunk = Arc::make_mut(chunk);
        match at {
            Ok(at) => Some(std::mem::replace(&mut chunk[at].1, value)),
            Err(at) => {
                chunk.insert(at, (key, value));
                self.len += 1;
                if chunk.len() > MOST {
                    // Who adds in order leaves full chunks behind.
                    let rest = chunk.split_off(if at == MOST { FILL } else { MOST / 2 });
                    chunk.shrink_to(MOST); // the one too many doubled it
                    self.chunks.insert(number + 1, Arc::new(rest));
                }
                None
            }
        }
    }

    /// Takes a key away, and gives the value it had.
    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let (number, at) = self.find(key);
        let at = at.ok()?;
        let chunk = Arc::make_mut(self.chunks.get_mut(number)?);
        let (_, value) = chunk.remove(at);
        let left = chunk.len();
        self.len -= 1;
        if left == 0 {
            self.chunks.remove(number);
        } else if left < MOST / 4 && self.chunks.get(number + 1).is_some_and(|next| left + next.len() <= FILL) {
            let next = self.chunks.remove(number + 1);
            Arc::make_mut(&mut self.chunks[number]).extend(next.iter().cloned());
        }
        Some(value)
    }

    /// The value of a key, to change. The chunk is copied if it is shared, changed or not.
    pub fn get_mut<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        let (number, at) = self.find(key);
        let at = at.ok()?;
        Arc::make_mut(self.chunks.get_mut(number)?).get_mut(at).map(|(_, value)| value)
    }

    /// All values, to change, in the order of their keys. Every chunk that is shared is copied: O(n).
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.chunks.iter_mut().flat_map(|chunk| Arc::make_mut(chunk).iter_mut().map(|(_, value)| value))
    }
}

impl<K, V> Default for SharedMap<K, V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: Ord, V: PartialEq> PartialEq for SharedMap<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && self.diff(other).next().is_none()
    }
}

impl<K: Ord, V: Eq> Eq for SharedMap<K, V> {}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for SharedMap<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

/// Of entries with one key the last counts.
impl<K: Ord, V> FromIterator<(K, V)> for SharedMap<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let mut entries: Vec<(K, V)> = entries.into_iter().collect();
        if !entries.is_sorted_by(|(one, _), (next, _)| one < next) {
            entries.sort_by(|(one, _), (next, _)| one.cmp(next));
            entries.dedup_by(|next, kept| {
                let same = next.0 == kept.0;
                if same {
                    std::mem::swap(next, kept);
                }
                same
            });
        }
        let len = entries.len();
        let mut chunks = Vec::with_capacity(len.div_ceil(FILL));
        // From the end, where a chunk is copied off at once.
        while entries.len() > FILL {
            chunks.push(Arc::new(entries.split_off((entries.len() - 1) / FILL * FILL)));
        }
        if !entries.is_empty() {
            entries.shrink_to_fit();
            chunks.push(Arc::new(entries));
        }
        chunks.reverse();
        Self { chunks, len }
    }
}

impl<K: Ord, V, const N: usize> From<[(K, V); N]> for SharedMap<K, V> {
    fn from(entries: [(K, V); N]) -> Self {
        entries.into_iter().collect()
    }
}

impl<K: Ord + Clone, V: Clone> Extend<(K, V)> for SharedMap<K, V> {
    fn extend<I: IntoIterator<Item = (K, V)>>(&mut self, entries: I) {
        entries.into_iter().for_each(|(key, value)| drop(self.insert(key, value)));
    }
}

impl<K: Ord + Borrow<Q>, V, Q: Ord + ?Sized> Index<&Q> for SharedMap<K, V> {
    type Output = V;

    /// # Panics
    /// If there is no such key, as of a [`BTreeMap`].
    #[expect(clippy::expect_used, reason = "what `Index` is: `get` does not panic")]
    fn index(&self, key: &Q) -> &V {
        self.get(key).expect("no entry found for key")
    }
}

impl<'a, K, V> IntoIterator for &'a SharedMap<K, V> {
    type Item = (&'a K, &'a V);
    type IntoIter = SharedIter<'a, K, V>;

    fn into_iter(self) -> SharedIter<'a, K, V> {
        self.iter()
    }
}

impl<K: Serialize, V: Serialize> Serialize for SharedMap<K, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self)
    }
}

impl<'de, K: Deserialize<'de> + Ord, V: Deserialize<'de>> Deserialize<'de> for SharedMap<K, V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(BTreeMap::deserialize(deserializer)?.into_iter().collect())
    }
}

/// Iterator of [`SharedMap::iter`].
#[must_use = "iterators are lazy"]
#[derive(Debug)]
pub struct SharedIter<'a, K, V> {
    /// Those that are not passed yet.
    chunks: &'a [Arc<Chunk<K, V>>],
    /// The place in the first of them: within it, for none is empty.
    at: usize,
}

impl<K, V> Clone for SharedIter<'_, K, V> {
    fn clone(&self) -> Self {
        Self { ..*self }
    }
}

impl<K, V> SharedIter<'_, K, V> {
    fn skip_chunk(&mut self) {
        (self.chunks, self.at) = (self.chunks.get(1..).unwrap_or(&[]), 0);
    }
}

impl<'a, K, V> Iterator for SharedIter<'a, K, V> {
    type Item = (&'a K, &'a V);

    fn next(&mut self) -> Option<Self::Item> {
        let chunk = self.chunks.first()?;
        let (key, value) = chunk.get(self.at)?;
        self.at += 1;
        if self.at == chunk.len() {
            self.skip_chunk();
        }
        Some((key, value))
    }
}

impl<'a, K, V> Entries<'a, K, V> for SharedIter<'a, K, V> {
    fn next_key(&mut self) -> Option<&'a K> {
        self.chunks.first()?.get(self.at).map(|(key, _)| key)
    }
}

impl<K, V> FusedIterator for SharedIter<'_, K, V> {}

/// Iterator of [`SharedMap::diff`].
#[must_use = "iterators are lazy"]
#[derive(Debug, Clone)]
pub struct SharedDiff<'a, K, V> {
    old: SharedIter<'a, K, V>,
    new: SharedIter<'a, K, V>,
}

impl<K, V> SharedDiff<'_, K, V> {
    /// What both share from here on is the same.
    fn skip_shared(&mut self) {
        while let (0, 0, Some(old), Some(new)) =
            (self.old.at, self.new.at, self.old.chunks.first(), self.new.chunks.first())
            && Arc::ptr_eq(old, new)
        {
            self.old.skip_chunk();
            self.new.skip_chunk();
        }
    }
}

impl<'a, K: Ord, V: PartialEq> Iterator for SharedDiff<'a, K, V> {
    type Item = Change<'a, K, V>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            self.skip_shared();
            if let Some(change) = step(&mut self.old, &mut self.new)? {
                return Some(change);
            }
        }
    }
}

impl<K: Ord, V: PartialEq> FusedIterator for SharedDiff<'_, K, V> {}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::keyed_diff;

    /// What is done to a map: a key gets a value, or goes.
    fn deeds() -> impl Strategy<Value = Vec<(u16, Option<u8>)>> {
        vec((0_u16..400, proptest::option::of(0_u8..3)), 0..600)
    }

    fn both(deeds: &[(u16, Option<u8>)], shared: &mut SharedMap<u16, u8>, plain: &mut BTreeMap<u16, u8>) {
        for (key, value) in deeds {
            let (a, b) = match value {
                Some(value) => (shared.insert(*key, *value), plain.insert(*key, *value)),
                None => (shared.remove(key), plain.remove(key)),
            };
            assert_eq!(a, b);
        }
    }

    fn sound(map: &SharedMap<u16, u8>) {
        assert!(map.chunks.iter().all(|chunk| (1..=MOST).contains(&chunk.len())));
        assert_eq!(map.chunks.iter().map(|chunk| chunk.len()).sum::<usize>(), map.len());
    }

    proptest! {
        #[test]
        fn a_shared_map_is_a_map_and_so_is_its_copy(first in deeds(), then in deeds()) {
            let (mut shared, mut plain) = (SharedMap::new(), BTreeMap::new());
            both(&first, &mut shared, &mut plain);
            let (kept, was) = (shared.clone(), plain.clone());
            both(&then, &mut shared, &mut plain);
            for (shared, plain) in [(&shared, &plain), (&kept, &was)] {
                sound(shared);
                prop_assert!(shared.iter().eq(plain));
                prop_assert!((0..400).all(|key| shared.get(&key) == plain.get(&key)));
            }
            prop_assert!(kept.diff(&shared).eq(keyed_diff(&was, &plain)));
            prop_assert!(shared.diff(&kept).eq(keyed_diff(&plain, &was)));
            prop_assert_eq!(kept == shared, was == plain);
            let again: SharedMap<u16, u8> = plain.clone().into_iter().collect();
            prop_assert_eq!(&again, &shared, "however it was made");
        }

        #[test]
        fn a_collected_map_has_the_last_of_each_key_in_any_order(entries in vec((0_u16..200, any::<u8>()), 0..300)) {
            let shared: SharedMap<u16, u8> = entries.iter().copied().collect();
            sound(&shared);
            prop_assert!(shared.iter().eq(&entries.into_iter().collect::<BTreeMap<_, _>>()));
        }
    }

    #[test]
    fn changed_values_are_a_copys_own() {
        let before: SharedMap<u16, u8> = (0..200).map(|key| (key, 0)).collect();
        let mut after = before.clone();
        *after.get_mut(&7).unwrap() = 1;
        assert_eq!(before.diff(&after).collect::<Vec<_>>(), [Change::Replace(&7, &0, &1)]);
        after.values_mut().for_each(|value| *value = 2);
        assert_eq!((before.diff(&after).count(), before[&7], after[&7]), (200, 0, 2));
    }

    #[test]
    fn copies_compare_no_more_than_what_they_do_not_share() {
        /// Counts how often it is compared.
        #[derive(Clone)]
        struct Told(Arc<std::sync::atomic::AtomicUsize>);
        impl PartialEq for Told {
            fn eq(&self, _: &Self) -> bool {
                self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                true
            }
        }
        let told = Told(Arc::default());
        let before: SharedMap<u32, Told> = (0..100_000).map(|key| (key, told.clone())).collect();
        let mut after = before.clone();
        after.insert(200_000, told.clone());
        after.remove(&50_000);
        assert_eq!(before.diff(&after).count(), 2);
        assert!(told.0.load(std::sync::atomic::Ordering::Relaxed) <= 2 * MOST);
    }
}
