//! How one key of gossip follows another.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use overlay_core::{Instant, NodeId};
use overlay_crypto::gossip::{
    Generation, GossipKey, KeyId, Keyring, Recipient, Succession, SuccessionRecord, WrappedKey,
};
use overlay_crypto::{Cause, Chance, PublicKey, Rotation, RotationConfig, RotationCounts, RotationEvent, Stage};

use super::behind::Behind;

/// What a node's gossip is sealed with, and how that is changed.
///
/// A node that changes it makes the next key and wraps it for each other; when all [say](SuccessionRecord) that they hold it, it seals with it and so do they, by its word; when all say that they do, the
/// older ones go. What a node says is what it has written down, so it holds over restarts. Nothing of this hangs on one node: whoever says that it seals with a key is followed by all that hold it, a key that seals is wrapped for
/// whoever lacks it by the first node that has it, and what was to go goes when the last seals otherwise, if who wanted it is not there any more.
#[derive(Debug)]
pub(in super::super) struct Seal {
    pub(super) keyring: Keyring,
    pub(super) keys: Succession,
    /// As it was written down last: what others are told.
    pub(super) kept: Option<Succession>,
    /// What is being written down, and its number.
    pub(super) asked: (u64, Option<Succession>),
    pub(super) recipient: Recipient,
    pub(super) behind: Behind,
    pub(super) records: BTreeMap<NodeId, SuccessionRecord>,
    /// Whether something is other than when it was looked at last.
    pub(super) is_doubted: bool,
    /// When that was.
    pub(super) looked_at: Instant,
    pub(in super::super) counts: RotationCounts,
    /// A key that somebody seals with and that is not here: which, and when that was last said.
    pub(super) lacking: Option<(KeyId, Instant)>,
    chance: Chance,
    config: RotationConfig,
    by_time: bool,
    next: Option<Next>,
    wanted: Option<Wanted>,
    /// Since when this node has sealed with what key, and how much longer or shorter than usual it does.
    since: (KeyId, Instant, Duration),
    /// Since when all seal with what is aimed at.
    reached: Option<Instant>,
    due: Option<Instant>,
}

/// The key that this node has others change to.
#[derive(Debug)]
struct Next {
    rotation: Rotation,
    generation: Generation,
    /// The stage that the keys are in.
    stage: Stage,
}

/// A change that is to be.
#[derive(Debug)]
struct Wanted {
    cause: Cause,
    /// All keys up to this are to go.
    above: Generation,
    without: BTreeSet<NodeId>,
    /// When this node does it, if nobody has.
    at: Instant,
}

/// The others, as far as keys are concerned.
#[derive(Debug, Default)]
pub(super) struct Others {
    /// Whom gossip has not given up.
    pub(super) there: BTreeSet<NodeId>,
    /// Those of them that answer.
    pub(super) live: BTreeSet<NodeId>,
}

/// So few nodes are looked at each time that there is something new.
const MANY: usize = 64;
/// So many stages may end one after the other at once, where nobody is waited for.
const STAGES: usize = 3;

impl Seal {
    pub(super) fn new(
        node: NodeId,
        keys: Succession,
        mut chance: Chance,
        config: (RotationConfig, bool),
    ) -> Option<Self> {
        let mut keyring = Keyring::new(keys.get(keys.primary().id)?.clone(), &mut chance);
        keyring.follow(&keys);
        let recipient = Recipient::generate(node, &mut chance);
        let since = (keys.primary().id, Instant::ZERO, jittered(config.0.interval, &mut chance));
        Some(Self {
            keyring,
            keys,
            kept: None,
            asked: (0, None),
            recipient,
            behind: Behind::default(),
            records: BTreeMap::new(),
            is_doubted: true,
            looked_at: Instant::ZERO,
            counts: RotationCounts::default(),
            lacking: None,
            chance,
            config: config.0,
            by_time: config.1,
            next: None,
            wanted: None,
            since,
            reached: None,
            due: None,
        })
    }

    /// The stage that this node's change is in; steady while it has none under way.
    pub(super) fn stage(&self) -> Stage {
        self.next.as_ref().map_or(Stage::Steady, |next| next.stage)
    }

    /// Whether a node that has sealed with that key has said that it holds the one that this node seals with. What it said before it had that key is of long ago.
    pub(super) fn can_follow(&self, node: NodeId, key: KeyId) -> bool {
        let holds = |id: KeyId| move |record: &&SuccessionRecord| record.holds(Generation { number: 0, id });
        let record = self.records.get(&node).filter(holds(key));
        record.filter(holds(self.keys.primary().id)).is_some()
    }

    /// Any of the keys: of one who knows nobody, and which of them others open.
    pub(super) fn any_key(&mut self) -> Option<KeyId> {
        let which = self.dice(self.keys.keys().count() as u8);
        self.keys.keys().nth(which.into()).map(GossipKey::id)
    }

    /// When there is something to do.
    pub(in super::super) fn poll_timeout(&self) -> Option<Instant> {
        let doubted = self.is_doubted.then(|| self.looked_at + self.pause());
        let rotation = self.next.as_ref().and_then(|next| next.rotation.poll_timeout());
        let wanted = self.wanted.as_ref().filter(|_| self.next.is_none()).map(|wanted| wanted.at);
        let reached = self.reached.map(|since| since + self.patience());
        [doubted, rotation, wanted, reached, self.due].into_iter().flatten().min()
    }

    /// How long what is heard waits for more, since each look is at all nodes: where they are many, each has something to say when all start. 100 ms for 1,000.
    fn pause(&self) -> Duration {
        match self.records.len() {
            0..MANY => Duration::ZERO,
            many => many as u32 * Duration::from_micros(100),
        }
    }

    /// Another key is wanted, which these nodes do not get; this node makes it at that time, unless all older ones are gone by then.
    pub(super) fn want(&mut self, cause: Cause, without: impl IntoIterator<Item = NodeId>, at: Instant) {
        let above = self.keys.generations().max().unwrap_or(Generation::NONE);
        let new = Wanted { cause, above, without: without.into_iter().collect(), at };
        match &mut self.wanted {
            Some(wanted) => {
                wanted.above = wanted.above.max(new.above);
                wanted.without.extend(new.without);
                wanted.at = wanted.at.min(at);
            }
            None => self.wanted = Some(new),
        }
        self.is_doubted = true;
    }

    /// How long it takes at most until a change is over.
    pub(super) fn patience(&self) -> Duration {
        2 * self.config.limit + self.config.rest
    }

    /// Goes on with all that is due. Whom a stage left behind.
    pub(super) fn turn(&mut self, node: NodeId, others: &Others, now: Instant) -> BTreeSet<NodeId> {
        let mut behind = BTreeSet::new();
        self.mind_without(others);
        self.mind_wanted(others, now);
        self.mind_time(node, others, now);
        for _ in 0..STAGES {
            self.mind_next(others, &mut behind, now);
        }
        self.mind_aim(others, now);
        self.keyring.follow(&self.keys);
        behind
    }

    /// Who was left out is let in once it has a key of those that came after it, which it was given by hand; and is nobody's concern when it is not there.
    fn mind_without(&mut self, others: &Others) {
        let (aim, records) = (self.keys.aim(), &self.records);
        let has = |node| records.get(&node).is_some_and(|record| record.primary >= aim);
        self.keys.let_in(|node| others.there.contains(&node) && !has(node));
    }

    fn mind_wanted(&mut self, others: &Others, now: Instant) {
        let floor = self.keys.floor();
        self.wanted.take_if(|wanted| floor > wanted.above);
        let Some(wanted) = self.wanted.as_ref().filter(|wanted| self.next.is_none() && wanted.at <= now) else {
            return;
        };
        let (cause, without) = (wanted.cause, wanted.without.clone());
        // Of two parts of a cluster the smaller would change to keys that the other never has; but who asks for it, knows it.
        if cause == Cause::Demand || others.are_most(&without) {
            self.begin(cause, without, now);
        }
        let again = now + self.patience() + self.patience() / 8 * u32::from(self.dice(16)) / 16;
        self.wanted.iter_mut().for_each(|wanted| wanted.at = again);
    }

    /// A key that was used for as long as it may be is changed by the first of all nodes, and if that does not, by the next.
    fn mind_time(&mut self, node: NodeId, others: &Others, now: Instant) {
        let primary = self.keys.primary().id;
        if self.since.0 != primary {
            self.since = (primary, now, jittered(self.config.interval, &mut self.chance));
        }
        let (_, since, lifetime) = self.since;
        let rank = others.live.range(..node).count() as u32;
        let due = since + lifetime + self.patience().saturating_mul(rank);
        self.due = (self.by_time && self.next.is_none() && !others.live.is_empty()).then_some(due);
        if self.due.is_some_and(|due| due <= now) {
            if others.are_most(&BTreeSet::new()) {
                self.begin(Cause::Time, BTreeSet::new(), now);
            }
            self.since = (primary, now, lifetime);
            self.due = self.next.is_none().then_some(now + lifetime);
        }
    }

    fn begin(&mut self, cause: Cause, without: BTreeSet<NodeId>, now: Instant) {
        let (mut seed, before) = ([0; 32], self.keys.primary());
        self.chance.draw(&mut seed);
        let Ok(mut rotation) = Rotation::new(self.config, seed, now) else { return };
        let Ok(generation) = self.keys.succeed(GossipKey::generate(|to| self.chance.draw(to))) else { return };
        // By time the key before it is opened still, until the next time: who was away for less than that finds its way by itself.
        self.keys.aim_at(if cause == Cause::Time { before } else { generation }, without);
        rotation.rotate(cause, now);
        self.next = Some(Next { rotation, generation, stage: Stage::Installing });
    }

    fn mind_next(&mut self, others: &Others, behind: &mut BTreeSet<NodeId>, now: Instant) {
        let Some(mut next) = self.next.take_if(|_| true) else { return };
        if self.is_overtaken(&next) {
            return self.counts.ended += 1;
        }
        let lacks = |node: &&NodeId| self.records.get(node).is_none_or(|record| next.lacks(record));
        let missing: BTreeSet<NodeId> = others.waited_for(self.keys.without()).filter(lacks).copied().collect();
        let is_kept = self.kept.as_ref() == Some(&self.keys);
        next.rotation.handle_timeout(now);
        if is_kept && next.rotation.stage() == next.stage {
            next.rotation.handle_held(next.stage, now);
            if missing.is_empty() {
                next.rotation.handle_confirmed(next.stage, now);
            }
        }
        while let Some(event) = next.rotation.poll_event() {
            match event {
                RotationEvent::Began(_) => self.counts.began += 1,
                RotationEvent::Ended => self.counts.ended += 1,
                RotationEvent::LeftBehind(_) => {
                    self.counts.left_behind += 1;
                    behind.extend(&missing);
                }
                _ => {}
            }
        }
        let stage = next.rotation.stage();
        match (next.stage == stage, stage) {
            (true, _) | (_, Stage::Installing) => {}
            (_, Stage::Promoted) => drop(self.keys.lead(next.generation.id)),
            (_, Stage::Steady) => return self.keys.reach(),
        }
        next.stage = stage;
        self.next = Some(next);
    }

    /// Whether a later key is there, so that this one need not be. Who made it sees to it; and if not, another does later what was wanted.
    fn is_overtaken(&self, next: &Next) -> bool {
        let held = self.records.values().flat_map(|record| &record.holds).copied();
        match next.stage {
            Stage::Promoted => self.keys.primary() > next.generation,
            _ => held.chain(self.keys.generations()).any(|generation| generation > next.generation),
        }
    }

    /// If who wanted older keys to go is gone, they go all the same once all seal otherwise.
    fn mind_aim(&mut self, others: &Others, now: Instant) {
        let aim = self.keys.aim();
        let is_so = |node: &NodeId| self.records.get(node).is_some_and(|record| record.primary >= aim);
        let is_open = self.next.is_none() && aim > self.keys.floor() && self.keys.primary() >= aim;
        if !is_open || !others.waited_for(self.keys.without()).all(is_so) {
            self.reached = None;
            return;
        }
        let since = *self.reached.get_or_insert(now);
        if since + self.patience() <= now {
            self.keys.reach();
            self.reached = None;
        }
    }

    /// What is to be wrapped for others: of the keys that are written down here, those that somebody who answers lacks. O(nodes).
    pub(super) fn lacks(&self, node: NodeId, others: &Others) -> BTreeMap<NodeId, (PublicKey, Generation)> {
        let Some(kept) = &self.kept else { return BTreeMap::new() };
        let primary = kept.primary();
        let has = |other: &&NodeId| self.records.get(other).is_some_and(|record| record.primary == primary);
        let is_first = others.live.range(..node).find(has).is_none();
        let next = self.next.as_ref().map(|next| next.generation).filter(|next| kept.get(next.id).is_some());
        let all: Vec<Generation> = is_first.then_some(primary).into_iter().chain(next).collect();
        let lacking = |other: &NodeId| {
            // Who has no key that is opened still says nothing that counts: what is known of it is of before.
            let record = self.records.get(other).filter(|record| record.primary >= kept.floor())?;
            let lacks = all.iter().find(|generation| !record.holds(**generation))?;
            Some((*other, (record.public, *lacks)))
        };
        others.live.iter().filter(|other| !self.keys.without().contains(other)).filter_map(lacking).collect()
    }

    /// A key for another node; none if its public key is none.
    pub(super) fn wrap(&mut self, to: NodeId, (public, generation): (PublicKey, Generation)) -> Option<WrappedKey> {
        let key = self.keys.get(generation.id)?;
        WrappedKey::wrap(key, generation, (to, public), &mut self.chance).ok()
    }

    /// One of so many, by chance.
    fn dice(&mut self, sides: u8) -> u8 {
        let mut byte = [0];
        self.chance.draw(&mut byte);
        byte[0] % sides.max(1)
    }
}

impl Next {
    /// Whether a node has not done yet what this stage asks of it.
    fn lacks(&self, record: &SuccessionRecord) -> bool {
        match self.stage {
            Stage::Promoted => record.primary < self.generation,
            _ => !record.holds(self.generation),
        }
    }
}

impl Others {
    fn waited_for(&self, without: &BTreeSet<NodeId>) -> impl Iterator<Item = &NodeId> {
        self.there.iter().filter(|node| !without.contains(node))
    }

    /// Whether more than half of all that are there answer, this node included.
    fn are_most(&self, without: &BTreeSet<NodeId>) -> bool {
        let count = |of: &BTreeSet<NodeId>| 1 + of.difference(without).count();
        2 * count(&self.live) > count(&self.there)
    }
}

/// A tenth more or less.
fn jittered(interval: Duration, chance: &mut Chance) -> Duration {
    let mut bytes = [0; 2];
    chance.draw(&mut bytes);
    interval.mul_f64(0.9 + 0.2 * f64::from(u16::from_be_bytes(bytes)) / f64::from(u16::MAX))
}
