//! Addresses in the store: claimed and released.

use std::net::IpAddr;
use std::sync::Arc;

use overlay_core::{IpFamily, NetworkId, UnixTime};

use super::record::Network;
use super::space::corrupt;
use super::together::Line;
use super::{Allocator, TRIES};
use crate::ipam::windows;
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

    pub(crate) fn lease(&self, network: NetworkId, owner: LeaseOwner, held: Held) -> Option<Lease> {
        let address = self.address(&held)?;
        Some(Lease { network, owner, address, purpose: held.purpose, generation: held.generation })
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
        let loaded = Arc::new(Loaded { record, grounds, line });
        all.insert(network, Known { loaded: Arc::clone(&loaded), stale: false });
        Ok(loaded)
    }

    pub(super) async fn claim_addresses(
        &self,
        network: NetworkId,
        requests: &[AddressRequest],
        now: UnixTime,
    ) -> Result<Vec<Result<Lease, ClaimRefusal>>, IpamError> {
        for _ in 0..TRIES {
            let loaded = self.load(network).await?;
            let mut answers: Vec<Option<Result<Lease, ClaimRefusal>>> = vec![None; requests.len()];
            let mut stale = false;
            for family in FAMILIES {
                let mut wants = Vec::with_capacity(requests.len());
                for (answer, request) in open(&mut answers, requests, family) {
                    match want(&loaded, request) {
                        Ok(want) => wants.push(want),
                        Err(refusal) => *answer = Some(Err(refusal)),
                    }
                }
                if wants.is_empty() {
                    continue;
                }
                let Some(outcomes) = self.ledger.claim(loaded.ground(family), &wants, now).await? else {
                    stale = true;
                    break;
                };
                for ((place, request), outcome) in open(&mut answers, requests, family).zip(outcomes) {
                    *place = answer(&loaded, network, request, outcome);
                }
            }
            match answers.into_iter().collect::<Option<Vec<_>>>() {
                Some(answers) if !stale => return Ok(answers),
                _ => self.forget(network),
            }
        }
        Err(IpamError::Contended { attempts: TRIES })
    }

    /// Leases of one network.
    pub(super) async fn release_addresses(
        &self,
        leases: &[Lease],
        now: UnixTime,
    ) -> Result<Vec<Release>, IpamError> {
        let v4 = leases.iter().filter(|lease| lease.ip().is_ipv4()).count();
        match v4 == 0 || v4 == leases.len() {
            true => self.release_alike(leases, now).await,
            false => Box::pin(self.release_mixed(leases, now)).await,
        }
    }

    /// Leases of one network and of both families.
    async fn release_mixed(&self, leases: &[Lease], now: UnixTime) -> Result<Vec<Release>, IpamError> {
        let mut answers = vec![Release::Gone; leases.len()];
        for family in FAMILIES {
            let of_it = leases.iter().zip(0..).filter(|(lease, _)| IpFamily::of(lease.ip()) == family);
            let (some, places): (Vec<Lease>, Vec<usize>) = of_it.map(|(lease, place)| (lease.clone(), place)).unzip();
            for (place, answer) in places.into_iter().zip(self.release_alike(&some, now).await?) {
                answers[place] = answer;
            }
        }
        Ok(answers)
    }

    /// Leases of one network and one family.
    async fn release_alike(&self, leases: &[Lease], now: UnixTime) -> Result<Vec<Release>, IpamError> {
        let Some(first) = leases.first() else { return Ok(Vec::new()) };
        for _ in 0..TRIES {
            let loaded = match self.load(first.network).await {
                Ok(loaded) => loaded,
                // A network that is gone has no leases.
                Err(IpamError::UnknownNetwork { .. }) => return Ok(vec![Release::Gone; leases.len()]),
                Err(error) => return Err(error),
            };
            let returns: Vec<Return<'_>> = leases.iter().map(|lease| loaded.give_back(lease)).collect();
            match self.ledger.release(loaded.ground(IpFamily::of(first.ip())), &returns, now).await? {
                Some(answers) => return Ok(answers),
                None => self.forget(first.network),
            }
        }
        Err(IpamError::Contended { attempts: TRIES })
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
fn answer(
    loaded: &Loaded,
    network: NetworkId,
    request: &AddressRequest,
    outcome: Outcome,
) -> Option<Result<Lease, ClaimRefusal>> {
    let refusal = match (outcome, request.address) {
        (Outcome::Granted(held), _) => return loaded.lease(network, request.owner.clone(), held).map(Ok),
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
