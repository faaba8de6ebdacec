//! Settings of a whole namespace.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A setting of a namespace's network stack.
///
/// A state names those that differ from the kernel's default only, and only in namespaces that are ours whole: taking
/// one out of the state sets the default again. Whether bridges hand packets to the IP hooks is the firewall's to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Setting {
    /// Whether IPv6 packets are forwarded at all.
    Ipv6Forwarding,
}

impl Setting {
    /// All of them.
    pub const ALL: [Self; 1] = [Self::Ipv6Forwarding];

    /// Its path below `/proc/sys`.
    pub const fn path(self) -> &'static str {
        match self {
            Self::Ipv6Forwarding => "net/ipv6/conf/all/forwarding",
        }
    }

    /// The value in a new namespace.
    pub const fn default_value(self) -> bool {
        !matches!(self, Self::Ipv6Forwarding)
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.path())
    }
}
