//! What a trie is made of at once.

use super::{Entry, Kept, hash};

/// Keys, and who said each: the same several times perhaps. Nothing of it is large, so that sorting moves little; what is said of a
/// key is made where it stays.
#[derive(Debug)]
pub(in crate::zone) struct Draft<G> {
    /// All keys, one after the other.
    keys: Vec<u8>,
    said: Vec<Said<G>>,
}

/// That somebody said a key.
#[derive(Debug, Clone, Copy)]
pub(super) struct Said<G> {
    hash: u64,
    /// Where the key is among all.
    start: usize,
    len: usize,
    by: G,
}

/// All who said one key.
#[derive(Debug)]
pub(super) struct Run<'d, G> {
    first: &'d Said<G>,
    others: &'d [Said<G>],
}

impl<G> Run<'_, G> {
    pub(super) fn hash(&self) -> u64 {
        self.first.hash
    }
}

impl<G> Default for Draft<G> {
    fn default() -> Self {
        Self { keys: Vec::new(), said: Vec::new() }
    }
}

impl<G: Copy> Draft<G> {
    /// With room for so many keys, of so many bytes together.
    pub(in crate::zone) fn with_capacity(keys: usize, bytes: usize) -> Self {
        Self { keys: Vec::with_capacity(bytes), said: Vec::with_capacity(keys) }
    }

    pub(in crate::zone) fn say(&mut self, key: &[u8], by: G) {
        let start = self.keys.len();
        self.keys.extend_from_slice(key);
        self.said.push(Said { hash: hash(key), start, len: key.len(), by });
    }

    /// In the order that a trie has: of hashes, of equal hashes in that of keys, of equal keys as they were said. By the first bits of
    /// the hashes into as many heaps as there are keys, then each heap, which has hardly more than one: O(n), but for keys that were made to
    /// collide.
    pub(super) fn sort(&mut self) {
        let Some(first) = self.said.first().copied() else { return };
        let bits = self.said.len().ilog2().max(1);
        let heap = |said: &Said<G>| (said.hash >> (u64::BITS - bits)) as usize;
        let mut ends = vec![0; 1 << bits];
        self.said.iter().for_each(|said| ends[heap(said)] += 1);
        let mut end = 0;
        for heap in &mut ends {
            end += *heap;
            *heap = end;
        }
        let mut sorted = vec![first; self.said.len()];
        for said in self.said.iter().rev() {
            let end = &mut ends[heap(said)];
            *end -= 1;
            sorted[*end] = *said;
        }
        for heap in sorted.chunk_by_mut(|one, next| heap(one) == heap(next)) {
            heap.sort_by(|one, next| one.hash.cmp(&next.hash).then_with(|| self.key(one).cmp(self.key(next))));
        }
        self.said = sorted;
    }

    /// What was sorted, key by key.
    pub(super) fn runs(&self) -> Vec<Run<'_, G>> {
        let alike = |one: &Said<G>, next: &Said<G>| one.hash == next.hash && self.key(one) == self.key(next);
        let mut runs = Vec::with_capacity(self.said.len());
        let all = self.said.chunk_by(alike).filter_map(<[_]>::split_first);
        runs.extend(all.map(|(first, others)| Run { first, others }));
        runs
    }

    /// What is made of those who said one key.
    pub(super) fn entry<V, K: Kept>(&self, run: &Run<'_, G>, make: impl Fn(&[u8], G, &[G]) -> V) -> Entry<V, K> {
        let key = self.key(run.first);
        let others: Vec<G> = run.others.iter().map(|said| said.by).collect();
        Entry::new(key, make(key, run.first.by, &others))
    }

    fn key(&self, said: &Said<G>) -> &[u8] {
        self.keys.get(said.start..said.start + said.len).unwrap_or_default()
    }
}
