//! Routes and rules: what `ip route` and `ip rule` show.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use overlay_core::{IfName, IpFamily};
use serde::{Deserialize, Serialize};

use super::{Dev, Site};

/// What makes a route one route.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RouteKey {
    /// The namespace.
    pub site: Site,
    /// The routing table, [`MAIN_TABLE`] mostly.
    pub table: u32,
    /// Where to, without host bits; a prefix of length 0 is the default route.
    pub destination: IpNet,
    /// Of two routes to one destination, the lower counts. At least 1 for IPv6, where the kernel takes 0 for 1024.
    pub metric: u32,
}

/// The main routing table (`RT_TABLE_MAIN`).
pub const MAIN_TABLE: u32 = 254;

/// Where packets for a destination go.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Route {
    /// Out of a device.
    Via {
        /// The device.
        device: IfName,
        /// The next router; where `None`, destinations are on the link itself.
        gateway: Option<IpAddr>,
        /// Source address preferred for packets that have none yet.
        source: Option<IpAddr>,
        /// Whether the router counts as on the link though no route says so.
        onlink: bool,
    },
    /// Nowhere, silently.
    Blackhole,
    /// Nowhere, and the sender is told.
    Unreachable,
}

impl RouteKey {
    /// Whether it is a route of IPv4.
    pub(super) const fn is_ipv4(&self) -> bool {
        matches!(self.destination, IpNet::V4(_))
    }
}

impl Route {
    /// The device it leaves by, in the namespace `site`.
    pub(super) fn device(&self, site: &Site) -> Option<Dev> {
        match self {
            Self::Via { device, .. } => Some(Dev { site: site.clone(), name: *device }),
            Self::Blackhole | Self::Unreachable => None,
        }
    }

    /// Whether it needs another route, which reaches the router.
    pub(super) const fn has_gateway(&self) -> bool {
        matches!(self, Self::Via { gateway: Some(_), .. })
    }
}

impl fmt::Display for RouteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "route to {}", self.destination)?;
        if self.site != Site::Home {
            write!(f, " in {}", self.site)?;
        }
        if self.table != MAIN_TABLE {
            write!(f, " table {}", self.table)?;
        }
        if self.metric > 0 { write!(f, " metric {}", self.metric) } else { Ok(()) }
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Via { device, gateway, .. } => {
                gateway.iter().try_for_each(|gateway| write!(f, "via {gateway} "))?;
                write!(f, "by {device}")
            }
            Self::Blackhole => f.write_str("into a black hole"),
            Self::Unreachable => f.write_str("unreachable"),
        }
    }
}

/// Which table a packet's route is looked up in.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Rule {
    /// The namespace.
    pub site: Site,
    /// The family of packets it is for.
    pub family: IpFamily,
    /// Rules are tried from the lowest on.
    pub priority: u32,
    /// Packets from here only.
    pub from: Option<IpNet>,
    /// Packets to there only.
    pub to: Option<IpNet>,
    /// Packets whose mark, under the mask, is this only: (mark, mask).
    pub mark: Option<(u32, u32)>,
    /// Packets that arrived here only.
    pub incoming: Option<IfName>,
    /// The table to look in.
    pub table: u32,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rule {} {}", self.priority, self.family)?;
        self.from.iter().try_for_each(|from| write!(f, " from {from}"))?;
        self.to.iter().try_for_each(|to| write!(f, " to {to}"))?;
        self.mark.iter().try_for_each(|(mark, mask)| write!(f, " mark {mark:#x}/{mask:#x}"))?;
        self.incoming.iter().try_for_each(|device| write!(f, " arriving at {device}"))?;
        write!(f, " table {}", self.table)?;
        if self.site == Site::Home { Ok(()) } else { write!(f, " in {}", self.site) }
    }
}
