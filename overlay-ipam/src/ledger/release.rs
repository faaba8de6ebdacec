//! Releases: giving numbers back, fenced by the generation of the lease.

use std::collections::btree_map::Entry::Vacant;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use overlay_core::{Commit, Entry, Key, Snapshot, Undecided, UnixTime};
use rustc_hash::FxHashSet;

use super::direct::{Direct, Tried};
use super::ground::{Ground, Keys, Plot};
use super::{Budget, Few, Ledger, Sorted, Stop, Written, outcome};
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
type Decided = (Vec<Release>, Written);

impl Ledger {
    /// Gives back what is still leased so. `None` if the ground has changed.
    pub(crate) async fn release(
        &self,
        ground: &Ground,
        returns: &[Return<'_>],
        now: UnixTime,
    ) -> Result<Option<Vec<Release>>, IpamError> {
        let tried = match returns {
            [of] => match self.release_directly(ground, of, now).await? {
                Direct::Done(release) => return Ok(Some(vec![release])),
                Direct::Open(tried) => tried,
            },
            _ => None,
        };
        Box::pin(self.release_all(ground, returns, tried, now)).await
    }

    async fn release_all(
        &self,
        ground: &Ground,
        returns: &[Return<'_>],
        mut tried: Option<Box<Tried>>,
        now: UnixTime,
    ) -> Result<Option<Vec<Release>>, IpamError> {
        let mut released = Vec::new();
        while released.len() < returns.len() {
            let rest = &returns[released.len()..];
            let some = &rest[..rest.len().min(self.budget().operations)];
            let Some(done) = self.release_some(ground, some, tried.take(), now).await? else { return Ok(None) };
            match released.is_empty() {
                true => released = done, // all of them, mostly
                false => released.extend(done),
            }
        }
        Ok(Some(released))
    }

    /// Gives back the first of them: as many as fit into a commit.
    async fn release_some(
        &self,
        ground: &Ground,
        returns: &[Return<'_>],
        tried: Option<Box<Tried>>,
        now: UnixTime,
    ) -> Result<Option<Vec<Release>>, IpamError> {
        let leases = self.keys.leases(ground);
        let keys = returns.iter().map(|of| Keys::lease_of(&leases, of.owner));
        let keys = Sorted::new(keys, self.keys.before_owner());
        let (seen, unseen) = self.blocks_of(ground, returns);
        let wanted = unseen.into_iter().chain(keys.in_order().map(|(_, key)| key.clone()));
        let transaction = match &tried {
            None => {
                let guard = ground.guard.iter().map(|(key, entry)| (key.clone(), Some(entry.clone())));
                self.transaction().reading(wanted).assuming(seen.into_iter().chain(guard))
            }
            Some(tried) => self.transaction().reading(tried.wanted(wanted)).assuming(seen),
        };
        let mut attempts = Attempts::default();
        if tried.is_some() {
            attempts.last.push(0);
        }
        let decide = |snapshot: &Snapshot| {
            Self::guard(ground, snapshot)?;
            let given = self.give_back(ground, snapshot, (returns, &keys), now);
            // What is not known of the leases is read at once.
            let given = given.or_else(|error| snapshot.need(&keys.keys).map_err(Undecided::from).and(Err(error)));
            let (commit, (mut fates, written)) = given?;
            attempts.explain(snapshot.lost_answers(), &mut fates);
            Ok((commit, (fates, written)))
        };
        let result = match tried.map(|tried| *tried) {
            Some(Tried { compared, lost: Some(lost) }) => {
                Box::pin(transaction.run_after(compared.into_iter().flatten(), lost, decide)).await
            }
            _ => transaction.run(decide).await,
        };
        let Some(done) = outcome(result)? else { return Ok(None) };
        let (released, written) = done.output;
        self.know(written, done.at);
        Ok(Some(released))
    }

    /// The blocks that the numbers are in most likely: those that were seen, and those to read.
    fn blocks_of(&self, ground: &Ground, returns: &[Return<'_>]) -> (Few<(Key, Option<Entry>)>, Few<Key>) {
        let mut blocks: Few<(u8, u128)> = returns
            .iter()
            .filter_map(|of| {
                let (index, number) = of.of?;
                let plot = ground.plot(index).filter(|plot| number <= plot.last)?;
                Some((index, plot.split(number).0))
            })
            .collect();
        blocks.sort_unstable();
        blocks.dedup();
        let cache = self.cache();
        let (mut seen, mut unseen) = (Few::new(), Few::new());
        for (index, block) in blocks {
            let key = self.keys.block(ground, index, block);
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
        (returns, keys): (&[Return<'_>], &Sorted),
        now: UnixTime,
    ) -> Result<(Commit, Decided), Undecided<Stop>> {
        let mut back = Back {
            budget: self.budget(),
            keys,
            given: Few::from_elem(false, returns.len()),
            seen: FxHashSet::default(),
            blocks: BTreeMap::new(),
        };
        let first = keys.first(snapshot);
        let mut fates = Vec::with_capacity(returns.len());
        for (at, (of, key)) in returns.iter().zip(&keys.keys).enumerate() {
            let held = keys.get(at, (snapshot, first))?.map(|entry| ground.held(key, entry)).transpose()?;
            let fate = match held {
                None => Release::Gone,
                Some((_, held)) if (Some((held.plot, held.number)), held.generation) != (of.of, of.generation) => {
                    Release::Fenced { generation: held.generation }
                }
                Some(_) if back.seen.contains(key) => Release::Gone, // it stands twice among them
                Some((plot, held)) => match back.give(at, (plot, held.number)) {
                    true => Release::Done,
                    false => break,
                },
            };
            fates.push(fate);
        }
        let (commit, written) = back.finish((self, ground), snapshot, now)?;
        Ok((commit, (fates, written)))
    }
}

/// What the attempts of a release did, as far as that is known.
#[derive(Default)]
struct Attempts {
    /// How many have lost their answers.
    lost: u32,
    /// What the last would have given back, and what the lost ones may have.
    last: Few<usize>,
    maybe: BTreeSet<usize>,
}

impl Attempts {
    /// What is gone after an attempt of ours whose answer was lost was given back by it.
    fn explain(&mut self, lost: u32, fates: &mut [Release]) {
        if lost > self.lost {
            self.maybe.extend(&self.last);
            self.lost = lost;
        }
        self.last.clear();
        self.last.reserve(fates.len());
        for (at, fate) in fates.iter_mut().enumerate() {
            match fate {
                Release::Done => self.last.push(at),
                Release::Gone if self.maybe.contains(&at) => *fate = Release::Done,
                _ => {}
            }
        }
    }
}

/// A commit of releases in the making.
struct Back<'b> {
    budget: Budget,
    /// The keys of the leases, and which of them are given back.
    keys: &'b Sorted,
    given: Few<bool>,
    /// What is given back of owners that stand twice among them.
    seen: FxHashSet<&'b Key>, // never gone through
    /// What is given back of each block, in the order of the blocks' keys.
    blocks: BTreeMap<(u8, u128), Part<'b>>,
}

/// What is given back of a block.
struct Part<'b> {
    plot: &'b Plot,
    places: Few<u16>,
}

impl<'b> Back<'b> {
    /// Whether there was room for one more.
    fn give(&mut self, at: usize, (plot, number): (&'b Plot, u128)) -> bool {
        let key = &self.keys.keys[at];
        let (block, place) = plot.split(number);
        let part = self.blocks.entry((plot.index, block));
        let new = usize::from(matches!(part, Vacant(_)));
        if !self.budget.spend(1 + new, 2 * key.as_bytes().len() + 2048 * new) {
            return false;
        }
        part.or_insert(Part { plot, places: Few::new() }).places.push(place);
        self.given[at] = true;
        if self.keys.repeat {
            self.seen.insert(key);
        }
        true
    }

    /// The commit, and what it makes of blocks.
    fn finish(
        self,
        (ledger, ground): (&Ledger, &Ground),
        snapshot: &Snapshot,
        now: UnixTime,
    ) -> Result<(Commit, Written), Undecided<Stop>> {
        let keys: Few<Key> = self.blocks.keys().map(|(plot, block)| ledger.keys.block(ground, *plot, *block)).collect();
        snapshot.need(&keys)?;
        let mut cache = ledger.cache();
        let mut puts = Vec::with_capacity(self.blocks.len());
        let mut written = Vec::with_capacity(self.blocks.len());
        for (key, ((_, number), Part { plot, places })) in keys.into_iter().zip(self.blocks) {
            let known = (&key, snapshot.get(&key)?);
            let mut block = ledger.parsed(&cache, known, plot.block_size(number), now)?;
            let changed = Arc::make_mut(&mut block);
            places.iter().for_each(|at| changed.release(*at, ledger.rest, now));
            let wakes = block.wakes(ledger.rest);
            cache.note_release(ground, plot, (number, &places), wakes);
            let value = block.encode();
            puts.push((key.clone(), value.clone()));
            written.push((key, value, block));
        }
        let given = self.keys.in_order().filter(|(at, _)| self.given[*at]);
        let deletes = given.map(|(_, key)| key.clone()).collect();
        Ok((Commit { compares: Vec::new(), puts, deletes }, written))
    }
}
