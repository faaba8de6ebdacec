//! The key of a security association, which is put to work once.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::provider::digest;
use zeroize::Zeroizing;

use crate::Cipher;

/// Key and salt of one security association.
///
/// Copies are one key: whoever puts it to work [takes](Self::take) it from all of them. So no two senders count from 1 under one
/// key, which would repeat a nonce and with it lose both secrecy and integrity, and no receiver forgets what it has seen and takes it
/// again. Who took it cannot give it back: an association that is lost needs another key, so another epoch. A kernel that refuses an
/// association before it had one has not spent its key.
///
/// The bytes are wiped when they are taken or dropped, never printed and never serialised; what is compared is a digest.
///
/// ```
/// use overlay_crypto::{Cipher, SaKey, Spent};
///
/// let key = SaKey::new(Cipher::Aes128Gcm, &[7; 20])?;
/// let copy = key.clone();
/// assert!(key.take().is_ok());
/// assert_eq!(copy.take().unwrap_err(), Spent);
/// assert_eq!(format!("{copy:?}"), "Key(..)");
/// # Ok::<(), overlay_crypto::KeyLengthError>(())
/// ```
#[derive(Clone)]
pub struct SaKey(Arc<Held>);

struct Held {
    cipher: Cipher,
    digest: [u8; 32],
    material: Mutex<Option<Material>>,
    again: bool,
}

type Material = Box<Zeroizing<[u8; MOST]>>;

const MOST: usize = 36; // Cipher::material_len of the longest

/// A key that was taken to be put to work: there is no other copy of it. Wiped when it is dropped.
pub struct TakenKey {
    cipher: Cipher,
    material: Material,
}

/// The key was put to work already: the association needs another, of another epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the key was put to work before, and must not be again; a new epoch has another")]
pub struct Spent;

/// Bytes that are not as many as a cipher's key and salt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{cipher} needs {} bytes of key and salt, {have} are there", cipher.material_len())]
pub struct KeyLengthError {
    /// The cipher.
    pub cipher: Cipher,
    /// The bytes given.
    pub have: usize,
}

impl SaKey {
    /// A key from `material`: the cipher's key, then 4 bytes of salt. It must never have been used before, by anyone, and the caller wipes its own
    /// copy. [`Pair`](crate::Pair) derives keys; this is for those agreed otherwise.
    ///
    /// # Errors
    /// If `material` has not the [length](Cipher::material_len) that the cipher needs.
    pub fn new(cipher: Cipher, material: &[u8]) -> Result<Self, KeyLengthError> {
        Self::held(cipher, material, false)
    }

    /// One that may be taken again and again: for tests of laws, which take associations away and put them back.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    #[cfg(feature = "testing")]
    pub fn again_and_again(cipher: Cipher, material: &[u8]) -> Result<Self, KeyLengthError> {
        Self::held(cipher, material, true)
    }

    fn held(cipher: Cipher, material: &[u8], again: bool) -> Result<Self, KeyLengthError> {
        if material.len() != cipher.material_len() {
            return Err(KeyLengthError { cipher, have: material.len() });
        }
        let (held, digest) = (self::material(material), digest_of(cipher, material));
        Ok(Self(Arc::new(Held { cipher, digest, material: Mutex::new(Some(held)), again })))
    }

    /// Takes the key, from all copies, to put it to work.
    ///
    /// # Errors
    /// [`Spent`] if it was taken before.
    pub fn take(&self) -> Result<TakenKey, Spent> {
        self.0.take()
    }

    /// Whether it was taken.
    pub fn is_spent(&self) -> bool {
        self.0.lock().is_none()
    }

    /// The cipher it is for.
    pub fn cipher(&self) -> Cipher {
        self.0.cipher
    }

    /// What tells keys from each other without telling them: SHA-256 of the cipher's number and the material.
    pub(crate) fn digest(&self) -> &[u8; 32] {
        &self.0.digest
    }
}

impl Held {
    fn take(&self) -> Result<TakenKey, Spent> {
        let mut material = self.lock();
        let material = if self.again { material.clone() } else { material.take() };
        Ok(TakenKey { cipher: self.cipher, material: material.ok_or(Spent)? })
    }

    fn lock(&self) -> MutexGuard<'_, Option<Material>> {
        self.material.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The kernel takes a key when it carries out the step that adds its association, and gives back what it certainly did not use.
#[cfg(feature = "kernel")]
mod kernel {
    use std::sync::Arc;

    use overlay_kernel::xfrm::{Key, KeySource};
    use zeroize::Zeroizing;

    use super::{Held, SaKey, material};

    impl SaKey {
        /// The same key, for the kernel: what either takes is taken from both.
        pub(crate) fn for_kernel(&self) -> Key {
            Key::of(Arc::<Held>::clone(&self.0))
        }
    }

    impl KeySource for Held {
        fn take(&self) -> Option<Zeroizing<Vec<u8>>> {
            let taken = self.take().ok()?;
            Some(Zeroizing::new(taken.material().to_vec()))
        }

        fn give_back(&self, bytes: Zeroizing<Vec<u8>>) {
            *self.lock() = Some(material(&bytes));
        }

        fn held(&self) -> Option<usize> {
            self.lock().as_ref().map(|_| self.cipher.material_len())
        }
    }
}

impl TakenKey {
    /// The cipher it is for.
    pub fn cipher(&self) -> Cipher {
        self.cipher
    }

    /// The cipher's key, then the salt, as keying material is written (RFC 4106 §8.1). Whoever copies it wipes the copy.
    pub fn material(&self) -> &[u8] {
        self.material.get(..self.cipher.material_len()).unwrap_or_default()
    }

    /// The cipher's key alone.
    pub(crate) fn key(&self) -> &[u8] {
        self.material.get(..self.cipher.key_len()).unwrap_or_default()
    }

    /// The salt alone.
    pub(crate) fn salt(&self) -> [u8; Cipher::SALT_LEN] {
        self.material().last_chunk().copied().unwrap_or_default()
    }
}

fn material(bytes: &[u8]) -> Material {
    let mut held: Material = Box::new(Zeroizing::new([0; MOST]));
    held.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    held
}

fn digest_of(cipher: Cipher, material: &[u8]) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(&[cipher as u8]);
    context.update(material);
    let mut digest = [0; 32];
    digest.iter_mut().zip(context.finish().as_ref()).for_each(|(to, from)| *to = *from);
    digest
}

impl PartialEq for SaKey {
    /// Whether they are alike, spent or not. What is compared is a digest, so the time taken says nothing of the key.
    fn eq(&self, other: &Self) -> bool {
        self.0.digest == other.0.digest
    }
}

impl Eq for SaKey {}

impl fmt::Debug for SaKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

impl fmt::Debug for TakenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_one_key_and_it_is_taken_once() {
        let key = SaKey::new(Cipher::Aes256Gcm, &[1; 36]).unwrap();
        let copy = key.clone();
        let taken = copy.take().unwrap();
        assert_eq!((taken.key(), taken.salt(), taken.material()), (&[1; 32][..], [1; 4], &[1; 36][..]));
        assert_eq!((key.take().unwrap_err(), key.is_spent()), (Spent, true));
        assert_eq!(key, copy);
    }

    #[cfg(feature = "kernel")]
    #[test]
    fn a_key_for_the_kernel_is_the_same_key() {
        let key = SaKey::new(Cipher::Aes128Gcm, &[1; 20]).unwrap();
        assert!(key.for_kernel().is_copy_of(&key.for_kernel()), "however often it is lowered");
        let source: &dyn overlay_kernel::xfrm::KeySource = &*key.0;
        let bytes = source.take().unwrap();
        assert_eq!((&bytes[..], source.held(), key.is_spent(), key.take().is_err()), (&[1; 20][..], None, true, true));
        source.give_back(bytes);
        assert_eq!((source.held(), key.take().unwrap().material()), (Some(20), &[1; 20][..]));
        assert!(source.take().is_none());
    }

    #[test]
    fn of_threads_that_want_it_one_gets_it() {
        let key = SaKey::new(Cipher::Aes128Gcm, &[1; 20]).unwrap();
        let got = std::thread::scope(|scope| {
            #[expect(clippy::needless_collect, reason = "all start before the first is waited for")]
            let all: Vec<_> = (0..8).map(|_| scope.spawn(|| key.take().is_ok())).collect();
            all.into_iter().map(|one| one.join().unwrap()).filter(|got| *got).count()
        });
        assert_eq!(got, 1);
    }

    #[test]
    fn keys_differ_by_their_bytes_and_by_their_cipher() {
        let new = |cipher, byte| SaKey::new(cipher, &[byte; 36]).unwrap();
        assert_eq!(new(Cipher::Aes256Gcm, 1), new(Cipher::Aes256Gcm, 1));
        assert_ne!(new(Cipher::Aes256Gcm, 1), new(Cipher::Aes256Gcm, 2));
        assert_ne!(new(Cipher::Aes256Gcm, 1), new(Cipher::ChaCha20Poly1305, 1));
    }

    #[test]
    fn a_key_of_another_length_is_refused() {
        let refused = SaKey::new(Cipher::Aes256Gcm, &[0; 20]).unwrap_err();
        assert_eq!(refused.to_string(), "AES-256-GCM needs 36 bytes of key and salt, 20 are there");
    }

    #[test]
    fn nothing_printed_tells_of_the_bytes() {
        let key = SaKey::new(Cipher::Aes128Gcm, &[0xab; 20]).unwrap();
        let shown = format!("{key:?} {:?}", key.take().unwrap());
        assert_eq!(shown, "Key(..) Key(..)");
    }
}
