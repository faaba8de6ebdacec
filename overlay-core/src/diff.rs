//! What differs between two ordered maps.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::collections::btree_map::Iter;
use std::iter::{FusedIterator, Peekable};

/// One difference between an old map and a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change<'a, K, V> {
    /// Key and value are only in the new map.
    Add(&'a K, &'a V),
    /// The key is in both: old value, then new.
    Replace(&'a K, &'a V, &'a V),
    /// Key and value are only in the old map.
    Remove(&'a K, &'a V),
}

/// The differences from `old` to `new` in the order of their keys: a merge join, O(n + m), nothing allocated.
///
/// ```
/// use std::collections::BTreeMap;
/// use overlay_core::{Change, keyed_diff};
///
/// let old = BTreeMap::from([("a", 1), ("b", 2), ("c", 3)]);
/// let new = BTreeMap::from([("b", 2), ("c", 4), ("d", 5)]);
/// let changes: Vec<_> = keyed_diff(&old, &new).collect();
/// assert_eq!(changes, [Change::Remove(&"a", &1), Change::Replace(&"c", &3, &4), Change::Add(&"d", &5)]);
/// ```
pub fn keyed_diff<'a, K: Ord, V: PartialEq>(old: &'a BTreeMap<K, V>, new: &'a BTreeMap<K, V>) -> KeyedDiff<'a, K, V> {
    KeyedDiff { old: old.iter().peekable(), new: new.iter().peekable() }
}

/// Iterator of [`keyed_diff`].
#[must_use = "iterators are lazy"]
#[derive(Debug, Clone)]
pub struct KeyedDiff<'a, K, V> {
    old: Peekable<Iter<'a, K, V>>,
    new: Peekable<Iter<'a, K, V>>,
}

impl<'a, K: Ord, V: PartialEq> Iterator for KeyedDiff<'a, K, V> {
    type Item = Change<'a, K, V>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(change) = step(&mut self.old, &mut self.new)? {
                return Some(change);
            }
        }
    }
}

/// Entries in the order of their keys.
pub(crate) trait Entries<'a, K: 'a, V: 'a>: Iterator<Item = (&'a K, &'a V)> {
    /// The key of the next.
    fn next_key(&mut self) -> Option<&'a K>;
}

impl<'a, K, V> Entries<'a, K, V> for Peekable<Iter<'a, K, V>> {
    fn next_key(&mut self) -> Option<&'a K> {
        self.peek().map(|(key, _)| *key)
    }
}

/// One step of a merge join: nothing at the end, no change where both have the same.
pub(crate) fn step<'a, K: Ord, V: PartialEq>(
    old: &mut impl Entries<'a, K, V>,
    new: &mut impl Entries<'a, K, V>,
) -> Option<Option<Change<'a, K, V>>> {
    let order = match (old.next_key(), new.next_key()) {
        (None, None) => return None,
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (Some(old), Some(new)) => old.cmp(new),
    };
    Some(match order {
        Ordering::Less => old.next().map(|(key, value)| Change::Remove(key, value)),
        Ordering::Greater => new.next().map(|(key, value)| Change::Add(key, value)),
        Ordering::Equal => {
            let ((key, old), (_, new)) = old.next().zip(new.next())?;
            (old != new).then_some(Change::Replace(key, old, new))
        }
    })
}

impl<K: Ord, V: PartialEq> FusedIterator for KeyedDiff<'_, K, V> {}

#[cfg(test)]
mod tests {
    use proptest::collection::btree_map;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_changes_lead_from_old_to_new_and_none_is_idle(
            old in btree_map(0_u8..40, 0_u8..3, 0..30),
            new in btree_map(0_u8..40, 0_u8..3, 0..30),
        ) {
            let mut patched = old.clone();
            let mut keys = Vec::new();
            for change in keyed_diff(&old, &new) {
                let (key, before, after) = match change {
                    Change::Add(key, new) => (*key, None, Some(*new)),
                    Change::Replace(key, old, new) => (*key, Some(*old), Some(*new)),
                    Change::Remove(key, old) => (*key, Some(*old), None),
                };
                prop_assert_ne!(before, after);
                prop_assert_eq!(patched.get(&key).copied(), before);
                match after {
                    Some(value) => patched.insert(key, value),
                    None => patched.remove(&key),
                };
                keys.push(key);
            }
            prop_assert_eq!(patched, new);
            prop_assert!(keys.is_sorted());
        }
    }
}
