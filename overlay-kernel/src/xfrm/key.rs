//! A key that is put to work once.

use std::fmt;
use std::ptr;
use std::sync::{Arc, Mutex, PoisonError};

use zeroize::Zeroizing;

/// Key and salt of one association, as the kernel takes them: the AEAD's key, then 4 bytes of salt (RFC 4106 §8.1, RFC 7634 §2).
///
/// Copies are one key, and the kernel gets it once: an association that is gone (flushed by somebody, say) is not put back under it,
/// as that would count from 1 again. Wiped when it was used or is dropped; never printed. What is compared is whether two are copies.
#[derive(Clone)]
pub struct Key(Arc<dyn KeySource>);

/// Keeps a key until the kernel takes it: for who has keys of a type of his own, copies of which are one.
pub trait KeySource: Send + Sync {
    /// The bytes, which it has no more from now on. Nothing if they were taken before.
    fn take(&self) -> Option<Zeroizing<Vec<u8>>>;

    /// Has back what was taken last: it certainly was not used.
    fn give_back(&self, bytes: Zeroizing<Vec<u8>>);

    /// How many bytes there are, if they were not taken.
    fn held(&self) -> Option<usize>;
}

struct Held {
    bytes: Mutex<Option<Zeroizing<Vec<u8>>>>,
    again: bool,
}

impl Key {
    /// From bytes that were never used before, by anyone.
    pub fn new(bytes: Zeroizing<Vec<u8>>) -> Self {
        Self(Arc::new(Held { bytes: Mutex::new(Some(bytes)), again: false }))
    }

    /// One that somebody else keeps until the step that adds its association is carried out.
    pub fn of(source: Arc<dyn KeySource>) -> Self {
        Self(source)
    }

    /// One that may be used again and again: for tests of laws, which take objects away and put them back.
    #[cfg(feature = "testing")]
    pub fn again_and_again(bytes: Vec<u8>) -> Self {
        Self(Arc::new(Held { bytes: Mutex::new(Some(Zeroizing::new(bytes))), again: true }))
    }

    /// Whether both are copies of one.
    pub fn is_copy_of(&self, other: &Self) -> bool {
        ptr::addr_eq(Arc::as_ptr(&self.0), Arc::as_ptr(&other.0))
    }

    /// How many bytes there are, if they were not used.
    pub(super) fn len(&self) -> Option<usize> {
        self.0.held()
    }

    /// Puts the key to work. `work` says whether it certainly was not used; else it is spent. Nothing if it was spent before.
    pub(super) fn put_to_work<T>(&self, work: impl FnOnce(&[u8]) -> (T, Unused)) -> Option<T> {
        let bytes = self.0.take()?;
        let (done, unused) = work(&bytes);
        if unused.0 {
            self.0.give_back(bytes);
        }
        Some(done)
    }
}

impl KeySource for Held {
    fn take(&self) -> Option<Zeroizing<Vec<u8>>> {
        let mut held = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        if self.again { held.clone() } else { held.take() }
    }

    fn give_back(&self, bytes: Zeroizing<Vec<u8>>) {
        *self.bytes.lock().unwrap_or_else(PoisonError::into_inner) = Some(bytes);
    }

    fn held(&self) -> Option<usize> {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|bytes| bytes.len())
    }
}

/// Whether a key certainly was not used.
pub(super) struct Unused(pub(super) bool);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_used_once_whatever_copies_there_are() {
        let key = Key::new(Zeroizing::new(vec![171; 20]));
        let copy = key.clone();
        assert!(key.is_copy_of(&copy) && !key.is_copy_of(&Key::new(Zeroizing::new(vec![171; 20]))));
        assert_eq!(key.put_to_work(|bytes| (bytes.len(), Unused(true))), Some(20), "it was not used");
        assert_eq!(copy.put_to_work(|bytes| (bytes.len(), Unused(false))), Some(20));
        assert_eq!((key.put_to_work(|_| ((), Unused(false))), key.len()), (None, None));
        assert_eq!(format!("{key:?}"), "Key(..)");
    }
}
