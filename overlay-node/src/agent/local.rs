//! Endpoints on this node.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use ipnet::IpNet;
use overlay_core::{EndpointId, IfName, Instant, Name, NetworkId, NsKey};
use overlay_dns::Health;
use overlay_gossip::{EntryKey, Sequence};

use super::gossip::{ENDPOINTS, key};
use super::{Agent, AgentEvent, InputError};
use crate::derive::Fitness;
use crate::{Condition, Endpoint, EndpointSpec, GatewayBridge, GatewayPort, LocalEndpoint, RemoteEndpoint, mesh};

/// Where an endpoint's container is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plug {
    namespace: Option<NsKey>,
    interface: IfName,
    pub(super) health: Health,
    /// Whether it was in effect there; `None` if an earlier start knows, so that what the catalogue says counts.
    stood: Option<bool>,
}

/// What others were told of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) network: NetworkId,
    pub(super) fact: Bytes,
    /// The number of that change.
    pub(super) sequence: Sequence,
}

impl Plug {
    fn new(namespace: Option<NsKey>, interface: IfName, adopted: bool) -> Self {
        Self { namespace, interface, health: Health::Healthy, stood: (!adopted).then_some(false) }
    }

    /// Whether the endpoint should be sent to. Until it has been in effect it is only where nobody else is that serves the same.
    fn health_of(&self, endpoint: &Endpoint) -> Health {
        let EndpointSpec { service, names, .. } = &endpoint.spec;
        let has_alike = service.is_some() || !names.is_empty();
        if self.stood == Some(true) || !has_alike { self.health } else { self.health.max(Health::Suspect) }
    }

    fn is_at(&self, namespace: Option<&NsKey>, interface: IfName) -> bool {
        self.interface == interface && self.namespace.as_ref().map(|key| key.id) == namespace.map(|key| key.id)
    }
}

impl Agent {
    pub(super) fn plug(
        &mut self,
        id: EndpointId,
        (namespace, interface): (Option<NsKey>, IfName),
        adopted: bool,
    ) -> Result<(), InputError> {
        if namespace.is_some()
            && self.knowledge.settings.gateway.is_some()
            && interface.as_str() == GatewayBridge::INTERFACE
        {
            return Err(InputError::Reserved { interface });
        }
        let there = |(other, plug): &(&EndpointId, &Plug)| **other != id && plug.is_at(namespace.as_ref(), interface);
        // Taps are in their network's sandbox; of which network this is may not be known yet.
        let occupied = namespace.as_ref().and_then(|_| self.plugs.iter().find(there));
        if let Some((by, _)) = occupied {
            return Err(InputError::Occupied { by: *by, interface });
        }
        let mut plug = Plug::new(namespace, interface, adopted);
        if let Some(before) = self.plugs.get(&id) {
            let is_there = before.is_at(plug.namespace.as_ref(), interface);
            (plug.health, plug.stood) = (before.health, if is_there { before.stood } else { Some(false) });
            if !is_there {
                self.reports.forget(id); // what was in effect was so elsewhere
            }
        }
        self.plugs.insert(id, plug);
        self.touched.insert(id);
        Ok(())
    }

    pub(super) fn set_gateway_port(&mut self, container: Name, port: Option<GatewayPort>) -> Result<(), InputError> {
        let ports = &self.knowledge.gateway_ports;
        if ports.get(&container).copied() == port {
            return Ok(());
        }
        if let Some((by, _)) = ports.iter().find(|(other, taken)| Some(**taken) == port && **other != container) {
            return Err(InputError::GatewayPortTaken { by: by.clone() });
        }
        let ports = Arc::make_mut(&mut self.knowledge.gateway_ports);
        match port {
            Some(port) => drop(ports.insert(container, port)),
            None => drop(ports.remove(&container)),
        }
        self.changed = true;
        Ok(())
    }

    /// The node's own part of the routing mesh needs nobody to plug it in. It is there while a service publishes a port.
    fn join_mesh(&mut self, id: EndpointId) {
        let endpoint = self.catalogue.endpoints.get(&id).filter(|endpoint| self.is_of_mesh(endpoint));
        let Some(endpoint) = endpoint.cloned() else { return };
        let network = endpoint.spec.network;
        if let Some(reason) = self.hinders_mesh(network) {
            self.plugs.remove(&id);
            let said = Condition::Failed { reason: reason.clone() };
            let report = AgentEvent::Report { endpoint: id, moves: endpoint.moves, result: Err(reason) };
            self.events.extend((endpoint.condition != said).then_some(report));
            return;
        }
        let published = self.catalogue.services.values().any(|service| service.vips.contains_key(&network));
        let host = self.knowledge.settings.host.clone().filter(|_| published && !self.out_of_mesh);
        match (host, mesh::interface(network, self.knowledge.me)) {
            (Some(host), Some(interface)) => {
                let plug = Plug::new(Some(host), interface, false);
                if !self.plugs.get(&id).is_some_and(|was| was.is_at(plug.namespace.as_ref(), interface)) {
                    self.plugs.insert(id, plug);
                }
            }
            _ => drop(self.plugs.remove(&id)),
        }
    }

    /// The ingress network's subnets are on the host's link: one that a node is in would take the way to it, and what is behind the gateway bridge
    /// cannot be there too.
    fn hinders_mesh(&self, network: NetworkId) -> Option<String> {
        let network = self.catalogue.networks.get(&network)?;
        let nodes = || self.knowledge.nodes.values().flat_map(|node| [node.vtep, node.address.ip()]);
        let gateway = self.knowledge.settings.gateway.as_ref();
        let bridge: Vec<IpNet> = gateway
            .iter()
            .flat_map(|it| [it.v4.map(IpNet::V4), it.v6.map(IpNet::V6)])
            .flatten()
            .map(|net| net.trunc())
            .collect();
        let subnets = network.subnets.iter().map(|subnet| subnet.net());
        let mut hindered = subnets.filter_map(|net| {
            let node = nodes().find(|address| net.contains(address)).map(|address| format!("the node {address}"));
            let overlaps = |other: &&IpNet| other.contains(&net) || net.contains(*other);
            Some((net, node.or_else(|| bridge.iter().find(overlaps).map(|it| format!("the gateway bridge {it}")))?))
        });
        let (net, who) = hindered.next()?;
        Some(format!(
            "{who} is in {net} of the ingress network, so the node publishes nothing: create that network with another subnet"
        ))
    }

    /// Whether an ingress network has an address: that a node is there hinders the mesh.
    pub(super) fn is_of_ingress(&self, address: IpAddr) -> bool {
        let ingress = self.catalogue.networks.values().filter(|network| network.spec.ingress);
        ingress.flat_map(|network| &network.subnets).any(|subnet| subnet.net().contains(&address))
    }

    /// Looks at the node's own part of the routing mesh again.
    pub(super) fn doubt_mesh(&mut self) {
        let me = self.knowledge.me;
        let ingress = self.catalogue.networks.values().filter(|network| network.spec.ingress);
        self.touched.extend(ingress.map(|network| mesh::endpoint(network.id, me)));
    }

    pub(super) fn unplug(&mut self, id: EndpointId) {
        self.out_of_mesh |= self.catalogue.endpoints.get(&id).is_some_and(|endpoint| self.is_of_mesh(endpoint));
        if self.plugs.remove(&id).is_some() {
            self.reports.forget(id);
            self.touched.insert(id);
        }
    }

    pub(super) fn set_health(&mut self, id: EndpointId, health: Health) {
        if let Some(plug) = self.plugs.get_mut(&id) {
            plug.health = health;
            self.touched.insert(id);
        }
    }

    /// Puts an endpoint of this node into its section if it is plugged in.
    fn place_endpoint(&mut self, id: EndpointId) {
        self.join_mesh(id);
        let endpoint = self.catalogue.endpoints.get(&id).cloned();
        if let (Some(plug), Some(endpoint)) = (self.plugs.get_mut(&id), &endpoint) {
            plug.stood = plug.stood.or_else(|| (endpoint.condition == Condition::Ready).then_some(true));
        }
        let network = endpoint.as_ref().map(|endpoint| endpoint.spec.network);
        let has_its_own = |endpoint: &Arc<Endpoint>| endpoint.condition != Condition::Accepted;
        let local = endpoint.filter(has_its_own).zip(self.plugs.get(&id)).map(|(endpoint, plug)| LocalEndpoint {
            namespace: plug.namespace.clone(),
            interface: plug.interface,
            health: plug.health_of(&endpoint),
            endpoint,
        });
        let holds = self.knowledge.networks.iter().filter(|(_, section)| section.local.contains_key(&id));
        let elsewhere: Vec<NetworkId> = holds.map(|(of, _)| *of).filter(|of| Some(*of) != network).collect();
        for of in elsewhere {
            self.put_local(of, id, None);
        }
        if let Some(network) = network {
            self.put_local(network, id, local);
        }
    }

    /// Tells the other nodes of these endpoints, and reports what became of them. Who is in effect for the first time is to be looked at again: now
    /// he should be sent to.
    pub(super) fn tell_endpoints(&mut self, ids: &BTreeSet<EndpointId>, now: Instant) {
        let mut known = BTreeMap::<NetworkId, Fitness>::new();
        for id in ids {
            let endpoint = self.catalogue.endpoints.get(id).filter(|_| self.plugs.contains_key(id)).cloned();
            let network = endpoint.as_ref().map(|endpoint| endpoint.spec.network);
            let section = network.and_then(|network| self.knowledge.networks.get_key_value(&network));
            if let Some((network, section)) = section {
                known.entry(*network).or_insert_with(|| Fitness::of(&self.knowledge, section));
            }
            let fitness = network.and_then(|network| known.get(&network));
            let fact = fitness.filter(|fitness| fitness.check(*id).is_ok()).and_then(|_| self.fact(*id));
            self.tell(*id, fact, now);
            let report = endpoint.and_then(|endpoint| self.reports.of(&self.knowledge, &endpoint, fitness));
            self.events.extend(report);
            self.look_whether_it_stands(*id);
        }
    }

    fn look_whether_it_stands(&mut self, id: EndpointId) {
        let Some(plug) = self.plugs.get_mut(&id).filter(|plug| plug.stood != Some(true)) else { return };
        let network = self.catalogue.endpoints.get(&id).map(|endpoint| endpoint.spec.network);
        let section = network.and_then(|network| self.knowledge.networks.get(&network));
        let held = section.and_then(|section| Some((section, section.local.get(&id)?)));
        if held.is_some_and(|(section, local)| self.reports.stands(&self.knowledge, section, local)) {
            plug.stood = Some(true);
            self.touched.insert(id);
        }
    }

    fn put_local(&mut self, network: NetworkId, id: EndpointId, local: Option<LocalEndpoint>) {
        let Some(section) = self.knowledge.networks.get_mut(&network) else { return };
        if section.local.get(&id).map(|held| &**held) == local.as_ref() {
            return;
        }
        let all = &mut Arc::make_mut(section).local;
        match local {
            Some(local) => drop(all.insert(id, Arc::new(local))),
            None => drop(all.remove(&id)),
        }
        self.claims.entry(network).or_default().choose(section, id, &self.catalogue.assigned);
        self.changed = true;
        self.shifted.insert(network);
    }

    /// Puts the endpoints of which something changed where they belong. Given back are those and all others of their networks here: what is in
    /// effect of one may depend on another. O(n log n) however many changed.
    pub(super) fn place_endpoints(&mut self) -> BTreeSet<EndpointId> {
        let mut concerned = std::mem::take(&mut self.touched);
        for id in &concerned {
            self.place_endpoint(*id);
        }
        while let Some(network) = self.shifted.pop_first() {
            let section = self.knowledge.networks.get(&network);
            concerned.extend(section.into_iter().flat_map(|section| section.local.keys()));
        }
        concerned
    }

    /// Tells the other nodes of an endpoint that is here and fit, or that it is here no more.
    fn tell(&mut self, id: EndpointId, fit: Option<(NetworkId, Bytes)>, now: Instant) {
        if self.told.get(&id).map(|told| (told.network, &told.fact)) == fit.as_ref().map(|(to, fact)| (*to, fact)) {
            return;
        }
        self.changed |= self.watches.note();
        if let Some(Told { network, .. }) = self.told.remove(&id) {
            let moved = fit.as_ref().is_none_or(|(to, _)| *to != network);
            if let (true, Some(key)) = (moved, key(id)) {
                // Not subscribed any more means that the entries are gone already.
                let _ = self.gossip.remove(EntryKey { network, table: ENDPOINTS, key }, now);
            }
        }
        if let (Some((network, fact)), Some(key)) = (fit, key(id)) {
            match self.gossip.put(EntryKey { network, table: ENDPOINTS, key }, fact.clone(), now) {
                Ok(sequence) => drop(self.told.insert(id, Told { network, fact, sequence })),
                Err(refused) => self.reports.untold(id, refused.to_string()),
            }
        }
    }

    /// What other nodes are to know of an endpoint that is here.
    fn fact(&mut self, id: EndpointId) -> Option<(NetworkId, Bytes)> {
        let network = self.catalogue.endpoints.get(&id)?.spec.network;
        let section = self.knowledge.networks.get(&network)?;
        let local = section.local.get(&id)?;
        match fact(&self.knowledge.me, local).encode() {
            Ok(fact) => {
                self.reports.told(id);
                Some((network, fact.into()))
            }
            Err(long) => {
                self.reports.untold(id, long.to_string());
                None
            }
        }
    }
}

/// What this node says of an endpoint.
fn fact(me: &overlay_core::NodeId, local: &LocalEndpoint) -> RemoteEndpoint {
    let endpoint = &local.endpoint;
    RemoteEndpoint {
        node: *me,
        container: endpoint.spec.container.clone(),
        mac: endpoint.mac,
        addresses: endpoint.addresses.iter().map(IpNet::addr).collect(),
        names: endpoint.spec.names.clone(),
        service: endpoint.spec.service,
        labels: endpoint.spec.labels.clone(),
        health: local.health,
        moves: endpoint.moves,
        weight: endpoint.spec.weight,
    }
}
