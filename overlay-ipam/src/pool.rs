//! Where subnets are taken from when nobody says which.

use ipnet::{IpNet, Ipv4Net};
use overlay_core::IpFamily;
use serde::{Deserialize, Serialize};

use std::net::Ipv4Addr;

/// A range of addresses that is handed out in subnets of one size.
///
/// ```
/// use overlay_ipam::Pool;
///
/// let pool = Pool::new("10.0.0.0/8".parse()?, 24)?;
/// assert_eq!(pool.to_string(), "10.0.0.0/8 in /24");
/// assert!(Pool::new("10.0.0.0/8".parse()?, 7).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Parts", into = "Parts")]
pub struct Pool {
    range: IpNet,
    subnet_len: u8,
}

impl Pool {
    /// A pool of `range` in subnets with prefixes of `subnet_len` bits.
    ///
    /// # Errors
    /// If the range has host bits, its prefix is longer than a subnet's, or a subnet would have fewer than 8 addresses
    /// (prefixes above /29, or /125): too few for a network with a gateway.
    pub fn new(range: IpNet, subnet_len: u8) -> Result<Self, PoolError> {
        if range != range.trunc() {
            return Err(PoolError::HostBits { given: range, should: range.trunc() });
        }
        let longest = range.max_prefix_len() - 3;
        if !(range.prefix_len()..=longest).contains(&subnet_len) {
            return Err(PoolError::SubnetLen { range, found: subnet_len, longest });
        }
        Ok(Self { range, subnet_len })
    }

    /// The default pools of networks that span nodes: 10.0.0.0/8 in /24, as Docker Swarm has it.
    pub fn global() -> Vec<Self> {
        vec![Self::v4([10, 0, 0, 0], 8, 24)]
    }

    /// The default pools of networks of one node: 172.17.0.0/16 to 172.31.255.255 in /16, then 192.168.0.0/16 in /20, as
    /// Docker has it.
    pub fn local() -> Vec<Self> {
        let large = [(17, 16), (18, 16), (19, 16), (20, 14), (24, 14), (28, 14)];
        let large = large.map(|(second, len)| Self::v4([172, second, 0, 0], len, 16));
        large.into_iter().chain([Self::v4([192, 168, 0, 0], 16, 20)]).collect()
    }

    /// A unique local /48 (RFC 4193 §3.2) in /64: of the 40 bits of global id that `id` begins with. Draw them at random, or of
    /// a hash over the cluster's or host's id.
    pub fn unique_local(id: [u8; 5]) -> Self {
        let mut octets = [0; 16];
        octets[0] = 0xfd;
        octets[1..6].copy_from_slice(&id);
        let range = ipnet::Ipv6Net::new_assert(octets.into(), 48);
        Self { range: range.into(), subnet_len: 64 }
    }

    /// All of it.
    pub const fn range(self) -> IpNet {
        self.range
    }

    /// Bits of a subnet's prefix.
    pub const fn subnet_len(self) -> u8 {
        self.subnet_len
    }

    /// The family of its addresses.
    pub const fn family(self) -> IpFamily {
        match self.range {
            IpNet::V4(_) => IpFamily::V4,
            IpNet::V6(_) => IpFamily::V6,
        }
    }

    /// How many subnets there are in it.
    pub fn subnets(self) -> u128 {
        1 << (self.subnet_len - self.range.prefix_len())
    }

    const fn v4([a, b, c, d]: [u8; 4], prefix_len: u8, subnet_len: u8) -> Self {
        Self { range: IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix_len)), subnet_len }
    }
}

impl std::fmt::Display for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} in /{}", self.range, self.subnet_len)
    }
}

/// Why something is no pool. The caller's mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PoolError {
    /// The range has bits below its prefix.
    #[error("pool {given} has host bits: it should be {should}")]
    HostBits {
        /// The range given.
        given: IpNet,
        /// What it should be.
        should: IpNet,
    },
    /// Subnets larger than the pool, or too small to use.
    #[error("subnets of {range} have /{} to /{longest}, not /{found}", range.prefix_len())]
    SubnetLen {
        /// The pool's range.
        range: IpNet,
        /// The prefix length given for subnets.
        found: u8,
        /// The longest there may be.
        longest: u8,
    },
}

#[derive(Serialize, Deserialize)]
struct Parts {
    range: IpNet,
    subnet_len: u8,
}

impl TryFrom<Parts> for Pool {
    type Error = PoolError;

    fn try_from(parts: Parts) -> Result<Self, PoolError> {
        Self::new(parts.range, parts.subnet_len)
    }
}

impl From<Pool> for Parts {
    fn from(pool: Pool) -> Self {
        Self { range: pool.range, subnet_len: pool.subnet_len }
    }
}
