//! Endpoints on this node.

use std::sync::Arc;

use bytes::Bytes;
use ipnet::IpNet;
use overlay_core::{EndpointId, IfName, Instant, NetworkId, NsKey};
use overlay_dns::Health;
use overlay_gossip::EntryKey;

use super::gossip::{ENDPOINTS, key};
use super::{Agent, InputError};
use crate::{LocalEndpoint, RemoteEndpoint};

/// Where an endpoint's container is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plug {
    namespace: Option<NsKey>,
    interface: IfName,
    health: Health,
}

impl Plug {
    fn is_at(&self, namespace: Option<&NsKey>, interface: IfName) -> bool {
        self.interface == interface && self.namespace.as_ref().map(|key| key.id) == namespace.map(|key| key.id)
    }
}

impl Agent {
    pub(super) fn plug(
        &mut self,
        id: EndpointId,
        namespace: Option<NsKey>,
        interface: IfName,
    ) -> Result<(), InputError> {
        let there = |(other, plug): &(&EndpointId, &Plug)| **other != id && plug.is_at(namespace.as_ref(), interface);
        // Taps are in their network's sandbox; of which network this is may not be known yet.
        let occupied = namespace.as_ref().and_then(|_| self.plugs.iter().find(there));
        if let Some((by, _)) = occupied {
            return Err(InputError::Occupied { by: *by, interface });
        }
        let health = self.plugs.get(&id).map_or(Health::Healthy, |plug| plug.health);
        self.plugs.insert(id, Plug { namespace, interface, health });
        self.touched.insert(id);
        Ok(())
    }

    pub(super) fn unplug(&mut self, id: EndpointId) {
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

    /// Puts an endpoint of this node into its section if it is plugged in, tells the other nodes, and reports.
    pub(super) fn settle_endpoint(&mut self, id: EndpointId, now: Instant) {
        let endpoint = self.catalogue.endpoints.get(&id).cloned();
        let network = endpoint.as_ref().map(|endpoint| endpoint.spec.network);
        let local = endpoint.zip(self.plugs.get(&id)).map(|(endpoint, plug)| LocalEndpoint {
            endpoint,
            namespace: plug.namespace.clone(),
            interface: plug.interface,
            health: plug.health,
        });
        let elsewhere: Vec<NetworkId> = self
            .knowledge
            .networks
            .iter()
            .filter(|(_, section)| section.local.contains_key(&id))
            .map(|(of, _)| *of)
            .collect();
        for of in elsewhere.into_iter().filter(|of| Some(*of) != network) {
            self.put_local(of, id, None);
        }
        if let Some(network) = network {
            self.put_local(network, id, local);
        }
        self.tell(id, now);
        let report = self
            .reports
            .of(&self.knowledge, self.catalogue.endpoints.get(&id).filter(|_| self.plugs.contains_key(&id)));
        self.events.extend(report);
    }

    fn put_local(&mut self, network: NetworkId, id: EndpointId, local: Option<LocalEndpoint>) {
        let Some(section) = self.knowledge.networks.get_mut(&network) else { return };
        if section.local.get(&id).map(|held| &**held) == local.as_ref() {
            return;
        }
        let section = Arc::make_mut(section);
        match local {
            Some(local) => drop(section.local.insert(id, Arc::new(local))),
            None => drop(section.local.remove(&id)),
        }
        self.claims.entry(network).or_default().choose_again(section, id);
        self.changed = true;
        self.recheck(network);
    }

    /// What is in effect of a network's endpoints may depend on one of them.
    fn recheck(&mut self, network: NetworkId) {
        let section = self.knowledge.networks.get(&network);
        let unsettled = section.into_iter().flat_map(|section| section.local.keys());
        self.touched.extend(unsettled.filter(|id| !self.told.contains_key(id)));
    }

    /// Tells the other nodes of an endpoint that is here and fit, or that it is here no more.
    fn tell(&mut self, id: EndpointId, now: Instant) {
        let fit = self.fit(id);
        let known = self.told.get(&id);
        if known.map(|(network, fact)| (*network, fact)) == fit.as_ref().map(|(network, fact)| (*network, fact)) {
            return;
        }
        if let Some((network, _)) = self.told.remove(&id) {
            let moved = fit.as_ref().is_none_or(|(to, _)| *to != network);
            if let (true, Some(key)) = (moved, key(id)) {
                // Not subscribed any more means that the entries are gone already.
                let _ = self.gossip.remove(EntryKey { network, table: ENDPOINTS, key }, now);
            }
        }
        if let (Some((network, fact)), Some(key)) = (fit, key(id)) {
            match self.gossip.put(EntryKey { network, table: ENDPOINTS, key }, fact.clone(), now) {
                Ok(_) => drop(self.told.insert(id, (network, fact))),
                Err(refused) => self.reports.untold(id, refused.to_string()),
            }
        }
    }

    /// What other nodes are to know of an endpoint, if it is here and could be in effect.
    fn fit(&mut self, id: EndpointId) -> Option<(NetworkId, Bytes)> {
        let network = self.catalogue.endpoints.get(&id)?.spec.network;
        let section = self.knowledge.networks.get(&network)?;
        let local = section.local.get(&id)?;
        crate::derive::fits(&self.knowledge, section, id).ok()?;
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
    }
}
