//! The keys of a cluster's gossip in their order.

mod text;

use std::collections::{BTreeSet, VecDeque};
use std::fmt;

use overlay_core::NodeId;

use super::{Generation, GossipKey, KeyId, Keyring, KeyringError, SuccessionRecord};
use crate::PublicKey;

pub use text::SuccessionTextError;

/// The keys of gossip that a node has, in the order in which the cluster comes to them; what outlives the node's start, and what it [says](Self::record) to others.
///
/// It is changed by a node's own [next](Self::succeed) key, by keys that were [wrapped](super::WrappedKey) for it, and by what others say. Each key has a [`Generation`]. What there is to agree upon only ever
/// grows: which generation seals, and from which on all are opened. So nodes that hear of each other agree, in whatever order they hear, whoever dies, and also if several
/// make a next key at once: the later one wins, and nobody lacks either.
///
/// ```
/// use overlay_crypto::PublicKey;
/// use overlay_crypto::gossip::{GossipKey, Succession};
///
/// let first = GossipKey::from_bytes([1; 32]); // a test's
/// let (mut ann, mut bob) = (Succession::new(first.clone()), Succession::new(first));
/// let next = GossipKey::from_bytes([2; 32]);
/// let generation = ann.succeed(next.clone())?; // ann opens with it, and wraps it for bob
/// bob.take(next, generation)?;
/// ann.lead(generation.id)?; // when all have it: ann seals with it
/// bob.hear(&ann.record(PublicKey::from_bytes([9; 32]))); // and so does bob
/// assert_eq!(bob.primary(), generation);
/// # Ok::<(), overlay_crypto::gossip::KeyringError>(())
/// ```
#[derive(Clone)]
pub struct Succession {
    /// In the order in which they came.
    keys: Vec<(u64, GossipKey)>,
    primary: KeyId,
    floor: Generation,
    aim: Generation,
    without: BTreeSet<NodeId>,
    /// The last that were retired: they do not come back by an old file.
    retired: VecDeque<KeyId>,
}

/// So many names of retired keys are remembered.
const RETIRED: usize = 64;
/// So far may another node be ahead: more changes than a cluster makes before a new node comes, which knows of none, and too few for a liar to use all numbers up.
const AHEAD: u64 = 1 << 20;

impl Succession {
    /// Of one key, the first of a cluster or whatever one comes with: others tell its number.
    pub fn new(key: GossipKey) -> Self {
        let primary = key.id();
        let (floor, aim) = (Generation::NONE, Generation::NONE);
        Self { keys: vec![(1, key)], primary, floor, aim, without: BTreeSet::new(), retired: VecDeque::new() }
    }

    /// Adds a key of a file or of somebody's hand, that opens; its number others tell, if they know it.
    ///
    /// # Errors
    /// [`KeyringError::Ambiguous`] if another has its name, [`KeyringError::Full`] at [`Keyring::LIMIT`]. Nothing was changed then.
    pub fn install(&mut self, key: GossipKey) -> Result<(), KeyringError> {
        let number = u64::from(self.floor == Generation::NONE);
        self.put(key, number).map(drop)
    }

    /// As [`install`](Self::install), unless the key was here and was retired: a file that is older than what is known rolls nothing back. Whether it was added.
    ///
    /// # Errors
    /// As [`install`](Self::install).
    pub fn remember(&mut self, key: GossipKey) -> Result<bool, KeyringError> {
        if self.retired.contains(&key.id()) { Ok(false) } else { self.install(key).map(|()| true) }
    }

    /// Adds the next key, that opens. No generation was later, as far as it is known here. Where there is no room, the earliest goes that does not seal.
    ///
    /// # Errors
    /// [`KeyringError::Ambiguous`] if another has its name. Nothing was changed then.
    pub fn succeed(&mut self, key: GossipKey) -> Result<Generation, KeyringError> {
        let generation = Generation { number: self.next(), id: key.id() };
        self.take(key, generation).map(|()| generation)
    }

    /// Adds a key that was wrapped for this node, which opens. Nothing happens if it is of a generation that all have retired. Where there is no room, the earliest
    /// goes that does not seal: of so many, most were never put to use, as who made them died.
    ///
    /// # Errors
    /// [`KeyringError::Ambiguous`] if another has its name, [`KeyringError::Full`] if the one that seals is later. Nothing was changed then.
    pub fn take(&mut self, key: GossipKey, generation: Generation) -> Result<(), KeyringError> {
        if generation < self.floor {
            return Ok(());
        }
        if self.keys.len() >= Keyring::LIMIT && self.get(generation.id).is_none() {
            let earliest = self.generations().filter(|it| it.id != self.primary).min();
            let goes =
                earliest.filter(|_| generation > self.primary()).ok_or(KeyringError::Full { most: Keyring::LIMIT })?;
            self.keys.retain(|(_, key)| key.id() != goes.id);
        }
        self.put(key, generation.number).map(drop)
    }

    /// Seals with that key from now on, and has others that hold it do so too: it becomes the latest if it is not.
    ///
    /// # Errors
    /// [`KeyringError::Unknown`] if it is not there. Nothing was changed then.
    pub fn lead(&mut self, id: KeyId) -> Result<(), KeyringError> {
        let (next, primary) = (self.next(), self.primary());
        let (number, _) = self.keys.iter_mut().find(|(_, key)| key.id() == id).ok_or(KeyringError::Unknown(id))?;
        if (Generation { number: *number, id }) < primary {
            *number = next;
        }
        self.primary = id;
        Ok(())
    }

    /// Takes a key away.
    ///
    /// # Errors
    /// [`KeyringError::Unknown`] if it is not there, [`KeyringError::Primary`] if it is the one that seals. Nothing was changed then.
    pub fn retire(&mut self, id: KeyId) -> Result<(), KeyringError> {
        if self.get(id).is_none() {
            return Err(KeyringError::Unknown(id));
        }
        if id == self.primary {
            return Err(KeyringError::Primary(id));
        }
        self.drop_all(|generation| generation.id == id);
        Ok(())
    }

    /// All keys before this generation are to go once everybody seals with it or a later one; and these nodes get no key, until they are [let in](Self::let_in).
    pub fn aim_at(&mut self, aim: Generation, without: impl IntoIterator<Item = NodeId>) {
        self.aim = self.aim.max(aim);
        let own: BTreeSet<NodeId> = without.into_iter().take(SuccessionRecord::WITHOUT).collect();
        let room = SuccessionRecord::WITHOUT - own.len();
        let others = self.without.iter().filter(|node| !own.contains(node)).take(room).copied().collect::<Vec<_>>();
        self.without = own.into_iter().chain(others).collect();
    }

    /// Of the nodes that get no key those get them again that are not `still` left out. Nothing happens until the floor is at the aim: before, they have keys that others open.
    pub fn let_in(&mut self, still: impl Fn(NodeId) -> bool) {
        if self.floor >= self.aim {
            self.without.retain(|node| still(*node));
        }
    }

    /// Everybody seals with the key that was aimed at, or a later one: all before go. Nothing happens while this node does not.
    pub fn reach(&mut self) {
        self.raise(self.aim);
    }

    /// Takes what another node says. Whether anything is otherwise now. Nothing happens if it says numbers far beyond all that are known here: nobody came so far unheard, and no key could be
    /// made after them.
    pub fn hear(&mut self, record: &SuccessionRecord) -> bool {
        let said = record.holds.iter().chain([&record.primary, &record.floor, &record.aim]);
        let most = self.next().saturating_add(AHEAD);
        if said.into_iter().any(|generation| generation.number > most) {
            return false;
        }
        let before = (self.generations().collect::<Vec<_>>(), self.primary, self.floor, self.aim, self.without.len());
        for (number, key) in &mut self.keys {
            let told = record.holds.iter().filter(|held| held.id == key.id()).map(|held| held.number);
            *number = told.max().unwrap_or_default().max(*number);
        }
        if record.primary > self.primary() && self.get(record.primary.id).is_some() {
            self.primary = record.primary.id;
        }
        if record.aim >= self.aim {
            let counts = record.aim > self.floor;
            self.aim = record.aim;
            // What this node has left out itself stays, however many others name.
            let room = SuccessionRecord::WITHOUT.saturating_sub(self.without.len());
            let news = record.without.iter().filter(|node| counts && !self.without.contains(node));
            let news: Vec<NodeId> = news.take(room).copied().collect();
            self.without.extend(news);
        }
        self.raise(record.floor);
        before != (self.generations().collect(), self.primary, self.floor, self.aim, self.without.len())
    }

    /// What others are told, by a start of the node with this public key.
    pub fn record(&self, public: PublicKey) -> SuccessionRecord {
        let (primary, holds) = (self.primary(), self.generations().collect());
        SuccessionRecord { public, primary, floor: self.floor, aim: self.aim, holds, without: self.without.clone() }
    }

    /// The key that seals.
    pub fn primary(&self) -> Generation {
        self.generations().find(|generation| generation.id == self.primary).unwrap_or(Generation::NONE) // it is there
    }

    /// From which generation on keys are opened.
    pub fn floor(&self) -> Generation {
        self.floor
    }

    /// What the floor is to be raised to.
    pub fn aim(&self) -> Generation {
        self.aim
    }

    /// The nodes that get no key.
    pub fn without(&self) -> &BTreeSet<NodeId> {
        &self.without
    }

    /// All keys, oldest first as they came.
    pub fn keys(&self) -> impl Iterator<Item = &GossipKey> {
        self.keys.iter().map(|(_, key)| key)
    }

    /// Where they stand.
    pub fn generations(&self) -> impl Iterator<Item = Generation> {
        self.keys.iter().map(|(number, key)| Generation { number: *number, id: key.id() })
    }

    /// The key of that name.
    pub fn get(&self, id: KeyId) -> Option<&GossipKey> {
        self.keys().find(|key| key.id() == id)
    }

    fn put(&mut self, key: GossipKey, number: u64) -> Result<Generation, KeyringError> {
        let id = key.id();
        if let Some((known, held)) = self.keys.iter_mut().find(|(_, held)| held.id() == id) {
            if !held.is(&key) {
                return Err(KeyringError::Ambiguous(id));
            }
            *known = number.max(*known);
            return Ok(Generation { number: *known, id });
        }
        if self.keys.len() >= Keyring::LIMIT {
            return Err(KeyringError::Full { most: Keyring::LIMIT });
        }
        self.retired.retain(|retired| *retired != id);
        self.keys.push((number, key));
        Ok(Generation { number, id })
    }

    /// The number of a key that is to come after all.
    fn next(&self) -> u64 {
        let known = self.generations().chain([self.floor, self.aim]).map(|generation| generation.number);
        known.max().unwrap_or_default().saturating_add(1).min(Generation::MOST)
    }

    fn raise(&mut self, floor: Generation) {
        if floor <= self.floor || self.primary() < floor {
            return;
        }
        self.floor = floor;
        self.drop_all(|generation| generation < floor);
    }

    /// What is not the primary and is so, goes.
    fn drop_all(&mut self, goes: impl Fn(Generation) -> bool) {
        let primary = self.primary;
        let is_over = |(number, key): &mut (u64, GossipKey)| {
            key.id() != primary && goes(Generation { number: *number, id: key.id() })
        };
        self.retired.extend(self.keys.extract_if(.., is_over).map(|(_, key)| key.id()));
        self.retired.drain(..self.retired.len().saturating_sub(RETIRED));
    }
}

impl PartialEq for Succession {
    /// Whether names, numbers and all else are the same: keys have their names.
    fn eq(&self, other: &Self) -> bool {
        let all = |it: &Self| (it.primary, it.floor, it.aim, it.without.clone(), it.retired.clone());
        self.generations().eq(other.generations()) && all(self) == all(other)
    }
}

impl Eq for Succession {}

impl fmt::Debug for Succession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let generations: Vec<Generation> = self.generations().collect();
        let mut shown = f.debug_struct("Succession");
        shown.field("keys", &generations).field("primary", &self.primary).field("floor", &self.floor);
        shown.field("aim", &self.aim).field("without", &self.without).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
