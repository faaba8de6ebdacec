//! The manager's interface, in process.

use async_trait::async_trait;
use overlay_core::{Commit, EndpointId, Name, NetworkId, NodeId, ServiceId, UnixTime};

use super::Manager;
use super::find::overall;
use super::network::refuse_predefined;
use crate::{
    Control, ControlError, Endpoint, EndpointSpec, Network, NetworkSpec, Node, NodeSpec, Reference, Refused, Service,
    ServiceSpec, Stay,
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
        if let Ok(name) = network.as_str().parse() {
            refuse_predefined(&name)?;
        }
        let held = self.find::<Network>(network).await?;
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
        self.make_service(id, spec, now).await
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
        self.make_endpoint(id, spec, now).await
    }

    async fn relocate(&self, endpoint: EndpointId, node: NodeId, _now: UnixTime) -> Result<Endpoint, ControlError> {
        self.run(|snapshot| self.move_endpoint(snapshot, endpoint, node)).await
    }

    async fn detach(&self, endpoint: EndpointId, now: UnixTime) -> Result<Option<Endpoint>, ControlError> {
        self.unmake_endpoint(endpoint, None, now).await
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
        self.run(|snapshot| self.put_node(snapshot, id, &spec, now)).await
    }

    async fn remove_node(&self, node: &Reference, now: UnixTime) -> Result<Vec<Endpoint>, ControlError> {
        let held = self.find::<Node>(node).await?;
        self.unmake_node(held.object.id, now).await
    }

    async fn node(&self, node: &Reference) -> Result<Node, ControlError> {
        Ok(self.find::<Node>(node).await?.object)
    }

    async fn nodes(&self) -> Result<Vec<Node>, ControlError> {
        self.by_name().await
    }
}

impl Manager {
    /// Makes the default ingress network, once in a cluster's life: it may be removed, and another be created. Without effect
    /// from then on, so that every manager may call it whenever it starts.
    ///
    /// # Errors
    /// What is in the way of the network. Nothing is kept of it then, and the next call tries again.
    pub async fn found_cluster(&self, ingress: NetworkId, now: UnixTime) -> Result<(), ControlError> {
        let founded = self.keys.founded();
        if self.store.get(&founded).await?.is_some() {
            return Ok(());
        }
        let name = Name::new("ingress").unwrap_or_else(|_| unreachable!("seven letters make a name"));
        let spec = NetworkSpec { ingress: true, ..NetworkSpec::overlay(name) };
        match self.create_network(ingress, spec, now).await {
            Ok(_) | Err(ControlError::Refused(Refused::IngressPresent { .. })) => {}
            Err(error) => return Err(error),
        }
        let put = self.run(|snapshot| {
            Ok(match snapshot.get(&founded)? {
                Some(_) => (Commit::new(), ()),
                None => (Commit::new().put(founded.clone(), ingress.to_string()), ()),
            })
        });
        put.await
    }
}
