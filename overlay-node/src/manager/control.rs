//! The manager's interface, in process.

use async_trait::async_trait;
use overlay_core::{Commit, EndpointId, NetworkId, NodeId, ServiceId, UnixTime};

use super::Manager;
use super::find::overall;
use super::predefined::refuse_predefined;
use super::transaction::in_doubt;
use crate::{
    Control, ControlError, Endpoint, EndpointSpec, Network, NetworkSpec, Node, NodeSpec, Reference, Refused, Service,
    ServiceSpec, Stay, mesh,
};

#[async_trait]
impl Control for Manager {
    async fn create_network(&self, id: NetworkId, spec: NetworkSpec, now: UnixTime) -> Result<Network, ControlError> {
        self.make_network(id, spec, now).await
    }

    async fn change_network(
        &self,
        network: &Reference,
        spec: NetworkSpec,
        now: UnixTime,
    ) -> Result<Network, ControlError> {
        let held = self.find::<Network>(network).await?;
        self.alter_network(held.object.id, spec, now).await
    }

    async fn remove_network(&self, network: &Reference, now: UnixTime) -> Result<Network, ControlError> {
        let held = self.find::<Network>(network).await?;
        refuse_predefined(&held.object.spec.name)?;
        self.unmake::<Network>(held.object.id, now).await
    }

    async fn network(&self, network: &Reference) -> Result<Network, ControlError> {
        let mut network = self.find::<Network>(network).await?.object;
        network.condition = overall(&network.condition, &self.endpoints_of(network.id).await?);
        Ok(network)
    }

    async fn networks(&self) -> Result<Vec<Network>, ControlError> {
        self.by_name().await
    }

    async fn create_service(&self, id: ServiceId, spec: ServiceSpec, now: UnixTime) -> Result<Service, ControlError> {
        let meshed = spec.needs_ingress();
        let service = self.make_service(id, spec, now).await?;
        if meshed {
            but_refused(self.join_mesh(now).await)?;
        }
        Ok(service)
    }

    async fn remove_service(&self, service: &Reference, now: UnixTime) -> Result<Service, ControlError> {
        let held = self.find::<Service>(service).await?;
        self.unmake::<Service>(held.object.id, now).await
    }

    async fn service(&self, service: &Reference) -> Result<Service, ControlError> {
        let mut service = self.find::<Service>(service).await?.object;
        service.condition = overall(&service.condition, &self.endpoints_serving(service.id).await?);
        Ok(service)
    }

    async fn services(&self) -> Result<Vec<Service>, ControlError> {
        self.by_name().await
    }

    async fn attach(&self, id: EndpointId, spec: EndpointSpec, now: UnixTime) -> Result<Endpoint, ControlError> {
        if id == mesh::endpoint(spec.network, spec.node) {
            let network = self.find::<Network>(&spec.network.to_string().as_str().into()).await?.object.spec.name;
            return Err(Refused::OnIngress { network }.into()); // that is the node's own
        }
        let endpoint = self.make_endpoint(id, spec, now).await?;
        match self.join_replica(&endpoint, now).await {
            Ok(()) => Ok(endpoint),
            // Nothing is kept of what was made by this call.
            Err(refused @ ControlError::Refused(_)) if endpoint.created == now => {
                self.unmake_endpoint(id, None, now).await.map_err(in_doubt)?;
                Err(refused)
            }
            Err(error) => Err(in_doubt(error)),
        }
    }

    async fn relocate(&self, endpoint: EndpointId, node: NodeId, now: UnixTime) -> Result<Endpoint, ControlError> {
        let before = self.endpoint(endpoint).await?;
        if let Some(before) = before.as_ref().filter(|before| mesh::is_replica(before)) {
            let container = before.spec.container.clone();
            return Err(Refused::GoesAlong { endpoint, container }.into());
        }
        let moved = self.run(|snapshot| self.move_endpoint(snapshot, endpoint, node)).await?;
        // If it was moved already, and the manager died, settling takes away what is left where it was.
        if let Some(before) = before.filter(|before| before.spec.node != node) {
            self.leave_replica(&before, now).await.map_err(in_doubt)?;
        }
        self.join_replica(&moved, now).await.map_err(in_doubt)?;
        Ok(moved)
    }

    async fn detach(&self, endpoint: EndpointId, now: UnixTime) -> Result<Option<Endpoint>, ControlError> {
        let ended = self.unmake_endpoint(endpoint, None, now).await?;
        if let Some(ended) = &ended {
            self.leave_replica(ended, now).await.map_err(in_doubt)?;
        }
        Ok(ended)
    }

    async fn endpoint(&self, endpoint: EndpointId) -> Result<Option<Endpoint>, ControlError> {
        let found = self.run(|snapshot| Ok((Commit::new(), self.endpoint_by_id(snapshot, endpoint)?))).await?;
        Ok(found.map(|held| held.object))
    }

    async fn endpoints(&self, network: NetworkId) -> Result<Vec<Endpoint>, ControlError> {
        self.endpoints_of(network).await
    }

    async fn report(&self, endpoint: EndpointId, stay: Stay, result: Result<(), String>) -> Result<(), ControlError> {
        self.run(|snapshot| self.report_endpoint(snapshot, endpoint, stay, &result)).await
    }

    async fn add_node(&self, id: NodeId, spec: NodeSpec, now: UnixTime) -> Result<Node, ControlError> {
        let node = self.run(|snapshot| self.put_node(snapshot, id, &spec, now)).await?;
        but_refused(self.join_mesh_as(id, now).await)?;
        Ok(node)
    }

    async fn remove_node(&self, node: &Reference, now: UnixTime) -> Result<Vec<Endpoint>, ControlError> {
        let held = self.find::<Node>(node).await?;
        let mut ended = self.unmake_node(held.object.id, now).await?;
        ended.retain(|Endpoint { id, spec, .. }| *id != mesh::endpoint(spec.network, spec.node)); // it was the node's own
        Ok(ended)
    }

    async fn node(&self, node: &Reference) -> Result<Node, ControlError> {
        Ok(self.find::<Node>(node).await?.object)
    }

    async fn nodes(&self) -> Result<Vec<Node>, ControlError> {
        self.by_name().await
    }
}

/// A node that is refused its part of the routing mesh, as its network is full say, publishes nothing, and settling tells of it again and again:
/// what was asked for is there all the same.
fn but_refused(joined: Result<Vec<ControlError>, ControlError>) -> Result<(), ControlError> {
    let troubles = joined.map_err(in_doubt)?;
    let trouble = troubles.into_iter().find(|trouble| !matches!(trouble, ControlError::Refused(_)));
    trouble.map_or(Ok(()), |trouble| Err(in_doubt(trouble)))
}
