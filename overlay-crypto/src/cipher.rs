//! The AEADs that ESP is sealed with.

use std::fmt;

use crate::provider::aead;
use serde::{Deserialize, Serialize};

/// An AEAD of ESP with an 8-byte IV, a 4-byte salt and a 16-byte integrity check value.
///
/// All three are as strong as ESP needs; AES-GCM is the faster where a processor has AES instructions, ChaCha20-Poly1305
/// where it has none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cipher {
    /// AES-GCM with a key of 128 bits (RFC 4106).
    Aes128Gcm,
    /// AES-GCM with a key of 256 bits (RFC 4106): the default.
    #[default]
    Aes256Gcm,
    /// ChaCha20-Poly1305 (RFC 7634).
    #[serde(rename = "chacha20_poly1305")]
    ChaCha20Poly1305,
}

impl Cipher {
    /// All there are.
    pub const ALL: [Self; 3] = [Self::Aes128Gcm, Self::Aes256Gcm, Self::ChaCha20Poly1305];

    /// Bytes of the salt that follows the key in keying material (RFC 4106 §8.1, RFC 7634 §2).
    pub const SALT_LEN: usize = 4;

    /// Bytes of the key, without the salt: 16 or 32.
    pub const fn key_len(self) -> usize {
        match self {
            Self::Aes128Gcm => 16,
            Self::Aes256Gcm | Self::ChaCha20Poly1305 => 32,
        }
    }

    /// Bytes of key and salt together: 20 or 36.
    pub const fn material_len(self) -> usize {
        self.key_len() + Self::SALT_LEN
    }

    pub(crate) fn algorithm(self) -> &'static aead::Algorithm {
        match self {
            Self::Aes128Gcm => &aead::AES_128_GCM,
            Self::Aes256Gcm => &aead::AES_256_GCM,
            Self::ChaCha20Poly1305 => &aead::CHACHA20_POLY1305,
        }
    }
}

impl fmt::Display for Cipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Aes128Gcm => "AES-128-GCM",
            Self::Aes256Gcm => "AES-256-GCM",
            Self::ChaCha20Poly1305 => "ChaCha20-Poly1305",
        })
    }
}
