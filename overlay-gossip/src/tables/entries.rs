//! One owner's entries, found by key and by number.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use bytes::Bytes;
use overlay_core::Instant;
use smallvec::SmallVec;

use crate::{Key, TableId};

/// The last change of each key. A few of them are a list, without any index: what a node has in the directory is as much as
/// its subscriptions, and every node keeps that of every other.
#[derive(Debug, Clone)]
pub(crate) enum Entries {
    /// By number; no tombstones. A lone one needs no memory of its own.
    Few(SmallVec<[Entry; 1]>),
    Many(Box<Index>),
}

/// A key and its last change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) table: TableId,
    pub(crate) key: Key,
    pub(crate) slot: Slot,
}

/// The last change of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) sequence: u64,
    /// None: a tombstone.
    pub(crate) value: Option<Bytes>,
    seal: Option<Box<Seal>>, // none where both are empty, as mostly
}

/// What goes along with some changes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seal {
    covers: Vec<u64>,
    signature: Bytes,
}

impl Slot {
    pub(crate) fn new(sequence: u64, value: Option<Bytes>, covers: Vec<u64>, signature: &[u8]) -> Self {
        let some = !covers.is_empty() || !signature.is_empty();
        let seal = || Box::new(Seal { covers, signature: Bytes::copy_from_slice(signature) });
        Self { sequence, value, seal: some.then(seal) }
    }

    /// Former numbers of the key that this one stands for, too.
    pub(crate) fn covers(&self) -> &[u64] {
        self.seal.as_ref().map_or(&[], |seal| &seal.covers)
    }

    pub(crate) fn signature(&self) -> Bytes {
        self.seal.as_ref().map(|seal| seal.signature.clone()).unwrap_or_default()
    }
}

/// Many entries.
#[derive(Debug, Clone, Default)]
pub(crate) struct Index {
    tables: BTreeMap<TableId, BTreeMap<Key, Slot>>,
    by_number: BTreeMap<u64, (TableId, Key)>,
    tombstones: BTreeMap<u64, Instant>, // since when
}

/// Up to how many entries are a list.
const FEW: usize = 8;

impl Default for Entries {
    fn default() -> Self {
        Self::Few(SmallVec::new())
    }
}

impl Entries {
    /// Entries and tombstones.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Few(list) => list.len(),
            Self::Many(index) => index.by_number.len(),
        }
    }

    pub(crate) fn tombstones(&self) -> usize {
        match self {
            Self::Few(_) => 0,
            Self::Many(index) => index.tombstones.len(),
        }
    }

    pub(crate) fn get(&self, table: TableId, key: &Key) -> Option<&Slot> {
        match self {
            Self::Few(list) => {
                list.iter().find(|entry| entry.table == table && entry.key == *key).map(|entry| &entry.slot)
            }
            Self::Many(index) => index.tables.get(&table)?.get(key),
        }
    }

    /// Key and change of a number.
    pub(crate) fn at(&self, number: u64) -> Option<(TableId, &Key, &Slot)> {
        match self {
            Self::Few(list) => {
                let entry = list.iter().find(|entry| entry.slot.sequence == number)?;
                Some((entry.table, &entry.key, &entry.slot))
            }
            Self::Many(index) => {
                let (table, key) = index.by_number.get(&number)?;
                let (key, slot) = index.tables.get(table)?.get_key_value(key)?;
                Some((*table, key, slot))
            }
        }
    }

    pub(crate) fn is_buried(&self, number: u64) -> bool {
        match self {
            Self::Few(_) => false,
            Self::Many(index) => index.tombstones.contains_key(&number),
        }
    }

    /// Keys and changes, by ascending number.
    pub(crate) fn range(&self, numbers: RangeInclusive<u64>) -> impl Iterator<Item = (TableId, &Key, &Slot)> {
        let (list, index) = self.forms();
        let within = numbers.clone();
        let few = list.iter().filter(move |entry| within.contains(&entry.slot.sequence));
        let many = index.into_iter().flat_map(move |index| {
            let slot = |(table, key): &'_ (TableId, Key)| index.tables.get(table)?.get_key_value(key);
            index.by_number.range(numbers.clone()).filter_map(move |(_, at)| Some((at.0, slot(at)?)))
        });
        few.map(|entry| (entry.table, &entry.key, &entry.slot))
            .chain(many.map(|(table, (key, slot))| (table, key, slot)))
    }

    /// The keys of one table and their changes, by key.
    pub(crate) fn table(&self, table: TableId) -> impl Iterator<Item = (&Key, &Slot)> {
        let (list, index) = self.forms();
        let mut few: Vec<_> = list.iter().filter(|entry| entry.table == table).collect();
        few.sort_unstable_by(|one, other| one.key.cmp(&other.key));
        let many = index.and_then(|index| index.tables.get(&table)).into_iter().flatten();
        few.into_iter().map(|entry| (&entry.key, &entry.slot)).chain(many)
    }

    /// The numbers of tombstones up to `through`, and since when they are.
    pub(crate) fn buried(&self, through: u64) -> impl Iterator<Item = (u64, Instant)> {
        let (_, index) = self.forms();
        let buried = index.into_iter().flat_map(move |index| index.tombstones.range(..=through));
        buried.map(|(number, since)| (*number, *since))
    }

    /// Adds an entry, or a tombstone, of a key that is not here.
    pub(crate) fn insert(&mut self, entry: Entry, now: Instant) {
        if let Self::Few(list) = self
            && (list.len() == FEW || entry.slot.value.is_none())
        {
            let mut index = Index::default();
            list.drain(..).for_each(|entry| index.insert(entry, now));
            *self = Self::Many(Box::new(index));
        }
        match self {
            Self::Few(list) => {
                let at = list.partition_point(|other| other.slot.sequence < entry.slot.sequence);
                list.reserve_exact(1);
                list.insert(at, entry);
            }
            Self::Many(index) => index.insert(entry, now),
        }
    }

    /// Takes out what is under a number.
    pub(crate) fn remove(&mut self, number: u64) -> Option<Entry> {
        match self {
            Self::Few(list) => {
                let at = list.iter().position(|entry| entry.slot.sequence == number)?;
                Some(list.remove(at))
            }
            Self::Many(index) => {
                let removed = index.remove(number);
                if index.by_number.len() <= FEW / 2 && index.tombstones.is_empty() {
                    let list = std::mem::take(index).into_list();
                    *self = Self::Few(list.into());
                }
                removed
            }
        }
    }

    fn forms(&self) -> (&[Entry], Option<&Index>) {
        match self {
            Self::Few(list) => (list, None),
            Self::Many(index) => (&[], Some(index)),
        }
    }
}

impl Index {
    fn insert(&mut self, entry: Entry, now: Instant) {
        let Entry { table, key, slot } = entry;
        if slot.value.is_none() {
            self.tombstones.insert(slot.sequence, now);
        }
        self.by_number.insert(slot.sequence, (table, key.clone()));
        self.tables.entry(table).or_default().insert(key, slot);
    }

    fn remove(&mut self, number: u64) -> Option<Entry> {
        let (table, key) = self.by_number.remove(&number)?;
        self.tombstones.remove(&number);
        let slots = self.tables.get_mut(&table)?;
        let slot = slots.remove(&key)?;
        if slots.is_empty() {
            self.tables.remove(&table);
        }
        Some(Entry { table, key, slot })
    }

    fn into_list(mut self) -> Vec<Entry> {
        std::iter::from_fn(|| self.remove(*self.by_number.keys().next()?)).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// A list and an index are the same to whoever looks: a model of plain maps tells what is there.
        #[test]
        fn few_and_many_are_alike(steps in proptest::collection::vec((0..40_u8, 0..3_u16, any::<bool>()), 0..80)) {
            let (mut entries, mut model) = (Entries::default(), BTreeMap::<u64, (TableId, Key, bool)>::new());
            for (number, (key, table, buried)) in steps.into_iter().enumerate() {
                let (sequence, table, key) = (number as u64 + 1, TableId(table), Key::new(vec![key]).unwrap());
                let was = model.iter().find(|(_, at)| (at.0, &at.1) == (table, &key)).map(|(number, _)| *number);
                prop_assert_eq!(entries.get(table, &key).map(|slot| slot.sequence), was);
                if let Some(was) = was {
                    prop_assert_eq!(entries.remove(was).map(|entry| (entry.table, entry.key)), Some((table, key.clone())));
                    model.remove(&was);
                }
                if was.is_none() || number % 3 > 0 {
                    let value = (!buried).then(Bytes::new);
                    let slot = Slot::new(sequence, value, Vec::new(), &[]);
                    entries.insert(Entry { table, key: key.clone(), slot }, Instant::ZERO);
                    model.insert(sequence, (table, key, buried));
                }
                let numbers = |from: u64, to| entries.range(from..=to).map(|(.., slot)| slot.sequence).collect::<Vec<_>>();
                prop_assert_eq!(numbers(0, u64::MAX), model.keys().copied().collect::<Vec<_>>());
                prop_assert_eq!(numbers(9, 30), model.range(9..=30).map(|(number, _)| *number).collect::<Vec<_>>());
                for number in [sequence, sequence / 2] {
                    let at = entries.at(number).map(|(table, key, _)| (table, key));
                    prop_assert_eq!(at, model.get(&number).map(|at| (at.0, &at.1)));
                    prop_assert_eq!(entries.is_buried(number), model.get(&number).is_some_and(|at| at.2));
                }
                prop_assert_eq!(entries.len(), model.len());
                let dead: Vec<u64> = model.iter().filter(|(_, at)| at.2).map(|(number, _)| *number).collect();
                prop_assert_eq!(entries.tombstones(), dead.len());
                prop_assert_eq!(entries.buried(u64::MAX).map(|(number, _)| number).collect::<Vec<_>>(), dead);
                for table in [0, 1, 2].map(TableId) {
                    let mut keys: Vec<&Key> = model.values().filter(|at| at.0 == table).map(|at| &at.1).collect();
                    keys.sort();
                    prop_assert_eq!(entries.table(table).map(|(key, _)| key).collect::<Vec<_>>(), keys);
                }
            }
        }
    }

    /// Each node keeps one such of each other, for every network that both take part in.
    #[test]
    fn a_lone_entry_takes_little() {
        let mut entries = Entries::default();
        let slot = Slot::new(1, Some(Bytes::new()), Vec::new(), &[]);
        entries.insert(Entry { table: TableId(0), key: Key::new("k").unwrap(), slot }, Instant::ZERO);
        let Entries::Few(list) = &entries else { panic!("one is few") };
        assert!(size_of::<Entries>() <= 96 && !list.spilled(), "{}, {}", size_of::<Entries>(), list.spilled());
    }
}
