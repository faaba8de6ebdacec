//! From who gives a name to what it stands for.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use overlay_core::{Name, Port, Protocol};
use smallvec::SmallVec;

use super::entry::{Sets, Several, Source};
use super::innate::Innate;
use super::knowledge::{port_name, short, tasks_port_name};
use super::{Endpoint, Group, Health, Key, Mode, Service, Zone};
use crate::{DnsName, RecordTtl, Srv};

/// What a name stands for, whoever gives it. Most are given by one endpoint.
pub(super) fn sets(zone: &Zone, key: &[u8], sources: &[Source]) -> Sets {
    let innate = Innate::of(key);
    let bearers = innate.map_or(&[][..], |innate| zone.bearers(innate));
    let alone = match (sources, bearers) {
        ([source], []) => of_one(zone, source),
        ([], [endpoint]) => innate.map(|innate| born(zone, innate, endpoint)),
        _ => None,
    };
    alone.unwrap_or_else(|| collected(zone, key, sources))
}

/// What a name stands for that nobody else gives, where it takes no more than to look at who does.
fn of_one(zone: &Zone, source: &Source) -> Option<Sets> {
    match source {
        Source::Endpoint(id) => zone.endpoint(*id).map(|endpoint| named(zone, endpoint)),
        Source::Service(key) => match group(zone, key)?.1 {
            Service { mode: Mode::Vip(vips), texts, .. } if texts.is_empty() => {
                Some(addresses(zone.policy.service_ttl, vips.iter()))
            }
            _ => None,
        },
        Source::Tasks(key) => {
            let members = &group(zone, key)?.0.members;
            let all_fit = !members.is_empty() && members.iter().all(|endpoint| endpoint.health == Health::Healthy);
            let of_all = members.iter().flat_map(|endpoint| endpoint.addresses.iter());
            all_fit.then(|| addresses(zone.policy.members_ttl, of_all))
        }
        Source::Vip(key) => {
            let (_, service) = group(zone, key)?;
            Some(Sets::Ptr(zone.policy.service_ttl, full(zone, &DnsName::from(&service.name))))
        }
        Source::Port(_) | Source::Records => None,
    }
}

/// These, each once and in order.
fn addresses<'z>(ttl: RecordTtl, all: impl Iterator<Item = &'z IpAddr>) -> Sets {
    let (mut a, mut aaaa) = (SmallVec::<[Ipv4Addr; 16]>::new(), SmallVec::<[Ipv6Addr; 16]>::new());
    for address in all {
        match address {
            IpAddr::V4(address) => a.push(*address),
            IpAddr::V6(address) => aaaa.push(*address),
        }
    }
    a.sort_unstable();
    a.dedup();
    aaaa.sort_unstable();
    aaaa.dedup();
    Sets::of_addresses(ttl, &a, &aaaa)
}

/// What a name stands for that one endpoint has by its id or its address.
pub(super) fn born(zone: &Zone, innate: Innate, endpoint: &Endpoint) -> Sets {
    match innate {
        Innate::Id(_) => named(zone, endpoint),
        Innate::Address(_) => called(zone, endpoint),
    }
}

/// What a name stands for that one endpoint gives.
pub(super) fn named(zone: &Zone, endpoint: &Endpoint) -> Sets {
    let (mut a, mut aaaa) = (SmallVec::<[Ipv4Addr; 4]>::new(), SmallVec::<[Ipv6Addr; 4]>::new());
    for address in endpoint.addresses.iter().filter(|_| endpoint.health != Health::Draining) {
        match address {
            IpAddr::V4(address) => a.push(*address),
            IpAddr::V6(address) => aaaa.push(*address),
        }
    }
    Sets::of_addresses(zone.policy.endpoint_ttl, &a, &aaaa)
}

/// What an address is called that one endpoint has.
fn called(zone: &Zone, endpoint: &Endpoint) -> Sets {
    Sets::Ptr(zone.policy.endpoint_ttl, full(zone, &endpoint.first_name()))
}

fn collected(zone: &Zone, key: &[u8], sources: &[Source]) -> Sets {
    let mut out = Collected::default();
    for source in sources {
        match source {
            Source::Service(service) => out.service(zone, service),
            Source::Tasks(service) => out.tasks(zone, service),
            Source::Port(service) => out.port(zone, service, key),
            Source::Vip(service) => out.vip(zone, service),
            Source::Endpoint(id) => zone.endpoint(*id).into_iter().for_each(|endpoint| out.endpoint(zone, endpoint)),
            Source::Records => out.records(zone, key),
        }
    }
    let innate = Innate::of(key);
    for bearer in innate.into_iter().flat_map(|innate| zone.bearers(innate)) {
        match innate {
            Some(Innate::Address(_)) => out.address(zone, bearer),
            _ => out.endpoint(zone, bearer),
        }
    }
    out.finish()
}

/// What the sources say, before the first rank is chosen.
#[derive(Default)]
struct Collected {
    ranks: [Option<Addresses>; 3], // of services, endpoints, records
    others: Several,
    other_ttl: Option<RecordTtl>,
}

#[derive(Default)]
struct Addresses {
    ttl: RecordTtl,
    v4: Best<Ipv4Addr>,
    v6: Best<Ipv6Addr>,
}

impl Addresses {
    fn add(&mut self, addresses: impl Iterator<Item = (Health, IpAddr)>) {
        for (health, address) in addresses {
            match address {
                IpAddr::V4(address) => self.v4.add(health, address),
                IpAddr::V6(address) => self.v6.add(health, address),
            }
        }
    }
}

/// The addresses of one family that may be given: of healthy endpoints, or of suspect ones where no healthy one is left.
struct Best<T> {
    healthy: Vec<T>,
    suspect: Vec<T>,
}

impl<T> Default for Best<T> {
    fn default() -> Self {
        Self { healthy: Vec::new(), suspect: Vec::new() }
    }
}

impl<T: Ord> Best<T> {
    fn add(&mut self, health: Health, address: T) {
        match health {
            Health::Healthy => self.healthy.push(address),
            Health::Suspect => self.suspect.push(address),
            Health::Draining => {}
        }
    }

    /// Each once.
    fn chosen(self) -> Vec<T> {
        let mut chosen = if self.healthy.is_empty() { self.suspect } else { self.healthy };
        sort(&mut chosen);
        chosen
    }
}

const SERVICES: usize = 0;
const ENDPOINTS: usize = 1;
const RECORDS: usize = 2;

impl Collected {
    fn service(&mut self, zone: &Zone, key: &[u8]) {
        let Some((group, service)) = group(zone, key) else { return };
        match &service.mode {
            Mode::Vip(vips) => {
                let vips = vips.iter().map(|vip| (Health::Healthy, *vip));
                self.give(SERVICES, zone.policy.service_ttl, vips);
            }
            Mode::RoundRobin => self.members(zone, group),
        }
        self.others.txt.extend(service.texts.iter().cloned());
        self.lower(zone.policy.service_ttl);
    }

    fn tasks(&mut self, zone: &Zone, key: &[u8]) {
        let Some((group, _)) = group(zone, key) else { return };
        self.members(zone, group);
    }

    fn members(&mut self, zone: &Zone, group: &Group) {
        let addresses = self.rank(SERVICES, zone.policy.members_ttl);
        addresses.v4.healthy.reserve(group.members.len());
        addresses.v6.healthy.reserve(group.members.len());
        addresses.add(group.members.iter().flat_map(|endpoint| with_health(endpoint)));
    }

    fn port(&mut self, zone: &Zone, key: &[u8], name: &[u8]) {
        let Some((group, service)) = group(zone, key) else { return };
        let is = |called: PortName, (port, protocol): (&Name, Protocol)| {
            let mut names = std::iter::once(&service.name).chain(&service.aliases);
            names.any(|of| called(port, protocol, of)[..] == *name)
        };
        for ((port, protocol), target) in &service.ports {
            if is(tasks_port_name, (port, *protocol)) {
                self.targets(zone, group, *target);
            }
            if is(port_name, (port, *protocol)) {
                match &service.mode {
                    Mode::Vip(_) => {
                        let target_name = full(zone, &DnsName::from(&service.name));
                        self.others.srv.push(Srv { priority: 0, weight: 1, port: *target, target: target_name });
                        self.lower(zone.policy.service_ttl);
                    }
                    Mode::RoundRobin => self.targets(zone, group, *target),
                }
            }
        }
    }

    /// A service's endpoints, each by a name that is its own: a container's may be a service's or another container's too.
    fn targets(&mut self, zone: &Zone, group: &Group, port: Port) {
        let least = if alive(group).all(|it| it.weight <= 255) { 256 } else { 1 };
        self.others.srv.extend(alive(group).map(|it| Srv {
            priority: 0,
            weight: it.weight * least,
            port,
            target: full(zone, &short(it.id)),
        }));
        self.lower(zone.policy.members_ttl);
    }

    fn vip(&mut self, zone: &Zone, key: &[u8]) {
        let Some((_, service)) = group(zone, key) else { return };
        self.others.ptr.push(full(zone, &DnsName::from(&service.name)));
        self.lower(zone.policy.service_ttl);
    }

    fn endpoint(&mut self, zone: &Zone, endpoint: &Endpoint) {
        self.give(ENDPOINTS, zone.policy.endpoint_ttl, with_health(endpoint));
    }

    fn address(&mut self, zone: &Zone, endpoint: &Endpoint) {
        self.others.ptr.push(full(zone, &endpoint.first_name()));
        self.lower(zone.policy.endpoint_ttl);
    }

    fn records(&mut self, zone: &Zone, key: &[u8]) {
        let Some(given) = zone.records.get(key) else { return };
        let ttl = given.ttl.unwrap_or(zone.policy.service_ttl);
        self.give(RECORDS, ttl, given.addresses.iter().map(|address| (Health::Healthy, *address)));
        self.others.ptr.extend(given.ptr.iter().cloned());
        self.others.srv.extend(given.srv.iter().cloned());
        self.others.txt.extend(given.txt.iter().cloned());
        self.lower(ttl);
    }

    fn give(&mut self, rank: usize, ttl: RecordTtl, addresses: impl Iterator<Item = (Health, IpAddr)>) {
        self.rank(rank, ttl).add(addresses);
    }

    /// What a rank has, which is said to be kept no longer than this.
    fn rank(&mut self, rank: usize, ttl: RecordTtl) -> &mut Addresses {
        let given = self.ranks[rank].get_or_insert_with(|| Addresses { ttl, ..Addresses::default() });
        given.ttl = given.ttl.min(ttl);
        given
    }

    fn lower(&mut self, ttl: RecordTtl) {
        self.other_ttl = Some(self.other_ttl.map_or(ttl, |lowest| lowest.min(ttl)));
    }

    /// The first rank that gives the name at all has its addresses, be they none.
    fn finish(mut self) -> Sets {
        let addresses = self.ranks.into_iter().flatten().next().unwrap_or_default();
        sort(&mut self.others.ptr);
        sort(&mut self.others.srv);
        sort(&mut self.others.txt);
        Sets::from(Several {
            address_ttl: addresses.ttl,
            a: addresses.v4.chosen(),
            aaaa: addresses.v6.chosen(),
            ttl: self.other_ttl.unwrap_or_default(),
            ..self.others
        })
    }
}

/// What a port of a service is called.
type PortName = fn(&Name, Protocol, &Name) -> Key;

/// As [`Best`], of whole endpoints.
fn alive(group: &Group) -> impl Iterator<Item = &Endpoint> {
    let of = |health| group.members.iter().map(Arc::as_ref).filter(move |endpoint| endpoint.health == health);
    let best = if of(Health::Healthy).next().is_some() { Health::Healthy } else { Health::Suspect };
    of(best)
}

fn with_health(endpoint: &Endpoint) -> impl Iterator<Item = (Health, IpAddr)> {
    endpoint.addresses.iter().map(|address| (endpoint.health, *address))
}

fn group<'z>(zone: &'z Zone, key: &[u8]) -> Option<(&'z Group, &'z Service)> {
    let group = zone.services.get(key)?;
    Some((group, group.service.as_ref()?))
}

/// A name with the network's after it, as others may ask for it; by itself where that would be too long.
fn full(zone: &Zone, name: &DnsName) -> DnsName {
    name.under(&zone.network).unwrap_or_else(|_| name.clone())
}

fn sort<T: Ord>(all: &mut Vec<T>) {
    all.sort();
    all.dedup();
}

#[cfg(all(test, feature = "testing"))]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::Policy;
    use crate::testing::{endpoint, few_names, service};
    use crate::zone::knowledge;

    proptest! {
        #[test]
        fn what_one_endpoint_gives_is_what_all_who_are_one_give(network in few_names(), endpoint in endpoint()) {
            let mut zone = Zone::new(network, Policy::default());
            let id = endpoint.id;
            let keys: Vec<_> = knowledge::innate_keys(&endpoint).collect();
            zone.put_endpoint(endpoint);
            let sources = [Source::Endpoint(id)];
            prop_assert_eq!(sets(&zone, b"", &sources), collected(&zone, b"", &sources));
            for key in keys {
                prop_assert_eq!(sets(&zone, &key, &[]), collected(&zone, &key, &[]));
            }
        }

        #[test]
        fn what_one_service_gives_is_what_all_who_are_one_give(network in few_names(), service in service(), mut endpoints in vec(endpoint(), 0..4)) {
            let mut zone = Zone::new(network, Policy::default());
            let names = knowledge::service_names(&service);
            endpoints.iter_mut().for_each(|endpoint| endpoint.service = Some(service.name.clone()));
            zone.put_service(service);
            endpoints.into_iter().for_each(|endpoint| zone.put_endpoint(endpoint));
            for (key, source) in names {
                let sources = [source];
                prop_assert_eq!(sets(&zone, &key, &sources), collected(&zone, &key, &sources));
            }
        }
    }
}
