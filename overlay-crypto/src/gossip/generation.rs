//! Which key came after which.

use std::fmt;

use overlay_core::Malformed;
use serde::Serialize;

use super::KeyId;

/// Where a key of gossip stands among all that its cluster ever had: by its number, and of two that were made at once with one number, by its name.
///
/// In text it is the two with a dot between: `3.12013063`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Generation {
    /// Its number; 0 while it is not known.
    pub number: u64,
    /// The key.
    pub id: KeyId,
}

impl Generation {
    /// The greatest number, which nobody counts up to who does not lie.
    pub const MOST: u64 = 1 << 48;
    /// Before all.
    pub const NONE: Self = Self { number: 0, id: KeyId::from_bytes([0; KeyId::LEN]) };
    /// Bytes of one, encoded.
    pub(super) const LEN: usize = 8 + KeyId::LEN;

    pub(super) fn encode(self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        let from = self.number.to_be_bytes().into_iter().chain(self.id.to_bytes());
        bytes.iter_mut().zip(from).for_each(|(to, from)| *to = from);
        bytes
    }

    pub(super) fn parse(bytes: &[u8; Self::LEN]) -> Result<Self, Malformed> {
        let [a, b, c, d, e, f, g, h, id @ ..] = *bytes;
        let number = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
        if number > Self::MOST {
            return Err(Malformed::Range { field: "a key's number", found: number, least: 0, most: Self::MOST });
        }
        Ok(Self { number, id: KeyId::from_bytes(id) })
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.number, self.id)
    }
}
