//! The key that a cluster's gossip is sealed with.

use std::fmt;
use std::str::FromStr;

use crate::hex;
use crate::provider::aead::{AES_256_GCM, LessSafeKey, UnboundKey};
use crate::provider::hkdf::{HKDF_SHA256, KeyType, Prk, Salt};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// 32 bytes that all nodes of a cluster have and nobody else: what its gossip is sealed with.
///
/// Messages are sealed with keys derived from it, another for each start of each node ([`Keyring`](super::Keyring)). Its bytes are wiped when it is
/// dropped, never printed and never serialised; what stands in messages and logs is its [`id`](Self::id). It is read from 64 hexadecimal digits, as a file has them.
///
/// ```
/// use overlay_crypto::gossip::GossipKey;
///
/// let key = GossipKey::from_bytes([7; 32]); // a test's
/// assert_eq!(format!("{key:?}"), format!("GossipKey({})", key.id()));
/// ```
#[derive(Clone)]
pub struct GossipKey {
    bytes: Zeroizing<[u8; Self::LEN]>,
    id: KeyId,
}

/// The name of a [`GossipKey`]: 4 bytes that follow from it, and that it does not follow from. Of two keys of one cluster it is the same once in 4 billion; a
/// [`Keyring`](super::Keyring) refuses the second of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyId([u8; Self::LEN]);

/// A text that is no key. It is not repeated: it may be most of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a key of gossip is 64 hexadecimal digits")]
pub struct GossipKeyError;

/// What tells apart the starts of all nodes under one key: 16 bytes of chance.
pub(super) type StartSalt = [u8; 16];

const LABEL: &[u8] = b"overlay-crypto gossip 1"; // another number if anything of the derivation changes

impl GossipKey {
    /// Bytes of a key.
    pub const LEN: usize = 32;

    /// The key of these bytes, which must come from a source that is fit for keys. The caller wipes its own copy.
    pub fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        let bytes = Zeroizing::new(bytes);
        let id = KeyId(derived(&extracted(bytes.as_slice()), b"id"));
        Self { bytes, id }
    }

    /// A key by chance: `fill` takes it from a source that is fit for keys.
    pub fn generate(fill: impl FnOnce(&mut [u8])) -> Self {
        let mut bytes = Zeroizing::new([0; Self::LEN]);
        fill(bytes.as_mut_slice());
        Self::from_bytes(*bytes)
    }

    /// Its name.
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// Its bytes, to be handed on sealed, or kept where only this node reads them.
    pub fn secret_bytes(&self) -> &[u8; Self::LEN] {
        &self.bytes
    }

    /// Whether it is the same. It takes as long whatever differs.
    pub(super) fn is(&self, other: &Self) -> bool {
        let differs =
            self.bytes.iter().zip(other.bytes.iter()).fold(0, |differs, (ours, theirs)| differs | (ours ^ theirs));
        differs == 0
    }

    /// As if it had the other's name.
    #[cfg(test)]
    pub(super) fn named_as(self, other: &Self) -> Self {
        Self { id: other.id, ..self }
    }

    /// The key by which one start of one node seals.
    pub(super) fn of_start(&self, salt: &StartSalt) -> LessSafeKey {
        let bytes: Zeroizing<[u8; Self::LEN]> = Zeroizing::new(derived(&extracted(self.bytes.as_slice()), salt));
        let key = UnboundKey::new(&AES_256_GCM, bytes.as_slice());
        #[expect(clippy::expect_used, reason = "32 bytes are an AES-256 key")]
        LessSafeKey::new(key.expect("its length is right"))
    }
}

fn extracted(bytes: &[u8]) -> Prk {
    Salt::new(HKDF_SHA256, LABEL).extract(bytes)
}

/// One output of HKDF-SHA256 (RFC 5869).
fn derived<const LEN: usize>(pseudorandom: &Prk, info: &[u8]) -> [u8; LEN] {
    struct Len(usize);
    impl KeyType for Len {
        fn len(&self) -> usize {
            self.0
        }
    }

    let mut output = [0; LEN];
    let filled = pseudorandom.expand(&[LABEL, info], Len(LEN)).and_then(|okm| okm.fill(&mut output));
    debug_assert!(filled.is_ok(), "its length is right");
    output
}

impl KeyId {
    /// Bytes of a name.
    pub const LEN: usize = 4;

    /// The name of these bytes.
    pub const fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub const fn to_bytes(self) -> [u8; Self::LEN] {
        self.0
    }
}

impl FromStr for GossipKey {
    type Err = GossipKeyError;

    fn from_str(text: &str) -> Result<Self, GossipKeyError> {
        hex::read(text.as_bytes()).map(Self::from_bytes).ok_or(GossipKeyError)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex::show(&self.0, f)
    }
}

impl fmt::Debug for GossipKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GossipKey({})", self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Computed by hmac and hashlib of Python: other releases derive the same, or have another label.
    #[test]
    fn what_is_derived_stays_the_same() {
        let key = GossipKey::from_bytes([7; 32]);
        assert_eq!(key.id().to_string(), "12013063");
        let derived: [u8; 32] = derived(&extracted(&[7; 32]), &[9; 16]);
        assert_eq!(
            derived.iter().map(|byte| format!("{byte:02x}")).collect::<String>(),
            "a1c6e98e09930ee330b3224ce075299a0bf1a7b0f42df0af80ddc9d40ccd27b6"
        );
    }

    #[test]
    fn a_key_is_read_from_its_digits_and_what_is_none_is_not_repeated() {
        assert_eq!("0a".repeat(32).parse::<GossipKey>().unwrap().id(), GossipKey::from_bytes([10; 32]).id());
        for text in [String::new(), "0a".repeat(31), "0a".repeat(33), format!("{}0g", "0a".repeat(31)), "0".repeat(63)]
        {
            let refused = text.parse::<GossipKey>().unwrap_err().to_string();
            assert_eq!(refused, "a key of gossip is 64 hexadecimal digits");
        }
    }

    #[test]
    fn a_key_shows_its_name_and_never_itself() {
        let key = GossipKey::generate(|to| to.fill(0xab));
        assert_eq!(key.secret_bytes(), &[0xab; 32]);
        assert!(!format!("{key:?}").contains("abab"));
        assert_ne!(key.id(), GossipKey::from_bytes([0xac; 32]).id());
    }
}
