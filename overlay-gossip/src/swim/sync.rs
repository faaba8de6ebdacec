//! Comparing membership with one other node, over a stream.
//!
//! The asking node sends a digest of each of 64 parts of its live members; the asked one answers with all it knows of the
//! parts that differ; the first sends back what it knows otherwise. So nothing but differences travels, and a
//! newcomer gets all from one node.

use std::collections::BTreeSet;

use overlay_core::{Instant, NodeId};

use crate::digest::{bucket, chunks, differing, replies};
use crate::membership::{Membership, Source};
use crate::swim::Swim;
use crate::swim::apply::is_gone;
use crate::swim::claims::{Teller, Way};
use crate::swim::roster::{Index, ME};
use crate::wire::{Kind, SyncPush, SyncReply, SyncRequest, Update};
use crate::{Event, Member, Standing};

/// The comparison under way, and what starts the next.
#[derive(Debug)]
pub(super) struct Sync {
    /// Who has been asked, and where.
    with: Option<Source>,
    /// What the other is known to know as well.
    agreed: BTreeSet<NodeId>,
    /// Since when no digest has been equal to one's own.
    differing: Option<Instant>,
    /// Before this, none is begun for a digest's sake.
    not_before: Instant,
    /// How many digests in a row were equal to one's own.
    equal: u32,
    /// A newcomer asks again where it was answered first: others join at the same time through the same node.
    pub(super) again: Option<(Instant, Source)>,
}

impl Sync {
    pub(super) const fn new(now: Instant) -> Self {
        Self { with: None, agreed: BTreeSet::new(), differing: None, not_before: now, equal: 0, again: None }
    }
}

/// Equal digests in a row, after which everybody is taken to know who lives.
const EQUAL: u32 = 4;
/// News that are few enough to be told as often as usual.
const FEW_NEWS: usize = 32;
/// Members believed gone that are probed at once, when another node says that they live.
const CHALLENGES: usize = 64;

impl Swim {
    /// Looks at another's digest.
    pub(super) fn compare(&mut self, from: Source, digest: u64, now: Instant) {
        if digest == self.roster.digest() {
            self.sync.differing = None;
            self.sync.equal = self.sync.equal.saturating_add(1);
            if self.sync.equal >= EQUAL && self.news.len() > FEW_NEWS {
                self.drop_stale_news();
            }
            return;
        }
        self.sync.equal = 0;
        self.counts.digest_mismatches += 1;
        let since = *self.sync.differing.get_or_insert(now);
        if now - since >= self.config.sync_after && now >= self.sync.not_before && self.roster.find(from.node).is_some()
        {
            self.begin_sync(from, now);
        }
    }

    /// Several members drawn at random know of the same live members: news of who lives is told already. Whoever has
    /// missed it finds that out by the digests.
    fn drop_stale_news(&mut self) {
        let alive = |at: &Index| self.roster.slot(*at).is_some_and(|slot| slot.standing == Standing::Alive);
        let stale = self.news.iter().filter(alive).collect::<BTreeSet<Index>>();
        stale.into_iter().for_each(|at| self.news.remove(at));
    }

    pub(super) fn serve_sync(&mut self, now: Instant) {
        if let Some((_, with)) = self.sync.again.take_if(|(at, _)| *at <= now) {
            self.begin_sync(with, now);
        }
    }

    /// Whether somebody was asked a short while ago and has not told all yet.
    pub(super) fn is_syncing(&self, now: Instant) -> bool {
        self.sync.with.is_some() && now < self.sync.not_before
    }

    pub(super) fn begin_sync(&mut self, with: Source, now: Instant) {
        let Some(me) = self.roster.slot(ME).map(|slot| slot.update(now)) else { return };
        self.counts.syncs += 1;
        self.sync.with = Some(with);
        self.sync.agreed.clear();
        self.sync.not_before = now + self.chance.around(self.config.sync_interval);
        let digests = (self.roster.len() > 1).then(|| Box::new(*self.roster.digests()));
        let mut body = Vec::new();
        SyncRequest { me, digests }.encode(&mut body);
        self.stream(with.address, Some(with.node), Kind::SyncRequest, &body);
    }

    pub(super) fn on_sync_request(&mut self, from: Source, request: &SyncRequest, now: Instant) {
        if request.me.member.id != from.node {
            self.counts.stray += 1;
            return;
        }
        if let Some(at) = self.later_start(&request.me) {
            return self.challenge(at, request.me.member.address, now);
        }
        // Its later start is answered where it says, though that may be a claim yet.
        let mut teller = Teller::new(from.node, Some(request.me.member.address), Way::Itself);
        let is_later = self
            .roster
            .find(from.node)
            .and_then(|at| self.roster.slot(at))
            .is_none_or(|slot| slot.number() < request.me.number());
        self.on_news(&request.me, &mut teller, now);
        self.ask(&teller);
        let said = request.me.member.address;
        let address = if is_later { said } else { self.whereabouts(from.node, said) };
        let from = Source { address, ..from };
        let differing = request.digests.as_deref().map_or(u64::MAX, |theirs| differing(self.roster.digests(), theirs));
        let updates = self.updates_of(differing, &BTreeSet::new(), now);
        for reply in replies(differing, updates) {
            let mut body = Vec::new();
            reply.encode(&mut body);
            self.stream(from.address, Some(from.node), Kind::SyncReply, &body);
        }
    }

    /// Whether whoever speaks has started again since, elsewhere: what it asked for would be sent there.
    fn later_start(&self, said: &Update) -> Option<Index> {
        let at = self.roster.find(said.member.id)?;
        let held = &self.roster.slot(at)?.member;
        (held.incarnation > said.member.incarnation && held.address != said.member.address).then_some(at)
    }

    pub(super) fn on_sync_reply(&mut self, from: Source, reply: &SyncReply, now: Instant) {
        let Some(asked) = self.sync.with.filter(|with| with.node == from.node) else {
            self.counts.stray += 1;
            return;
        };
        if !self.seeds.joined {
            self.seeds.joined = true;
            self.sync.again = Some((now + self.chance.around(self.config.sync_after / 2), from));
            self.events.push_back(Event::Joined);
        }
        self.take_all(&reply.updates, Teller::new(asked.node, Some(asked.address), Way::Answer), now);
        for update in &reply.updates {
            let known = self.roster.find(update.member.id).and_then(|at| self.roster.slot(at));
            if known.is_some_and(|slot| slot.number() == update.number() && slot.standing == update.standing) {
                self.sync.agreed.insert(update.member.id);
            }
        }
        if reply.last {
            self.sync.with = None;
            let agreed = std::mem::take(&mut self.sync.agreed);
            self.push(from, &self.updates_of(reply.buckets, &agreed, now));
        }
    }

    fn push(&mut self, to: Source, updates: &[Update]) {
        for updates in chunks(updates.to_vec(), Update::encoded_len) {
            let mut body = Vec::new();
            SyncPush { updates }.encode(&mut body);
            self.stream(to.address, Some(to.node), Kind::SyncPush, &body);
        }
    }

    pub(super) fn on_sync_push(&mut self, from: Source, push: &SyncPush, now: Instant) {
        let address = self.member(from.node).map(|(member, _)| member.address);
        self.take_all(&push.updates, Teller::new(from.node, address, Way::Push), now);
    }

    /// Takes what a comparison gave. Those who are new to this node only are not news: everybody else may have compared too.
    /// A member that is said to be gone while it is alive for us is believed in: whoever thinks so will probe it.
    fn take_all(&mut self, updates: &[Update], mut teller: Teller, now: Instant) {
        let mut challenges = 0;
        for update in updates {
            let known = self.roster.find(update.member.id);
            let Some(slot) = known.and_then(|at| self.roster.slot(at)) else {
                self.take(update, &mut teller, now);
                continue;
            };
            let (same, standing) = (slot.number() == update.number(), slot.standing);
            let (at, id, address) = (known.unwrap_or(ME), slot.member.id, slot.member.address);
            if at != ME && same && update.standing == Standing::Suspended && !is_gone(standing) {
                continue;
            }
            if at != ME && same && is_gone(standing) && !is_gone(update.standing) && challenges < CHALLENGES {
                challenges += 1;
                self.challenge(at, address, now);
                continue;
            }
            debug_assert_eq!(id, update.member.id);
            if self.take(update, &mut teller, now).is_some() {
                self.news.add(at);
            }
        }
        self.ask(&teller);
    }

    /// What is known of the members of some buckets, without those the other knows as well.
    fn updates_of(&self, buckets: u64, without: &BTreeSet<NodeId>, now: Instant) -> Vec<Update> {
        let wanted = |member: &Member| buckets >> bucket(member.id) & 1 == 1 && !without.contains(&member.id);
        self.roster.iter().filter(|(_, slot)| wanted(&slot.member)).map(|(_, slot)| slot.update(now)).collect()
    }
}
