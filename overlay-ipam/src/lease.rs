//! Who holds what.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use overlay_core::{EndpointId, IpFamily, Key, NetworkId, NodeId, ServiceId};

use crate::Use;

/// Who a lease is for: 1 to 256 bytes of the caller's choosing, the same for every attempt at the same claim.
///
/// Cheap to clone: up to 38 bytes lie in the owner itself. An id serves, or a text such as `gateway/4axb…` where one object needs several. What was leased to an owner is found
/// again by it after a crash: claiming again gives the same lease.
///
/// ```
/// use overlay_core::EndpointId;
/// use overlay_ipam::LeaseOwner;
///
/// let endpoint = LeaseOwner::from(EndpointId::from_bytes([7; 16]));
/// let other: LeaseOwner = "dns/node-3".parse()?;
/// assert_eq!(other.to_string(), "dns/node-3");
/// assert!(LeaseOwner::new([0; 257]).is_err());
/// # Ok::<(), overlay_ipam::LeaseOwnerError>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseOwner(Key);

impl LeaseOwner {
    /// The most bytes there may be.
    pub const MAX_LEN: usize = 256;

    /// The owner with these bytes.
    ///
    /// # Errors
    /// If there are none or too many.
    pub fn new(bytes: impl AsRef<[u8]>) -> Result<Self, LeaseOwnerError> {
        let bytes = bytes.as_ref();
        let few = (bytes.len() <= Self::MAX_LEN).then(|| Key::new(bytes).ok()).flatten();
        few.map(Self).ok_or(LeaseOwnerError { found: bytes.len() })
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

macro_rules! from_id {
    ($($id:ty),*) => { $(
        impl From<$id> for LeaseOwner {
            fn from(id: $id) -> Self {
                Self(Key::from(id.to_bytes()))
            }
        }
    )* };
}

from_id!(EndpointId, NetworkId, NodeId, ServiceId);

impl FromStr for LeaseOwner {
    type Err = LeaseOwnerError;

    fn from_str(text: &str) -> Result<Self, LeaseOwnerError> {
        Self::new(text)
    }
}

impl fmt::Display for LeaseOwner {
    /// Text as it is; other bytes as an id, or escaped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match <[u8; 16]>::try_from(self.as_bytes()) {
            Ok(id) if !id.iter().all(u8::is_ascii_graphic) => EndpointId::from_bytes(id).fmt(f),
            _ => self.as_bytes().escape_ascii().fmt(f),
        }
    }
}

impl fmt::Debug for LeaseOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LeaseOwner({self})")
    }
}

/// Bytes that are no owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an owner has 1 to {} bytes, not {found}", LeaseOwner::MAX_LEN)]
pub struct LeaseOwnerError {
    /// How many bytes were given.
    pub found: usize,
}

/// An address, leased to an owner until it is released.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lease {
    /// The network.
    pub network: NetworkId,
    /// Who has it.
    pub owner: LeaseOwner,
    /// The address, and the prefix length of its subnet.
    pub address: IpNet,
    /// What for.
    pub purpose: Use,
    /// No other lease of this address in this network has the same: who holds an old lease cannot release a later one.
    pub generation: u64,
}

impl Lease {
    /// The address alone.
    pub fn ip(&self) -> IpAddr {
        self.address.addr()
    }

    pub(crate) fn family(&self) -> IpFamily {
        IpFamily::of(self.ip())
    }
}

impl fmt::Display for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.ip(), self.owner)
    }
}

/// What became of a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Release {
    /// This call gave it back: it is free again, after its rest. Of callers that release the same lease at once, one is told so;
    /// only where the answer to its commit was lost may it have been another.
    Done,
    /// The owner has no lease any more: it was released before, by another caller at the same time, or by a beginning of this
    /// call that was cut short.
    Gone,
    /// The owner has another lease by now: nothing was released.
    Fenced {
        /// Of which generation.
        generation: u64,
    },
}
