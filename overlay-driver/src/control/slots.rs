//! Places for connections, of which no user has them all.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::frame::Refusal;

/// So many places, and so many for one user.
#[derive(Debug)]
pub(super) struct Slots {
    all: usize,
    of_user: usize,
    /// How many each user has who has any.
    taken: Mutex<BTreeMap<u32, usize>>,
}

/// A user's place. It is free again when this is dropped.
#[derive(Debug)]
pub(super) struct Slot {
    slots: Arc<Slots>,
    uid: u32,
}

impl Slots {
    pub(super) fn new(all: usize, of_user: usize) -> Arc<Self> {
        Arc::new(Self { all, of_user, taken: Mutex::default() })
    }

    pub(super) fn take(self: &Arc<Self>, uid: u32) -> Result<Slot, Refusal> {
        let mut taken = self.lock();
        if taken.values().sum::<usize>() >= self.all {
            return Err(Refusal::Busy { limit: self.all });
        }
        let of_user = taken.get(&uid).copied().unwrap_or_default();
        if of_user >= self.of_user {
            return Err(Refusal::UserBusy { uid, limit: self.of_user });
        }
        taken.insert(uid, of_user + 1);
        drop(taken);
        Ok(Slot { slots: Arc::clone(self), uid })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u32, usize>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut taken = self.slots.lock();
        if let Some(of_user) = taken.get_mut(&self.uid) {
            *of_user -= 1;
            if *of_user == 0 {
                taken.remove(&self.uid);
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
        let mut first: Vec<Slot> = (0..3).map(|_| slots.take(1000).unwrap()).collect();
        assert!(matches!(slots.take(1000), Err(Refusal::UserBusy { uid: 1000, limit: 3 })));
        let _second = [slots.take(1001).unwrap(), slots.take(1001).unwrap()];
        assert!(matches!(slots.take(1001), Err(Refusal::Busy { limit: 5 })));
        first.pop();
        slots.take(0).unwrap();
        first.clear();
        assert_eq!(*slots.lock(), [(1001, 2)].into(), "who has none is forgotten");
    }
}
