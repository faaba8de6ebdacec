//! Private keys of nodes and roots.

use std::fmt;

use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PublicKeyData as _, SignatureAlgorithm};
use rustls_pki_types::PrivatePkcs8KeyDer;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize as _, Zeroizing};

use crate::provider::digest::{SHA256, digest};

/// What signatures are made by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Algorithm {
    /// ECDSA on the curve P-256 with SHA-256 (FIPS 186-5 §6): what all programs take.
    #[default]
    EcdsaP256,
    /// Ed25519 (RFC 8032).
    Ed25519,
}

/// A private key that certificates are for, or signed with. Its bytes are wiped when it is dropped, and never printed.
///
/// ```
/// use overlay_crypto::pki::{Algorithm, SigningKey};
///
/// let key = SigningKey::generate(Algorithm::Ed25519)?;
/// let again = SigningKey::from_pkcs8(&key.to_pkcs8())?;
/// assert_eq!(again.digest(), key.digest());
/// # Ok::<(), overlay_crypto::pki::KeyError>(())
/// ```
pub struct SigningKey {
    pub(super) pair: KeyPair,
    algorithm: Algorithm,
}

/// SHA-256 of a public key with its algorithm (its SubjectPublicKeyInfo, RFC 5280 §4.1.2.7), as in RFC 7469 §2.4: the same in all certificates of one key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct KeyDigest([u8; 32]);

/// Bytes that are no key, or no chance for one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// Not a key in PKCS #8.
    #[error("not a private key in PKCS #8 (RFC 5958) for ECDSA on P-256 or Ed25519")]
    Malformed,
    /// The system gave no chance.
    #[error("the system gives no random numbers")]
    NoChance,
}

impl Algorithm {
    /// Both.
    pub const ALL: [Self; 2] = [Self::EcdsaP256, Self::Ed25519];

    fn of_rcgen(self) -> &'static SignatureAlgorithm {
        match self {
            Self::EcdsaP256 => &PKCS_ECDSA_P256_SHA256,
            Self::Ed25519 => &PKCS_ED25519,
        }
    }
}

impl SigningKey {
    /// A key by chance, which ring takes from the operating system: what it signs needs chance too, and is never the same twice.
    ///
    /// # Errors
    /// If the system gives none.
    pub fn generate(algorithm: Algorithm) -> Result<Self, KeyError> {
        let pair = KeyPair::generate_for(algorithm.of_rcgen()).map_err(|_| KeyError::NoChance)?;
        Ok(Self { pair, algorithm })
    }

    /// Reads what [`to_pkcs8`](Self::to_pkcs8) wrote. The caller wipes its own copy.
    ///
    /// # Errors
    /// If it is none, or of another algorithm.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, KeyError> {
        let der = PrivatePkcs8KeyDer::from(der);
        let read = |algorithm: Algorithm| {
            let pair = KeyPair::from_pkcs8_der_and_sign_algo(&der, algorithm.of_rcgen()).ok()?;
            Some(Self { pair, algorithm })
        };
        Algorithm::ALL.into_iter().find_map(read).ok_or(KeyError::Malformed)
    }

    /// The key in PKCS #8 (RFC 5958), DER: to be kept where only this node reads it, or [locked](super::Locked).
    pub fn to_pkcs8(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(self.pair.serialized_der().to_vec())
    }

    /// What it signs by.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Signs `message`; `None` if the system gives no chance for it.
    pub(super) fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
        rcgen::SigningKey::sign(&self.pair, message).ok()
    }

    /// The digest of its public key.
    pub fn digest(&self) -> KeyDigest {
        KeyDigest::of(&self.pair.subject_public_key_info())
    }
}

impl Drop for SigningKey {
    fn drop(&mut self) {
        self.pair.zeroize();
    }
}

impl KeyDigest {
    pub(super) fn of(subject_public_key_info: &[u8]) -> Self {
        let mut bytes = [0; 32];
        bytes.iter_mut().zip(digest(&SHA256, subject_public_key_info).as_ref()).for_each(|(to, from)| *to = *from);
        Self(bytes)
    }

    /// That digest.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub const fn to_bytes(self) -> [u8; 32] {
        self.0
    }
}

impl fmt::Display for KeyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        crate::hex::show(&self.0, f)
    }
}

impl fmt::Debug for KeyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyDigest({self})")
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}
