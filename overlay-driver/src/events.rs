//! What happens, for who listens and for a log.

use overlay_core::NodeId;
use tokio::sync::broadcast;
use tracing::{Level, event};

use crate::{DriverEvent, MembershipEvent};

/// How many events wait for who listens slowly.
const WAITING: usize = 256;

/// Tells what happens to a node to all who listen, and to `tracing`.
#[derive(Debug, Clone)]
pub(crate) struct Events {
    node: NodeId,
    listeners: broadcast::Sender<DriverEvent>,
}

impl Events {
    pub(crate) fn new(node: NodeId) -> Self {
        Self { node, listeners: broadcast::Sender::new(WAITING) }
    }

    pub(crate) fn listen(&self) -> broadcast::Receiver<DriverEvent> {
        self.listeners.subscribe()
    }

    pub(crate) fn tell(&self, event: DriverEvent) {
        log(self.node, &event);
        let _ = self.listeners.send(event); // nobody listens, or all do
    }
}

/// An event at a level that is fixed for each kind, under the name of the kind.
macro_rules! logged {
    ($level:ident, $kind:literal, $node:expr, $event:expr $(, $field:ident = $value:expr)*) => {
        event!(
            target: "overlay_driver",
            Level::$level,
            kind = $kind,
            node = %$node,
            $($field = $value,)*
            "{}", $event
        )
    };
}

fn log(node: NodeId, event: &DriverEvent) {
    match event {
        DriverEvent::Joined => logged!(INFO, "joined", node, event),
        DriverEvent::Changed { place, steps } => {
            logged!(DEBUG, "changed", node, event, place = place, steps = steps.lines().count());
        }
        DriverEvent::Failed { place, reason } => {
            logged!(WARN, "failed", node, event, place = place, reason = reason);
        }
        DriverEvent::Vanished(endpoint) => {
            logged!(INFO, "vanished", node, event, endpoint = tracing::field::display(endpoint));
        }
        DriverEvent::Withdrawn(endpoint) => {
            logged!(INFO, "withdrawn", node, event, endpoint = tracing::field::display(endpoint));
        }
        DriverEvent::Deaf { reason } => logged!(WARN, "deaf", node, event, reason = reason),
        DriverEvent::Nameless { place, reason } => {
            logged!(WARN, "nameless", node, event, place = place, reason = reason);
        }
        DriverEvent::Unreported { endpoint, reason } => {
            logged!(WARN, "unreported", node, event, endpoint = tracing::field::display(endpoint), reason = reason);
        }
        DriverEvent::Hindered { reason } => logged!(WARN, "hindered", node, event, reason = reason),
        DriverEvent::LeftBehind { nodes } => {
            logged!(WARN, "left_behind", node, event, nodes = nodes.len());
        }
        DriverEvent::GossipKey { key, number } => {
            logged!(INFO, "gossip_key", node, event, key = key, number = number);
        }
        DriverEvent::LackingGossipKey { key } => logged!(WARN, "lacking_gossip_key", node, event, key = key),
        DriverEvent::GossipKeysUnwritten { reason } => {
            logged!(WARN, "gossip_keys_unwritten", node, event, reason = reason);
        }
        DriverEvent::Unreadable { what, reason } => {
            logged!(WARN, "unreadable", node, event, what = what, reason = reason);
        }
        DriverEvent::Superseded => logged!(WARN, "superseded", node, event),
    }
}

/// What happens to a node's membership, to `tracing`.
pub(crate) fn log_membership(node: NodeId, event: &MembershipEvent) {
    match event {
        MembershipEvent::Heard => logged!(INFO, "managers_heard", node, event),
        MembershipEvent::Unheard { reason } => logged!(WARN, "managers_unheard", node, event, reason = reason),
        MembershipEvent::Renewed { .. } => logged!(INFO, "renewed", node, event),
        MembershipEvent::NotRenewed { reason } => logged!(WARN, "not_renewed", node, event, reason = reason),
        MembershipEvent::Role(_) => logged!(INFO, "role", node, event),
        MembershipEvent::Trusts { revision } => logged!(INFO, "trusts", node, event, revision = revision),
        MembershipEvent::Expired { .. } => logged!(ERROR, "expired", node, event),
        MembershipEvent::Lost { reason } => logged!(ERROR, "lost", node, event, reason = reason),
    }
}
