//! Our allocator: subnets and addresses of a space, in a store.

mod audit;
mod leases;
pub(crate) mod record;
mod space;
mod subnets;
mod together;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use ipnet::IpNet;
use overlay_core::{IpFamily, NetworkId, NodeId, Prefix, Store, UnixTime};
use serde::{Deserialize, Serialize};

use crate::ledger::Ledger;
use crate::ledger::block::Rest;
use crate::ledger::combine::Combiner;
use crate::ledger::ground::{Keys, ROOT};
use crate::{AddressRequest, ClaimRefusal, Ipam, IpamError, Lease, Pool, Release, Subnet, SubnetRequest, SubnetUsage};
pub use audit::Audit;
use leases::Known;
use space::Catalog;

/// Subnets and addresses of one address space, in a [`Store`]: any number of managers may work on it at once.
///
/// A handle that is shared by reference; callers that come at once have their claims written in one commit. What it
/// remembers of the store may be stale: every commit compares what it rests on, so that costs a second attempt and never
/// correctness.
#[derive(Debug)]
pub struct Allocator {
    ledger: Ledger,
    config: Config,
    catalog: Mutex<Catalog>,
    loaded: Mutex<BTreeMap<NetworkId, Known>>,
    /// Where callers meet that change the space: all write to one record.
    space: Combiner<(), ()>,
}

/// How addresses of a space are handed out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// Where subnets are taken from that nobody chose, the first pool first. [`Pool::global`] by default.
    pub pools: Vec<Pool>,
    /// Never part of a subnet unless it is claimed even if occupied: what else is in use in the company.
    pub exclusions: Vec<IpNet>,
    /// How long an address rests after its release, at least; at most twice as long, and then [`skew`](Self::skew) twice. 60 s by default: as long as
    /// neighbours' caches and resolvers may remember it.
    pub rest: Duration,
    /// By how much any two managers' clocks may differ, 5 s by default. An address rests so much longer.
    pub skew: Duration,
    /// Which of the free addresses is leased.
    pub order: PickOrder,
    /// From how many percent in use [`SubnetUsage::warning`] is set. 80 by default.
    pub warn_at: u8,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            pools: Pool::global(),
            exclusions: Vec::new(),
            rest: Duration::from_secs(60),
            skew: Duration::from_secs(5),
            order: PickOrder::NextFit,
            warn_at: 80,
        }
    }
}

/// Which of the free numbers is leased.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PickOrder {
    /// The one after the last, around, each manager in blocks of its own: what was given back is leased again last. The
    /// place is kept in the store.
    #[default]
    NextFit,
    /// The lowest. Several managers get into each other's way.
    Lowest,
    /// One at random, by the allocator's seed: for addresses that nobody should guess from others. In an IPv6 /64 each lease has
    /// a block of its own then.
    Random,
}

impl Allocator {
    /// An allocator whose records are under `root`: each space needs another, and none may begin with another's. `manager` is who works here: two that live at once
    /// must differ. `seed` decides [`PickOrder::Random`].
    ///
    /// # Errors
    /// If the root is longer than 512 bytes.
    pub fn new(
        store: Arc<dyn Store>,
        root: &Prefix,
        manager: NodeId,
        config: Config,
        seed: [u8; 32],
    ) -> Result<Self, RootError> {
        let keys = Keys::new(root).ok_or(RootError { found: root.as_bytes().len() })?;
        let rest = Rest { time: config.rest, skew: config.skew };
        let ledger = Ledger::new(store, keys, manager, rest, config.order).seeded(seed);
        let catalog = Mutex::new(Catalog::new(&config));
        Ok(Self { ledger, config, catalog, loaded: Mutex::default(), space: Combiner::default() })
    }

    /// How addresses are handed out.
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// Leases of several networks or families.
    async fn release_several(&self, leases: &[Lease], now: UnixTime) -> Result<Vec<Release>, IpamError> {
        let mut answers = vec![Release::Gone; leases.len()];
        let mut alike: BTreeMap<(NetworkId, IpFamily), Vec<usize>> = BTreeMap::new();
        for (place, lease) in leases.iter().enumerate() {
            alike.entry((lease.network, lease.family())).or_default().push(place);
        }
        for places in alike.into_values() {
            let some: Vec<Lease> = places.iter().map(|place| leases[*place].clone()).collect();
            for (place, answer) in places.iter().zip(self.release(&some, now).await?) {
                answers[*place] = answer;
            }
        }
        Ok(answers)
    }

    fn catalog(&self) -> MutexGuard<'_, Catalog> {
        self.catalog.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn loaded(&self) -> MutexGuard<'_, BTreeMap<NetworkId, Known>> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Ipam for Allocator {
    async fn claim_subnets(
        &self,
        network: NetworkId,
        requests: &[SubnetRequest],
        _now: UnixTime,
    ) -> Result<Vec<Subnet>, IpamError> {
        self.claim_all(network, requests).await
    }

    async fn subnets(&self, network: NetworkId) -> Result<Vec<Subnet>, IpamError> {
        self.forget(network);
        Ok(self.load(network).await?.record.subnets.clone())
    }

    async fn networks(&self) -> Result<Vec<(NetworkId, Vec<Subnet>)>, IpamError> {
        self.all_networks().await
    }

    async fn release_subnets(&self, network: NetworkId, _now: UnixTime) -> Result<(), IpamError> {
        self.release_all(network).await
    }

    async fn claim(
        &self,
        network: NetworkId,
        requests: &[AddressRequest],
        now: UnixTime,
    ) -> Result<Vec<Result<Lease, ClaimRefusal>>, IpamError> {
        let loaded = self.load(network).await?;
        let Some(_alone) = loaded.line.alone() else {
            return Box::pin(self.claim_together((network, &loaded.line), requests, now)).await;
        };
        match self.claim_once(&loaded, requests, now).await? {
            Some(answers) => Ok(answers),
            None => Box::pin(self.claim_again(network, requests, now)).await,
        }
    }

    async fn release(&self, leases: &[Lease], now: UnixTime) -> Result<Vec<Release>, IpamError> {
        let Some(first) = leases.first() else { return Ok(Vec::new()) };
        if leases.iter().any(|lease| lease.network != first.network || lease.family() != first.family()) {
            return Box::pin(self.release_several(leases, now)).await;
        }
        let loaded = match self.load(first.network).await {
            // A network that is gone has no leases.
            Err(IpamError::UnknownNetwork { .. }) => return Ok(vec![Release::Gone; leases.len()]),
            loaded => loaded?,
        };
        let Some(_alone) = loaded.line.alone() else {
            return Box::pin(self.release_together((first.network, &loaded.line), leases, now)).await;
        };
        match self.release_once(&loaded, leases, now).await? {
            Some(answers) => Ok(answers),
            None => Box::pin(self.release_again(first.network, leases, now)).await,
        }
    }

    async fn leases(&self, network: NetworkId) -> Result<Vec<Lease>, IpamError> {
        self.all_leases(network).await
    }

    async fn usage(&self, network: NetworkId, now: UnixTime) -> Result<Vec<SubnetUsage>, IpamError> {
        self.network_usage(network, now).await
    }
}

/// A prefix too long for the root of an allocator's keys. The caller's mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the root of an allocator's keys has at most {ROOT} bytes, not {found}")]
pub struct RootError {
    /// How many bytes were given.
    pub found: usize,
}

/// Tries of what is done again when a record was found to be stale.
const TRIES: u32 = 16;

impl fmt::Display for PickOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NextFit => "next fit",
            Self::Lowest => "lowest",
            Self::Random => "random",
        })
    }
}

#[cfg(test)]
mod tests {
    use overlay_core::MemoryStore;
    use overlay_core::testing::block_on;

    use super::*;

    #[test]
    fn of_networks_that_others_released_nothing_is_kept() {
        let now = UnixTime::from_millis(1_767_225_600_000);
        let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
        let [others, ours] = [1, 2].map(|number| {
            let node = NodeId::from_bytes([number; 16]);
            Allocator::new(Arc::clone(&store), &Prefix::ALL, node, Config::default(), [0; 32]).unwrap()
        });
        for number in 0..10 {
            let network = NetworkId::from_bytes([number % 2 + 1; 16]); // each id comes again, as another network
            let subnets = [SubnetRequest::any(IpFamily::V4)];
            block_on(others.claim_subnets(network, &subnets, now)).unwrap();
            let request = AddressRequest::any("a".parse().unwrap(), IpFamily::V4);
            let lease = block_on(ours.claim_one(network, request, now)).unwrap();
            assert_eq!(block_on(ours.release(&[lease], now)).unwrap(), [Release::Done]);
            block_on(others.release_subnets(network, now)).unwrap();
            if number % 4 > 1 {
                let gone = block_on(ours.subnets(network));
                assert!(matches!(gone, Err(IpamError::UnknownNetwork { .. })));
            }
        }
        let _ = [1, 2].map(|number| block_on(ours.subnets(NetworkId::from_bytes([number; 16]))));
        assert!(ours.loaded().is_empty());
        assert_eq!(ours.ledger.cache().rows(), 0);
    }
}
