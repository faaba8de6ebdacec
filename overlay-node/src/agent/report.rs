//! What became of the endpoints of this node.

use std::collections::BTreeMap;
use std::sync::Arc;

use overlay_core::{EndpointId, NetworkId};

use super::{Agent, AgentEvent};
use crate::derive::{Fitness, holds, port};
use crate::{Condition, Endpoint, Kind, Knowledge, LocalEndpoint, Place, PlaceState, Section};

/// What places were given, and what was reported of endpoints.
#[derive(Debug, Clone, Default)]
pub(super) struct Reports {
    /// What places hold, as far as they said so.
    held: BTreeMap<Place, Arc<PlaceState>>,
    /// Places that could not be given what they should hold.
    failed: BTreeMap<Place, String>,
    /// Networks that are not followed.
    refused: BTreeMap<NetworkId, String>,
    /// Endpoints that the others cannot be told of.
    untold: BTreeMap<EndpointId, String>,
    said: BTreeMap<EndpointId, Result<(), String>>,
}

impl Reports {
    /// What is new to say of an endpoint that is plugged in.
    pub(super) fn of(
        &mut self,
        knowledge: &Knowledge,
        endpoint: &Endpoint,
        fitness: Option<&Fitness>,
    ) -> Option<AgentEvent> {
        let result = self.result(knowledge, endpoint, fitness)?;
        if self.said.get(&endpoint.id) == Some(&result) {
            return None;
        }
        self.said.insert(endpoint.id, result.clone());
        Some(AgentEvent::Report { endpoint: endpoint.id, moves: endpoint.moves, result })
    }

    /// `None` while it is on its way.
    fn result(
        &self,
        knowledge: &Knowledge,
        endpoint: &Endpoint,
        fitness: Option<&Fitness>,
    ) -> Option<Result<(), String>> {
        if endpoint.condition == Condition::Accepted {
            return None; // it has no address yet
        }
        let (id, network) = (endpoint.id, endpoint.spec.network);
        let known = self.refused.get(&network).or_else(|| self.untold.get(&id));
        if let Some(reason) = known {
            return Some(Err(reason.clone()));
        }
        let section = knowledge.networks.get(&network)?;
        if let Err(reason) = fitness?.check(id) {
            return Some(Err(reason));
        }
        let local = section.local.get(&id)?;
        let virtual_machine = local.namespace.is_none();
        let container = Place::Container(endpoint.spec.container.clone());
        if self.holds(knowledge, section, id, local)
            && (virtual_machine
                || section.network.spec.ingress
                || self.sees(&container, section.network.spec.name.as_str()))
        {
            return Some(Ok(()));
        }
        let places = [Place::Host, Place::Network(network), container];
        places.iter().find_map(|place| self.failed.get(place)).map(|reason| Err(reason.clone()))
    }

    /// Whether the endpoint is plugged in where it should be now.
    fn holds(&self, knowledge: &Knowledge, section: &Section, id: EndpointId, local: &LocalEndpoint) -> bool {
        if section.network.spec.kind != Kind::Overlay {
            return holds(section, knowledge.me, (id, local), |place| self.held.get(place).cloned()).1;
        }
        let network = section.network.id;
        let held = self.held.get(&Place::Network(network));
        let mut segments = held.into_iter().flat_map(|state| state.vxlan.segments.values());
        segments.any(|segment| segment.ports.get(&id) == Some(&port(local)))
    }

    /// Whether the container sees the network.
    fn sees(&self, container: &Place, network: &str) -> bool {
        let held = self.held.get(container);
        held.is_some_and(|state| state.view.networks.iter().any(|zone| zone.network().as_str() == network))
    }

    /// The catalogue has an endpoint otherwise than it was reported: say it again.
    pub(super) fn reconsider(&mut self, endpoint: &Endpoint) {
        let agrees = match (self.said.get(&endpoint.id), &endpoint.condition) {
            (Some(Ok(())), Condition::Ready) | (None, _) => true,
            (Some(Err(reason)), Condition::Failed { reason: written }) => reason == written,
            _ => false,
        };
        if !agrees {
            self.said.remove(&endpoint.id);
        }
    }

    pub(super) fn forget(&mut self, id: EndpointId) {
        self.said.remove(&id);
        self.untold.remove(&id);
    }

    pub(super) fn refuse(&mut self, network: NetworkId, reason: String) {
        self.refused.insert(network, reason);
    }

    pub(super) fn allow(&mut self, network: NetworkId) {
        self.refused.remove(&network);
    }

    pub(super) fn untold(&mut self, id: EndpointId, reason: String) {
        self.untold.insert(id, reason);
    }

    pub(super) fn why_untold(&self, id: EndpointId) -> Option<&str> {
        self.untold.get(&id).map(String::as_str)
    }

    pub(super) fn told(&mut self, id: EndpointId) {
        self.untold.remove(&id);
    }
}

impl Agent {
    pub(super) fn handle_applied(&mut self, place: Place, state: Option<Arc<PlaceState>>, result: Result<(), String>) {
        match &place {
            Place::Host => self.touched.extend(self.plugs.keys()),
            Place::Network(network) => {
                self.touched
                    .extend(self.knowledge.networks.get(network).iter().flat_map(|section| section.local.keys()));
            }
            Place::Container(name) => {
                let of = self.catalogue.endpoints.values().filter(|endpoint| endpoint.spec.container == *name);
                self.touched.extend(of.map(|endpoint| endpoint.id));
            }
        }
        let reports = &mut self.reports;
        match (result, state) {
            (Err(reason), _) => drop(reports.failed.insert(place, reason)),
            (Ok(()), Some(state)) => {
                reports.failed.remove(&place);
                reports.held.insert(place, state);
            }
            (Ok(()), None) => {
                reports.failed.remove(&place);
                reports.held.remove(&place);
            }
        }
    }
}
