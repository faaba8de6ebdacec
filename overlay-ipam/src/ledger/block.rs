//! Up to 2,048 numbers in one record: which are used, which rest.

use std::time::Duration;

use bytes::Bytes;
use overlay_core::UnixTime;

use super::wire::{Flaw, Reader};

/// What is known of the numbers of a block: at most 1 KB as a record.
///
/// Format 1: the generation (8 bytes), the cursor (2), which sets follow (a bit each: used 1, resting 2 and 4), then of those the
/// words of 64 numbers each (8), after each resting set's its first and last date (8 and 8).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Block {
    /// Every claim has another, so a lease is never taken for a later one of the same number.
    pub(crate) generation: u64,
    size: u16,
    /// Where the next claim is looked for.
    cursor: u16,
    used: Words,
    resting: [Resting; 2],
}

/// The largest block, as a power of two.
pub(crate) const LARGEST: u8 = 11;
const WORDS: usize = 1 << (LARGEST - 6);
/// A bit for each number, as a record has them: writing one, which every claim does, copies them.
type Words = [[u8; 8]; WORDS];
const FORMAT: u8 = 1;

/// Numbers that were given back, the first and the last of them when.
///
/// Two sets take turns: one collects for as long as a number rests; then the other, which by then is over, collects. So
/// a number rests once as long as it must, at most twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Resting {
    words: Words,
    first: UnixTime,
    last: UnixTime,
}

const NONE: Resting = Resting { words: [[0; 8]; WORDS], first: UnixTime::EPOCH, last: UnixTime::EPOCH };

impl Resting {
    fn is_empty(&self) -> bool {
        self.words == NONE.words
    }
}

/// How long numbers rest, and by how much clocks may differ.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rest {
    pub(crate) time: Duration,
    pub(crate) skew: Duration,
}

impl Rest {
    fn whole(self) -> Duration {
        self.time.saturating_add(self.skew)
    }
}

/// What a number of a block is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Condition {
    Free,
    Used,
    /// Until then at least, by the clocks of those that gave it back.
    Resting(UnixTime),
}

impl Block {
    pub(crate) const fn new(size: u16) -> Self {
        Self { generation: 0, size, cursor: 0, used: NONE.words, resting: [NONE; 2] }
    }

    pub(crate) const fn cursor(&self) -> u16 {
        self.cursor
    }

    /// The first free number from `from` on within the window, then from the window's beginning.
    pub(crate) fn free_around(&self, (first, last): (u16, u16), from: u16) -> Option<u16> {
        let ahead = (from > first && from <= last).then(|| self.free(from, last)).flatten();
        ahead.or_else(|| self.free(first, last))
    }

    /// The first free number from `from` to `last`.
    pub(crate) fn free(&self, from: u16, last: u16) -> Option<u16> {
        let last = last.min(self.size - 1);
        let mut mask = u64::MAX << (from & 63);
        for at in usize::from(from >> 6)..=usize::from(last >> 6) {
            let free = !self.busy(at) & mask;
            if free != 0 {
                let found = (at << 6) as u16 | free.trailing_zeros() as u16;
                return (found <= last).then_some(found);
            }
            mask = u64::MAX;
        }
        None
    }

    pub(crate) fn condition(&self, at: u16, rest: Rest) -> Condition {
        if has(&self.used, at) {
            return Condition::Used;
        }
        let resting = self.resting.iter().find(|resting| has(&resting.words, at));
        resting.map_or(Condition::Free, |resting| Condition::Resting(resting.last + rest.whole()))
    }

    /// Takes a free number; gives the claim's generation.
    pub(crate) fn claim(&mut self, at: u16, moves_cursor: bool) -> u64 {
        change(&mut self.used, at, |word, bit| word | bit);
        self.generation += 1;
        if moves_cursor {
            self.cursor = (at + 1) % self.size;
        }
        self.generation
    }

    /// Gives a number back, to rest from `now` on.
    pub(crate) fn release(&mut self, at: u16, rest: Rest, now: UnixTime) {
        change(&mut self.used, at, |word, bit| word & !bit);
        if rest.time.is_zero() {
            return;
        }
        let [old, open] = &mut self.resting;
        if old.is_empty() && !open.is_empty() && now >= open.first + rest.time {
            *old = std::mem::replace(open, NONE);
        }
        if open.is_empty() {
            (open.first, open.last) = (now, now);
        }
        open.last = open.last.max(now);
        change(&mut open.words, at, |word, bit| word | bit);
    }

    /// Ends the rests that are over. Whether there were any.
    pub(crate) fn wake(&mut self, rest: Rest, now: UnixTime) -> bool {
        let mut woken = false;
        for resting in &mut self.resting {
            if !resting.is_empty() && now >= resting.last + rest.whole() {
                *resting = NONE;
                woken = true;
            }
        }
        woken
    }

    /// As it is by `now`: without the rests that are over.
    pub(crate) fn by(&self, rest: Rest, now: UnixTime) -> Self {
        let mut block = self.clone();
        block.wake(rest, now);
        block
    }

    /// Ends all rests.
    pub(crate) fn wake_all(&mut self) -> bool {
        let woken = self.wakes(Rest { time: Duration::ZERO, skew: Duration::ZERO }).is_some();
        self.resting = [NONE; 2];
        woken
    }

    /// When the next rest is over; `None` if nothing rests.
    pub(crate) fn wakes(&self, rest: Rest) -> Option<UnixTime> {
        self.resting.iter().filter(|resting| !resting.is_empty()).map(|resting| resting.last + rest.whole()).min()
    }

    /// How many from `first` to `last` are used, and how many rest.
    pub(crate) fn count(&self, (first, last): (u16, u16)) -> (u32, u32) {
        let (mut used, mut resting) = (0, 0);
        for at in usize::from(first >> 6)..=usize::from(last.min(self.size - 1) >> 6) {
            let from = if at == usize::from(first >> 6) { u64::MAX << (first & 63) } else { u64::MAX };
            let to = if at == usize::from(last >> 6) { u64::MAX >> (63 - (last & 63)) } else { u64::MAX };
            let in_use = word(&self.used, at);
            used += (in_use & from & to).count_ones();
            resting += (self.busy(at) & !in_use & from & to).count_ones();
        }
        (used, resting)
    }

    /// All that are used.
    pub(crate) fn used(&self) -> impl Iterator<Item = u16> {
        (0..self.size).filter(|at| has(&self.used, *at))
    }

    pub(crate) fn parse(record: &[u8], size: u16) -> Result<Self, Flaw> {
        let mut reader = Reader::new(record, FORMAT)?;
        let mut block = Self::new(size);
        block.generation = reader.u64()?;
        block.cursor = reader.u16()?;
        let sets = reader.u8()?;
        if block.generation == u64::MAX {
            return Err(Flaw::Field { field: "generation" }); // there would be no next
        }
        if block.cursor >= size {
            return Err(Flaw::Field { field: "cursor" });
        }
        if sets & !7 != 0 {
            return Err(Flaw::Field { field: "sets" });
        }
        if sets & 1 != 0 {
            block.used = block.words(&mut reader)?;
        }
        for at in 0..2 {
            if sets & (2 << at) != 0 {
                let words = block.words(&mut reader)?;
                block.resting[at] = Resting { words, first: reader.time()?, last: reader.time()? };
                if block.resting[at].is_empty() {
                    return Err(Flaw::Field { field: "sets" }); // nothing rests: not written so
                }
            }
        }
        reader.end()?;
        let [old, open] = &block.resting;
        let both = |at: usize| and(word(&block.used, at), word(&old.words, at), word(&open.words, at));
        match (0..WORDS).any(|at| both(at) != 0) {
            true => Err(Flaw::Field { field: "sets" }),
            false => Ok(block),
        }
    }

    pub(crate) fn encode(&self) -> Bytes {
        let words = usize::from(self.size.div_ceil(64));
        let (used, rests) = (self.used != NONE.words, [0, 1].map(|at: usize| !self.resting[at].is_empty()));
        let sets = [used, rests[0], rests[1]].map(usize::from);
        let mut record =
            Vec::with_capacity(HEAD + 8 * words * (sets[0] + sets[1] + sets[2]) + 16 * (sets[1] + sets[2]));
        record.push(FORMAT);
        record.extend(self.generation.to_be_bytes());
        record.extend(self.cursor.to_be_bytes());
        record.push((sets[0] | sets[1] << 1 | sets[2] << 2) as u8);
        if used {
            record.extend_from_slice(self.used[..words].as_flattened());
        }
        for (resting, _) in self.resting.iter().zip(rests).filter(|(_, rests)| *rests) {
            record.extend_from_slice(resting.words[..words].as_flattened());
            record.extend(resting.first.as_millis().to_be_bytes());
            record.extend(resting.last.as_millis().to_be_bytes());
        }
        record.into()
    }

    /// No number beyond the block's size may be set.
    fn words(&self, reader: &mut Reader<'_>) -> Result<Words, Flaw> {
        let mut words = NONE.words;
        let used = words[..usize::from(self.size.div_ceil(64))].as_flattened_mut();
        used.copy_from_slice(reader.bytes(used.len())?);
        let beyond = match self.size & 63 {
            0 => 0,
            bits => word(&words, (self.size >> 6).into()) >> bits,
        };
        match beyond {
            0 => Ok(words),
            _ => Err(Flaw::Field { field: "sets" }),
        }
    }

    #[inline]
    fn busy(&self, at: usize) -> u64 {
        let [old, open] = &self.resting;
        word(&self.used, at) | word(&old.words, at) | word(&open.words, at)
    }
}

/// Bytes before the sets.
const HEAD: usize = 12;

#[inline]
fn word(words: &Words, at: usize) -> u64 {
    u64::from_be_bytes(words[at])
}

fn has(words: &Words, number: u16) -> bool {
    word(words, (number >> 6).into()) & (1 << (number & 63)) != 0
}

/// Makes of a number's word and its bit in it another word.
fn change(words: &mut Words, number: u16, change: impl Fn(u64, u64) -> u64) {
    let of = &mut words[usize::from(number >> 6)];
    *of = change(u64::from_be_bytes(*of), 1 << (number & 63)).to_be_bytes();
}

/// What is in two of three.
const fn and(a: u64, b: u64, c: u64) -> u64 {
    (a & b) | (a & c) | (b & c)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const REST: Rest = Rest { time: Duration::from_secs(60), skew: Duration::from_secs(5) };

    fn at(second: u64) -> UnixTime {
        UnixTime::from_millis(second * 1000)
    }

    proptest! {
        #[test]
        fn what_is_given_back_rests_at_least_its_time_and_at_most_twice(
            size in prop_oneof![1_u16..130, Just(2048)],
            acts in vec((any::<bool>(), any::<u16>(), 0_u64..40), 1..200),
        ) {
            let mut block = Block::new(size);
            let mut since = std::collections::BTreeMap::new(); // resting: since when
            let mut used = std::collections::BTreeSet::new();
            let mut now = at(1_000);
            let mut woken = 0;
            for (claims, draw, passes) in acts {
                now = now + Duration::from_secs(passes);
                block.wake(REST, now);
                since.retain(|number, given: &mut UnixTime| match block.condition(*number, REST) {
                    Condition::Resting(until) => {
                        assert!(until >= *given + REST.whole() && now < *given + 2 * REST.whole());
                        true
                    }
                    _ => {
                        assert!(now >= *given + REST.whole(), "woken early");
                        woken += 1;
                        false
                    }
                });
                if claims {
                    if let Some(free) = block.free_around((0, size - 1), draw % size) {
                        assert!(!since.contains_key(&free) && used.insert(free));
                        let before = block.generation;
                        assert!(block.claim(free, true) > before);
                    } else {
                        assert_eq!(used.len() + since.len(), usize::from(size));
                    }
                } else if let Some(number) = used.iter().nth(usize::from(draw) % used.len().max(1)).copied() {
                    used.remove(&number);
                    block.release(number, REST, now);
                    since.insert(number, now);
                }
                let record = block.encode();
                prop_assert!(record.len() <= 1024, "{} bytes", record.len());
                prop_assert_eq!(Block::parse(&record, size).unwrap(), block.clone());
                prop_assert_eq!(block.count((0, size - 1)), (used.len() as u32, since.len() as u32));
                prop_assert_eq!(block.used().collect::<Vec<_>>(), used.iter().copied().collect::<Vec<_>>());
            }
        }

        #[test]
        fn no_bytes_make_the_reader_panic_and_what_it_reads_it_writes(
            mut record in vec(any::<u8>(), 0..900), size in 1_u16..=2048, sets in 0_u8..8,
        ) {
            if record.len() > 12 {
                (record[0], record[11]) = (FORMAT, sets);
            }
            if let Ok(block) = Block::parse(&record, size) {
                prop_assert_eq!(Block::parse(&block.encode(), size), Ok(block));
            }
        }
    }

    #[test]
    fn a_clock_that_goes_back_lets_nothing_wake_early_and_dates_never_overflow() {
        let mut block = Block::new(64);
        for (number, now) in [(1, at(500)), (2, at(100)), (3, UnixTime::from_millis(u64::MAX))] {
            block.claim(number, true);
            block.release(number, REST, now);
        }
        assert!(!block.wake(REST, at(100) + REST.whole()), "2 rests with 1, which was given back later");
        block.wake(REST, at(1 << 40));
        assert_eq!(block.condition(1, REST), Condition::Free);
        assert!(matches!(block.condition(3, REST), Condition::Resting(_)), "given back at the end of time");
        assert!(block.wake_all());
        assert_eq!(block.condition(3, REST), Condition::Free);
    }

    #[test]
    fn records_that_contradict_themselves_are_refused() {
        let mut block = Block::new(100);
        block.claim(7, true);
        let good = block.encode();
        assert_eq!(Block::parse(&[], 100), Err(Flaw::Short));
        assert_eq!(Block::parse(&[9], 100), Err(Flaw::Format { found: 9 }));
        assert_eq!(Block::parse(&good[..good.len() - 1], 100), Err(Flaw::Short));
        assert_eq!(Block::parse(&[&good[..], &[0]].concat(), 100), Err(Flaw::Long { extra: 1 }));
        assert_eq!(Block::parse(&good, 8), Err(Flaw::Field { field: "cursor" }));
        let last = [&good[..1], &[0xff; 8], &good[9..]].concat();
        assert_eq!(Block::parse(&last, 100), Err(Flaw::Field { field: "generation" }));
        let mut beyond = good.to_vec();
        beyond[12 + 8] = 0x80; // number 127
        assert_eq!(Block::parse(&beyond, 100), Err(Flaw::Field { field: "sets" }));
    }
}
