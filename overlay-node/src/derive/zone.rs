//! The names of a network.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use overlay_core::{AddressSet, EndpointId, Name, NodeId, ServiceId};
use overlay_dns::{DnsName, Endpoint, Health, Mode, Policy, Zone};

use super::admission::{Admission, Peer};
use super::claim::{At, Claim};
use super::touched::Known;
use crate::{Condition, EndpointMode, LocalEndpoint, Section, Service, Standing, mesh};

/// All of them.
pub(super) fn zone(section: &Section, admission: &Admission<'_>) -> Zone {
    let services = services(section).into_values().map(|held| service(section, held));
    let ports = admission.ports.iter().filter(|(_, local, _)| !mesh::is_part(&section.network, &local.endpoint));
    let ports = ports.map(|(id, local, claim)| here(section, *id, local, claim));
    let peers = admission.peers.iter().filter(|peer| !is_mesh(section, peer.id, peer.remote.node));
    let names: Vec<_> = section.services.iter().map(|(id, of)| (as_number(*id), &of.spec.name)).collect();
    let named =
        |service| Some(names.get(names.binary_search_by_key(&as_number(service), |(id, _)| *id).ok()?)?.1.clone());
    let peers = peers.map(|peer| there(peer, peer.remote.service.and_then(named)));
    Zone::of(section.network.spec.name.clone(), policy(section), services, ports.chain(peers))
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

/// Whether an endpoint is a node's own in the routing mesh, which has no names.
fn is_mesh(section: &Section, id: EndpointId, node: NodeId) -> bool {
    section.network.spec.ingress && id == mesh::endpoint(section.network.id, node)
}

/// An endpoint that is in effect, if it has names.
pub(super) fn endpoint(known: Known<'_>, id: EndpointId, claim: &Claim<'_>) -> Option<Endpoint> {
    let section = known.section;
    if let At::Port { .. } = claim.at {
        let local = section.local.get(&id).filter(|local| !mesh::is_part(&section.network, &local.endpoint))?;
        return Some(here(section, id, local, claim));
    }
    let remote = section.remote.get(&id).filter(|remote| !is_mesh(section, id, remote.node))?;
    let alive = known.knowledge.nodes.get(&remote.node).is_some_and(|facts| facts.standing == Standing::Alive);
    let peer = Peer { id, remote, alive, claim: claim.clone() };
    Some(there(&peer, service_name(section, remote.service)))
}

/// One that is plugged in.
fn here(section: &Section, id: EndpointId, local: &LocalEndpoint, claim: &Claim<'_>) -> Endpoint {
    let spec = &local.endpoint.spec;
    Endpoint {
        id,
        names: names(&spec.container, &spec.names),
        addresses: AddressSet::clone(&claim.addresses),
        service: service_name(section, spec.service),
        health: local.health,
        weight: spec.weight.get(),
    }
}

/// One elsewhere. That of a node that is not alive for sure is given where no other is left.
fn there(peer: &Peer<'_>, service: Option<Name>) -> Endpoint {
    let remote = peer.remote;
    Endpoint {
        id: peer.id,
        names: names(&remote.container, &remote.names),
        addresses: AddressSet::clone(&peer.claim.addresses),
        service,
        weight: remote.weight.get(),
        health: if peer.alive { remote.health } else { remote.health.max(Health::Suspect) },
    }
}

/// The root is no endpoint's name, whoever says so.
fn names(container: &Name, others: &[DnsName]) -> Vec<DnsName> {
    let mut names = Vec::with_capacity(1 + others.len());
    names.push(DnsName::from(container));
    names.extend(others.iter().filter(|name| !name.is_root()).cloned());
    names
}

/// As they are ordered, and compared at once.
fn as_number(service: ServiceId) -> u128 {
    u128::from_be_bytes(service.to_bytes())
}

fn service_name(section: &Section, service: Option<ServiceId>) -> Option<Name> {
    section.services.get(&service?).map(|service| service.spec.name.clone())
}
