//! What the catalogue's feed has told.

use std::collections::BTreeMap;
use std::sync::Arc;

use overlay_core::{EndpointId, NetworkId, ServiceId};
use overlay_node::{CatalogueChange, Endpoint, Network, Service};

/// All of it, to tell it again to an agent that begins anew.
#[derive(Debug, Default)]
pub(crate) struct Mirror {
    networks: BTreeMap<NetworkId, Arc<Network>>,
    services: BTreeMap<ServiceId, Arc<Service>>,
    pub(crate) endpoints: BTreeMap<EndpointId, Arc<Endpoint>>,
}

impl Mirror {
    pub(crate) fn take(&mut self, change: &CatalogueChange) {
        match change {
            CatalogueChange::Network(network) => drop(self.networks.insert(network.id, Arc::clone(network))),
            CatalogueChange::Service(service) => drop(self.services.insert(service.id, Arc::clone(service))),
            CatalogueChange::Endpoint(endpoint) => drop(self.endpoints.insert(endpoint.id, Arc::clone(endpoint))),
            CatalogueChange::NetworkGone(id) => drop(self.networks.remove(id)),
            CatalogueChange::ServiceGone(id) => drop(self.services.remove(id)),
            CatalogueChange::EndpointGone(id) => drop(self.endpoints.remove(id)),
        }
    }

    /// In an order in which nothing is told before what it is in.
    pub(crate) fn all(&self) -> Vec<CatalogueChange> {
        let networks = self.networks.values().cloned().map(CatalogueChange::Network);
        let services = self.services.values().cloned().map(CatalogueChange::Service);
        networks.chain(services).chain(self.endpoints.values().cloned().map(CatalogueChange::Endpoint)).collect()
    }
}
