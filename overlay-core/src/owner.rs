//! Whose an object is.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Name;

/// Marks what one agent makes, so that it finds its own again and never touches another's.
///
/// `cluster` and `instance` together name the agent: a cluster's id and a node's id, or any two names of your choosing.
/// They must be the same after a restart, and differ between agents on one host. Every object in the kernel
/// carries the mark: a whole text where one fits ([`Display`](fmt::Display)), the 64-bit [`tag`](Self::tag) elsewhere.
///
/// ```
/// use overlay_core::Owner;
///
/// let ours = Owner::new("prod".parse()?, "node-1".parse()?);
/// let theirs = Owner::new("prod".parse()?, "node-2".parse()?);
/// assert_eq!(ours.to_string(), "prod/node-1");
/// assert_ne!(ours.tag(), theirs.tag());
/// # Ok::<(), overlay_core::NameError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Owner {
    /// The cluster the agent belongs to.
    pub cluster: Name,
    /// The agent within its cluster.
    pub instance: Name,
}

impl Owner {
    /// The owner with these two names.
    pub const fn new(cluster: Name, instance: Name) -> Self {
        Self { cluster, instance }
    }

    /// 64 bits of the mark, for places too small for the text: FNV-1a of it, the same in every release.
    ///
    /// Not a secret and no proof: it keeps agents apart that mean well.
    pub fn tag(&self) -> u64 {
        let text = self.cluster.as_str().bytes().chain([b'/']).chain(self.instance.as_str().bytes());
        text.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.cluster, self.instance)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tag_is_the_published_hash_of_the_text_so_an_upgrade_finds_its_objects() {
        let owner = Owner::new("c".parse().unwrap(), "n".parse().unwrap());
        assert_eq!(owner.tag(), 0xf6de_f119_0dbb_07eb);
    }

    #[test]
    fn the_border_between_the_names_counts() {
        let owner = |cluster: &str, instance: &str| Owner::new(cluster.parse().unwrap(), instance.parse().unwrap());
        assert_ne!(owner("ab", "c").tag(), owner("a", "bc").tag());
    }
}
