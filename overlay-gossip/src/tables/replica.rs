//! What a node keeps of one network.

use std::collections::BTreeMap;
use std::time::Duration;

use overlay_core::{Instant, NodeId};

use crate::tables::wire::{BUCKETS, Vector};
use crate::tables::{Chain, Confirmations, hash};

/// The chains of all owners in one network, with hashes of them that are kept at each change.
#[derive(Debug, Clone)]
pub(crate) struct Replica {
    chains: BTreeMap<NodeId, Box<Chain>>, // boxed: a map's nodes have places to spare
    hashes: [u64; BUCKETS],
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
        let sum = &mut self.hashes[hash::bucket(owner)];
        *sum = sum.wrapping_sub(part(owner, chain));
        let result = work(chain);
        *sum = sum.wrapping_add(part(owner, chain));
        result
    }

    /// Forgets an owner; whether it had entries.
    pub(crate) fn drop_chain(&mut self, owner: NodeId) -> bool {
        let Some(chain) = self.chains.remove(&owner) else {
            return false;
        };
        let sum = &mut self.hashes[hash::bucket(owner)];
        *sum = sum.wrapping_sub(part(owner, &chain));
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

/// Spans of a vector that travel: less than all only makes the others believe that more is missing.
const VECTOR_SPANS: usize = 16;

/// A chain of which nothing was seen adds nothing, so that it does not matter whether it is there.
fn part(owner: NodeId, chain: &Chain) -> u64 {
    if chain.seen().is_empty() { 0 } else { chain.hash(owner) }
}
