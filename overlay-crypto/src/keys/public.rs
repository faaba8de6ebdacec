//! What a node publishes of its keys.

use std::fmt;

use overlay_core::Malformed;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::hex;

/// The number of a node's key, 1 or more. A node's later keys have higher numbers, over restarts too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct Epoch(u64);

/// Epoch 0, which no key has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("epoch 0: the first is 1")]
pub struct EpochError;

/// A node's public X25519 key of one epoch (RFC 7748 §6.1), 32 bytes.
///
/// Any 32 bytes are one; those that lead to no secret are refused by [`EpochSecret::agree`](super::EpochSecret::agree). In JSON it is 64
/// hexadecimal digits, as it is shown.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey([u8; 32]);

/// What a node publishes, in a gossip table whose entries have one writer each: its key of an epoch.
///
/// ```
/// use overlay_crypto::{Epoch, EpochRecord, PublicKey};
///
/// let record = EpochRecord { epoch: Epoch::new(7)?, public: PublicKey::from_bytes([9; 32]) };
/// assert_eq!(EpochRecord::parse(&record.encode()), Ok(record));
/// # Ok::<(), overlay_crypto::EpochError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EpochRecord {
    /// The key's number.
    pub epoch: Epoch,
    /// The key.
    pub public: PublicKey,
}

impl Epoch {
    /// The first, of a node that never had a key.
    pub const FIRST: Self = Self(1);

    /// The epoch of that number.
    ///
    /// # Errors
    /// For 0.
    pub const fn new(epoch: u64) -> Result<Self, EpochError> {
        if epoch == 0 { Err(EpochError) } else { Ok(Self(epoch)) }
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The next; `None` after the last.
    pub const fn next(self) -> Option<Self> {
        match self.0.checked_add(1) {
            Some(next) => Some(Self(next)),
            None => None,
        }
    }
}

impl PublicKey {
    /// The key of these bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub const fn to_bytes(self) -> [u8; 32] {
        self.0
    }
}

impl EpochRecord {
    /// Bytes of an encoded record.
    pub const LEN: usize = 40;

    /// The epoch's number, highest byte first, then the key.
    pub fn encode(&self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        let from = self.epoch.0.to_be_bytes().into_iter().chain(self.public.0);
        bytes.iter_mut().zip(from).for_each(|(to, from)| *to = from);
        bytes
    }

    /// Reads what [`encode`](Self::encode) wrote.
    ///
    /// # Errors
    /// If there are not 40 bytes, or the epoch is 0.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let (field, have) = ("a key's record", bytes.len());
        let Some((epoch, rest)) = bytes.split_first_chunk::<8>() else {
            return Err(Malformed::Truncated { field, need: Self::LEN, have });
        };
        let Some((public, rest)) = rest.split_first_chunk::<32>() else {
            return Err(Malformed::Truncated { field, need: Self::LEN, have });
        };
        if !rest.is_empty() {
            return Err(Malformed::Trailing { field, extra: rest.len() });
        }
        let found = u64::from_be_bytes(*epoch);
        let range = Malformed::Range { field: "an epoch", found, least: 1, most: u64::MAX };
        Ok(Self { epoch: Epoch::new(found).map_err(|_| range)?, public: PublicKey(*public) })
    }
}

impl TryFrom<u64> for Epoch {
    type Error = EpochError;

    fn try_from(epoch: u64) -> Result<Self, EpochError> {
        Self::new(epoch)
    }
}

impl From<Epoch> for u64 {
    fn from(epoch: Epoch) -> Self {
        epoch.0
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex::show(&self.0, f)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

impl Serialize for PublicKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() { serializer.collect_str(self) } else { self.0.serialize(serializer) }
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if !deserializer.is_human_readable() {
            return <[u8; 32]>::deserialize(deserializer).map(Self);
        }
        let text = String::deserialize(deserializer)?;
        hex::read(text.as_bytes()).map(Self).ok_or_else(|| de::Error::custom("a public key is 64 hexadecimal digits"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_record_is_the_same_after_its_way_through_bytes_and_text(epoch in 1_u64.., public: [u8; 32]) {
            let record = EpochRecord { epoch: Epoch(epoch), public: PublicKey(public) };
            prop_assert_eq!(EpochRecord::parse(&record.encode()), Ok(record));
            let text = serde_json::to_string(&record).unwrap();
            prop_assert_eq!(serde_json::from_str::<EpochRecord>(&text).unwrap(), record);
        }
    }

    #[test]
    fn bytes_that_are_no_record_are_refused_by_name() {
        let said = |bytes: &[u8]| EpochRecord::parse(bytes).unwrap_err().to_string();
        assert_eq!(said(&[1; 7]), "40 bytes are needed for a key's record, 7 are there");
        assert_eq!(said(&[1; 39]), "40 bytes are needed for a key's record, 39 are there");
        assert_eq!(said(&[1; 42]), "2 bytes follow the end of a key's record");
        assert!(said(&[0; 40]).starts_with("an epoch is 0, 1 to"));
        for text in ["\"\"", "\"00\"", &format!("\"{}g\"", "0".repeat(63)), "7"] {
            assert!(serde_json::from_str::<PublicKey>(text).is_err(), "{text}");
        }
    }
}
