//! The endpoints of a service, for somebody who balances by himself.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use overlay_core::{AddressSet, EndpointId, Name, NetworkId, NodeId, ServiceId};
use overlay_dns::Health;
use overlay_lb::Weight;
use serde::{Deserialize, Serialize};

use crate::PublishedPort;

/// What a node knows of a service and its endpoints: see [`Agent::watched`](crate::Agent::watched).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceEndpoints {
    /// The service.
    pub service: ServiceId,
    /// Its name.
    pub name: Name,
    /// Its published ports, each with its number.
    pub ports: Vec<PublishedPort>,
    /// Those of its networks that the node hears nothing of: who is there is not known.
    pub unheard: BTreeSet<NetworkId>,
    /// Its endpoints that are in effect, as their nodes say and the catalogue too. Those of a bridge's network are of this node alone.
    pub endpoints: BTreeMap<EndpointId, ServiceEndpoint>,
}

/// An endpoint of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceEndpoint {
    /// On which of the service's networks it is: a container may have an endpoint on each.
    pub network: NetworkId,
    /// The container.
    pub container: Name,
    /// The node that it is on.
    pub node: NodeId,
    /// Where other nodes reach that: the address for the service's ports that are published in mode host.
    pub node_address: IpAddr,
    /// Its addresses in the network.
    pub addresses: AddressSet,
    /// Its share of the service's work, relative to the others'.
    pub weight: Weight,
    /// Whether it should be sent to: by its node's word, and no better than suspect where the node is not alive for sure.
    #[serde(with = "HealthForm")]
    pub health: Health,
}

/// Something of a service's endpoints that is otherwise than before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndpointChange {
    /// It is new.
    Added(EndpointId, ServiceEndpoint),
    /// It should be sent to, or not, or no more; all else is as it was.
    Health(EndpointId, #[serde(with = "HealthForm")] Health),
    /// It moved, or weighs otherwise: as it is now.
    Changed(EndpointId, ServiceEndpoint),
    /// It is gone.
    Removed(EndpointId),
}

/// What is told to somebody who watches a service. Whoever [heeds](Self::heed) all of it, in order, has what the node knew when it told the last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServiceEvent {
    /// All there is, in place of all that was told before; `None` while no service is called so. It comes first, and again whenever
    /// something is otherwise that no change tells.
    All(Option<Arc<ServiceEndpoints>>),
    /// What is otherwise than before, at least one, each endpoint once, in the order of their ids.
    Changes(Vec<EndpointChange>),
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Health", rename_all = "snake_case")]
enum HealthForm {
    Healthy,
    Suspect,
    Draining,
}

impl ServiceEndpoints {
    /// The changes that make these the others; `None` if there is more to it than changes of endpoints. O(n) for n endpoints.
    pub fn changes_to(&self, new: &Self) -> Option<Vec<EndpointChange>> {
        let head = |of: &Self| (of.service, of.name.clone(), of.ports.clone(), of.unheard.clone());
        if head(self) != head(new) {
            return None;
        }
        let ids: BTreeSet<&EndpointId> = self.endpoints.keys().chain(new.endpoints.keys()).collect();
        let change = |id: &EndpointId| match (self.endpoints.get(id), new.endpoints.get(id)) {
            (Some(_), None) => Some(EndpointChange::Removed(*id)),
            (None, Some(new)) => Some(EndpointChange::Added(*id, new.clone())),
            (Some(old), Some(new)) if old == new => None,
            (Some(old), Some(new)) if *new == (ServiceEndpoint { health: new.health, ..old.clone() }) => {
                Some(EndpointChange::Health(*id, new.health))
            }
            (_, new) => new.map(|new| EndpointChange::Changed(*id, new.clone())),
        };
        Some(ids.into_iter().filter_map(change).collect())
    }

    /// Makes a change. One of the health of an endpoint that is not there changes nothing.
    pub fn apply(&mut self, change: EndpointChange) {
        match change {
            EndpointChange::Added(id, endpoint) | EndpointChange::Changed(id, endpoint) => {
                self.endpoints.insert(id, endpoint);
            }
            EndpointChange::Health(id, health) => {
                if let Some(endpoint) = self.endpoints.get_mut(&id) {
                    endpoint.health = health;
                }
            }
            EndpointChange::Removed(id) => drop(self.endpoints.remove(&id)),
        }
    }
}

impl ServiceEvent {
    /// What is to be told to somebody who knows `old`, or nothing at all yet, so that he knows `new`; `None` if he does.
    pub fn between(old: Option<&Option<Arc<ServiceEndpoints>>>, new: &Option<Arc<ServiceEndpoints>>) -> Option<Self> {
        let changes = match (old, new) {
            (Some(Some(old)), Some(new)) if Arc::ptr_eq(old, new) => return None,
            (Some(Some(old)), Some(new)) => old.changes_to(new),
            (Some(None), None) => return None,
            _ => None,
        };
        match changes {
            None => Some(Self::All(new.clone())),
            Some(changes) if changes.is_empty() => None,
            Some(changes) => Some(Self::Changes(changes)),
        }
    }

    /// Brings what is known up to date. Changes where nothing is known yet change nothing.
    pub fn heed(self, known: &mut Option<Arc<ServiceEndpoints>>) {
        match (self, known) {
            (Self::All(all), known) => *known = all,
            (Self::Changes(changes), Some(known)) => {
                let known = Arc::make_mut(known);
                changes.into_iter().for_each(|change| known.apply(change));
            }
            (Self::Changes(_), None) => {}
        }
    }
}
