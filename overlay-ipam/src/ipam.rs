//! The seam between a manager and whatever hands out addresses.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;
use overlay_core::{IpFamily, NetworkId, UnixTime};

use crate::{
    AddressRange, ClaimError, ClaimRefusal, IpamError, Lease, LeaseOwner, Release, Subnet, SubnetRequest, SubnetUsage,
    Use,
};

/// Hands out subnets and addresses: [`Allocator`](crate::Allocator) is ours, another can ask a company's own system.
///
/// Every call is idempotent, so that a caller who does not know what became of one makes it again: subnets are claimed for
/// a network, addresses for an owner, releases are fenced by generation. A future that is dropped may have had its effect or not. One
/// that is kept and not polled may hold up others of its network, which are decided together with it, as a mutex's guard would: await it or drop it.
#[async_trait]
pub trait Ipam: Send + Sync + fmt::Debug {
    /// Sees to it that `network` has these subnets, and gives all it has, in their order. Those it has already must be
    /// what the first requests ask for; more requests let it grow. All of it is claimed, or nothing.
    ///
    /// # Errors
    /// What is wrong with a request or in the way, or what the store was short of.
    async fn claim_subnets(
        &self,
        network: NetworkId,
        requests: &[SubnetRequest],
        now: UnixTime,
    ) -> Result<Vec<Subnet>, IpamError>;

    /// The subnets of `network`.
    ///
    /// # Errors
    /// [`IpamError::UnknownNetwork`] if it has none.
    async fn subnets(&self, network: NetworkId) -> Result<Vec<Subnet>, IpamError>;

    /// All networks that have subnets claimed through this, with them: what a manager compares with those it knows, to find what
    /// was left behind.
    ///
    /// # Errors
    /// If they could not be read whole.
    async fn networks(&self) -> Result<Vec<(NetworkId, Vec<Subnet>)>, IpamError>;

    /// Gives all subnets of `network` back; without effect if it has none.
    ///
    /// # Errors
    /// [`IpamError::InUse`] if addresses are leased.
    async fn release_subnets(&self, network: NetworkId, now: UnixTime) -> Result<(), IpamError>;

    /// Leases addresses of `network`, one for each request; one refusal does not keep the others from theirs. Who has a
    /// lease of the family already gets that.
    ///
    /// # Errors
    /// If it could not be decided. Some may be leased all the same: claim again.
    async fn claim(
        &self,
        network: NetworkId,
        requests: &[AddressRequest],
        now: UnixTime,
    ) -> Result<Vec<Result<Lease, ClaimRefusal>>, IpamError>;

    /// Gives leases back: each answer says what became of it.
    ///
    /// # Errors
    /// If it could not be decided. Some may be given back all the same: release again.
    async fn release(&self, leases: &[Lease], now: UnixTime) -> Result<Vec<Release>, IpamError>;

    /// All leases of `network`.
    ///
    /// # Errors
    /// If they could not be read whole.
    async fn leases(&self, network: NetworkId) -> Result<Vec<Lease>, IpamError>;

    /// How full the subnets of `network` are.
    ///
    /// # Errors
    /// If it could not be read.
    async fn usage(&self, network: NetworkId, now: UnixTime) -> Result<Vec<SubnetUsage>, IpamError>;

    /// Leases one address.
    ///
    /// # Errors
    /// Why it was refused, or could not be decided.
    async fn claim_one(&self, network: NetworkId, request: AddressRequest, now: UnixTime) -> Result<Lease, ClaimError> {
        let mut answers = self.claim(network, std::slice::from_ref(&request), now).await?;
        match answers.pop() {
            Some(answer) => answer.map_err(ClaimError::Refused),
            None => {
                let source = Arc::from(Box::from("one request has one answer"));
                Err(IpamError::Other { doing: "claim an address", source }.into())
            }
        }
    }
}

/// An address that an owner wants.
///
/// ```
/// use overlay_core::IpFamily;
/// use overlay_ipam::{AddressRequest, Use};
///
/// let endpoint = AddressRequest::any("web.1".parse()?, IpFamily::V4);
/// let vip = AddressRequest { purpose: Use::Vip, ..AddressRequest::any("web".parse()?, IpFamily::V4) };
/// let this = AddressRequest::this("db.1".parse()?, [10, 0, 0, 7].into());
/// # Ok::<(), overlay_ipam::LeaseOwnerError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressRequest {
    /// Who wants it. One owner has at most one address of a family in a network.
    pub owner: LeaseOwner,
    /// Of which family.
    pub family: IpFamily,
    /// What for.
    pub purpose: Use,
    /// This one; any if `None`.
    pub address: Option<IpAddr>,
}

impl AddressRequest {
    /// Any address of `family`, for an endpoint.
    pub const fn any(owner: LeaseOwner, family: IpFamily) -> Self {
        Self { owner, family, purpose: Use::Endpoint, address: None }
    }

    /// The address `address`, for an endpoint.
    pub const fn this(owner: LeaseOwner, address: IpAddr) -> Self {
        Self { owner, family: IpFamily::of(address), purpose: Use::Endpoint, address: Some(address) }
    }
}

/// The part of a subnet where an address may be claimed, for messages and maps.
pub(crate) fn windows(subnet: &Subnet, purpose: Use) -> Vec<(u128, u128)> {
    let whole = AddressRange::from(subnet.net);
    let ranges = subnet.ranges(purpose);
    ranges.into_iter().filter_map(|range| Some((whole.offset(range.first())?, whole.offset(range.last())?))).collect()
}
