//! The machine.

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;

use bytes::Bytes;
use overlay_core::{Instant, NetworkId, NodeId};

use crate::chance::Chance;
use crate::digest::chunks;
use crate::event::Event;
use crate::foca_core::FocaCore;
use crate::member::plain;
use crate::member_change::MemberChange;
use crate::membership::{Membership, Outgoing, Source, Urgency};
use crate::metrics::{Metrics, Traffic};
use crate::rate_limit::RateLimit;
use crate::room;
use crate::swim::Swim;
use crate::tables::{Group, Tables, TablesTransmit};
use crate::wire::{self, Kind, Message, Packet, Proofs, Prove};
use crate::{
    Class, Config, ConfigError, EntryKey, Heard, Key, Malformed, Member, Metadata, Protocol, Reason, Refused, Role,
    STREAM_LIMIT, Sequence, Standing, TableId, TablesConfig,
};

/// One node's gossip: who is in the cluster, and the tables they share. A machine without I/O.
///
/// After every call that takes `now`, poll [`poll_transmit`](Self::poll_transmit) and [`poll_event`](Self::poll_event) until
/// they are empty, then ask [`poll_timeout`](Self::poll_timeout) when to call [`handle_timeout`](Self::handle_timeout).
/// Two machines given the same calls do the same.
///
/// A call costs O(log n) for n members, but for comparisons of membership, which are O(n) and rare.
#[derive(Debug)]
pub struct Gossip {
    config: Config,
    membership: Box<dyn Membership>,
    tables: Tables,
    chance: Chance,
    strangers: RateLimit,
    /// When news go next, if there are any.
    round_at: Option<Instant>,
    last_round: Option<Instant>,
    /// Of membership; the tables keep theirs, within their limits, until they are fetched.
    transmits: VecDeque<Outgoing>,
    /// Bytes of those.
    waiting: usize,
    events: VecDeque<Event>,
    /// Whether the goodbye is said.
    gone: bool,
    sent: Traffic,
    received: Traffic,
    refused: u64,
    malformed: u64,
    unroutable: u64,
}

/// A message to send.
#[must_use = "nothing is sent by itself"]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transmit {
    /// Whom to.
    pub to: SocketAddr,
    /// In a datagram, or on a stream.
    pub class: Class,
    /// What, still unsealed.
    pub payload: Bytes,
}

impl Gossip {
    /// The machine of the node `me`, alone until it has [joined](Self::join) others or others have joined it.
    ///
    /// `me.incarnation` must be greater than at every earlier start of this node. `seed` is for all that is chosen by chance: other
    /// random bytes for each node and start, or in a test some that repeat it.
    ///
    /// # Errors
    /// If a field of `config` is out of range.
    pub fn new(config: Config, me: Member, seed: [u8; 32], now: Instant) -> Result<Self, ConfigError> {
        config.check()?;
        Ok(Self::of(config, me, seed, now))
    }

    /// Goes on as a later start of this node, with the same settings, after [`Event::Superseded`]: alone, and with nothing of what was said or
    /// heard before; only the [numbers](Self::heard) go on. `incarnation` and `seed` are as those of [`new`](Self::new).
    pub fn begin_anew(&mut self, incarnation: u64, seed: [u8; 32], now: Instant) {
        let heard = self.heard();
        *self = Self::of(self.config.clone(), Member { incarnation, ..self.me().clone() }, seed, now);
        self.tables.count_on(heard);
    }

    fn of(config: Config, me: Member, seed: [u8; 32], now: Instant) -> Self {
        let mut chance = Chance::new(seed);
        let me = Member { address: plain(me.address), ..me };
        let (id, incarnation) = (me.id, me.incarnation);
        let membership: Box<dyn Membership> = match config.membership {
            Protocol::Swim => Box::new(Swim::new(config.clone(), me, chance.seed(), now)),
            Protocol::Foca => Box::new(FocaCore::new(config.clone(), me, chance.seed(), now)),
        };
        let body = config.room() - Packet::HEADER_LEN - FRAME;
        let settings = TablesConfig { datagram: config.tables.datagram.min(body), ..config.tables.clone() };
        let tables = Tables::new(settings, id, incarnation, chance.seed(), now);
        let tables = if config.membership == Protocol::Swim { tables.with_proved_starts() } else { tables };
        Self {
            strangers: RateLimit::new(config.stranger_rate, config.stranger_burst, now),
            config,
            membership,
            tables,
            chance,
            round_at: None,
            last_round: None,
            transmits: VecDeque::new(),
            waiting: 0,
            events: VecDeque::new(),
            gone: false,
            sent: Traffic::default(),
            received: Traffic::default(),
            refused: 0,
            malformed: 0,
            unroutable: 0,
        }
    }

    /// Calls these addresses until one answers ([`Event::Joined`]), and later whenever no live member is at one of them.
    ///
    /// Any member will do as a seed; those known before a restart are good ones. One's own address is passed over.
    /// The first 64 are kept.
    pub fn join(&mut self, seeds: &[SocketAddr], now: Instant) {
        self.membership.join(seeds, now);
        self.settle(now);
    }

    /// Says goodbye: for five rounds of news, then [`Event::Gone`]. Whoever hears of it drops this node's entries at once.
    pub fn leave(&mut self, now: Instant) {
        self.membership.leave(now);
        self.settle(now);
    }

    /// This node is reached elsewhere from now on.
    pub fn set_address(&mut self, address: SocketAddr, now: Instant) {
        self.change(Member { address: plain(address), ..self.me().clone() }, now);
    }

    /// This node has become a manager, or a worker.
    pub fn set_role(&mut self, role: Role, now: Instant) {
        self.change(Member { role, ..self.me().clone() }, now);
    }

    /// This node has other things to tell about itself.
    pub fn set_metadata(&mut self, metadata: Metadata, now: Instant) {
        self.change(Member { metadata, ..self.me().clone() }, now);
    }

    /// Takes part in a network: its entries come, and this node may make its own. Nothing happens if it does already.
    ///
    /// # Errors
    /// For the network of all zeros, which is reserved, and at [`TablesConfig::networks_limit`].
    pub fn subscribe(&mut self, network: NetworkId, now: Instant) -> Result<(), Refused> {
        self.tables.subscribe(network, now)?;
        self.settle(now);
        Ok(())
    }

    /// Shows anew what others verify this node's signatures by, after [`Verify::voucher`](crate::Verify::voucher) has changed: its certificate was renewed, say.
    pub fn vouch(&mut self, now: Instant) {
        self.tables.vouch(now);
        self.settle(now);
    }

    /// Forgets a network; the others drop this node's entries in it. Nothing happens if it does not take part.
    pub fn unsubscribe(&mut self, network: NetworkId, now: Instant) {
        self.tables.unsubscribe(network, now);
        self.settle(now);
    }

    /// Makes or changes an entry of this node. Every subscriber of the network will have it once the
    /// [watermark](Self::watermark) is at the number given back.
    ///
    /// # Errors
    /// For a network this node does not subscribe to, a value above 64 KiB, and at the limits of [`TablesConfig`].
    pub fn put(&mut self, at: EntryKey, value: Bytes, now: Instant) -> Result<Sequence, Refused> {
        let EntryKey { network, table, key } = at;
        let sequence = self.tables.put(network, (table, key), value, now)?;
        self.settle(now);
        Ok(sequence)
    }

    /// Removes an entry of this node; `None` if there is none.
    ///
    /// # Errors
    /// For a network this node does not subscribe to.
    pub fn remove(&mut self, at: EntryKey, now: Instant) -> Result<Option<Sequence>, Refused> {
        let EntryKey { network, table, key } = at;
        let sequence = self.tables.remove(network, (table, key), now)?;
        self.settle(now);
        Ok(sequence)
    }

    fn change(&mut self, me: Member, now: Instant) {
        if *self.me() != me {
            self.membership.change(me, now);
            self.settle(now);
        }
    }

    /// Takes a message that arrived, its seal opened, from where it came: a datagram's source, or the far end of a stream,
    /// whose port says nothing.
    ///
    /// Messages of strangers beyond [`Config::stranger_rate`] are dropped and counted.
    ///
    /// # Errors
    /// If the bytes are no message. They changed nothing but the counts.
    pub fn handle(&mut self, from: SocketAddr, class: Class, payload: &[u8], now: Instant) -> Result<(), Malformed> {
        let from = plain(from);
        self.received.count(class, payload.len());
        let packet = read(class, payload).inspect_err(|_| self.malformed += 1)?;
        if self.gone
            || packet.from == self.me().id
            || !self.admit(packet.from, from, now)
            || self.asks_too_much(&packet)
        {
            self.refused += 1;
            return Ok(());
        }
        let from = Source { node: packet.from, address: self.listens_at(packet.from, class, from) };
        self.received.count_kinds(payload);
        for message in &packet.messages {
            match message {
                Message::Table(body) => self.take_table(from.node, body, now)?,
                Message::Prove(prove) => self.prove(from.node, prove, now),
                other => self.membership.handle(from, other, now),
            }
        }
        self.settle(now);
        Ok(())
    }

    fn take_table(&mut self, from: NodeId, body: &[u8], now: Instant) -> Result<(), Malformed> {
        self.tables.handle(from, body, now).inspect_err(|_| self.malformed += 1)
    }

    /// Answers what members have shown of themselves, as far as it is known here.
    fn prove(&mut self, to: NodeId, prove: &Prove, now: Instant) {
        let members: BTreeSet<NodeId> = prove.members.iter().copied().collect();
        let shown = members.into_iter().filter_map(|member| self.tables.shown_by(member, now)).collect();
        for shown in chunks(shown, Group::encoded_len) {
            let mut body = Vec::new();
            Proofs { shown }.encode(&mut body);
            let mut payload = wire::begin(self.me().id);
            wire::put_frame(Kind::Proofs, &body, &mut payload);
            wire::mark_signed(&mut payload);
            self.queue(Outgoing { to: prove.address, node: Some(to), class: Class::Stream, payload });
        }
    }

    /// Where to answer: the far end of a stream has a port that nobody listens at.
    fn listens_at(&self, node: NodeId, class: Class, from: SocketAddr) -> SocketAddr {
        match class {
            Class::Datagram => from,
            Class::Stream => self.membership.member(node).map_or(from, |(member, _)| member.address),
        }
    }

    /// Whether to read on: strangers only at a limited rate.
    fn admit(&mut self, node: NodeId, address: SocketAddr, now: Instant) -> bool {
        let known = self.membership.member(node).is_some_and(|(member, standing)| {
            member.address.ip() == address.ip() && matches!(standing, Standing::Alive | Standing::Suspected)
        });
        known || self.strangers.take(now)
    }

    /// Whether a request for members, or what they show, comes while more answers wait than may; tables limit theirs themselves.
    fn asks_too_much(&self, packet: &Packet<'_>) -> bool {
        let asks = packet.messages.iter().any(|message| matches!(message, Message::SyncRequest(_) | Message::Prove(_)));
        asks && self.waiting > self.config.tables.answers_limit
    }

    /// Does what is due. Harmless when nothing is.
    ///
    /// Call it when the time of [`poll_timeout`](Self::poll_timeout) has come. A machine that is called late takes itself for
    /// slow, and accuses others more slowly.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.gone {
            return;
        }
        self.membership.handle_timeout(now);
        self.settle(now);
        if self.tables.poll_timeout().is_some_and(|(due, _)| due <= now) {
            self.tables.handle_timeout(now);
        }
        if self.round_at.is_some_and(|at| at <= now) {
            self.round(now);
        }
        self.settle(now);
    }

    /// Tells some members what is new.
    fn round(&mut self, now: Instant) {
        self.round_at = None;
        self.last_round = Some(now);
        for (node, address) in self.membership.draw(self.config.gossip_fanout) {
            let mut payload = wire::begin(self.me().id);
            let room = self.config.room() - payload.len();
            self.membership.fill(node, room, &mut payload, now);
            if payload.len() > Packet::HEADER_LEN {
                self.queue(Outgoing { to: address, node: Some(node), class: Class::Datagram, payload });
            }
        }
    }

    fn queue(&mut self, outgoing: Outgoing) {
        self.waiting += outgoing.payload.len();
        self.transmits.push_back(outgoing);
    }

    /// Passes on what the parts have to say to each other, and plans the next round of news.
    fn settle(&mut self, now: Instant) {
        while let Some(event) = self.membership.poll_event() {
            self.tell_tables(&event, now);
            self.gone |= event == Event::Gone;
            self.events.push_back(event);
        }
        while let Some(shown) = self.membership.poll_shown() {
            self.tables.take_shown(shown, now);
        }
        while let Some(outgoing) = self.membership.poll_transmit() {
            self.queue(outgoing);
        }
        self.plan_round(now);
    }

    fn plan_round(&mut self, now: Instant) {
        let interval = match self.membership.news() {
            None => {
                self.round_at = None;
                return;
            }
            Some(Urgency::Now) => self.config.gossip_interval / 8,
            Some(Urgency::Usual) if self.round_at.is_some() => return,
            Some(Urgency::Usual) => self.chance.around(self.config.gossip_interval),
        };
        let at = self.last_round.map_or(now, |last| now.max(last + interval));
        self.round_at = Some(self.round_at.map_or(at, |planned| planned.min(at)));
    }

    fn tell_tables(&mut self, event: &Event, now: Instant) {
        let (node, change) = match event {
            Event::Up(member) | Event::Changed(member) => {
                (member.id, MemberChange::Alive { incarnation: member.incarnation })
            }
            Event::Suspended(node) => (*node, MemberChange::Suspended),
            Event::Expired(node) => (*node, MemberChange::Expired),
            Event::Left(node) => (*node, MemberChange::Left),
            _ => return,
        };
        self.tables.handle_member(node, change, now);
    }

    /// When to call [`handle_timeout`](Self::handle_timeout), and what for; `None` if only a call or message can bring work.
    pub fn poll_timeout(&self) -> Option<(Instant, Reason)> {
        if self.gone {
            return None;
        }
        let round = self.round_at.map(|at| (at, Reason::Gossip));
        [self.membership.poll_timeout(), self.tables.poll_timeout(), round].into_iter().flatten().min()
    }

    /// The next message to send, its seal still to be added: at most [`Config::datagram_budget`] less
    /// [`Config::seal_overhead`] bytes for a datagram, [`STREAM_LIMIT`] for a stream.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Transmit> {
        let Outgoing { to, node, class, mut payload } = self.next_of_membership().or_else(|| self.next_of_tables())?;
        if let (Class::Datagram, Some(node), false) = (class, node, self.gone) {
            self.add_waiting(node, &mut payload);
            self.add_fresh(node, &mut payload, now);
        }
        debug_assert!(class == Class::Stream || payload.len() <= self.config.room());
        debug_assert!(payload.len() <= STREAM_LIMIT);
        self.sent.count(class, payload.len());
        self.sent.count_kinds(&payload);
        Some(Transmit { to, class, payload: payload.into() })
    }

    fn next_of_membership(&mut self) -> Option<Outgoing> {
        let outgoing = room::pop(&mut self.transmits)?;
        self.waiting -= outgoing.payload.len();
        Some(outgoing)
    }

    fn next_of_tables(&mut self) -> Option<Outgoing> {
        while !self.gone {
            let TablesTransmit { to, class, body } = self.tables.poll_transmit()?;
            let Some((member, _)) = self.membership.member(to) else {
                self.unroutable += 1;
                continue;
            };
            let (to, node) = (member.address, Some(to));
            let mut payload = wire::begin(self.me().id);
            wire::put_frame(Kind::Table, &body, &mut payload);
            return Some(Outgoing { to, node, class, payload });
        }
        None
    }

    /// Puts the tables' next messages to the same node into what room a datagram has left.
    fn add_waiting(&mut self, to: NodeId, payload: &mut Vec<u8>) {
        let room = self.config.room();
        let fits = |len: usize, body: usize| len + wire::frame_len(body) <= room;
        while let Some(body) = self.tables.poll_along(to, |body| fits(payload.len(), body)) {
            wire::put_frame(Kind::Table, &body, payload);
        }
    }

    /// Puts fresh entries into what room a datagram has left.
    fn add_fresh(&mut self, to: NodeId, payload: &mut Vec<u8>, now: Instant) {
        let budget = self.config.room().saturating_sub(payload.len() + FRAME);
        let mut body = Vec::new();
        self.tables.fill(to, budget, &mut body, now);
        if !body.is_empty() {
            wire::put_frame(Kind::Table, &body, payload);
        }
    }

    /// The next thing that happened: to members in its order, then to tables. An entry that changed several times before it is
    /// asked for is one event, with the value it has now.
    pub fn poll_event(&mut self) -> Option<Event> {
        room::pop(&mut self.events).or_else(|| self.tables.poll_event().map(Event::Table))
    }

    /// Whether what members say is signed here, and verified.
    pub const fn is_signed(&self) -> bool {
        self.config.tables.verify.is_some()
    }

    /// This node, as it tells the others.
    pub fn me(&self) -> &Member {
        self.membership.me()
    }

    /// What is known of a node, and believed of it.
    pub fn member(&self, node: NodeId) -> Option<(&Member, Standing)> {
        self.membership.member(node)
    }

    /// All others that are known, in the order of their ids.
    pub fn members(&self) -> impl Iterator<Item = (&Member, Standing)> {
        self.membership.members()
    }

    /// How many others are alive or suspected.
    pub fn live(&self) -> usize {
        self.membership.live()
    }

    /// The value of an owner's entry that is in sight.
    pub fn get(&self, owner: NodeId, at: &EntryKey) -> Option<&Bytes> {
        self.tables.get(at.network, owner, at.table, &at.key)
    }

    /// A table's entries that are in sight, by owner and key: whose, where, what, and its change's number.
    pub fn entries(
        &self,
        network: NetworkId,
        table: TableId,
    ) -> impl Iterator<Item = (NodeId, &Key, &Bytes, Sequence)> {
        self.tables.entries(network, table)
    }

    /// The live subscribers of a network that are known, in the order of their ids; without this node.
    pub fn subscribers(&self, network: NetworkId) -> &[NodeId] {
        self.tables.subscribers(network)
    }

    /// Through which of this node's own changes every live subscriber of a network has confirmed; `None` for one that it does not
    /// take part in. It goes back when a subscriber comes that has yet to confirm.
    pub fn watermark(&self, network: NetworkId) -> Option<Sequence> {
        self.tables.watermark(network)
    }

    /// Up to which number this node has heard what others changed. Whoever asks when there is no [event](Self::poll_event) left has been told all of it.
    pub const fn heard(&self) -> Heard {
        self.tables.heard()
    }

    /// All that was [heard](Self::heard) up to this number was acted upon. With [`TablesConfig::act_within`] only that is confirmed, so that the
    /// others' watermarks say what was *acted* upon, each change as soon as it and all before it were; or after that time, so that nobody is kept
    /// waiting for longer. Of an owner of whom more than 64 changes wait the last ones wait together, and up to twice as long.
    pub fn acted(&mut self, through: Heard) {
        self.tables.acted(through);
    }

    /// The live subscribers of a network that have not confirmed this node's own changes through this one yet.
    pub fn behind(&self, network: NetworkId, sequence: Sequence) -> impl Iterator<Item = NodeId> {
        self.tables.behind(network, sequence)
    }

    /// By how many of this node's own changes the watermark of a network is behind the last; `None` for one that it does not take
    /// part in.
    pub fn watermark_lag(&self, network: NetworkId) -> Option<u64> {
        self.tables.watermark_lag(network)
    }

    /// The live subscribers of a network that have not confirmed all of this node's own changes yet: whom the watermark waits for.
    pub fn unconfirmed(&self, network: NetworkId) -> impl Iterator<Item = NodeId> {
        self.tables.unconfirmed(network)
    }

    /// Counts since the start, and lengths now.
    pub fn metrics(&self) -> Metrics {
        let tables = self.tables.metrics();
        Metrics {
            membership: self.membership.metrics(),
            tables,
            unroutable: self.unroutable,
            sent: self.sent,
            received: self.received,
            refused: self.refused,
            malformed: self.malformed,
            transmits: self.transmits.len() + tables.transmits,
            events: self.events.len() + tables.events,
        }
    }
}

#[cfg(test)]
impl Gossip {
    /// What would be told of a node.
    pub(crate) fn told_of(&self, node: NodeId, now: Instant) -> Option<wire::Update> {
        self.membership.told_of(node, now)
    }

    /// What would be shown of a node.
    pub(crate) fn shown_by(&mut self, node: NodeId, now: Instant) -> Option<Group> {
        self.tables.shown_by(node, now)
    }
}

/// Reads a payload to its end, the tables' bodies too: where anything is wrong, nothing is acted upon.
fn read(class: Class, payload: &[u8]) -> Result<Packet<'_>, Malformed> {
    let packet = Packet::parse(class, payload)?;
    for message in &packet.messages {
        if let Message::Table(body) = message {
            Tables::check_class(class, body)?;
        }
    }
    if let [Message::Table(_)] = packet.messages[..] {
        return Ok(packet); // the tables read it before they act
    }
    for message in &packet.messages {
        if let Message::Table(body) = message {
            Tables::check_body(body)?;
        }
    }
    Ok(packet)
}

/// A message's kind and length, at their longest in a datagram.
const FRAME: usize = 4;
