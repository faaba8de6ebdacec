//! How far one's own changes have come.

use std::collections::BTreeMap;

use overlay_core::NodeId;

/// What live subscribers have confirmed of one's own changes in a network; whoever has confirmed nothing takes no memory, so a
/// node that only reads keeps nothing of the others. The least is at hand in O(log n).
#[derive(Debug, Clone, Default)]
pub(crate) struct Confirmations {
    by_node: BTreeMap<NodeId, u64>, // above 0
    counts: BTreeMap<u64, usize>,
}

impl Confirmations {
    pub(crate) const fn new() -> Self {
        Self { by_node: BTreeMap::new(), counts: BTreeMap::new() }
    }

    /// A node that is no live subscriber any more, or has yet to confirm all anew.
    pub(crate) fn remove(&mut self, node: NodeId) {
        if let Some(old) = self.by_node.remove(&node) {
            self.uncount(old);
        }
    }

    /// A live subscriber's confirmation; one that was overtaken by a later one says nothing new.
    pub(crate) fn confirm(&mut self, node: NodeId, through: u64) {
        if through > self.by_node.get(&node).copied().unwrap_or(0) {
            self.remove(node);
            self.by_node.insert(node, through);
            *self.counts.entry(through).or_default() += 1;
        }
    }

    /// What all of these have confirmed, the live subscribers; none if there is nobody.
    pub(crate) fn least(&self, subscribers: &[NodeId]) -> Option<u64> {
        let least = self.counts.keys().next().copied().filter(|_| self.by_node.len() >= subscribers.len());
        (!subscribers.is_empty()).then(|| least.unwrap_or(0))
    }

    /// Those of the live subscribers, sorted, that are behind `through`, beginning after `cursor` and around.
    pub(crate) fn behind<'a>(
        &'a self,
        subscribers: &'a [NodeId],
        through: u64,
        cursor: NodeId,
    ) -> impl Iterator<Item = NodeId> + 'a {
        let (before, after) = subscribers.split_at(subscribers.partition_point(|node| *node <= cursor));
        let confirmed = |node| self.by_node.get(node).copied().unwrap_or(0);
        let around = after.iter().chain(before).filter(move |_| through > 0);
        around.filter(move |node| confirmed(*node) < through).copied()
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

#[cfg(test)]
mod tests {
    use super::*;

    const fn node(number: u8) -> NodeId {
        NodeId::from_bytes([number; 16])
    }

    #[test]
    fn the_least_is_what_all_have_confirmed_and_whoever_said_nothing_has_confirmed_nothing() {
        let (mut confirmations, subscribers) = (Confirmations::new(), [1, 2, 3].map(node));
        assert_eq!(confirmations.least(&[]), None);
        for (number, through, least) in [(1, 5, 0), (2, 3, 0), (3, 9, 3), (2, 4, 4), (2, 1, 4), (2, 7, 5)] {
            confirmations.confirm(node(number), through);
            assert_eq!(confirmations.least(&subscribers), Some(least), "after {through} of {number}");
        }
        confirmations.remove(node(1));
        assert_eq!(confirmations.least(&subscribers), Some(0), "has to confirm anew");
        assert_eq!(confirmations.least(&[2, 3].map(node)), Some(7));
    }

    #[test]
    fn those_behind_are_told_in_turn() {
        let (mut confirmations, subscribers) = (Confirmations::new(), [1, 2, 3, 4].map(node));
        confirmations.confirm(node(2), 6);
        confirmations.confirm(node(4), 5);
        let behind = |through, cursor| confirmations.behind(&subscribers, through, node(cursor)).collect::<Vec<_>>();
        assert_eq!(behind(6, 1), [3, 4, 1].map(node));
        assert_eq!(behind(6, 4), [1, 3, 4].map(node));
        assert_eq!((behind(5, 0), behind(0, 0)), ([1, 3].map(node).to_vec(), vec![]), "nobody is behind nothing");
    }
}
