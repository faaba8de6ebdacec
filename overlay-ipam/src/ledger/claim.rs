//! Claims: choosing free numbers and writing them down.

use std::collections::BTreeMap;
use std::sync::{Arc, MutexGuard};

use bytes::Bytes;
use overlay_core::{Commit, Entry, Key, Snapshot, Undecided, UnixTime};
use rustc_hash::FxHashMap;

use super::block::{Block, Condition};
use super::cache::Cache;
use super::direct::{Direct, Tried};
use super::ground::{Ground, Keys, Plot};
use super::record::{Held, Hold, Holds};
use super::{Budget, Few, HOLD, Ledger, Seen, Sorted, Stop, Written, outcome};
use crate::{Draw, IpamError, LeaseOwner, PickOrder, Use};

/// One owner's wish for a number.
#[derive(Debug, Clone)]
pub(crate) struct Want<'w> {
    pub(crate) owner: &'w LeaseOwner,
    pub(crate) purpose: Use,
    /// This number of the plot with this index, checked to be none that is reserved; any if `None`.
    pub(crate) exact: Option<(u8, u128)>,
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Granted(Held),
    /// Another owner has the number.
    Taken,
    /// The number was given back and rests until then at least.
    Resting(UnixTime),
    /// The owner has another number already.
    Other(Held),
    /// There is none left: so many are used, so many rest.
    Full {
        used: u128,
        resting: u128,
    },
    /// Not decided: the commit would be too large.
    Later,
}

impl Outcome {
    /// Whether it is worth another try, or a look at all there is.
    const fn is_open(&self) -> bool {
        matches!(self, Self::Later | Self::Full { .. })
    }
}

/// How often a claim that found nothing free looks again, after it was seen that there is something.
const LOOKS: usize = 8;

impl Ledger {
    /// Claims for every owner who has nothing yet; gives what those have who do. `None` if the ground has changed.
    pub(crate) async fn claim(
        &self,
        ground: &Ground,
        wants: &[Want<'_>],
        now: UnixTime,
    ) -> Result<Option<Few<Outcome>>, IpamError> {
        let tried = match wants {
            [want] => match self.claim_directly(ground, want, now).await? {
                Direct::Done(outcome) => return Ok(Some(Few::from_elem(outcome, 1))),
                Direct::Open(tried) => tried,
            },
            _ => None,
        };
        let first = wants.len().min(self.budget().operations);
        let Some(outcomes) = self.claim_some(ground, &wants[..first], tried, now).await? else { return Ok(None) };
        match first == wants.len() && !outcomes.iter().any(Outcome::is_open) {
            true => Ok(Some(outcomes)),
            false => Box::pin(self.claim_rest(ground, wants, outcomes, now)).await,
        }
    }

    /// Claims for those who have nothing yet after a first round came to these outcomes.
    async fn claim_rest(
        &self,
        ground: &Ground,
        wants: &[Want<'_>],
        mut outcomes: Few<Outcome>,
        now: UnixTime,
    ) -> Result<Option<Few<Outcome>>, IpamError> {
        outcomes.resize(wants.len(), Outcome::Later);
        let mut open: Vec<usize> = (0..wants.len()).filter(|at| outcomes[*at].is_open()).collect();
        let mut late = 0;
        while !open.is_empty() {
            late += self.look(ground, (wants, &open), &mut outcomes, now).await?;
            if late > LOOKS {
                return Err(IpamError::Contended { attempts: LOOKS as u32 });
            }
            open.retain(|at| outcomes[*at] == Outcome::Later);
            let batch: Vec<usize> = open.iter().copied().take(self.budget().operations).collect();
            let some: Vec<Want<'_>> = batch.iter().map(|at| wants[*at].clone()).collect();
            let Some(decided) = self.claim_some(ground, &some, None, now).await? else { return Ok(None) };
            for (at, decided) in batch.into_iter().zip(decided) {
                outcomes[at] = decided;
            }
            open.retain(|at| outcomes[*at].is_open());
        }
        Ok(Some(outcomes))
    }

    /// Looks at all there is for those of the open wants that found nothing, and says what there is. Gives how often there
    /// was something after all.
    async fn look(
        &self,
        ground: &Ground,
        (wants, open): (&[Want<'_>], &[usize]),
        outcomes: &mut [Outcome],
        now: UnixTime,
    ) -> Result<usize, IpamError> {
        let mut late = 0;
        for purpose in [Use::Endpoint, Use::Vip] {
            let full = |at: &usize| wants[*at].purpose == purpose && matches!(outcomes[*at], Outcome::Full { .. });
            let found_full: Vec<usize> = open.iter().copied().filter(full).collect();
            if !found_full.is_empty() {
                let verdict = self.survey(ground, purpose, now).await?;
                late += usize::from(verdict == Outcome::Later);
                found_full.into_iter().for_each(|at| outcomes[at] = verdict);
            }
        }
        Ok(late)
    }

    async fn claim_some(
        &self,
        ground: &Ground,
        wants: &[Want<'_>],
        tried: Option<Box<Tried>>,
        now: UnixTime,
    ) -> Result<Option<Few<Outcome>>, IpamError> {
        let leases = self.keys.leases(ground);
        let keys = wants.iter().map(|want| Keys::lease_of(&leases, want.owner));
        let keys = Sorted::new(keys, self.keys.before_owner());
        let (seen, unseen) = self.likely(ground, wants, now);
        let transaction = match &tried {
            None => {
                let leases = keys.in_order().map(|(_, key)| (key.clone(), None));
                let guard = ground.guard.iter().map(|(key, entry)| (key.clone(), Some(entry.clone())));
                self.transaction().reading(unseen).assuming(seen.into_iter().chain(leases).chain(guard))
            }
            Some(tried) => self.transaction().reading(tried.wanted(unseen)).assuming(seen),
        };
        let draws = self.cache().draw(wants.len());
        let decide = |snapshot: &Snapshot| {
            Self::guard(ground, snapshot)?;
            let mut draft = Draft { draws, ..Draft::new((self, ground), snapshot, &keys, now) };
            let mut outcomes = Few::with_capacity(wants.len());
            for (at, want) in wants.iter().enumerate() {
                // What is not known of the leases is read at once.
                let outcome = draft
                    .want(want, at)
                    .or_else(|error| snapshot.need(&keys.keys).map_err(Undecided::from).and(Err(error)));
                outcomes.push(outcome?);
            }
            let (commit, written) = draft.finish()?;
            Ok((commit, (outcomes, written)))
        };
        let result = match tried.map(|tried| *tried) {
            Some(Tried { compared, lost: Some(lost) }) => {
                Box::pin(transaction.run_after(compared.into_iter().flatten(), lost, decide)).await
            }
            _ => transaction.run(decide).await,
        };
        let Some(done) = outcome(result)? else { return Ok(None) };
        let (outcomes, written) = done.output;
        self.know(written, done.at);
        Ok(Some(outcomes))
    }

    /// The blocks that claims will most likely be made in: those that were seen, as they were then, and what else to read.
    fn likely(&self, ground: &Ground, wants: &[Want<'_>], now: UnixTime) -> (Few<(Key, Option<Entry>)>, Few<Key>) {
        let mut cache = self.cache();
        let (mut blocks, mut unseen) = (Few::new(), Few::new());
        for purpose in [Use::Endpoint, Use::Vip] {
            let count = wants.iter().filter(|want| want.purpose == purpose && want.exact.is_none()).count();
            if count == 0 {
                continue;
            }
            for plot in &ground.plots {
                for window in plot.windows(purpose) {
                    let Some(current) = cache.row(ground, plot, *window).current else { continue };
                    blocks.push((plot.index, current));
                    let key = self.keys.block(ground, plot.index, current);
                    if count > 1 && !cache.has_room(&key, plot.part(current, *window), count) {
                        // They go on in the blocks after it.
                        unseen.push(self.keys.holds(ground, plot, *window));
                        let row = cache.row(ground, plot, *window);
                        row.wake(now);
                        let next = row.next_open(current, *plot.blocks(*window).end()).skip(1).take(AHEAD);
                        blocks.extend(next.map(|block| (plot.index, block)));
                    }
                }
            }
        }
        for (index, number) in wants.iter().filter_map(|want| want.exact) {
            blocks.extend(ground.plot(index).map(|plot| (index, plot.split(number).0)));
        }
        blocks.sort_unstable();
        blocks.dedup();
        let mut seen = Few::new();
        for key in blocks.into_iter().map(|(index, block)| self.keys.block(ground, index, block)) {
            match cache.entry(&key) {
                Some(entry) => seen.push((key, Some(entry))),
                None => unseen.push(key),
            }
        }
        (seen, unseen)
    }

    /// Counts what is used and what rests of all there is for `purpose`, and remembers what is full. `Later` if there is something.
    async fn survey(&self, ground: &Ground, purpose: Use, now: UnixTime) -> Result<Outcome, IpamError> {
        let (mut used, mut resting, mut room) = (0, 0, 0);
        for plot in &ground.plots {
            let blocks = self.blocks(ground, plot).await?;
            for window in plot.windows(purpose) {
                let mut cache = self.cache();
                let row = cache.row(ground, plot, *window);
                room += plot.room(*window);
                for Seen { number, block, .. } in &blocks {
                    if !plot.blocks(*window).contains(number) {
                        continue;
                    }
                    let block = block.by(self.rest, now);
                    let part = plot.part(*number, *window);
                    let (in_use, rests) = block.count(part);
                    used += u128::from(in_use);
                    resting += u128::from(rests);
                    match first_free(plot, *number, &block, part, part.0) {
                        Some(_) => row.open(*number),
                        None => row.fill(*number, block.wakes(self.rest)),
                    }
                }
            }
        }
        match used + resting < room {
            true => Ok(Outcome::Later),
            false => Ok(Outcome::Full { used, resting }),
        }
    }
}

/// A commit of claims in the making.
struct Draft<'d> {
    ledger: &'d Ledger,
    ground: &'d Ground,
    snapshot: &'d Snapshot,
    now: UnixTime,
    cache: MutexGuard<'d, Cache>,
    budget: Budget,
    /// The keys of the leases that are wanted, the place of the first in the snapshot, and what is new under each.
    keys: &'d Sorted,
    first: usize,
    fresh: Few<Option<Held>>,
    blocks: Few<Drafted>,
    /// Where among the blocks each is, in the order of their keys.
    places: BTreeMap<(u8, u128), usize>,
    holds: BTreeMap<Key, Holds>,
    /// What is new of owners that stand twice among the wants.
    granted: FxHashMap<&'d Key, Held>, // never gone through
    /// The number of the next draw.
    draws: u64,
    /// Where the last number was found that any would do for.
    last: Option<Last>,
}

/// Where among the blocks a number of a window was found.
#[derive(Clone, Copy)]
struct Last {
    plot: u8,
    window: (u128, u128),
    number: u128,
    drafted: usize,
}

struct Drafted {
    key: Key,
    block: Arc<Block>,
    changed: bool,
}

impl<'d> Draft<'d> {
    fn new(
        (ledger, ground): (&'d Ledger, &'d Ground),
        snapshot: &'d Snapshot,
        keys: &'d Sorted,
        now: UnixTime,
    ) -> Self {
        Self {
            ledger,
            ground,
            snapshot,
            now,
            cache: ledger.cache(),
            budget: ledger.budget(),
            keys,
            first: keys.first(snapshot),
            fresh: Few::from_elem(None, keys.keys.len()),
            blocks: Few::new(),
            places: BTreeMap::new(),
            holds: BTreeMap::new(),
            granted: FxHashMap::default(),
            draws: 0,
            last: None,
        }
    }

    fn want(&mut self, want: &Want<'d>, at: usize) -> Result<Outcome, Undecided<Stop>> {
        let key = &self.keys.keys[at];
        let held = match (self.granted.get(key), self.keys.get(at, (self.snapshot, self.first))?) {
            (Some(held), _) => Some(*held),
            (None, Some(entry)) => Some(self.ground.held(key, entry)?.1),
            (None, None) => None,
        };
        match (held, want.exact) {
            (Some(held), Some(exact)) if (held.plot, held.number) != exact => Ok(Outcome::Other(held)),
            (Some(held), _) => Ok(Outcome::Granted(held)),
            (None, Some(exact)) => self.exact(want, at, exact),
            (None, None) => self.any(want, at),
        }
    }

    fn exact(&mut self, want: &Want<'d>, at: usize, (index, number): (u8, u128)) -> Result<Outcome, Undecided<Stop>> {
        let ground = self.ground;
        let Some(plot) = ground.plot(index) else { return Err(Stop::Stale.into()) };
        let (block, place) = plot.split(number);
        let drafted = self.block(plot, block, None)?;
        match self.blocks[drafted].block.condition(place, self.ledger.rest) {
            Condition::Used => self.rest_on(drafted, Outcome::Taken),
            Condition::Resting(until) => self.rest_on(drafted, Outcome::Resting(until)),
            Condition::Free => Ok(self.take(want, at, plot, Found { drafted, number })),
        }
    }

    /// A refusal rests on the block as it was read.
    fn rest_on(&self, drafted: usize, refusal: Outcome) -> Result<Outcome, Undecided<Stop>> {
        self.snapshot.get(&self.blocks[drafted].key)?;
        Ok(refusal)
    }

    fn any(&mut self, want: &Want<'d>, at: usize) -> Result<Outcome, Undecided<Stop>> {
        let ground = self.ground;
        for plot in &ground.plots {
            for window in plot.windows(want.purpose) {
                if let Some(found) = self.find(plot, *window)? {
                    return Ok(self.take(want, at, plot, found));
                }
            }
        }
        Ok(Outcome::Full { used: 0, resting: 0 })
    }

    fn find(&mut self, plot: &Plot, window: (u128, u128)) -> Result<Option<Found>, Undecided<Stop>> {
        if let Some(found) = self.find_next(plot, window) {
            return Ok(Some(found));
        }
        let now = self.now;
        self.cache.row(self.ground, plot, window).wake(now);
        while let Some((number, from)) = self.candidate(plot, window)? {
            let drafted = self.block(plot, number, Some(window))?;
            let block = &self.blocks[drafted].block;
            let found =
                first_free(plot, number, block, plot.part(number, window), from.unwrap_or_else(|| block.cursor()));
            let wakes = block.wakes(self.ledger.rest);
            let row = self.cache.row(self.ground, plot, window);
            if let Some(at) = found {
                row.current = Some(number);
                self.last = Some(Last { plot: plot.index, window, number, drafted });
                return Ok(Some(Found { drafted, number: plot.join(number, at) }));
            }
            row.fill(number, wakes);
        }
        Ok(None)
    }

    /// The next number where the last one was found: what led there leads there again.
    fn find_next(&self, plot: &Plot, window: (u128, u128)) -> Option<Found> {
        let last = self.last.filter(|last| (last.plot, last.window) == (plot.index, window))?;
        let block = &self.blocks[last.drafted].block;
        let next_fit = self.ledger.order == PickOrder::NextFit;
        let part = next_fit.then(|| plot.part(last.number, window))?;
        let at = first_free(plot, last.number, block, part, block.cursor())?;
        Some(Found { drafted: last.drafted, number: plot.join(last.number, at) })
    }

    /// The block to look in next, and where in it; at its cursor if that is not said.
    fn candidate(&mut self, plot: &Plot, window: (u128, u128)) -> Result<Option<(u128, Option<u16>)>, Undecided<Stop>> {
        let blocks = plot.blocks(window);
        let bounds = (*blocks.start(), *blocks.end());
        let ground = self.ground;
        match self.ledger.order {
            PickOrder::Lowest => {
                let full = &self.cache.row(ground, plot, window).full;
                Ok(full.next_free_around(bounds, bounds.0).map(|block| (block, Some(plot.part(block, window).0))))
            }
            PickOrder::Random => {
                // The same for the same claim, however often it is decided: what it draws has to be read.
                let drawn = Draw::new(self.ledger.seed, self.draws).between(window);
                let (drawn_block, at) = plot.split(drawn);
                let full = &self.cache.row(ground, plot, window).full;
                let block = full.next_free_around(bounds, drawn_block);
                Ok(block.map(|block| (block, Some(if block == drawn_block { at } else { plot.part(block, window).0 }))))
            }
            PickOrder::NextFit => Ok(self.next_block(plot, window, bounds)?.map(|block| (block, None))),
        }
    }

    /// The block held, or the next that nobody else holds; one of another's if there is nothing else.
    fn next_block(
        &mut self,
        plot: &Plot,
        window: (u128, u128),
        bounds: (u128, u128),
    ) -> Result<Option<u128>, Undecided<Stop>> {
        let (ground, now, manager) = (self.ground, self.now, self.ledger.manager);
        let row = self.cache.row(ground, plot, window);
        let current = row.current.filter(|block| !row.full.contains(*block));
        if let (Some(current), true) = (current, row.is_held_long(now) || bounds.0 == bounds.1) {
            return Ok(Some(current));
        }
        let key = self.ledger.keys.holds(ground, plot, window);
        let holds = self.holds(&key)?;
        let row = self.cache.row(ground, plot, window);
        let free = |block: &u128| {
            (bounds.0..=bounds.1).contains(block)
                && !row.full.contains(*block)
                && !holds.is_others(*block, manager, now)
        };
        let kept = current.or_else(|| holds.of(manager).map(|hold| hold.block)).filter(free);
        if bounds.0 == bounds.1 {
            return Ok(Some(bounds.0).filter(|block| !row.full.contains(*block)));
        }
        let chosen = kept.or_else(|| {
            let mut at = holds.next;
            let mut tries = (0..=holds.holds.len()).map(|_| {
                let next = row.full.next_free_around(bounds, at);
                at = next.map_or(at, |next| if next == bounds.1 { bounds.0 } else { next + 1 });
                next
            });
            tries.find_map(|next| next.filter(|block| !holds.is_others(*block, manager, now)))
        });
        let Some(block) = chosen else {
            return Ok(row.full.next_free_around(bounds, holds.next)); // another's: there is nothing else
        };
        row.held_until = now + HOLD;
        let holds = self.holds.entry(key).or_default();
        if kept.is_none() {
            holds.next = if block == bounds.1 { bounds.0 } else { block + 1 };
        }
        holds.hold(Hold { manager, block, until: now + HOLD });
        Ok(Some(block))
    }

    fn holds(&mut self, key: &Key) -> Result<Holds, Undecided<Stop>> {
        if let Some(holds) = self.holds.get(key) {
            return Ok(holds.clone());
        }
        let holds = match self.snapshot.peek(key)? {
            None => Holds::default(),
            // A hint: one that cannot be read is made anew.
            Some(entry) => Holds::parse(&entry.value).unwrap_or_default(),
        };
        self.holds.insert(key.clone(), holds.clone());
        Ok(holds)
    }

    /// Where the block is among those of the draft, with what was claimed of it so far. One that has to be read is read along
    /// with some that may be next.
    fn block(&mut self, plot: &Plot, number: u128, window: Option<(u128, u128)>) -> Result<usize, Undecided<Stop>> {
        if let Some(place) = self.places.get(&(plot.index, number)) {
            return Ok(*place);
        }
        let key = self.ledger.keys.block(self.ground, plot.index, number);
        if let (Err(_), Some(window)) = (self.snapshot.peek(&key), window) {
            let keys = self.upcoming(plot, number, window);
            self.snapshot.need(&keys)?;
        }
        let entry = self.snapshot.peek(&key)?;
        let block = self.ledger.parsed(&self.cache, (&key, entry), plot.block_size(number), self.now)?;
        let place = self.blocks.len();
        self.blocks.push(Drafted { key, block, changed: false });
        self.places.insert((plot.index, number), place);
        Ok(place)
    }

    fn upcoming(&mut self, plot: &Plot, number: u128, window: (u128, u128)) -> Vec<Key> {
        let last = *plot.blocks(window).end();
        let (ground, keys) = (self.ground, &self.ledger.keys);
        let blocks = self.cache.row(ground, plot, window).next_open(number, last);
        blocks.take(AHEAD).map(|block| keys.block(ground, plot.index, block)).collect()
    }

    fn take(&mut self, want: &Want<'d>, at: usize, plot: &Plot, found: Found) -> Outcome {
        let (key, drafted) = (&self.keys.keys[at], &mut self.blocks[found.drafted]);
        let size = 2 * key.as_bytes().len() + 32;
        let spent = match drafted.changed {
            true => self.budget.spend(1, size),
            false => self.budget.spend(2, size + BLOCK),
        };
        if !spent {
            return Outcome::Later;
        }
        drafted.changed = true;
        let (_, place) = plot.split(found.number);
        let generation = Arc::make_mut(&mut drafted.block).claim(place, self.ledger.order == PickOrder::NextFit);
        let held = Held { plot: plot.index, purpose: want.purpose, number: found.number, generation };
        self.fresh[at] = Some(held);
        self.draws = self.draws.wrapping_add(1);
        if self.keys.repeat {
            self.granted.insert(key, held);
        }
        Outcome::Granted(held)
    }

    /// The commit, in the order of its keys, and what it makes of blocks: these come first, then leases, then holds.
    fn finish(self) -> Result<(Commit, Written), Undecided<Stop>> {
        let mut commit = Commit::new();
        commit.puts.reserve(self.keys.keys.len() + self.places.len() + self.holds.len());
        let mut written = Vec::with_capacity(self.places.len());
        let changed = self.places.values().map(|place| &self.blocks[*place]).filter(|drafted| drafted.changed);
        for Drafted { key, block, .. } in changed {
            self.snapshot.get(key)?;
            let value = block.encode();
            commit.puts.push((key.clone(), value.clone()));
            written.push((key.clone(), value, Arc::clone(block)));
        }
        if written.is_empty() {
            return Ok((commit, written));
        }
        let fresh = self.keys.in_order().filter_map(|(at, key)| Some((key, self.fresh[at]?)));
        match self.keys.keys.len() {
            1 => commit.puts.extend(fresh.map(|(key, held)| (key.clone(), held.encode()))),
            many => {
                // In one piece of memory.
                let mut records = Vec::with_capacity(many * Held::LEN);
                let from = commit.puts.len();
                for (key, held) in fresh {
                    records.extend_from_slice(&held.record());
                    commit.puts.push((key.clone(), Bytes::new()));
                }
                let mut records = Bytes::from(records);
                commit.puts[from..].iter_mut().for_each(|(_, value)| *value = records.split_to(Held::LEN));
            }
        }
        let mut budget = self.budget;
        for (key, holds) in self.holds {
            let record = holds.encode();
            if self.snapshot.peek(&key)?.is_none_or(|entry| entry.value != record) && budget.spend(1, BLOCK) {
                self.snapshot.get(&key)?;
                commit.puts.push((key, record));
            }
        }
        Ok((commit, written))
    }
}

/// A free number, and where its block is among those of the draft.
#[derive(Clone, Copy)]
struct Found {
    drafted: usize,
    number: u128,
}

/// How many blocks are read at once.
const AHEAD: usize = 16;
/// Bytes that a block or a record of holds takes in a commit, keys included.
const BLOCK: usize = 2048;

/// The first free number of a block that is not reserved, from `from` on and around.
pub(super) fn first_free(
    plot: &Plot,
    number: u128,
    block: &Block,
    (first, last): (u16, u16),
    from: u16,
) -> Option<u16> {
    let found = block.free_around((first, last), from)?;
    if !plot.is_reserved(plot.join(number, found)) {
        return Some(found);
    }
    // Reserved numbers are few: try each free one once, in the same order.
    let ahead = (from > first).then_some(from..=last).into_iter().flatten();
    let candidates = ahead.chain(first..=last);
    candidates.filter(|at| block.free(*at, *at).is_some()).find(|at| !plot.is_reserved(plot.join(number, *at)))
}
