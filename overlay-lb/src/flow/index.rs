//! From hashes to places: an open-addressed table of words.

/// Words of a hash's upper half and a place; 0 is none. Linear probing; what is removed leaves no trace, so that it never slows.
pub(super) struct Index {
    words: Box<[u64]>,
    mask: usize,
}

impl Index {
    /// Room for so many, at most half full.
    pub(super) fn new(most: usize) -> Self {
        let size = (most.max(8) * 2).next_power_of_two();
        Self { words: vec![0; size].into_boxed_slice(), mask: size - 1 }
    }

    pub(super) const fn bytes(&self) -> usize {
        self.words.len() * size_of::<u64>()
    }

    /// The first place of this hash that `is` one looks for.
    #[inline]
    pub(super) fn find(&self, hash: u64, is: impl Fn(u32) -> bool) -> Option<u32> {
        let mut at = hash as usize & self.mask;
        loop {
            let word = self.words[at];
            if word == 0 {
                return None;
            }
            if (word ^ hash) >> 32 == 0 && is(word as u32 - 1) {
                return Some(word as u32 - 1);
            }
            at = (at + 1) & self.mask;
        }
    }

    /// The first word of this hash: asked ahead, so that it is in the cache when it is needed.
    #[inline]
    pub(super) fn peek(&self, hash: u64) -> u32 {
        let mut at = hash as usize & self.mask;
        loop {
            let word = self.words[at];
            if word == 0 || (word ^ hash) >> 32 == 0 {
                return (word as u32).wrapping_sub(1);
            }
            at = (at + 1) & self.mask;
        }
    }

    pub(super) fn insert(&mut self, hash: u64, place: u32) {
        let mut at = hash as usize & self.mask;
        while self.words[at] != 0 {
            at = (at + 1) & self.mask;
        }
        self.words[at] = hash & !u64::from(u32::MAX) | u64::from(place + 1);
    }

    /// Takes a place out, and moves those behind it up whose way to themselves it was on. `hash_of` tells where a place belongs.
    pub(super) fn remove(&mut self, hash: u64, place: u32, hash_of: impl Fn(u32) -> u64) {
        let mut hole = hash as usize & self.mask;
        while self.words[hole] as u32 != place + 1 {
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
            let home = hash_of(word as u32 - 1) as usize & self.mask;
            if at.wrapping_sub(home) & self.mask >= at.wrapping_sub(hole) & self.mask {
                self.words[hole] = word;
                hole = at;
            }
        }
        self.words[hole] = 0;
    }
}
