//! Replicated tables: each entry has one writer, its owner, and reaches every subscriber of its network.
//!
//! News spreads small changes at once, comparison carries everything else, and neither relies on the other:
//!
//! ```text
//! put ──► Fresh ──► Fresh ──► …            a change, to some subscribers each round, who tell others
//! now and then: Digest ──►                 one hash for each network both subscribe to; equal: that is all
//!               ◄── Summary or Vectors     else the parts that differ, or what was seen of each owner
//!               Pieces ──► ◄── Vectors     of a thousand owners and more, first which pieces of those parts
//!               Want ──► ◄── Chunk, …      what one has not seen, 64 KiB at a time, each owner from one node at once
//! Confirm ──► owner, owner ──► Tip         through which of its changes one has seen; a reminder to who is behind
//! ```
//!
//! Who subscribes to what is a table of its own, in a network of all zeros that everybody subscribes to: the same messages
//! spread it, and a subscription costs each node about 220 bytes of memory. A network's traffic stays among its subscribers.

mod accept;
mod chain;
mod compare;
mod config;
mod confirm;
mod confirmations;
mod entries;
mod event;
#[cfg(feature = "testing")]
mod forged;
mod fresh_queue;
mod hash;
mod intervals;
mod members;
mod metrics;
mod outbox;
mod proof;
mod pull;
mod refused;
mod replica;
mod roster;
mod serve;
mod sign;
mod tell;
mod timers;
mod unacted;
mod verify;
mod wire;
mod write;

#[cfg(test)]
mod tests;

pub use config::TablesConfig;
pub use event::TableEvent;
pub use metrics::{RefusedMetrics, TablesMetrics};
pub use refused::Refused;
pub use verify::{Disbelief, Signature, SignatureLengthError, Verify};

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use overlay_core::{Instant, NetworkId, NodeId};

use crate::chance::Chance;
use crate::rate_limit::RateLimit;
use crate::{Class, Key, Malformed, Reason, Sequence, TableId};
use chain::{Chain, Room};
use confirmations::Confirmations;
use event::{Events, Pending};
#[cfg(test)]
pub(crate) use forged::forged_voucher;
#[cfg(feature = "testing")]
pub(crate) use forged::{forged, forged_statement};
use fresh_queue::{EntryId, FreshQueue};
use intervals::Intervals;
#[cfg(test)]
use intervals::tests::intervals as any_intervals;
use members::Members;
use outbox::Outbox;
pub(crate) use outbox::TablesTransmit;
use pull::Pulls;
use replica::Replica;
use unacted::{Released, Unacted};
pub(crate) use wire::Group;
#[cfg(test)]
pub(crate) use wire::any_group;
use wire::{Chunk, Message, Want};

/// Values have up to 64 KiB.
pub(crate) const VALUE_LIMIT: usize = 64 * 1024;
/// What a signature may have at most.
pub(crate) const SIGNATURE_LIMIT: usize = Signature::MOST;
/// Where subscriptions are kept: table 0, key the network's id, value the number below which the owner's changes are of a former
/// subscription; and in table 1, what each owner shows of itself so that its signatures can be verified.
const DIRECTORY: NetworkId = NetworkId::from_bytes([0; 16]);
const VOUCHERS: TableId = TableId(1);

/// The tables of one node. A sub-machine: it hears of members by [`handle_member`](Self::handle_member), and sees no sockets or
/// clocks. After each call, `poll_transmit`, `poll_event` and `poll_timeout` may have something new.
#[derive(Debug)]
pub(crate) struct Tables {
    config: TablesConfig,
    me: NodeId,
    incarnation: u64,
    chance: Chance,
    members: Members,
    replicas: BTreeMap<NetworkId, Replica>,
    /// The last number in each network that is not subscribed to any more: a later subscription counts on.
    numbers: BTreeMap<NetworkId, u64>,
    /// The greatest such number of the networks beyond a limit.
    number_floor: u64,
    fresh: FreshQueue,
    round_due: Option<Instant>,
    greetings: BTreeSet<NodeId>,
    greet_due: Instant,
    pulls: Pulls,
    confirms: BTreeSet<(NodeId, NetworkId)>,
    confirm_due: Instant,
    unacted: Unacted,
    confirm_cursor: NodeId,
    remind_due: Instant,
    /// Whether reminders or tombstones may be due.
    awake: bool,
    hides: BTreeSet<(Instant, NodeId)>,
    /// Own changes that are yet to be signed, before a message leaves.
    unsigned: BTreeSet<(NetworkId, u64)>,
    /// Whether membership has the starts of members proved.
    proved_starts: bool,
    /// How many forgeries in news are looked at.
    forgeries: RateLimit,
    outbox: Outbox,
    events: Events,
    counts: TablesMetrics,
}

impl Tables {
    pub(crate) fn new(config: TablesConfig, me: NodeId, incarnation: u64, seed: [u8; 32], now: Instant) -> Self {
        let mut tables = Self {
            config,
            me,
            incarnation,
            chance: Chance::new(seed),
            members: Members::default(),
            replicas: BTreeMap::from([(DIRECTORY, Replica::new(now))]),
            numbers: BTreeMap::new(),
            number_floor: 0,
            fresh: FreshQueue::default(),
            round_due: None,
            greetings: BTreeSet::new(),
            greet_due: now,
            pulls: Pulls::default(),
            confirms: BTreeSet::new(),
            confirm_due: now,
            unacted: Unacted::default(),
            confirm_cursor: me,
            remind_due: now,
            awake: false,
            hides: BTreeSet::new(),
            unsigned: BTreeSet::new(),
            proved_starts: false,
            forgeries: RateLimit::new(FORGERIES, FORGERIES_AT_ONCE, now),
            outbox: Outbox::default(),
            events: Events::default(),
            counts: TablesMetrics::default(),
        };
        tables.vouch(now);
        tables
    }

    /// Whether bytes are a message of the tables; for a caller that has to know before it acts on what came with them.
    ///
    /// # Errors
    /// For bytes that are no message.
    pub(crate) fn check_body(body: &[u8]) -> Result<(), Malformed> {
        Message::parse(body).map(drop)
    }

    /// Whether a message may have come in this way: what is answered by much, and such answers, go on streams.
    ///
    /// # Errors
    /// If not.
    pub(crate) fn check_class(class: Class, body: &[u8]) -> Result<(), Malformed> {
        match (class, body.first()) {
            (Class::Datagram, Some(&Want::KIND)) => Err(Malformed::Misplaced { message: "request for entries" }),
            (Class::Datagram, Some(&Chunk::KIND)) => Err(Malformed::Misplaced { message: "answer with entries" }),
            _ => Ok(()),
        }
    }

    /// Takes one message of another node's tables. What is refused is counted.
    ///
    /// # Errors
    /// For bytes that are no message; then nothing has changed but a count.
    pub(crate) fn handle(&mut self, from: NodeId, body: &[u8], now: Instant) -> Result<(), Malformed> {
        let message = Message::parse(body).inspect_err(|_| self.counts.refused.malformed += 1)?;
        self.sign_made(now);
        if self.members.get(from).is_none() {
            self.counts.refused.stranger += 1;
            return Ok(());
        }
        match message {
            Message::Fresh(fresh) => self.handle_fresh(from, fresh, now),
            Message::Digest(digest) => self.handle_digest(from, &digest, now),
            Message::Summary(summary) => self.handle_summary(from, &summary),
            Message::Pieces(pieces) => self.handle_pieces(from, &pieces),
            Message::Vectors(vectors) => self.handle_vectors(from, vectors, now),
            Message::Want(want) => self.handle_want(from, &want),
            Message::Chunk(chunk) => self.handle_chunk(from, chunk, now),
            Message::Confirm(confirm) => self.handle_confirm(from, &confirm, now),
            Message::Tip(tip) => self.handle_tip(from, tip, now),
        }
        Ok(())
    }

    /// Does what is due.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        self.sign_made(now);
        self.expire_unacted(now);
        self.hide_due(now);
        self.lose_pulls(now);
        self.tell_due(now);
        self.greet_due(now);
        self.compare_due(now);
        self.confirm_due(now);
        self.remind_due(now);
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called. O(networks).
    pub(crate) fn poll_timeout(&self) -> Option<(Instant, Reason)> {
        self.next_due().map(|due| (due, Reason::Tables))
    }

    /// The next message to send; poll until there is none.
    pub(crate) fn poll_transmit(&mut self) -> Option<TablesTransmit> {
        self.outbox.pop()
    }

    /// The next message, if it goes to this node in a datagram and `fits` its length.
    pub(crate) fn poll_along(&mut self, to: NodeId, fits: impl FnOnce(usize) -> bool) -> Option<Vec<u8>> {
        self.outbox.pop_along(to, fits)
    }

    /// The next event for the user; poll until there is none.
    pub(crate) fn poll_event(&mut self) -> Option<TableEvent> {
        loop {
            let pending = self.events.pop()?;
            if let Some(event) = self.event(pending) {
                return Some(event);
            }
        }
    }

    /// An entry's value. O(log n).
    pub(crate) fn get(&self, network: NetworkId, owner: NodeId, table: TableId, key: &Key) -> Option<&Bytes> {
        if self.members.is_hidden(owner) {
            return None;
        }
        self.replicas.get(&network)?.chain(owner)?.slot(table, key)?.value.as_ref()
    }

    /// The entries of a table that are in sight, by owner and key.
    pub(crate) fn entries(
        &self,
        network: NetworkId,
        table: TableId,
    ) -> impl Iterator<Item = (NodeId, &Key, &Bytes, Sequence)> {
        let chains = self.replicas.get(&network).into_iter().flat_map(|replica| replica.chains());
        let in_sight = chains.filter(|(owner, _)| !self.members.is_hidden(**owner));
        in_sight.flat_map(move |(owner, chain)| {
            chain.entries(table).map(move |(key, slot, value)| (*owner, key, value, Sequence(slot.sequence)))
        })
    }

    /// The live subscribers of a network that are known, without this node.
    pub(crate) fn subscribers(&self, network: NetworkId) -> &[NodeId] {
        self.members.subscribers(network)
    }

    /// Through which of this node's own changes every live subscriber has confirmed; none of a network not subscribed to. It
    /// goes back when a subscriber comes who has yet to confirm.
    pub(crate) fn watermark(&self, network: NetworkId) -> Option<Sequence> {
        let replica = self.replicas.get(&network).filter(|_| network != DIRECTORY)?;
        let through = self.made(network);
        Some(Sequence(
            replica.confirmations.least(self.subscribers(network)).map_or(through, |least| least.min(through)),
        ))
    }

    /// By how much that is behind this node's last change.
    pub(crate) fn watermark_lag(&self, network: NetworkId) -> Option<u64> {
        Some(self.made(network) - self.watermark(network)?.0)
    }

    /// The live subscribers that have not confirmed all of this node's changes.
    pub(crate) fn unconfirmed(&self, network: NetworkId) -> impl Iterator<Item = NodeId> {
        self.behind(network, Sequence(self.made(network)))
    }

    /// The live subscribers that have not confirmed this node's changes through this one.
    pub(crate) fn behind(&self, network: NetworkId, through: Sequence) -> impl Iterator<Item = NodeId> {
        let replica = self.replicas.get(&network).filter(|_| network != DIRECTORY);
        let subscribers = self.members.subscribers(network);
        replica.into_iter().flat_map(move |replica| replica.confirmations.behind(subscribers, through.0, self.me))
    }

    /// The last of this node's own changes in a network.
    fn made(&self, network: NetworkId) -> u64 {
        self.replicas.get(&network).and_then(|replica| replica.chain(self.me)).map_or(0, |chain| chain.through().0)
    }

    /// A snapshot of counts and lengths. O(owners).
    pub(crate) fn metrics(&self) -> TablesMetrics {
        let mut metrics = TablesMetrics {
            networks: self.replicas.len() - 1,
            fresh: self.fresh.len(),
            pulls: self.pulls.len(),
            confirmations: self.confirms.len(),
            unacted: self.unacted.len(),
            transmits: self.outbox.len(),
            transmit_bytes: self.outbox.bytes(),
            events: self.events.len(),
            ..self.counts
        };
        for (network, replica) in &self.replicas {
            for chain in replica.chains().values() {
                metrics.entries += chain.len();
                metrics.tombstones += chain.tombstones();
                metrics.entry_bytes += chain.bytes();
            }
            metrics.watermark_lag = metrics.watermark_lag.max(self.watermark_lag(*network).unwrap_or(0));
        }
        metrics
    }

    fn event(&self, pending: Pending) -> Option<TableEvent> {
        Some(match pending {
            Pending::Entry((network, owner, table, key)) => match self.get(network, owner, table, &key) {
                Some(value) => TableEvent::Put { network, owner, table, key, value: value.clone() },
                None => TableEvent::Removed { network, owner, table, key },
            },
            Pending::Hidden(network, owner) => TableEvent::Hidden { network, owner },
            Pending::Restored(network, owner) => TableEvent::Restored { network, owner },
            Pending::Dropped(network, owner) => TableEvent::Dropped { network, owner },
            Pending::Watermark(network) => TableEvent::Watermark { network, through: self.watermark(network)? },
            Pending::Reread(network) => TableEvent::Reread { network },
        })
    }

    /// What an owner may have in a network; `spans` of seen numbers.
    fn room(&self, network: NetworkId, spans: usize) -> Room {
        let subscriptions = self.config.networks_limit + usize::from(self.config.verify.is_some()); // and a voucher
        let entries = if network == DIRECTORY { subscriptions } else { self.config.entries() };
        Room { entries, bytes: self.config.bytes_limit, spans }
    }

    /// By which of its changes an owner subscribed to a network, and above which number its changes there count.
    fn subscription(&self, owner: NodeId, network: NetworkId) -> Option<(u64, u64)> {
        let slot = self.replicas.get(&DIRECTORY)?.chain(owner)?.slot(TableId(0), &Key::of_network(network))?;
        let base = slot.value.as_ref()?.as_ref().try_into().map_or(0, u64::from_be_bytes);
        Some((slot.sequence, base.min(Intervals::MOST)))
    }

    /// Whether changes are accepted of an owner in a network at all.
    fn subscribed(&self, owner: NodeId, network: NetworkId) -> bool {
        network == DIRECTORY || self.subscription(owner, network).is_some()
    }

    /// Some of the live subscribers of a network, by chance.
    fn choose(&mut self, network: NetworkId, count: usize) -> Vec<NodeId> {
        let nodes = self.members.subscribers(network);
        if nodes.len() <= count {
            return nodes.to_vec();
        }
        let mut chosen = BTreeSet::new();
        while chosen.len() < count {
            chosen.insert(nodes[self.chance.below(nodes.len())]);
        }
        chosen.into_iter().collect()
    }
}

/// Signatures in news that are not their owners': after so many at once, and so many a second, news that have to be verified are left to comparison.
pub(crate) const FORGERIES_AT_ONCE: u32 = 1_000;
pub(crate) const FORGERIES: u32 = 100;
