//! The calls of [`Control`], as values.

use overlay_core::{EndpointId, NetworkId, NodeId, ServiceId, UnixTime};
use overlay_node::{Control, ControlError, EndpointSpec, NetworkSpec, NodeSpec, Reference, ServiceSpec, Stay};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::cluster::Ask;
use super::frame::{Fault, Outcome, answer};

/// What can be asked. The time of a call is the server's.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Call {
    CreateNetwork {
        id: NetworkId,
        spec: NetworkSpec,
    },
    ChangeNetwork {
        network: Reference,
        spec: NetworkSpec,
    },
    RemoveNetwork {
        network: Reference,
    },
    Network {
        network: Reference,
    },
    Networks {},
    CreateService {
        id: ServiceId,
        spec: ServiceSpec,
    },
    RemoveService {
        service: Reference,
    },
    Service {
        service: Reference,
    },
    Services {},
    Attach {
        id: EndpointId,
        spec: EndpointSpec,
    },
    Relocate {
        endpoint: EndpointId,
        node: NodeId,
    },
    Detach {
        endpoint: EndpointId,
    },
    Endpoint {
        endpoint: EndpointId,
    },
    Endpoints {
        network: NetworkId,
    },
    Report {
        endpoint: EndpointId,
        stay: Stay,
        failure: Option<String>,
    },
    AddNode {
        id: NodeId,
        spec: NodeSpec,
    },
    RemoveNode {
        node: Reference,
    },
    Node {
        node: Reference,
    },
    Nodes {},
    /// A [`Question`](super::Question).
    Local(Value),
    /// What is asked of the cluster itself.
    Cluster(Ask),
}

impl Call {
    /// Whether it may change something; of a question, that is not known here.
    pub(super) const fn changes(&self) -> bool {
        !matches!(
            self,
            Self::Network { .. }
                | Self::Networks {}
                | Self::Service { .. }
                | Self::Services {}
                | Self::Endpoint { .. }
                | Self::Endpoints { .. }
                | Self::Node { .. }
                | Self::Nodes {}
        )
    }

    /// Whether it reads what is on networks.
    pub(super) const fn reads_networks(&self) -> bool {
        matches!(
            self,
            Self::Network { .. }
                | Self::Networks {}
                | Self::Service { .. }
                | Self::Services {}
                | Self::Endpoints { .. }
        )
    }

    /// Does it, and gives the line that answers it.
    pub(super) async fn perform(self, control: &dyn Control, reply: Reply, now: UnixTime) -> Vec<u8> {
        match self {
            Self::CreateNetwork { id, spec } => reply.with(control.create_network(id, spec, now).await),
            Self::ChangeNetwork { network, spec } => reply.with(control.change_network(&network, spec, now).await),
            Self::RemoveNetwork { network } => reply.with(control.remove_network(&network, now).await),
            Self::Network { network } => reply.with(control.network(&network).await),
            Self::Networks {} => reply.with(control.networks().await),
            Self::CreateService { id, spec } => reply.with(control.create_service(id, spec, now).await),
            Self::RemoveService { service } => reply.with(control.remove_service(&service, now).await),
            Self::Service { service } => reply.with(control.service(&service).await),
            Self::Services {} => reply.with(control.services().await),
            Self::Attach { id, spec } => reply.with(control.attach(id, spec, now).await),
            Self::Relocate { endpoint, node } => reply.with(control.relocate(endpoint, node, now).await),
            Self::Detach { endpoint } => reply.with(control.detach(endpoint, now).await),
            Self::Endpoint { endpoint } => reply.with(control.endpoint(endpoint).await),
            Self::Endpoints { network } => reply.with(control.endpoints(network).await),
            Self::Report { endpoint, stay, failure } => {
                reply.with(control.report(endpoint, stay, failure.map_or(Ok(()), Err)).await)
            }
            Self::AddNode { id, spec } => reply.with(control.add_node(id, spec, now).await),
            Self::RemoveNode { node } => reply.with(control.remove_node(&node, now).await),
            Self::Node { node } => reply.with(control.node(&node).await),
            Self::Nodes {} => reply.with(control.nodes().await),
            Self::Local(_) => reply.fault(Fault::Unserved { what: QUESTIONS.to_owned() }),
            Self::Cluster(_) => reply.fault(Fault::Unserved { what: "questions of the cluster".to_owned() }),
        }
    }
}

/// What a server without a [`Local`](super::Local) does not serve.
pub(super) const QUESTIONS: &str = "questions of its node";

/// How a request is answered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reply {
    pub(super) id: u64,
    /// The longest answer, in bytes.
    pub(super) limit: usize,
}

impl Reply {
    pub(super) fn with<T: Serialize>(self, result: Result<T, ControlError>) -> Vec<u8> {
        match result {
            Ok(value) => self.ok(value),
            Err(error) => self.fault(Fault::Control(error)),
        }
    }

    pub(super) fn of<T: Serialize>(self, result: Result<T, Fault>) -> Vec<u8> {
        match result {
            Ok(value) => self.ok(value),
            Err(fault) => self.fault(fault),
        }
    }

    pub(super) fn ok<T: Serialize>(self, value: T) -> Vec<u8> {
        answer(self.id, Outcome::Ok(value), self.limit)
    }

    pub(super) fn fault(self, fault: Fault) -> Vec<u8> {
        answer(self.id, Outcome::<()>::Error(Box::new(fault)), self.limit)
    }
}
