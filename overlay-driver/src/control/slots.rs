//! Places for connections, of which no user or node has them all.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// So many places, and so many for one user, or node.
#[derive(Debug)]
pub(super) struct Slots<K: Ord> {
    all: usize,
    of_one: usize,
    /// How many each user has who has any.
    taken: Mutex<BTreeMap<K, usize>>,
}

/// A place of somebody's. It is free again when this is dropped.
#[derive(Debug)]
pub(super) struct Slot<K: Ord> {
    slots: Arc<Slots<K>>,
    of: K,
}

/// There is no place, of so many: none at all, or none of those that one may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    All(usize),
    One(usize),
}

impl<K: Ord + Copy> Slots<K> {
    pub(super) fn new(all: usize, of_one: usize) -> Arc<Self> {
        Arc::new(Self { all, of_one, taken: Mutex::default() })
    }

    pub(super) fn take(self: &Arc<Self>, of: K) -> Result<Slot<K>, Full> {
        let mut taken = self.lock();
        if taken.values().sum::<usize>() >= self.all {
            return Err(Full::All(self.all));
        }
        let of_one = taken.get(&of).copied().unwrap_or_default();
        if of_one >= self.of_one {
            return Err(Full::One(self.of_one));
        }
        taken.insert(of, of_one + 1);
        drop(taken);
        Ok(Slot { slots: Arc::clone(self), of })
    }
}

impl<K: Ord> Slots<K> {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<K, usize>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Ord> Drop for Slot<K> {
    fn drop(&mut self) {
        let mut taken = self.slots.lock();
        if let Some(of_one) = taken.get_mut(&self.of) {
            *of_one -= 1;
            if *of_one == 0 {
                taken.remove(&self.of);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_who_takes_all_it_may_leaves_places_for_another() {
        let slots = Slots::new(5, 3);
        let mut first: Vec<Slot<u32>> = (0..3).map(|_| slots.take(1000).unwrap()).collect();
        assert!(matches!(slots.take(1000), Err(Full::One(3))));
        let _second = [slots.take(1001).unwrap(), slots.take(1001).unwrap()];
        assert!(matches!(slots.take(1001), Err(Full::All(5))));
        first.pop();
        slots.take(0).unwrap();
        first.clear();
        assert_eq!(*slots.lock(), [(1001, 2)].into(), "who has none is forgotten");
    }
}
