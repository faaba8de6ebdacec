//! The catalogue as agents see it.

use std::sync::Arc;

use overlay_core::{EndpointId, NetworkId, ServiceId};

use crate::{Endpoint, Network, Service};

mod feed;
pub(crate) mod keys;
pub(crate) mod record;

pub use feed::Feed;
pub use keys::RootError;

/// Something in the catalogue is new, or other than before, or gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CatalogueChange {
    /// A network, as it is now.
    Network(Arc<Network>),
    /// A network is gone.
    NetworkGone(NetworkId),
    /// A service, as it is now.
    Service(Arc<Service>),
    /// A service is gone.
    ServiceGone(ServiceId),
    /// An endpoint, as it is now.
    Endpoint(Arc<Endpoint>),
    /// An endpoint is gone.
    EndpointGone(EndpointId),
}
