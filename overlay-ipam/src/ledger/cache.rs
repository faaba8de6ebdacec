//! What a manager remembers of the store. All of it may be wrong: commits compare it.

use std::collections::BTreeSet;
use std::sync::Arc;

use overlay_core::{Entry, Key, Revision, UnixTime};
use rustc_hash::FxHashMap;

use super::HOLD;
use super::block::Block;
use super::ground::{Ground, Plot};
use crate::set::numbers::Numbers;

/// Blocks as they were last seen, and where they are full.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    blocks: FxHashMap<Key, (Entry, Arc<Block>)>, // never gone through
    rows: FxHashMap<RowKey, Row>,                // never gone through in an order that is seen
    /// How many draws there were.
    draws: u64,
}

/// Ground, kind, plot, and where the window begins.
type RowKey = (u64, u8, u8, u128);

/// So many blocks are remembered, 20 MB at most; where there are more, remembering begins anew.
const BLOCKS: usize = 16_384;

impl Cache {
    /// The parsed block, if it is that of `revision`.
    pub(crate) fn parsed(&self, key: &Key, revision: Revision) -> Option<Arc<Block>> {
        self.blocks.get(key).filter(|(entry, _)| entry.revision == revision).map(|(_, block)| Arc::clone(block))
    }

    /// What was last seen under a block's key.
    pub(crate) fn entry(&self, key: &Key) -> Option<Entry> {
        self.blocks.get(key).map(|(entry, _)| entry.clone())
    }

    /// A block as it was last seen, and at which revision that was, out of the cache: to be changed in place, and be
    /// [known](Self::know) again when a commit has made it so.
    pub(crate) fn take(&mut self, key: &Key) -> Option<(Entry, Arc<Block>)> {
        self.blocks.remove(key)
    }

    /// Whether a block that was seen has `count` free numbers in this part.
    pub(crate) fn has_room(&self, key: &Key, (first, last): (u16, u16), count: usize) -> bool {
        self.blocks.get(key).is_some_and(|(_, block)| {
            let (used, resting) = block.count((first, last));
            count as u32 + used + resting <= u32::from(last - first) + 1
        })
    }

    /// The first of so many numbers of draws.
    pub(crate) fn draw(&mut self, count: usize) -> u64 {
        let first = self.draws;
        self.draws = self.draws.wrapping_add(count as u64);
        first
    }

    pub(crate) fn know(&mut self, key: Key, entry: Entry, block: Arc<Block>) {
        if self.blocks.len() >= BLOCKS && !self.blocks.contains_key(&key) {
            self.blocks.clear();
        }
        self.blocks.insert(key, (entry, block));
    }

    /// What a commit may have changed, nobody knows.
    pub(crate) fn forget(&mut self) {
        self.blocks.clear();
        self.rows.clear();
    }

    /// How many windows are known.
    #[cfg(test)]
    pub(crate) fn rows(&self) -> usize {
        self.rows.len()
    }

    /// The grounds of this number are gone.
    pub(crate) fn drop_ground(&mut self, number: u64) {
        self.rows.retain(|(of, ..), _| *of != number);
    }

    pub(crate) fn row(&mut self, ground: &Ground, plot: &Plot, window: (u128, u128)) -> &mut Row {
        let key = (ground.number, ground.kind, plot.index, window.0);
        let last = plot.last >> plot.block_bits();
        self.rows.entry(key).or_insert_with(|| Row {
            current: None,
            held_until: UnixTime::EPOCH,
            full: Numbers::new(last),
            wakes: BTreeSet::new(),
            waking: Numbers::new(last),
        })
    }

    /// Numbers of a block were given back: it is not full, at once or from a date on.
    pub(crate) fn note_release(
        &mut self,
        ground: &Ground,
        plot: &Plot,
        (block, places): (u128, &[u16]),
        wakes: Option<UnixTime>,
    ) {
        let numbers = || places.iter().map(|at| plot.join(block, *at));
        let [endpoints, vips] = &plot.windows;
        let others = if vips == endpoints { &[][..] } else { vips };
        for windows in [endpoints, others] {
            for window in
                windows.iter().filter(|(first, last)| numbers().any(|number| (first..=last).contains(&&number)))
            {
                let row = self.row(ground, plot, *window);
                match wakes {
                    Some(wakes) => row.wake_at(wakes, block),
                    None => row.open(block),
                }
            }
        }
    }
}

/// What is known of the blocks of a window.
#[derive(Debug)]
pub(crate) struct Row {
    /// The block where claims go on.
    pub(crate) current: Option<u128>,
    /// Until when it is held.
    pub(crate) held_until: UnixTime,
    /// Blocks without a free number when they were last seen.
    pub(crate) full: Numbers,
    /// When rests end in them, each block once.
    wakes: BTreeSet<(UnixTime, u128)>,
    waking: Numbers,
}

impl Row {
    /// Whether the block where claims go on is held for a while yet.
    pub(crate) fn is_held_long(&self, now: UnixTime) -> bool {
        now + HOLD / 2 < self.held_until && self.held_until <= now + 2 * HOLD
    }

    /// Blocks in which a rest is over are not full any more.
    pub(crate) fn wake(&mut self, now: UnixTime) {
        while let Some((_, block)) = self.wakes.first().copied().filter(|(wakes, _)| *wakes <= now) {
            self.wakes.pop_first();
            self.waking.remove(block);
            self.full.remove(block);
        }
    }

    /// `from`, and then the blocks up to `last` that are not full.
    pub(crate) fn next_open(&self, from: u128, last: u128) -> impl Iterator<Item = u128> {
        let after = move |block: &u128| self.full.next_free(block + 1).filter(|next| *next <= last);
        std::iter::successors(Some(from), move |block| (*block < last).then(|| after(block)).flatten())
    }

    /// Nothing is free in a block, until the next of its rests ends.
    pub(crate) fn fill(&mut self, at: u128, wakes: Option<UnixTime>) {
        self.full.insert(at);
        if let Some(wakes) = wakes {
            self.wake_at(wakes, at);
        }
    }

    fn wake_at(&mut self, wakes: UnixTime, at: u128) {
        if self.full.contains(at) && self.waking.insert(at) {
            self.wakes.insert((wakes, at));
        }
    }

    pub(crate) fn open(&mut self, at: u128) {
        self.full.remove(at);
    }
}
