//! What a node keeps of one network.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use overlay_core::{Instant, NodeId};

use crate::tables::wire::{BUCKETS, PIECES, Place, Vector};
use crate::tables::{Chain, Confirmations, hash};

/// The chains of all owners in one network, with hashes of them that are kept at each change.
#[derive(Debug, Clone)]
pub(crate) struct Replica {
    chains: BTreeMap<NodeId, Box<Chain>>, // boxed: a map's nodes have places to spare
    hashes: [u64; BUCKETS],
    /// Hashes of the pieces, kept while there are many owners; else empty.
    pieces: Vec<u64>,
    pub(crate) confirmations: Confirmations,
    pub(crate) pace: Pace,
    /// The watermark that the user was told last.
    pub(crate) told: u64,
    /// Whom to tell next that they are behind, or what is stable.
    pub(crate) cursor: NodeId,
    /// Subscribers that are still to hear of a stable number, since they have tombstones below it.
    pub(crate) to_tell: Vec<NodeId>,
}

/// When a network is compared next.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    pub(crate) due: Instant,
    /// How many more comparisons follow fast.
    pub(crate) fast: u32,
    /// Whether more is on its way than news can carry.
    pub(crate) bulk: bool,
}

impl Replica {
    pub(crate) const fn new(now: Instant) -> Self {
        Self {
            chains: BTreeMap::new(),
            hashes: [0; BUCKETS],
            pieces: Vec::new(),
            confirmations: Confirmations::new(),
            pace: Pace { due: now, fast: 0, bulk: false },
            told: 0,
            cursor: NodeId::from_bytes([0; 16]),
            to_tell: Vec::new(),
        }
    }

    /// Works on an owner's chain, which is made if there is none of this incarnation, and keeps the hashes true.
    pub(crate) fn edit<R>(&mut self, owner: NodeId, incarnation: u64, work: impl FnOnce(&mut Chain) -> R) -> R {
        let chain = self.chains.entry(owner).or_insert_with(|| Box::new(Chain::new(incarnation, 0)));
        let before = share(owner, chain);
        let result = work(chain);
        let gained = share(owner, chain).wrapping_sub(before);
        self.add(hash::place(owner), gained);
        if self.pieces.is_empty() && self.chains.len() > MANY_OWNERS {
            self.pieces = self.sums_of_pieces();
        }
        result
    }

    fn add(&mut self, place: Place, gained: u64) {
        let sums = [self.hashes.get_mut(place.part()), self.pieces.get_mut(place.index())];
        sums.into_iter().flatten().for_each(|sum| *sum = sum.wrapping_add(gained));
    }

    /// Forgets an owner; whether it had entries.
    pub(crate) fn drop_chain(&mut self, owner: NodeId) -> bool {
        let Some(chain) = self.chains.remove(&owner) else {
            return false;
        };
        self.add(hash::place(owner), share(owner, &chain).wrapping_neg());
        if self.chains.len() < MANY_OWNERS / 2 {
            self.pieces = Vec::new();
        }
        chain.len() > chain.tombstones()
    }

    pub(crate) fn chain(&self, owner: NodeId) -> Option<&Chain> {
        self.chains.get(&owner).map(|chain| &**chain)
    }

    pub(crate) const fn chains(&self) -> &BTreeMap<NodeId, Box<Chain>> {
        &self.chains
    }

    /// One number for everything.
    pub(crate) fn root(&self) -> u64 {
        self.hashes.iter().enumerate().fold(0, |root, (at, hash)| {
            // Not the plain sum, so that the parts cannot be exchanged for each other.
            root.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(hash.wrapping_add(at as u64))
        })
    }

    pub(crate) const fn hashes(&self) -> &[u64; BUCKETS] {
        &self.hashes
    }

    /// Whether there are so many owners that what differs is narrowed down to pieces.
    pub(crate) const fn is_large(&self) -> bool {
        !self.pieces.is_empty()
    }

    /// The hashes of all pieces, [`PIECES`] of them. O(1) for a large replica, O(n) for another.
    pub(crate) fn pieces(&self) -> Cow<'_, [u64]> {
        if self.is_large() { Cow::Borrowed(&self.pieces) } else { Cow::Owned(self.sums_of_pieces()) }
    }

    fn sums_of_pieces(&self) -> Vec<u64> {
        let mut sums = vec![0_u64; PIECES];
        for (owner, chain) in &self.chains {
            let sum = &mut sums[hash::place(*owner).index()];
            *sum = sum.wrapping_add(share(*owner, chain));
        }
        sums
    }

    /// What was seen of one owner, as it travels.
    pub(crate) fn vector(&self, owner: NodeId, chain: &Chain) -> Vector {
        let (incarnation, content) = (chain.incarnation, chain.content());
        Vector { owner, incarnation, content, seen: chain.seen().truncated(VECTOR_SPANS) }
    }

    /// Compares soon: `within` is how soon, unless that is already earlier.
    pub(crate) fn hurry(&mut self, within: Duration, bulk: bool, now: Instant) {
        let subscribers = self.chains.len() as u32;
        self.pace.fast = 4 + (subscribers | 1).ilog2();
        self.pace.bulk |= bulk;
        self.pace.due = self.pace.due.min(now + within);
    }
}

/// Beyond so many owners the hashes of pieces are kept, 8 KiB, until there are less than half as many.
const MANY_OWNERS: usize = 1_024;
/// Spans of a vector that travel: less than all only makes the others believe that more is missing.
const VECTOR_SPANS: usize = 16;

/// A chain of which nothing was seen adds nothing, so that it does not matter whether it is there.
fn share(owner: NodeId, chain: &Chain) -> u64 {
    if chain.seen().is_empty() { 0 } else { chain.hash(owner) }
}

#[cfg(test)]
mod tests {
    use overlay_core::testing::any::node_id;
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn hashes_kept_at_each_change_are_those_of_the_chains_and_tell_one_change(
            owners in vec(node_id(), 1..2_200),
            leave in 0_usize..2_200,
        ) {
            let mut replica = Replica::new(Instant::ZERO);
            for (number, owner) in (1..).zip(&owners) {
                replica.edit(*owner, number, |chain| chain.rebase(number));
            }
            owners.iter().take(leave).for_each(|owner| {
                replica.drop_chain(*owner);
            });
            prop_assert_eq!(&replica.pieces()[..], &replica.sums_of_pieces()[..]);
            for (part, pieces) in replica.pieces().chunks(BUCKETS).enumerate() {
                prop_assert_eq!(pieces.iter().fold(0, |sum: u64, piece| sum.wrapping_add(*piece)), replica.hashes()[part]);
            }
            let (before, at) = (replica.pieces().into_owned(), hash::place(owners[0]));
            replica.edit(owners[0], u64::MAX, |chain| chain.rebase(7_777));
            let changed: Vec<usize> = (0..PIECES).filter(|piece| before[*piece] != replica.pieces()[*piece]).collect();
            prop_assert_eq!(changed, [at.index()]);
        }
    }
}
