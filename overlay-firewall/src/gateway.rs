//! Ways out of networks.

use std::collections::BTreeSet;
use std::fmt;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// A device of this place through which endpoints reach the outside: a gateway's bridge.
///
/// What holds for each, with nothing more said: nothing comes in from outside but to [`Published`](crate::Published) ports,
/// nothing passes between two of them, packets that were routed straight to an endpoint's address are dropped, and so are
/// those that lie about where they are from. Replies always come back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gateway {
    /// The subnets behind it.
    pub subnets: BTreeSet<IpNet>,
    /// Whether endpoints reach the outside.
    pub egress: Egress,
    /// Whether endpoints behind it reach each other: of a network's bridge, not of a way out that networks share. Where the kernel sends bridged
    /// frames through the IP hooks (`br_netfilter`), they would not without.
    #[serde(default)]
    pub together: bool,
    /// Whether what was translated elsewhere on this machine, by a load balancer say, comes in through it: then no more than that does.
    #[serde(default)]
    pub balanced: bool,
}

impl Gateway {
    /// A way out, masqueraded, for these subnets.
    pub fn new(subnets: impl IntoIterator<Item = IpNet>) -> Self {
        Self { subnets: subnets.into_iter().collect(), egress: Egress::Masquerade, together: false, balanced: false }
    }

    /// The same, whose endpoints reach each other.
    #[must_use]
    pub fn together(self) -> Self {
        Self { together: true, ..self }
    }

    /// The same, by which flows come in that a load balancer of this machine translated.
    #[must_use]
    pub fn balanced(self) -> Self {
        Self { balanced: true, ..self }
    }

    /// The same, but nothing new goes out: of an internal network.
    #[must_use]
    pub fn internal(self) -> Self {
        Self { egress: Egress::Internal, ..self }
    }
}

/// Whether endpoints reach the outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Egress {
    /// They do, with the address of the device that the packet leaves by as their source.
    Masquerade,
    /// They do not.
    Internal,
}

impl fmt::Display for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.egress {
            Egress::Masquerade => "masquerade",
            Egress::Internal => "internal",
        })?;
        f.write_str(if self.together { " together" } else { "" })?;
        f.write_str(if self.balanced { " balanced" } else { "" })?;
        self.subnets.iter().try_for_each(|subnet| write!(f, " {subnet}"))
    }
}
