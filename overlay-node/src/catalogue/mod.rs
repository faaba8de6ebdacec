//! The catalogue as agents see it.

use std::sync::Arc;

use overlay_core::{EndpointId, NetworkId, NodeId, ServiceId};
use serde::{Deserialize, Serialize};

use crate::{Endpoint, Network, Node, Service};

mod feed;
pub(crate) mod keys;
mod recent;
pub(crate) mod record;
mod records;
mod view;

pub use feed::Feed;
pub use keys::RootError;
pub use records::Records;
pub use view::View;

/// Something in the catalogue is new, or other than before, or gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CatalogueChange {
    /// A node, as it is now.
    Node(#[serde(with = "shared")] Arc<Node>),
    /// A node is gone.
    NodeGone(NodeId),
    /// A network, as it is now.
    Network(#[serde(with = "shared")] Arc<Network>),
    /// A network is gone.
    NetworkGone(NetworkId),
    /// A service, as it is now.
    Service(#[serde(with = "shared")] Arc<Service>),
    /// A service is gone.
    ServiceGone(ServiceId),
    /// An endpoint, as it is now.
    Endpoint(#[serde(with = "shared")] Arc<Endpoint>),
    /// An endpoint is gone.
    EndpointGone(EndpointId),
}

/// What is shared here, whole elsewhere.
mod shared {
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<T: Serialize, S: Serializer>(object: &Arc<T>, serializer: S) -> Result<S::Ok, S::Error> {
        T::serialize(object, serializer)
    }

    pub(super) fn deserialize<'de, T, D>(deserializer: D) -> Result<Arc<T>, D::Error>
    where
        T: Deserialize<'de>,
        D: Deserializer<'de>,
    {
        T::deserialize(deserializer).map(Arc::new)
    }
}
