//! What was told of a catalogue.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use overlay_core::{EndpointId, NetworkId, ServiceId};
use overlay_node::{CatalogueChange, Endpoint, Network, Service};

/// What was told, and so what is news.
#[derive(Debug, Default)]
pub(super) struct Mirror {
    networks: BTreeMap<NetworkId, Arc<Network>>,
    services: BTreeMap<ServiceId, Arc<Service>>,
    endpoints: BTreeMap<EndpointId, Arc<Endpoint>>,
}

impl Mirror {
    /// Those of the changes that are news.
    pub(super) fn heed(&mut self, changes: Vec<CatalogueChange>) -> Vec<CatalogueChange> {
        changes.into_iter().filter(|change| self.is_news(change)).collect()
    }

    /// What differs from what was told before, now that `all` is there, and nothing else but the records of these keys, which cannot
    /// be read.
    pub(super) fn heed_all<'k>(
        &mut self,
        all: Vec<CatalogueChange>,
        unreadable: impl IntoIterator<Item = &'k String>,
    ) -> Vec<CatalogueChange> {
        // A key ends with the object's id.
        let mut there: BTreeSet<[u8; 16]> = unreadable
            .into_iter()
            .filter_map(|key| key.rsplit('/').next()?.parse::<EndpointId>().ok().map(EndpointId::to_bytes))
            .collect();
        there.extend(all.iter().map(id));
        let mut gone = Vec::new();
        let is_gone = |id: [u8; 16]| !there.contains(&id);
        gone.extend(
            self.endpoints.keys().filter(|id| is_gone(id.to_bytes())).map(|id| CatalogueChange::EndpointGone(*id)),
        );
        gone.extend(
            self.services.keys().filter(|id| is_gone(id.to_bytes())).map(|id| CatalogueChange::ServiceGone(*id)),
        );
        gone.extend(
            self.networks.keys().filter(|id| is_gone(id.to_bytes())).map(|id| CatalogueChange::NetworkGone(*id)),
        );
        gone.extend(all);
        self.heed(gone)
    }

    fn is_news(&mut self, change: &CatalogueChange) -> bool {
        match change {
            CatalogueChange::Network(of) => put(&mut self.networks, of.id, of),
            CatalogueChange::NetworkGone(id) => self.networks.remove(id).is_some(),
            CatalogueChange::Service(of) => put(&mut self.services, of.id, of),
            CatalogueChange::ServiceGone(id) => self.services.remove(id).is_some(),
            CatalogueChange::Endpoint(of) => put(&mut self.endpoints, of.id, of),
            CatalogueChange::EndpointGone(id) => self.endpoints.remove(id).is_some(),
        }
    }
}

fn put<I: Ord, T: PartialEq>(map: &mut BTreeMap<I, Arc<T>>, id: I, object: &Arc<T>) -> bool {
    map.insert(id, Arc::clone(object)).as_ref() != Some(object)
}

fn id(change: &CatalogueChange) -> [u8; 16] {
    match change {
        CatalogueChange::Network(of) => of.id.to_bytes(),
        CatalogueChange::NetworkGone(id) => id.to_bytes(),
        CatalogueChange::Service(of) => of.id.to_bytes(),
        CatalogueChange::ServiceGone(id) => id.to_bytes(),
        CatalogueChange::Endpoint(of) => of.id.to_bytes(),
        CatalogueChange::EndpointGone(id) => id.to_bytes(),
    }
}
