//! What the tables tell their user.

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;
use overlay_core::{NetworkId, NodeId};

use crate::room;
use crate::tables::EntryId;
use crate::{Key, Sequence, TableId};

/// Something that others changed in the tables. A key that changes again before its event is fetched has one event, with what
/// holds then: states in between are skipped.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TableEvent {
    /// An entry is new or has another value.
    Put {
        /// Where.
        network: NetworkId,
        /// Whose.
        owner: NodeId,
        /// Its table.
        table: TableId,
        /// Its key.
        key: Key,
        /// What it is now.
        value: Bytes,
    },
    /// An entry is gone.
    Removed {
        /// Where.
        network: NetworkId,
        /// Whose.
        owner: NodeId,
        /// Its table.
        table: TableId,
        /// Its key.
        key: Key,
    },
    /// An owner is suspended for longer than a grace: its entries are out of sight, and kept.
    Hidden {
        /// Where.
        network: NetworkId,
        /// Whose.
        owner: NodeId,
    },
    /// An owner's entries are in sight again: read them, they may have changed meanwhile.
    Restored {
        /// Where.
        network: NetworkId,
        /// Whose.
        owner: NodeId,
    },
    /// All entries of an owner are gone at once: it left, expired, unsubscribed, or started anew and has yet to tell its entries.
    Dropped {
        /// Where.
        network: NetworkId,
        /// Whose.
        owner: NodeId,
    },
    /// Every live subscriber has confirmed this node's changes through this one.
    Watermark {
        /// Where.
        network: NetworkId,
        /// The last that all have seen.
        through: Sequence,
    },
    /// More has changed than events are kept for: read the whole network.
    Reread {
        /// Which.
        network: NetworkId,
    },
}

/// Events to be made when they are fetched; one for each thing that changed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Events {
    queue: VecDeque<Pending>,
    waiting: BTreeSet<Pending>,
}

/// Something that changed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Pending {
    Entry(EntryId),
    Hidden(NetworkId, NodeId),
    Restored(NetworkId, NodeId),
    Dropped(NetworkId, NodeId),
    Watermark(NetworkId),
    Reread(NetworkId),
}

impl Pending {
    const fn network(&self) -> NetworkId {
        match self {
            Self::Entry((network, ..))
            | Self::Hidden(network, _)
            | Self::Restored(network, _)
            | Self::Dropped(network, _)
            | Self::Watermark(network)
            | Self::Reread(network) => *network,
        }
    }
}

impl Events {
    /// Adds what is not waiting yet; beyond `limit`, a network's events become one.
    pub(crate) fn push(&mut self, pending: Pending, limit: usize) {
        let network = pending.network();
        if self.waiting.contains(&Pending::Reread(network)) && !matches!(pending, Pending::Watermark(_)) {
            return;
        }
        if self.waiting.len() >= limit && matches!(pending, Pending::Entry(_)) {
            self.retain(|waiting| waiting.network() != network || matches!(waiting, Pending::Watermark(_)));
            return self.push(Pending::Reread(network), limit);
        }
        if self.waiting.insert(pending.clone()) {
            self.queue.push_back(pending);
        }
    }

    /// An owner's change as a whole: says more than what waits of its entries.
    pub(crate) fn push_owner(&mut self, pending: Pending, owner: NodeId, limit: usize) {
        let network = pending.network();
        let of_owner = |pending: &Pending| match pending {
            Pending::Entry((net, who, ..)) => *net == network && *who == owner,
            Pending::Hidden(net, who) | Pending::Restored(net, who) | Pending::Dropped(net, who) => {
                *net == network && *who == owner
            }
            Pending::Watermark(_) | Pending::Reread(_) => false,
        };
        self.retain(|pending| !of_owner(pending));
        self.push(pending, limit);
    }

    /// A network that is of no interest any more.
    pub(crate) fn forget(&mut self, network: NetworkId) {
        self.retain(|pending| pending.network() != network);
    }

    pub(crate) fn pop(&mut self) -> Option<Pending> {
        let pending = room::pop(&mut self.queue)?;
        self.waiting.remove(&pending);
        Some(pending)
    }

    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }

    fn retain(&mut self, keep: impl Fn(&Pending) -> bool) {
        self.queue.retain(&keep);
        self.waiting.retain(keep);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_entries_are_too_many_they_become_one_event_and_the_watermark_is_told_all_the_same() {
        let (network, owner, mut events) =
            (NetworkId::from_bytes([1; 16]), NodeId::from_bytes([2; 16]), Events::default());
        events.push(Pending::Watermark(network), 3);
        for key in ["a", "b", "c"] {
            events.push(Pending::Entry((network, owner, TableId(1), Key::new(key).unwrap())), 3);
        }
        let told: Vec<_> = std::iter::from_fn(|| events.pop()).collect();
        assert_eq!(told, [Pending::Watermark(network), Pending::Reread(network)]);
    }
}
