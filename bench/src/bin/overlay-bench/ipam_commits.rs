//! The commits that leases come down to, without what decides them: what the store leaves room for.

use std::collections::BTreeSet;
use std::error::Error;
use std::io;

use bytes::Bytes;
use overlay_bench::{Bench, Pace};
use overlay_core::{Commit, Key, KeyError, MemoryStore, Prefix, Revision};

use crate::ipam::{Dice, MILLION, key, map_churn, owners};

pub(crate) fn run(bench: &mut Bench<'_>) -> io::Result<()> {
    let million = if bench.pace() == Pace::Quick { 60_000 } else { MILLION };
    let cases = [
        ("ipam/lease-commits-16-90", 65_536, 1),
        ("ipam/lease-commits-16-90-batched", 65_536, 512),
        ("ipam/lease-commits-8-1m-90", million, 1),
        ("ipam/lease-commits-8-1m-90-batched", million, 512),
    ];
    for (name, live, batch) in cases {
        if !bench.wants(name) {
            continue;
        }
        let count = live / 10 * 9;
        let mut bare = Bare::new(count).map_err(io::Error::other)?;
        let (mut map, mut dice, mut next) = (owners(count), Dice(5), count);
        let figure = bench.figure(name, "pairs/s").rate(move || {
            let churned = bare.churn(4096 / batch, batch);
            assert!(churned.is_ok(), "{churned:?}");
            4096
        });
        figure.yardstick_rate("BTreeMap of owners", move || map_churn(&mut map, &mut dice, &mut next)).report()?;
    }
    Ok(())
}

/// A store with a record for each lease and for each block of 2,048 numbers, as an allocator's are.
struct Bare {
    store: MemoryStore,
    leases: Prefix,
    live: Vec<Held>,
    blocks: Vec<(Key, Revision)>,
    owners: u64,
    dice: Dice,
    /// The block where claims go on.
    current: usize,
}

#[derive(Clone, Copy)]
struct Held {
    owner: [u8; 16],
    block: u32,
    revision: Revision,
}

/// What a release and a claim write of a block, and of a lease: as many bytes as in an allocator's.
const BLOCK: [u8; 812] = [1; 812];
const LEASE: [u8; 27] = [1; 27];
/// How many claims a block has room for, at 90 %.
const ROOM: usize = 200;

type Failed = Box<dyn Error + Send + Sync>;

impl Bare {
    fn new(count: u32) -> Result<Self, Failed> {
        let (store, all) = (MemoryStore::default(), Prefix::new("b000000000")?);
        let blocks = (0..=u128::from(count / 1843)).map(|number| Ok((all.key(number.to_be_bytes())?, Revision::ZERO)));
        let blocks = blocks.collect::<Result<Vec<_>, KeyError>>()?;
        let puts = blocks.iter().map(|(key, _)| (key.clone(), Bytes::from_static(&BLOCK))).collect();
        let at = store.commit_now(Commit { puts, ..Commit::new() })?;
        let blocks = blocks.into_iter().map(|(key, _)| (key, at)).collect();
        let (leases, dice) = (Prefix::new("l000000000")?, Dice(9));
        let mut bare = Self { store, leases, live: Vec::new(), blocks, owners: 0, dice, current: 0 };
        while bare.live.len() < count as usize {
            let some = (count as usize - bare.live.len()).min(4096);
            let blocks: Vec<u32> = (0..some).map(|_| bare.dice.below(bare.blocks.len() as u32)).collect();
            bare.claim(&blocks)?;
        }
        Ok(bare)
    }

    fn churn(&mut self, rounds: u32, batch: u32) -> Result<(), Failed> {
        for _ in 0..rounds {
            let freed = self.release(batch)?;
            self.claim(&freed)?;
        }
        Ok(())
    }

    /// Gives the blocks of what was released.
    fn release(&mut self, count: u32) -> Result<Vec<u32>, Failed> {
        let drawn = (0..count).map(|_| {
            let at = self.dice.below(self.live.len() as u32) as usize;
            self.live.swap_remove(at)
        });
        let mut gone: Vec<Held> = drawn.collect();
        gone.sort_unstable_by_key(|held| held.owner);
        let blocks: BTreeSet<u32> = gone.iter().map(|held| held.block).collect();
        let mut commit = self.with_blocks(blocks.iter().map(|block| *block as usize));
        for held in &gone {
            let key = self.leases.key(held.owner)?;
            commit = commit.unchanged(key.clone(), held.revision).delete(key);
        }
        let at = self.store.commit_now(commit)?;
        blocks.into_iter().for_each(|block| self.blocks[block as usize].1 = at);
        Ok(gone.into_iter().map(|held| held.block).collect())
    }

    /// Claims for new owners, each of whose numbers counts as one of these blocks; written are those that claims go through.
    fn claim(&mut self, of: &[u32]) -> Result<(), Failed> {
        let written: BTreeSet<usize> =
            (0..=of.len() / ROOM).map(|step| (self.current + step) % self.blocks.len()).collect();
        self.current = (self.current + of.len() / ROOM) % self.blocks.len();
        let mut commit = self.with_blocks(written.iter().copied());
        let mut owners: Vec<[u8; 16]> = (1..=of.len() as u64).map(|step| key(self.owners + step)).collect();
        self.owners += of.len() as u64;
        owners.sort_unstable();
        for owner in &owners {
            let key = self.leases.key(owner)?;
            commit = commit.absent(key.clone()).put(key, Bytes::copy_from_slice(&LEASE));
        }
        let revision = self.store.commit_now(commit)?;
        written.into_iter().for_each(|block| self.blocks[block].1 = revision);
        self.live.extend(owners.into_iter().zip(of).map(|(owner, block)| Held { owner, block: *block, revision }));
        Ok(())
    }

    fn with_blocks(&self, blocks: impl Iterator<Item = usize>) -> Commit {
        blocks.fold(Commit::new(), |commit, block| {
            let (key, revision) = &self.blocks[block];
            commit.unchanged(key.clone(), *revision).put(key.clone(), Bytes::copy_from_slice(&BLOCK))
        })
    }
}
