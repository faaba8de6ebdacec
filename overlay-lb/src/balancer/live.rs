//! The services that a balancer has, ready to pick from.

use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasher;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use overlay_core::{Change, EndpointId, Instant, IpFamily, Name, Refusal};
use rustc_hash::FxHashMap;
use siphasher::sip::SipHasher13;

use crate::flow::{HashKey, wide};
use crate::{
    Affinity, Clue, Condition, Flow, Ports, Replica, Schedule, Service, Stage, State, TableSize, Timeouts, Tuple,
};

/// Services, indexed.
pub(super) struct Live {
    state: Arc<State>,
    services: BTreeMap<Name, usize>,
    served: Vec<Option<Served>>,
    places: FxHashMap<Place, Lead>,
    /// VIPs, with how many services each has.
    vips: FxHashMap<u128, usize>,
    owners: Vec<Owner>,
    free: Vec<u32>,
    /// Owners of services that went.
    retired: Vec<u32>,
    sources: Sources,
}

/// A VIP, a protocol's number and a port: 0 and 0 where all are served.
type Place = (u128, u8, u16);

/// Where a place leads.
#[derive(Clone, Copy)]
struct Lead {
    service: usize,
    /// The port of the replicas; where 0, the same.
    port: u16,
}

/// A service, with what picks for each family.
struct Served {
    service: Service,
    v4: Pool,
    v6: Pool,
    owners: BTreeMap<EndpointId, u32>,
}

struct Pool {
    schedule: Schedule,
    takers: Vec<(u32, IpAddr)>,
}

/// A replica of a service: what flows belong to.
#[derive(Clone, Copy)]
struct Owner {
    service: usize,
    endpoint: EndpointId,
    flows: u32,
}

/// Who gets a flow.
pub(super) struct Taker {
    pub(super) owner: u32,
    pub(super) replica: SocketAddr,
}

impl Live {
    pub(super) fn new(sources: usize, seed: [u8; 32]) -> Self {
        Self {
            state: Arc::default(),
            services: BTreeMap::new(),
            served: Vec::new(),
            places: FxHashMap::default(),
            vips: FxHashMap::default(),
            owners: Vec::new(),
            free: Vec::new(),
            retired: Vec::new(),
            sources: Sources { known: HashMap::with_hasher(Keyed::new(seed)), most: sources },
        }
    }

    /// Takes a state that passed its check; of one that it cannot take, nothing. Whether flows may have to be cut.
    pub(super) fn become_state(&mut self, state: Arc<State>, size: TableSize) -> Result<bool, Refusal> {
        let last = Arc::clone(&self.state);
        let (mut ready, mut cuts) = (Vec::new(), false);
        for change in last.services.diff(&state.services) {
            let (name, old, new) = match change {
                Change::Add(name, new) => (name, None, Some(new)),
                Change::Replace(name, old, new) => (name, Some(old), Some(new)),
                Change::Remove(name, old) => (name, Some(old), None),
            };
            cuts |= old.is_some_and(|old| !new.is_some_and(|new| keeps_all(old, new)));
            let schedules = new.map(|new| schedules(name, new, size)).transpose()?;
            ready.push((name.clone(), new.cloned().zip(schedules)));
        }
        for (name, _) in &ready {
            self.services.get(name).copied().into_iter().for_each(|at| self.leave(at));
        }
        for (name, new) in ready {
            match new {
                Some((service, schedules)) => self.put(name, service, schedules),
                None => self.retire(&name),
            }
        }
        self.state = state;
        Ok(cuts)
    }

    /// Takes a service's places away.
    fn leave(&mut self, at: usize) {
        let Some(served) = self.served.get(at).and_then(Option::as_ref) else { return };
        for (place, _) in places(&served.service) {
            self.places.remove(&place);
        }
        for vip in served.service.vips.iter().map(|vip| wide(*vip)) {
            match self.vips.get_mut(&vip) {
                Some(count) if *count > 1 => *count -= 1,
                _ => drop(self.vips.remove(&vip)),
            }
        }
    }

    fn put(&mut self, name: Name, service: Service, [mut v4, mut v6]: [Schedule; 2]) {
        let at = self.services.get(&name).copied().unwrap_or_else(|| self.room(name));
        let last = self.served.get_mut(at).and_then(Option::take);
        let mut owners = BTreeMap::new();
        if let Some(last) = last {
            v4.follow(&last.v4.schedule);
            v6.follow(&last.v6.schedule);
            owners = last.owners;
        }
        for endpoint in service.replicas.keys() {
            owners.entry(*endpoint).or_insert_with(|| own(&mut self.owners, &mut self.free, at, *endpoint));
        }
        for (place, port) in places(&service) {
            self.places.insert(place, Lead { service: at, port });
        }
        service.vips.iter().for_each(|vip| *self.vips.entry(wide(*vip)).or_default() += 1);
        let pool = |schedule, family| {
            let takers =
                service.takers(family).filter_map(|(endpoint, _, address)| Some((*owners.get(&endpoint)?, address)));
            Pool { schedule, takers: takers.collect() }
        };
        let (v4, v6) = (pool(v4, IpFamily::V4), pool(v6, IpFamily::V6));
        if let Some(place) = self.served.get_mut(at) {
            *place = Some(Served { service, v4, v6, owners });
        }
    }

    fn room(&mut self, name: Name) -> usize {
        let at = self.served.iter().position(Option::is_none).unwrap_or(self.served.len());
        if at == self.served.len() {
            self.served.push(None);
        }
        // A place that is taken in this call has its service only when it is put there.
        self.services.insert(name, at);
        at
    }

    fn retire(&mut self, name: &Name) {
        let at = self.services.remove(name);
        let served = at.and_then(|at| self.served.get_mut(at)).and_then(Option::take);
        self.retired.extend(served.into_iter().flat_map(|served| served.owners.into_values()));
    }

    /// Forgets owners that are in no service any more: once their flows are gone. O(owners + sources).
    pub(super) fn forget_owners(&mut self) {
        self.free.append(&mut self.retired);
        for served in self.served.iter_mut().flatten() {
            let (free, replicas) = (&mut self.free, &served.service.replicas);
            served.owners.retain(|endpoint, owner| {
                let stays = replicas.contains_key(endpoint);
                if !stays {
                    free.push(*owner);
                }
                stays
            });
        }
        if self.sources.known.is_empty() {
            return;
        }
        let mut stays = vec![true; self.owners.len()];
        for free in &self.free {
            stays.get_mut(*free as usize).into_iter().for_each(|stays| *stays = false);
        }
        self.sources.known.retain(|_, (owner, _)| stays.get(*owner as usize).is_some_and(|stays| *stays));
    }

    /// Whether a flow's place in the state is still there.
    pub(super) fn stands(&self, flow: &Flow) -> bool {
        let Some(owner) = self.owners.get(flow.owner as usize) else { return false };
        let served = self.served.get(owner.service).and_then(Option::as_ref);
        // An owner of a service that went may find another in its place.
        let served = served.filter(|served| served.owners.get(&owner.endpoint) == Some(&flow.owner));
        let replica = served.and_then(|served| served.service.replicas.get(&owner.endpoint));
        let serves =
            |replica: &Replica| replica.condition != Condition::Down && replica.addresses.contains(&flow.replica.ip());
        let lead = self.lead(wide(flow.vip.ip()), flow.protocol.number(), flow.vip.port());
        let leads =
            |lead: Lead| lead.service == owner.service && same_or(lead.port, flow.vip.port()) == flow.replica.port();
        replica.is_some_and(serves) && lead.is_some_and(leads)
    }

    pub(super) fn is_vip(&self, address: u128) -> bool {
        self.vips.contains_key(&address)
    }

    fn lead(&self, vip: u128, protocol: u8, port: u16) -> Option<Lead> {
        self.places.get(&(vip, protocol, port)).or_else(|| self.places.get(&(vip, 0, 0))).copied()
    }

    /// Picks who gets the flow that a packet begins.
    pub(super) fn pick(&mut self, key: &HashKey, tuple: &Tuple, now: Instant) -> Option<Taker> {
        let lead = self.lead(tuple.to, tuple.protocol.number(), tuple.to_port)?;
        let served = self.served.get_mut(lead.service)?.as_mut()?;
        let pool = if tuple.to >> 32 == MAPPED { &mut served.v4 } else { &mut served.v6 };
        let affinity = served.service.affinity;
        let known = affinity.and_then(|_| self.sources.of((lead.service, tuple.from), now));
        let taker = known.and_then(|owner| pool.takers.iter().find(|(taker, _)| *taker == owner).copied());
        let (owner, address) = match taker {
            Some(taker) => taker,
            None => {
                let clue = Clue { source: key.of_address(tuple.from), flow: key.of(tuple) };
                let (takers, owners) = (&pool.takers, &self.owners);
                let flows =
                    |at: usize| takers.get(at).and_then(|(it, _)| owners.get(*it as usize)).map_or(0, |it| it.flows);
                *pool.takers.get(pool.schedule.pick(clue, flows)?)?
            }
        };
        if let Some(Affinity { timeout }) = affinity {
            self.sources.note((lead.service, tuple.from), owner, now + timeout);
        }
        Some(Taker { owner, replica: SocketAddr::new(address, same_or(lead.port, tuple.to_port)) })
    }

    pub(super) fn timeouts_of(&self, owner: u32) -> Option<&Timeouts> {
        let owner = self.owners.get(owner as usize)?;
        self.served.get(owner.service)?.as_ref()?.service.timeouts.as_ref()
    }

    pub(super) fn opened(&mut self, owner: u32) {
        self.owners.get_mut(owner as usize).into_iter().for_each(|owner| owner.flows += 1);
    }

    /// A flow has closed, and will be forgotten.
    pub(super) fn closed(&mut self, owner: u32) {
        self.owners.get_mut(owner as usize).into_iter().for_each(|owner| owner.flows = owner.flows.saturating_sub(1));
    }

    /// A flow that had come so far was forgotten.
    pub(super) fn ended(&mut self, owner: u32, stage: Stage) {
        if stage != Stage::Closing {
            self.closed(owner);
        }
    }

    pub(super) fn flows_of(&self, service: &Name, endpoint: EndpointId) -> u32 {
        let served = self.services.get(service).and_then(|at| self.served.get(*at)?.as_ref());
        let owner = served.and_then(|served| self.owners.get(*served.owners.get(&endpoint)? as usize));
        owner.map_or(0, |owner| owner.flows)
    }

    pub(super) fn forget_sources(&mut self, now: Instant) {
        self.sources.known.retain(|_, (_, until)| *until >= now);
    }

    pub(super) fn remembers(&self) -> bool {
        !self.sources.known.is_empty()
    }
}

fn own(owners: &mut Vec<Owner>, free: &mut Vec<u32>, service: usize, endpoint: EndpointId) -> u32 {
    let owner = Owner { service, endpoint, flows: 0 };
    if let Some(at) = free.pop()
        && let Some(place) = owners.get_mut(at as usize)
    {
        *place = owner;
        return at;
    }
    owners.push(owner);
    owners.len() as u32 - 1
}

/// Whether no flow of a service has to be cut for another value of it.
fn keeps_all(old: &Service, new: &Service) -> bool {
    let stays = |(endpoint, replica): (&EndpointId, &Replica)| {
        let now = new.replicas.get(endpoint);
        now.is_some_and(|now| now.condition != Condition::Down && now.addresses == replica.addresses)
    };
    old.vips == new.vips && old.ports == new.ports && old.replicas.iter().all(stays)
}

fn schedules(name: &Name, service: &Service, size: TableSize) -> Result<[Schedule; 2], Refusal> {
    let schedule = |family| {
        let takers: Vec<_> = service.takers(family).map(|(endpoint, replica, _)| (endpoint, replica.weight)).collect();
        Schedule::new(service.scheduler, &takers, size)
            .map_err(|error| Refusal::new(format!("service {name}"), service.scheduler.to_string(), error.to_string()))
    };
    Ok([schedule(IpFamily::V4)?, schedule(IpFamily::V6)?])
}

/// A service's places, and the ports that they lead to.
fn places(service: &Service) -> Vec<(Place, u16)> {
    let of_vip = |vip: &IpAddr| {
        let vip = wide(*vip);
        match &service.ports {
            Ports::All => vec![((vip, 0, 0), 0)],
            Ports::Named(named) => {
                let place = |it: &crate::ServedPort| ((vip, it.protocol.number(), it.port.get()), it.target.get());
                named.iter().map(place).collect()
            }
        }
    };
    service.vips.iter().flat_map(of_vip).collect()
}

const fn same_or(lead: u16, port: u16) -> u16 {
    if lead == 0 { port } else { lead }
}

/// Which replica a source had last, and until when that counts.
struct Sources {
    known: HashMap<(usize, u128), (u32, Instant), Keyed>,
    most: usize,
}

impl Sources {
    fn of(&self, source: (usize, u128), now: Instant) -> Option<u32> {
        self.known.get(&source).filter(|(_, until)| *until >= now).map(|(owner, _)| *owner)
    }

    fn note(&mut self, source: (usize, u128), owner: u32, until: Instant) {
        if self.known.len() < self.most || self.known.contains_key(&source) {
            self.known.insert(source, (owner, until));
        }
    }
}

/// A hash that clients cannot steer.
#[derive(Clone)]
struct Keyed(u64, u64);

impl Keyed {
    fn new(seed: [u8; 32]) -> Self {
        let word = |at: usize| seed.iter().skip(at).take(8).fold(0_u64, |word, byte| word << 8 | u64::from(*byte));
        Self(word(16), word(24))
    }
}

impl BuildHasher for Keyed {
    type Hasher = SipHasher13;

    fn build_hasher(&self) -> SipHasher13 {
        SipHasher13::new_with_keys(self.0, self.1)
    }
}

const MAPPED: u128 = 0xffff;
