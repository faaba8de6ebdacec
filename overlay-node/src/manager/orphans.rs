//! What belongs to nobody: found, and given back.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use overlay_core::{Commit, CommitError, Key, NetworkId, Protocol, UnixTime};
use overlay_ipam::{IpamError, Lease, LeaseOwner};

use super::Manager;
use super::allocate::Grave;
use super::transaction::{json, unreleased};
use crate::catalogue::record::{Held, Object};
use crate::{ControlError, Endpoint, Network, Service};

/// How long it is remembered that there was an object: far longer than a commit can be under way.
const REMEMBERED: Duration = Duration::from_secs(3600);

/// Whose leases there are.
#[derive(Default)]
struct Living {
    owners: BTreeSet<LeaseOwner>,
    /// What cannot be read, as owners begin: nothing is taken from it.
    unreadable: BTreeSet<Vec<u8>>,
}

impl Manager {
    /// Gives back what is leased for objects that are there no more, and gives how much that was. A claim that came late has made such
    /// a lease, or one of a manager that died.
    ///
    /// What is leased is read before what lives. A record is there before anything is claimed for it, and an owner that is gone never
    /// comes again, since its number is that of a commit: so what belongs to none of the living then is nobody's for ever.
    pub(super) async fn reclaim(&self, now: UnixTime) -> Result<usize, ControlError> {
        let vnis = self.vnis.leases().await.map_err(unreleased)?;
        let mut ports = Vec::new();
        for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
            let leases = self.ports.leases(protocol).await.map_err(unreleased)?;
            ports.extend(leases.into_iter().map(|lease| (protocol, lease)));
        }
        let own_ports = self.own_ports.leases(Protocol::Udp).await.map_err(unreleased)?;
        let networks = self.ipam.networks().await.map_err(unreleased)?;
        let mut addresses = Vec::new();
        for (network, _) in &networks {
            addresses.extend(self.leases_on(*network).await?);
        }
        let living = self.living().await?;
        let orphans: Vec<Lease> = addresses.into_iter().filter(|lease| living.has_lost(&lease.owner)).collect();
        self.ipam.release(&orphans, now).await.map_err(unreleased)?;
        let mut reclaimed = orphans.len();
        for lease in vnis.iter().filter(|lease| living.has_lost(&lease.owner)) {
            self.vnis.release(lease, now).await.map_err(unreleased)?;
            reclaimed += 1;
        }
        for lease in own_ports.iter().filter(|lease| living.has_lost(&lease.owner)) {
            self.own_ports.release(Protocol::Udp, lease, now).await.map_err(unreleased)?;
            reclaimed += 1;
        }
        for (protocol, lease) in ports.iter().filter(|(_, lease)| living.has_lost(&lease.owner)) {
            self.ports.release(*protocol, lease, now).await.map_err(unreleased)?;
            reclaimed += 1;
        }
        for (network, subnets) in networks {
            if self.reclaim_subnets(network, now).await? {
                reclaimed += subnets.len();
            }
        }
        Ok(reclaimed)
    }

    /// Gives a network's subnets back if there is no such network. Its id is spent before that.
    async fn reclaim_subnets(&self, id: NetworkId, now: UnixTime) -> Result<bool, ControlError> {
        let key = self.keys.network(id);
        if self.store.get(&key).await?.is_some() {
            return Ok(false);
        }
        let grave = Grave { at: now, spent: true };
        let absent = self.run(|snapshot| match snapshot.get(&key)? {
            Some(_) => Ok((Commit::new(), false)),
            None => Ok((self.bury::<Network>(snapshot, Commit::new(), (id, grave))?, true)),
        });
        if !absent.await? {
            return Ok(false);
        }
        self.release_orphans(id, now).await?;
        self.ipam.release_subnets(id, now).await.map_err(unreleased)?;
        Ok(true)
    }

    /// Gives back all that is leased to endpoints and services on a network that has none of either any more.
    pub(super) async fn release_orphans(&self, network: NetworkId, now: UnixTime) -> Result<(), ControlError> {
        let leases = self.leases_on(network).await?.into_iter();
        let ours: Vec<Lease> = leases.filter(|lease| object(&lease.owner).is_some()).collect();
        self.ipam.release(&ours, now).await.map(drop).map_err(unreleased)
    }

    /// Forgets objects that were removed long ago, and gives how many.
    pub(super) async fn forget(&self, now: UnixTime) -> Result<usize, ControlError> {
        let mut forgotten = 0;
        for (key, entry) in self.store.list(&self.keys.all_gone()).await?.entries {
            let Grave { at, .. } = json(&key, &entry.value)?;
            if now - at < REMEMBERED {
                continue;
            }
            match self.store.commit(Commit::new().unchanged(key.clone(), entry.revision).delete(key)).await {
                Ok(_) => forgotten += 1,
                Err(CommitError::Failed(error)) => return Err(error.into()),
                Err(_) => {} // it is a new grave, or next time
            }
        }
        Ok(forgotten)
    }

    pub(super) async fn leases_on(&self, network: NetworkId) -> Result<Vec<Lease>, ControlError> {
        match self.ipam.leases(network).await {
            Err(IpamError::UnknownNetwork { .. }) => Ok(Vec::new()),
            leases => leases.map_err(unreleased),
        }
    }

    async fn living(&self) -> Result<Living, ControlError> {
        let mut living = Living::default();
        self.add_living::<Network>(&mut living).await?;
        self.add_living::<Service>(&mut living).await?;
        self.add_living::<Endpoint>(&mut living).await?;
        Ok(living)
    }

    async fn add_living<T: Object>(&self, living: &mut Living) -> Result<(), ControlError> {
        let (held, unreadable) = self.readable::<T>().await?;
        living.owners.extend(held.iter().map(Held::owner));
        for key in unreadable.into_keys() {
            let id = key.as_bytes().rsplit(|byte| *byte == b'/').next().unwrap_or_default();
            living.unreadable.insert([T::WHAT.as_bytes(), b"/", id].concat());
        }
        Ok(())
    }

    /// All objects of a kind, and the records that are none, with what is wrong with them.
    pub(super) async fn readable<T: Object>(
        &self,
    ) -> Result<(Vec<Held<T>>, BTreeMap<Key, ControlError>), ControlError> {
        let (mut held, mut unreadable) = (Vec::new(), BTreeMap::new());
        for (key, entry) in self.store.list(&self.keys.all(T::WHAT)).await?.entries {
            match Held::decode(&self.keys, &key, &entry) {
                Ok(object) => held.push(object),
                Err(flaw) => drop(unreadable.insert(key, flaw.into())),
            }
        }
        Ok((held, unreadable))
    }
}

impl Living {
    /// Whether an owner was an object of the catalogue and is no more. Others may use the allocators too.
    fn has_lost(&self, owner: &LeaseOwner) -> bool {
        let Some((object, whole)) = object(owner) else { return false };
        LeaseOwner::new(whole).is_ok_and(|whole| !self.owners.contains(&whole)) && !self.unreadable.contains(object)
    }
}

/// The kind and id of the object that an owner is, and these with its number: a service's ports have more behind it. `None` for
/// who is none.
pub(super) fn object(owner: &LeaseOwner) -> Option<(&[u8], &[u8])> {
    let bytes = owner.as_bytes();
    let mut slashes = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
    let (kind, id) = (slashes.next()?, slashes.next()?);
    let end = slashes.next().unwrap_or(bytes.len());
    let known = [Network::WHAT, Service::WHAT, Endpoint::WHAT].iter().any(|what| what.as_bytes() == &bytes[..kind]);
    known.then_some((&bytes[..id], &bytes[..end]))
}
