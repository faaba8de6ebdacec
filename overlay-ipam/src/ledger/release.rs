//! Releases: giving numbers back, fenced by the generation of the lease.

use std::collections::btree_map::Entry::{Occupied, Vacant};
use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use overlay_core::{Commit, Entry, Key, Snapshot, Undecided, UnixTime};

use super::block::Block;
use super::ground::{Ground, Plot};
use super::record::Held;
use super::wire::Flaw;
use super::{Budget, Ledger, Stop, outcome};
use crate::{IpamError, LeaseOwner, Release};

/// A lease to give back.
#[derive(Debug, Clone)]
pub(crate) struct Return<'r> {
    pub(crate) owner: &'r LeaseOwner,
    pub(crate) generation: u64,
    /// What it is a lease of, plot and number. Generations are counted by block: both tell a lease from a later one.
    pub(crate) of: Option<(u8, u128)>,
}

/// What a decision about returns comes to: the fate of each that fits into a commit, and what it makes of blocks.
type Decided = (Vec<Release>, Vec<(Key, Bytes, Block)>);

impl Ledger {
    /// Gives back what is still leased so. `None` if the ground has changed.
    pub(crate) async fn release(
        &self,
        ground: &Ground,
        returns: &[Return<'_>],
        now: UnixTime,
    ) -> Result<Option<Vec<Release>>, IpamError> {
        let mut released = Vec::with_capacity(returns.len());
        while released.len() < returns.len() {
            let rest = &returns[released.len()..];
            let some = &rest[..rest.len().min(self.budget().operations)];
            let Some(done) = self.release_some(ground, some, now).await? else { return Ok(None) };
            released.extend(done);
        }
        Ok(Some(released))
    }

    /// Gives back the first of them: as many as fit into a commit.
    async fn release_some(
        &self,
        ground: &Ground,
        returns: &[Return<'_>],
        now: UnixTime,
    ) -> Result<Option<Vec<Release>>, IpamError> {
        let keys: Vec<Key> = returns.iter().map(|of| self.keys.lease(ground, of.owner)).collect();
        let (seen, unseen) = self.blocks_of(ground, returns);
        let guard = ground.guard.iter().map(|(key, entry)| (key.clone(), Some(entry.clone())));
        let transaction = self.transaction().assuming(guard.chain(seen)).reading(keys.iter().cloned().chain(unseen));
        let mut tried = vec![false; returns.len()];
        let result = transaction.run(|snapshot| {
            Self::guard(ground, snapshot)?;
            snapshot.need(&keys)?;
            let (commit, (mut fates, written)) = self.give_back(ground, snapshot, (returns, &keys), now)?;
            for (fate, tried) in fates.iter_mut().zip(&mut tried) {
                // What is gone after an attempt of ours whose answer was lost was given back by it.
                *fate = if *fate == Release::Gone && *tried { Release::Done } else { *fate };
                *tried |= *fate == Release::Done;
            }
            Ok((commit, (fates, written)))
        });
        let Some(done) = outcome(result.await)? else { return Ok(None) };
        let (released, written) = done.output;
        self.know(written, done.at);
        Ok(Some(released))
    }

    /// The blocks that the numbers are in most likely: those that were seen, and those to read.
    fn blocks_of(&self, ground: &Ground, returns: &[Return<'_>]) -> (Vec<(Key, Option<Entry>)>, Vec<Key>) {
        let mut blocks: Vec<Key> = returns
            .iter()
            .filter_map(|of| {
                let (index, number) = of.of?;
                let plot = ground.plot(index).filter(|plot| number <= plot.last)?;
                Some(self.keys.block(ground, plot, plot.split(number).0))
            })
            .collect();
        blocks.sort_unstable();
        blocks.dedup();
        let cache = self.cache();
        let (mut seen, mut unseen) = (Vec::new(), Vec::new());
        for key in blocks {
            match cache.entry(&key) {
                Some(entry) => seen.push((key, Some(entry))),
                None => unseen.push(key),
            }
        }
        (seen, unseen)
    }

    fn give_back(
        &self,
        ground: &Ground,
        snapshot: &Snapshot,
        (returns, keys): (&[Return<'_>], &[Key]),
        now: UnixTime,
    ) -> Result<(Commit, Decided), Undecided<Stop>> {
        let held = keys.iter().map(|key| Self::held(ground, snapshot, key)).collect::<Result<Vec<_>, _>>()?;
        let block_of = |(plot, held): &(&Plot, Held)| self.keys.block(ground, plot, plot.split(held.number).0);
        snapshot.need(&held.iter().flatten().map(block_of).collect::<Vec<_>>())?;

        let mut back =
            Back { budget: self.budget(), commit: Commit::new(), blocks: BTreeMap::new(), seen: BTreeSet::new() };
        let mut fates = Vec::with_capacity(returns.len());
        for ((of, key), held) in returns.iter().zip(keys).zip(held) {
            let fate = match held {
                None => Release::Gone,
                Some(_) if back.seen.contains(key) => Release::Gone,
                Some((_, held)) if (Some((held.plot, held.number)), held.generation) != (of.of, of.generation) => {
                    Release::Fenced { generation: held.generation }
                }
                Some((plot, held)) => {
                    let block = block_of(&(plot, held));
                    let is_new = !back.blocks.contains_key(&block);
                    if !back
                        .budget
                        .spend(1 + usize::from(is_new), 2 * key.as_bytes().len() + 2048 * usize::from(is_new))
                    {
                        break;
                    }
                    back.give(self, snapshot, (plot, held.number, block), now)?;
                    back.seen.insert(key);
                    Release::Done
                }
            };
            fates.push(fate);
        }
        back.commit.deletes.extend(back.seen.into_iter().cloned());
        let mut cache = self.cache();
        let mut written = Vec::with_capacity(back.blocks.len());
        for (key, (plot, numbers, block)) in back.blocks {
            let wakes = block.wakes(self.rest);
            numbers.iter().for_each(|number| cache.note_release(ground, plot, *number, wakes));
            let value = block.encode();
            back.commit.puts.push((key.clone(), value.clone()));
            written.push((key, value, block));
        }
        Ok((back.commit, (fates, written)))
    }

    /// The lease under a key, and the plot it is of.
    fn held<'g>(
        ground: &'g Ground,
        snapshot: &Snapshot,
        key: &Key,
    ) -> Result<Option<(&'g Plot, Held)>, Undecided<Stop>> {
        let Some(entry) = snapshot.get(key)? else { return Ok(None) };
        let corrupt = |flaw| Stop::Corrupt { key: key.clone(), flaw };
        let held = Held::parse(&entry.value).map_err(corrupt)?;
        match ground.plot(held.plot).filter(|plot| held.number <= plot.last) {
            Some(plot) => Ok(Some((plot, held))),
            None => Err(corrupt(Flaw::Field { field: "number" }).into()),
        }
    }
}

/// A commit of releases in the making.
struct Back<'b> {
    budget: Budget,
    commit: Commit,
    /// What is done to blocks, and the numbers given back in each.
    blocks: BTreeMap<Key, (&'b Plot, Vec<u128>, Block)>,
    seen: BTreeSet<&'b Key>,
}

impl<'b> Back<'b> {
    fn give(
        &mut self,
        ledger: &Ledger,
        snapshot: &Snapshot,
        (plot, number, key): (&'b Plot, u128, Key),
        now: UnixTime,
    ) -> Result<(), Undecided<Stop>> {
        let (at_block, at) = plot.split(number);
        let (_, numbers, block) = match self.blocks.entry(key) {
            Vacant(vacant) => {
                let entry = snapshot.get(vacant.key())?;
                let mut block = Ledger::parsed(&ledger.cache(), vacant.key(), entry, plot.block_size(at_block))?;
                block.wake(ledger.rest, now);
                vacant.insert((plot, Vec::new(), block))
            }
            Occupied(occupied) => occupied.into_mut(),
        };
        block.release(at, ledger.rest, now);
        numbers.push(number);
        Ok(())
    }
}
