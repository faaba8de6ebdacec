//! All that is in the catalogue, as a value.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use overlay_core::{Change, EndpointId, IdPrefix, NetworkId, NodeId, ServiceId, SharedMap};

use super::View;
use crate::{CatalogueChange, Endpoint, Network, Node, Reference, Service};

/// All that a [`Feed`](super::Feed) has told, as one value. Its copies share what they have in common: so it is cheap to keep how it was, and to tell from that
/// what a node missed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Records {
    nodes: SharedMap<NodeId, Arc<Node>>,
    networks: SharedMap<NetworkId, Arc<Network>>,
    services: SharedMap<ServiceId, Arc<Service>>,
    endpoints: SharedMap<EndpointId, Arc<Endpoint>>,
    /// Those of the networks that all nodes take part in.
    ingress: BTreeSet<NetworkId>,
    /// Which endpoints are on a network.
    on: SharedMap<NetworkId, SharedMap<EndpointId, ()>>,
    /// Which services are.
    served_on: SharedMap<NetworkId, SharedMap<ServiceId, ()>>,
    /// How many endpoints a node has, by network.
    at: SharedMap<NodeId, BTreeMap<NetworkId, usize>>,
    /// Which service has a name, in small letters.
    named: SharedMap<String, ServiceId>,
    /// Which has an id that begins so.
    called: SharedMap<String, ServiceId>,
}

impl Records {
    /// Heeds what a feed tells. What was not there may go. O(log n), and a copy of some 64 entries for each copy of this that shares them.
    pub fn heed(&mut self, change: CatalogueChange) {
        match change {
            CatalogueChange::Node(of) => drop(self.nodes.insert(of.id, of)),
            CatalogueChange::NodeGone(id) => drop(self.nodes.remove(&id)),
            CatalogueChange::Network(of) => {
                match of.spec.ingress {
                    true => self.ingress.insert(of.id),
                    false => self.ingress.remove(&of.id),
                };
                self.networks.insert(of.id, of);
            }
            CatalogueChange::NetworkGone(id) => {
                self.ingress.remove(&id);
                self.networks.remove(&id);
            }
            CatalogueChange::Service(of) => {
                self.remove_service(of.id);
                self.put_service(of);
            }
            CatalogueChange::ServiceGone(id) => self.remove_service(id),
            CatalogueChange::Endpoint(of) => {
                self.remove_endpoint(of.id);
                self.put_endpoint(of);
            }
            CatalogueChange::EndpointGone(id) => self.remove_endpoint(id),
        }
    }

    /// What a node needs of it, that watches these services: each by its name, its id, or at least the 12 characters of it that listings show. So who does
    /// not know of a service finds none by trying.
    pub fn view(&self, node: NodeId, watched: &BTreeSet<Reference>) -> View {
        let mut networks = self.ingress.clone();
        networks.extend(self.at.get(&node).into_iter().flat_map(BTreeMap::keys));
        let watched = watched.iter().filter_map(|reference| self.services.get(&self.meant(reference)?));
        networks.extend(watched.flat_map(|service| networks_of(service)));
        View::of(networks)
    }

    fn meant(&self, reference: &Reference) -> Option<ServiceId> {
        let text = reference.as_str();
        if let Some(named) = self.named.get(&text.to_ascii_lowercase()) {
            return Some(*named);
        }
        let whole: IdPrefix = text.parse().ok()?;
        self.called.get(&text.get(..SHORT)?.to_ascii_lowercase()).copied().filter(|id| id.has_prefix(whole))
    }

    fn put_service(&mut self, service: Arc<Service>) {
        let id = service.id;
        self.named.insert(service.spec.name.folded().to_string(), id);
        self.called.insert(id.short().to_string(), id);
        networks_of(&service).for_each(|network| enter(&mut self.served_on, network, id));
        self.services.insert(id, service);
    }

    fn remove_service(&mut self, id: ServiceId) {
        let Some(old) = self.services.remove(&id) else { return };
        let name = old.spec.name.folded().to_string();
        if self.named.get(&name) == Some(&id) {
            self.named.remove(&name);
        }
        let short = id.short().to_string();
        if self.called.get(&short) == Some(&id) {
            self.called.remove(&short);
        }
        networks_of(&old).for_each(|network| strike(&mut self.served_on, network, &id));
    }

    fn put_endpoint(&mut self, endpoint: Arc<Endpoint>) {
        let (id, network, node) = (endpoint.id, endpoint.spec.network, endpoint.spec.node);
        enter(&mut self.on, network, id);
        match self.at.get_mut(&node) {
            Some(here) => *here.entry(network).or_default() += 1,
            None => drop(self.at.insert(node, [(network, 1)].into())),
        }
        self.endpoints.insert(id, endpoint);
    }

    fn remove_endpoint(&mut self, id: EndpointId) {
        let Some(old) = self.endpoints.remove(&id) else { return };
        let (network, node) = (old.spec.network, old.spec.node);
        strike(&mut self.on, network, &id);
        let Some(here) = self.at.get_mut(&node) else { return };
        match here.get_mut(&network) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(here.remove(&network)),
        }
        if here.is_empty() {
            self.at.remove(&node);
        }
    }
}

/// What a view looks at.
impl Records {
    pub(super) fn node(&self, id: NodeId) -> Option<&Arc<Node>> {
        self.nodes.get(&id)
    }

    pub(super) fn network(&self, id: NetworkId) -> Option<&Arc<Network>> {
        self.networks.get(&id)
    }

    pub(super) fn service(&self, id: ServiceId) -> Option<&Arc<Service>> {
        self.services.get(&id)
    }

    pub(super) fn endpoint(&self, id: EndpointId) -> Option<&Arc<Endpoint>> {
        self.endpoints.get(&id)
    }

    pub(super) fn nodes_that_differ(&self, before: &Self) -> BTreeSet<NodeId> {
        differing(&before.nodes, &self.nodes).collect()
    }

    pub(super) fn networks_that_may_differ(&self, before: &Self, seen: &BTreeSet<NetworkId>) -> BTreeSet<NetworkId> {
        differing(&before.networks, &self.networks).chain(seen.iter().copied()).collect()
    }

    /// Those that are otherwise, and those on networks that are seen or not, other than before.
    pub(super) fn services_that_may_differ(&self, before: &Self, seen: &BTreeSet<NetworkId>) -> BTreeSet<ServiceId> {
        let on = seen
            .iter()
            .flat_map(|network| before.served_on.get(network).into_iter().chain(self.served_on.get(network)));
        differing(&before.services, &self.services).chain(on.flat_map(|on| on.keys().copied())).collect()
    }

    /// As that, of endpoints.
    pub(super) fn endpoints_that_may_differ(&self, before: &Self, seen: &BTreeSet<NetworkId>) -> BTreeSet<EndpointId> {
        let on = seen.iter().flat_map(|network| before.on.get(network).into_iter().chain(self.on.get(network)));
        differing(&before.endpoints, &self.endpoints).chain(on.flat_map(|on| on.keys().copied())).collect()
    }
}

/// The networks that a service is on, or publishes on.
fn networks_of(service: &Service) -> impl Iterator<Item = NetworkId> {
    service.spec.networks.keys().chain(service.vips.keys()).copied()
}

fn enter<I: Ord + Copy>(index: &mut SharedMap<NetworkId, SharedMap<I, ()>>, network: NetworkId, id: I) {
    match index.get_mut(&network) {
        Some(all) => drop(all.insert(id, ())),
        None => drop(index.insert(network, [(id, ())].into())),
    }
}

fn strike<I: Ord + Copy>(index: &mut SharedMap<NetworkId, SharedMap<I, ()>>, network: NetworkId, id: &I) {
    let Some(all) = index.get_mut(&network) else { return };
    all.remove(id);
    if all.is_empty() {
        index.remove(&network);
    }
}

fn differing<'a, I: Ord + Copy + 'a, T: PartialEq + 'a>(
    old: &'a SharedMap<I, T>,
    new: &'a SharedMap<I, T>,
) -> impl Iterator<Item = I> + 'a {
    old.diff(new).map(|change| match change {
        Change::Add(id, _) | Change::Replace(id, ..) | Change::Remove(id, _) => *id,
    })
}

/// As many characters of an id listings show.
const SHORT: usize = 12;
