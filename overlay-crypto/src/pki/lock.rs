//! Keys at rest.

use std::fmt;
use std::str::FromStr;

use argon2::{Algorithm, Argon2, Params, Version};
use zeroize::Zeroizing;

use super::base36;
use crate::provider::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

/// `SWMKEY-1-` and 50 letters and digits: what a cluster's managers are unlocked with after a start. 32 bytes of chance. The key is shown by `to_string`, not by `{:?}`.
///
/// ```
/// use overlay_crypto::pki::{Locked, UnlockKey};
///
/// let key = UnlockKey::generate(|bytes| bytes.fill(7)); // of the operating system
/// let locked = Locked::lock(b"a node's key", &key, |bytes| bytes.fill(8))?;
/// let typed: UnlockKey = key.to_string().parse()?;
/// assert_eq!(locked.unlock(&typed)?.as_slice(), b"a node's key");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct UnlockKey(Zeroizing<[u8; 32]>);

/// Something secret, as it is kept: sealed with AES-256-GCM under a key that Argon2id (RFC 9106) makes of an [`UnlockKey`].
///
/// The bytes: format (1), Argon2's memory in KiB (4), passes (4), salt (16), then the ciphertext with its tag; the first 25 are authenticated. The salt is of
/// chance, so each key it makes seals once, and the nonce is zero.
#[derive(Clone, PartialEq, Eq)]
pub struct Locked(Vec<u8>);

/// Why something is not locked or unlocked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LockError {
    /// A text that is no unlock key. It is not repeated: it may be most of one.
    #[error("an unlock key is SWMKEY-1- and 50 letters and digits: was all of it copied?")]
    Text,
    /// Bytes that nothing was locked into.
    #[error("not something locked, or of a later release")]
    Malformed,
    /// Another key, or changed bytes: which of both cannot be told.
    #[error("could not be unlocked: invalid key provided")]
    Key,
    /// It asks for more work than is done for anybody.
    #[error("it asks for {memory} KiB and {passes} passes; {most} KiB and 16 passes are the most", most = Locked::MOST_MEMORY)]
    Work {
        /// KiB of memory.
        memory: u32,
        /// Passes.
        passes: u32,
    },
}

const PREFIX: &str = "SWMKEY-1-";
const FORMAT: u8 = 1;
const SALT: usize = 16;
const HEADER: usize = 1 + 4 + 4 + SALT;
/// What OWASP and RFC 9106 §4 ask for at least where memory is short; the key is of chance already.
const MEMORY: u32 = 19 * 1024;
const PASSES: u32 = 2;
const MOST_PASSES: u32 = 16;

impl UnlockKey {
    /// A key by chance.
    pub fn generate(fill: impl FnOnce(&mut [u8])) -> Self {
        let mut bytes = Zeroizing::new([0; 32]);
        fill(bytes.as_mut_slice());
        Self(bytes)
    }
}

impl Locked {
    /// KiB of memory that unlocking takes at most, whatever the bytes say.
    pub const MOST_MEMORY: u32 = 256 * 1024;

    /// Locks `secret`; `fill` gives 16 bytes of chance. It takes some 20 ms and 19 MiB, as unlocking does.
    ///
    /// # Errors
    /// None in practice.
    pub fn lock(secret: &[u8], key: &UnlockKey, fill: impl FnOnce(&mut [u8])) -> Result<Self, LockError> {
        let mut salt = [0; SALT];
        fill(&mut salt);
        let mut bytes = vec![FORMAT];
        bytes.extend_from_slice(&MEMORY.to_be_bytes());
        bytes.extend_from_slice(&PASSES.to_be_bytes());
        bytes.extend_from_slice(&salt);
        let header = Aad::from(bytes.clone());
        let mut text = Zeroizing::new(secret.to_vec());
        let sealed = derived(key, &salt, (MEMORY, PASSES))?.seal_in_place_separate_tag(once(), header, &mut text);
        let tag = sealed.map_err(|_| LockError::Malformed)?;
        bytes.extend_from_slice(&text);
        bytes.extend_from_slice(tag.as_ref());
        Ok(Self(bytes))
    }

    /// What was locked.
    ///
    /// # Errors
    /// [`LockError::Key`] with another key, [`LockError::Malformed`] or [`LockError::Work`] for bytes that nothing was locked into.
    pub fn unlock(&self, key: &UnlockKey) -> Result<Zeroizing<Vec<u8>>, LockError> {
        let (header, sealed) = self.0.split_at_checked(HEADER).ok_or(LockError::Malformed)?;
        let (&format, rest) = header.split_first().ok_or(LockError::Malformed)?;
        let (memory, rest) = rest.split_first_chunk().ok_or(LockError::Malformed)?;
        let (passes, salt) = rest.split_first_chunk().ok_or(LockError::Malformed)?;
        if format != FORMAT {
            return Err(LockError::Malformed);
        }
        let (memory, passes) = (u32::from_be_bytes(*memory), u32::from_be_bytes(*passes));
        if memory > Self::MOST_MEMORY || passes > MOST_PASSES {
            return Err(LockError::Work { memory, passes });
        }
        let mut text = Zeroizing::new(sealed.to_vec());
        let key = derived(key, salt, (memory, passes))?;
        let opened = key.open_in_place(once(), Aad::from(header), &mut text).map_err(|_| LockError::Key)?.len();
        text.truncate(opened);
        Ok(text)
    }

    /// The bytes to keep.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// What was kept.
    pub fn from_bytes(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }
}

/// The key of one salt.
fn derived(key: &UnlockKey, salt: &[u8], (memory, passes): (u32, u32)) -> Result<LessSafeKey, LockError> {
    let params = Params::new(memory, passes, 1, Some(32)).map_err(|_| LockError::Malformed)?;
    let mut bytes = Zeroizing::new([0; 32]);
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    argon2.hash_password_into(key.0.as_slice(), salt, bytes.as_mut_slice()).map_err(|_| LockError::Malformed)?;
    Ok(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, bytes.as_slice()).map_err(|_| LockError::Malformed)?))
}

/// A key of one salt seals once.
fn once() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}

impl FromStr for UnlockKey {
    type Err = LockError;

    fn from_str(text: &str) -> Result<Self, LockError> {
        let bytes = text.strip_prefix(PREFIX).and_then(base36::decode).ok_or(LockError::Text)?;
        Ok(Self(Zeroizing::new(bytes)))
    }
}

impl fmt::Display for UnlockKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = Zeroizing::new(base36::encode(self.0.as_slice()));
        write!(f, "{PREFIX}{}", *text)
    }
}

impl fmt::Debug for UnlockKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UnlockKey(..)")
    }
}

impl fmt::Debug for Locked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Locked({} bytes)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> UnlockKey {
        UnlockKey::generate(|bytes| bytes.fill(byte))
    }

    #[test]
    fn what_was_locked_is_unlocked_with_its_key_alone_and_no_changed_byte_of_it() {
        let locked = Locked::lock(b"secret", &key(1), |bytes| bytes.fill(3)).unwrap();
        assert!(!locked.as_bytes().windows(6).any(|bytes| bytes == b"secret"));
        assert_eq!(Locked::from_bytes(locked.as_bytes()).unlock(&key(1)).unwrap().as_slice(), b"secret");
        assert_eq!(locked.unlock(&key(2)).unwrap_err(), LockError::Key);
        for at in [1, 5, 9, 24, 25, 30, 40, 46] {
            let mut bytes = locked.as_bytes().to_vec();
            bytes[at] ^= 1;
            assert!(Locked::from_bytes(bytes).unlock(&key(1)).is_err(), "{at}");
        }
        let other = Locked::lock(b"secret", &key(1), |bytes| bytes.fill(4)).unwrap();
        assert_ne!(other.as_bytes()[25..], locked.as_bytes()[25..]);
    }

    #[test]
    fn bytes_that_ask_for_all_memory_or_are_cut_are_refused_before_any_work() {
        let locked = Locked::lock(b"", &key(1), |bytes| bytes.fill(3)).unwrap();
        let mut bytes = locked.as_bytes().to_vec();
        bytes[1] = 0xff;
        assert!(matches!(Locked::from_bytes(bytes).unlock(&key(1)), Err(LockError::Work { .. })));
        assert_eq!(Locked::from_bytes([1; 24]).unlock(&key(1)).unwrap_err(), LockError::Malformed);
        assert_eq!(Locked::from_bytes([2; 60]).unlock(&key(1)).unwrap_err(), LockError::Malformed);
    }

    #[test]
    fn an_unlock_key_is_read_as_it_is_shown_and_what_is_none_is_not_repeated() {
        let text = key(200).to_string();
        assert_eq!(text.parse::<UnlockKey>().unwrap().0, key(200).0);
        assert!(!format!("{:?}", key(200)).contains("200"));
        for text in ["", &text[9..], &text[..58], "SWMKEY-2-0"] {
            assert_eq!(text.parse::<UnlockKey>().unwrap_err(), LockError::Text);
        }
    }
}
