//! Which node an endpoint is on, when several say they have it.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use overlay_core::{EndpointId, NodeId};

use crate::{RemoteEndpoint, Section};

/// What other nodes say of endpoints of one network that are not in its [`Section`], since another node's word, or this
/// node's own, is worth more.
#[derive(Debug, Clone, Default)]
pub(crate) struct Claims(BTreeMap<(EndpointId, NodeId), Arc<RemoteEndpoint>>);

impl Claims {
    /// A node says that it has an endpoint. O(log n).
    pub(crate) fn put(&mut self, section: &mut Section, id: EndpointId, claim: Arc<RemoteEndpoint>) {
        self.take_back(section, id);
        self.0.insert((id, claim.node), claim);
        self.choose(section, id);
    }

    /// A node says so no more.
    pub(crate) fn remove(&mut self, section: &mut Section, id: EndpointId, node: NodeId) {
        self.take_back(section, id);
        self.0.remove(&(id, node));
        self.choose(section, id);
    }

    /// Nothing that a node says counts any more. O(n).
    pub(crate) fn remove_all(&mut self, section: &mut Section, node: NodeId) {
        let lost = section.remote.iter().filter(|(_, claim)| claim.node == node).map(|(id, _)| *id);
        let out_of_sight = self.0.keys().filter(|(_, of)| *of == node).map(|(id, _)| *id);
        let all: Vec<EndpointId> = lost.chain(out_of_sight).collect();
        for id in all {
            self.remove(section, id, node);
        }
    }

    /// This node has the endpoint now, or has it no more.
    pub(crate) fn choose_again(&mut self, section: &mut Section, id: EndpointId) {
        self.take_back(section, id);
        self.choose(section, id);
    }

    /// How many are out of sight.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    fn take_back(&mut self, section: &mut Section, id: EndpointId) {
        if let Some(shown) = section.remote.remove(&id) {
            self.0.insert((id, shown.node), shown);
        }
    }

    fn choose(&mut self, section: &mut Section, id: EndpointId) {
        if section.local.contains_key(&id) {
            return;
        }
        let (first, last) = (NodeId::from_bytes([0; 16]), NodeId::from_bytes([0xff; 16]));
        let claims = self.0.range((id, first)..=(id, last));
        let best = claims.max_by_key(|((_, node), claim)| (claim.moves, Reverse(*node))).map(|(key, _)| *key);
        if let Some(claim) = best.and_then(|key| self.0.remove(&key)) {
            section.remote.insert(id, claim);
        }
    }
}
