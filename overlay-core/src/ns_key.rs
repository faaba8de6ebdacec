//! Which network namespace.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Name;

/// Names a network namespace: what its user calls it, and what the kernel does.
///
/// A path can come to mean another namespace; device and inode of `/proc/PID/ns/net` (namespaces(7)) cannot, for as
/// long as the namespace lives. Two keys with one name and another inode are two containers, one after the other.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NsKey {
    /// What the user calls it, a container's name for example.
    pub name: Name,
    /// The device of the file that stands for it.
    pub device: u64,
    /// The inode of that file.
    pub inode: u64,
}

impl fmt::Display for NsKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (net:[{}])", self.name, self.inode)
    }
}
