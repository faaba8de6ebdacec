//! Where the catalogue's records are.

use std::fmt;

use super::feed::Kind;
use overlay_core::{EndpointId, Key, Mac, Name, NetworkId, NodeId, Port, Prefix, Protocol, ServiceId};

/// The keys below a root. Ids and names are texts in them, so that an operator can read a listing.
#[derive(Debug, Clone)]
pub(crate) struct Keys {
    root: Prefix,
}

/// The most bytes of a root: what keys have after it fits then.
const ROOT: usize = 200;

impl Keys {
    /// The catalogue of a manager with this root: beside it, below the root, are what its allocators keep.
    pub(crate) fn of(root: &Prefix) -> Result<Self, RootError> {
        let refused = RootError { found: root.as_bytes().len() };
        match root.join("catalogue/") {
            Ok(catalogue) if refused.found <= ROOT => Ok(Self { root: catalogue }),
            _ => Err(refused),
        }
    }

    /// The object that a record is of; `None` for the keys beside the records.
    pub(crate) fn kind(&self, key: &Key) -> Option<(Kind, [u8; 16])> {
        let text = std::str::from_utf8(key.strip(&self.root)?).ok()?;
        let (what, _) = text.split_once('/')?;
        let id = |id: &str| id.parse::<EndpointId>().ok().map(EndpointId::to_bytes);
        match what {
            "node" => Some((Kind::Node, id(text.strip_prefix("node/")?)?)),
            "network" => Some((Kind::Network, id(text.strip_prefix("network/")?)?)),
            "service" => Some((Kind::Service, id(text.strip_prefix("service/")?)?)),
            "endpoint" => Some((Kind::Endpoint, id(text.rsplit_once('/')?.1)?)),
            _ => None,
        }
    }

    /// All of the catalogue.
    pub(crate) const fn root(&self) -> &Prefix {
        &self.root
    }

    pub(crate) fn network(&self, id: NetworkId) -> Key {
        self.key(format_args!("network/{id}"))
    }

    /// Under it is the id of the network that has the name.
    pub(crate) fn network_name(&self, name: &Name) -> Key {
        self.key(format_args!("network-name/{}", name.folded()))
    }

    /// Under it is the id of the ingress network.
    pub(crate) fn ingress(&self) -> Key {
        self.key(format_args!("ingress"))
    }

    /// There is something under it once the cluster has been founded.
    pub(crate) fn founded(&self) -> Key {
        self.key(format_args!("founded"))
    }

    pub(crate) fn service(&self, id: ServiceId) -> Key {
        self.key(format_args!("service/{id}"))
    }

    pub(crate) fn service_name(&self, name: &Name) -> Key {
        self.key(format_args!("service-name/{}", name.folded()))
    }

    /// That the service is on the network, or publishes ports on it.
    pub(crate) fn used_by(&self, network: NetworkId, service: ServiceId) -> Key {
        self.key(format_args!("used-by/{network}/{service}"))
    }

    /// The services that are on the network, or publish ports on it.
    pub(crate) fn users(&self, network: NetworkId) -> Prefix {
        self.prefix(format_args!("used-by/{network}/"))
    }

    pub(crate) fn endpoint(&self, network: NetworkId, id: EndpointId) -> Key {
        self.key(format_args!("endpoint/{network}/{id}"))
    }

    /// The endpoints of a network.
    pub(crate) fn endpoints(&self, network: NetworkId) -> Prefix {
        self.prefix(format_args!("endpoint/{network}/"))
    }

    /// Under it is the id of the network that the endpoint is on.
    pub(crate) fn endpoint_of(&self, id: EndpointId) -> Key {
        self.key(format_args!("endpoint-of/{id}"))
    }

    /// That the endpoint serves the service; under it is the id of the network that the endpoint is on.
    pub(crate) fn served_by(&self, service: ServiceId, endpoint: EndpointId) -> Key {
        self.key(format_args!("served-by/{service}/{endpoint}"))
    }

    /// The endpoints that serve the service.
    pub(crate) fn servers(&self, service: ServiceId) -> Prefix {
        self.prefix(format_args!("served-by/{service}/"))
    }

    /// Under it is the id of the endpoint by which the container of the node is on the network.
    pub(crate) fn container(&self, node: NodeId, container: &Name, network: NetworkId) -> Key {
        self.key(format_args!("container/{node}/{container}/{network}"))
    }

    /// The attachments of a node's containers.
    pub(crate) fn containers(&self, node: NodeId) -> Prefix {
        self.prefix(format_args!("container/{node}/"))
    }

    /// Under it is the id of the endpoint that has the Ethernet address on the network.
    pub(crate) fn mac(&self, network: NetworkId, mac: Mac) -> Key {
        self.key(format_args!("mac/{network}/{mac}"))
    }

    /// Who has which of 256 published ports.
    pub(crate) fn ports(&self, protocol: Protocol, port: Port) -> Key {
        self.key(format_args!("published/{protocol}/{:02x}", port.get() >> 8))
    }

    pub(crate) fn node(&self, id: NodeId) -> Key {
        self.key(format_args!("node/{id}"))
    }

    pub(crate) fn node_name(&self, name: &Name) -> Key {
        self.key(format_args!("node-name/{}", name.folded()))
    }

    /// That there was an object of this kind and id: what came too late for it comes to nothing.
    pub(crate) fn gone(&self, what: &'static str, id: impl fmt::Display) -> Key {
        self.key(format_args!("gone/{what}/{id}"))
    }

    /// What was removed.
    pub(crate) fn all_gone(&self) -> Prefix {
        self.prefix(format_args!("gone/"))
    }

    /// All records of a kind: `network`, `service`, `endpoint`, `node`.
    pub(crate) fn all(&self, what: &'static str) -> Prefix {
        self.prefix(format_args!("{what}/"))
    }

    /// The records of a kind whose ids begin so.
    pub(crate) fn beginning(&self, what: &'static str, id: &str) -> Prefix {
        self.prefix(format_args!("{what}/{id}"))
    }

    fn key(&self, rest: fmt::Arguments<'_>) -> Key {
        let text = rest.to_string();
        self.root.key(text).unwrap_or_else(|_| unreachable!("a root, a word, two ids and a name make a key"))
    }

    fn prefix(&self, rest: fmt::Arguments<'_>) -> Prefix {
        let text = rest.to_string();
        self.root.join(text).unwrap_or_else(|_| unreachable!("a root, a word and an id make a prefix"))
    }
}

/// A prefix too long for the root of a catalogue's keys. The caller's mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the root of a catalogue's keys has at most {ROOT} bytes, not {found}")]
pub struct RootError {
    /// How many bytes were given.
    pub found: usize,
}
