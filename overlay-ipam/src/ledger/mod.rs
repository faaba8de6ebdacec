//! Leases on numbers, in a store: the engine of addresses, VNIs and ports.
//!
//! A block record says which of up to 2,048 numbers are used; each lease is a small record of its own under its owner's
//! key. Both are put in one commit that compares both, so whatever happens between two commits, they agree.

pub(crate) mod audit;
pub(crate) mod block;
pub(crate) mod cache;
pub(crate) mod claim;
pub(crate) mod combine;
mod direct;
pub(crate) mod ground;
pub(crate) mod record;
pub(crate) mod release;
pub(crate) mod wire;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use overlay_core::{
    CommitError, Entry, Key, NodeId, Revision, Snapshot, Store, StoreError, Transaction, TransactionError, Undecided,
    UnixTime, Unread,
};
use smallvec::SmallVec;

use crate::{IpamError, PickOrder};
use block::{Block, Rest};
use cache::Cache;
use ground::{Ground, Keys, Plot};
use wire::Flaw;

/// Leases on the numbers of grounds.
#[derive(Debug)]
pub(crate) struct Ledger {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) keys: Keys,
    /// Who works here: the holder of blocks.
    pub(crate) manager: NodeId,
    pub(crate) rest: Rest,
    pub(crate) order: PickOrder,
    pub(crate) seed: [u8; 32],
    cache: Mutex<Cache>,
}

/// How many commits are tried. More than usual: where only one block has something left, all managers write to it, and one
/// whose way to the store is longer than others' loses nine of ten times.
const ATTEMPTS: u32 = 64;

/// How long a manager keeps a block for itself unless it goes on claiming there.
pub(crate) const HOLD: Duration = Duration::from_secs(60);

impl Ledger {
    pub(crate) fn new(store: Arc<dyn Store>, keys: Keys, manager: NodeId, rest: Rest, order: PickOrder) -> Self {
        let cache = Mutex::new(Cache::default());
        Self { store, keys, manager, rest, order, seed: manager_seed(manager), cache }
    }

    /// The same with draws of this seed.
    pub(crate) fn seeded(self, seed: [u8; 32]) -> Self {
        Self { seed, ..self }
    }

    pub(crate) fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn transaction(&self) -> Transaction<'_> {
        Transaction::on(&*self.store).attempts(ATTEMPTS)
    }

    /// A block as it is by now: of the snapshot, by the cache if that has parsed it, without the rests that are over.
    fn parsed(
        &self,
        cache: &Cache,
        (key, entry): (&Key, Option<&Entry>),
        size: u16,
        now: UnixTime,
    ) -> Result<Arc<Block>, Stop> {
        let known = entry.and_then(|entry| cache.parsed(key, entry.revision));
        let mut block = match (known, entry) {
            (Some(block), _) => block,
            (None, None) => Arc::new(Block::new(size)),
            (None, Some(entry)) => {
                let parsed = Block::parse(&entry.value, size);
                Arc::new(parsed.map_err(|flaw| Stop::Corrupt { key: key.clone(), flaw })?)
            }
        };
        self.wake_by(&mut block, now);
        Ok(block)
    }

    /// Ends the rests that are over, if there are any.
    fn wake_by(&self, block: &mut Arc<Block>, now: UnixTime) {
        if block.wakes(self.rest).is_some_and(|wakes| wakes <= now) {
            Arc::make_mut(block).wake(self.rest, now);
        }
    }

    /// A commit has made these blocks so, at `revision`.
    fn know(&self, written: Written, revision: Revision) {
        let mut cache = self.cache();
        written.into_iter().for_each(|(key, value, block)| cache.know(key, Entry { value, revision }, block));
    }

    /// What the ground was read from must be as it was.
    fn guard(ground: &Ground, snapshot: &Snapshot) -> Result<(), Undecided<Stop>> {
        let Some((key, read)) = &ground.guard else { return Ok(()) };
        match snapshot.get(key)? {
            Some(entry) if entry.revision == read.revision => Ok(()),
            _ => Err(Undecided::Refused(Stop::Stale)),
        }
    }

    /// What a commit may have at most, less what is not for numbers: guard, holds and a term.
    fn budget(&self) -> Budget {
        let limits = self.store.limits();
        Budget {
            operations: limits.operations.saturating_sub(4).max(2),
            bytes: limits.commit.saturating_sub(4096).max(4096),
        }
    }

    /// Lists a plot's blocks at one revision.
    async fn blocks(&self, ground: &Ground, plot: &Plot) -> Result<Vec<Seen>, IpamError> {
        let prefix = self.keys.blocks(ground, plot);
        let listing = self.store.list(&prefix).await?;
        let mut cache = self.cache();
        let mut blocks = Vec::with_capacity(listing.entries.len());
        for (key, entry) in listing.entries {
            let number = key.strip(&prefix).and_then(|rest| <[u8; 16]>::try_from(rest).ok()).map(u128::from_be_bytes);
            let known = number.filter(|number| *number <= plot.last >> plot.block_bits());
            let corrupt = |flaw| IpamError::Corrupt { key: key.clone(), flaw };
            let number = known.ok_or_else(|| corrupt(Flaw::Field { field: "key" }))?;
            let block = Block::parse(&entry.value, plot.block_size(number)).map_err(corrupt)?;
            let (block, revision) = (Arc::new(block), entry.revision);
            cache.know(key, entry, Arc::clone(&block));
            blocks.push(Seen { number, revision, block });
        }
        Ok(blocks)
    }
}

/// The keys of leases as they were asked for, and their order: sorted once, so that what is read, compared and written in order is
/// not sorted again further down.
pub(crate) struct Sorted {
    pub(crate) keys: Vec<Key>,
    /// The place of each among those asked for, in their order; empty where they were asked for in it, as one is.
    order: Vec<u32>,
    /// Which it is in their order, of each that was asked for; empty alike.
    ranks: Vec<u32>,
    /// Whether one of them stands there twice.
    pub(crate) repeat: bool,
}

impl Sorted {
    /// `same` bytes at their beginning are alike: what follows decides, eight bytes mostly.
    pub(crate) fn new(keys: impl Iterator<Item = Key>, same: usize) -> Self {
        let keys: Vec<Key> = keys.collect();
        if keys.is_sorted_by(|a, b| a < b) {
            return Self { keys, order: Vec::new(), ranks: Vec::new(), repeat: false };
        }
        let head = |key: &Key| {
            let after = key.as_bytes().get(same..).unwrap_or_default();
            let mut head = [0; 8];
            head[..after.len().min(8)].copy_from_slice(&after[..after.len().min(8)]);
            u64::from_be_bytes(head)
        };
        let mut heads: Vec<(u64, u32)> = keys.iter().map(head).zip(0..).collect();
        heads.sort_unstable_by_key(|(head, _)| *head);
        if heads.windows(2).any(|pair| pair[0].0 == pair[1].0) {
            heads.sort_unstable_by(|(_, a), (_, b)| keys[*a as usize].cmp(&keys[*b as usize]));
        }
        let order: Vec<u32> = heads.into_iter().map(|(_, at)| at).collect();
        let mut ranks = vec![0; order.len()];
        order.iter().zip(0..).for_each(|(at, rank)| ranks[*at as usize] = rank);
        let repeat = order.windows(2).any(|pair| keys[pair[0] as usize] == keys[pair[1] as usize]);
        Self { keys, order, ranks, repeat }
    }

    /// What is under a key of them; `first` is the place of the first of all in the snapshot.
    pub(crate) fn get<'s>(
        &self,
        at: usize,
        (snapshot, first): (&'s Snapshot, usize),
    ) -> Result<Option<&'s Entry>, Unread> {
        let rank = self.ranks.get(at).map_or(at, |rank| *rank as usize);
        snapshot.get_near(&self.keys[at], first + rank)
    }

    /// The place of the first of all in a snapshot.
    pub(crate) fn first(&self, snapshot: &Snapshot) -> usize {
        self.in_order().next().map_or(0, |(_, key)| snapshot.place(key))
    }

    /// The keys in their order, each with its place among those asked for.
    pub(crate) fn in_order(&self) -> impl Iterator<Item = (usize, &Key)> {
        (0..self.keys.len()).map(|rank| {
            let at = self.order.get(rank).map_or(rank, |at| *at as usize);
            (at, &self.keys[at])
        })
    }
}

/// A block as a listing showed it.
pub(crate) struct Seen {
    pub(crate) number: u128,
    pub(crate) revision: Revision,
    pub(crate) block: Arc<Block>,
}

/// Some of what there mostly is one of.
pub(crate) type Few<T> = SmallVec<[T; 1]>;

/// Blocks that a commit writes: their keys, their records, and what these say.
pub(crate) type Written = Vec<(Key, Bytes, Arc<Block>)>;

/// What may still go into a commit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Budget {
    operations: usize,
    bytes: usize,
}

impl Budget {
    /// Takes so much of it, if there is.
    fn spend(&mut self, operations: usize, bytes: usize) -> bool {
        match (self.operations.checked_sub(operations), self.bytes.checked_sub(bytes)) {
            (Some(operations), Some(bytes)) => {
                *self = Self { operations, bytes };
                true
            }
            _ => false,
        }
    }
}

/// Why a decision about leases stopped as a whole.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The ground is not what it was: read it again.
    Stale,
    /// A record cannot be read.
    Corrupt { key: Key, flaw: Flaw },
}

impl From<Stop> for Undecided<Stop> {
    fn from(stop: Stop) -> Self {
        Self::Refused(stop)
    }
}

/// Of what does not rest on a transaction.
impl From<Stop> for IpamError {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Stale => Self::Contended { attempts: 1 },
            Stop::Corrupt { key, flaw } => Self::Corrupt { key, flaw },
        }
    }
}

/// What a transaction about leases came to.
pub(crate) fn outcome<T>(result: Result<T, TransactionError<Stop>>) -> Result<Option<T>, IpamError> {
    match result {
        Ok(output) => Ok(Some(output)),
        Err(TransactionError::Refused(Stop::Stale)) => Ok(None),
        Err(TransactionError::Refused(stop)) => Err(stop.into()),
        Err(error) => Err(failed(error)),
    }
}

/// What a transaction failed of, but for its refusals.
pub(crate) fn failed<R>(error: TransactionError<R>) -> IpamError {
    match error {
        TransactionError::Contended { attempts, .. } => IpamError::Contended { attempts },
        TransactionError::InDoubt(source) => IpamError::InDoubt(Arc::new(source)),
        TransactionError::Store(source) => IpamError::Store(Arc::new(source)),
        TransactionError::Commit(source) => IpamError::Commit(Arc::new(source)),
        TransactionError::Blind { key } => IpamError::Commit(Arc::new(CommitError::Twice { key })),
        _ => StoreError::Failed { doing: "a transaction", source: "an unknown outcome".into() }.into(),
    }
}

fn manager_seed(manager: NodeId) -> [u8; 32] {
    let mut seed = [0; 32];
    seed[..16].copy_from_slice(&manager.to_bytes());
    seed
}
