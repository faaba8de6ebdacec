//! What membership tells, and what follows for entries.

use std::time::Duration;

use overlay_core::{Instant, NetworkId, NodeId};

use crate::TableId;
use crate::member_change::MemberChange;
use crate::tables::members::{Known, Sight};
use crate::tables::{DIRECTORY, Pending, Tables};

impl Tables {
    /// Takes a change of a member's standing. Changes of this node are ignored.
    pub(crate) fn handle_member(&mut self, member: NodeId, change: MemberChange, now: Instant) {
        if member == self.me {
            return;
        }
        match change {
            MemberChange::Alive { incarnation } => self.member_alive(member, incarnation, now),
            MemberChange::Suspended => self.member_suspended(member, now),
            MemberChange::Expired | MemberChange::Left => self.member_gone(member, now),
        }
    }

    fn member_alive(&mut self, member: NodeId, incarnation: u64, now: Instant) {
        let before = self.members.get(member).copied();
        match before {
            Some(known) if known.incarnation > incarnation => return,
            Some(known) if known.incarnation < incarnation => {
                if !self.proved_starts {
                    self.forget_shown(member);
                }
                self.forget_entries(member, now);
            }
            _ => {}
        }
        self.forget_hiding(member);
        self.members.insert(member, Known { incarnation, sight: Sight::Live });
        self.refresh_all(member, now);
        if before.is_some_and(|known| known.sight == Sight::Hidden) {
            self.owner_events(member, Pending::Restored);
            self.note_restored(member, now);
        }
        if before.is_some_and(|known| known.sight != Sight::Live) {
            let soon = self.chance.within(GREETING);
            if self.greetings.is_empty() {
                self.greet_due = now + soon;
            }
            self.greetings.insert(member);
        }
    }

    fn member_suspended(&mut self, member: NodeId, now: Instant) {
        let Some(known) = self.members.get_mut(member) else {
            return;
        };
        if known.sight == Sight::Live {
            let at = now + self.config.hide_after;
            known.sight = Sight::Fading(at);
            self.hides.insert((at, member));
            self.refresh_all(member, now);
            self.pulls.forget_peer(member);
        }
    }

    fn member_gone(&mut self, member: NodeId, now: Instant) {
        self.forget_shown(member);
        self.forget_entries(member, now);
        self.forget_hiding(member);
        self.members.remove(member);
        self.refresh_all(member, now);
        self.pulls.forget_peer(member);
        self.greetings.remove(&member);
        self.confirms.retain(|(owner, _)| *owner != member);
    }

    /// Hides entries of members that are suspended for longer than the grace.
    pub(super) fn hide_due(&mut self, now: Instant) {
        while let Some((due, member)) = self.hides.first().copied().filter(|(due, _)| *due <= now) {
            self.hides.remove(&(due, member));
            if let Some(known) = self.members.get_mut(member) {
                known.sight = Sight::Hidden;
                self.owner_events(member, Pending::Hidden);
            }
        }
    }

    /// A member's entries are not to be hidden any more.
    fn forget_hiding(&mut self, member: NodeId) {
        if let Some(Sight::Fading(at)) = self.members.get(member).map(|known| known.sight) {
            self.hides.remove(&(at, member));
        }
    }

    /// Compares with those that were away, some at a time.
    pub(super) fn greet_due(&mut self, now: Instant) {
        if self.greetings.is_empty() || self.greet_due > now {
            return;
        }
        for _ in 0..GREETED {
            let Some(member) = self.greetings.pop_first() else {
                break;
            };
            if self.members.is_live(member) {
                self.send_digest(member, None);
            }
        }
        self.greet_due = now + GREETING;
    }

    fn forget_shown(&self, member: NodeId) {
        if let Some(verify) = &self.config.verify {
            verify.forget(member);
        }
    }

    /// Drops all entries of a member, subscriptions included.
    fn forget_entries(&mut self, member: NodeId, now: Instant) {
        let networks: Vec<NetworkId> = self.replicas.keys().copied().collect();
        let subscriptions = self.subscriptions(member);
        for network in networks {
            self.drop_owner(network, member);
        }
        for network in subscriptions {
            self.refresh(network, member, now);
        }
    }

    /// Drops an owner's entries in a network.
    fn drop_owner(&mut self, network: NetworkId, owner: NodeId) {
        let dropped = self.replicas.get_mut(&network).is_some_and(|replica| replica.drop_chain(owner));
        self.fresh.forget(network, Some(owner));
        self.unacted.forget((owner, network));
        self.pulls.forget_owner(network, owner);
        if dropped && network != DIRECTORY {
            let limit = self.config.events_limit;
            self.events.push_owner(Pending::Dropped(network, owner), owner, limit);
        }
    }

    /// A node subscribed to a network or does so no longer, or anew.
    pub(super) fn subscription_changed(&mut self, owner: NodeId, network: NetworkId, now: Instant) {
        if network == DIRECTORY {
            return; // nobody subscribes to it by a change
        }
        match self.subscription(owner, network) {
            None => self.drop_owner(network, owner),
            Some((_, base)) => self.rebase(owner, network, base, now),
        }
        if let Some(replica) = self.replicas.get_mut(&network) {
            replica.confirmations.remove(owner); // what it confirmed, it may have forgotten
        }
        self.refresh(network, owner, now);
    }

    /// A network is subscribed to from now on: minds what was known of its subscribers.
    pub(super) fn replica_begins(&mut self, network: NetworkId, now: Instant) {
        if let Some((_, base)) = self.subscription(self.me, network) {
            self.rebase(self.me, network, base, now);
        }
        let owners: Vec<NodeId> = self
            .replicas
            .get(&DIRECTORY)
            .into_iter()
            .flat_map(|directory| directory.chains().keys().copied())
            .collect();
        let me = self.me;
        for owner in owners.into_iter().filter(|owner| *owner != me) {
            if self.subscription(owner, network).is_some() {
                self.subscription_changed(owner, network, now);
            }
        }
        self.hurry_now(network, now);
    }

    /// Has an owner's chain begin above `base`, if it is not 0.
    fn rebase(&mut self, owner: NodeId, network: NetworkId, base: u64, now: Instant) {
        if base == 0 {
            return;
        }
        let incarnation =
            if owner == self.me { Some(self.incarnation) } else { self.members.get(owner).map(|m| m.incarnation) };
        let (Some(incarnation), Some(replica)) = (incarnation, self.replicas.get_mut(&network)) else {
            return;
        };
        let before = replica.chain(owner).map_or(0, |chain| chain.through().0);
        let gone = replica.edit(owner, incarnation, |chain| chain.rebase(base));
        if !gone.is_empty() {
            self.note_unacted(owner, network, before, now);
        }
        for entry in gone {
            self.changed(network, owner, entry, now);
        }
    }

    /// Says again in which networks a member is a live subscriber.
    fn refresh_all(&mut self, member: NodeId, now: Instant) {
        let live = self.members.is_live(member);
        let first = self.members.set_subscriber(DIRECTORY, member, live) && live;
        if first && self.members.subscribers(DIRECTORY).len() == 1 {
            self.hurry_now(DIRECTORY, now);
        }
        for network in self.subscriptions(member) {
            self.refresh(network, member, now);
        }
    }

    /// Says again whether a member is a live subscriber of a network.
    fn refresh(&mut self, network: NetworkId, member: NodeId, now: Instant) {
        let is = self.members.is_live(member) && self.subscription(member, network).is_some();
        let changed = self.members.set_subscriber(network, member, is);
        let Some(replica) = self.replicas.get_mut(&network) else {
            return;
        };
        self.awake |= is;
        if !is {
            replica.confirmations.remove(member);
        }
        if changed && is && self.members.subscribers(network).len() == 1 {
            self.hurry_now(network, now);
        }
        self.settle(network, now);
    }

    /// The networks that a member subscribes to.
    fn subscriptions(&self, member: NodeId) -> Vec<NetworkId> {
        let chain = self.replicas.get(&DIRECTORY).and_then(|directory| directory.chain(member));
        let keys = chain.into_iter().flat_map(|chain| chain.entries(TableId(0)));
        keys.filter_map(|(key, ..)| Some(NetworkId::from_bytes(key.as_bytes().try_into().ok()?))).collect()
    }

    /// An event for each network in which an owner has entries.
    fn owner_events(&mut self, owner: NodeId, event: impl Fn(NetworkId, NodeId) -> Pending) {
        for (network, replica) in &self.replicas {
            let has = replica.chain(owner).is_some_and(|chain| chain.len() > chain.tombstones());
            if has && *network != DIRECTORY {
                self.events.push_owner(event(*network, owner), owner, self.config.events_limit);
            }
        }
    }
}

/// How soon a node that was away is compared with, at most, and how long until the next ones are.
const GREETING: Duration = Duration::from_millis(50);
/// How many are compared with at a time.
const GREETED: usize = 8;
