//! All members, with everything about one found and changed in O(log n).

use std::collections::BTreeMap;

use overlay_core::{Instant, NodeId};

use crate::chance::Chance;
use crate::digest::{bucket, digest};
use crate::room;
use crate::swim::suspicion::Suspicion;
use crate::wire::{BUCKETS, Number, Update};
use crate::{Member, Standing};

/// A member's place in the roster; goes to another once the member is forgotten.
pub(super) type Index = u32;

/// Oneself.
pub(super) const ME: Index = 0;

/// One member.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) member: Member,
    pub(super) revision: u32,
    pub(super) standing: Standing,
    /// When the standing began.
    pub(super) since: Instant,
    /// What there is only of few.
    pub(super) trouble: Option<Box<Trouble>>,
    /// Its own, of its goodbye if it left, else of what it says of itself.
    pub(super) signature: Box<[u8]>,
    /// Its place in the list of its standing.
    place: u32,
}

/// What is kept of a member that is not simply there.
#[derive(Debug, Default)]
pub(super) struct Trouble {
    /// When it was last told what is thought of it.
    pub(super) told: Instant,
    pub(super) suspicion: Option<Suspicion>,
}

impl Slot {
    pub(super) const fn number(&self) -> Number {
        Number { incarnation: self.member.incarnation, revision: self.revision }
    }

    pub(super) fn update(&self, now: Instant) -> Update {
        let accusers = self.suspicion().map(|suspicion| suspicion.accusers.clone()).unwrap_or_default();
        Update {
            member: self.member.clone(),
            revision: self.revision,
            standing: self.standing,
            age: now - self.since,
            accusers,
            signature: self.signature.clone(),
        }
    }

    pub(super) fn suspicion(&self) -> Option<&Suspicion> {
        self.trouble.as_ref()?.suspicion.as_ref()
    }

    /// When it was last told what is thought of it.
    pub(super) fn told(&self) -> Instant {
        self.trouble.as_ref().map_or(Instant::ZERO, |trouble| trouble.told)
    }

    pub(super) fn trouble_mut(&mut self) -> &mut Trouble {
        self.trouble.get_or_insert_default()
    }

    /// Its time to object is over.
    pub(super) fn settle(&mut self) {
        if let Some(trouble) = &mut self.trouble {
            trouble.suspicion = None;
        }
    }

    pub(super) const fn is_live(&self) -> bool {
        matches!(self.standing, Standing::Alive | Standing::Suspected)
    }
}

/// The list, with oneself at [`ME`].
#[derive(Debug)]
pub(super) struct Roster {
    slots: Vec<Option<Slot>>,
    free: Vec<Index>,
    index: BTreeMap<NodeId, Index>,
    /// Others alive or suspected, in the order in which they are probed.
    live: Vec<Index>,
    /// Others suspended.
    down: Vec<Index>,
    /// The next of `live` to probe.
    cursor: usize,
    /// Of each bucket, the digests of its live members, oneself included, combined by XOR.
    digests: [u64; BUCKETS],
}

impl Roster {
    pub(super) fn new(me: Member, now: Instant) -> Self {
        let mut digests = [0; BUCKETS];
        let number = Number { incarnation: me.incarnation, revision: 0 };
        digests[bucket(me.id)] = digest(me.id, number);
        let index = BTreeMap::from([(me.id, ME)]);
        let (standing, signature) = (Standing::Alive, Box::default());
        let slot = Slot { member: me, revision: 0, standing, since: now, trouble: None, signature, place: 0 };
        Self {
            slots: vec![Some(slot)],
            free: Vec::new(),
            index,
            live: Vec::new(),
            down: Vec::new(),
            cursor: 0,
            digests,
        }
    }

    pub(super) fn find(&self, id: NodeId) -> Option<Index> {
        self.index.get(&id).copied()
    }

    pub(super) fn slot(&self, at: Index) -> Option<&Slot> {
        self.slots.get(at as usize)?.as_ref()
    }

    /// For changes that are not of number or standing.
    pub(super) fn slot_mut(&mut self, at: Index) -> Option<&mut Slot> {
        self.slots.get_mut(at as usize)?.as_mut()
    }

    /// How many there are, oneself included.
    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    pub(super) fn live(&self) -> usize {
        self.live.len()
    }

    pub(super) fn down(&self) -> usize {
        self.down.len()
    }

    /// In the order of ids, oneself included.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Index, &Slot)> {
        self.index.values().filter_map(|at| Some((*at, self.slot(*at)?)))
    }

    pub(super) const fn digests(&self) -> &[u64; BUCKETS] {
        &self.digests
    }

    /// All of the digests in one.
    pub(super) fn digest(&self) -> u64 {
        self.digests.iter().fold(0, |all, one| all.rotate_left(1) ^ one)
    }

    /// Adds a member that is not there yet.
    pub(super) fn insert(&mut self, slot: Update, since: Instant, chance: &mut Chance) -> Index {
        let at = self.free.pop().unwrap_or_else(|| {
            room::push(&mut self.slots, None);
            (self.slots.len() - 1) as Index
        });
        self.index.insert(slot.member.id, at);
        let standing = if slot.standing == Standing::Suspected { Standing::Alive } else { slot.standing };
        let Update { member, revision, signature, .. } = slot;
        let fresh = Slot { member, revision, standing, since, trouble: None, signature, place: 0 };
        if let Some(place) = self.slots.get_mut(at as usize) {
            *place = Some(fresh);
        }
        self.enlist(at);
        self.shuffle_in(at, chance);
        at
    }

    /// Changes a member's number and standing, and with them the lists and digests.
    pub(super) fn change(&mut self, at: Index, change: impl FnOnce(&mut Slot), chance: &mut Chance) {
        let was_live = self.slot(at).is_some_and(Slot::is_live);
        self.delist(at);
        if let Some(slot) = self.slot_mut(at) {
            change(slot);
        }
        self.enlist(at);
        if !was_live {
            self.shuffle_in(at, chance);
        }
    }

    pub(super) fn remove(&mut self, at: Index) {
        self.delist(at);
        if let Some(slot) = self.slots.get_mut(at as usize).and_then(Option::take) {
            self.index.remove(&slot.member.id);
            self.free.push(at);
        }
    }

    /// The next member to probe: each once in an order that is drawn anew after each round (SWIM §4.3).
    pub(super) fn next_to_probe(&mut self, chance: &mut Chance) -> Option<Index> {
        if self.cursor >= self.live.len() {
            self.cursor = 0;
            for last in (1..self.live.len()).rev() {
                self.swap(last, chance.below(last + 1));
            }
        }
        let at = self.live.get(self.cursor).copied();
        self.cursor += 1;
        at
    }

    /// Up to `count` different live members, not `except`.
    pub(super) fn draw(&self, count: usize, except: Option<Index>, chance: &mut Chance) -> Vec<Index> {
        let mut drawn = Vec::with_capacity(count);
        if self.live.len() <= count + 1 {
            drawn.extend(self.live.iter().copied().filter(|at| Some(*at) != except).take(count));
            return drawn;
        }
        for _ in 0..count * 4 {
            let at = self.live[chance.below(self.live.len())];
            if Some(at) != except && !drawn.contains(&at) {
                drawn.push(at);
                if drawn.len() == count {
                    break;
                }
            }
        }
        drawn
    }

    /// A suspended member.
    pub(super) fn draw_down(&self, chance: &mut Chance) -> Option<Index> {
        self.down.get(chance.below(self.down.len())).copied()
    }

    fn enlist(&mut self, at: Index) {
        let Some(slot) = self.slot(at) else { return };
        let (id, number, live, down) =
            (slot.member.id, slot.number(), slot.is_live(), slot.standing == Standing::Suspended);
        if live {
            self.digests[bucket(id)] ^= digest(id, number);
        }
        let list = match (live, down) {
            _ if at == ME => return,
            (true, _) => &mut self.live,
            (_, true) => &mut self.down,
            _ => return,
        };
        let place = list.len() as u32;
        room::push(list, at);
        if let Some(slot) = self.slot_mut(at) {
            slot.place = place;
        }
    }

    fn delist(&mut self, at: Index) {
        let Some(slot) = self.slot(at) else { return };
        let (id, number, live, place) = (slot.member.id, slot.number(), slot.is_live(), slot.place as usize);
        let down = slot.standing == Standing::Suspended;
        if live {
            self.digests[bucket(id)] ^= digest(id, number);
        }
        let list = match (live, down) {
            _ if at == ME => return,
            (true, _) => &mut self.live,
            (_, true) => &mut self.down,
            _ => return,
        };
        list.swap_remove(place);
        if let Some(moved) = list.get(place).copied()
            && let Some(slot) = self.slot_mut(moved)
        {
            slot.place = place as u32;
        }
    }

    /// Moves a new live member to a random place of the probing order.
    fn shuffle_in(&mut self, at: Index, chance: &mut Chance) {
        if at != ME && self.slot(at).is_some_and(Slot::is_live) {
            self.swap(self.live.len() - 1, chance.below(self.live.len()));
        }
    }

    fn swap(&mut self, a: usize, b: usize) {
        self.live.swap(a, b);
        for place in [a, b] {
            if let Some(slot) = self.live.get(place).copied().and_then(|at| self.slot_mut(at)) {
                slot.place = place as u32;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn member(number: u8) -> Member {
        Member::new(NodeId::from_bytes([number; 16]), 1, ([192, 0, 2, number], 7946).into())
    }

    fn update(number: u8) -> Update {
        Update::alive(member(number))
    }

    proptest! {
        #[test]
        fn lists_and_digests_are_those_of_a_roster_made_from_nothing(
            steps in proptest::collection::vec((1..20_u8, 0..5_u8), 0..60)
        ) {
            let mut chance = Chance::new([7; 32]);
            let mut roster = Roster::new(member(0), Instant::ZERO);
            for (number, what) in steps {
                match (roster.find(NodeId::from_bytes([number; 16])), what) {
                    (None, _) => { roster.insert(update(number), Instant::ZERO, &mut chance); }
                    (Some(at), 0) => roster.remove(at),
                    (Some(at), 1) => roster.change(at, |slot| slot.revision += 1, &mut chance),
                    (Some(at), 2) => roster.change(at, |slot| slot.standing = Standing::Suspended, &mut chance),
                    (Some(at), 3) => roster.change(at, |slot| slot.standing = Standing::Left, &mut chance),
                    (Some(at), _) => roster.change(at, |slot| slot.standing = Standing::Suspected, &mut chance),
                }
            }
            let mut fresh = Roster::new(member(0), Instant::ZERO);
            for (at, slot) in roster.iter() {
                if at != ME {
                    let update = Update { revision: slot.revision, standing: slot.standing, ..update(slot.member.id.to_bytes()[0]) };
                    fresh.insert(update, Instant::ZERO, &mut chance);
                }
                if at != ME && slot.is_live() {
                    prop_assert_eq!(roster.live[slot.place as usize], at);
                }
                if slot.standing == Standing::Suspended {
                    prop_assert_eq!(roster.down[slot.place as usize], at);
                }
            }
            prop_assert_eq!(roster.digests(), fresh.digests());
            prop_assert_eq!((roster.live(), roster.down()), (fresh.live(), fresh.down()));
        }
    }

    #[test]
    fn a_round_of_probes_meets_everybody_once() {
        let mut chance = Chance::new([7; 32]);
        let mut roster = Roster::new(member(0), Instant::ZERO);
        for number in 1..=9 {
            roster.insert(update(number), Instant::ZERO, &mut chance);
        }
        roster.cursor = usize::MAX / 2; // as at the end of a round
        for _ in 0..3 {
            let mut met: Vec<_> = (0..9).filter_map(|_| roster.next_to_probe(&mut chance)).collect();
            met.sort_unstable();
            met.dedup();
            assert_eq!(met.len(), 9);
        }
    }
}
