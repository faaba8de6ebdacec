//! Who is there, and who subscribes to what.

use std::collections::BTreeMap;

use overlay_core::{Instant, NetworkId, NodeId};

use crate::room;

/// The members as membership tells of them, and for each network its live subscribers, without this node.
#[derive(Debug, Clone, Default)]
pub(crate) struct Members {
    known: BTreeMap<NodeId, Known>,
    subscribers: BTreeMap<NetworkId, Vec<NodeId>>, // sorted
}

/// One member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) incarnation: u64,
    pub(crate) sight: Sight,
}

/// Whether a member is there, and its entries are in sight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sight {
    Live,
    /// It is suspended; its entries are in sight until then.
    Fading(Instant),
    /// It is suspended, and its entries are hidden.
    Hidden,
}

impl Members {
    pub(crate) fn get(&self, node: NodeId) -> Option<&Known> {
        self.known.get(&node)
    }

    pub(crate) fn get_mut(&mut self, node: NodeId) -> Option<&mut Known> {
        self.known.get_mut(&node)
    }

    pub(crate) fn insert(&mut self, node: NodeId, known: Known) {
        self.known.insert(node, known);
    }

    pub(crate) fn remove(&mut self, node: NodeId) -> Option<Known> {
        self.known.remove(&node)
    }

    pub(crate) fn is_live(&self, node: NodeId) -> bool {
        self.known.get(&node).is_some_and(|known| known.sight == Sight::Live)
    }

    pub(crate) fn is_hidden(&self, node: NodeId) -> bool {
        self.known.get(&node).is_some_and(|known| known.sight == Sight::Hidden)
    }

    /// Says whether a node is a live subscriber; whether that changed.
    pub(crate) fn set_subscriber(&mut self, network: NetworkId, node: NodeId, is: bool) -> bool {
        let nodes = self.subscribers.entry(network).or_default();
        let changed = match (nodes.binary_search(&node), is) {
            (Err(at), true) => {
                room::make(nodes);
                nodes.insert(at, node);
                true
            }
            (Ok(at), false) => {
                nodes.remove(at);
                true
            }
            _ => false,
        };
        if nodes.is_empty() {
            self.subscribers.remove(&network);
        }
        changed
    }

    /// The live subscribers of a network, sorted.
    pub(crate) fn subscribers(&self, network: NetworkId) -> &[NodeId] {
        self.subscribers.get(&network).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn subscribes(&self, node: NodeId, network: NetworkId) -> bool {
        self.subscribers(network).binary_search(&node).is_ok()
    }
}
