//! From hashes to places: an open-addressed table of words.

/// Words of 32 bits: a place, in as many bits as there can be places, and a part of its hash in the others; 0 is none. Linear probing;
/// what is removed leaves no trace, so that it never slows.
pub(super) struct Index {
    words: Box<[u32]>,
    mask: usize,
    /// The bits of a word that are a place.
    place: u32,
}

impl Index {
    /// Room for so many, 2³¹ at most, at most half full.
    pub(super) fn new(most: usize) -> Self {
        let size = (most.max(8) * 2).next_power_of_two();
        let place = ((most + 1).next_power_of_two() - 1) as u32;
        Self { words: vec![0; size].into_boxed_slice(), mask: size - 1, place }
    }

    pub(super) const fn bytes(&self) -> usize {
        self.words.len() * size_of::<u32>()
    }

    /// The first place of this hash that `is` one looks for.
    #[inline]
    pub(super) fn find(&self, hash: u64, is: impl Fn(u32) -> bool) -> Option<u32> {
        let (mut at, tag) = (hash as usize & self.mask, self.tag(hash));
        loop {
            let word = self.words[at];
            if word == 0 {
                return None;
            }
            if (word ^ tag) & !self.place == 0 && is((word & self.place) - 1) {
                return Some((word & self.place) - 1);
            }
            at = (at + 1) & self.mask;
        }
    }

    /// The first place that may be this hash's: asked ahead of many, so that all wait for memory at once.
    #[inline]
    pub(super) fn peek(&self, hash: u64) -> u32 {
        let (mut at, tag) = (hash as usize & self.mask, self.tag(hash));
        loop {
            let word = self.words[at];
            if word == 0 || (word ^ tag) & !self.place == 0 {
                return (word & self.place).wrapping_sub(1);
            }
            at = (at + 1) & self.mask;
        }
    }

    pub(super) fn insert(&mut self, hash: u64, place: u32) {
        let mut at = hash as usize & self.mask;
        while self.words[at] != 0 {
            at = (at + 1) & self.mask;
        }
        self.words[at] = self.tag(hash) & !self.place | (place + 1);
    }

    /// Takes a place out, and moves those behind it up whose way to themselves it was on. `hash_of` tells where a place belongs.
    pub(super) fn remove(&mut self, hash: u64, place: u32, hash_of: impl Fn(u32) -> u64) {
        let mut hole = hash as usize & self.mask;
        while self.words[hole] & self.place != place + 1 {
            if self.words[hole] == 0 {
                return;
            }
            hole = (hole + 1) & self.mask;
        }
        let mut at = hole;
        loop {
            at = (at + 1) & self.mask;
            let word = self.words[at];
            if word == 0 {
                break;
            }
            let home = hash_of((word & self.place) - 1) as usize & self.mask;
            if at.wrapping_sub(home) & self.mask >= at.wrapping_sub(hole) & self.mask {
                self.words[hole] = word;
                hole = at;
            }
        }
        self.words[hole] = 0;
    }

    const fn tag(&self, hash: u64) -> u32 {
        (hash >> 32) as u32
    }
}
