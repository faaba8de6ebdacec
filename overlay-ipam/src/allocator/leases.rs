//! Addresses in the store: claimed and released.

use std::net::IpAddr;
use std::sync::Arc;

use overlay_core::{IpFamily, NetworkId, UnixTime};

use super::record::Network;
use super::space::corrupt;
use super::together::Line;
use super::{Allocator, TRIES};
use crate::ipam::windows;
use crate::ledger::Few;
use crate::ledger::claim::{Outcome, Want};
use crate::ledger::ground::{Ground, Plot};
use crate::ledger::record::Held;
use crate::ledger::release::Return;
use crate::range::AddressRange;
use crate::subnet::hosts;
use crate::{
    AddressRequest, ClaimRefusal, IpNet, IpamError, Lease, LeaseOwner, PoolName, Release, Reserved, Subnet, Use,
};

/// A network as it was last read, and the grounds of its two families.
#[derive(Debug)]
pub(crate) struct Loaded {
    network: NetworkId,
    pub(crate) record: Network,
    grounds: [Ground; 2],
    /// Where callers of the network meet.
    pub(super) line: Arc<Line>,
}

/// A network as it was last read.
#[derive(Debug, Clone)]
pub(super) struct Known {
    loaded: Arc<Loaded>,
    /// It has to be read again before it is used.
    stale: bool,
}

impl Loaded {
    pub(crate) fn ground(&self, family: IpFamily) -> &Ground {
        &self.grounds[usize::from(family == IpFamily::V6)]
    }

    fn subnet_of(&self, address: IpAddr) -> Option<(u8, &Subnet)> {
        let mut all = (0_u8..).zip(&self.record.subnets);
        all.find(|(_, subnet)| subnet.net.contains(&address))
    }

    /// The address of a lease, with its prefix length.
    pub(crate) fn address(&self, held: &Held) -> Option<IpNet> {
        let subnet = self.record.subnets.get(usize::from(held.plot))?;
        let address = AddressRange::from(subnet.net).at(held.number);
        IpNet::new(address, subnet.net.prefix_len()).ok()
    }

    pub(crate) fn lease(&self, owner: LeaseOwner, held: Held) -> Option<Lease> {
        let address = self.address(&held)?;
        Some(Lease { network: self.network, owner, address, purpose: held.purpose, generation: held.generation })
    }

    /// What the ledger is to give back for a lease.
    fn give_back<'l>(&self, lease: &'l Lease) -> Return<'l> {
        let number = self.subnet_of(lease.ip()).and_then(|(index, subnet)| {
            let offset = AddressRange::from(subnet.net).offset(lease.ip())?;
            Some((index, offset))
        });
        Return { owner: &lease.owner, generation: lease.generation, of: number }
    }

    fn nets(&self, family: IpFamily) -> Vec<IpNet> {
        self.record.subnets.iter().filter(|subnet| subnet.family() == family).map(Subnet::net).collect()
    }
}

impl Allocator {
    pub(super) fn forget(&self, network: NetworkId) {
        if let Some(known) = self.loaded().get_mut(&network) {
            known.stale = true;
        }
    }

    /// The network as it was last read, or is.
    pub(super) async fn load(&self, network: NetworkId) -> Result<Arc<Loaded>, IpamError> {
        let known = self.loaded().get(&network).cloned();
        let former = match known {
            Some(Known { loaded, stale: false }) => return Ok(loaded),
            known => known.map(|known| known.loaded.record.number),
        };
        let key = self.network_key(network);
        let Some(entry) = self.ledger.store.get(&key).await? else {
            self.bury(network, former);
            return Err(IpamError::UnknownNetwork { network });
        };
        let record = Network::parse(&entry.value).map_err(|flaw| corrupt(&key, flaw))?;
        self.bury(network, former.filter(|former| *former != record.number));
        let guard = Some((key, entry));
        let ground = |family: IpFamily, kind| Ground {
            number: record.number,
            kind,
            plots: (0_u8..).zip(&record.subnets).filter(|(_, of)| of.family() == family).map(plot).collect(),
            guard: guard.clone(),
        };
        let grounds = [ground(IpFamily::V4, 4), ground(IpFamily::V6, 6)];
        let mut all = self.loaded();
        let line = all.get(&network).map(|former| Arc::clone(&former.loaded.line)).unwrap_or_default();
        let loaded = Arc::new(Loaded { network, record, grounds, line });
        all.insert(network, Known { loaded: Arc::clone(&loaded), stale: false });
        Ok(loaded)
    }

    /// Reads the network and claims, until it was still the same.
    pub(super) async fn claim_addresses(
        &self,
        network: NetworkId,
        requests: &[AddressRequest],
        now: UnixTime,
    ) -> Result<Vec<Result<Lease, ClaimRefusal>>, IpamError> {
        for _ in 0..TRIES {
            let loaded = self.load(network).await?;
            match self.claim_once(&loaded, requests, now).await? {
                Some(answers) => return Ok(answers),
                None => self.forget(network),
            }
        }
        Err(IpamError::Contended { attempts: TRIES })
    }

    /// After the network has turned out to be another than was known.
    pub(super) async fn claim_again(
        &self,
        network: NetworkId,
        requests: &[AddressRequest],
        now: UnixTime,
    ) -> Result<Vec<Result<Lease, ClaimRefusal>>, IpamError> {
        self.forget(network);
        self.claim_addresses(network, requests, now).await
    }

    /// `None` if the network is another by now.
    pub(super) async fn claim_once(
        &self,
        loaded: &Loaded,
        requests: &[AddressRequest],
        now: UnixTime,
    ) -> Result<Option<Vec<Result<Lease, ClaimRefusal>>>, IpamError> {
        let mut answers: Vec<Option<Result<Lease, ClaimRefusal>>> = vec![None; requests.len()];
        for family in FAMILIES {
            let mut wants = Few::with_capacity(requests.len());
            for (answer, request) in open(&mut answers, requests, family) {
                match want(loaded, request) {
                    Ok(want) => wants.push(want),
                    Err(refusal) => *answer = Some(Err(refusal)),
                }
            }
            if wants.is_empty() {
                continue;
            }
            let outcomes = self.ledger.claim(loaded.ground(family), &wants, now).await?;
            drop(wants);
            let Some(outcomes) = outcomes else { return Ok(None) };
            for ((place, request), outcome) in open(&mut answers, requests, family).zip(outcomes) {
                *place = answer(loaded, request, outcome);
            }
        }
        Ok(answers.into_iter().collect())
    }

    /// Leases of one network, of both families.
    pub(super) async fn release_addresses(
        &self,
        network: NetworkId,
        leases: &[Lease],
        now: UnixTime,
    ) -> Result<Vec<Release>, IpamError> {
        let mut answers = vec![Release::Gone; leases.len()];
        for family in FAMILIES {
            let of_it = leases.iter().zip(0..).filter(|(lease, _)| lease.family() == family);
            let (some, places): (Vec<Lease>, Vec<usize>) = of_it.map(|(lease, place)| (lease.clone(), place)).unzip();
            for (place, answer) in places.into_iter().zip(self.release_alike(network, &some, now).await?) {
                answers[place] = answer;
            }
        }
        Ok(answers)
    }

    /// Reads the network and gives back what is leased of a family of it, until it was still the same.
    async fn release_alike(
        &self,
        network: NetworkId,
        leases: &[Lease],
        now: UnixTime,
    ) -> Result<Vec<Release>, IpamError> {
        if leases.is_empty() {
            return Ok(Vec::new());
        }
        for _ in 0..TRIES {
            let loaded = match self.load(network).await {
                Ok(loaded) => loaded,
                // A network that is gone has no leases.
                Err(IpamError::UnknownNetwork { .. }) => return Ok(vec![Release::Gone; leases.len()]),
                Err(error) => return Err(error),
            };
            match self.release_once(&loaded, leases, now).await? {
                Some(answers) => return Ok(answers),
                None => self.forget(network),
            }
        }
        Err(IpamError::Contended { attempts: TRIES })
    }

    /// After the network has turned out to be another than was known.
    pub(super) async fn release_again(
        &self,
        network: NetworkId,
        leases: &[Lease],
        now: UnixTime,
    ) -> Result<Vec<Release>, IpamError> {
        self.forget(network);
        self.release_alike(network, leases, now).await
    }

    /// Leases of one family. `None` if the network is another by now.
    pub(super) async fn release_once(
        &self,
        loaded: &Loaded,
        leases: &[Lease],
        now: UnixTime,
    ) -> Result<Option<Vec<Release>>, IpamError> {
        let family = leases.first().map_or(IpFamily::V4, Lease::family);
        let returns: Few<Return<'_>> = leases.iter().map(|lease| loaded.give_back(lease)).collect();
        self.ledger.release(loaded.ground(family), &returns, now).await
    }
}

/// Of the requests of a family those that have no answer yet, each with its place for one.
fn open<'r, T>(
    answers: &'r mut [Option<T>],
    requests: &'r [AddressRequest],
    family: IpFamily,
) -> impl Iterator<Item = (&'r mut Option<T>, &'r AddressRequest)> {
    let both = answers.iter_mut().zip(requests);
    both.filter(move |(answer, request)| answer.is_none() && request.family == family)
}

const FAMILIES: [IpFamily; 2] = [IpFamily::V4, IpFamily::V6];

/// What the ledger is to find for a request.
fn want<'r>(loaded: &Loaded, request: &'r AddressRequest) -> Result<Want<'r>, ClaimRefusal> {
    let (owner, purpose) = (&request.owner, request.purpose);
    if loaded.ground(request.family).plots.is_empty() {
        return Err(ClaimRefusal::NoSubnet { family: request.family });
    }
    let Some(wanted) = request.address else { return Ok(Want { owner, purpose, exact: None }) };
    let Some((index, subnet)) = loaded.subnet_of(wanted).filter(|(_, of)| of.family() == request.family) else {
        return Err(ClaimRefusal::Reserved { wanted, why: Reserved::Outside });
    };
    match (subnet.reserved(wanted), AddressRange::from(subnet.net).offset(wanted)) {
        (Some(why), _) => Err(ClaimRefusal::Reserved { wanted, why }),
        (None, Some(offset)) => Ok(Want { owner, purpose, exact: Some((index, offset)) }),
        (None, None) => Err(ClaimRefusal::Reserved { wanted, why: Reserved::Outside }),
    }
}

/// `None` if the outcome is of another state of the network.
fn answer(loaded: &Loaded, request: &AddressRequest, outcome: Outcome) -> Option<Result<Lease, ClaimRefusal>> {
    let refusal = match (outcome, request.address) {
        (Outcome::Granted(held), _) => return loaded.lease(request.owner.clone(), held).map(Ok),
        (Outcome::Full { used, resting }, _) => {
            let pool = PoolName::Subnets(loaded.nets(request.family));
            ClaimRefusal::Exhausted { pool, in_use: used, resting }
        }
        (Outcome::Taken, Some(wanted)) => ClaimRefusal::Taken { wanted },
        (Outcome::Resting(until), Some(wanted)) => ClaimRefusal::Resting { wanted, until },
        (Outcome::Other(held), Some(wanted)) => ClaimRefusal::Other { wanted, has: loaded.address(&held)?.addr() },
        (Outcome::Later | Outcome::Taken | Outcome::Resting(_) | Outcome::Other(_), _) => return None,
    };
    Some(Err(refusal))
}

/// A subnet's addresses as numbers.
fn plot((index, subnet): (u8, &Subnet)) -> Plot {
    let whole = AddressRange::from(subnet.net);
    let taken = subnet.gateway.into_iter().chain(subnet.auxiliary.values().copied());
    let mut reserved: Vec<u128> = taken.filter_map(|address| whole.offset(address)).collect();
    let hosts = hosts(subnet.net);
    reserved.extend((hosts.first() > whole.first()).then_some(0));
    reserved.extend((hosts.last() < whole.last()).then(|| whole.span()));
    reserved.sort_unstable();
    reserved.dedup();
    let windows = [windows(subnet, Use::Endpoint), windows(subnet, Use::Vip)];
    Plot { index, last: whole.span(), reserved, windows }
}
