//! What claims and releases can fail of.

use std::error::Error;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use overlay_core::{CommitError, IpFamily, Key, NetworkId, Protocol, StoreError, UnixTime};
use serde::{Deserialize, Serialize};

use crate::{Flaw, Reserved, SubnetError};

/// Why nothing could be decided, or not be written down.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum IpamError {
    /// The store could not be read, or did not try to write. Nothing was changed by what failed; of many claims, those before it
    /// may be made, and are found again by claiming again.
    #[error("the store could not be used")]
    Store(#[source] Arc<StoreError>),
    /// The answer to a commit was lost: it may be done, or be done yet. The same call again finds what it did.
    #[error("the answer to a commit was lost: it may be done or not")]
    InDoubt(#[source] Arc<StoreError>),
    /// The store takes no such commit.
    #[error("the store takes no such commit")]
    Commit(#[source] Arc<CommitError>),
    /// Others were faster, every time. Nothing was changed; try again after a while.
    #[error("gave up after {attempts} attempts: others were faster")]
    Contended {
        /// How many.
        attempts: u32,
    },
    /// A record cannot be read: something else wrote it, or a later release. Nothing was changed.
    #[error("the record {key} cannot be read: {flaw}")]
    Corrupt {
        /// Its key.
        key: Key,
        /// What is wrong with it.
        flaw: Flaw,
    },
    /// The network has no subnets here: claim some first.
    #[error("network {network} has no subnets")]
    UnknownNetwork {
        /// The network.
        network: NetworkId,
    },
    /// No such subnets can be claimed. Nothing was.
    #[error(transparent)]
    Subnet(#[from] SubnetError),
    /// The network has another subnet already where one is requested: subnets stay as they were claimed, more can be added.
    #[error("network {network} has {has} as subnet {number} already, which is not what is requested")]
    Mismatch {
        /// The network.
        network: NetworkId,
        /// Which of its subnets, from 0 on.
        number: usize,
        /// The subnet it has.
        has: IpNet,
    },
    /// Addresses of the network are leased still: release them first. Nothing was changed.
    #[error("network {network} has {leases} leases")]
    InUse {
        /// The network.
        network: NetworkId,
        /// How many.
        leases: usize,
    },
    /// Something else failed: for other implementations of [`Ipam`](crate::Ipam).
    #[error("{doing} failed")]
    Other {
        /// What was being done.
        doing: &'static str,
        /// Why it failed.
        source: Arc<dyn Error + Send + Sync>,
    },
}

impl From<StoreError> for IpamError {
    fn from(error: StoreError) -> Self {
        Self::Store(Arc::new(error))
    }
}

impl From<CommitError> for IpamError {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Ambiguous(error) => Self::InDoubt(Arc::new(error)),
            CommitError::Failed(error) => Self::Store(Arc::new(error)),
            CommitError::Conflict { .. } => Self::Contended { attempts: 1 },
            error => Self::Commit(Arc::new(error)),
        }
    }
}

/// Why one claim was not granted. Nothing was claimed for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ClaimRefusal<T: fmt::Display = IpAddr> {
    /// There is none left: release some, wait for those that rest, or grow the network by a subnet.
    #[error("{pool} is exhausted: {in_use} in use, {resting} resting")]
    Exhausted {
        /// What is.
        pool: PoolName,
        /// How many are in use.
        in_use: u128,
        /// How many were given back and rest.
        resting: u128,
    },
    /// Another owner has it.
    #[error("{wanted} is in use")]
    Taken {
        /// What was asked for.
        wanted: T,
    },
    /// It was given back and rests.
    #[error("{wanted} was in use and rests until {until}")]
    Resting {
        /// What was asked for.
        wanted: T,
        /// Until when, if nothing else is released with it.
        until: UnixTime,
    },
    /// It is never leased.
    #[error("{wanted} {why}")]
    Reserved {
        /// What was asked for.
        wanted: T,
        /// Why not.
        why: Reserved,
    },
    /// The owner has another already, and only one: release that, or claim for another owner.
    #[error("the owner has {has} already, not {wanted}")]
    Other {
        /// What was asked for.
        wanted: T,
        /// What the owner has.
        has: T,
    },
    /// The network has no subnet of this family: grow it by one.
    #[error("the network has no {family} subnet")]
    NoSubnet {
        /// The family asked for.
        family: IpFamily,
    },
}

/// What can be exhausted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum PoolName {
    /// The subnets of a network.
    Subnets(Vec<IpNet>),
    /// The VNIs that are handed out.
    Vnis,
    /// The ports of a protocol that are handed out.
    Ports(Protocol),
}

impl fmt::Display for PoolName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Subnets(nets) => {
                for (at, net) in nets.iter().enumerate() {
                    write!(f, "{}{net}", if at > 0 { ", " } else { "" })?;
                }
                Ok(())
            }
            Self::Vnis => f.write_str("the range of VNIs"),
            Self::Ports(protocol) => write!(f, "the range of {protocol} ports"),
        }
    }
}

/// Why a single claim was not granted.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ClaimError<T: fmt::Display + fmt::Debug = IpAddr> {
    /// It was refused. Nothing was claimed.
    #[error("{0}")]
    Refused(ClaimRefusal<T>),
    /// It could not be decided or written down.
    #[error(transparent)]
    Failed(#[from] IpamError),
}
