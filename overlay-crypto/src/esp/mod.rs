//! The encapsulating security payload (RFC 4303) with an AEAD, in place.

mod open;
mod openers;
mod seal;
mod sealers;
mod udp;
#[cfg(test)]
mod vectors;
mod window;

use crate::provider::aead::{Aad, LessSafeKey, Nonce, UnboundKey};
use serde::{Deserialize, Serialize};

use crate::{Cipher, SaKey, Spent, Spi};

pub use open::{OpenCounts, OpenError, Opened, Opener};
pub use openers::Openers;
pub use seal::{SealCounts, SealError, Sealer, sealed_len};
pub use sealers::Sealers;
pub use udp::{Arrived, UdpEncapsulation};
pub use window::{ReplayWindow, WindowSize, WindowSizeError};

const HEADER: usize = 8; // SPI and sequence number, RFC 4303 §2
const IV: usize = 8; // RFC 4106 §3.1, RFC 7634 §2
const TRAILER: usize = 2; // pad length and next header, RFC 4303 §2
const ICV: usize = 16; // RFC 4106 §6, RFC 7634 §2
const ALIGN: usize = 4; // RFC 4303 §2.4
const NO_NEXT_HEADER: u8 = 59; // a dummy packet, RFC 4303 §2.6

/// How many bits of sequence numbers both ends count with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Numbers {
    /// 32 bits, all of which travel (RFC 4303 §2.2): at a million packets a second they are spent within 72 minutes.
    Short,
    /// 64 bits, of which the low 32 travel and all are authenticated (RFC 4303 §2.2.1): the default.
    #[default]
    Extended,
}

impl Numbers {
    /// The last number there is.
    pub const fn last(self) -> u64 {
        match self {
            Self::Short => u32::MAX as u64,
            Self::Extended => u64::MAX,
        }
    }
}

/// What seals and opens: the cipher with its key, the salt, and what is authenticated besides.
struct Aead {
    key: LessSafeKey,
    salt: [u8; Cipher::SALT_LEN],
    spi: Spi,
    numbers: Numbers,
}

impl Aead {
    fn new(spi: Spi, key: &SaKey, numbers: Numbers) -> Result<Self, Spent> {
        let key = key.take()?;
        let unbound = UnboundKey::new(key.cipher().algorithm(), key.key()).map_err(|_| Spent)?; // it has the cipher's length
        Ok(Self { key: LessSafeKey::new(unbound), salt: key.salt(), spi, numbers })
    }

    fn nonce(&self, iv: [u8; IV]) -> Nonce {
        let [a, b, c, d] = self.salt;
        let [e, f, g, h, i, j, k, l] = iv;
        Nonce::assume_unique_for_key([a, b, c, d, e, f, g, h, i, j, k, l])
    }

    fn associated(&self, sequence: u64) -> Aad<Associated> {
        let spi = u128::from(self.spi.get());
        Aad::from(match self.numbers {
            Numbers::Extended => Associated(low_bytes(spi << 64 | u128::from(sequence)), 12),
            Numbers::Short => Associated(low_bytes((spi << 32 | u128::from(sequence as u32)) << 32), 8),
        })
    }
}

/// The bytes that are authenticated and not encrypted, and how many: SPI, then the sequence number in 4 or 8 bytes (RFC 4106 §5).
struct Associated([u8; 12], usize);

impl AsRef<[u8]> for Associated {
    fn as_ref(&self) -> &[u8] {
        self.0.get(..self.1).unwrap_or_default()
    }
}

/// The low 12 bytes of a number, highest first.
fn low_bytes(number: u128) -> [u8; 12] {
    number.to_be_bytes().last_chunk().copied().unwrap_or_default()
}
