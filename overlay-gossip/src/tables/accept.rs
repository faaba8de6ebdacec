//! Others' changes: whose they are, and whether they are taken in.

use overlay_core::{Instant, NetworkId, NodeId};

use crate::tables::chain::{Outcome, Room};
use crate::tables::verify::{Disbelief, Verify, statement};
use crate::tables::wire::{Change, Fresh, Group};
use crate::tables::{Chain, DIRECTORY, Pending, Tables, VOUCHERS};
use crate::{Key, TableId};

/// How changes came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    /// As news, to be passed on.
    News,
    /// As an answer to a request.
    Answer,
    /// As an answer from their owner, whose word stands even against what is here.
    Owner,
    /// As an answer to membership, which has verified them.
    Proof,
}

impl Tables {
    pub(super) fn handle_fresh(&mut self, _from: NodeId, fresh: Fresh, now: Instant) {
        for (network, group) in fresh.groups {
            self.accept(network, group, By::News, now);
        }
    }

    /// Takes changes of one owner in; whether none was refused. What is refused comes again by comparison, once it may.
    pub(super) fn accept(&mut self, network: NetworkId, mut group: Group, by: By, now: Instant) -> bool {
        if !self.replicas.contains_key(&network) {
            self.counts.refused.foreign_network += group.changes.len() as u64;
            return false;
        }
        if !self.is_owners(network, &group) {
            return false;
        }
        let (owner, incarnation, stable) = (group.owner, group.incarnation, group.stable);
        let verify = self.config.verify.clone();
        if network == DIRECTORY && verify.is_some() {
            group.changes.sort_by_key(|change| change.table != VOUCHERS); // by which the others are verified
        }
        let spent = by == By::News && verify.is_some() && !self.forgeries.is_left(now);
        let room = self.room(network, SPANS + if by == By::News { 0 } else { 2 * self.config.entries() });
        let (cap, most) = (self.config.tombstone_cap, self.config.entries());
        let Some(replica) = self.replicas.get_mut(&network) else {
            return false;
        };
        let before = replica.chain(owner).map_or(0, |chain| chain.through().0);
        let signed = |change: &Change| match verify.as_deref() {
            Some(verify) if by != By::Proof => check(verify, (network, owner, incarnation), change),
            _ => Ok(()),
        };
        let mut tally = Tally { spent, ..Tally::default() };
        let collected = replica.edit(owner, incarnation, |chain| {
            group.changes.into_iter().for_each(|change| tally.take(chain, change, (by, room, now), signed));
            // A number that only serves to forget tombstones early needs no proof: see `Chain`.
            chain.stable = chain.stable.max(stable);
            if chain.spent() > 0 { chain.collect(cap, most, now) } else { 0 }
        });
        self.counts.collected += collected as u64;
        self.count(&tally, by);
        if tally.forged > 0 {
            self.forgeries.take(now);
        }
        let all = tally.full + tally.disbelieved() == 0;
        if !tally.applied.is_empty() {
            self.note_unacted(owner, network, before, now);
        }
        for (table, key, len) in tally.applied {
            self.changed(network, owner, (table, key.clone()), now);
            if by == By::News {
                self.tell((network, owner, table, key), true, len, now);
            }
        }
        self.note_through(network, owner, before, now);
        all
    }

    const fn count(&mut self, tally: &Tally, by: By) {
        let counts = &mut self.counts;
        counts.stale += tally.stale;
        counts.repaired += tally.repaired;
        counts.refused.full += tally.full;
        counts.refused.unsigned += tally.unsigned;
        counts.refused.unvouched += tally.unvouched;
        counts.refused.signature += tally.forged;
        counts.refused.unverified += tally.unverified;
        match by {
            By::News => counts.taken_fresh += tally.applied.len() as u64,
            By::Answer | By::Owner | By::Proof => counts.taken_pulled += tally.applied.len() as u64,
        }
    }

    /// Whether an owner may have made changes of this start in a network; counted if not.
    fn is_owners(&mut self, network: NetworkId, group: &Group) -> bool {
        let (owner, incarnation) = (group.owner, group.incarnation);
        let subscribed = self.subscribed(owner, network);
        let refused = &mut self.counts.refused;
        let reason = match self.members.get(owner) {
            _ if owner == self.me => &mut refused.own_name,
            None => &mut refused.unknown_owner,
            Some(known) if known.incarnation > incarnation => &mut refused.past_incarnation,
            Some(known) if known.incarnation < incarnation => &mut refused.unknown_owner,
            Some(_) if !subscribed => &mut refused.not_subscribed,
            Some(_) => return true,
        };
        *reason += group.changes.len() as u64;
        false
    }

    /// An entry is another than it was: has its user told, and minds subscriptions.
    pub(super) fn changed(&mut self, network: NetworkId, owner: NodeId, (table, key): (TableId, Key), now: Instant) {
        if network != DIRECTORY {
            if !self.members.is_hidden(owner) {
                self.events.push(Pending::Entry((network, owner, table, key)), self.config.events_limit);
            }
        } else if let Ok(id) = <[u8; 16]>::try_from(key.as_bytes()) {
            self.subscription_changed(owner, NetworkId::from_bytes(id), now);
        }
    }

    /// Has the owner told if all up to a later number than `before` was seen now, unless something of it is yet to be acted upon.
    pub(super) fn note_through(&mut self, network: NetworkId, owner: NodeId, before: u64, now: Instant) {
        let chain = self.replicas.get(&network).and_then(|replica| replica.chain(owner));
        let through = chain.map_or(0, |chain: &Chain| chain.through().0);
        if network != DIRECTORY && through > before && self.unacted.before((owner, network)).is_none() {
            self.owe_confirmation(owner, network, now);
        }
    }
}

/// What became of some changes.
#[derive(Debug, Default)]
struct Tally {
    stale: u64,
    full: u64,
    unsigned: u64,
    unvouched: u64,
    forged: u64,
    unverified: u64,
    /// Whether no more signatures are looked at.
    spent: bool,
    repaired: u64,
    applied: Vec<(TableId, Key, usize)>,
}

impl Tally {
    fn take(
        &mut self,
        chain: &mut Chain,
        change: Change,
        (by, room, now): (By, Room, Instant),
        signed: impl Fn(&Change) -> Result<(), Disbelief>,
    ) {
        let seen = chain.seen().contains(change.sequence);
        if seen && !(by == By::Owner && chain.differs(&change)) {
            self.stale += 1;
            return;
        }
        if !self.believes(&change, signed) {
            return;
        }
        let applied = (change.table, change.key.clone(), change.encoded_len());
        if seen {
            chain.repair(change, now);
            self.repaired += 1;
            return self.applied.push(applied);
        }
        match chain.apply(change, room, now) {
            Outcome::Applied => self.applied.push(applied),
            Outcome::Stale => self.stale += 1,
            Outcome::Full => self.full += 1,
        }
    }

    /// Whether a change is its owner's; counted if not. Who passes on one that is forged is not believed on what comes with it, so that it costs us one signature.
    fn believes(&mut self, change: &Change, signed: impl Fn(&Change) -> Result<(), Disbelief>) -> bool {
        let count = if self.spent || self.forged > 0 {
            &mut self.unverified
        } else {
            match signed(change) {
                Ok(()) => return true,
                Err(Disbelief::Unsigned) => &mut self.unsigned,
                Err(Disbelief::Unvouched) => &mut self.unvouched,
                Err(Disbelief::Forged) => &mut self.forged,
            }
        };
        *count += 1;
        false
    }

    const fn disbelieved(&self) -> u64 {
        self.unsigned + self.unvouched + self.forged + self.unverified
    }
}

/// Whether a change is its owner's, who may show by it how its others are verified.
fn check(
    verify: &dyn Verify,
    (network, owner, incarnation): (NetworkId, NodeId, u64),
    change: &Change,
) -> Result<(), Disbelief> {
    let statement = statement(network, owner, incarnation, change);
    match &change.value {
        Some(voucher) if network == DIRECTORY && change.table == VOUCHERS => {
            verify.introduce(owner, voucher, &statement, &change.signature)
        }
        _ => verify.verify(owner, &statement, &change.signature),
    }
}

/// The most spans of seen numbers per owner that news may make; a change that would open another gap waits for a comparison.
const SPANS: usize = 1_024;
