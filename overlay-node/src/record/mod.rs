//! The objects of the catalogue.

mod balancing;
mod condition;
mod endpoint;
mod network;
mod node;
mod port;
mod publish;
mod service;

pub use balancing::Balancing;
pub use condition::Condition;
pub use endpoint::{Endpoint, EndpointSpec, Stay};
pub use network::{Encryption, Family, Kind, Network, NetworkSpec, Scope};
pub use node::{Node, NodeSpec};
pub use port::{Access, AccessError, ClientSource, PublishMode, PublishedPort};
pub use publish::PublishError;
pub use service::{EndpointMode, Service, ServiceSpec};

/// DNS names as texts.
mod names {
    use overlay_dns::DnsName;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(names: &[DnsName], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(names.iter().map(ToString::to_string))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<DnsName>, D::Error> {
        let texts = Vec::<String>::deserialize(deserializer)?;
        texts.iter().map(|text| text.parse().map_err(D::Error::custom)).collect()
    }
}
