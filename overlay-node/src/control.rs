//! The manager's interface.

use std::fmt;

use async_trait::async_trait;
use overlay_core::{EndpointId, Name, NetworkId, NodeId, ServiceId, UnixTime};
use serde::{Deserialize, Serialize};

use crate::{Endpoint, EndpointSpec, Network, NetworkSpec, Node, NodeSpec, Service, ServiceSpec, Stay};

mod error;
mod remote;
pub(crate) mod word;

pub use error::{ControlError, Refused, User};

/// What a cluster is told: networks, services, endpoints, nodes. In process it is `Manager`; a client of a remote
/// manager is another.
///
/// Every object has an id that the caller may choose: who does not know what became of a call repeats it with the same id
/// and the same spec, and gets the same object. All calls but listings are such transactions: all of it, or nothing.
#[async_trait]
pub trait Control: Send + Sync + fmt::Debug {
    /// Creates a network, or gives that of this id back if it is the same. When it returns, the network has its subnets and its VNI.
    ///
    /// # Errors
    /// What is wrong with it, or in the way: then nothing is kept of it, unless [`ControlError::is_in_doubt`].
    async fn create_network(&self, id: NetworkId, spec: NetworkSpec, now: UnixTime) -> Result<Network, ControlError>;

    /// Changes a network that is in use: gives it more subnets, behind those it has, other labels, another MTU, or lets containers
    /// be attached that are of no service, or no more. When it returns, the network has its subnets. Endpoints keep the addresses
    /// that they have; those that come have one of each family. Nothing changes if it is so already.
    ///
    /// # Errors
    /// If there is none such, or something else is otherwise in `spec`, which is named, or a subnet cannot be had: then nothing is
    /// changed, unless [`ControlError::is_in_doubt`].
    async fn change_network(
        &self,
        network: &Reference,
        spec: NetworkSpec,
        now: UnixTime,
    ) -> Result<Network, ControlError>;

    /// Removes a network, and gives back what it has. Gives what was removed.
    ///
    /// # Errors
    /// If there is none such, or if a service or endpoint uses it, which is named.
    async fn remove_network(&self, network: &Reference, now: UnixTime) -> Result<Network, ControlError>;

    /// One network.
    ///
    /// # Errors
    /// If there is none such, or several.
    async fn network(&self, network: &Reference) -> Result<Network, ControlError>;

    /// All networks, in the order of their names. How far their endpoints are, only [`network`](Self::network) looks.
    ///
    /// # Errors
    /// If they could not be read.
    async fn networks(&self) -> Result<Vec<Network>, ControlError>;

    /// Creates a service, or gives that of this id back if it is the same. When it returns, the service has its VIPs and ports.
    ///
    /// # Errors
    /// What is wrong with it, or in the way: then nothing is kept of it, unless [`ControlError::is_in_doubt`].
    async fn create_service(&self, id: ServiceId, spec: ServiceSpec, now: UnixTime) -> Result<Service, ControlError>;

    /// Removes a service, and gives back what it has. Gives what was removed.
    ///
    /// # Errors
    /// If there is none such, or if endpoints serve it still.
    async fn remove_service(&self, service: &Reference, now: UnixTime) -> Result<Service, ControlError>;

    /// One service.
    ///
    /// # Errors
    /// If there is none such, or several.
    async fn service(&self, service: &Reference) -> Result<Service, ControlError>;

    /// All services, in the order of their names. How far their endpoints are, only [`service`](Self::service) looks.
    ///
    /// # Errors
    /// If they could not be read.
    async fn services(&self) -> Result<Vec<Service>, ControlError>;

    /// Attaches a container to a network, or gives the endpoint of this id back if it is the same but for the node: see
    /// [`relocate`](Self::relocate). When it returns, the endpoint has its addresses.
    ///
    /// A container that serves a service which publishes in the routing mesh is attached to the ingress network too, by an endpoint of
    /// [its own](crate::mesh_replica) that goes with the last by which it serves, unless somebody attached it there already.
    ///
    /// # Errors
    /// What is wrong with it, or in the way: then nothing is kept of it, unless [`ControlError::is_in_doubt`].
    async fn attach(&self, id: EndpointId, spec: EndpointSpec, now: UnixTime) -> Result<Endpoint, ControlError>;

    /// Moves an endpoint to another node. It keeps its id, addresses and Ethernet address. What its container has on the ingress network
    /// by its service ([`attach`](Self::attach)) is given up, and had anew where it goes; that one is not moved by itself.
    ///
    /// # Errors
    /// If there is none such, or no such node, or the node has the container already.
    async fn relocate(&self, endpoint: EndpointId, node: NodeId, now: UnixTime) -> Result<Endpoint, ControlError>;

    /// Ends an attachment, and gives its addresses back. Gives what was ended; `None` if there is none such.
    ///
    /// # Errors
    /// If it could not be done.
    async fn detach(&self, endpoint: EndpointId, now: UnixTime) -> Result<Option<Endpoint>, ControlError>;

    /// One endpoint; `None` if there is none such.
    ///
    /// # Errors
    /// If it could not be read.
    async fn endpoint(&self, endpoint: EndpointId) -> Result<Option<Endpoint>, ControlError>;

    /// The endpoints of a network, in the order of their ids.
    ///
    /// # Errors
    /// If they could not be read.
    async fn endpoints(&self, network: NetworkId) -> Result<Vec<Endpoint>, ControlError>;

    /// A node says what became of an endpoint that it was given: in effect, or why not, of which 1,024 bytes are kept. Without effect for an endpoint whose
    /// stay at the node is over, though it may have come back since.
    ///
    /// # Errors
    /// If it could not be written down.
    async fn report(&self, endpoint: EndpointId, stay: Stay, result: Result<(), String>) -> Result<(), ControlError>;

    /// Adds a node, or changes its name or role.
    ///
    /// # Errors
    /// If another has the name.
    async fn add_node(&self, id: NodeId, spec: NodeSpec, now: UnixTime) -> Result<Node, ControlError>;

    /// Removes a node and ends all attachments on it. Gives those.
    ///
    /// # Errors
    /// If there is none such.
    async fn remove_node(&self, node: &Reference, now: UnixTime) -> Result<Vec<Endpoint>, ControlError>;

    /// One node.
    ///
    /// # Errors
    /// If there is none such, or several.
    async fn node(&self, node: &Reference) -> Result<Node, ControlError>;

    /// All nodes, in the order of their names.
    ///
    /// # Errors
    /// If they could not be read.
    async fn nodes(&self) -> Result<Vec<Node>, ControlError>;
}

/// How somebody calls an object: by its name, its id, or the beginning of its id. A whole name is looked for first, then a whole id,
/// then what begins so.
///
/// One that is read has 255 bytes at most: nothing is called by more.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct Reference(String);

/// A reference that nothing could have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a name or an id has 255 bytes at most, this has {0}")]
pub struct ReferenceLengthError(pub usize);

impl TryFrom<String> for Reference {
    type Error = ReferenceLengthError;

    fn try_from(text: String) -> Result<Self, ReferenceLengthError> {
        if text.len() > Self::MAX_LEN { Err(ReferenceLengthError(text.len())) } else { Ok(Self(text)) }
    }
}

impl Reference {
    /// The longest that is read, in bytes.
    pub const MAX_LEN: usize = 255;

    /// The text that was typed.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Reference {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl From<&Name> for Reference {
    fn from(name: &Name) -> Self {
        Self(name.as_str().to_owned())
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

macro_rules! from_id {
    ($($id:ty),*) => { $(
        impl From<$id> for Reference {
            fn from(id: $id) -> Self {
                Self(id.to_string())
            }
        }
    )* };
}

from_id!(NetworkId, ServiceId, NodeId);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nothing_could_be_called_by_is_not_read() {
        let read = |length: usize| serde_json::from_str::<Reference>(&format!("\"{}\"", "x".repeat(length)));
        assert_eq!(read(255).unwrap().as_str().len(), Reference::MAX_LEN);
        let error = read(256).unwrap_err().to_string();
        assert!(error.contains("has 255 bytes at most, this has 256"), "{error}");
    }
}
