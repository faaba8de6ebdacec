//! What is leased, to whom that lives, and how full it is.

use std::collections::BTreeSet;

use overlay_core::{IpFamily, NetworkId, UnixTime};

use super::{Allocator, TRIES};
use crate::{AddressRange, IpNet, Ipam, IpamError, Lease, LeaseOwner, Release, SubnetUsage, Usage, Use};

/// What an [`audit`](Allocator::audit) found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Audit {
    /// How many leases belong to living owners.
    pub living: usize,
    /// Leases whose owners do not live: leaked, by a crash between the claim and its use say.
    pub leaked: Vec<Lease>,
    /// Addresses that are marked as used but leased to nobody. There are none unless somebody wrote into the store.
    pub lost: Vec<IpNet>,
    /// Leases of addresses that are not marked as used, or that another lease has, too. There are none unless somebody wrote into
    /// the store; release one of the two, and move its owner.
    pub unbacked: Vec<Lease>,
}

impl Audit {
    /// Whether all is as it should be.
    pub const fn is_clean(&self) -> bool {
        self.leaked.is_empty() && self.lost.is_empty() && self.unbacked.is_empty()
    }
}

impl Allocator {
    /// Compares the leases of `network` with the owners that live, and with what is marked as used. Changes nothing; claims and releases
    /// may go on meanwhile.
    ///
    /// Take the living owners *after* everything that claims for new ones: a lease whose owner is just being made is leaked
    /// for this.
    ///
    /// # Errors
    /// What the store was short of.
    pub async fn audit(&self, network: NetworkId, living: &BTreeSet<LeaseOwner>) -> Result<Audit, IpamError> {
        let loaded = self.load(network).await?;
        let mut audit = Audit::default();
        for lease in self.all_leases(network).await? {
            match living.contains(&lease.owner) {
                true => audit.living += 1,
                false => audit.leaked.push(lease),
            }
        }
        for family in [IpFamily::V4, IpFamily::V6] {
            let found = self.ledger.contradictions(loaded.ground(family)).await?;
            let lease = |(owner, held)| loaded.lease(owner, held);
            audit.unbacked.extend(found.unbacked.into_iter().filter_map(lease));
            for (plot, number) in found.lost {
                let subnet = loaded.record.subnets.get(usize::from(plot));
                audit.lost.extend(subnet.and_then(|subnet| {
                    IpNet::new(AddressRange::from(subnet.net).at(number), subnet.net.prefix_len()).ok()
                }));
            }
        }
        Ok(audit)
    }

    /// Gives back what an audit found leaked or lost, if it still is: a lease that was claimed anew since then stays. Gives
    /// how many addresses are free again, after their rest.
    ///
    /// # Errors
    /// What the store was short of; some may be given back.
    pub async fn reclaim(&self, network: NetworkId, audit: &Audit, now: UnixTime) -> Result<usize, IpamError> {
        let released = self.release(&audit.leaked, now).await?;
        let mut freed = released.into_iter().filter(|release| *release == Release::Done).count();
        let loaded = self.load(network).await?;
        for family in [IpFamily::V4, IpFamily::V6] {
            let ground = loaded.ground(family);
            for plot in &ground.plots {
                let Some(subnet) = loaded.record.subnets.get(usize::from(plot.index)) else { continue };
                let whole = AddressRange::from(subnet.net);
                let mut lost: Vec<u128> = audit.lost.iter().filter_map(|lost| whole.offset(lost.addr())).collect();
                lost.sort_unstable();
                for some in lost.chunk_by(|a, b| plot.split(*a).0 == plot.split(*b).0) {
                    freed += self.ledger.mend(ground, plot, some, now).await?.unwrap_or(0);
                }
            }
        }
        Ok(freed)
    }

    /// Ends all rests in `network` now: after a clock was wrong, which made addresses rest until a date far away.
    ///
    /// # Errors
    /// What the store was short of; some rests may be ended.
    pub async fn end_rests(&self, network: NetworkId) -> Result<(), IpamError> {
        for _ in 0..TRIES {
            let loaded = self.load(network).await?;
            let mut stale = false;
            for family in [IpFamily::V4, IpFamily::V6] {
                let ground = loaded.ground(family);
                for plot in &ground.plots {
                    stale |= self.ledger.wake(ground, plot).await?.is_none();
                }
            }
            if !stale {
                return Ok(());
            }
            self.forget(network);
        }
        Err(IpamError::Contended { attempts: TRIES })
    }

    pub(super) async fn all_leases(&self, network: NetworkId) -> Result<Vec<Lease>, IpamError> {
        self.forget(network);
        let loaded = self.load(network).await?;
        let mut leases = Vec::new();
        for family in [IpFamily::V4, IpFamily::V6] {
            let held = self.ledger.leases(loaded.ground(family)).await?;
            leases.extend(held.into_iter().filter_map(|(owner, held)| loaded.lease(owner, held)));
        }
        Ok(leases)
    }

    pub(super) async fn network_usage(&self, network: NetworkId, now: UnixTime) -> Result<Vec<SubnetUsage>, IpamError> {
        self.forget(network);
        let loaded = self.load(network).await?;
        let mut usages = Vec::new();
        for (index, subnet) in (0_u8..).zip(&loaded.record.subnets) {
            let ground = loaded.ground(subnet.family());
            let Some(plot) = ground.plot(index) else { continue };
            let apart = subnet.ranges(Use::Vip) != subnet.ranges(Use::Endpoint);
            for purpose in [Use::Endpoint, Use::Vip].into_iter().take(1 + usize::from(apart)) {
                let (in_use, resting, capacity) = self.ledger.count(ground, plot, purpose, now).await?;
                let usage = Usage { capacity, in_use, resting };
                let warning = usage.is_above(self.config.warn_at);
                let ranges = subnet.ranges(purpose);
                usages.push(SubnetUsage { net: subnet.net, purpose, ranges, usage, warning, at: now });
            }
        }
        Ok(usages)
    }
}
