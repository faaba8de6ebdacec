//! What names an entry and numbers a change.

use std::fmt;

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
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Bytes);

impl Key {
    /// The longest key, in bytes.
    pub const MAX_LEN: usize = 255;

    /// The key of these bytes.
    ///
    /// # Errors
    /// For none and for more than 255.
    pub fn new(bytes: impl Into<Bytes>) -> Result<Self, KeyError> {
        let bytes = bytes.into();
        match bytes.len() {
            1..=Self::MAX_LEN => Ok(Self(bytes)),
            found => Err(KeyError { found }),
        }
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.0.escape_ascii())
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
