//! What names an entry and numbers a change.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use bytes::Bytes;
use overlay_core::NetworkId;
use serde::{Deserialize, Serialize};

/// Names a table; what the tables are is the application's choice, the same on every node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TableId(pub u16);

/// An entry's key in its table: 1 to 255 bytes of any kind.
///
/// ```
/// use overlay_gossip::Key;
///
/// assert!(Key::new(&b"10.0.9.3"[..]).is_ok());
/// assert_eq!(Key::new(vec![7; 300]).unwrap_err().to_string(), "a key has 1 to 255 bytes, this has 300");
/// ```
#[derive(Clone)]
pub struct Key(Octets);

/// Addresses and ids are here themselves: every node has a key of every subscription of every other.
#[derive(Clone)]
enum Octets {
    Short { len: u8, octets: [u8; SHORT] },
    Long(Arc<[u8]>),
}

/// As many as make no key larger than a long one.
const SHORT: usize = 22;
const LONG: usize = SHORT + 1;

impl Key {
    /// The longest key, in bytes.
    pub const MAX_LEN: usize = 255;

    /// The key of these bytes.
    ///
    /// # Errors
    /// For none and for more than 255.
    pub fn new(bytes: impl Into<Bytes>) -> Result<Self, KeyError> {
        Self::of(&bytes.into())
    }

    /// The key of a copy of these bytes.
    pub(crate) fn of(bytes: &[u8]) -> Result<Self, KeyError> {
        match bytes.len() {
            len @ 1..=SHORT => {
                let mut octets = [0; SHORT];
                octets[..len].copy_from_slice(bytes);
                Ok(Self(Octets::Short { len: len as u8, octets }))
            }
            LONG..=Self::MAX_LEN => Ok(Self(Octets::Long(bytes.into()))),
            found => Err(KeyError { found }),
        }
    }

    /// The key that is a network's id.
    pub(crate) fn of_network(network: NetworkId) -> Self {
        let mut octets = [0; SHORT];
        octets[..16].copy_from_slice(&network.to_bytes());
        Self(Octets::Short { len: 16, octets })
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Octets::Short { len, octets } => octets.get(..usize::from(*len)).unwrap_or(octets),
            Octets::Long(octets) => octets,
        }
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Key {}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Key {
    /// As their bytes are.
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_bytes().cmp(other.as_bytes())
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.as_bytes().escape_ascii())
    }
}

/// Bytes that are no [`Key`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a key has 1 to 255 bytes, this has {found}")]
pub struct KeyError {
    /// Bytes given.
    pub found: usize,
}

/// Where an entry is: network, table and key. Each entry has one owner, so two nodes may use one `EntryKey` side by side.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryKey {
    /// The network whose subscribers have it.
    pub network: NetworkId,
    /// The table.
    pub table: TableId,
    /// The key in the table.
    pub key: Key,
}

/// The number of a change among its owner's changes in one network, from 1; each start of the owner begins anew.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Sequence(pub u64);

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How much was heard of what others said: a number of this node's own, which grows with each change.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Heard(pub u64);

impl fmt::Display for Heard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn keys_are_their_bytes_short_or_long(a in any::<Vec<u8>>(), b in proptest::collection::vec(any::<u8>(), 0..400)) {
            for bytes in [&a, &b] {
                match Key::new(bytes.clone()) {
                    Ok(key) => prop_assert_eq!(key.as_bytes(), &bytes[..]),
                    Err(KeyError { found }) => prop_assert!(found == bytes.len() && !(1..=255).contains(&found)),
                }
            }
            if let (Ok(one), Ok(other)) = (Key::new(a.clone()), Key::new(b.clone())) {
                prop_assert_eq!(one.cmp(&other), a.cmp(&b));
            }
        }
    }

    #[test]
    fn a_key_takes_24_bytes() {
        assert_eq!(size_of::<Key>(), 24);
    }
}
