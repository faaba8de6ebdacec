//! One claim or release where all that it rests on is known: what nearly all of them are.
//!
//! It makes the commit that a transaction would come to, without one. What is not as usual is left to the transaction, which is told of
//! what was tried: an attempt whose answer was lost counts there as its own.

use std::collections::BTreeSet;
use std::slice;
use std::sync::Arc;

use overlay_core::{Commit, CommitError, Compare, Entry, Key, Revision, StoreError, UnixTime};

use super::Ledger;
use super::block::Block;
use super::claim::{Outcome, Want};
use super::ground::{Ground, Plot};
use super::record::Held;
use super::release::Return;
use crate::{IpamError, PickOrder, Release};

/// What came of it.
pub(crate) enum Direct<T> {
    Done(T),
    /// It is the transaction's.
    Open(Option<Box<Tried>>),
}

/// An attempt that failed.
#[derive(Debug)]
pub(crate) struct Tried {
    /// What it rested on.
    pub(crate) compared: [Option<(Key, Option<Revision>)>; 3],
    /// Its answer was lost: it may be done.
    pub(crate) lost: Option<StoreError>,
}

impl Tried {
    /// What to read now, besides other keys: what was thought of these was wrong, or is not known.
    pub(crate) fn wanted(&self, others: impl IntoIterator<Item = Key>) -> BTreeSet<Key> {
        self.compared.iter().flatten().map(|(key, _)| key.clone()).chain(others).collect()
    }
}

/// A block out of the cache, changed, and the commit that had put it last.
struct Changed {
    key: Key,
    block: Arc<Block>,
    was: Revision,
}

/// A lease as the commit has to find it, and is to leave it.
struct Change {
    key: Key,
    was: Option<Revision>,
    held: Option<Held>,
}

impl Ledger {
    /// Claims any number for one owner where claims go on, if nothing speaks against it.
    pub(super) async fn claim_directly(
        &self,
        ground: &Ground,
        want: &Want<'_>,
        now: UnixTime,
    ) -> Result<Direct<Outcome>, IpamError> {
        let Some((changed, held)) = self.next_free(ground, want, now) else { return Ok(Direct::Open(None)) };
        let lease = Change { key: self.keys.lease(ground, want.owner), was: None, held: Some(held) };
        self.put_directly(ground, (changed, lease), Outcome::Granted(held)).await
    }

    /// Gives one lease back, if it is what it is said to be.
    pub(super) async fn release_directly(
        &self,
        ground: &Ground,
        of: &Return<'_>,
        now: UnixTime,
    ) -> Result<Direct<Release>, IpamError> {
        let key = self.keys.lease(ground, of.owner);
        let Some(entry) = self.store.get(&key).await? else { return Ok(Direct::Open(None)) };
        let held = ground.held(&key, &entry).ok();
        let is_it = |held: &Held| (Some((held.plot, held.number)), held.generation) == (of.of, of.generation);
        let Some((plot, held)) = held.filter(|(_, held)| is_it(held)) else { return Ok(Direct::Open(None)) };
        let Some(changed) = self.given_back(ground, (plot, held.number), now) else { return Ok(Direct::Open(None)) };
        let lease = Change { key, was: Some(entry.revision), held: None };
        self.put_directly(ground, (changed, lease), Release::Done).await
    }

    /// The block where claims go on, if this manager holds it for long enough, and what is claimed there next.
    fn next_free(&self, ground: &Ground, want: &Want<'_>, now: UnixTime) -> Option<(Changed, Held)> {
        let plot = ground.plots.first()?;
        let window = *plot.windows(want.purpose).first()?;
        if want.exact.is_some() || self.order != PickOrder::NextFit {
            return None;
        }
        let mut cache = self.cache();
        let row = cache.row(ground, plot, window);
        let number = row.current.filter(|block| !row.full.contains(*block))?;
        let blocks = plot.blocks(window);
        if blocks.start() != blocks.end() && !row.is_held_long(now) {
            return None;
        }
        let key = self.keys.block(ground, plot.index, number);
        let (entry, mut block) = cache.take(&key)?;
        self.wake_by(&mut block, now);
        // Where nothing is free, the block is read again: once in a hundred claims.
        let at = super::claim::first_free(plot, number, &block, plot.part(number, window), block.cursor())?;
        let generation = Arc::make_mut(&mut block).claim(at, true);
        let held = Held { plot: plot.index, purpose: want.purpose, number: plot.join(number, at), generation };
        Some((Changed { key, block, was: entry.revision }, held))
    }

    /// The block of a number, without it, if it is known.
    fn given_back(&self, ground: &Ground, (plot, number): (&Plot, u128), now: UnixTime) -> Option<Changed> {
        let (number, place) = plot.split(number);
        let key = self.keys.block(ground, plot.index, number);
        let mut cache = self.cache();
        let (entry, mut block) = cache.take(&key)?;
        self.wake_by(&mut block, now);
        Arc::make_mut(&mut block).release(place, self.rest, now);
        cache.note_release(ground, plot, (number, slice::from_ref(&place)), block.wakes(self.rest));
        Some(Changed { key, block, was: entry.revision })
    }

    async fn put_directly<T>(
        &self,
        ground: &Ground,
        (changed, lease): (Changed, Change),
        outcome: T,
    ) -> Result<Direct<T>, IpamError> {
        let Changed { key, block, was } = changed;
        let value = block.encode();
        let mut commit = Commit::new();
        commit.compares = Vec::with_capacity(3);
        commit.compares.push(Compare::Key { key: key.clone(), revision: Some(was) });
        commit.compares.push(Compare::Key { key: lease.key.clone(), revision: lease.was });
        let guard = ground.guard.as_ref().map(|(key, entry)| (key.clone(), Some(entry.revision)));
        commit.compares.extend(guard.clone().map(|(key, revision)| Compare::Key { key, revision }));
        commit.puts = Vec::with_capacity(2);
        commit.puts.push((key.clone(), value.clone()));
        match lease.held {
            Some(held) => commit.puts.push((lease.key.clone(), held.encode())),
            None => commit.deletes.push(lease.key.clone()),
        }
        let compared = || [Some((key.clone(), Some(was))), Some((lease.key.clone(), lease.was)), guard.clone()];
        match self.store.commit(commit).await {
            Ok(revision) => {
                self.cache().know(key, Entry { value, revision }, block);
                Ok(Direct::Done(outcome))
            }
            Err(CommitError::Failed(error)) => Err(error.into()),
            Err(error) => {
                let lost = match error {
                    CommitError::Ambiguous(error) => Some(error),
                    _ => None,
                };
                Ok(Direct::Open(Some(Box::new(Tried { compared: compared(), lost }))))
            }
        }
    }
}
