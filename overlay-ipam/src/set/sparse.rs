//! Up to 2¹²⁸ numbers: chunks of 2¹⁸ where something is taken, and a set of the chunks that are full.

use std::collections::BTreeMap;

use super::numbers::Numbers;

/// Chunks by their number; which of them are full is a set of the same kind, 2¹⁸ times smaller.
#[derive(Debug, Clone)]
pub(crate) struct Sparse {
    chunks: BTreeMap<u128, Chunk>,
    full: Option<Box<Numbers>>,
    last: u128,
}

impl Sparse {
    pub(crate) const fn new(last: u128) -> Self {
        Self { chunks: BTreeMap::new(), full: None, last }
    }

    pub(crate) fn contains(&self, number: u128) -> bool {
        self.chunks.get(&(number >> CHUNK_BITS)).is_some_and(|chunk| chunk.contains(Place::of(number)))
    }

    /// Whether it was not in yet.
    pub(crate) fn insert(&mut self, number: u128) -> bool {
        let at = number >> CHUNK_BITS;
        let chunk = self.chunks.entry(at).or_insert(Chunk::EMPTY);
        let new = chunk.insert(Place::of(number));
        if new && chunk.full == u64::MAX {
            self.fill(at);
        }
        new
    }

    /// Takes the first number from `from` to `last` that is not in; in one look-up if it is of the chunk of `from`.
    pub(crate) fn take(&mut self, from: u128, last: u128) -> Option<u128> {
        let at = from >> CHUNK_BITS;
        if let Some(chunk) = self.chunks.get_mut(&at)
            && let Some(free) = chunk.next_free(Place::of(from))
        {
            let number = Some(free.number(at)).filter(|number| *number <= last)?;
            chunk.insert(free);
            if chunk.full == u64::MAX {
                self.fill(at);
            }
            return Some(number);
        }
        let number = self.next_free(from).filter(|number| *number <= last)?;
        self.insert(number);
        Some(number)
    }

    fn fill(&mut self, chunk: u128) {
        let last = self.last >> CHUNK_BITS;
        self.full.get_or_insert_with(|| Box::new(Numbers::new(last))).insert(chunk);
    }

    /// Whether it was in.
    pub(crate) fn remove(&mut self, number: u128) -> bool {
        let at = number >> CHUNK_BITS;
        let Some(chunk) = self.chunks.get_mut(&at) else { return false };
        let was_full = chunk.full == u64::MAX;
        if !chunk.remove(Place::of(number)) {
            return false;
        }
        if chunk.present == 0 {
            self.chunks.remove(&at);
        }
        if let Some(full) = self.full.as_mut().filter(|_| was_full) {
            full.remove(at);
        }
        true
    }

    /// The first number from `from` on that is not in.
    pub(crate) fn next_free(&self, from: u128) -> Option<u128> {
        let (mut at, mut place) = (from >> CHUNK_BITS, Place::of(from));
        loop {
            let Some(chunk) = self.chunks.get(&at) else { return self.known(at, place) };
            if let Some(free) = chunk.next_free(place) {
                return self.known(at, free);
            }
            if at == self.last >> CHUNK_BITS {
                return None;
            }
            at += 1;
            if let Some(full) = &self.full {
                at = full.next_free(at)?;
            }
            place = Place::default();
        }
    }

    /// The first number from `from` on that is in.
    pub(crate) fn next_used(&self, from: u128) -> Option<u128> {
        let (at, place) = (from >> CHUNK_BITS, Place::of(from));
        self.chunks.range(at..).find_map(|(chunk, used)| {
            let place = if *chunk == at { place } else { Place::default() };
            used.next_used(place).map(|found| found.number(*chunk))
        })
    }

    pub(crate) fn bytes(&self) -> usize {
        let chunks: usize = self.chunks.values().map(|chunk| chunk.bytes() + NODE).sum();
        size_of::<Self>() + chunks + self.full.as_ref().map_or(0, |full| full.bytes())
    }

    /// The number of a place that is free as far as its chunk knows: the last chunk may end before.
    fn known(&self, at: u128, place: Place) -> Option<u128> {
        let number = place.number(at);
        (number <= self.last).then_some(number)
    }
}

/// About what a map needs for an entry besides what the chunk has elsewhere.
const NODE: usize = 64;
/// Numbers of a chunk, as a power of two: 64 pages.
const CHUNK_BITS: u32 = BITS + 6;

/// Where in a chunk: which page, and which number of it.
#[derive(Debug, Clone, Copy, Default)]
struct Place {
    page: u32,
    offset: u16,
}

impl Place {
    const fn of(number: u128) -> Self {
        Self { page: (number >> BITS) as u32 & 63, offset: number as u16 & MASK }
    }

    fn number(self, chunk: u128) -> u128 {
        chunk << CHUNK_BITS | u128::from(self.page << BITS | u32::from(self.offset))
    }
}

/// 64 pages, of which only those are kept where something is taken.
#[derive(Debug, Clone)]
struct Chunk {
    present: u64,
    full: u64,
    pages: Vec<Page>,
}

impl Chunk {
    const EMPTY: Self = Self { present: 0, full: 0, pages: Vec::new() };

    /// Where a page is kept, or would be.
    fn rank(&self, page: u32) -> usize {
        (self.present & ((1 << page) - 1)).count_ones() as usize
    }

    fn page(&self, page: u32) -> Option<&Page> {
        if self.present & (1 << page) == 0 { None } else { self.pages.get(self.rank(page)) }
    }

    fn contains(&self, place: Place) -> bool {
        self.page(place.page).is_some_and(|page| page.contains(place.offset))
    }

    fn insert(&mut self, place: Place) -> bool {
        let (rank, bit) = (self.rank(place.page), 1 << place.page);
        if self.present & bit == 0 {
            self.pages.insert(rank, Page::Few(Vec::new()));
            self.present |= bit;
        }
        let page = &mut self.pages[rank];
        let new = page.insert(place.offset);
        if page.len() == SIZE {
            self.full |= bit;
        }
        new
    }

    fn remove(&mut self, place: Place) -> bool {
        let (rank, bit) = (self.rank(place.page), 1 << place.page);
        if self.present & bit == 0 || !self.pages[rank].remove(place.offset) {
            return false;
        }
        self.full &= !bit;
        if self.pages[rank].len() == 0 {
            self.pages.remove(rank);
            self.present &= !bit;
        }
        true
    }

    fn next_free(&self, from: Place) -> Option<Place> {
        if self.full & (1 << from.page) == 0 {
            let Some(page) = self.page(from.page) else { return Some(from) };
            if let Some(offset) = page.next_free(from.offset) {
                return Some(Place { offset, ..from });
            }
        }
        let above = !self.full & above(from.page);
        if above == 0 {
            return None;
        }
        let page = above.trailing_zeros();
        let offset = self.page(page).map_or(Some(0), |page| page.next_free(0))?;
        Some(Place { page, offset })
    }

    fn next_used(&self, from: Place) -> Option<Place> {
        let here = self.page(from.page).and_then(|page| page.next_used(from.offset));
        if let Some(offset) = here {
            return Some(Place { offset, ..from });
        }
        let above = self.present & above(from.page);
        if above == 0 {
            return None;
        }
        let page = above.trailing_zeros();
        let offset = self.page(page)?.next_used(0)?;
        Some(Place { page, offset })
    }

    fn bytes(&self) -> usize {
        self.pages.capacity() * size_of::<Page>() + self.pages.iter().map(Page::bytes).sum::<usize>()
    }
}

/// The bits above bit `at`.
const fn above(at: u32) -> u64 {
    (u64::MAX << 1) << at
}

/// Numbers of a page.
const BITS: u32 = 12;
const SIZE: usize = 1 << BITS;
const MASK: u16 = SIZE as u16 - 1;
/// Up to so many numbers of a page are listed rather than mapped.
const FEW: usize = 32;

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
            Self::Many(bits) => bits.next_used(from),
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
        let above = above(word as u32) & !self.full;
        (above != 0).then(|| {
            let word = above.trailing_zeros() as usize;
            (word << 6) as u16 | (!self.words[word]).trailing_zeros() as u16
        })
    }

    fn next_used(&self, from: u16) -> Option<u16> {
        let first = usize::from(from >> 6);
        (first..64).find_map(|at| {
            let used = self.words[at] & if at == first { u64::MAX << (from & 63) } else { u64::MAX };
            (used != 0).then(|| (at << 6) as u16 | used.trailing_zeros() as u16)
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
