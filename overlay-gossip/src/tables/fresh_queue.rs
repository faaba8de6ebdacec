//! What is still to be told.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use overlay_core::{NetworkId, NodeId};

use crate::{Key, TableId};

/// Names one owner's entry.
pub(crate) type EntryId = (NetworkId, NodeId, TableId, Key);

/// Keys with fresh changes: own before relayed, then those told least often, then the latest. It holds no values, so a newer
/// change takes an older one's place by itself.
#[derive(Debug, Clone, Default)]
pub(crate) struct FreshQueue {
    order: BTreeMap<Rank, EntryId>,
    ranks: BTreeMap<EntryId, Rank>,
    networks: BTreeMap<NetworkId, usize>,
    own_bytes: usize,
    relayed_bytes: usize,
    stamp: u64,
}

/// Less goes first. No two have the same stamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    relayed: bool,
    told: u32,
    stamp: Reverse<u64>,
    bytes: usize,
}

impl FreshQueue {
    /// Adds a change of `bytes`, of a key that is not there; refused if own, or relayed, ones fill `limit` bytes.
    pub(crate) fn push(&mut self, id: EntryId, relayed: bool, bytes: usize, limit: usize) -> bool {
        let used = if relayed { self.relayed_bytes } else { self.own_bytes };
        if used + bytes > limit {
            return false;
        }
        self.stamp += 1;
        self.insert(id, Rank { relayed, told: 0, stamp: Reverse(self.stamp), bytes });
        true
    }

    /// Counts that a change was told once more, and lets it go after `limit` times.
    pub(crate) fn told(&mut self, id: &EntryId, limit: u32) {
        let Some(rank) = self.ranks.get_mut(id) else { return };
        if rank.told + 1 >= limit {
            self.remove(id);
            return;
        }
        let before = *rank;
        rank.told += 1;
        let after = *rank;
        if let Some(id) = self.order.remove(&before) {
            self.order.insert(after, id);
        }
    }

    pub(crate) fn remove(&mut self, id: &EntryId) -> Option<Rank> {
        let rank = self.ranks.remove(id)?;
        self.order.remove(&rank);
        *self.bytes_of(rank.relayed) -= rank.bytes;
        if let Some(count) = self.networks.get_mut(&id.0) {
            *count -= 1;
            if *count == 0 {
                self.networks.remove(&id.0);
            }
        }
        Some(rank)
    }

    /// Drops what an owner, or everybody, has in a network.
    pub(crate) fn forget(&mut self, network: NetworkId, owner: Option<NodeId>) {
        let of = |id: &&EntryId| id.0 == network && owner.is_none_or(|owner| id.1 == owner);
        let ids: Vec<EntryId> = self.ranks.keys().filter(of).cloned().collect();
        ids.iter().for_each(|id| {
            self.remove(id);
        });
    }

    /// In the order in which to tell.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &EntryId> {
        self.order.values()
    }

    /// The networks that have something to tell.
    pub(crate) fn networks(&self) -> impl Iterator<Item = NetworkId> {
        self.networks.keys().copied()
    }

    pub(crate) fn len(&self) -> usize {
        self.ranks.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ranks.is_empty()
    }

    fn insert(&mut self, id: EntryId, rank: Rank) {
        *self.bytes_of(rank.relayed) += rank.bytes;
        *self.networks.entry(id.0).or_default() += 1;
        self.ranks.insert(id.clone(), rank);
        self.order.insert(rank, id);
    }

    const fn bytes_of(&mut self, relayed: bool) -> &mut usize {
        if relayed { &mut self.relayed_bytes } else { &mut self.own_bytes }
    }
}
