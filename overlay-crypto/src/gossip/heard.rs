//! The keys of those that were heard.

use std::collections::BTreeMap;

use crate::provider::aead::LessSafeKey;

use super::key::StartSalt;
use super::{GossipKey, KeyId};

/// By which keys others seal, as far as something of theirs was opened: so each is derived once.
///
/// It keeps those that were used last: two generations of [`KEPT`] at most, of which the older goes when the younger is full.
#[derive(Default)]
pub(super) struct Heard {
    young: Generation,
    old: Generation,
}

type Generation = BTreeMap<(KeyId, StartSalt), Box<LessSafeKey>>;

/// As many starts of nodes a generation holds; some 600 bytes each.
const KEPT: usize = 4096;

impl Heard {
    /// Lets `open` try with the key of that start. Only a key that something was opened with is kept: so nobody without it fills the room.
    pub(super) fn with<T, E>(
        &mut self,
        key: &GossipKey,
        salt: StartSalt,
        open: impl FnOnce(&LessSafeKey) -> Result<T, E>,
    ) -> Result<T, E> {
        let name = (key.id(), salt);
        if let Some(known) = self.young.get(&name) {
            return open(known);
        }
        let of_start = self.old.remove(&name).unwrap_or_else(|| Box::new(key.of_start(&salt)));
        let opened = open(&of_start)?;
        if self.young.len() >= KEPT {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(name, of_start);
        Ok(opened)
    }

    pub(super) fn forget(&mut self, id: KeyId) {
        self.young.retain(|(of, _), _| *of != id);
        self.old.retain(|(of, _), _| *of != id);
    }

    pub(super) fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_opened_nothing_is_not_kept_and_what_is_kept_has_a_limit() {
        let key = GossipKey::from_bytes([7; 32]);
        let mut heard = Heard::default();
        for number in 0..50_u128 {
            assert!(heard.with(&key, number.to_be_bytes(), |_| Err::<(), ()>(())).is_err());
        }
        assert_eq!(heard.len(), 0);
        for number in 0..3 * KEPT as u128 {
            heard.with(&key, number.to_be_bytes(), |_| Ok::<(), ()>(())).unwrap();
            heard.with(&key, [0; 16], |_| Ok::<(), ()>(())).unwrap();
            assert!(heard.len() <= 2 * KEPT && heard.young.contains_key(&(key.id(), [0; 16])), "{number}");
        }
        heard.forget(key.id());
        assert_eq!(heard.len(), 0);
    }
}
