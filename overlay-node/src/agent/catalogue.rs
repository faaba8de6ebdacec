//! What the catalogue says, as far as it is of use to this node.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use overlay_core::{EndpointId, Instant, NetworkId, NodeId, ServiceId};

use super::{Agent, AgentEvent};
use crate::knowledge::{Assigned, Assignments, Claims};
use crate::{CatalogueChange, Condition, Endpoint, Network, Section, Service};

/// All nodes, networks and services, the endpoints that are assigned to this node, and where the others are.
#[derive(Debug, Clone, Default)]
pub(super) struct Catalogue {
    /// Without those that are being removed.
    pub(super) nodes: BTreeSet<NodeId>,
    pub(super) networks: BTreeMap<NetworkId, Arc<Network>>,
    pub(super) services: BTreeMap<ServiceId, Arc<Service>>,
    pub(super) endpoints: BTreeMap<EndpointId, Arc<Endpoint>>,
    pub(super) assigned: Assignments,
}

impl Agent {
    pub(super) fn handle_catalogue(&mut self, change: CatalogueChange, now: Instant) {
        match change {
            CatalogueChange::Node(node) if node.condition == Condition::Removing => self.dismiss(node.id, now),
            CatalogueChange::Node(node) => self.admit(node.id),
            CatalogueChange::NodeGone(id) => self.dismiss(id, now),
            CatalogueChange::Network(network) => {
                self.touched_networks.insert(network.id);
                self.catalogue.networks.insert(network.id, network);
            }
            CatalogueChange::NetworkGone(id) => {
                self.touched_networks.insert(id);
                self.catalogue.networks.remove(&id);
            }
            CatalogueChange::Service(service) => self.put_service(service.id, Some(&service)),
            CatalogueChange::ServiceGone(id) => self.put_service(id, None),
            CatalogueChange::Endpoint(endpoint) => {
                self.assign(endpoint.id, Assigned::of(&endpoint));
                self.put_endpoint(endpoint);
            }
            CatalogueChange::EndpointGone(id) => {
                self.assign(id, None);
                self.remove_endpoint(id);
            }
        }
    }

    /// A node of the cluster: its keys count from now on.
    fn admit(&mut self, node: NodeId) {
        if self.catalogue.nodes.insert(node) {
            self.doubt_seal();
            if self.offers.has_heard(node) {
                self.doubt_keys_of_nodes();
            }
        }
    }

    /// A node is the cluster's no more: nothing is agreed on with it any more, whatever it says by gossip, and what it was told of goes; so does the key of gossip.
    fn dismiss(&mut self, node: NodeId, now: Instant) {
        if self.catalogue.nodes.remove(&node) {
            self.forget_node(node, now);
            self.rotate_gossip_without(node, now);
            self.doubt_seal();
            self.doubt_keys_of_nodes();
        }
    }

    fn doubt_keys_of_nodes(&mut self) {
        (self.doubt_records, self.doubt_keys) = (true, true);
    }

    /// What nodes say of an endpoint may count from now on, or no more.
    fn assign(&mut self, id: EndpointId, new: Option<Assigned>) {
        let is = new.as_ref().map(|new| new.network);
        let old = match new {
            Some(new) => self.catalogue.assigned.insert(id, new),
            None => self.catalogue.assigned.remove(&id),
        };
        let was = old.map(|old| old.network).filter(|was| Some(*was) != is);
        for network in was.into_iter().chain(is) {
            self.with_section(network, |section, claims, assigned| claims.choose(section, id, assigned));
        }
    }

    fn put_service(&mut self, id: ServiceId, new: Option<&Arc<Service>>) {
        let old = match new {
            Some(new) => self.catalogue.services.insert(id, new.clone()),
            None => self.catalogue.services.remove(&id),
        };
        for service in old.iter().chain(new) {
            self.touched_networks.extend(service.spec.networks.keys().chain(service.vips.keys()));
            self.watches.reconsider(service, &self.catalogue);
        }
    }

    /// Of the endpoints, those that are to be here.
    fn put_endpoint(&mut self, endpoint: Arc<Endpoint>) {
        let id = endpoint.id;
        if endpoint.spec.node != self.knowledge.me || endpoint.condition == Condition::Removing {
            return self.remove_endpoint(id);
        }
        self.reports.reconsider(&endpoint);
        self.touch(&endpoint);
        if let Some(old) = self.catalogue.endpoints.insert(id, endpoint) {
            self.touched_networks.insert(old.spec.network);
        }
    }

    fn remove_endpoint(&mut self, id: EndpointId) {
        let old = self.catalogue.endpoints.remove(&id);
        old.iter().for_each(|old| self.touch(old));
        if self.plugs.remove(&id).is_some() && !old.is_some_and(|old| self.is_of_mesh(&old)) {
            self.events.push_back(AgentEvent::Withdrawn(id));
        }
        self.reports.forget(id);
    }

    fn touch(&mut self, endpoint: &Endpoint) {
        self.touched.insert(endpoint.id);
        self.touched_networks.insert(endpoint.spec.network);
    }

    /// Follows a network that an endpoint is assigned to here, or a service on which somebody watches, and forgets one that has neither.
    pub(super) fn settle_network(&mut self, id: NetworkId, now: Instant) {
        let has_endpoint = self.catalogue.endpoints.values().any(|endpoint| endpoint.spec.network == id);
        let wanted = has_endpoint || self.watches.need(id, &self.catalogue);
        let network = self.catalogue.networks.get(&id).filter(|_| wanted).cloned();
        let Some(network) = network else { return self.unfollow(id, now) };
        if let Err(refused) = self.gossip.subscribe(id, now) {
            self.counts.unfollowed += 1;
            return self.reports.refuse(id, refused.to_string());
        }
        self.reports.allow(id);
        let on_it = |service: &&Arc<Service>| service.spec.networks.contains_key(&id) || service.vips.contains_key(&id);
        let services = self.catalogue.services.values().filter(on_it).map(|service| (service.id, service.clone()));
        let services = services.collect();
        match self.knowledge.networks.get_mut(&id) {
            Some(section) if section.network == network && section.services == services => return,
            Some(section) => {
                let section = Arc::make_mut(section);
                section.network = network;
                section.services = services;
            }
            None => self.follow(Section { network, local: BTreeMap::new(), remote: BTreeMap::new(), services }),
        }
        self.changed = true;
        self.touch_all(id);
    }

    /// A network's entries may have come before: a subscription outlives nothing, but costs nothing to read.
    fn follow(&mut self, section: Section) {
        let id = section.network.id;
        self.knowledge.networks.insert(id, Arc::new(section));
        self.claims.insert(id, Claims::default());
        self.reread(id);
    }

    fn unfollow(&mut self, id: NetworkId, now: Instant) {
        self.reports.allow(id);
        self.gossip.unsubscribe(id, now);
        self.claims.remove(&id);
        self.forget_records(id);
        if self.knowledge.networks.remove(&id).is_some() {
            self.told.retain(|_, told| told.network != id);
            self.changed = true;
            self.touch_all(id);
        }
    }

    fn touch_all(&mut self, network: NetworkId) {
        let of = self.catalogue.endpoints.values().filter(|endpoint| endpoint.spec.network == network);
        self.touched.extend(of.map(|endpoint| endpoint.id));
    }
}
