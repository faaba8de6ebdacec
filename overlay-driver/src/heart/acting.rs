//! How far what was desired is brought about.

use std::collections::{BTreeMap, BTreeSet};

use overlay_gossip::Heard;
use overlay_node::Place;

/// Follows through which of the states that were desired, one after the other, every place was brought: each has a number, its turn. So
/// something is known to be in effect although there is always something newer that is not. A place that fails is not waited for.
#[derive(Debug, Default)]
pub(super) struct Acting {
    /// Of the newest state that is desired.
    turn: u64,
    /// Of the one that the round there is brings about.
    round: u64,
    /// Places that were not brought to the newest yet: through which turn they were.
    behind: BTreeMap<Place, u64>,
    /// What states follow from, by their turns: from that of the last that was told.
    heard: BTreeMap<u64, Heard>,
    told: Heard,
}

impl Acting {
    /// Another state is desired, and follows from what was heard so far. It differs at these places.
    pub(super) fn desire(&mut self, changed: BTreeSet<Place>, heard: Heard) {
        for place in changed {
            self.behind.entry(place).or_insert(self.turn);
        }
        self.turn += 1;
        self.heard.insert(self.turn, heard);
    }

    /// More was heard, and the same state follows from it.
    pub(super) fn heard(&mut self, heard: Heard) {
        self.heard.insert(self.turn, heard);
    }

    /// A round brings about what is desired now.
    pub(super) const fn begin(&mut self) {
        self.round = self.turn;
    }

    /// The round has ended for a place. It still `waits` for another round, if something else is desired of it since.
    pub(super) fn end(&mut self, place: &Place, waits: bool) {
        match self.behind.get_mut(place) {
            Some(through) if waits => *through = self.round.max(*through),
            _ => drop(self.behind.remove(place)),
        }
    }

    /// The turn of the newest state.
    pub(super) const fn turn(&self) -> u64 {
        self.turn
    }

    /// Through which turn all is brought about.
    pub(super) fn through(&self) -> u64 {
        self.behind.values().min().map_or(self.turn, |through| *through)
    }

    /// Through which number what was heard is brought about, if that is more than was told before.
    pub(super) fn acted(&mut self) -> Option<Heard> {
        let (turn, heard) = self.heard.range(..=self.through()).next_back().map(|(turn, heard)| (*turn, *heard))?;
        self.heard = self.heard.split_off(&turn);
        let more = heard > self.told;
        self.told = heard;
        more.then_some(heard)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: Place = Place::Host;

    fn web() -> Place {
        Place::Container("web".parse().unwrap())
    }

    #[test]
    fn what_was_heard_before_a_round_began_is_in_effect_when_it_ends_whatever_else_is_desired_by_then() {
        let mut acting = Acting::default();
        acting.desire([HOST, web()].into(), Heard(1));
        acting.begin();
        acting.desire([web()].into(), Heard(2));
        acting.desire([web()].into(), Heard(3));
        assert_eq!((acting.acted(), acting.through()), (None, 0));
        acting.end(&HOST, false);
        assert_eq!(acting.acted(), None, "web is not there yet");
        acting.end(&web(), true);
        assert_eq!((acting.acted(), acting.acted(), acting.through()), (Some(Heard(1)), None, 1));
        acting.begin();
        acting.desire([HOST].into(), Heard(4));
        acting.end(&web(), false);
        assert_eq!(acting.acted(), Some(Heard(3)), "the host has all but the last");
        acting.begin();
        acting.end(&HOST, false);
        assert_eq!((acting.acted(), acting.through() == acting.turn()), (Some(Heard(4)), true));
    }

    #[test]
    fn what_changes_nothing_is_in_effect_as_soon_as_all_before_it_is() {
        let mut acting = Acting::default();
        acting.heard(Heard(2));
        assert_eq!(acting.acted(), Some(Heard(2)));
        acting.desire([web()].into(), Heard(3));
        acting.heard(Heard(5));
        assert_eq!(acting.acted(), None);
        acting.begin();
        acting.end(&web(), false);
        acting.desire([].into(), Heard(6));
        assert_eq!(acting.acted(), Some(Heard(6)));
    }

    #[test]
    fn a_place_that_was_not_in_the_round_is_no_further_by_it() {
        let mut acting = Acting::default();
        acting.desire([HOST].into(), Heard(1));
        acting.begin();
        acting.desire([web()].into(), Heard(2));
        acting.end(&HOST, false);
        assert_eq!((acting.acted(), acting.through()), (Some(Heard(1)), 1));
    }
}
