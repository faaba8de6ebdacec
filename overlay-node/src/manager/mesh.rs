//! The nodes' endpoints on the ingress network.

use overlay_core::{NetworkId, NodeId, UnixTime};

use super::Manager;
use super::transaction::id_in;
use crate::catalogue::record::Held;
use crate::{Condition, ControlError, Endpoint, Network, Node, mesh};

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
            Err(ControlError::Refused(crate::Refused::Removing { .. } | crate::Refused::NotFound { .. })) => Ok(()),
            made => made.map(drop),
        }
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
