//! Requests for entries, each owner's from one node at a time.

use std::collections::BTreeMap;
use std::time::Duration;

use overlay_core::{Instant, NetworkId, NodeId};

use crate::tables::accept::By;
use crate::tables::wire::{Chunk, End, Message, Missing, Part, Want};
use crate::tables::{DIRECTORY, Intervals, Tables};

/// Requests under way.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pulls {
    active: BTreeMap<(NodeId, NetworkId), Pull>,
    /// Who is asked for an owner's entries.
    asked: BTreeMap<(NetworkId, NodeId), NodeId>,
    /// Until when a node is not asked for an owner's entries, since some of its answer was refused.
    shunned: BTreeMap<(NodeId, NetworkId, NodeId), Instant>,
    last_id: u64,
}

/// A request to one node, repeated until all is there.
#[derive(Debug, Clone)]
struct Pull {
    id: u64,
    wanted: BTreeMap<NodeId, Wanted>,
    due: Instant,
}

/// What is asked for of one owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Wanted {
    incarnation: u64,
    after: u64,
    /// Whether all is asked for, even what was seen.
    anew: bool,
    /// Whether nothing of the answers was refused.
    whole: bool,
}

impl Pulls {
    pub(crate) fn len(&self) -> usize {
        self.active.len()
    }

    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.active.values().map(|pull| pull.due).min()
    }

    pub(crate) fn forget_network(&mut self, network: NetworkId) {
        self.active.retain(|(_, of), _| *of != network);
        self.asked.retain(|(of, _), _| *of != network);
        self.shunned.retain(|(_, of, _), _| *of != network);
    }

    pub(crate) fn forget_peer(&mut self, peer: NodeId) {
        self.active.retain(|(of, _), _| *of != peer);
        self.asked.retain(|_, asked| *asked != peer);
        self.shunned.retain(|(of, ..), _| *of != peer);
    }

    pub(crate) fn forget_owner(&mut self, network: NetworkId, owner: NodeId) {
        if let Some(peer) = self.asked.remove(&(network, owner))
            && let Some(pull) = self.active.get_mut(&(peer, network))
        {
            pull.wanted.remove(&owner);
        }
        self.shunned.retain(|(_, net, of), _| (*net, *of) != (network, owner));
    }

    /// Adds what nobody is asked for yet; whether a request to the node is to be sent now.
    fn add(
        &mut self,
        peer: NodeId,
        network: NetworkId,
        wanted: impl Iterator<Item = (NodeId, Wanted)>,
        now: Instant,
    ) -> bool {
        let mut new = BTreeMap::new();
        for (owner, wanted) in wanted {
            let shunned = self.shunned.get(&(peer, network, owner)).is_some_and(|until| *until > now);
            if !shunned && !self.asked.contains_key(&(network, owner)) {
                self.asked.insert((network, owner), peer);
                new.insert(owner, wanted);
            }
        }
        if new.is_empty() {
            return false;
        }
        match self.active.get_mut(&(peer, network)) {
            Some(pull) => pull.wanted.extend(new),
            None => {
                self.active.insert((peer, network), Pull { id: 0, wanted: new, due: now });
                return true;
            }
        }
        false
    }

    /// Ends a request to a node.
    fn end(&mut self, peer: NodeId, network: NetworkId) {
        for (owner, _) in self.active.remove(&(peer, network)).into_iter().flat_map(|pull| pull.wanted) {
            self.asked.remove(&(network, owner));
        }
    }

    /// Ends what was asked of an owner; gives it.
    fn end_owner(&mut self, peer: NodeId, network: NetworkId, owner: NodeId) -> Option<Wanted> {
        let wanted = self.active.get_mut(&(peer, network))?.wanted.remove(&owner)?;
        self.asked.remove(&(network, owner));
        Some(wanted)
    }

    /// What is asked of an owner.
    fn wanted(&mut self, peer: NodeId, network: NetworkId, owner: NodeId) -> Option<&mut Wanted> {
        self.active.get_mut(&(peer, network))?.wanted.get_mut(&owner)
    }
}

impl Tables {
    /// Asks a node for what it has seen of some owners, but of those that somebody is asked for already.
    pub(super) fn pull(&mut self, from: NodeId, network: NetworkId, owners: Vec<(NodeId, u64)>, now: Instant) {
        let wanted = |(owner, incarnation)| (owner, Wanted { incarnation, after: 0, anew: false, whole: true });
        if self.pulls.add(from, network, owners.into_iter().map(wanted), now) {
            self.ask(from, network, now);
        }
    }

    /// Asks an owner for all of its entries, since somebody has other ones under the same numbers; not again for a while.
    pub(super) fn pull_anew(&mut self, owner: NodeId, incarnation: u64, network: NetworkId, now: Instant) {
        let wanted = (owner, Wanted { incarnation, after: 0, anew: true, whole: true });
        if self.members.is_live(owner) && self.pulls.add(owner, network, [wanted].into_iter(), now) {
            self.ask(owner, network, now);
            self.pulls.shunned.insert((owner, network, owner), now + SHUNNED);
        }
    }

    /// Gives up on requests that were not answered; a comparison will find somebody else.
    pub(super) fn lose_pulls(&mut self, now: Instant) {
        let due = |(id, pull): (&(NodeId, NetworkId), &Pull)| (pull.due <= now).then_some(*id);
        let lost: Vec<_> = self.pulls.active.iter().filter_map(due).collect();
        for (peer, network) in lost {
            self.pulls.end(peer, network);
            self.counts.pulls_lost += 1;
            self.hurry(network, true, now);
        }
    }

    pub(super) fn handle_chunk(&mut self, from: NodeId, chunk: Chunk, now: Instant) {
        let network = chunk.network;
        let asked = self.pulls.active.get(&(from, network)).is_some_and(|pull| pull.id == chunk.id);
        if !asked {
            self.counts.refused.unasked += 1;
            return;
        }
        let mut moved = false;
        for part in chunk.parts {
            moved |= self.handle_part(from, network, part, now);
        }
        let rest = self.pulls.active.get(&(from, network)).is_some_and(|pull| !pull.wanted.is_empty());
        if rest && moved {
            self.ask(from, network, now);
        } else {
            self.pulls.end(from, network);
            self.hurry(network, true, now);
        }
    }

    /// Takes one owner's part of an answer in; whether the request is further than before.
    fn handle_part(&mut self, from: NodeId, network: NetworkId, part: Part, now: Instant) -> bool {
        let Part { group, end } = part;
        let owner = group.owner;
        let last = group.changes.iter().map(|change| change.sequence).max().unwrap_or(0);
        let incarnation = group.incarnation;
        let Some(wanted) = self.pulls.wanted(from, network, owner) else {
            return false; // dropped meanwhile, or never asked for
        };
        let moved = last > wanted.after || end.is_some();
        wanted.after = wanted.after.max(last);
        let same = wanted.incarnation == incarnation;
        let by = if wanted.anew { By::Owner } else { By::Answer };
        let whole = same && self.accept(network, group, by, now);
        if let Some(wanted) = self.pulls.wanted(from, network, owner) {
            wanted.whole &= whole;
        }
        if let Some(end) = end
            && let Some(wanted) = self.pulls.end_owner(from, network, owner)
        {
            self.end_part((from, network), (owner, wanted), &end, now);
        }
        moved
    }

    /// All that was asked of an owner is there: what the other node has seen, this one has seen.
    fn end_part(
        &mut self,
        (from, network): (NodeId, NetworkId),
        (owner, wanted): (NodeId, Wanted),
        end: &End,
        now: Instant,
    ) {
        let Wanted { incarnation, whole, .. } = wanted;
        if !whole {
            self.pulls.shunned.retain(|_, until| *until > now);
            self.pulls.shunned.insert((from, network, owner), now + SHUNNED);
            return;
        }
        if self.is_hearsay((from, owner), network, end) {
            self.pulls.shunned.insert((from, network, owner), now + SHUNNED);
            let asked = self.members.is_live(owner).then_some((owner, incarnation));
            return self.pull(owner, network, asked.into_iter().collect(), now);
        }
        let Some(replica) = self.replicas.get_mut(&network).filter(|_| !end.seen.is_empty()) else {
            return;
        };
        let before = replica.chain(owner).map_or(0, |chain| chain.through().0);
        let gone = replica.edit(owner, incarnation, |chain| chain.finish(end));
        if !gone.is_empty() {
            self.note_unacted(owner, network, before, now);
        }
        for entry in gone {
            self.changed(network, owner, entry, now);
        }
        self.note_through(network, owner, before, now);
        if network == DIRECTORY {
            self.awake = true;
        }
    }

    /// Whether somebody else than its owner says that something here was removed, and shows no removal that the owner has signed: where entries are signed, the owner itself is asked then.
    fn is_hearsay(&self, (from, owner): (NodeId, NodeId), network: NetworkId, end: &End) -> bool {
        let chain = self.replicas.get(&network).and_then(|replica| replica.chain(owner));
        self.config.verify.is_some() && from != owner && chain.is_some_and(|chain| !chain.removed_by(end).is_empty())
    }

    /// Sends a request, for as many owners as a message takes.
    fn ask(&mut self, to: NodeId, network: NetworkId, now: Instant) {
        let Some(pull) = self.pulls.active.get_mut(&(to, network)) else {
            return;
        };
        self.pulls.last_id += 1;
        pull.id = self.pulls.last_id;
        pull.due = now + self.config.answer_timeout;
        let replica = self.replicas.get(&network);
        let mut want = Want { id: pull.id, network, owners: Vec::new() };
        let mut len = 0;
        for (owner, Wanted { incarnation, after, anew, .. }) in &pull.wanted {
            let chain = replica.and_then(|replica| replica.chain(*owner)).filter(|_| !anew);
            let seen = chain.map_or_else(Intervals::default, |chain| chain.seen().truncated(WANT_SPANS));
            let missing = Missing { owner: *owner, incarnation: *incarnation, after: *after, seen };
            len += missing.encoded_len();
            want.owners.push(missing);
            if len > WANT_LEN {
                break;
            }
        }
        self.outbox.push_stream(to, &Message::Want(want));
    }
}

/// For how long a node is not asked again for what was refused.
const SHUNNED: Duration = Duration::from_secs(10);
/// Spans of what was seen that a request names for each owner; entries in further ones may come twice.
const WANT_SPANS: usize = 512;
/// Bytes of a request, plus one owner's.
const WANT_LEN: usize = 32 * 1024;
