//! The endpoints on the ingress network: of the nodes, and of the containers that serve there.

use std::collections::BTreeSet;

use overlay_core::{Key, NetworkId, NodeId, UnixTime};

use super::Manager;
use super::transaction::id_in;
use crate::catalogue::record::Held;
use crate::{Condition, ControlError, Endpoint, EndpointSpec, Network, Node, Refused, Service, mesh};

impl Manager {
    /// Gives every node its endpoint on the ingress network, if a service publishes a port there. It keeps it until the network or the node goes.
    /// Gives what was in the way of some of them: they publish nothing until it is gone.
    pub(super) async fn join_mesh(&self, now: UnixTime) -> Result<Vec<ControlError>, ControlError> {
        let mut troubles = Vec::new();
        let Some(network) = self.used_ingress().await? else { return Ok(troubles) };
        let nodes: Vec<Node> = self.by_name().await?;
        for node in nodes.iter().filter(|node| node.condition != Condition::Removing) {
            troubles.extend(self.join_node(network, node.id, now).await.err());
        }
        Ok(troubles)
    }

    /// The same of one node.
    pub(super) async fn join_mesh_as(&self, node: NodeId, now: UnixTime) -> Result<Vec<ControlError>, ControlError> {
        Ok(match self.used_ingress().await? {
            Some(network) => self.join_node(network, node, now).await.err().into_iter().collect(),
            None => Vec::new(),
        })
    }

    /// The ingress network, if it is allocated and a service publishes there.
    async fn used_ingress(&self) -> Result<Option<NetworkId>, ControlError> {
        let ingress = self.keys.ingress();
        let Some(entry) = self.store.get(&ingress).await? else { return Ok(None) };
        let id = id_in(&ingress, &entry.value)?;
        let used = !self.store.list(&self.keys.users(id)).await?.entries.is_empty();
        let network = self.load::<Network>(&self.keys.network(id)).await?;
        let stands = |held: &Held<Network>| !held.is_pending() && !held.is_removing();
        Ok((used && network.as_ref().is_some_and(stands)).then_some(id))
    }

    async fn join_node(&self, network: NetworkId, node: NodeId, now: UnixTime) -> Result<(), ControlError> {
        let id = mesh::endpoint(network, node);
        let held = self.load::<Endpoint>(&self.keys.endpoint(network, id)).await?;
        if held.is_some_and(|held| !held.is_pending()) {
            return Ok(());
        }
        let Ok(spec) = mesh::spec(network, node) else { return Ok(()) };
        match self.make_endpoint(id, spec, now).await {
            // The node, the network or the endpoint is being removed: whoever does that goes on.
            Err(ControlError::Refused(Refused::Removing { .. } | Refused::NotFound { .. })) => Ok(()),
            made => made.map(drop),
        }
    }

    /// Attaches the container of an endpoint to the ingress network too, if the service that it serves publishes there and it is not there yet.
    pub(super) async fn join_replica(&self, of: &Endpoint, now: UnixTime) -> Result<(), ControlError> {
        use Refused::{AlreadyAttached, Differs, NotFound, Removing};
        let Some((service, ingress)) = self.served_at_ingress(of).await? else { return Ok(()) };
        let id = mesh::mesh_replica(service.id, of.spec.node, &of.spec.container);
        let spec = EndpointSpec { network: ingress, addresses: BTreeSet::new(), mac: None, ..of.spec.clone() };
        match self.make_endpoint(id, spec, now).await {
            // Somebody attached it by hand, or it has one by another of its endpoints; or all of it goes.
            Err(ControlError::Refused(AlreadyAttached { .. } | Differs { .. } | Removing { .. } | NotFound { .. })) => {
                Ok(())
            }
            made => made.map(drop),
        }
    }

    /// Takes what [`join_replica`](Self::join_replica) gave from the container of an endpoint that is gone, unless it serves by others still.
    pub(super) async fn leave_replica(&self, of: &Endpoint, now: UnixTime) -> Result<(), ControlError> {
        let Some((service, _)) = self.served_at_ingress(of).await? else { return Ok(()) };
        if self.serves_still(&service, of).await? {
            return Ok(());
        }
        let id = mesh::mesh_replica(service.id, of.spec.node, &of.spec.container);
        self.unmake_endpoint(id, Some(of.spec.node), now).await.map(drop)
    }

    /// The same of all containers whose last endpoint went while the manager died.
    pub(super) async fn leave_replicas(&self, now: UnixTime) -> Result<(), ControlError> {
        let Some(ingress) = self.used_ingress().await? else { return Ok(()) };
        for endpoint in self.endpoints_of(ingress).await? {
            let Endpoint { id, spec, .. } = &endpoint;
            let Some(service) = spec.service else { continue };
            if !mesh::is_replica(&endpoint) {
                continue;
            }
            let service = self.load::<Service>(&self.keys.service(service)).await?;
            if let Some(service) = service
                && !self.serves_still(&service.object, &endpoint).await?
            {
                self.unmake_endpoint(*id, Some(spec.node), now).await?;
            }
        }
        Ok(())
    }

    /// The service that an endpoint serves, if it publishes at the ingress network, and that network, if the endpoint is on another.
    async fn served_at_ingress(&self, of: &Endpoint) -> Result<Option<(Service, NetworkId)>, ControlError> {
        let Some(service) = of.spec.service else { return Ok(None) };
        let keys = [self.keys.service(service), self.keys.ingress()];
        let Some(held) = self.load::<Service>(&keys[0]).await? else { return Ok(None) };
        if !held.object.spec.needs_ingress() {
            return Ok(None);
        }
        let Some(entry) = self.store.get(&keys[1]).await? else { return Ok(None) };
        let ingress = id_in(&keys[1], &entry.value)?;
        Ok(Some((held.object, ingress)).filter(|_| of.spec.network != ingress))
    }

    /// Whether the container of an endpoint has another by which it serves the service: on a network of the service's own.
    async fn serves_still(&self, service: &Service, of: &Endpoint) -> Result<bool, ControlError> {
        let attachment = |network: &NetworkId| self.keys.container(of.spec.node, &of.spec.container, *network);
        let keys: Vec<Key> = service.spec.networks.keys().map(attachment).collect();
        Ok(self.store.read(&keys).await?.entries.iter().any(Option::is_some))
    }

    /// Takes the nodes' endpoints from a network that is to go.
    pub(super) async fn leave_mesh(&self, network: NetworkId, now: UnixTime) -> Result<(), ControlError> {
        for Endpoint { id, spec, .. } in self.endpoints_of(network).await? {
            if id == mesh::endpoint(network, spec.node) {
                self.unmake_endpoint(id, None, now).await?;
            }
        }
        Ok(())
    }
}
