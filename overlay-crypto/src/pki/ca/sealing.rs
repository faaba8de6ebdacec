//! What the root's key is sealed with in a store.

use std::fmt;

use zeroize::Zeroizing;

use crate::provider::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use crate::provider::digest::{SHA256, digest};
use crate::provider::hkdf::{HKDF_SHA256, KeyType, Salt};

/// What every manager holds, and nobody else: 32 bytes of chance that unseal what an authority keeps sealed in its store, the root's key and the tokens as text. It is printed
/// by nothing and wiped when it is dropped.
///
/// The manager that founds a cluster makes it, and keeps it in its [`Vault`](crate::pki::Vault) before it founds; a node that was promoted is
/// [given](super::CertificateAuthority::sealing_key) it by another manager, once it has shown its manager's certificate.
///
/// ```
/// use overlay_crypto::pki::SealingKey;
///
/// let key = SealingKey::generate(|bytes| bytes.fill(7)); // of the operating system
/// assert_eq!(SealingKey::from_bytes(*key.to_bytes()), key);
/// ```
#[derive(Clone)]
pub struct SealingKey(Zeroizing<[u8; 32]>);

const FORMAT: u8 = 1;
const SALT: usize = 16;
const LABEL: &[u8] = b"overlay-crypto sealed in a store 1";

impl SealingKey {
    /// A key by chance.
    pub fn generate(fill: impl FnOnce(&mut [u8])) -> Self {
        let mut bytes = Zeroizing::new([0; 32]);
        fill(bytes.as_mut_slice());
        Self(bytes)
    }

    /// The key of these bytes. The caller wipes its own copy.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Its bytes: to be kept where only this node reads them, and sent to managers alone.
    pub fn to_bytes(&self) -> Zeroizing<[u8; 32]> {
        self.0.clone()
    }

    /// Format (1), salt (16), ciphertext with its tag: AES-256-GCM by a key that HKDF makes of this and the salt, which therefore seals once; `about` is authenticated.
    pub(super) fn seal(&self, secret: &[u8], about: &[u8], fill: impl FnOnce(&mut [u8])) -> Option<Vec<u8>> {
        let mut salt = [0; SALT];
        fill(&mut salt);
        let mut text = Zeroizing::new(secret.to_vec());
        let tag = self.derived(&salt)?.seal_in_place_separate_tag(once(), Aad::from(about), &mut text).ok()?;
        Some([&[FORMAT][..], &salt, &text, tag.as_ref()].concat())
    }

    pub(super) fn unseal(&self, sealed: &[u8], about: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let (salt, sealed) = sealed.strip_prefix(&[FORMAT])?.split_first_chunk::<SALT>()?;
        let mut text = Zeroizing::new(sealed.to_vec());
        let opened = self.derived(salt)?.open_in_place(once(), Aad::from(about), &mut text).ok()?.len();
        text.truncate(opened);
        Some(text)
    }

    fn derived(&self, salt: &[u8]) -> Option<LessSafeKey> {
        let mut bytes = Zeroizing::new([0; 32]);
        let pseudorandom = Salt::new(HKDF_SHA256, salt).extract(self.0.as_slice());
        pseudorandom.expand(&[LABEL], Len).and_then(|okm| okm.fill(bytes.as_mut_slice())).ok()?;
        Some(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, bytes.as_slice()).ok()?))
    }
}

/// A key of one salt seals once.
fn once() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}

struct Len;

impl KeyType for Len {
    fn len(&self) -> usize {
        32
    }
}

impl PartialEq for SealingKey {
    fn eq(&self, other: &Self) -> bool {
        subtle::ConstantTimeEq::ct_eq(self.0.as_slice(), other.0.as_slice()).into()
    }
}

impl Eq for SealingKey {}

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealingKey(..)")
    }
}

/// 16 bytes that tell what these parts are from all others.
pub(super) fn fingerprint(parts: &[&[u8]]) -> [u8; 16] {
    let mut all = Vec::new();
    for part in parts {
        all.extend_from_slice(&(part.len() as u64).to_be_bytes());
        all.extend_from_slice(part);
    }
    let mut bytes = [0; 16];
    bytes.iter_mut().zip(digest(&SHA256, &all).as_ref()).for_each(|(to, from)| *to = *from);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sealed_is_unsealed_by_its_key_for_what_it_was_sealed_for_and_no_other() {
        let key = SealingKey::generate(|bytes| bytes.fill(7));
        let sealed = key.seal(b"a root's key", b"root", |salt| salt.fill(1)).unwrap();
        assert_eq!(key.unseal(&sealed, b"root").unwrap().as_slice(), b"a root's key");
        assert!(key.unseal(&sealed, b"token").is_none());
        assert!(SealingKey::generate(|bytes| bytes.fill(8)).unseal(&sealed, b"root").is_none());
        for at in 0..sealed.len() {
            let mut other = sealed.clone();
            other[at] ^= 1;
            assert!(key.unseal(&other, b"root").is_none() && key.unseal(&sealed[..at], b"root").is_none());
        }
        assert_eq!(format!("{key:?}"), "SealingKey(..)");
    }
}
