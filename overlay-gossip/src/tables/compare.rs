//! Comparison: who has the same as whom, and if not, what differs.

use std::collections::BTreeMap;
use std::time::Duration;

use overlay_core::{Instant, NetworkId, NodeId};

use crate::tables::wire::{Digest, Message, Pieces, Place, Root, Scope, Summary, Vector, Vectors};
use crate::tables::{Chain, Replica, Tables, hash};

impl Tables {
    /// Compares a network soon, since something changed; sooner if it is more than news can carry.
    pub(super) fn hurry(&mut self, network: NetworkId, bulk: bool, now: Instant) {
        let interval = if bulk { self.config.bulk_interval } else { self.config.compare_interval };
        let within = self.chance.around(interval / 2);
        self.awake = true;
        if let Some(replica) = self.replicas.get_mut(&network) {
            replica.hurry(within, bulk, now);
        }
    }

    /// Compares a network at once, since there is somebody to learn it from.
    pub(super) fn hurry_now(&mut self, network: NetworkId, now: Instant) {
        if let Some(replica) = self.replicas.get_mut(&network) {
            replica.hurry(Duration::ZERO, true, now);
        }
    }

    pub(super) fn compare_due(&mut self, now: Instant) {
        let due = |(_, replica): &(&NetworkId, &Replica)| replica.pace.due <= now;
        let networks: Vec<NetworkId> = self.replicas.iter().filter(due).map(|(network, _)| *network).collect();
        for network in networks {
            let Some(pace) = self.replicas.get(&network).map(|replica| replica.pace) else {
                continue;
            };
            if pace.due > now {
                continue; // went along with another network's
            }
            for peer in self.choose(network, if pace.bulk { BULK_PEERS } else { 1 }) {
                self.counts.comparisons += 1;
                self.send_digest(peer, Some(network));
                self.postpone_common(peer, now);
            }
            self.postpone(network, now);
        }
    }

    /// When a network is compared next, after it was.
    fn postpone(&mut self, network: NetworkId, now: Instant) {
        let Some(replica) = self.replicas.get_mut(&network) else {
            return;
        };
        let pace = &mut replica.pace;
        let interval = match pace.fast {
            0 => self.config.compare_interval,
            _ if pace.bulk => self.config.bulk_interval,
            _ => self.config.compare_interval / 2,
        };
        pace.fast = pace.fast.saturating_sub(1);
        pace.bulk &= pace.fast > 0;
        pace.due = now + self.chance.around(interval);
    }

    /// The quiet networks that went along to a node need not be compared for a while.
    fn postpone_common(&mut self, peer: NodeId, now: Instant) {
        let pause = self.chance.around(self.config.compare_interval);
        for network in self.common(peer, None) {
            if let Some(replica) = self.replicas.get_mut(&network).filter(|replica| replica.pace.fast == 0) {
                replica.pace.due = now + pause;
            }
        }
    }

    /// Networks that a node and this one subscribe to, `first` before all, as many as a datagram takes. Which ones, of very
    /// many, goes by who is due first.
    fn common(&self, peer: NodeId, first: Option<NetworkId>) -> Vec<NetworkId> {
        let others = self.replicas.iter().filter(|(network, _)| Some(**network) != first);
        let mut common: Vec<_> = others.filter(|(network, _)| self.members.subscribes(peer, **network)).collect();
        let room = self.config.datagram.saturating_sub(DIGEST_HEAD) / ROOT_LEN;
        if common.len() > room {
            common.sort_by_key(|(_, replica)| replica.pace.due);
        }
        first.into_iter().chain(common.into_iter().map(|(network, _)| *network)).take(room).collect()
    }

    pub(super) fn send_digest(&mut self, to: NodeId, first: Option<NetworkId>) {
        let root = |network| {
            let replica = self.replicas.get(&network)?;
            let subscription = self.subscription(self.me, network);
            let subscription = subscription.filter(|_| self.unacted.before((to, network)).is_none());
            let subscription = subscription.map_or(Root::NO_WORD, |(sequence, _)| sequence);
            Some(Root { network, subscription, hash: replica.root() })
        };
        let roots = self.common(to, first).into_iter().filter_map(root).collect();
        let digest = Message::Digest(Digest { incarnation: self.incarnation, roots });
        self.outbox.push(to, &digest, self.config.datagram);
    }

    pub(super) fn handle_digest(&mut self, from: NodeId, digest: &Digest, now: Instant) {
        for root in &digest.roots {
            let Some(replica) = self.replicas.get(&root.network) else {
                self.counts.refused.foreign_network += 1;
                continue;
            };
            if replica.root() != root.hash {
                self.counts.mismatches += 1;
                self.answer_mismatch(from, root.network);
            } else if root.subscription != Root::NO_WORD {
                let through = self.made(root.network);
                self.confirmed(from, (digest.incarnation, root.subscription), (root.network, through), now);
            }
        }
    }

    fn answer_mismatch(&mut self, to: NodeId, network: NetworkId) {
        if self.is_overloaded() {
            return;
        }
        let Some(replica) = self.replicas.get(&network) else {
            return;
        };
        if replica.chains().len() <= FEW_OWNERS {
            return self.send_vectors(to, network, &Scope::ALL);
        }
        let summary = Summary { network, hashes: *replica.hashes() };
        self.outbox.push(to, &Message::Summary(Box::new(summary)), self.config.datagram);
    }

    pub(super) fn handle_summary(&mut self, from: NodeId, summary: &Summary) {
        let Some(replica) = self.replicas.get(&summary.network) else {
            self.counts.refused.foreign_network += 1;
            return;
        };
        let pairs = replica.hashes().iter().zip(&summary.hashes).enumerate();
        let differing = pairs.filter(|(_, (own, theirs))| own != theirs).fold(0, |mask, (at, _)| mask | 1 << at);
        if differing == 0 {
            return;
        }
        if replica.is_large() {
            self.send_pieces(from, summary.network, differing);
        } else {
            self.send_vectors(from, summary.network, &Scope::of_parts(differing));
        }
    }

    /// Tells the hashes of the pieces of these parts.
    fn send_pieces(&mut self, to: NodeId, network: NetworkId, parts: u32) {
        if self.is_overloaded() {
            return;
        }
        let Some(replica) = self.replicas.get(&network) else {
            return;
        };
        let all = replica.pieces();
        let (all, _) = all.as_chunks();
        let hashes =
            all.iter().enumerate().filter(|(part, _)| parts >> part & 1 == 1).map(|(_, hashes)| *hashes).collect();
        self.outbox.push(to, &Message::Pieces(Pieces { network, parts, hashes }), self.config.datagram);
    }

    pub(super) fn handle_pieces(&mut self, from: NodeId, pieces: &Pieces) {
        let Some(replica) = self.replicas.get(&pieces.network) else {
            self.counts.refused.foreign_network += 1;
            return;
        };
        let own = replica.pieces();
        let mut theirs = pieces.hashes.iter().flatten();
        let mut differing = Scope::NONE;
        for place in Scope::of_parts(pieces.parts).places() {
            if theirs.next().is_some_and(|theirs| *theirs != own[place.index()]) {
                differing.insert(place);
            }
        }
        if !differing.is_empty() {
            self.send_vectors(from, pieces.network, &differing);
        }
    }

    /// Tells what was seen of all owners in a scope, in messages of bounded size.
    fn send_vectors(&mut self, to: NodeId, network: NetworkId, scope: &Scope) {
        if self.is_overloaded() {
            return;
        }
        let Some(replica) = self.replicas.get(&network) else {
            return;
        };
        let seen = replica.chains().iter().filter(|(_, chain)| !chain.seen().is_empty());
        let placed = seen.map(|(owner, chain)| (hash::place(*owner), *owner, chain));
        let inside = placed.filter(|(place, ..)| scope.contains(*place));
        let mut owners: Vec<(Place, Vector)> =
            inside.map(|(place, owner, chain)| (place, replica.vector(owner, chain))).collect();
        owners.sort_by_key(|(place, _)| *place);
        let mut owners = owners.into_iter().peekable();
        let mut vectors = Vectors { network, whole: Scope::NONE, owners: Vec::new() };
        for place in scope.places() {
            let piece: Vec<Vector> =
                std::iter::from_fn(|| owners.next_if(|(at, _)| *at == place)).map(|(_, vector)| vector).collect();
            if piece.len() > VECTORS {
                self.push_vectors(to, network, &piece); // not whole: who has more says so in its own comparison
                continue;
            }
            vectors.whole.insert(place);
            vectors.owners.extend(piece);
            if vectors.owners.len() >= VECTORS {
                let next = Vectors { network, whole: Scope::NONE, owners: Vec::new() };
                let full = std::mem::replace(&mut vectors, next);
                self.outbox.push(to, &Message::Vectors(full), self.config.datagram);
            }
        }
        if !vectors.whole.is_empty() {
            self.outbox.push(to, &Message::Vectors(vectors), self.config.datagram);
        }
    }

    /// Tells of owners among others.
    fn push_vectors(&mut self, to: NodeId, network: NetworkId, owners: &[Vector]) {
        for some in owners.chunks(VECTORS) {
            let vectors = Vectors { network, whole: Scope::NONE, owners: some.to_vec() };
            self.outbox.push(to, &Message::Vectors(vectors), self.config.datagram);
        }
    }

    /// Whether too many answers wait for one more; counted if so.
    pub(super) fn is_overloaded(&mut self) -> bool {
        let overloaded = self.outbox.bytes() > self.config.answers_limit;
        self.counts.refused.overload += u64::from(overloaded);
        overloaded
    }

    pub(super) fn handle_vectors(&mut self, from: NodeId, vectors: Vectors, now: Instant) {
        let Vectors { network, whole, owners } = vectors;
        let complete = !whole.is_empty() && !self.is_overloaded(); // else no answer is due, or none is made
        let Some(replica) = self.replicas.get(&network) else {
            self.counts.refused.foreign_network += 1;
            return;
        };
        let theirs: BTreeMap<NodeId, &Vector> = owners.iter().map(|vector| (vector.owner, vector)).collect();
        let surplus = |owner: &NodeId, chain: &Chain| {
            !chain.seen().is_empty()
                && whole.contains(hash::place(*owner))
                && theirs.get(owner).is_none_or(|vector| has_more(chain, vector))
        };
        let mut more: Vec<Vector> = Vec::new();
        if complete {
            let surplus = replica.chains().iter().filter(|(owner, chain)| surplus(owner, chain));
            more.extend(surplus.map(|(owner, chain)| replica.vector(*owner, chain)));
        }
        self.push_vectors(from, network, &more);
        self.want_missing(from, network, &owners, now);
    }

    /// Asks for what a node has and this one has not.
    fn want_missing(&mut self, from: NodeId, network: NetworkId, owners: &[Vector], now: Instant) {
        let (mut wanted, mut wrong) = (Vec::new(), Vec::new());
        for vector in owners {
            let chain = self.replicas.get(&network).and_then(|replica| replica.chain(vector.owner));
            if vector.owner == self.me {
                let beyond = vector.seen.last() > chain.map_or(0, |chain| chain.seen().last());
                self.counts.refused.own_name += u64::from(beyond && vector.incarnation == self.incarnation);
                continue;
            }
            let lacks = chain.is_none_or(|chain| !chain.seen().contains_all(&vector.seen));
            let differs = chain.is_some_and(|c| *c.seen() == vector.seen && c.content() != vector.content);
            let known = || self.members.get(vector.owner).is_some_and(|known| known.incarnation == vector.incarnation);
            if (lacks || differs) && known() && self.subscribed(vector.owner, network) {
                let list = if lacks { &mut wanted } else { &mut wrong };
                list.push((vector.owner, vector.incarnation));
            }
        }
        self.pull(from, network, wanted, now);
        for (owner, incarnation) in wrong {
            self.pull_anew(owner, incarnation, network, now);
        }
    }
}

/// Whether a chain has what a vector lacks.
fn has_more(chain: &Chain, vector: &Vector) -> bool {
    chain.incarnation > vector.incarnation
        || (chain.incarnation == vector.incarnation && !vector.seen.contains_all(chain.seen()))
}

/// Up to how many owners are told at once, without first narrowing to those that differ.
const FEW_OWNERS: usize = 32;
/// Vectors in a message, and up to as many more of one part: 40 bytes each, or 330 with many gaps of great numbers.
const VECTORS: usize = 256;
/// With how many nodes a network is compared at a time while much is on its way.
const BULK_PEERS: usize = 2;
/// Kind and incarnation, at their longest.
const DIGEST_HEAD: usize = 1 + 10;
/// A network's part of a digest, at its longest.
const ROOT_LEN: usize = 16 + 10 + 8;
