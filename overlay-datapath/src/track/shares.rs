//! Who began how many of the flows that are followed: so that where there is no room, who has most gives way.

use std::mem;

use crate::tables::Map;

/// All flows that are followed, by who began them: each one's in the order in which they began, those that were answered apart. Each call is O(1), amortised
/// over what the vectors grow.
#[derive(Debug)]
pub(super) struct Shares<K> {
    /// Where among the owners each is who has a flow.
    places: Map<u64, u32>,
    owners: Vec<Owner>,
    /// Owners that are nobody.
    idle: Vec<u32>,
    slots: Vec<Slot<K>>,
    /// Slots that no flow has.
    empty: Vec<u32>,
    /// Slots: two chains for each owner.
    flows: Chains,
    /// Owners: a chain for each number of flows.
    ranks: Chains,
    /// The most flows that one has.
    most: u32,
}

#[derive(Debug, Clone, Copy)]
struct Owner {
    who: u64,
    flows: u32,
}

#[derive(Debug, Clone, Copy)]
struct Slot<K> {
    key: K,
    owner: u32,
    answered: bool,
}

impl<K> Default for Shares<K> {
    fn default() -> Self {
        Self {
            places: Map::default(),
            owners: Vec::new(),
            idle: Vec::new(),
            slots: Vec::new(),
            empty: Vec::new(),
            flows: Chains::default(),
            ranks: Chains::default(),
            most: 0,
        }
    }
}

impl<K: Copy> Shares<K> {
    /// Somebody begins a flow, to which nobody has answered yet. It is known by the number given back.
    pub(super) fn begin(&mut self, who: u64, key: K) -> u32 {
        let owner = self.place_of(who);
        let slot = Slot { key, owner, answered: false };
        let at = put(&mut self.slots, &mut self.empty, slot);
        self.flows.push(chain(owner, false), at);
        self.weigh(owner, |flows| flows + 1);
        at
    }

    /// A flow has ended.
    pub(super) fn end(&mut self, at: u32) {
        let Slot { owner, answered, .. } = self.slots[at as usize];
        self.flows.take(chain(owner, answered), at);
        self.empty.push(at);
        self.weigh(owner, |flows| flows - 1);
    }

    /// Whether it was answered.
    pub(super) fn set_answered(&mut self, at: u32, answered: bool) {
        let slot = &mut self.slots[at as usize];
        if mem::replace(&mut slot.answered, answered) != answered {
            let owner = slot.owner;
            self.flows.take(chain(owner, !answered), at);
            self.flows.push(chain(owner, answered), at);
        }
    }

    /// A flow is called otherwise.
    pub(super) fn rename(&mut self, at: u32, key: K) {
        self.slots[at as usize].key = key;
    }

    /// Which flow is to end so that this one can begin another, if any: the oldest without an answer of who has most, or else, where one of two would not be the
    /// next to give way, the oldest of all his; of who has most himself, the oldest without an answer.
    pub(super) fn giver(&self, who: u64) -> Option<K> {
        let own = self.places.get(&who).copied();
        let has = own.map_or(0, |own| self.owners[own as usize].flows);
        let first = |owner, answered| self.flows.first(chain(owner, answered));
        let of_most = self.ranks.first(self.most as usize).filter(|_| self.most > has).and_then(|most| {
            let answered = || first(most, true).filter(|_| self.most > has + 1);
            first(most, false).or_else(answered)
        });
        let at = of_most.or_else(|| first(own?, false))?;
        Some(self.slots[at as usize].key)
    }

    fn place_of(&mut self, who: u64) -> u32 {
        if let Some(place) = self.places.get(&who) {
            return *place;
        }
        let place = put(&mut self.owners, &mut self.idle, Owner { who, flows: 0 });
        self.places.insert(who, place);
        place
    }

    /// An owner has another number of flows, one more or less.
    fn weigh(&mut self, place: u32, change: impl FnOnce(u32) -> u32) {
        let owner = &mut self.owners[place as usize];
        let (who, before, flows) = (owner.who, owner.flows, change(owner.flows));
        owner.flows = flows;
        if before > 0 {
            self.ranks.take(before as usize, place);
        }
        if flows > 0 {
            self.ranks.push(flows as usize, place);
        } else {
            self.places.remove(&who);
            self.idle.push(place);
        }
        if flows > self.most || self.ranks.first(self.most as usize).is_none() {
            self.most = flows; // he was the only one with as many
        }
    }
}

/// Of an owner's two chains, that of flows that were answered or that of the others.
const fn chain(owner: u32, answered: bool) -> usize {
    owner as usize * 2 + answered as usize
}

/// Puts something where nothing is, and says where.
fn put<T>(all: &mut Vec<T>, free: &mut Vec<u32>, it: T) -> u32 {
    match free.pop() {
        Some(at) => {
            all[at as usize] = it;
            at
        }
        None => {
            all.push(it);
            (all.len() - 1) as u32
        }
    }
}

/// Numbers in chains, each in one at most.
#[derive(Debug, Default)]
struct Chains {
    links: Vec<Link>,
    ends: Vec<Link>,
}

/// What is before and behind a number; or of a chain, its last and its first.
#[derive(Debug, Clone, Copy)]
struct Link {
    before: u32,
    behind: u32,
}

/// No number: there are never as many.
const NONE: u32 = u32::MAX;

impl Chains {
    fn first(&self, chain: usize) -> Option<u32> {
        self.ends.get(chain).map(|ends| ends.behind).filter(|first| *first != NONE)
    }

    /// To a chain's end.
    fn push(&mut self, chain: usize, number: u32) {
        grow(&mut self.ends, chain);
        grow(&mut self.links, number as usize);
        let last = mem::replace(&mut self.ends[chain].before, number);
        self.links[number as usize] = Link { before: last, behind: NONE };
        self.behind(chain, last, number);
    }

    /// Out of the chain that it is in.
    fn take(&mut self, chain: usize, number: u32) {
        let Link { before, behind } = self.links[number as usize];
        self.behind(chain, before, behind);
        match self.links.get_mut(behind as usize) {
            Some(link) => link.before = before,
            None => self.ends[chain].before = before,
        }
    }

    /// What is behind a number, or if that is none, what is first.
    fn behind(&mut self, chain: usize, number: u32, behind: u32) {
        match self.links.get_mut(number as usize) {
            Some(link) => link.behind = behind,
            None => self.ends[chain].behind = behind,
        }
    }
}

fn grow(links: &mut Vec<Link>, to: usize) {
    if links.len() <= to {
        links.resize(to + 1, Link { before: NONE, behind: NONE });
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// What is said of flows: whose, and which of those that there are.
    #[derive(Debug, Clone, Copy)]
    enum Said {
        Begins(u64),
        Ends(prop::sample::Index),
        Answered(prop::sample::Index, bool),
    }

    fn said() -> impl Strategy<Value = Said> {
        prop_oneof![
            4 => (0..5_u64).prop_map(Said::Begins),
            1 => any::<prop::sample::Index>().prop_map(Said::Ends),
            2 => any::<(prop::sample::Index, bool)>().prop_map(|(which, is)| Said::Answered(which, is)),
        ]
    }

    /// A flow, as a plain list has it: in the order in which they came to be as they are.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    struct Flow {
        who: u64,
        key: u32,
        slot: u32,
        answered: bool,
    }

    fn counts(all: &[Flow]) -> BTreeMap<u64, u32> {
        let mut counts = BTreeMap::new();
        all.iter().for_each(|flow| *counts.entry(flow.who).or_default() += 1);
        counts
    }

    /// Whether that flow may give way to a new one of somebody's.
    fn may_give(all: &[Flow], who: u64, gives: Option<Flow>) -> Result<(), TestCaseError> {
        let counts = counts(all);
        let (own, most) = (counts.get(&who).copied().unwrap_or(0), counts.values().copied().max().unwrap_or(0));
        let oldest = |of: u64, answered| all.iter().find(|it| it.who == of && it.answered == answered).copied();
        match gives {
            None => {
                prop_assert!(most <= own + 1, "somebody has more, and the other nothing");
                prop_assert_eq!(oldest(who, false), None);
            }
            Some(flow) => {
                prop_assert_eq!(Some(flow), oldest(flow.who, flow.answered), "the oldest");
                prop_assert!(!flow.answered || oldest(flow.who, false).is_none(), "first what nobody answered");
                prop_assert!(flow.who == who || counts[&flow.who] == most, "who has most");
                prop_assert!(flow.who == who || most > own + u32::from(flow.answered));
                prop_assert!(flow.who != who || !flow.answered);
            }
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn who_has_most_gives_way_and_first_what_nobody_answered(all in prop::collection::vec(said(), 0..200), room in 1..24_usize) {
            let (mut shares, mut flows) = (Shares::default(), Vec::<Flow>::new());
            for (key, said) in (0..).zip(all) {
                match said {
                    Said::Begins(who) => {
                        if flows.len() >= room {
                            let gives = shares.giver(who).map(|key| flows.iter().find(|it| it.key == key).copied());
                            let gives = gives.map(|known| known.ok_or_else(|| TestCaseError::fail("a flow that is no more"))).transpose()?;
                            may_give(&flows, who, gives)?;
                            let Some(gives) = gives else { continue };
                            shares.end(gives.slot);
                            flows.retain(|it| *it != gives);
                        }
                        flows.push(Flow { who, key, slot: shares.begin(who, key), answered: false });
                    }
                    Said::Ends(which) if !flows.is_empty() => shares.end(flows.remove(which.index(flows.len())).slot),
                    Said::Answered(which, answered) if !flows.is_empty() => {
                        let at = which.index(flows.len());
                        shares.set_answered(flows[at].slot, answered);
                        if flows[at].answered != answered {
                            let flow = flows.remove(at);
                            flows.push(Flow { answered, ..flow });
                        }
                    }
                    Said::Ends(_) | Said::Answered(..) => {}
                }
                let counts = counts(&flows);
                prop_assert_eq!(shares.most, counts.values().copied().max().unwrap_or(0));
                prop_assert_eq!(shares.places.len(), counts.len());
                prop_assert!(shares.slots.len() <= room && shares.owners.len() <= 5, "what was had once is had again");
            }
        }

        #[test]
        fn a_flood_of_one_denies_no_other(flood in 1_000..4_000_u32, others in prop::collection::vec(1..5_u64, 1..50)) {
            const ROOM: u32 = 256;
            let mut shares = Shares::default();
            let mut slots = BTreeMap::new();
            let mut begin = |shares: &mut Shares<u32>, who, key| {
                if slots.len() >= ROOM as usize {
                    let gives = shares.giver(who).ok_or_else(|| TestCaseError::fail(format!("{who} is refused")))?;
                    shares.end(slots.remove(&gives).ok_or_else(|| TestCaseError::fail("no such flow"))?);
                    prop_assert!(gives < 1_000_000, "another than who floods has lost a flow");
                }
                slots.insert(key, shares.begin(who, key));
                Ok(())
            };
            for (key, other) in (1_000_000..).zip(others) {
                for number in 0..flood / 50 {
                    begin(&mut shares, 0, (key - 1_000_000) * 1_000 + number)?;
                }
                begin(&mut shares, other, key)?;
            }
        }
    }
}
