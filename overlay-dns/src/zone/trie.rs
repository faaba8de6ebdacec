//! A persistent hash trie: a map whose copies share what is alike.

mod draft;

use std::fmt;
use std::sync::Arc;

pub(super) use draft::Draft;

use draft::Run;

/// A map from byte strings to values. A clone costs one reference count; a change after it copies one bucket and the
/// branches that lead to it, and shares the rest.
///
/// Look-ups cost what memory costs: a branch says where the bucket is and, by a byte of each key's hash, which of its entries it can
/// be, and branches are small enough to stay in a near cache. So a map of any size costs about one look into far memory, where key
/// and value lie side by side. Values should be small and cheap to clone.
///
/// The hash is not keyed, since whoever may put names into a zone is trusted to a degree: names that were made to collide
/// share one bucket, which is searched by bisection.
#[derive(Clone)]
pub(crate) struct Trie<V, K = Key> {
    root: Node<V, K>,
    len: usize,
}

#[derive(Clone)]
enum Node<V, K> {
    Branch(Arc<[Self; FAN]>),
    Bucket(Bucket<V, K>),
}

/// Entries whose hashes begin alike, in the order of their hashes, of equal hashes in that of their keys.
#[derive(Clone)]
struct Bucket<V, K> {
    /// The last byte of each one's hash; the rest is zero.
    tags: [u8; MOST],
    entries: Arc<[Entry<V, K>]>,
}

/// A key and its value.
#[derive(Clone)]
struct Entry<V, K> {
    key: K,
    /// `None` only where it was moved out.
    value: Option<V>,
}

/// What a trie's keys are kept as.
pub(super) trait Kept: Clone + Default + for<'k> From<&'k [u8]> {
    fn as_bytes(&self) -> &[u8];
}

/// A short key lies in the entry itself. To clone it is to copy it: that is what most of a change is.
#[derive(Clone)]
pub(super) enum Key {
    Short { len: u8, bytes: [u8; SHORT] },
    Long(Arc<[u8]>),
}

const SHORT: usize = 38;

/// A key of so many bytes as all others of its trie.
#[derive(Clone)]
pub(super) struct Fixed<const N: usize>([u8; N]);

/// Bits of the hash that choose among a branch's nodes.
const BITS: u32 = 3;
const FAN: usize = 1 << BITS;
/// Entries of a bucket, unless all bits of their hashes but the tag are the same.
const MOST: usize = 32;
/// With as few below it, a branch becomes a bucket again.
const FEW: usize = MOST / 2;
/// Bits of the hash that are not the tag's.
const ROAD: u32 = u64::BITS - u8::BITS;

impl<V: Clone, K: Kept> Trie<V, K> {
    /// How many keys there are.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The value of a key.
    #[inline]
    pub(crate) fn get(&self, key: &[u8]) -> Option<&V> {
        let hash = hash(key);
        let (mut node, mut road) = (&self.root, hash);
        loop {
            match node {
                Node::Branch(nodes) => node = nodes.get(place(road))?,
                Node::Bucket(bucket) => return bucket.find(hash, key),
            }
            road <<= BITS;
        }
    }

    /// The trie of what was said: as if it were put one by one, but each entry and node is made once, in its place. `make` is given
    /// a key, who said it first, and who said it after that.
    pub(crate) fn of<G: Copy>(mut draft: Draft<G>, make: impl Fn(&[u8], G, &[G]) -> V) -> Self {
        draft.sort();
        let runs = draft.runs();
        Self { root: Node::of(&runs, &|run| draft.entry(run, &make), 0), len: runs.len() }
    }

    /// All values, in no order that means something.
    pub(crate) fn values(&self) -> impl Iterator<Item = &V> {
        self.root.in_order().into_iter().filter_map(|entry| entry.value.as_ref())
    }

    /// All keys, in no order that means something.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &[u8]> {
        self.root.in_order().into_iter().map(|entry| entry.key.as_bytes())
    }

    /// Sets, changes or removes a key's value: `change` is given what is there, if anything, and says what shall be.
    pub(crate) fn alter(&mut self, key: &[u8], change: impl FnOnce(Option<&V>) -> Option<V>) {
        let old = self.get(key);
        let had = old.is_some();
        match change(old) {
            Some(value) => {
                self.root.put(hash(key), 0, Entry::new(key, value));
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

impl<V, K> Default for Trie<V, K> {
    fn default() -> Self {
        Self { root: Node::Bucket(Bucket::default()), len: 0 }
    }
}

/// What both share is not looked at: of two tries that one change tells apart, it is the nodes on one path.
impl<V: PartialEq, K: Kept> PartialEq for Trie<V, K> {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && self.root == other.root
    }
}

/// Of two nodes at one place. What little is in a bucket here may be in a branch there: it depends on what was once around it.
impl<V: PartialEq, K: Kept> PartialEq for Node<V, K> {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Branch(ours), Self::Branch(theirs)) => Arc::ptr_eq(ours, theirs) || ours == theirs,
            (Self::Bucket(ours), Self::Bucket(theirs)) => {
                Arc::ptr_eq(&ours.entries, &theirs.entries) || ours.entries == theirs.entries
            }
            _ => self.in_order() == other.in_order(),
        }
    }
}

impl<V: PartialEq, K: Kept> PartialEq for Entry<V, K> {
    fn eq(&self, other: &Self) -> bool {
        self.key.as_bytes() == other.key.as_bytes() && self.value == other.value
    }
}

impl<V, K> fmt::Debug for Trie<V, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trie").field("len", &self.len).finish_non_exhaustive()
    }
}

impl<V: Clone, K: Kept> Node<V, K> {
    /// The node of these, whose hashes are alike in the first `depth` bits.
    fn of<G>(runs: &[Run<'_, G>], make: &impl Fn(&Run<'_, G>) -> Entry<V, K>, depth: u32) -> Self {
        if runs.len() <= MOST || depth >= ROAD {
            return Self::Bucket(Bucket::of(runs, make));
        }
        let number = |run: &Run<'_, G>| place(run.hash() << depth);
        let mut nodes = [const { None }; FAN];
        for alike in runs.chunk_by(|one, next| number(one) == number(next)) {
            let number = alike.first().map_or(0, number);
            nodes[number] = Some(Self::of(alike, make, depth + BITS));
        }
        Self::Branch(Arc::new(nodes.map(|node| node.unwrap_or_else(|| Self::Bucket(Bucket::default())))))
    }

    fn put(&mut self, hash: u64, depth: u32, entry: Entry<V, K>) {
        if let Self::Bucket(bucket) = self {
            if bucket.entries.len() < MOST || depth >= ROAD || bucket.find(hash, entry.key.as_bytes()).is_some() {
                return bucket.put(hash, entry);
            }
            *self = Self::Branch(bucket.split(depth));
        }
        if let Self::Branch(nodes) = self
            && let Some(node) = Arc::make_mut(nodes).get_mut(place(hash << depth))
        {
            node.put(hash, depth + BITS, entry);
        }
    }

    /// Removes a key that is there.
    fn remove(&mut self, hash: u64, depth: u32, key: &[u8]) {
        match self {
            Self::Bucket(bucket) => bucket.remove(hash, key),
            Self::Branch(nodes) => {
                if let Some(node) = Arc::make_mut(nodes).get_mut(place(hash << depth)) {
                    node.remove(hash, depth + BITS, key);
                }
                if let Some(bucket) = merged(nodes) {
                    *self = Self::Bucket(bucket);
                }
            }
        }
    }
}

impl<V, K> Node<V, K> {
    /// In the order of hashes, of equal hashes in that of keys.
    fn collect<'t>(&'t self, found: &mut Vec<&'t Entry<V, K>>) {
        match self {
            Self::Branch(nodes) => nodes.iter().for_each(|node| node.collect(found)),
            Self::Bucket(bucket) => found.extend(bucket.entries.iter()),
        }
    }

    fn in_order(&self) -> Vec<&Entry<V, K>> {
        let mut found = Vec::new();
        self.collect(&mut found);
        found
    }
}

/// One bucket of what is in these, if that is little.
fn merged<V: Clone, K: Kept>(nodes: &[Node<V, K>; FAN]) -> Option<Bucket<V, K>> {
    let entries = |node: &Node<V, K>| match node {
        Node::Bucket(bucket) => Some(Arc::clone(&bucket.entries)),
        Node::Branch(_) => None,
    };
    let all: Vec<_> = nodes.iter().map_while(entries).collect();
    let few = all.len() == FAN && all.iter().map(|entries| entries.len()).sum::<usize>() <= FEW;
    few.then(|| Bucket::from(all.iter().flat_map(|entries| entries.iter().cloned()).collect::<Vec<_>>()))
}

impl<V, K> Default for Bucket<V, K> {
    fn default() -> Self {
        Self { tags: [0; MOST], entries: Arc::default() }
    }
}

impl<V, K: Kept> Bucket<V, K> {
    #[inline]
    fn find(&self, hash: u64, key: &[u8]) -> Option<&V> {
        if self.entries.len() > MOST {
            return self.entries.get(self.search(hash, key).ok()?)?.value.as_ref();
        }
        let tag = tag(hash);
        let (words, _) = self.tags.as_chunks::<8>();
        for (number, word) in words.iter().enumerate() {
            let mut alike = zero_bytes(u64::from_le_bytes(*word) ^ (u64::from(tag) * ONES));
            while alike != 0 {
                let at = number * 8 + alike.trailing_zeros() as usize / 8;
                if let Some(entry) = self.entries.get(at).filter(|entry| entry.key.as_bytes() == key) {
                    return entry.value.as_ref();
                }
                alike &= alike - 1;
            }
        }
        None
    }

    /// Where a key is, or belongs.
    fn search(&self, hash: u64, key: &[u8]) -> Result<usize, usize> {
        self.entries.binary_search_by(|entry| {
            let other = entry.key.as_bytes();
            (self::hash(other), other).cmp(&(hash, key))
        })
    }
}

impl<V, K: Kept> From<Vec<Entry<V, K>>> for Bucket<V, K> {
    /// Of entries in order.
    fn from(entries: Vec<Entry<V, K>>) -> Self {
        let mut tags = [0; MOST];
        for (place, entry) in tags.iter_mut().zip(&entries) {
            *place = tag(hash(entry.key.as_bytes()));
        }
        Self { tags, entries: entries.into() }
    }
}

impl<V: Clone, K: Kept> Bucket<V, K> {
    fn of<G>(runs: &[Run<'_, G>], make: &impl Fn(&Run<'_, G>) -> Entry<V, K>) -> Self {
        let mut tags = [0; MOST];
        for (place, run) in tags.iter_mut().zip(runs) {
            *place = tag(run.hash());
        }
        Self { tags, entries: runs.iter().map(make).collect() }
    }

    fn put(&mut self, hash: u64, entry: Entry<V, K>) {
        match self.search(hash, entry.key.as_bytes()) {
            Ok(at) => {
                if let Some(old) = Arc::make_mut(&mut self.entries).get_mut(at) {
                    *old = entry;
                }
            }
            Err(at) => {
                let mut entries = self.take();
                entries.insert(at, entry);
                self.entries = entries.into();
                if at < MOST {
                    self.tags.copy_within(at..MOST - 1, at + 1);
                    self.tags[at] = tag(hash);
                }
            }
        }
    }

    fn remove(&mut self, hash: u64, key: &[u8]) {
        let Ok(at) = self.search(hash, key) else { return };
        let mut entries = self.take();
        entries.remove(at);
        *self = Self::from(entries);
    }

    /// The entries, copied only if somebody else has them: a zone that is built at once counts no references.
    fn take(&mut self) -> Vec<Entry<V, K>> {
        match Arc::get_mut(&mut self.entries) {
            Some(own) => own.iter_mut().map(Entry::take).collect(),
            None => self.entries.to_vec(),
        }
    }

    /// The buckets of a branch `depth` bits down the road.
    fn split(&mut self, depth: u32) -> Arc<[Node<V, K>; FAN]> {
        let mut parts = [const { Vec::new() }; FAN];
        for entry in self.take() {
            parts[place(hash(entry.key.as_bytes()) << depth)].push(entry);
        }
        Arc::new(parts.map(|entries| Node::Bucket(Self::from(entries))))
    }
}

impl<V, K: Default> Default for Entry<V, K> {
    fn default() -> Self {
        Self { key: K::default(), value: None }
    }
}

impl<V, K: Kept> Entry<V, K> {
    fn new(key: &[u8], value: V) -> Self {
        Self { key: K::from(key), value: Some(value) }
    }

    fn take(&mut self) -> Self {
        Self { key: std::mem::take(&mut self.key), value: self.value.take() }
    }
}

impl Default for Key {
    fn default() -> Self {
        Self::Short { len: 0, bytes: [0; SHORT] }
    }
}

impl Kept for Key {
    #[inline]
    fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Short { len, bytes } => &bytes[..usize::from(*len)],
            Self::Long(bytes) => bytes,
        }
    }
}

impl From<&[u8]> for Key {
    fn from(key: &[u8]) -> Self {
        let mut bytes = [0; SHORT];
        match bytes.get_mut(..key.len()) {
            Some(place) => place.copy_from_slice(key),
            None => return Self::Long(key.into()),
        }
        Self::Short { len: key.len() as u8, bytes }
    }
}

impl<const N: usize> Kept for Fixed<N> {
    #[inline]
    fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl<const N: usize> Default for Fixed<N> {
    fn default() -> Self {
        Self([0; N])
    }
}

impl<const N: usize> From<&[u8]> for Fixed<N> {
    /// All keys of its trie have this length.
    fn from(key: &[u8]) -> Self {
        key.try_into().map_or_else(|_| Self::default(), Self)
    }
}

/// Which of a branch's nodes the first bits say.
const fn place(road: u64) -> usize {
    (road >> (u64::BITS - BITS)) as usize
}

const fn tag(hash: u64) -> u8 {
    hash as u8
}

/// A one in each byte.
const ONES: u64 = u64::MAX / 0xff;

/// The highest bit of each byte that is zero, and of some above the first such, which are looked at in vain.
const fn zero_bytes(word: u64) -> u64 {
    word.wrapping_sub(ONES) & !word & (ONES << 7)
}

/// Folds 8 bytes at a time into 64 bits by multiplication: good spread at a nanosecond a word, no defence against
/// names that were made to collide.
#[inline]
pub(crate) fn hash(key: &[u8]) -> u64 {
    let (words, rest) = key.as_chunks::<8>();
    let mut hash = seed(key.len());
    for word in words {
        hash = step(hash, *word);
    }
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    fold(fold(hash ^ u64::from_le_bytes(last), 0xe703_7ed1_a0b4_28db), 0x8ebc_6af0_9c88_c6e3)
}

const fn seed(length: usize) -> u64 {
    length as u64 ^ 0x9e37_79b9_7f4a_7c15
}

const fn step(hash: u64, word: [u8; 8]) -> u64 {
    fold(hash ^ u64::from_le_bytes(word), 0xa076_1d64_78bd_642f)
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
            let entries = self.root.in_order().into_iter();
            entries.filter_map(|entry| Some((entry.key.as_bytes(), entry.value.as_ref()?)))
        }
    }

    /// The trie that is made of a map at once.
    fn whole(map: &BTreeMap<Vec<u8>, u32>) -> Trie<u32> {
        let mut draft = Draft::default();
        map.iter().for_each(|(key, value)| draft.say(key, *value));
        Trie::of(draft, |key, value, others| {
            assert_eq!((value, others.len()), (map[key], 0));
            value
        })
    }

    fn put(trie: &mut Trie<u32>, key: &[u8], value: u32) {
        trie.alter(key, |_| Some(value));
    }

    fn all(trie: &Trie<u32>) -> BTreeMap<Vec<u8>, u32> {
        trie.iter().map(|(key, value)| (key.to_vec(), *value)).collect()
    }

    /// Keys that have one hash, all of them, in all their bits.
    fn colliding(number: u64) -> Vec<u8> {
        let first = number.to_le_bytes();
        let second = step(seed(16), first) ^ 0x0123_4567_89ab_cdef;
        [first, second.to_le_bytes()].concat()
    }

    proptest! {
        #[test]
        fn it_is_the_map_that_the_same_changes_make_and_copies_stay_as_they_were(
            changes in proptest::collection::vec((0_u16..300, proptest::option::of(any::<u32>())), 0..600),
            collide in any::<bool>(),
        ) {
            let (mut trie, mut map) = (Trie::default(), BTreeMap::new());
            let mut copies = Vec::new();
            for (number, (key, value)) in changes.into_iter().enumerate() {
                let key = if collide && key < 100 { colliding(key.into()) } else { key.to_be_bytes().to_vec() };
                trie.alter(&key, |old| {
                    assert_eq!(old, map.get(&key[..]));
                    value
                });
                match value {
                    Some(value) => drop(map.insert(key.clone(), value)),
                    None => drop(map.remove(&key[..])),
                }
                prop_assert_eq!(trie.get(&key), map.get(&key[..]));
                prop_assert_eq!(trie.len(), map.len());
                if number % 50 == 0 {
                    copies.push((trie.clone(), map.clone()));
                }
            }
            prop_assert_eq!(&all(&trie), &map);
            prop_assert!(whole(&map) == trie);
            for (copy, before) in copies {
                prop_assert_eq!(copy == trie, before == map);
                prop_assert_eq!(whole(&before) == trie, before == map);
                prop_assert_eq!(all(&copy), before);
            }
        }
    }

    #[test]
    fn keys_that_collide_in_every_bit_are_told_apart() {
        assert_eq!(hash(&colliding(1)), hash(&colliding(2)));
        let mut trie = Trie::default();
        (0..200_u32).for_each(|n| put(&mut trie, &colliding(n.into()), n));
        put(&mut trie, b"another", 200);
        assert!((0..200_u32).all(|n| trie.get(&colliding(n.into())) == Some(&n)));
        assert_eq!((trie.get(&colliding(200)), trie.get(b"another")), (None, Some(&200)));
        assert!(whole(&all(&trie)) == trie);
        (0..200_u32).for_each(|n| trie.alter(&colliding(n.into()), |_| None));
        assert_eq!(all(&trie), BTreeMap::from([(b"another".to_vec(), 200)]));
        assert!(matches!(trie.root, Node::Bucket(_)), "what was many branches deep is one bucket again");
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
        let (Node::Branch(before), Node::Branch(after)) = (&before.root, &trie.root) else {
            panic!("a thousand entries are more than a bucket has");
        };
        let is_shared = |pair: (&Node<u32, Key>, &Node<u32, Key>)| match pair {
            (Node::Branch(a), Node::Branch(b)) => Arc::ptr_eq(a, b),
            (Node::Bucket(a), Node::Bucket(b)) => Arc::ptr_eq(&a.entries, &b.entries),
            _ => false,
        };
        assert_eq!(before.iter().zip(after.iter()).filter(|pair| is_shared(*pair)).count(), FAN - 1);
    }
}
