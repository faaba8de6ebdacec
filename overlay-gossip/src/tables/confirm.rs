//! Confirmations, reminders, and what follows for tombstones.

use overlay_core::{Instant, NetworkId, NodeId};

use crate::Heard;
use crate::tables::wire::{Confirm, Confirmed, Message, Tip};
use crate::tables::{DIRECTORY, Pending, Released, Tables, Unacted};

impl Tables {
    /// Has an owner told soon how far its changes are here.
    pub(super) fn owe_confirmation(&mut self, owner: NodeId, network: NetworkId, now: Instant) {
        self.gather_confirmations(now);
        self.confirms.insert((owner, network));
    }

    /// The first that comes has others gathered for a while.
    fn gather_confirmations(&mut self, now: Instant) {
        if self.confirms.is_empty() && (self.unacted.is_empty() || self.confirm_due <= now) {
            self.confirm_due = now + self.chance.around(self.config.confirm_delay);
        }
    }

    /// An owner's changes are to be acted upon before it is told that they were seen; all up to `before` had been seen when they came.
    pub(super) fn note_unacted(&mut self, owner: NodeId, network: NetworkId, before: u64, now: Instant) {
        if let Some(within) = self.config.act_within.filter(|_| network != DIRECTORY) {
            self.gather_confirmations(now);
            self.unacted.note((owner, network), before, now + within);
        }
    }

    /// All that is seen of an owner is to be acted upon anew before it is told anything more.
    pub(super) fn note_restored(&mut self, owner: NodeId, now: Instant) {
        let Some(within) = self.config.act_within else { return };
        let networks = self.replicas.iter().filter(|(network, _)| **network != DIRECTORY);
        for (network, _) in networks.filter(|(_, replica)| replica.chain(owner).is_some()) {
            self.unacted.renew((owner, *network), now + within);
        }
    }

    /// The number of the last change that was heard of another node.
    pub(crate) const fn heard(&self) -> Heard {
        self.unacted.heard()
    }

    /// Numbers what comes from this on: nothing was heard yet.
    pub(crate) fn count_on(&mut self, heard: Heard) {
        self.unacted = Unacted::after(heard);
    }

    /// All up to this number were acted upon.
    pub(crate) fn acted(&mut self, through: Heard) {
        let released = self.unacted.release(through);
        self.owe_released(released);
    }

    pub(super) fn expire_unacted(&mut self, now: Instant) {
        let released = self.unacted.expire(now);
        self.owe_released(released);
    }

    /// Whoever can be told more than before is, as soon as others' were gathered.
    fn owe_released(&mut self, released: Released) {
        for ((owner, network), before) in released {
            if self.confirmable(owner, network) > before {
                self.confirms.insert((owner, network));
            }
        }
    }

    /// Through which of an owner's changes it can be told that they are here: all were seen, and what was heard up to there was acted upon.
    fn confirmable(&self, owner: NodeId, network: NetworkId) -> u64 {
        let chain = self.replicas.get(&network).and_then(|replica| replica.chain(owner));
        let seen = chain.map_or(0, |chain| chain.through().0);
        self.unacted.before((owner, network)).map_or(seen, |before| before.min(seen))
    }

    pub(super) fn confirm_due(&mut self, now: Instant) {
        if self.confirms.is_empty() || self.confirm_due > now {
            return;
        }
        self.confirm_due = now + self.chance.around(self.config.confirm_delay);
        for _ in 0..CONFIRMED {
            let after = self.confirms.range((self.confirm_cursor, NetworkId::from_bytes([0; 16]))..).next();
            let Some((owner, _)) = after.or_else(|| self.confirms.first()).copied() else {
                return;
            };
            self.confirm_to(owner);
            self.confirm_cursor = owner;
        }
    }

    /// Sends all confirmations that one owner is owed.
    fn confirm_to(&mut self, owner: NodeId) {
        let (low, high) = (NetworkId::from_bytes([0; 16]), NetworkId::from_bytes([0xff; 16]));
        let owed: Vec<NetworkId> =
            self.confirms.range((owner, low)..=(owner, high)).map(|(_, network)| *network).collect();
        self.confirms.retain(|(of, _)| *of != owner);
        let confirmed = |network: &NetworkId| {
            let chain = self.replicas.get(network)?.chain(owner)?;
            let (subscription, _) = self.subscription(self.me, *network)?;
            let (owner_incarnation, through) = (chain.incarnation, self.confirmable(owner, *network));
            let says = through > 0 || self.unacted.before((owner, *network)).is_none();
            says.then_some(Confirmed { network: *network, subscription, owner_incarnation, through })
        };
        if !self.members.is_live(owner) {
            return;
        }
        let networks: Vec<Confirmed> = owed.iter().filter_map(confirmed).collect();
        for some in networks.chunks(CONFIRMED_NETWORKS) {
            let confirm = Confirm { incarnation: self.incarnation, networks: some.to_vec() };
            self.outbox.push(owner, &Message::Confirm(confirm), self.config.datagram);
        }
    }

    pub(super) fn handle_confirm(&mut self, from: NodeId, confirm: &Confirm, now: Instant) {
        for confirmed in &confirm.networks {
            if confirmed.owner_incarnation == self.incarnation {
                let word = (confirm.incarnation, confirmed.subscription);
                self.confirmed(from, word, (confirmed.network, confirmed.through), now);
            } else {
                self.counts.refused.confirmation += 1;
            }
        }
    }

    /// Takes a subscriber's word, of one of its starts and subscriptions, for having seen this node's changes.
    pub(super) fn confirmed(
        &mut self,
        from: NodeId,
        (incarnation, subscription): (u64, u64),
        (network, through): (NetworkId, u64),
        now: Instant,
    ) {
        if network == DIRECTORY {
            return;
        }
        let current = self.members.get(from).is_some_and(|known| known.incarnation == incarnation)
            && self.subscription(from, network).is_some_and(|(sequence, _)| sequence == subscription);
        let Some(replica) = self.replicas.get_mut(&network) else {
            self.counts.refused.foreign_network += 1;
            return;
        };
        let made = replica.chain(self.me).map_or(0, |chain| chain.through().0);
        if !current || through > made {
            self.counts.refused.confirmation += 1;
        } else if self.members.subscribes(from, network) {
            replica.confirmations.confirm(from, through);
            self.settle(network, now);
        }
    }

    /// Minds that the watermark may have moved: tells the user, and forgets tombstones that all have seen.
    pub(super) fn settle(&mut self, network: NetworkId, now: Instant) {
        let (Some(mark), me, incarnation) = (self.watermark(network), self.me, self.incarnation) else {
            return;
        };
        let (cap, most) = (self.config.tombstone_cap, self.config.entries());
        let Some(replica) = self.replicas.get_mut(&network) else {
            return;
        };
        if mark.0 <= replica.told {
            return;
        }
        replica.told = mark.0;
        let collected = replica.edit(me, incarnation, |chain| {
            chain.stable = mark.0;
            if chain.spent() > 0 { chain.collect(cap, most, now) } else { 0 }
        });
        if collected > 0 {
            replica.to_tell = self.members.subscribers(network).to_vec();
            self.awake = true;
        }
        self.counts.collected += collected as u64;
        self.events.push(Pending::Watermark(network), self.config.events_limit);
    }

    pub(super) fn handle_tip(&mut self, from: NodeId, tip: Tip, now: Instant) {
        let Tip { network, incarnation, through, stable } = tip;
        let known = self.members.get(from).is_some_and(|known| known.incarnation == incarnation);
        if !known || !self.subscribed(from, network) || network == DIRECTORY {
            self.counts.refused.unknown_owner += 1;
            return;
        }
        let (cap, most) = (self.config.tombstone_cap, self.config.entries());
        let Some(replica) = self.replicas.get_mut(&network) else {
            self.counts.refused.foreign_network += 1;
            return;
        };
        let behind = replica.chain(from).is_none_or(|chain| chain.through().0 < through);
        if replica.chain(from).is_some_and(|chain| chain.spent() > 0) {
            let collected = replica.edit(from, incarnation, |chain| {
                chain.stable = chain.stable.max(stable);
                chain.collect(cap, most, now)
            });
            self.counts.collected += collected as u64;
        }
        if behind {
            self.pull(from, network, vec![(from, incarnation)], now);
        }
        self.owe_confirmation(from, network, now);
    }

    /// Reminds subscribers that are behind, tells others what they may forget, and drops what is too old.
    pub(super) fn remind_due(&mut self, now: Instant) {
        if !self.awake || self.remind_due > now {
            return;
        }
        self.remind_due = now + self.chance.around(self.config.remind_interval);
        self.awake = false;
        let networks: Vec<NetworkId> = self.replicas.keys().copied().collect();
        for network in networks {
            self.remind(network);
            self.collect_old(network, now);
        }
    }

    fn remind(&mut self, network: NetworkId) {
        let Some(replica) = self.replicas.get_mut(&network).filter(|_| network != DIRECTORY) else {
            return;
        };
        let Some(chain) = replica.chain(self.me) else {
            return;
        };
        let (through, stable) = (chain.through().0, chain.stable);
        let subscribers = self.members.subscribers(network);
        let behind = replica.confirmations.behind(subscribers, through, replica.cursor);
        let mut to: Vec<NodeId> = behind.take(REMINDED).collect();
        replica.cursor = to.last().copied().unwrap_or(replica.cursor);
        let rest = replica.to_tell.len().saturating_sub(TOLD);
        to.extend(replica.to_tell.split_off(rest));
        self.awake |= !to.is_empty();
        let tip = Message::Tip(Tip { network, incarnation: self.incarnation, through, stable });
        for node in to {
            self.outbox.push(node, &tip, self.config.datagram);
        }
    }

    fn collect_old(&mut self, network: NetworkId, now: Instant) {
        let (cap, most) = (self.config.tombstone_cap, self.config.entries());
        let Some(replica) = self.replicas.get_mut(&network) else {
            return;
        };
        let with = replica.chains().iter().filter(|(_, chain)| chain.spent() > 0);
        let owners: Vec<(NodeId, u64)> = with.map(|(owner, chain)| (*owner, chain.incarnation)).collect();
        self.awake |= !owners.is_empty();
        for (owner, incarnation) in owners {
            self.counts.collected += replica.edit(owner, incarnation, |chain| chain.collect(cap, most, now)) as u64;
        }
    }
}

/// Owners that are told at a time, so that a change of everybody makes no storm.
const CONFIRMED: usize = 32;
/// Networks in one confirmation: 46 bytes each at most, so that it is a datagram even of the smallest budget.
const CONFIRMED_NETWORKS: usize = 8;
/// Subscribers that are reminded at a time.
const REMINDED: usize = 16;
/// Subscribers that are told at a time what they may forget.
const TOLD: usize = 64;
