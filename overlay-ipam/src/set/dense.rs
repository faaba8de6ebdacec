//! Up to 2²⁴ numbers: a bit each, and 64-ary summaries of which words are full.

/// A bit for every number; above each 64 words a word that says which of them are full.
#[derive(Debug, Clone)]
pub(crate) struct Dense {
    words: Vec<u64>,
    /// Where each level begins in `words`, the lowest first, and the last ends.
    starts: [usize; LEVELS + 1],
    depth: usize,
    last: usize,
}

/// 64⁴ = 2²⁴.
const LEVELS: usize = 4;

impl Dense {
    /// How many numbers fit.
    pub(crate) const CAPACITY: u128 = 1 << 24;

    /// The numbers up to `last`, none taken. What lies beyond in the last words counts as taken.
    pub(crate) fn new(last: usize) -> Self {
        let mut starts = [0; LEVELS + 1];
        let (mut bits, mut total, mut depth) = (last + 1, 0, 0);
        loop {
            starts[depth] = total;
            depth += 1;
            total += bits.div_ceil(64);
            bits = bits.div_ceil(64);
            if bits == 1 || depth == LEVELS {
                break;
            }
        }
        starts[depth] = total;
        let mut dense = Self { words: vec![0; total], starts, depth, last };
        let mut bits = last + 1;
        for start in &starts[..depth] {
            if !bits.is_multiple_of(64) {
                dense.words[start + bits / 64] = u64::MAX << (bits % 64);
            }
            bits = bits.div_ceil(64);
        }
        dense
    }

    #[inline]
    pub(crate) fn contains(&self, number: usize) -> bool {
        number <= self.last && self.words[number >> 6] & (1 << (number & 63)) != 0
    }

    /// Whether it was not in yet.
    #[inline]
    pub(crate) fn insert(&mut self, number: usize) -> bool {
        let free = self.words[number >> 6] & (1 << (number & 63)) == 0;
        if free {
            self.mark(number);
        }
        free
    }

    /// Takes the first number that is not in, from `from` to `last`, and then from `first` on. All three must be
    /// numbers of the set, `from` between the others.
    #[inline]
    pub(crate) fn take_around(&mut self, (first, last): (usize, usize), from: usize) -> Option<usize> {
        let found = match self.next_free(from) {
            Some(found) if found <= last => found,
            _ => self.next_free(first).filter(|found| *found <= last)?,
        };
        self.mark(found);
        Some(found)
    }

    #[inline]
    fn mark(&mut self, number: usize) {
        let word = &mut self.words[number >> 6];
        *word |= 1 << (number & 63);
        if *word == u64::MAX {
            self.fill(number >> 6);
        }
    }

    /// Whether it was in.
    #[inline]
    pub(crate) fn remove(&mut self, number: usize) -> bool {
        if number > self.last {
            return false;
        }
        let word = &mut self.words[number >> 6];
        let bit = 1 << (number & 63);
        if *word & bit == 0 {
            return false;
        }
        *word &= !bit;
        self.unfill(number >> 6);
        true
    }

    /// The first number from `from` on that is not in.
    #[inline]
    pub(crate) fn next_free(&self, from: usize) -> Option<usize> {
        let word = !self.words.get(from >> 6)? & (u64::MAX << (from & 63));
        if from <= self.last && word != 0 {
            return Some((from & !63) | word.trailing_zeros() as usize);
        }
        self.climb(from)
    }

    /// The same, where the word of `from` has none left: up until a word has, and down again.
    fn climb(&self, from: usize) -> Option<usize> {
        let mut at = from;
        for level in 1..self.depth {
            at = (at >> 6) + 1;
            let index = self.starts[level] + (at >> 6);
            if index >= self.starts[level + 1] {
                return None;
            }
            let word = !self.words[index] & (u64::MAX << (at & 63));
            if word != 0 {
                let mut found = (at & !63) | word.trailing_zeros() as usize;
                for below in (0..level).rev() {
                    let word = !self.words[self.starts[below] + found];
                    found = found << 6 | (word.trailing_zeros() as usize & 63);
                }
                return Some(found);
            }
        }
        None
    }

    /// The first number from `from` on that is in.
    pub(crate) fn next_used(&self, from: usize) -> Option<usize> {
        let end = (self.last >> 6) + 1;
        let mut mask = u64::MAX << (from & 63);
        for index in from >> 6..end {
            let word = self.words[index] & mask;
            if word != 0 {
                let found = index << 6 | word.trailing_zeros() as usize;
                return (found <= self.last).then_some(found);
            }
            mask = u64::MAX;
        }
        None
    }

    pub(crate) fn bytes(&self) -> usize {
        self.words.capacity() * 8 + size_of::<Self>()
    }

    fn fill(&mut self, mut index: usize) {
        for level in 1..self.depth {
            let word = &mut self.words[self.starts[level] + (index >> 6)];
            *word |= 1 << (index & 63);
            if *word != u64::MAX {
                return;
            }
            index >>= 6;
        }
    }

    /// What is above a number that is free is not full. Without a question whether it was: where numbers go at random, no
    /// processor guesses the answer, and each wrong guess waits for memory.
    #[inline]
    fn unfill(&mut self, mut index: usize) {
        for level in 1..self.depth {
            self.words[self.starts[level] + (index >> 6)] &= !(1 << (index & 63));
            index >>= 6;
        }
    }
}
