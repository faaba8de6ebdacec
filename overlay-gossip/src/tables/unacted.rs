//! What was heard and is not acted upon yet.

use std::collections::{BTreeMap, VecDeque};

use overlay_core::{Instant, NetworkId, NodeId};

use crate::Heard;

/// Changes of others that this node's user has yet to act upon, and through which of an owner's changes it may say so meanwhile. Nothing is kept
/// of what was acted upon.
#[derive(Debug, Default)]
pub(crate) struct Unacted {
    /// The number of the last.
    heard: Heard,
    /// Each owner's in a network, by their numbers: through which of its changes all was seen before.
    of_owner: BTreeMap<(NodeId, NetworkId), VecDeque<(Heard, u64)>>,
    /// Whose each is, and until when it is waited for at the latest: the later its number, the later.
    by_number: BTreeMap<Heard, ((NodeId, NetworkId), Instant)>,
}

/// Whose changes are acted upon now, in which network, and through which they were before.
pub(crate) type Released = BTreeMap<(NodeId, NetworkId), u64>;

impl Unacted {
    /// None, but counts on.
    pub(crate) fn after(heard: Heard) -> Self {
        Self { heard, ..Self::default() }
    }

    /// Changes were heard; all up to `before` had been seen then. Of very many of one owner those that came last are waited for together.
    pub(crate) fn note(&mut self, of: (NodeId, NetworkId), before: u64, until: Instant) {
        self.heard = Heard(self.heard.0 + 1);
        let all = self.of_owner.entry(of).or_default();
        let joins = all.back().filter(|(_, least)| all.len() >= APART || *least == before).copied();
        let least = joins.map_or(before, |(_, least)| least);
        if let Some((number, _)) = joins {
            all.pop_back();
            self.by_number.remove(&number);
        }
        all.push_back((self.heard, least));
        self.by_number.insert(self.heard, (of, until));
    }

    /// All of an owner is to be acted upon anew.
    pub(crate) fn renew(&mut self, of: (NodeId, NetworkId), until: Instant) {
        self.forget(of);
        self.note(of, 0, until);
    }

    /// All up to this number were acted upon.
    pub(crate) fn release(&mut self, through: Heard) -> Released {
        let mut released = Released::new();
        while let Some(first) = self.by_number.first_entry().filter(|first| *first.key() <= through) {
            let (of, _) = first.remove();
            let Some(all) = self.of_owner.get_mut(&of) else { continue };
            let before = all.pop_front().map_or(0, |(_, before)| before);
            if all.is_empty() {
                self.of_owner.remove(&of);
            }
            released.entry(of).or_insert(before);
        }
        released
    }

    /// Gives up on what was waited for until now.
    pub(crate) fn expire(&mut self, now: Instant) -> Released {
        let due = self.by_number.iter().take_while(|(_, (_, until))| *until <= now).last();
        due.map(|(number, _)| *number).map(|number| self.release(number)).unwrap_or_default()
    }

    pub(crate) fn forget(&mut self, of: (NodeId, NetworkId)) {
        for (number, _) in self.of_owner.remove(&of).into_iter().flatten() {
            self.by_number.remove(&number);
        }
    }

    pub(crate) fn forget_network(&mut self, network: NetworkId) {
        self.of_owner.retain(|(_, of), _| *of != network);
        self.by_number.retain(|_, ((_, of), _)| *of != network);
    }

    pub(crate) const fn heard(&self) -> Heard {
        self.heard
    }

    /// Through which of an owner's changes all that was heard was acted upon; `None`: all of them.
    pub(crate) fn before(&self, of: (NodeId, NetworkId)) -> Option<u64> {
        self.of_owner.get(&of)?.front().map(|(_, before)| *before)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_number.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.by_number.len()
    }

    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.by_number.first_key_value().map(|(_, (_, until))| *until)
    }
}

/// How many of one owner in a network are waited for one by one.
const APART: usize = 64;
