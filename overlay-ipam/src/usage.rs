//! How full things are.

use overlay_core::UnixTime;
use serde::{Deserialize, Serialize};

use crate::{AddressRange, IpNet, Pool, Use};

/// How much of something is in use.
///
/// ```
/// use overlay_ipam::Usage;
///
/// let usage = Usage { capacity: 253, in_use: 200, resting: 12 };
/// assert_eq!((usage.free(), usage.percent()), (41, 83));
/// assert!(usage.is_above(80) && !usage.is_exhausted());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, Serialize, Deserialize)]
pub struct Usage {
    /// How many there are, those that are reserved not counted.
    pub capacity: u128,
    /// How many are leased.
    pub in_use: u128,
    /// How many were given back and rest.
    pub resting: u128,
}

impl Usage {
    /// How many can be claimed now.
    pub const fn free(self) -> u128 {
        self.capacity.saturating_sub(self.in_use).saturating_sub(self.resting)
    }

    /// How many of a hundred cannot be claimed now, rounded down; 100 only if none can.
    pub const fn percent(self) -> u8 {
        if self.free() == 0 {
            return 100;
        }
        // A hundredth of huge numbers is exact enough, a hundred times them overflows.
        let taken = self.capacity - self.free();
        match taken.checked_mul(100) {
            Some(hundredfold) => (hundredfold / self.capacity) as u8,
            None => (taken / (self.capacity / 100)) as u8,
        }
    }

    /// Whether so many of a hundred, or more, cannot be claimed: time to grow the network before claims are refused.
    pub const fn is_above(self, percent: u8) -> bool {
        self.percent() >= percent
    }

    /// Whether none can be claimed now.
    pub const fn is_exhausted(self) -> bool {
        self.free() == 0
    }
}

/// How full a part of a subnet is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubnetUsage {
    /// The subnet.
    pub net: IpNet,
    /// Claims for which purpose. Both share their addresses unless VIPs have a range of their own.
    pub purpose: Use,
    /// Where they are made.
    pub ranges: Vec<AddressRange>,
    /// How much of it is in use.
    pub usage: Usage,
    /// Whether it is above the [warning threshold](crate::Config::warn_at).
    pub warning: bool,
    /// As of when.
    pub at: UnixTime,
}

/// How full a pool is: of the subnets it can be divided into, how many are taken at least in part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolUsage {
    /// The pool.
    pub pool: Pool,
    /// How many subnets are taken; none rest.
    pub usage: Usage,
    /// Whether it is above the [warning threshold](crate::Config::warn_at).
    pub warning: bool,
}
