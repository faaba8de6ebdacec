//! Comparing what foca knows with another node, over a stream: what it has no message for.

use std::collections::BTreeSet;

use overlay_core::{Instant, NodeId};

use crate::digest::{bucket, chunks, differing, digest, replies};
use crate::foca_core::{FocaCore, SYNC_PERIODS};
use crate::membership::{Outgoing, Source};
use crate::wire::{self, BUCKETS, Kind, SyncPush, SyncReply, SyncRequest, Update};
use crate::{Class, Standing};

impl FocaCore {
    pub(super) fn begin_sync(&mut self, now: Instant) {
        self.sync_at = now + self.chance.around(self.config.sync_interval * SYNC_PERIODS);
        self.reconcile(now);
        let with = self.live.get(self.chance.below(self.live.len())).copied();
        let Some(known) = with.and_then(|id| self.known.get(&id)) else { return };
        let to = Source { node: known.member.id, address: known.member.address };
        self.counts.syncs += 1;
        self.asked = Some(to.node);
        let mut body = Vec::new();
        SyncRequest { me: self.my_update(), digests: Some(Box::new(self.digests())) }.encode(&mut body);
        self.stream(to, Kind::SyncRequest, &body);
    }

    pub(super) fn on_sync_request(&mut self, from: Source, request: &SyncRequest, now: Instant) {
        if request.me.member.id != from.node {
            self.counts.stray += 1;
            return;
        }
        self.apply(std::slice::from_ref(&request.me));
        let to = Source { address: request.me.member.address, ..from };
        let buckets = request.digests.as_deref().map_or(u64::MAX, |theirs| differing(&self.digests(), theirs));
        for reply in replies(buckets, self.updates_of(buckets, &BTreeSet::new(), now)) {
            let mut body = Vec::new();
            reply.encode(&mut body);
            self.stream(to, Kind::SyncReply, &body);
        }
    }

    pub(super) fn on_sync_reply(&mut self, from: Source, reply: &SyncReply, now: Instant) {
        if self.asked != Some(from.node) {
            self.counts.stray += 1;
            return;
        }
        self.apply(&reply.updates);
        if reply.last {
            self.asked = None;
            let told: BTreeSet<NodeId> = reply.updates.iter().map(|update| update.member.id).collect();
            for updates in chunks(self.updates_of(reply.buckets, &told, now), Update::encoded_len) {
                let mut body = Vec::new();
                SyncPush { updates }.encode(&mut body);
                self.stream(from, Kind::SyncPush, &body);
            }
        }
    }

    /// Gives foca what another node said of the living; the dead it finds out about by itself.
    pub(super) fn apply(&mut self, updates: &[Update]) {
        let alive = updates.iter().filter(|update| update.standing == Standing::Alive);
        let members: Vec<_> = alive.map(|update| foca::Member::alive(super::Peer::of(update))).collect();
        self.count(|this| this.foca.apply_many(members.into_iter(), false, &mut this.runtime));
    }

    fn stream(&mut self, to: Source, kind: Kind, body: &[u8]) {
        let mut payload = wire::begin(self.me.id);
        wire::put_frame(kind, body, &mut payload);
        let outgoing = Outgoing { to: to.address, node: Some(to.node), class: Class::Stream, payload };
        self.transmits.push_back(outgoing);
    }

    fn my_update(&self) -> Update {
        self.foca.identity().update(Standing::Alive, std::time::Duration::ZERO)
    }

    fn digests(&self) -> [u64; BUCKETS] {
        let mut digests = [0; BUCKETS];
        let alive = self.known.values().filter(|known| known.standing == Standing::Alive).map(|known| &known.peer);
        for peer in alive.chain([self.foca.identity()]) {
            digests[bucket(peer.id())] ^= digest(peer.id(), peer.number());
        }
        digests
    }

    fn updates_of(&self, buckets: u64, without: &BTreeSet<NodeId>, now: Instant) -> Vec<Update> {
        let wanted = |id: NodeId| buckets >> bucket(id) & 1 == 1 && !without.contains(&id);
        let others = self.known.iter().filter(|(id, _)| wanted(**id));
        let mut updates: Vec<Update> =
            others.map(|(_, known)| known.peer.update(known.standing, now - known.since)).collect();
        if wanted(self.me.id) {
            updates.push(self.my_update());
        }
        updates
    }
}
