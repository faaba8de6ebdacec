//! How far one's own changes have come.

use std::collections::BTreeMap;

use overlay_core::NodeId;

/// What each live subscriber has confirmed of one's own changes in a network. The least is at hand in O(log n).
#[derive(Debug, Clone, Default)]
pub(crate) struct Confirmations {
    by_node: BTreeMap<NodeId, u64>,
    counts: BTreeMap<u64, usize>,
}

impl Confirmations {
    pub(crate) const fn new() -> Self {
        Self { by_node: BTreeMap::new(), counts: BTreeMap::new() }
    }

    /// A live subscriber: one that is new has confirmed nothing yet.
    pub(crate) fn expect(&mut self, node: NodeId) {
        if !self.by_node.contains_key(&node) {
            self.set(node, 0);
        }
    }

    /// A node that is no live subscriber any more.
    pub(crate) fn remove(&mut self, node: NodeId) {
        if let Some(old) = self.by_node.remove(&node) {
            self.uncount(old);
        }
    }

    /// A confirmation; of nobody who is no live subscriber.
    pub(crate) fn confirm(&mut self, node: NodeId, through: u64) -> bool {
        let known = self.by_node.contains_key(&node);
        if known {
            self.set(node, through);
        }
        known
    }

    /// What all have confirmed; none if there is nobody.
    pub(crate) fn least(&self) -> Option<u64> {
        self.counts.keys().next().copied()
    }

    /// Those behind `through`, beginning after `cursor` and around.
    pub(crate) fn behind(&self, through: u64, cursor: NodeId) -> impl Iterator<Item = NodeId> {
        use std::ops::Bound::{Excluded, Included, Unbounded};
        let after = self.by_node.range((Excluded(cursor), Unbounded));
        let around = self.by_node.range((Unbounded, Included(cursor)));
        after.chain(around).filter(move |(_, confirmed)| **confirmed < through).map(|(node, _)| *node)
    }

    fn set(&mut self, node: NodeId, through: u64) {
        let old = self.by_node.insert(node, through);
        *self.counts.entry(through).or_default() += 1;
        if let Some(old) = old {
            self.uncount(old);
        }
    }

    fn uncount(&mut self, through: u64) {
        if let Some(count) = self.counts.get_mut(&through) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&through);
            }
        }
    }
}
