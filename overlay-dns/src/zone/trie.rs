//! A persistent hash trie: a map whose copies share what is alike.

use std::fmt;
use std::sync::Arc;

/// A map from byte strings to values. A clone costs one reference count; a change after it copies the nodes on one
/// path (some hundred pointers) and shares the rest. Look-up touches about log₆₄ n nodes and one leaf.
///
/// The hash is not keyed, since whoever may put names into a zone is trusted to a degree: names that collide in all
/// 64 bits share a leaf that is searched one by one.
#[derive(Clone)]
pub(crate) struct Trie<V> {
    root: Branch<V>,
    len: usize,
}

/// The slots that are taken, in the order of their number; bit `n` of `taken` says whether slot `n` is.
struct Branch<V> {
    taken: u64,
    slots: Arc<[Slot<V>]>,
}

enum Slot<V> {
    Branch(Branch<V>),
    Leaf { hash: u64, leaf: Arc<Leaf<V>> },
}

/// A key and its value, and those whose keys have the same hash.
struct Leaf<V> {
    key: Key,
    value: V,
    next: Option<Arc<Self>>,
}

/// A short key lies in the leaf itself: one look into memory less.
type Key = smallvec::SmallVec<[u8; 32]>;

const BITS: u32 = 6; // of the hash on each level: 64 slots

impl<V: Clone> Trie<V> {
    /// How many keys there are.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The value of a key.
    #[inline]
    pub(crate) fn get(&self, key: &[u8]) -> Option<&V> {
        let hash = hash(key);
        let (mut branch, mut bits) = (&self.root, hash);
        loop {
            match branch.slot(bits)? {
                Slot::Branch(below) => branch = below,
                Slot::Leaf { hash: found, leaf } if *found == hash => return leaf.find(key),
                Slot::Leaf { .. } => return None,
            }
            bits >>= BITS;
        }
    }

    /// The trie of these entries, which are in the order of [`sorted`], each key once: as if they were put, but each node is made once.
    pub(crate) fn of(entries: Vec<(u64, Entry<V>)>) -> Self {
        let len = entries.len();
        let mut entries: Vec<_> = entries.into_iter().map(Some).collect();
        Self { root: Branch::of(&mut entries, 0), len }
    }

    /// Sets, changes or removes a key's value: `change` is given what is there, if anything, and says what shall be.
    pub(crate) fn alter(&mut self, key: &[u8], change: impl FnOnce(Option<&V>) -> Option<V>) {
        let old = self.get(key);
        let had = old.is_some();
        match change(old) {
            Some(value) => {
                self.root.put(hash(key), 0, Entry { key: Key::from_slice(key), value });
                self.len += usize::from(!had);
            }
            None if had => {
                self.root.remove(hash(key), 0, key);
                self.len -= 1;
            }
            None => {}
        }
    }
}

impl<V> Default for Trie<V> {
    fn default() -> Self {
        Self { root: Branch::empty(), len: 0 }
    }
}

/// What both share is not looked at: of two tries that one change tells apart, it is the nodes on one path. Equal maps have
/// equal shapes.
impl<V: Clone + PartialEq> PartialEq for Trie<V> {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && self.root == other.root
    }
}

impl<V: PartialEq> PartialEq for Branch<V> {
    fn eq(&self, other: &Self) -> bool {
        self.taken == other.taken && (Arc::ptr_eq(&self.slots, &other.slots) || self.slots == other.slots)
    }
}

impl<V: PartialEq> PartialEq for Slot<V> {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Branch(ours), Self::Branch(theirs)) => ours == theirs,
            (Self::Leaf { leaf: ours, .. }, Self::Leaf { leaf: theirs, .. }) => {
                Arc::ptr_eq(ours, theirs) || ours.has_all_of(theirs) && theirs.has_all_of(ours)
            }
            _ => false,
        }
    }
}

impl<V: Clone + fmt::Debug> fmt::Debug for Trie<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trie").field("len", &self.len).finish_non_exhaustive()
    }
}

/// A key and its value.
pub(crate) struct Entry<V> {
    pub(crate) key: Key,
    pub(crate) value: V,
}

/// Entries with their hashes, in the order in which a trie has them: of equal hashes, in that of their keys, and of equal
/// keys as they were.
pub(crate) fn sorted<K: AsRef<[u8]>, V>(entries: impl IntoIterator<Item = (K, V)>) -> Vec<(u64, Entry<V>)> {
    let entries = entries
        .into_iter()
        .map(|(key, value)| (hash(key.as_ref()), Entry { key: Key::from_slice(key.as_ref()), value }));
    let mut entries: Vec<_> = entries.map(Some).collect();
    let order = |(number, entry): (usize, &Option<(u64, Entry<V>)>)| {
        entry.as_ref().map(|(hash, _)| (digits(*hash), number as u32))
    };
    let mut places: Vec<(u64, u32)> = entries.iter().enumerate().filter_map(order).collect();
    places.sort_unstable();
    let mut sorted: Vec<_> =
        places.iter().filter_map(|(_, number)| entries.get_mut(*number as usize)?.take()).collect();
    for alike in sorted.chunk_by_mut(|(one, _), (next, _)| one == next) {
        alike.sort_by(|(_, one), (_, next)| one.key.cmp(&next.key));
    }
    sorted
}

/// The digits of a hash as a trie reads them, the first first.
fn digits(hash: u64) -> u64 {
    (0..u64::BITS).step_by(BITS as usize).fold(0, |digits, shift| {
        let width = BITS.min(u64::BITS - shift);
        digits << width | (hash >> shift) & ((1 << width) - 1)
    })
}

impl<V> Branch<V> {
    fn empty() -> Self {
        Self { taken: 0, slots: Arc::new([]) }
    }

    #[inline]
    fn slot(&self, bits: u64) -> Option<&Slot<V>> {
        let bit = bit(bits);
        if self.taken & bit == 0 {
            return None;
        }
        self.slots.get((self.taken & (bit - 1)).count_ones() as usize)
    }
}

impl<V: Clone> Branch<V> {
    /// The branch of these entries, whose hashes are alike below `shift`.
    fn of(entries: &mut [Option<(u64, Entry<V>)>], shift: u32) -> Self {
        let digit = |entry: &Option<(u64, Entry<V>)>| entry.as_ref().map(|(hash, _)| bit(hash >> shift));
        let (mut taken, mut slots) = (0, Vec::new());
        for alike in entries.chunk_by_mut(|one, next| digit(one) == digit(next)) {
            taken |= alike.first().and_then(digit).unwrap_or_default();
            slots.extend(Slot::of(alike, shift + BITS));
        }
        Self { taken, slots: slots.into() }
    }

    fn put(&mut self, hash: u64, shift: u32, entry: Entry<V>) {
        let bit = bit(hash >> shift);
        let at = (self.taken & (bit - 1)).count_ones() as usize;
        if self.taken & bit == 0 {
            let slot = Slot::Leaf { hash, leaf: Arc::new(Leaf { key: entry.key, value: entry.value, next: None }) };
            let (before, after) = self.slots.split_at(at);
            self.slots = before.iter().cloned().chain([slot]).chain(after.iter().cloned()).collect();
            self.taken |= bit;
            return;
        }
        let Some(slot) = Arc::make_mut(&mut self.slots).get_mut(at) else { return };
        match slot {
            Slot::Branch(branch) => branch.put(hash, shift + BITS, entry),
            Slot::Leaf { hash: found, leaf } if *found == hash => *leaf = leaf.with(entry),
            Slot::Leaf { hash: found, leaf } => {
                let mut branch = Self::empty();
                branch.adopt(*found, shift + BITS, Arc::clone(leaf));
                branch.put(hash, shift + BITS, entry);
                *slot = Slot::Branch(branch);
            }
        }
    }

    /// Takes in a leaf where nothing is yet.
    fn adopt(&mut self, hash: u64, shift: u32, leaf: Arc<Leaf<V>>) {
        self.taken = bit(hash >> shift);
        self.slots = Arc::new([Slot::Leaf { hash, leaf }]);
    }

    /// Removes a key that is there. A branch that is left with one leaf is replaced by it, so that equal maps have
    /// equal shapes and what was once large is small again.
    fn remove(&mut self, hash: u64, shift: u32, key: &[u8]) {
        let bit = bit(hash >> shift);
        let at = (self.taken & (bit - 1)).count_ones() as usize;
        let Some(slot) = Arc::make_mut(&mut self.slots).get_mut(at) else { return };
        match slot {
            Slot::Branch(branch) => {
                branch.remove(hash, shift + BITS, key);
                if let [only @ Slot::Leaf { .. }] = &branch.slots[..] {
                    *slot = only.clone();
                }
            }
            Slot::Leaf { leaf, .. } => match leaf.without(key) {
                Some(rest) => *leaf = rest,
                None => {
                    self.taken &= !bit;
                    let others = self.slots.iter().enumerate().filter(|(place, _)| *place != at);
                    self.slots = others.map(|(_, slot)| slot.clone()).collect();
                }
            },
        }
    }
}

impl<V: Clone> Slot<V> {
    fn of(entries: &mut [Option<(u64, Entry<V>)>], shift: u32) -> Option<Self> {
        let hash = entries.first()?.as_ref()?.0;
        if entries.iter().flatten().any(|(other, _)| *other != hash) {
            return Some(Self::Branch(Branch::of(entries, shift)));
        }
        let entries = entries.iter_mut().filter_map(Option::take);
        let leaf = entries.fold(None, |next, (_, Entry { key, value })| Some(Arc::new(Leaf { key, value, next })));
        leaf.map(|leaf| Self::Leaf { hash, leaf })
    }
}

impl<V> Leaf<V> {
    #[inline]
    fn find(&self, key: &[u8]) -> Option<&V> {
        self.chain().find(|leaf| leaf.key[..] == *key).map(|leaf| &leaf.value)
    }

    fn chain(&self) -> impl Iterator<Item = &Self> {
        std::iter::successors(Some(self), |leaf| leaf.next.as_deref())
    }

    /// Keys of one hash are in the order in which they came.
    fn has_all_of(&self, other: &Self) -> bool
    where
        V: PartialEq,
    {
        other.chain().all(|leaf| self.find(&leaf.key) == Some(&leaf.value))
    }
}

impl<V: Clone> Leaf<V> {
    /// These leaves with an entry added or replaced; it comes first.
    fn with(&self, entry: Entry<V>) -> Arc<Self> {
        let next = self.without(&entry.key);
        Arc::new(Self { key: entry.key, value: entry.value, next })
    }

    /// These leaves but for one key.
    fn without(&self, key: &[u8]) -> Option<Arc<Self>> {
        let mut rest = None;
        for leaf in self.chain().filter(|leaf| leaf.key[..] != *key) {
            rest = Some(Arc::new(Self { key: leaf.key.clone(), value: leaf.value.clone(), next: rest }));
        }
        rest
    }
}

impl<V> Clone for Branch<V> {
    fn clone(&self) -> Self {
        Self { taken: self.taken, slots: Arc::clone(&self.slots) }
    }
}

impl<V> Clone for Slot<V> {
    fn clone(&self) -> Self {
        match self {
            Self::Branch(branch) => Self::Branch(branch.clone()),
            Self::Leaf { hash, leaf } => Self::Leaf { hash: *hash, leaf: Arc::clone(leaf) },
        }
    }
}

const fn bit(bits: u64) -> u64 {
    1 << (bits & ((1 << BITS) - 1))
}

/// Folds 8 bytes at a time into 64 bits by multiplication: good spread at a nanosecond a word, no defence against
/// names that were made to collide.
#[inline]
pub(crate) fn hash(key: &[u8]) -> u64 {
    let (words, rest) = key.as_chunks::<8>();
    let mut hash = key.len() as u64 ^ 0x9e37_79b9_7f4a_7c15;
    for word in words {
        hash = fold(hash ^ u64::from_le_bytes(*word), 0xa076_1d64_78bd_642f);
    }
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    fold(fold(hash ^ u64::from_le_bytes(last), 0xe703_7ed1_a0b4_28db), 0x8ebc_6af0_9c88_c6e3)
}

const fn fold(a: u64, b: u64) -> u64 {
    let product = a as u128 * b as u128;
    product as u64 ^ (product >> 64) as u64
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    impl<V> Trie<V> {
        fn iter(&self) -> impl Iterator<Item = (&[u8], &V)> {
            let mut found = Vec::with_capacity(self.len);
            self.root.collect(&mut found);
            found.into_iter()
        }
    }

    impl<V> Branch<V> {
        fn collect<'t>(&'t self, found: &mut Vec<(&'t [u8], &'t V)>) {
            for slot in self.slots.iter() {
                match slot {
                    Slot::Branch(branch) => branch.collect(found),
                    Slot::Leaf { leaf, .. } => found.extend(leaf.chain().map(|leaf| (&leaf.key[..], &leaf.value))),
                }
            }
        }
    }

    fn put(trie: &mut Trie<u32>, key: &[u8], value: u32) {
        trie.alter(key, |_| Some(value));
    }

    fn all(trie: &Trie<u32>) -> BTreeMap<Vec<u8>, u32> {
        trie.iter().map(|(key, value)| (key.to_vec(), *value)).collect()
    }

    proptest! {
        #[test]
        fn it_is_the_map_that_the_same_changes_make_and_copies_stay_as_they_were(
            changes in proptest::collection::vec((0_u16..300, proptest::option::of(any::<u32>())), 0..600),
        ) {
            let (mut trie, mut map) = (Trie::default(), BTreeMap::new());
            let mut copies = Vec::new();
            for (number, (key, value)) in changes.into_iter().enumerate() {
                let key = key.to_be_bytes();
                trie.alter(&key, |old| {
                    assert_eq!(old, map.get(&key[..]));
                    value
                });
                match value {
                    Some(value) => drop(map.insert(key.to_vec(), value)),
                    None => drop(map.remove(&key[..])),
                }
                prop_assert_eq!(trie.get(&key), map.get(&key[..]));
                prop_assert_eq!(trie.len(), map.len());
                if number % 50 == 0 {
                    copies.push((trie.clone(), map.clone()));
                }
            }
            prop_assert_eq!(&all(&trie), &map);
            let mut anew = Trie::default();
            map.iter().for_each(|(key, value)| put(&mut anew, key, *value));
            prop_assert!(anew == trie);
            prop_assert!(Trie::of(sorted(map.clone())) == trie);
            for (copy, before) in copies {
                prop_assert_eq!(copy == trie, before == map);
                prop_assert_eq!(all(&copy), before);
            }
        }
    }

    #[test]
    fn keys_that_collide_in_every_bit_are_told_apart() {
        let mut trie = Trie::<u32>::default();
        for (key, value) in [(b"a", 1), (b"b", 2), (b"c", 3)] {
            trie.root.put(7, 0, Entry { key: Key::from_slice(key), value });
        }
        trie.root.put(7 | 1 << 40, 0, Entry { key: Key::from_slice(b"d"), value: 4 });
        trie.root.put(7, 0, Entry { key: Key::from_slice(b"b"), value: 5 });
        assert_eq!(all(&trie), BTreeMap::from([("a", 1), ("b", 5), ("c", 3), ("d", 4)].map(|(k, v)| (k.into(), v))));
        let mut otherwise = Trie::<u32>::default();
        for (key, value) in [(b"c", 3), (b"b", 5), (b"a", 1)] {
            otherwise.root.put(7, 0, Entry { key: Key::from_slice(key), value });
        }
        assert!(otherwise.root != trie.root);
        otherwise.root.put(7 | 1 << 40, 0, Entry { key: Key::from_slice(b"d"), value: 4 });
        assert!(otherwise.root == trie.root, "their order does not matter");
        let entries = [(7, b"a", 1), (7, b"b", 5), (7, b"c", 3), (7 | 1 << 40, b"d", 4)];
        let entries = entries.map(|(hash, key, value)| (hash, Entry { key: Key::from_slice(key), value }));
        assert!(Trie::of(entries.into()).root == trie.root);
        trie.root.remove(7, 0, b"b");
        trie.root.remove(7 | 1 << 40, 0, b"d");
        assert_eq!(all(&trie), BTreeMap::from([("a", 1), ("c", 3)].map(|(k, v)| (k.into(), v))));
        assert_eq!(trie.root.slots.len(), 1, "what was two branches deep is one leaf again");
    }

    #[test]
    fn hashes_of_similar_names_are_spread() {
        let mut counts = [0_u32; 4096];
        for number in 0..100_000_u32 {
            counts[(hash(format!("\x08svc{number:05}").as_bytes()) & 4095) as usize] += 1;
        }
        let most = counts.iter().max().copied().unwrap_or(0);
        assert!(most < 60, "24 are the mean, the fullest of 4096 has {most}");
    }

    #[test]
    fn an_entry_is_changed_without_copying_the_others() {
        let mut trie = Trie::default();
        (0..1000_u32).for_each(|n| put(&mut trie, &n.to_be_bytes(), n));
        let before = trie.clone();
        put(&mut trie, &5_u32.to_be_bytes(), 6);
        assert_eq!((before.get(&5_u32.to_be_bytes()), trie.get(&5_u32.to_be_bytes())), (Some(&5), Some(&6)));
        let shared = before.root.slots.iter().zip(trie.root.slots.iter()).filter(|pair| match pair {
            (Slot::Branch(a), Slot::Branch(b)) => Arc::ptr_eq(&a.slots, &b.slots),
            (Slot::Leaf { leaf: a, .. }, Slot::Leaf { leaf: b, .. }) => Arc::ptr_eq(a, b),
            _ => false,
        });
        assert_eq!(shared.count(), before.root.slots.len() - 1);
    }
}
