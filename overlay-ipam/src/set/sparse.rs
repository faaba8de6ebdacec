//! Up to 2¹²⁸ numbers: pages of 4,096 where something is taken, and a set of the pages that are full.

use std::collections::BTreeMap;

use super::numbers::Numbers;

/// Pages by their number; which of them are full is a set of the same kind, 4,096 times smaller.
#[derive(Debug, Clone)]
pub(crate) struct Sparse {
    pages: BTreeMap<u128, Page>,
    full: Option<Box<Numbers>>,
    last: u128,
}

impl Sparse {
    pub(crate) const fn new(last: u128) -> Self {
        Self { pages: BTreeMap::new(), full: None, last }
    }

    pub(crate) fn contains(&self, number: u128) -> bool {
        self.pages.get(&(number >> BITS)).is_some_and(|page| page.contains(number as u16 & MASK))
    }

    /// Whether it was not in yet.
    pub(crate) fn insert(&mut self, number: u128) -> bool {
        let at = number >> BITS;
        let page = self.pages.entry(at).or_insert(Page::Few(Vec::new()));
        if !page.insert(number as u16 & MASK) {
            return false;
        }
        if page.len() == SIZE || (at == self.last >> BITS && page.len() == usize::from(self.last as u16 & MASK) + 1) {
            let last = self.last >> BITS;
            self.full.get_or_insert_with(|| Box::new(Numbers::new(last))).insert(at);
        }
        true
    }

    /// Whether it was in.
    pub(crate) fn remove(&mut self, number: u128) -> bool {
        let at = number >> BITS;
        let Some(page) = self.pages.get_mut(&at) else { return false };
        if !page.remove(number as u16 & MASK) {
            return false;
        }
        if page.len() == 0 {
            self.pages.remove(&at);
        }
        if let Some(full) = &mut self.full {
            full.remove(at);
        }
        true
    }

    /// The first number from `from` on that is not in.
    pub(crate) fn next_free(&self, from: u128) -> Option<u128> {
        let (mut at, mut offset) = (from >> BITS, from as u16 & MASK);
        loop {
            if let Some(full) = &self.full {
                let open = full.next_free(at)?;
                if open != at {
                    (at, offset) = (open, 0);
                }
            }
            let Some(page) = self.pages.get(&at) else { return self.known(at, offset) };
            if let Some(free) = page.next_free(offset) {
                return self.known(at, free);
            }
            if at == self.last >> BITS {
                return None;
            }
            (at, offset) = (at + 1, 0);
        }
    }

    /// The first number from `from` on that is in.
    pub(crate) fn next_used(&self, from: u128) -> Option<u128> {
        let (at, offset) = (from >> BITS, from as u16 & MASK);
        self.pages.range(at..).find_map(|(page, used)| {
            let offset = if *page == at { offset } else { 0 };
            used.next_used(offset).map(|found| page << BITS | u128::from(found))
        })
    }

    pub(crate) fn bytes(&self) -> usize {
        let pages: usize = self.pages.values().map(|page| page.bytes() + NODE).sum();
        size_of::<Self>() + pages + self.full.as_ref().map_or(0, |full| full.bytes())
    }

    fn known(&self, at: u128, offset: u16) -> Option<u128> {
        let number = at << BITS | u128::from(offset);
        (number <= self.last).then_some(number)
    }
}

/// Numbers of a page.
const BITS: u32 = 12;
const SIZE: usize = 1 << BITS;
const MASK: u16 = SIZE as u16 - 1;
/// Up to so many numbers of a page are listed rather than mapped.
const FEW: usize = 32;
/// About what a map needs for an entry besides what the page has elsewhere.
const NODE: usize = 64;

/// 4,096 numbers.
#[derive(Debug, Clone)]
enum Page {
    /// Those that are in, sorted.
    Few(Vec<u16>),
    Many(Box<Bits>),
}

#[derive(Debug, Clone)]
struct Bits {
    words: [u64; 64],
    full: u64, // of the words
    len: u16,
}

impl Page {
    fn len(&self) -> usize {
        match self {
            Self::Few(few) => few.len(),
            Self::Many(bits) => bits.len.into(),
        }
    }

    fn contains(&self, offset: u16) -> bool {
        match self {
            Self::Few(few) => few.binary_search(&offset).is_ok(),
            Self::Many(bits) => bits.words[usize::from(offset >> 6)] & (1 << (offset & 63)) != 0,
        }
    }

    fn insert(&mut self, offset: u16) -> bool {
        if let Self::Few(few) = self {
            let Err(at) = few.binary_search(&offset) else { return false };
            if few.len() < FEW {
                few.insert(at, offset);
                return true;
            }
            *self = Self::Many(Box::new(Bits::of(few)));
        }
        match self {
            Self::Few(_) => false,
            Self::Many(bits) => bits.insert(offset),
        }
    }

    fn remove(&mut self, offset: u16) -> bool {
        match self {
            Self::Few(few) => few.binary_search(&offset).map(|at| few.remove(at)).is_ok(),
            Self::Many(bits) => {
                let removed = bits.remove(offset);
                if usize::from(bits.len) < FEW / 2 {
                    *self = Self::Few(bits.listed());
                }
                removed
            }
        }
    }

    fn next_free(&self, from: u16) -> Option<u16> {
        match self {
            Self::Few(few) => {
                let skip = few.partition_point(|used| *used < from);
                let run = few[skip..].iter().zip(from..).take_while(|(used, at)| **used == *at).count();
                Some(from + run as u16).filter(|free| usize::from(*free) < SIZE)
            }
            Self::Many(bits) => bits.next_free(from),
        }
    }

    fn next_used(&self, from: u16) -> Option<u16> {
        match self {
            Self::Few(few) => few.get(few.partition_point(|used| *used < from)).copied(),
            Self::Many(bits) => (from..SIZE as u16).find(|offset| self.contains(*offset) && bits.len > 0),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Few(few) => few.capacity() * 2,
            Self::Many(_) => size_of::<Bits>(),
        }
    }
}

impl Bits {
    fn of(few: &[u16]) -> Self {
        let mut bits = Self { words: [0; 64], full: 0, len: 0 };
        few.iter().for_each(|offset| {
            bits.insert(*offset);
        });
        bits
    }

    fn insert(&mut self, offset: u16) -> bool {
        let (word, bit) = (usize::from(offset >> 6), 1 << (offset & 63));
        if self.words[word] & bit != 0 {
            return false;
        }
        self.words[word] |= bit;
        self.full |= u64::from(self.words[word] == u64::MAX) << word;
        self.len += 1;
        true
    }

    fn remove(&mut self, offset: u16) -> bool {
        let (word, bit) = (usize::from(offset >> 6), 1 << (offset & 63));
        if self.words[word] & bit == 0 {
            return false;
        }
        self.words[word] &= !bit;
        self.full &= !(1 << word);
        self.len -= 1;
        true
    }

    fn next_free(&self, from: u16) -> Option<u16> {
        let word = usize::from(from >> 6);
        let free = !self.words[word] & (u64::MAX << (from & 63));
        if free != 0 {
            return Some(from & !63 | free.trailing_zeros() as u16);
        }
        let above = u64::MAX.checked_shl(word as u32 + 1)? & !self.full;
        (above != 0).then(|| {
            let word = above.trailing_zeros() as usize;
            (word << 6) as u16 | (!self.words[word]).trailing_zeros() as u16
        })
    }

    fn listed(&self) -> Vec<u16> {
        let of_word = |(at, word): (usize, &u64)| {
            let word = *word;
            (0..64).filter(move |bit| word & (1 << bit) != 0).map(move |bit| (at << 6) as u16 | bit)
        };
        self.words.iter().enumerate().flat_map(of_word).collect()
    }
}
