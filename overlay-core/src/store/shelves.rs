//! Entries in the order of their keys, found fast.

use super::memory::Slot;
use crate::{Key, Prefix};

/// What a store holds.
///
/// A key's entry lies on the last shelf that begins at or below it. On a shelf entries lie as they came, and a byte of each
/// key says which of them are worth a comparison. So who looks for a key touches the bytes of one shelf and one entry; what comes
/// or goes moves one other entry at most; and a listing sorts shelf by shelf. Shelves stand in cases, so that a new one makes
/// room among a few hundred, however many there are; of cases there is one for some 20,000 entries.
#[derive(Debug, Default)]
pub(super) struct Shelves {
    /// Where each case begins.
    begins: Vec<Key>,
    cases: Vec<Case>,
    entries: usize,
    /// How often shelves came or went.
    shape: u64,
    /// Where keys were found last, by their hashes: who reads a key compares it next, and then writes it.
    found: Vec<Place>,
}

/// Some shelves that follow each other.
#[derive(Debug)]
struct Case {
    /// Where each shelf begins.
    begins: Vec<Key>,
    shelves: Vec<Shelf>,
}

#[derive(Debug)]
struct Shelf {
    marks: [u8; WIDTH], // of each entry; what follows them means nothing
    entries: Vec<(Key, Slot)>,
}

/// How many entries a shelf has at most.
const WIDTH: usize = 128;
/// How many shelves a case has at most.
const HEIGHT: usize = 256;

/// How many shelves further on a key is looked for first.
const NEAR: usize = 64;

/// How many places are remembered.
const FOUND: usize = 1024;

/// Where a key was found, or where it would be put. What came or went since may have moved it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Place {
    case: usize,
    shelf: u16,
    entry: Option<u16>,
    shape: u64,
}

impl Shelves {
    pub(super) const fn len(&self) -> usize {
        self.entries
    }

    /// What is under `key`.
    pub(super) fn get(&mut self, key: &Key) -> Option<&Slot> {
        let place = self.find(key);
        self.at(place)
    }

    /// What is at a place that was found just now.
    pub(super) fn at(&self, place: Place) -> Option<&Slot> {
        self.entry(place).map(|(_, slot)| slot)
    }

    pub(super) fn find(&mut self, key: &Key) -> Place {
        self.find_after(key, Place::default())
    }

    /// Where `key` is, which probably comes not long after what is at `before`, as of keys that are looked for in their order.
    pub(super) fn find_after(&mut self, key: &Key, before: Place) -> Place {
        let hash = key.hash64();
        let remembered = hash as usize % FOUND;
        let likely = self.found.get(remembered).filter(|place| self.is_at(key, **place));
        if let Some(place) = likely {
            return *place;
        }
        let (case, shelf) = self.shelf_after(key, before).unwrap_or_else(|| self.shelf(|begin| begin <= key));
        let entry = self.cases.get(case).and_then(|case| case.shelves.get(shelf)?.find(key, mark(hash)));
        let place = Place { case, shelf: shelf as u16, entry: entry.map(|at| at as u16), shape: self.shape };
        if entry.is_some() {
            self.found.resize(FOUND, Place::default());
            self.found[remembered] = place;
        }
        place
    }

    /// Where `key` is, which was at `likely`, or nowhere, and was not put or removed since.
    fn find_again(&mut self, key: &Key, likely: Place) -> Place {
        let is_gone = likely.entry.is_none() && likely.shape == self.shape;
        if is_gone || self.is_at(key, likely) { likely } else { self.find(key) }
    }

    fn is_at(&self, key: &Key, place: Place) -> bool {
        self.entry(place).is_some_and(|(other, _)| other == key)
    }

    fn entry(&self, place: Place) -> Option<&(Key, Slot)> {
        let shelf = self.cases.get(place.case)?.shelves.get(usize::from(place.shelf))?;
        shelf.entries.get(usize::from(place.entry?))
    }

    /// Puts `slot` under `key`, which was seen at `likely`.
    pub(super) fn put(&mut self, key: Key, slot: Slot, likely: Option<Place>) {
        let place = match likely {
            Some(likely) => self.find_again(&key, likely),
            None => self.find(&key),
        };
        if self.cases.is_empty() {
            self.begins.push(key.clone());
            self.cases.push(Case { begins: vec![key.clone()], shelves: vec![Shelf::new()] });
            self.shape += 1;
        }
        let (case, at) = (&mut self.cases[place.case], usize::from(place.shelf));
        if place.entry.is_none() && key < case.begins[at] {
            // Only the first of all can begin above it.
            self.begins[place.case] = key.clone();
            case.begins[at] = key.clone();
        }
        let shelf = &mut case.shelves[at];
        match place.entry {
            Some(at) => shelf.entries[usize::from(at)].1 = slot,
            None if shelf.entries.len() < WIDTH => {
                shelf.push(key, slot);
                self.entries += 1;
            }
            None => {
                self.split(place, &key);
                self.put(key, slot, None);
            }
        }
    }

    /// Whether there was anything under `key`, which was seen at `likely`.
    pub(super) fn remove(&mut self, key: &Key, likely: Option<Place>) -> bool {
        let place = match likely {
            Some(likely) => self.find_again(key, likely),
            None => self.find(key),
        };
        let Some(at) = place.entry else { return false };
        let shelf = &mut self.cases[place.case].shelves[usize::from(place.shelf)];
        shelf.remove(at.into());
        self.entries -= 1;
        if shelf.entries.len() < WIDTH / 4 {
            self.join(place);
        }
        true
    }

    /// All entries whose keys begin with `prefix`, in their order.
    pub(super) fn under(&self, prefix: &Prefix) -> Vec<(&Key, &Slot)> {
        let mut found = Vec::new();
        let (first, shelf) = self.shelf(|begin| begin.as_bytes() <= prefix.as_bytes());
        let shelves = self.cases.iter().skip(first).flat_map(|case| case.begins.iter().zip(&case.shelves)).skip(shelf);
        for (begin, shelf) in shelves {
            if begin.as_bytes() > prefix.as_bytes() && !prefix.contains(begin) {
                break;
            }
            let from = found.len();
            let entries = shelf.entries.iter().filter(|(key, _)| prefix.contains(key));
            found.extend(entries.map(|(key, slot)| (key, slot)));
            found[from..].sort_unstable_by_key(|(key, _)| *key);
        }
        found
    }

    /// The last shelf that begins where it is said, or the first.
    fn shelf(&self, begins: impl Fn(&Key) -> bool) -> (usize, usize) {
        let case = self.begins.partition_point(&begins).saturating_sub(1);
        let shelf = self.cases.get(case).map_or(0, |case| case.begins.partition_point(&begins).saturating_sub(1));
        (case, shelf)
    }

    /// The last shelf of the same case that begins at or below `key`, if it is one of the next.
    fn shelf_after(&self, key: &Key, before: Place) -> Option<(usize, usize)> {
        let begins =
            self.cases.get(before.case).filter(|_| before.shape == self.shape)?.begins.get(before.shelf.into()..)?;
        let mut ahead = 1;
        while ahead < NEAR && begins.get(ahead).is_some_and(|begin| begin <= key) {
            ahead *= 2;
        }
        // Up to one that begins above it: after the last of a case comes another case.
        let within = begins.get(ahead / 2..=ahead).filter(|_| ahead < NEAR && begins[0] <= *key)?;
        let last = ahead / 2 + within.partition_point(|begin| begin <= key) - 1;
        Some((before.case, usize::from(before.shelf) + last))
    }

    /// Makes room for `key` on a full shelf: half of it goes to a new one, or, where `key` comes after all of it, nothing, so that
    /// what comes in order fills its shelves.
    fn split(&mut self, place: Place, key: &Key) {
        let case = &mut self.cases[place.case];
        let at = usize::from(place.shelf);
        let (begin, new) = case.shelves[at].split(key);
        case.begins.insert(at + 1, begin);
        case.shelves.insert(at + 1, new);
        if case.shelves.len() > HEIGHT {
            let begins = case.begins.split_off(HEIGHT / 2);
            let shelves = case.shelves.split_off(HEIGHT / 2);
            self.begins.insert(place.case + 1, begins[0].clone());
            self.cases.insert(place.case + 1, Case { begins, shelves });
        }
        self.shape += 1;
    }

    /// Puts a shelf that is nearly empty together with its neighbour, where both fill half a shelf at most.
    fn join(&mut self, place: Place) {
        let (case, at) = (&mut self.cases[place.case], usize::from(place.shelf));
        let len = |at: usize| case.shelves.get(at).map_or(WIDTH, |shelf| shelf.entries.len());
        let fits = |at: usize| len(at) + len(at + 1) <= WIDTH / 2;
        let before = at.checked_sub(1).filter(|at| fits(*at));
        if let Some(at) = before.or_else(|| Some(at).filter(|at| fits(*at))) {
            case.begins.remove(at + 1);
            let gone = case.shelves.remove(at + 1);
            gone.entries.into_iter().for_each(|(key, slot)| case.shelves[at].push(key, slot));
            self.shape += 1;
        } else if case.shelves.len() == 1 && case.shelves[0].entries.is_empty() {
            self.begins.remove(place.case);
            self.cases.remove(place.case);
            self.shape += 1;
        }
    }
}

/// A byte that tells most keys apart, and is none of those that places are remembered by.
const fn mark(hash: u64) -> u8 {
    (hash >> 56) as u8
}

impl Shelf {
    const fn new() -> Self {
        Self { marks: [0; WIDTH], entries: Vec::new() }
    }

    /// Eight marks at a time: of the bytes of a word that are as the key's, the lowest is found by a subtraction. (Some above it may look
    /// so too; the keys tell.)
    fn find(&self, key: &Key, mark: u8) -> Option<usize> {
        const LOW: u64 = u64::from_le_bytes([1; 8]);
        let sought = LOW * u64::from(mark);
        let (words, _) = self.marks.as_chunks::<8>();
        for (at, word) in words[..self.entries.len().div_ceil(8)].iter().enumerate() {
            let apart = u64::from_le_bytes(*word) ^ sought;
            let mut alike = apart.wrapping_sub(LOW) & !apart & (LOW << 7);
            while alike != 0 {
                let found = 8 * at + alike.trailing_zeros() as usize / 8;
                if self.entries.get(found).is_some_and(|(other, _)| other == key) {
                    return Some(found);
                }
                alike &= alike - 1;
            }
        }
        None
    }

    /// There must be room.
    fn push(&mut self, key: Key, slot: Slot) {
        self.marks[self.entries.len()] = mark(key.hash64());
        self.entries.push((key, slot));
    }

    fn remove(&mut self, at: usize) {
        self.marks[at] = self.marks[self.entries.len() - 1];
        self.entries.swap_remove(at);
    }

    /// What goes to a new shelf to make room for `key`, and where that begins.
    fn split(&mut self, key: &Key) -> (Key, Self) {
        let mut new = Self::new();
        if self.entries.iter().all(|(other, _)| other < key) {
            return (key.clone(), new);
        }
        self.entries.select_nth_unstable_by(WIDTH / 2, |(a, _), (b, _)| a.cmp(b));
        let begin = self.entries[WIDTH / 2].0.clone();
        self.entries.drain(WIDTH / 2..).for_each(|(key, slot)| new.push(key, slot));
        for (of, (key, _)) in self.marks.iter_mut().zip(&self.entries) {
            *of = mark(key.hash64());
        }
        (begin, new)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::{Entry, Revision};

    fn slot(number: u64) -> Slot {
        Entry { value: number.to_string().into(), revision: Revision(number) }.into()
    }

    /// Keys of several prefixes: some come in order, some at random, some are longer than what lies in a key itself.
    fn key(number: u16) -> Key {
        let spread = number.wrapping_mul(40_503).to_be_bytes();
        match number % 5 {
            0 => Key::new([&b"long/"[..], &[7; 40], &spread].concat()),
            1 | 2 => Key::new([&b"ordered/"[..], &number.to_be_bytes()].concat()),
            _ => Key::new([&b"spread/"[..], &spread].concat()),
        }
        .unwrap()
    }

    impl Shelves {
        /// No shelf is too full, none is empty but one alone, and every entry is where it is looked for.
        fn check(&mut self) {
            assert!(self.begins.is_sorted() && self.begins.len() == self.cases.len());
            let (mut entries, mut keys) = (0, Vec::new());
            for (begin, case) in self.begins.iter().zip(&self.cases) {
                assert!(begin == &case.begins[0] && case.begins.is_sorted());
                assert!(case.shelves.len() == case.begins.len() && case.shelves.len() <= HEIGHT);
                for (begin, shelf) in case.begins.iter().zip(&case.shelves) {
                    assert!(shelf.entries.len() <= WIDTH && shelf.entries.iter().all(|(key, _)| key >= begin));
                    entries += shelf.entries.len();
                    keys.extend(shelf.entries.iter().map(|(key, _)| key.clone()));
                }
            }
            assert_eq!(entries, self.len());
            assert!(keys.iter().all(|key| self.get(key).is_some()));
            keys.sort_unstable();
            for apart in [1, 7, 100] {
                let mut place = Place::default();
                for key in keys.iter().step_by(apart) {
                    place = self.find_after(key, place);
                    assert!(self.at(place).is_some(), "{key} after one {apart} before it");
                }
            }
        }
    }

    #[derive(Debug, Clone)]
    enum Step {
        Put(u16, u16),
        Remove(u16, u16),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let range = (any::<u16>(), prop_oneof![1..4_u16, 100..3000_u16]);
        let step = (any::<bool>(), range).prop_map(|(put, (from, count))| match put {
            true => Step::Put(from, count),
            false => Step::Remove(from, count),
        });
        vec(step, 1..40)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))] // a case is some thousand keys

        #[test]
        fn shelves_hold_what_a_map_holds(steps in steps()) {
            let (mut shelves, mut map) = (Shelves::default(), BTreeMap::new());
            for (at, step) in (1..).zip(steps) {
                match step {
                    Step::Put(from, count) => (0..count).for_each(|n| {
                        let key = key(from.wrapping_add(n));
                        let seen = (n % 2 == 0).then(|| shelves.find(&key));
                        shelves.put(key.clone(), slot(at), seen);
                        map.insert(key, at);
                    }),
                    Step::Remove(from, count) => (0..count).for_each(|n| {
                        let key = key(from.wrapping_add(n));
                        let seen = (n % 2 == 0).then(|| shelves.find(&key));
                        assert_eq!(shelves.remove(&key, seen), map.remove(&key).is_some());
                    }),
                }
                shelves.check();
            }
            for prefix in ["", "long/", "ordered/", "ordered/\u{1}", "spread/", "spread/\u{7}", "none", "zzz"] {
                let prefix = Prefix::new(prefix).unwrap();
                let found = shelves.under(&prefix).into_iter().map(|(key, slot)| (key.clone(), slot.revision().0));
                let expected = map.iter().filter(|(key, _)| prefix.contains(key)).map(|(key, at)| (key.clone(), *at));
                prop_assert_eq!(found.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
            }
            let keys: Vec<Key> = map.keys().cloned().collect();
            prop_assert!(keys.iter().all(|key| shelves.remove(key, None)));
            shelves.check();
            prop_assert!(shelves.cases.len() <= 1 || shelves.len() == 0);
        }

        #[test]
        fn a_place_seen_before_others_moved_leads_to_the_same_key(gone in vec(any::<u16>(), 0..2000)) {
            let mut shelves = Shelves::default();
            let keys: Vec<Key> = (0..3000).map(key).collect();
            keys.iter().for_each(|key| shelves.put(key.clone(), slot(1), None));
            let seen: Vec<Place> = keys.iter().map(|key| shelves.find(key)).collect();
            let gone: std::collections::BTreeSet<usize> = gone.into_iter().map(|n| usize::from(n) % 3000).collect();
            for at in &gone {
                prop_assert!(shelves.remove(&keys[*at], Some(seen[*at])));
            }
            for at in (0..3000).filter(|at| !gone.contains(at)) {
                shelves.put(keys[at].clone(), slot(2), Some(seen[at]));
            }
            shelves.check();
            prop_assert_eq!(shelves.len(), 3000 - gone.len());
            prop_assert!(shelves.under(&Prefix::ALL).iter().all(|(_, slot)| slot.revision() == Revision(2)));
        }
    }

    #[test]
    fn what_comes_in_order_fills_its_shelves() {
        let mut shelves = Shelves::default();
        for number in 0..100_000_u64 {
            shelves.put(Key::new(number.to_be_bytes()).unwrap(), slot(number), None);
        }
        shelves.check();
        let count: usize = shelves.cases.iter().map(|case| case.shelves.len()).sum();
        assert_eq!(count, 100_000_usize.div_ceil(WIDTH));
    }
}
