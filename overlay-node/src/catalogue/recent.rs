//! Records that were read not long ago.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use overlay_core::Key;

use crate::CatalogueChange;

/// What records of one catalogue said, for feeds that read the same at about the same time: a clone shares it.
#[derive(Debug, Clone, Default)]
pub(super) struct Recent(Arc<Mutex<Read>>);

/// By key, a record's bytes, and what they say.
type Read = BTreeMap<Key, (Bytes, CatalogueChange)>;

/// As many are kept at most: who is further behind reads for itself.
const MOST: usize = 1_024;

impl Recent {
    /// What a record says, or what `read` makes of it, which is kept for the next.
    pub(super) fn or_read<E>(
        &self,
        key: &Key,
        record: &Bytes,
        read: impl FnOnce() -> Result<CatalogueChange, E>,
    ) -> Result<CatalogueChange, E> {
        if let Some((_, change)) = self.lock().get(key).filter(|(bytes, _)| bytes == record) {
            return Ok(change.clone());
        }
        let change = read()?;
        let mut all = self.lock();
        if all.len() >= MOST && !all.contains_key(key) {
            all.pop_first(); // lists are in the order of keys: the end of a long one stays
        }
        all.insert(key.clone(), (record.clone(), change.clone()));
        Ok(change)
    }

    fn lock(&self) -> MutexGuard<'_, Read> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
