//! What a node that is no manager reads of the catalogue: what it needs of it, and what it can name.

use std::sync::PoisonError;

use overlay_core::{Name, NetworkId, NodeId};
use overlay_node::{Control, ControlError, Endpoint, Network, Reference, Refused, Service, View};

use super::call::{Call, Reply};
use super::server;

/// A node that reads, and of what.
pub(super) struct Reading<'r> {
    control: &'r dyn Control,
    node: NodeId,
    view: View,
}

impl<'r> Reading<'r> {
    /// What this node needs, as the store has it now. Where no catalogue is served it needs nothing.
    pub(super) async fn of(
        node: NodeId,
        control: &'r dyn Control,
        service: &server::Service,
    ) -> Result<Self, ControlError> {
        let feed = service.feed.as_ref().map(|feed| feed.lock().unwrap_or_else(PoisonError::into_inner).beside());
        let view = match feed {
            Some(mut feed) => feed.view(node).await?,
            None => View::default(),
        };
        Ok(Self { control, node, view })
    }

    /// Answers a call that reads networks, services or endpoints; gives back any other.
    pub(super) async fn answer(&self, call: Call, reply: Reply) -> Result<Vec<u8>, Call> {
        Ok(match call {
            Call::Networks {} => reply.with(self.networks().await),
            Call::Network { network } => reply.with(self.network(&network).await),
            Call::Services {} => reply.with(self.services().await),
            Call::Service { service } => reply.with(self.service(&service).await),
            Call::Endpoints { network } => reply.with(self.endpoints(network).await),
            other => return Err(other),
        })
    }

    async fn networks(&self) -> Result<Vec<Network>, ControlError> {
        let mut all = self.control.networks().await?;
        all.retain(|network| self.view.shows(network.id));
        Ok(all)
    }

    /// One that it does not need, too, if it can name it: it may be the first that it attaches a container to.
    async fn network(&self, of: &Reference) -> Result<Network, ControlError> {
        let found = self.control.network(of).await.map_err(|error| unsaid(error, "network", of))?;
        match self.view.shows(found.id) || names(of, &found.spec.name, &found.id.to_string()) {
            true => Ok(found),
            false => Err(not_found("network", of)),
        }
    }

    async fn services(&self) -> Result<Vec<Service>, ControlError> {
        let all = self.control.services().await?.into_iter();
        Ok(all.filter_map(|service| self.shown(service)).collect())
    }

    /// As of networks: who can name it may watch it.
    async fn service(&self, of: &Reference) -> Result<Service, ControlError> {
        let found = self.control.service(of).await.map_err(|error| unsaid(error, "service", of))?;
        match names(of, &found.spec.name, &found.id.to_string()) {
            true => Ok(found),
            false => self.shown(found).ok_or_else(|| not_found("service", of)),
        }
    }

    async fn endpoints(&self, network: NetworkId) -> Result<Vec<Endpoint>, ControlError> {
        if self.view.shows(network) {
            return self.control.endpoints(network).await;
        }
        let whom = "a network that it has no endpoint on".to_owned();
        Err(Refused::NotItself { call: "read endpoints".to_owned(), node: self.node, whom }.into())
    }

    fn shown(&self, service: Service) -> Option<Service> {
        self.view.service(&service.into()).map(std::sync::Arc::unwrap_or_clone)
    }
}

/// Whether something is called just so: by its name, or as much of its id as listings show. Else it may have been found by trying.
fn names(reference: &Reference, name: &Name, id: &str) -> bool {
    let text = reference.as_str();
    text.eq_ignore_ascii_case(name.as_str()) || text.len() >= SHORT && id.starts_with(&text.to_ascii_lowercase())
}

/// How many ids begin so is not said to who tries.
fn unsaid(error: ControlError, what: &'static str, of: &Reference) -> ControlError {
    match error.refusal() {
        Some(Refused::Ambiguous { .. }) if of.as_str().len() < SHORT => not_found(what, of),
        _ => error,
    }
}

fn not_found(what: &'static str, of: &Reference) -> ControlError {
    Refused::NotFound { what, reference: of.to_string() }.into()
}

/// As many characters of an id listings show.
const SHORT: usize = 12;
