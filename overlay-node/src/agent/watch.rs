//! Services that somebody watches.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use overlay_core::{EndpointId, IdPrefix, NetworkId, NodeId, ServiceId};
use overlay_dns::Health;

use super::Agent;
use super::catalogue::Catalogue;
use crate::{
    Condition, Kind, LocalEndpoint, NodeFacts, Reference, RemoteEndpoint, Section, Service, ServiceEndpoint,
    ServiceEndpoints, Standing,
};

/// Them, and what was last said of them.
#[derive(Debug, Default)]
pub(super) struct Watches {
    all: BTreeMap<Reference, Watched>,
    /// Of what it was said.
    seen: Seen,
    /// Something changed that `seen` does not show.
    changed: bool,
}

#[derive(Debug, Default)]
struct Watched {
    /// Which service is called so.
    service: Option<ServiceId>,
    /// What was said; `None` as long as nothing was.
    said: Option<Option<Arc<ServiceEndpoints>>>,
}

#[derive(Debug, Default)]
struct Seen {
    nodes: Option<Arc<BTreeMap<NodeId, NodeFacts>>>,
    sections: BTreeMap<NetworkId, Arc<Section>>,
}

impl Watches {
    /// Something changed of what this node tells others; whether that is of interest.
    pub(super) fn note(&mut self) -> bool {
        self.changed = true;
        !self.all.is_empty()
    }

    /// Whether a network is followed for somebody who watches a service on it.
    pub(super) fn need(&self, network: NetworkId, catalogue: &Catalogue) -> bool {
        let services = self.all.values().filter_map(|watched| catalogue.services.get(&watched.service?));
        services.into_iter().any(|service| is_on(service, network))
    }

    /// A service is otherwise than before, or gone: looks anew which is meant by those who may mean it.
    pub(super) fn reconsider(&mut self, service: &Service, catalogue: &Catalogue) {
        for (reference, watched) in &mut self.all {
            if watched.service == Some(service.id) || may_mean(reference, service) {
                watched.service = find(reference, catalogue);
                self.changed = true;
            }
        }
    }
}

impl Agent {
    /// The endpoints of a service are wanted from now on, whatever it is; the networks that it is on are followed for it.
    pub(super) fn watch(&mut self, reference: Reference) {
        let service = find(&reference, &self.catalogue);
        self.watches.all.entry(reference).or_insert(Watched { service, said: None });
        self.touch_networks_of(service);
    }

    pub(super) fn unwatch(&mut self, reference: &Reference) {
        let service = self.watches.all.remove(reference).and_then(|watched| watched.service);
        self.touch_networks_of(service);
    }

    fn touch_networks_of(&mut self, service: Option<ServiceId>) {
        self.watches.changed = true;
        self.changed = true;
        let service = service.and_then(|id| self.catalogue.services.get(&id));
        self.touched_networks.extend(service.into_iter().flat_map(|service| networks(service)));
    }

    /// Those of the [watched](crate::Input::Watch) services of which something is otherwise than this said before, or was not said yet: their
    /// endpoints now, or `None` for a name that no service has. To be asked at [`AgentEvent::Changed`](crate::AgentEvent::Changed).
    ///
    /// O(1) if nothing that concerns them changed, else O(n) for the n endpoints of their networks.
    pub fn watched(&mut self) -> Vec<(Reference, Option<Arc<ServiceEndpoints>>)> {
        let ids: BTreeSet<ServiceId> = self.watches.all.values().filter_map(|watched| watched.service).collect();
        let services: Vec<&Arc<Service>> = ids.iter().filter_map(|id| self.catalogue.services.get(id)).collect();
        let networks: BTreeSet<NetworkId> = services.iter().flat_map(|service| networks(service)).collect();
        if !self.watches.changed && self.is_seen(&networks) {
            return Vec::new();
        }
        let mut found: BTreeMap<ServiceId, ServiceEndpoints> =
            services.into_iter().map(|service| (service.id, nobody(service))).collect();
        networks.iter().for_each(|network| self.gather(*network, &mut found));
        let found: BTreeMap<ServiceId, Arc<ServiceEndpoints>> =
            found.into_iter().map(|(id, all)| (id, Arc::new(all))).collect();
        self.see(&networks);
        let mut news = Vec::new();
        for (reference, watched) in &mut self.watches.all {
            let now = watched.service.and_then(|id| found.get(&id)).cloned();
            if watched.said.as_ref() != Some(&now) {
                watched.said = Some(now.clone());
                news.push((reference.clone(), now));
            }
        }
        news
    }

    fn is_seen(&self, networks: &BTreeSet<NetworkId>) -> bool {
        let Seen { nodes, sections } = &self.watches.seen;
        let same = |id: &NetworkId| match (sections.get(id), self.knowledge.networks.get(id)) {
            (Some(seen), Some(now)) => Arc::ptr_eq(seen, now),
            (seen, now) => seen.is_none() && now.is_none(),
        };
        nodes.as_ref().is_some_and(|nodes| Arc::ptr_eq(nodes, &self.knowledge.nodes)) && networks.iter().all(same)
    }

    /// Nothing is held that nobody watches: it would be copied when it changes.
    fn see(&mut self, networks: &BTreeSet<NetworkId>) {
        self.watches.changed = false;
        let section = |id: &NetworkId| Some((*id, Arc::clone(self.knowledge.networks.get(id)?)));
        self.watches.seen = Seen {
            nodes: (!self.watches.all.is_empty()).then(|| Arc::clone(&self.knowledge.nodes)),
            sections: networks.iter().filter_map(section).collect(),
        };
    }

    /// Adds the endpoints of a network to the services that they serve.
    fn gather(&self, network: NetworkId, found: &mut BTreeMap<ServiceId, ServiceEndpoints>) {
        let Some(section) = self.knowledge.networks.get(&network) else {
            let services = self.catalogue.services.values().filter(|service| is_on(service, network));
            for service in services {
                found.get_mut(&service.id).into_iter().for_each(|all| all.unheard.extend([network]));
            }
            return;
        };
        for (id, local) in &section.local {
            let service = local.endpoint.spec.service.and_then(|service| found.get_mut(&service));
            if let Some((service, endpoint)) = service.zip(self.here(*id, local)) {
                service.endpoints.insert(*id, endpoint);
            }
        }
        if section.network.spec.kind == Kind::Bridge {
            return; // those elsewhere are on other bridges
        }
        for (id, remote) in &section.remote {
            let service = remote.service.and_then(|service| found.get_mut(&service));
            if let Some((service, endpoint)) = service.zip(self.there(network, remote)) {
                service.endpoints.insert(*id, endpoint);
            }
        }
    }

    /// One that is plugged in, if the others are told of it.
    fn here(&self, id: EndpointId, local: &LocalEndpoint) -> Option<ServiceEndpoint> {
        let network = &self.told.get(&id)?.network;
        let spec = &local.endpoint.spec;
        Some(ServiceEndpoint {
            network: *network,
            container: spec.container.clone(),
            node: spec.node,
            node_address: self.knowledge.nodes.get(&spec.node)?.address.ip(),
            addresses: local.endpoint.addresses.iter().map(|net| net.addr()).collect(),
            weight: spec.weight,
            health: local.health,
        })
    }

    /// One elsewhere, if its node is known.
    fn there(&self, network: NetworkId, remote: &RemoteEndpoint) -> Option<ServiceEndpoint> {
        let node = self.knowledge.nodes.get(&remote.node)?;
        let doubt = if node.standing == Standing::Alive { Health::Healthy } else { Health::Suspect };
        Some(ServiceEndpoint {
            network,
            container: remote.container.clone(),
            node: remote.node,
            node_address: node.address.ip(),
            addresses: remote.addresses.clone(),
            weight: remote.weight,
            health: remote.health.max(doubt),
        })
    }
}

fn networks(service: &Service) -> impl Iterator<Item = NetworkId> {
    service.spec.networks.keys().chain(service.vips.keys()).copied()
}

fn is_on(service: &Service, network: NetworkId) -> bool {
    service.spec.networks.contains_key(&network) || service.vips.contains_key(&network)
}

/// The service, without endpoints.
fn nobody(service: &Service) -> ServiceEndpoints {
    ServiceEndpoints {
        service: service.id,
        name: service.spec.name.clone(),
        ports: service.ports.clone(),
        unheard: BTreeSet::new(),
        endpoints: BTreeMap::new(),
    }
}

/// Whether it is there: one that was only asked for may be refused yet.
const fn is_known(service: &Service) -> bool {
    !matches!(service.condition, Condition::Accepted | Condition::Failed { .. })
}

fn may_mean(reference: &Reference, service: &Service) -> bool {
    has_name(reference, service) || service.id.to_string().starts_with(reference.as_str())
}

fn has_name(reference: &Reference, service: &Service) -> bool {
    service.spec.name.as_str().eq_ignore_ascii_case(reference.as_str())
}

/// The service that is called so, as the manager finds it.
fn find(reference: &Reference, catalogue: &Catalogue) -> Option<ServiceId> {
    let known = || catalogue.services.values().filter(|service| is_known(service));
    if let Some(named) = known().find(|service| has_name(reference, service)) {
        return Some(named.id);
    }
    reference.as_str().parse::<IdPrefix>().ok()?;
    let mut begin = known().filter(|service| may_mean(reference, service));
    let first = begin.next()?;
    begin.next().is_none().then_some(first.id)
}
