//! Which network namespace, as a value that needs no kernel.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Name;

/// A network namespace's identity: device and inode of its file, as `stat` gives them.
///
/// It is certain only while the namespace lives: the kernel gives the inode of one that is gone to a later one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NsId {
    /// The device of the kernel's namespace file system.
    pub device: u64,
    /// The number within it, such as 4,026,531,840 for the one the machine starts with.
    pub inode: u64,
}

impl fmt::Display for NsId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "net:[{}]", self.inode)
    }
}

/// A network namespace as an area value names it: what we call it, and which one it was when we looked.
///
/// A container that is restarted under its old name has another namespace, so another key.
///
/// ```
/// use overlay_core::{NsId, NsKey};
///
/// let key = NsKey { name: "web-1".parse()?, id: NsId { device: 4, inode: 4026532281 } };
/// assert_eq!(key.to_string(), "web-1 (net:[4026532281])");
/// # Ok::<(), overlay_core::NameError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NsKey {
    /// The container's or network's name, by which whoever opened the namespace finds it again.
    pub name: Name,
    /// Which namespace it is.
    pub id: NsId,
}

impl fmt::Display for NsKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_being_written_down() {
        let key = NsKey { name: "web-1".parse().unwrap(), id: NsId { device: 4, inode: 4_026_532_281 } };
        let text = serde_json::to_string(&key).unwrap();
        assert_eq!(text, r#"{"name":"web-1","id":{"device":4,"inode":4026532281}}"#);
        assert_eq!(serde_json::from_str::<NsKey>(&text).unwrap(), key);
    }
}
