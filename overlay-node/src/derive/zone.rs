//! The names of a network.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use overlay_core::{EndpointId, Name, ServiceId};
use overlay_dns::{DnsName, Endpoint, Health, Mode, Policy, Zone};

use super::admission::Admission;
use super::claim::{At, Claim};
use super::touched::Known;
use crate::{Condition, EndpointMode, LocalEndpoint, RemoteEndpoint, Section, Service, Standing};

/// All of them.
pub(super) fn zone(known: Known<'_>, admission: &Admission) -> Zone {
    let section = known.section;
    let services = services(section).into_values().map(|held| service(section, held));
    let admitted = admission.ports.iter().chain(&admission.peers);
    let endpoints = admitted.filter_map(|(id, claim)| endpoint(known, *id, claim));
    Zone::of(section.network.spec.name.clone(), policy(section), services, endpoints)
}

/// No name, and what would hold for all.
pub(super) fn nameless(section: &Section) -> Zone {
    Zone::new(section.network.spec.name.clone(), policy(section))
}

fn policy(section: &Section) -> Policy {
    let network = &section.network;
    let subnets = network.subnets.iter().map(|subnet| subnet.net()).collect();
    Policy { subnets, internal: network.spec.internal, ..Policy::default() }
}

/// The services that are named, by their names as DNS compares them.
pub(super) fn services(section: &Section) -> BTreeMap<Name, &Arc<Service>> {
    let mut named = BTreeMap::new();
    for service in section.services.values() {
        let known = !matches!(service.condition, Condition::Accepted | Condition::Failed { .. });
        if let (true, Entry::Vacant(free)) = (known, named.entry(service.spec.name.folded())) {
            free.insert(service);
        }
    }
    named
}

pub(super) fn service(section: &Section, service: &Service) -> overlay_dns::Service {
    let network = &section.network.id;
    let vips = || service.vips.get(network).cloned().unwrap_or_default();
    let mode = match service.spec.mode {
        EndpointMode::Vip => Mode::Vip(vips()),
        EndpointMode::RoundRobin => Mode::RoundRobin,
    };
    let named = service.ports.iter().filter_map(|port| Some(((port.name.clone()?, port.protocol), port.target)));
    overlay_dns::Service {
        aliases: service.spec.networks.get(network).cloned().unwrap_or_default(),
        ports: named.collect(),
        ..overlay_dns::Service::new(service.spec.name.clone(), mode)
    }
}

/// The names of an endpoint that is in effect.
pub(super) fn endpoint(known: Known<'_>, id: EndpointId, claim: &Claim) -> Option<Endpoint> {
    match claim.at {
        At::Port { .. } => Some(here(known.section, id, known.section.local.get(&id)?, claim)),
        At::Vtep(_) => Some(there(known, id, known.section.remote.get(&id)?, claim)),
    }
}

fn here(section: &Section, id: EndpointId, local: &LocalEndpoint, claim: &Claim) -> Endpoint {
    let spec = &local.endpoint.spec;
    Endpoint {
        id,
        names: names(&spec.container, &spec.names),
        addresses: claim.addresses.clone(),
        service: service_name(section, spec.service),
        health: local.health,
    }
}

/// An endpoint of a node that is not alive for sure is given where no other is left.
fn there(known: Known<'_>, id: EndpointId, remote: &RemoteEndpoint, claim: &Claim) -> Endpoint {
    let alive = known.knowledge.nodes.get(&remote.node).is_some_and(|facts| facts.standing == Standing::Alive);
    Endpoint {
        id,
        names: names(&remote.container, &remote.names),
        addresses: claim.addresses.clone(),
        service: service_name(known.section, remote.service),
        health: if alive { remote.health } else { remote.health.max(Health::Suspect) },
    }
}

/// The root is no endpoint's name, whoever says so.
fn names(container: &Name, others: &[DnsName]) -> Vec<DnsName> {
    std::iter::once(DnsName::from(container)).chain(others.iter().filter(|name| !name.is_root()).cloned()).collect()
}

fn service_name(section: &Section, service: Option<ServiceId>) -> Option<Name> {
    section.services.get(&service?).map(|service| service.spec.name.clone())
}
