//! Nodes.

use overlay_core::{Name, NodeId, UnixTime};
use overlay_gossip::Role;
use serde::{Deserialize, Serialize};

use crate::Condition;

/// A machine that is to be a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeSpec {
    /// Its name, for people; unique among nodes, capitals or not.
    pub name: Name,
    /// Whether it keeps the catalogue.
    #[serde(with = "role")]
    pub role: Role,
}

/// A node of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Names it for good.
    pub id: NodeId,
    /// What was asked for.
    pub spec: NodeSpec,
    /// When it joined, by the manager's clock.
    pub created: UnixTime,
    /// How far it is.
    pub condition: Condition,
}

/// A role as `manager` or `worker`.
mod role {
    use overlay_gossip::Role;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
    pub(super) fn serialize<S: Serializer>(role: &Role, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(match role {
            Role::Manager => "manager",
            Role::Worker => "worker",
        })
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Role, D::Error> {
        match &*String::deserialize(deserializer)? {
            "manager" => Ok(Role::Manager),
            "worker" => Ok(Role::Worker),
            other => Err(D::Error::unknown_variant(other, &["manager", "worker"])),
        }
    }
}
