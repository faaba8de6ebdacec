//! Leases whose owners are gone.

use overlay_core::{NetworkId, UnixTime};
use overlay_ipam::{IpamError, Lease, LeaseOwner};

use super::Manager;
use super::transaction::unreleased;
use crate::ControlError;
use crate::catalogue::record::Object;
use crate::{Endpoint, Service};

impl Manager {
    /// Gives back all that is leased to endpoints and services on a network that has none of either any more.
    pub(super) async fn release_orphans(&self, network: NetworkId, now: UnixTime) -> Result<(), ControlError> {
        let leases = match self.ipam.leases(network).await {
            Err(IpamError::UnknownNetwork { .. }) => return Ok(()),
            leases => leases.map_err(unreleased)?,
        };
        let ours: Vec<Lease> = leases.into_iter().filter(|lease| is_of_an_object(&lease.owner)).collect();
        self.ipam.release(&ours, now).await.map(drop).map_err(unreleased)
    }
}

/// Whether an owner is an object of the catalogue: others may use the allocator too.
fn is_of_an_object(owner: &LeaseOwner) -> bool {
    let kind = |what: &str| owner.as_bytes().strip_prefix(what.as_bytes()).is_some_and(|rest| rest.starts_with(b"/"));
    kind(Endpoint::WHAT) || kind(Service::WHAT)
}
