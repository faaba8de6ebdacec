//! What was told of a catalogue.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use overlay_core::{EndpointId, NetworkId, NodeId, ServiceId};
use overlay_node::{CatalogueChange, Network, Node, Service};

/// What was told, and so what is news.
///
/// Of endpoints, of which there are many, it keeps hashes by a key of its own: one that changed is taken for the same once in 2⁶⁴ times.
#[derive(Debug)]
pub(super) struct Mirror {
    nodes: BTreeMap<NodeId, Arc<Node>>,
    networks: BTreeMap<NetworkId, Arc<Network>>,
    services: BTreeMap<ServiceId, Arc<Service>>,
    endpoints: BTreeMap<EndpointId, (NetworkId, u64)>,
    key: RandomState,
}

impl Default for Mirror {
    #[expect(
        clippy::disallowed_methods,
        reason = "nobody sees the hashes, and who writes records must not know what makes two alike"
    )]
    fn default() -> Self {
        let (nodes, networks, services, endpoints) = Default::default();
        Self { nodes, networks, services, endpoints, key: RandomState::new() }
    }
}

impl Mirror {
    /// Those of the changes that are news.
    ///
    /// A record that could not be read is told by nobody until it can be; so if one of these keys is `freed` of its flaw and its
    /// object does not come now, it is gone.
    pub(super) fn heed<'k>(
        &mut self,
        changes: Vec<CatalogueChange>,
        freed: impl IntoIterator<Item = &'k String>,
    ) -> Vec<CatalogueChange> {
        let freed: BTreeSet<_> = freed.into_iter().filter_map(|key| Some((network_in(key), id_in(key)?))).collect();
        let told: BTreeSet<_> = changes.iter().map(id).collect();
        let gone = self.those(|network, id| freed.contains(&(network, id)) && !told.contains(&id));
        self.take(gone, changes)
    }

    /// What differs from what was told before, now that `all` is there, and nothing else but the records of these keys, which cannot
    /// be read. One that is a kind alone may be any object of it: so none of that kind is gone.
    pub(super) fn heed_all<'k>(
        &mut self,
        all: Vec<CatalogueChange>,
        unreadable: impl IntoIterator<Item = &'k String>,
    ) -> Vec<CatalogueChange> {
        let unreadable: BTreeSet<&str> = unreadable.into_iter().map(String::as_str).collect();
        let mut there: BTreeSet<_> = unreadable.iter().filter_map(|key| id_in(key)).collect();
        there.extend(all.iter().map(id));
        let mut gone = self.those(|_, id| !there.contains(&id));
        gone.retain(|change| !unreadable.contains(kind(change)));
        self.take(gone, all)
    }

    /// That the objects with such ids, and of endpoints on such networks, are gone.
    fn those(&self, is_gone: impl Fn(Option<NetworkId>, [u8; 16]) -> bool) -> Vec<CatalogueChange> {
        let endpoints = self.endpoints.iter().filter(|(id, (network, _))| is_gone(Some(*network), id.to_bytes()));
        let services = self.services.keys().filter(|id| is_gone(None, id.to_bytes()));
        let networks = self.networks.keys().filter(|id| is_gone(None, id.to_bytes()));
        let nodes = self.nodes.keys().filter(|id| is_gone(None, id.to_bytes()));
        let endpoints = endpoints.map(|(id, _)| CatalogueChange::EndpointGone(*id));
        let services = services.map(|id| CatalogueChange::ServiceGone(*id));
        let networks = networks.map(|id| CatalogueChange::NetworkGone(*id));
        let nodes = nodes.map(|id| CatalogueChange::NodeGone(*id));
        endpoints.chain(services).chain(networks).chain(nodes).collect()
    }

    fn take(&mut self, mut gone: Vec<CatalogueChange>, changes: Vec<CatalogueChange>) -> Vec<CatalogueChange> {
        gone.extend(changes);
        gone.sort_by_key(place);
        gone.retain(|change| self.is_news(change));
        gone
    }

    fn is_news(&mut self, change: &CatalogueChange) -> bool {
        match change {
            CatalogueChange::Node(of) => put(&mut self.nodes, of.id, Arc::clone(of)),
            CatalogueChange::NodeGone(id) => self.nodes.remove(id).is_some(),
            CatalogueChange::Network(of) => put(&mut self.networks, of.id, Arc::clone(of)),
            CatalogueChange::NetworkGone(id) => self.networks.remove(id).is_some(),
            CatalogueChange::Service(of) => put(&mut self.services, of.id, Arc::clone(of)),
            CatalogueChange::ServiceGone(id) => self.services.remove(id).is_some(),
            CatalogueChange::Endpoint(of) => put(&mut self.endpoints, of.id, (of.spec.network, self.key.hash_one(of))),
            CatalogueChange::EndpointGone(id) => self.endpoints.remove(id).is_some(),
        }
    }
}

/// Puts an object there, and says whether it is another than before.
fn put<I: Ord, T: PartialEq>(map: &mut BTreeMap<I, T>, id: I, object: T) -> bool {
    let is_news = map.get(&id) != Some(&object);
    map.insert(id, object);
    is_news
}

pub(super) fn id(change: &CatalogueChange) -> [u8; 16] {
    match change {
        CatalogueChange::Node(of) => of.id.to_bytes(),
        CatalogueChange::NodeGone(id) => id.to_bytes(),
        CatalogueChange::Network(of) => of.id.to_bytes(),
        CatalogueChange::NetworkGone(id) => id.to_bytes(),
        CatalogueChange::Service(of) => of.id.to_bytes(),
        CatalogueChange::ServiceGone(id) => id.to_bytes(),
        CatalogueChange::Endpoint(of) => of.id.to_bytes(),
        CatalogueChange::EndpointGone(id) => id.to_bytes(),
    }
}

/// What a change is of.
const fn kind(change: &CatalogueChange) -> &'static str {
    match change {
        CatalogueChange::Node(_) | CatalogueChange::NodeGone(_) => "node",
        CatalogueChange::Network(_) | CatalogueChange::NetworkGone(_) => "network",
        CatalogueChange::Service(_) | CatalogueChange::ServiceGone(_) => "service",
        CatalogueChange::Endpoint(_) | CatalogueChange::EndpointGone(_) => "endpoint",
    }
}

/// The id that a record's key ends with.
pub(super) fn id_in(key: &str) -> Option<[u8; 16]> {
    key.rsplit('/').next()?.parse::<EndpointId>().ok().map(EndpointId::to_bytes)
}

/// The network whose id is before that, in an endpoint's.
fn network_in(key: &str) -> Option<NetworkId> {
    key.rsplit('/').nth(1)?.parse().ok()
}

/// Where a change stands in a batch.
const fn place(change: &CatalogueChange) -> u8 {
    match change {
        CatalogueChange::EndpointGone(_) => 0,
        CatalogueChange::ServiceGone(_) => 1,
        CatalogueChange::NetworkGone(_) => 2,
        CatalogueChange::NodeGone(_) => 3,
        CatalogueChange::Node(_) => 4,
        CatalogueChange::Network(_) => 5,
        CatalogueChange::Service(_) => 6,
        CatalogueChange::Endpoint(_) => 7,
    }
}
