//! Virtual services: of a network, and of a container that is on some.

use std::collections::BTreeSet;
use std::net::IpAddr;

use overlay_core::{IpFamily, Name, SharedMap, is_host_address};
use overlay_dns::{Endpoint, Health, Mode, Zone};
use overlay_lb::{Condition, Replica, Service, State, Weight};

use super::container::Attachment;
use super::zone;
use crate::{Balancing, Section};

/// The virtual services of a network, by their names: what its containers share.
pub(super) type Services = SharedMap<Name, Service>;

/// The most replicas that get work: as many as every backend takes.
const MOST: usize = 1024;

/// The services that have a VIP there. Of two that say they have one VIP, the first by name has it.
pub(super) fn services(section: &Section, zone: &Zone) -> Services {
    let mut taken = BTreeSet::new();
    let named = zone::services(section).into_iter().filter_map(|(name, record)| {
        let balancing = record.spec.balancing.sound(&name);
        let service = service(zone, &name, &balancing)?;
        let free = service.vips.iter().all(|vip| !taken.contains(vip));
        taken.extend(service.vips.iter().copied().filter(|_| free));
        free.then_some((name, service))
    });
    named.collect()
}

/// A service as it is now, balanced so; `None` if it has no VIP.
///
/// Who is suspected, or not in effect yet, gets work where nobody else is left; who ends keeps what it has.
pub(super) fn service(zone: &Zone, name: &Name, balancing: &Balancing) -> Option<Service> {
    let Mode::Vip(vips) = &zone.service(name)?.mode else { return None };
    let service = balancing.service(of_each_family(vips));
    (!service.vips.is_empty()).then(|| with_replicas(service, zone.members(name)))
}

/// A service with these of the endpoints that serve it, as far as they have addresses of its families.
pub(super) fn with_replicas<'z>(mut service: Service, members: impl Iterator<Item = &'z Endpoint>) -> Service {
    let (v4, v6) = (service.serves(IpFamily::V4), service.serves(IpFamily::V6));
    let (mut healthy, mut suspects, mut replicas) = (false, Vec::new(), Vec::new());
    for member in members.take(MOST) {
        let addresses = of_each_family(&member.addresses).filter(|own| if own.is_ipv4() { v4 } else { v6 });
        let replica = Replica::new(addresses).weighing(Weight::new(member.weight).unwrap_or_default());
        if replica.addresses.is_empty() {
            continue;
        }
        let condition = match member.health {
            Health::Healthy => Condition::Active,
            Health::Suspect | Health::Draining => Condition::Draining,
        };
        healthy |= member.health == Health::Healthy;
        suspects.extend((member.health == Health::Suspect).then_some(member.id));
        replicas.push((member.id, replica.being(condition)));
    }
    service.replicas = replicas.into_iter().collect();
    for id in suspects.iter().filter(|_| !healthy) {
        service.replicas.entry(*id).and_modify(|replica| replica.condition = Condition::Active);
    }
    service
}

/// One address of each family that can be a host's, whatever a catalogue says.
fn of_each_family<'a>(addresses: impl IntoIterator<Item = &'a IpAddr> + Copy) -> impl Iterator<Item = IpAddr> {
    let fits = |address: &IpAddr| is_host_address(*address) && !address.is_loopback();
    let of = |v4: bool| addresses.into_iter().copied().find(move |address| address.is_ipv4() == v4 && fits(address));
    [of(true), of(false)].into_iter().flatten()
}

/// What a container reaches: the services of all its networks but the ingress network, each from its own address there.
pub(super) fn state(attachments: &[Attachment<'_>]) -> State {
    let mut state = State::default();
    let named = attachments.iter().filter(|attachment| !attachment.network.spec.ingress);
    let balanced = named.filter_map(|attachment| Some((attachment, attachment.services?)));
    let balanced: Vec<_> = balanced.filter(|(_, services)| !services.is_empty()).collect();
    for (attachment, services) in &balanced {
        match state.services.is_empty() {
            true => state.services = Services::clone(services),
            false => add(&mut state.services, services, attachment),
        }
    }
    // Of several networks that have a VIP, the first counts.
    state.sources = balanced.iter().rev().flat_map(|(attachment, _)| sources(attachment)).collect();
    if attachments.len() > 1 {
        part(&mut state);
    }
    state
}

/// From which of its addresses there a container reaches a network's VIPs, in their order.
fn sources(attachment: &Attachment<'_>) -> impl Iterator<Item = (IpAddr, IpAddr)> {
    let own: BTreeSet<IpAddr> = attachment.local.endpoint.addresses.iter().map(|own| own.addr()).collect();
    let own = [true, false].map(|v4| of_each_family(&own).find(|own| own.is_ipv4() == v4));
    attachment.vips.iter().filter_map(move |vip| Some((*vip, own[usize::from(vip.is_ipv6())]?)))
}

/// The VIPs of these services, in order.
pub(super) fn vips(services: &Services) -> Vec<IpAddr> {
    let mut vips: Vec<IpAddr> = services.values().flat_map(|service| service.vips.iter().copied()).collect();
    vips.sort_unstable();
    vips
}

/// Adds the services of a further network. One whose name is taken is called after its network too.
fn add(all: &mut Services, services: &Services, of: &Attachment<'_>) {
    for (name, service) in services {
        let id = of.network.id.short();
        let other = || Name::new(&format!("{}-{id}", name.as_str().get(..48).unwrap_or(name.as_str()))).ok();
        let free = Some(name.clone()).filter(|name| !all.contains_key(name)).or_else(other);
        if let Some(free) = free.filter(|free| !all.contains_key(free)) {
            all.insert(free, service.clone());
        }
    }
}

/// Two networks of one container are apart, but for what a catalogue may say by mistake: then the first that has an address has it.
fn part(state: &mut State) {
    let (mut vips, mut wrong) = (BTreeSet::new(), Vec::new());
    for (name, service) in &state.services {
        match service.vips.iter().any(|vip| vips.contains(vip)) {
            true => wrong.push(name.clone()),
            false => vips.extend(service.vips.iter().copied()),
        }
    }
    let meets = |service: &Service| {
        service.replicas.values().flat_map(|replica| &replica.addresses).any(|address| vips.contains(address))
    };
    wrong.extend(state.services.iter().filter(|(_, service)| meets(service)).map(|(name, _)| name.clone()));
    wrong.iter().for_each(|name| drop(state.services.remove(name)));
    let left: BTreeSet<IpAddr> = state.services.values().flat_map(|service| service.vips.iter().copied()).collect();
    let unreachable = state.sources.iter().filter(|(vip, source)| !left.contains(vip) || left.contains(source));
    let unreachable: Vec<IpAddr> = unreachable.map(|(vip, _)| *vip).collect();
    for vip in &unreachable {
        state.sources.remove(vip);
    }
}
