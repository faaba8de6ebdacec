//! The names of a network.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use overlay_core::{EndpointId, Name, ServiceId};
use overlay_dns::{DnsName, Endpoint, Health, Mode, Policy, Zone};

use super::admission::{Admission, Peer, Port};
use crate::{Condition, EndpointMode, Knowledge, Section, Service, Standing};

/// All of them.
pub(super) fn zone(knowledge: &Knowledge, section: &Section, admission: &Admission<'_>) -> Zone {
    let mut zone = empty(section);
    for held in services(section).values() {
        zone.put_service(service(section, held));
    }
    for (id, port) in &admission.ports {
        zone.put_endpoint(here(section, *id, port));
    }
    for (id, peer) in &admission.peers {
        zone.put_endpoint(there(knowledge, section, *id, peer));
    }
    zone
}

/// What holds for all names, and no name.
pub(super) fn empty(section: &Section) -> Zone {
    let network = &section.network;
    let subnets = network.subnets.iter().map(|subnet| subnet.net()).collect();
    let policy = Policy { subnets, internal: network.spec.internal, ..Policy::default() };
    Zone::new(network.spec.name.clone(), policy)
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

pub(super) fn here(section: &Section, id: EndpointId, port: &Port<'_>) -> Endpoint {
    let spec = &port.local.endpoint.spec;
    Endpoint {
        id,
        names: names(&spec.container, &spec.names),
        addresses: port.local.endpoint.addresses.iter().map(IpNet::addr).collect(),
        service: service_name(section, spec.service),
        health: port.local.health,
    }
}

pub(super) fn there(knowledge: &Knowledge, section: &Section, id: EndpointId, peer: &Peer<'_>) -> Endpoint {
    let remote = peer.remote;
    let standing = knowledge.nodes.get(&remote.node).map_or(Standing::Suspended, |facts| facts.standing);
    Endpoint {
        id,
        names: names(&remote.container, &remote.names),
        addresses: peer.addresses.iter().copied().collect::<std::collections::BTreeSet<IpAddr>>(),
        service: service_name(section, remote.service),
        health: if standing == Standing::Alive { remote.health } else { remote.health.max(Health::Suspect) },
    }
}

fn names(container: &Name, others: &[DnsName]) -> Vec<DnsName> {
    std::iter::once(DnsName::from(container)).chain(others.iter().cloned()).collect()
}

fn service_name(section: &Section, service: Option<ServiceId>) -> Option<Name> {
    section.services.get(&service?).map(|service| service.spec.name.clone())
}
