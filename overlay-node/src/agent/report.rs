//! What became of the endpoints of this node.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use overlay_core::{EndpointId, IpFamily, Name, NetworkId, Port, Protocol};
use overlay_firewall::Published;

use super::{Agent, AgentEvent};
use crate::derive::{Fitness, holds, kept, port};
use crate::{
    Condition, Endpoint, GatewayBridge, GatewayPort, Kind, Knowledge, LocalEndpoint, Place, PlaceState, PublishMode,
    PublishedPort, Section, Service, mesh,
};

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
    /// The published ports of the host that other programs listen at, and which.
    taken: BTreeMap<(Protocol, Port), String>,
}

impl Reports {
    /// What a place was given last that it holds, as far as it said so.
    pub(super) fn held(&self, place: &Place) -> Option<Arc<PlaceState>> {
        self.held.get(place).cloned()
    }

    /// Whether a place could not be given what it should hold, last.
    pub(super) fn fails(&self, place: &Place) -> bool {
        self.failed.contains_key(place)
    }

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
        if self.stands(knowledge, section, local) {
            return Some(self.publishes(knowledge, section, local));
        }
        let places = [Place::Host, Place::Network(network), Place::Container(endpoint.spec.container.clone())];
        places.iter().find_map(|place| self.failed.get(place)).map(|reason| Err(reason.clone()))
    }

    /// Whether all that an endpoint needs is in effect: what it is plugged in to, and what follows from that in its container. A virtual machine has no such
    /// place, nor has the node's own part of the routing mesh.
    pub(super) fn stands(&self, knowledge: &Knowledge, section: &Section, local: &LocalEndpoint) -> bool {
        let (network, endpoint) = (&section.network, &local.endpoint);
        let container = || Place::Container(endpoint.spec.container.clone());
        self.holds(knowledge, section, endpoint.id, local)
            && (local.namespace.is_none()
                || mesh::is_part(network, endpoint)
                || match network.spec.ingress {
                    true => self.is_within(&container(), network.id),
                    false => self.sees(&container(), network.spec.name.as_str()),
                })
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

    /// Whether the ports that the endpoint's service publishes at hosts are this container's at this one, or why not.
    fn publishes(&self, knowledge: &Knowledge, section: &Section, local: &LocalEndpoint) -> Result<(), String> {
        let spec = &local.endpoint.spec;
        let Some(service) = spec.service.and_then(|service| section.services.get(&service)) else { return Ok(()) };
        if !service.ports.iter().any(|port| port.mode == PublishMode::Host) {
            return Ok(());
        }
        let own = own_ends(knowledge, local);
        for port in
            service.ports.iter().filter(|port| port.mode == PublishMode::Host && port.access.is_at(knowledge.me))
        {
            let Some(number) = port.published else { continue };
            let what = format!("{} {number} of the host is not the container's", port.protocol);
            if let Some(why) = kept(&knowledge.settings, port.protocol, number) {
                return Err(format!("{what}: {why}"));
            }
            if let Some(by) = self.taken.get(&(port.protocol, number)) {
                return Err(format!("{what} alone: {by} listens there"));
            }
            let host = self.held.get(&Place::Host).into_iter().flat_map(|host| host.firewall.published.values());
            let mut there = host.filter(|it| (it.protocol, it.port) == (port.protocol, number)).peekable();
            let is_own = |it: &Published| targets(it).any(|target| own.contains(&target));
            if there.peek().is_some() && !own.is_empty() && !there.any(is_own) {
                return Err(format!("{what}: another container of this node publishes it"));
            }
        }
        Ok(())
    }

    pub(super) fn take(&mut self, taken: BTreeMap<(Protocol, Port), String>) {
        self.taken = taken;
    }

    /// Whether the container holds what follows from being on the network.
    fn is_within(&self, container: &Place, network: NetworkId) -> bool {
        self.held.get(container).is_some_and(|state| state.within.contains(&network))
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

/// Where an endpoint's host ports lead: the addresses at the gateway bridge of its container, and of those that share its namespace.
pub(crate) fn own_ends(knowledge: &Knowledge, local: &LocalEndpoint) -> BTreeSet<IpAddr> {
    let all = knowledge.networks.values().flat_map(|section| section.local.values());
    let beside = all.filter(|other| {
        other.namespace.is_some()
            && other.namespace.as_ref().map(|it| it.id) == local.namespace.as_ref().map(|it| it.id)
    });
    let containers: BTreeSet<&Name> = beside.map(|other| &other.endpoint.spec.container).collect();
    let ports = containers.into_iter().filter_map(|container| knowledge.gateway_ports.get(container).copied());
    let at = ports.filter_map(|port| Some((knowledge.settings.gateway?, port)));
    let of =
        |(bridge, port): (GatewayBridge, GatewayPort)| [IpFamily::V4, IpFamily::V6].map(|of| bridge.address(of, port));
    at.flat_map(of).flatten().map(|own| own.addr()).collect()
}

fn targets(published: &Published) -> impl Iterator<Item = IpAddr> {
    let v6 = published.v6.map(|target| IpAddr::from(*target.ip()));
    published.v4.map(|target| IpAddr::from(*target.ip())).into_iter().chain(v6)
}

/// What of the published ports a node does not publish though the catalogue says so: it needs them itself, or no way leads to the container.
/// O(published ports, and endpoints here).
pub fn unpublished(knowledge: &Knowledge) -> Vec<String> {
    let mut all = needed(knowledge);
    all.extend(unreached(knowledge));
    all
}

/// The ports that a node publishes in its own name: containers see it in place of who asks, since the service is declared so. O(published ports).
pub fn masqueraded(knowledge: &Knowledge) -> Vec<String> {
    let services: BTreeMap<_, _> = knowledge.networks.values().flat_map(|section| &section.services).collect();
    let of = |service: &Arc<Service>| {
        let declared = service.ports.iter().filter(|port| port.mode.is_of_mesh() && !port.source.is_kept());
        let here = declared.filter(|port| port.access.is_at(knowledge.me));
        let said = here.filter_map(|port| Some((port.protocol, port.published?)));
        let name = service.spec.name.clone();
        said.map(move |(protocol, port)| {
            format!("{protocol} {port} of service {name} is masqueraded: its containers see the node")
        })
        .collect::<Vec<_>>()
    };
    services.into_values().flat_map(of).collect()
}

/// Host ports lead to containers by the gateway bridge, where they are if a network of theirs has a way out.
fn unreached(knowledge: &Knowledge) -> Vec<String> {
    let is_open = |section: &&Arc<Section>| {
        section.network.spec.kind == Kind::Overlay
            && !section.network.spec.internal
            && knowledge.settings.gateway.is_some()
    };
    let open = knowledge.networks.values().filter(is_open).flat_map(|section| section.local.values());
    let led = open.filter(|local| knowledge.gateway_ports.contains_key(&local.endpoint.spec.container));
    let led: BTreeSet<_> = led.filter_map(|local| Some(local.namespace.as_ref()?.id)).collect();
    let mut found = BTreeMap::new(); // once for a container, however many networks it is on
    for section in knowledge.networks.values() {
        for local in section.local.values() {
            if local.namespace.as_ref().is_some_and(|namespace| led.contains(&namespace.id)) {
                continue;
            }
            let spec = &local.endpoint.spec;
            let Some(service) = spec.service.and_then(|service| section.services.get(&service)) else { continue };
            let here = |port: &&PublishedPort| port.mode == PublishMode::Host && port.access.is_at(knowledge.me);
            for port in service.ports.iter().filter(here) {
                let Some(number) = port.published else { continue };
                let why = match local.namespace {
                    Some(_) => "it has no way out: attach it to a network that is not internal",
                    None => {
                        "it is a virtual machine: publish the port in mode ingress with source=masquerade, or bridge it to a physical network"
                    }
                };
                let (container, name) = (&spec.container, &service.spec.name);
                let text =
                    format!("{} {number} of service {name} does not lead to {container}, as {why}", port.protocol);
                found.insert((container, port.protocol, number), text);
            }
        }
    }
    found.into_values().collect()
}

fn needed(knowledge: &Knowledge) -> Vec<String> {
    let services = knowledge.networks.values().flat_map(|section| &section.services);
    let services: BTreeMap<_, _> = services.collect();
    let ports = services.values().flat_map(|service| service.ports.iter().map(|port| (&service.spec.name, port)));
    let here = ports.filter(|(_, port)| port.access.is_at(knowledge.me));
    let refused = here.filter_map(|(name, port)| {
        let number = port.published?;
        let why = kept(&knowledge.settings, port.protocol, number)?;
        Some(format!(
            "{} {number} of service {name} is not published here, as {why}: publish another port",
            port.protocol
        ))
    });
    refused.collect()
}

impl Agent {
    pub(super) fn handle_applied(&mut self, place: Place, state: Option<Arc<PlaceState>>, result: Result<(), String>) {
        match &place {
            Place::Host => {
                self.touched.extend(self.plugs.keys());
                self.doubt_keys = true;
            }
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
