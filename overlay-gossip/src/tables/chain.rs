//! One owner's entries in one network.

use std::time::Duration;

use bytes::Bytes;
use overlay_core::{Instant, NodeId};

use crate::tables::entries::{Entries, Entry, Slot};
use crate::tables::wire::{Change, End};
use crate::tables::{Intervals, hash};
use crate::{Key, Sequence, TableId};

/// All that is known of one owner's changes in one network, within one start of the owner.
///
/// *Seen* has one meaning everywhere: who has seen a number has its change, or a later change of the same key, or has it from
/// somebody who had. So two nodes that have seen the same numbers have the same entries, and a confirmed number is true.
///
/// Why nothing removed comes back, although tombstones go:
/// - A tombstone goes only once all numbers up to its own are seen here. So an older change of its key that still travels is of a
///   seen number, and is ignored.
/// - A node that was away still has the entry and has not seen the removal's number. Its vector says so; whoever answers it has
///   a `floor` above that gap and names with the answer the numbers that are `alive`, and what is not among them goes.
/// - The `floor` goes along with each answer, so that whoever learned of a removal in this way passes it on alike.
///
/// The owner's last change always stays, even if it is a removal. So the greatest number that anybody has seen is that of a
/// change it has, and nobody is believed that there were greater ones: a liar could make others deaf to what is yet to come.
///
/// None of this depends on *when* tombstones go: the watermark only says when it is cheapest, and the cap may come first.
#[derive(Debug, Clone, Default)]
pub(crate) struct Chain {
    pub(crate) incarnation: u64,
    seen: Intervals,
    entries: Entries,
    floor: u64,
    pub(crate) stable: u64,
    bytes: usize,
    content: u64,
}

/// What became of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It is the entry's value now, or the entry is gone now.
    Applied,
    /// It was seen before, or something later of its key was.
    Stale,
    /// No room for it.
    Full,
}

/// What a chain may hold.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Room {
    pub(crate) entries: usize,
    pub(crate) bytes: usize,
    /// Spans of seen numbers.
    pub(crate) spans: usize,
}

impl Chain {
    pub(crate) fn new(incarnation: u64, base: u64) -> Self {
        let mut seen = Intervals::default();
        seen.insert_span(1, base);
        Self { incarnation, seen, floor: base, ..Self::default() }
    }

    /// Takes a change in. O(log n).
    pub(crate) fn apply(&mut self, change: Change, room: Room, now: Instant) -> Outcome {
        if self.seen.contains(change.sequence) {
            return Outcome::Stale;
        }
        if self.slot(change.table, &change.key).is_some_and(|slot| slot.sequence > change.sequence) {
            self.see(&change);
            return Outcome::Stale;
        }
        if !self.fits(&change, room) {
            return Outcome::Full;
        }
        self.see(&change);
        self.store(change, now);
        Outcome::Applied
    }

    /// Whether another change is here under the same number: somebody did not tell the owner's.
    pub(crate) fn differs(&self, change: &Change) -> bool {
        let same = |slot: &Slot| slot.sequence == change.sequence;
        match self.slot(change.table, &change.key) {
            Some(slot) if same(slot) => slot.value != change.value,
            Some(slot) => slot.sequence < change.sequence,
            None => change.value.is_some(),
        }
    }

    /// Takes the owner's own word for a number that was seen. It does not grow by it beyond what the owner may have.
    pub(crate) fn repair(&mut self, change: Change, now: Instant) {
        if self.entries.at(change.sequence).is_some_and(|(table, key, _)| (table, key) != (change.table, &change.key)) {
            self.forget(change.sequence);
        }
        self.store(change, now);
    }

    /// Makes the next change of one's own chain; nothing is applied.
    pub(crate) fn next(&self, table: TableId, key: Key, value: Option<Bytes>) -> Change {
        let sequence = self.seen.last() + 1;
        let mut covers = Vec::new();
        if let Some(slot) = self.slot(table, &key) {
            covers.push(slot.sequence);
            covers.extend_from_slice(slot.covers());
            covers.retain(|number| *number > self.stable);
            covers.truncate(Change::COVERS);
        }
        Change { sequence, covers, table, key, value, signature: Bytes::new() }
    }

    /// Ends an answer from somebody who has told all entries that were missing here. Gives what was removed by it. More spans
    /// than anybody who is honest tells, or has, are passed over, so that seen numbers stay bounded; so is what is beyond the
    /// last change here.
    pub(crate) fn finish(&mut self, end: &End) -> Vec<(TableId, Key)> {
        let last = self.seen.last();
        let dead = self.removed_by(end);
        let gone = dead.into_iter().filter_map(|number| self.forget(number)).collect();
        if self.seen.spans() <= SEEN_SPANS {
            self.seen.union(&end.seen.truncated(END_SPANS).up_to(last));
        }
        self.floor = self.floor.max(end.floor.min(last));
        gone
    }

    /// The numbers of what is here and was removed, by such an end.
    pub(crate) fn removed_by(&self, end: &End) -> Vec<u64> {
        let Some(alive) = &end.alive else { return Vec::new() };
        let last = self.seen.last();
        let dead = |number: &u64| *number < last && end.seen.contains(*number) && !alive.contains(*number);
        self.numbers(end.floor.min(last)).into_iter().filter(dead).collect()
    }

    /// Begins anew above `base`, since the owner subscribed anew. Gives what was removed by it.
    pub(crate) fn rebase(&mut self, base: u64) -> Vec<(TableId, Key)> {
        let numbers = self.numbers(base);
        self.seen.insert_span(1, base);
        self.floor = self.floor.max(base);
        numbers.into_iter().filter_map(|number| self.forget(number)).collect()
    }

    /// Tombstones that may go some day: all but the last change of all.
    pub(crate) fn spent(&self) -> usize {
        let tombstones = self.tombstones();
        tombstones - usize::from(tombstones > 0 && self.entries.is_buried(self.seen.last()))
    }

    /// Drops tombstones that all live subscribers have seen, or that are older than `cap`, or that are too many.
    pub(crate) fn collect(&mut self, cap: Duration, most: usize, now: Instant) -> usize {
        let through = self.seen.through().min(self.seen.last().saturating_sub(1));
        let mut surplus = self.tombstones().saturating_sub(most);
        let may_go = |(number, since): (u64, Instant)| {
            let goes = number <= self.stable || since + cap <= now || surplus > 0;
            surplus = surplus.saturating_sub(usize::from(goes));
            goes.then_some(number)
        };
        let numbers: Vec<u64> = self.entries.buried(through).filter_map(may_go).collect();
        for number in &numbers {
            self.forget(*number);
            self.floor = self.floor.max(*number);
        }
        numbers.len()
    }

    pub(crate) fn hash(&self, owner: NodeId) -> u64 {
        hash::of_chain(owner, self.incarnation, &self.seen, self.content)
    }

    pub(crate) const fn seen(&self) -> &Intervals {
        &self.seen
    }

    pub(crate) const fn content(&self) -> u64 {
        self.content
    }

    pub(crate) fn through(&self) -> Sequence {
        Sequence(self.seen.through())
    }

    pub(crate) fn slot(&self, table: TableId, key: &Key) -> Option<&Slot> {
        self.entries.get(table, key)
    }

    /// The last change of a key, as it travels.
    pub(crate) fn change(&self, table: TableId, key: &Key) -> Option<Change> {
        self.slot(table, key).map(|slot| travelling(table, key, slot))
    }

    /// The changes above `after` that are not in `seen`, by ascending number. O(log n) for each gap, and each change.
    pub(crate) fn missing<'a>(&'a self, seen: &'a Intervals, after: u64) -> impl Iterator<Item = Change> + 'a {
        let in_gap = |(first, last)| self.entries.range(first..=last);
        seen.gaps(after).flat_map(in_gap).map(|(table, key, slot)| travelling(table, key, slot))
    }

    /// What holds for a node that had seen `seen` once it has all that was [`missing`](Self::missing). If it was told numbers up to
    /// `after` before, changes of such numbers that it has not seen came here since, and it has yet to see them.
    pub(crate) fn end_for(&self, seen: &Intervals, after: u64) -> End {
        let missed = seen.gaps(0).next().is_some_and(|(first, _)| first <= self.floor);
        // What was removed by a change up to the floor has a number below it.
        let alive = missed.then(|| self.numbers(self.floor).into_iter().collect());
        let late = self.numbers(after).into_iter().filter(|number| !seen.contains(*number));
        End { seen: self.seen.without(late).truncated(END_SPANS), floor: self.floor, alive }
    }

    /// One's own change of a number, as it travels; none if a later one has taken its place.
    pub(crate) fn numbered(&self, number: u64) -> Option<Change> {
        self.entries.at(number).map(|(table, key, slot)| travelling(table, key, slot))
    }

    /// Puts an owner's signature to its change of that number.
    pub(crate) fn sign(&mut self, number: u64, signature: &[u8], now: Instant) {
        if let Some(Entry { table, key, slot }) = self.entries.remove(number) {
            let slot = Slot::new(slot.sequence, slot.value.clone(), slot.covers().to_vec(), signature);
            self.entries.insert(Entry { table, key, slot }, now);
        }
    }

    /// The entries of one table, by key.
    pub(crate) fn entries(&self, table: TableId) -> impl Iterator<Item = (&Key, &Slot, &Bytes)> {
        self.entries.table(table).filter_map(|(key, slot)| Some((key, slot, slot.value.as_ref()?)))
    }

    /// The numbers up to `last` of entries and tombstones.
    fn numbers(&self, last: u64) -> Vec<u64> {
        self.entries.range(0..=last).map(|(.., slot)| slot.sequence).collect()
    }

    /// Entries and tombstones.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn tombstones(&self) -> usize {
        self.entries.tombstones()
    }

    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    fn fits(&self, change: &Change, room: Room) -> bool {
        let old = self.slot(change.table, &change.key);
        let (entries, bytes) = (self.len() - self.tombstones(), weight(&change.key, change.value.as_ref()));
        let was = old.map_or(0, |slot| weight(&change.key, slot.value.as_ref()));
        let more = usize::from(change.value.is_some() && old.is_none_or(|slot| slot.value.is_none()));
        let beside = |number| self.seen.contains(number);
        let gap = change.sequence > 1 && !beside(change.sequence - 1) && !beside(change.sequence + 1);
        let room_for_tombstone = change.value.is_some() || old.is_some() || self.tombstones() < 2 * room.entries;
        entries + more <= room.entries
            && room_for_tombstone
            && (self.bytes + bytes).saturating_sub(was) <= room.bytes
            && !(gap && self.seen.spans() >= room.spans)
    }

    fn see(&mut self, change: &Change) {
        self.seen.insert(change.sequence);
        change.covers.iter().for_each(|number| {
            self.seen.insert(*number);
        });
    }

    fn store(&mut self, change: Change, now: Instant) {
        let Change { sequence, covers, table, key, value, signature } = change;
        if let Some(number) = self.slot(table, &key).map(|slot| slot.sequence) {
            self.forget(number);
        }
        self.bytes += weight(&key, value.as_ref());
        if let Some(value) = &value {
            self.content = self.content.wrapping_add(hash::of_entry(sequence, table, &key, value));
        }
        let slot = Slot::new(sequence, value, covers, &signature);
        self.entries.insert(Entry { table, key, slot }, now);
    }

    /// Drops what is kept of a number, but not that it was seen.
    fn forget(&mut self, number: u64) -> Option<(TableId, Key)> {
        let Entry { table, key, slot } = self.entries.remove(number)?;
        self.bytes -= weight(&key, slot.value.as_ref());
        let value = slot.value?;
        self.content = self.content.wrapping_sub(hash::of_entry(number, table, &key, &value));
        Some((table, key))
    }
}

/// A change as it travels.
fn travelling(table: TableId, key: &Key, slot: &Slot) -> Change {
    Change {
        sequence: slot.sequence,
        covers: slot.covers().to_vec(),
        table,
        key: key.clone(),
        value: slot.value.clone(),
        signature: slot.signature(),
    }
}

/// What an entry counts for: its bytes, and about what keeping it takes.
fn weight(key: &Key, value: Option<&Bytes>) -> usize {
    key.as_bytes().len() + value.map_or(0, Bytes::len) + ENTRY_OVERHEAD
}

const ENTRY_OVERHEAD: usize = 200;

/// Spans of seen numbers that an answer ends with: less than all is no less true, and keeps it below the limit of a stream.
const END_SPANS: usize = 2_048;
/// Spans of seen numbers beyond which nobody's word adds more: an owner's entries and their gaps have fewer.
const SEEN_SPANS: usize = 128 * 1024;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tables::wire::any_change;

    const ROOM: Room = Room { entries: 100, bytes: 100_000, spans: 100 };

    fn change(sequence: u64, value: Option<&'static str>) -> Change {
        let (key, value) = (Key::new(&b"k"[..]).unwrap(), value.map(Bytes::from));
        Change { sequence, covers: Vec::new(), table: TableId(1), key, value, signature: Bytes::new() }
    }

    #[test]
    fn a_tombstone_above_a_gap_stays_so_that_what_is_late_does_not_return() {
        let mut chain = Chain::new(1, 0);
        assert_eq!(chain.apply(change(2, None), ROOM, Instant::ZERO), Outcome::Applied);
        let other = Change { key: Key::new("other").unwrap(), ..change(3, None) };
        assert_eq!(chain.apply(other, ROOM, Instant::ZERO), Outcome::Applied);
        chain.stable = 3;
        assert_eq!(chain.collect(Duration::ZERO, 0, Instant::ZERO), 0);
        assert_eq!(chain.apply(change(1, Some("late")), ROOM, Instant::ZERO), Outcome::Stale);
        assert_eq!((chain.spent(), chain.collect(Duration::MAX, 100, Instant::ZERO)), (1, 1));
        assert_eq!(chain.apply(change(1, Some("late")), ROOM, Instant::ZERO), Outcome::Stale);
        assert_eq!((chain.len(), chain.tombstones(), chain.content()), (1, 1, 0), "the last change stays");
        assert_eq!((chain.spent(), chain.collect(Duration::ZERO, 0, Instant::ZERO)), (0, 0));
    }

    #[test]
    fn nobody_is_believed_about_changes_after_the_last_that_is_here() {
        let mut chain = Chain::new(1, 0);
        for number in [1, 2] {
            let change = Change { key: Key::new(vec![number as u8]).unwrap(), ..change(number, Some("v")) };
            chain.apply(change, ROOM, Instant::ZERO);
        }
        let mut seen = Intervals::default();
        seen.insert_span(1, Intervals::MOST);
        let gone = chain.finish(&End { seen, floor: u64::MAX, alive: Some(Intervals::default()) });
        assert_eq!((gone.len(), chain.seen().last(), chain.floor), (1, 2, 2), "the last change itself stays");
        let next = Change { key: Key::new("next").unwrap(), ..change(3, Some("v")) };
        assert_eq!(chain.apply(next, ROOM, Instant::ZERO), Outcome::Applied);
    }

    #[test]
    fn a_change_covers_what_came_before_it_of_its_key() {
        let mut owner = Chain::new(1, 0);
        for value in ["a", "b", "c"] {
            let change = owner.next(TableId(1), Key::new(&b"k"[..]).unwrap(), Some(Bytes::from(value)));
            owner.apply(change, ROOM, Instant::ZERO);
        }
        let last = owner.change(TableId(1), &Key::new(&b"k"[..]).unwrap()).unwrap();
        assert_eq!((last.sequence, &last.covers[..]), (3, &[2, 1][..]));
        let mut other = Chain::new(1, 0);
        other.apply(last, ROOM, Instant::ZERO);
        assert_eq!(
            (other.through(), other.hash(NodeId::from_bytes([1; 16]))),
            (Sequence(3), owner.hash(NodeId::from_bytes([1; 16])))
        );
    }

    #[test]
    fn what_was_removed_long_ago_and_comes_late_to_who_has_just_asked_goes_with_the_answer() {
        let (me, mut owner, mut joiner) = (NodeId::from_bytes([1; 16]), Chain::new(1, 0), Chain::new(1, 0));
        owner.apply(change(1, Some("removed")), ROOM, Instant::ZERO);
        let late = owner.change(TableId(1), &Key::new("k").unwrap()).unwrap();
        owner.apply(change(2, None), ROOM, Instant::ZERO);
        owner.apply(Change { key: Key::new("other").unwrap(), ..change(3, Some("there")) }, ROOM, Instant::ZERO);
        owner.stable = 3;
        assert_eq!(owner.collect(Duration::MAX, 100, Instant::ZERO), 1);

        let asked_with = joiner.seen().clone();
        assert_eq!(joiner.apply(late, ROOM, Instant::ZERO), Outcome::Applied);
        owner
            .missing(&asked_with, 0)
            .for_each(|change| assert_eq!(joiner.apply(change, ROOM, Instant::ZERO), Outcome::Applied));
        assert_eq!(joiner.finish(&owner.end_for(&asked_with, 0)), [(TableId(1), Key::new("k").unwrap())]);
        assert_eq!((joiner.len(), joiner.hash(me)), (1, owner.hash(me)));
    }

    #[test]
    fn what_came_to_who_answers_between_two_of_its_answers_is_not_taken_for_told() {
        let key = |number: u64| Key::new(number.to_be_bytes().to_vec()).unwrap();
        let change = |number| Change { key: key(number), ..change(number, Some("v")) };
        let (mut answerer, mut joiner) = (Chain::new(1, 0), Chain::new(1, 0));
        for number in [1, 3, 4, 5] {
            answerer.apply(change(number), ROOM, Instant::ZERO);
        }
        for number in [1, 3] {
            joiner.apply(change(number), ROOM, Instant::ZERO); // the first answer
        }
        answerer.apply(change(2), ROOM, Instant::ZERO);
        let seen = joiner.seen().clone();
        answerer
            .missing(&seen, 3)
            .for_each(|change| assert_eq!(joiner.apply(change, ROOM, Instant::ZERO), Outcome::Applied));
        joiner.finish(&answerer.end_for(&seen, 3));
        assert_eq!(joiner.seen().gaps(0).next(), Some((2, 2)));
        answerer.missing(&joiner.seen().clone(), 0).for_each(|change| assert_eq!(change.sequence, 2));
    }

    #[test]
    fn no_answer_makes_what_was_seen_grow_without_bound() {
        let mut chain = Chain::new(1, 0);
        for part in 0..200_u64 {
            let seen = (0..10_000).map(|number| part * 1_000_000 + 2 * number + 1).collect();
            chain.finish(&End { seen, ..End::default() });
        }
        assert!(chain.seen().spans() <= SEEN_SPANS + END_SPANS, "{}", chain.seen().spans());
    }

    proptest! {
        /// Counts, bytes and hash are kept change by change; they must be what the entries add up to.
        #[test]
        fn what_is_kept_along_is_what_the_entries_add_up_to(changes in proptest::collection::vec(any_change(), 1..40)) {
            let mut chain = Chain::new(1, 0);
            for mut change in changes {
                change.key = Key::new(change.key.as_bytes()[..1].to_vec()).unwrap();
                chain.apply(change, ROOM, Instant::ZERO);
                let slots: Vec<_> = chain.entries.range(0..=u64::MAX).collect();
                let content = slots.iter().filter_map(|(table, key, slot)| {
                    Some(hash::of_entry(slot.sequence, *table, key, slot.value.as_ref()?))
                });
                prop_assert_eq!(chain.content(), content.fold(0, u64::wrapping_add));
                prop_assert_eq!(chain.bytes(), slots.iter().map(|(_, key, slot)| weight(key, slot.value.as_ref())).sum::<usize>());
                prop_assert_eq!(chain.len(), slots.len());
                prop_assert_eq!(chain.tombstones(), slots.iter().filter(|(_, _, slot)| slot.value.is_none()).count());
                prop_assert!(slots.iter().all(|(_, _, slot)| chain.seen().contains(slot.sequence)));
            }
        }
    }
}
