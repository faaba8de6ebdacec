//! Our own membership protocol: SWIM (Das, Gupta, Motivala 2002) with Lifeguard (arXiv 1707.00788), digests in every
//! probe and answer, comparison over streams where those differ, and calls to whoever is suspended.

mod apply;
mod claims;
mod health;
#[cfg(test)]
mod hostile;
mod news;
mod probe;
mod roster;
mod seeds;
mod statements;
mod suspicion;
mod sync;

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;

use overlay_core::{Instant, NodeId};

use crate::chance::Chance;
use crate::membership::{Membership, Outgoing, Source, Urgency};
use crate::metrics::MembershipMetrics;
use crate::room;
use crate::swim::claims::{Claims, signed};
use crate::swim::health::Health;
use crate::swim::news::News;
use crate::swim::probe::{Probe, Relay};
use crate::swim::roster::{Index, ME, Roster, Slot};
use crate::swim::seeds::Seeds;
use crate::swim::statements::goodbye;
use crate::swim::sync::Sync;
use crate::tables::Group;
use crate::wire::{self, Kind, Message};
use crate::{Class, Config, Event, Member, Reason, Standing};

/// The protocol's state.
#[derive(Debug)]
pub(crate) struct Swim {
    config: Config,
    roster: Roster,
    news: News,
    urgency: Urgency,
    health: Health,
    chance: Chance,
    phase: Phase,

    probe_at: Instant,
    probes: Vec<Probe>,
    relays: Vec<Relay>,
    /// When each suspect's time is over.
    suspects: BTreeSet<(Instant, Index)>,
    /// When suspended and left members are forgotten.
    expiries: BTreeSet<(Instant, Index)>,
    seeds: Seeds,
    sync: Sync,
    claims: Claims,
    /// Whether anything that it tells may be signed.
    signed: bool,
    leave_at: Option<Instant>,
    /// The greatest incarnation of this very node that it was told of as [`Event::Superseded`].
    superseded_by: Option<u64>,

    transmits: VecDeque<Outgoing>,
    events: VecDeque<Event>,
    counts: MembershipMetrics,
}

/// How far this node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Member,
    Leaving,
    Gone,
}

impl Swim {
    pub(crate) fn new(config: Config, me: Member, seed: [u8; 32], now: Instant) -> Self {
        let mut chance = Chance::new(seed);
        let probe_at = now + chance.within(config.probe_period);
        let mut news = News::default();
        news.add(ME);
        let mut swim = Self {
            health: Health::new(config.health_limit),
            roster: Roster::new(me, now),
            news,
            urgency: Urgency::Usual,
            chance,
            phase: Phase::Member,
            probe_at,
            probes: Vec::new(),
            relays: Vec::new(),
            suspects: BTreeSet::new(),
            expiries: BTreeSet::new(),
            seeds: Seeds::default(),
            sync: Sync::new(now),
            claims: Claims::new(now),
            signed: config.tables.verify.is_some(),
            leave_at: None,
            superseded_by: None,
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            counts: MembershipMetrics::default(),
            config,
        };
        swim.sign_me();
        swim
    }

    /// Sends one message in a datagram, and news with it.
    fn send(&mut self, (to, node): (SocketAddr, Option<NodeId>), kind: Kind, body: &[u8], now: Instant) {
        let mut payload = wire::begin(self.me().id);
        wire::put_frame(kind, body, &mut payload);
        let room = (self.config.room() * NEWS_SHARE / 100).saturating_sub(payload.len());
        self.fill_for(node.map(|node| (node, Some(to))), room, &mut payload, now);
        self.transmits.push_back(Outgoing { to, node, class: Class::Datagram, payload });
    }

    /// Sends one message on a stream.
    fn stream(&mut self, to: SocketAddr, node: Option<NodeId>, kind: Kind, body: &[u8]) {
        let mut payload = wire::begin(self.me().id);
        wire::put_frame(kind, body, &mut payload);
        self.mark(&mut payload);
        self.transmits.push_back(Outgoing { to, node, class: Class::Stream, payload });
    }

    /// Notes that a payload tells of members, where that may be signed.
    fn mark(&self, payload: &mut [u8]) {
        if self.signed {
            wire::mark_signed(payload);
        }
    }

    /// Appends news; first, what is thought of the receiver itself, if that is nothing good (Lifeguard's buddy system), or if it is not
    /// sent to where the member is: then a later start of it may be there, which this one cannot know.
    fn fill_for(&mut self, to: Option<(NodeId, Option<SocketAddr>)>, room: usize, out: &mut Vec<u8>, now: Instant) {
        let address = to.and_then(|(_, address)| address);
        let to = to.and_then(|(node, _)| self.roster.find(node));
        let elsewhere = |slot: &Slot| address.is_some_and(|address| address != slot.member.address);
        let of_note = |slot: &Slot| slot.standing != Standing::Alive || elsewhere(slot);
        let itself = to.filter(|at| self.roster.slot(*at).is_some_and(of_note));
        let mut body = Vec::new();
        let mut told = Vec::new();
        let mut misses = 0;
        for at in itself.into_iter().chain(self.news.iter().filter(|at| Some(*at) != to)) {
            let Some(update) = self.roster.slot(at).map(|slot| slot.update(now)) else { continue };
            if wire::frame_len(body.len() + update.encoded_len()) > room {
                misses += 1;
                if misses == 4 {
                    break;
                }
                continue;
            }
            update.encode(&mut body);
            told.push(at);
        }
        if body.is_empty() {
            return;
        }
        wire::put_frame(Kind::News, &body, out);
        self.mark(out);
        let limit = self.retransmit_limit();
        told.into_iter().for_each(|at| self.news.told(at, limit));
        let accused = itself.and_then(|at| self.roster.slot_mut(at)).filter(|slot| slot.standing != Standing::Alive);
        if let Some(slot) = accused {
            slot.trouble_mut().told = now;
        }
    }

    /// How often each piece of news is told: λ·log₁₀(n + 1), rounded up.
    fn retransmit_limit(&self) -> u32 {
        let digits = (self.roster.len() as f64 + 1.0).log10();
        (f64::from(self.config.retransmit_factor) * digits).ceil() as u32
    }

    fn goodbye(&mut self) {
        self.phase = Phase::Gone;
        self.leave_at = None;
        self.probes.clear();
        self.relays.clear();
        self.suspects.clear();
        self.expiries.clear();
        self.sync.again = None;
        self.events.push_back(Event::Gone);
    }

    /// Served late means that this node was not running: it is slow, and answers may wait unread. So whoever's time ran
    /// out meanwhile gets some more.
    fn forgive(&mut self, due: Instant, now: Instant) {
        let late = now - due;
        if late <= self.config.probe_timeout / 2 {
            return;
        }
        self.counts.late += 1;
        self.health.worse(1);
        let grace = now + self.config.probe_timeout * 2;
        self.probes.iter_mut().for_each(|probe| probe.deadline = probe.deadline.max(grace));
        while let Some((deadline, at)) = self.suspects.first().copied() {
            if deadline >= grace {
                break;
            }
            self.suspects.pop_first();
            self.suspects.insert((grace, at));
            if let Some(suspicion) = self.roster.slot_mut(at).and_then(|slot| slot.trouble.as_mut()?.suspicion.as_mut())
            {
                suspicion.deadline = grace;
            }
        }
    }
}

impl Membership for Swim {
    fn join(&mut self, seeds: &[SocketAddr], now: Instant) {
        self.add_seeds(seeds, now);
    }

    fn leave(&mut self, now: Instant) {
        if self.phase != Phase::Member {
            return;
        }
        self.phase = Phase::Leaving;
        let verify = self.config.tables.verify.clone();
        let left = |slot: &mut Slot| {
            let goodbye = goodbye(slot.member.id, slot.number());
            slot.settle();
            slot.signature = verify.map(|verify| signed(&*verify, goodbye)).unwrap_or_default(); // without any, this node is missed as if it had failed
            (slot.standing, slot.since) = (Standing::Left, now);
        };
        self.roster.change(ME, left, &mut self.chance);
        self.news.add(ME);
        self.urgency = Urgency::Now;
        let rounds = if self.roster.live() == 0 { 0 } else { LEAVE_ROUNDS };
        self.leave_at = Some(now + self.config.gossip_interval * rounds);
    }

    fn change(&mut self, me: Member, now: Instant) {
        if self.phase != Phase::Member {
            return;
        }
        self.revise(now, |slot| {
            slot.member = Member { incarnation: slot.member.incarnation, id: slot.member.id, ..me }
        });
    }

    fn handle(&mut self, from: Source, message: &Message<'_>, now: Instant) {
        if self.phase == Phase::Gone {
            return;
        }
        match message {
            Message::Ping(ping) => self.on_ping(from, *ping, now),
            Message::Ack(ack) => self.on_ack(from, *ack, now),
            Message::PingRequest(request) => self.on_ping_request(from, *request, now),
            Message::Nack(nack) => self.on_nack(*nack),
            Message::News(news) => self.on_all_news(from, news, now),
            Message::SyncRequest(request) => self.on_sync_request(from, request, now),
            Message::SyncReply(reply) => self.on_sync_reply(from, reply, now),
            Message::SyncPush(push) => self.on_sync_push(from, push, now),
            Message::Proofs(proofs) => self.on_proofs(from, proofs, now),
            Message::Prove(_) | Message::Table(_) | Message::Foca(_) => self.counts.stray += 1,
        }
        self.tell_if_wronged(from, now);
    }

    fn handle_timeout(&mut self, now: Instant) {
        let Some((due, _)) = self.poll_timeout() else { return };
        if due > now {
            return;
        }
        self.forgive(due, now);
        if self.leave_at.is_some_and(|at| at <= now) {
            return self.goodbye();
        }
        self.serve_probes(now);
        self.serve_suspicions(now);
        self.serve_expiries(now);
        self.serve_seeds(now);
        self.serve_sync(now);
        self.claims.expire(now);
    }

    fn poll_timeout(&self) -> Option<(Instant, Reason)> {
        if self.phase == Phase::Gone {
            return None;
        }
        let probes =
            self.probes.iter().map(|probe| probe.deadline).chain(self.relays.iter().filter_map(Relay::nack_at));
        let turn = (self.roster.live() > 0 && self.phase == Phase::Member).then_some(self.probe_at);
        let all = [
            probes.chain(turn).min().map(|at| (at, Reason::Probe)),
            self.suspects.first().map(|(at, _)| (*at, Reason::Suspicion)),
            self.expiries.first().map(|(at, _)| (*at, Reason::Expiry)),
            self.seeds.at.map(|at| (at, Reason::Seed)),
            self.sync.again.map(|(at, _)| (at, Reason::Sync)),
            self.leave_at.map(|at| (at, Reason::Leave)),
        ];
        all.into_iter().flatten().min()
    }

    fn poll_transmit(&mut self) -> Option<Outgoing> {
        room::pop(&mut self.transmits)
    }

    fn poll_shown(&mut self) -> Option<Group> {
        self.claims.poll_shown()
    }

    fn poll_event(&mut self) -> Option<Event> {
        room::pop(&mut self.events)
    }

    fn news(&self) -> Option<Urgency> {
        (self.phase != Phase::Gone && self.news.len() > 0 && self.roster.live() > 0).then_some(self.urgency)
    }

    fn fill(&mut self, to: NodeId, room: usize, out: &mut Vec<u8>, now: Instant) {
        self.urgency = Urgency::Usual;
        let room = room * NEWS_SHARE / 100;
        self.fill_for(Some((to, None)), room, out, now);
    }

    fn draw(&mut self, count: usize) -> Vec<(NodeId, SocketAddr)> {
        let drawn = self.roster.draw(count, None, &mut self.chance);
        let of = |at| self.roster.slot(at).map(|slot| (slot.member.id, slot.member.address));
        drawn.into_iter().filter_map(of).collect()
    }

    #[expect(clippy::expect_used, reason = "the roster holds this node from `new` on, and never forgets it")]
    fn me(&self) -> &Member {
        &self.roster.slot(ME).expect("made with it").member
    }

    fn member(&self, node: NodeId) -> Option<(&Member, Standing)> {
        let slot = self.roster.slot(self.roster.find(node)?)?;
        Some((&slot.member, slot.standing))
    }

    fn members(&self) -> Box<dyn Iterator<Item = (&Member, Standing)> + '_> {
        Box::new(self.roster.iter().filter(|(at, _)| *at != ME).map(|(_, slot)| (&slot.member, slot.standing)))
    }

    fn live(&self) -> usize {
        self.roster.live()
    }

    #[cfg(test)]
    fn told_of(&self, node: NodeId, now: Instant) -> Option<wire::Update> {
        Some(self.roster.slot(self.roster.find(node)?)?.update(now))
    }

    fn metrics(&self) -> MembershipMetrics {
        let suspected = self.suspects.len();
        MembershipMetrics {
            alive: self.roster.live() - suspected,
            suspected,
            suspended: self.roster.down(),
            left: self.roster.len() - 1 - self.roster.live() - self.roster.down(),
            news: self.news.len(),
            probes: self.probes.len(),
            claims: self.claims.len(),
            health: self.health.level(),
            ..self.counts
        }
    }
}

/// How much of a datagram, in percent, membership may take, so that tables are heard while thousands join.
const NEWS_SHARE: usize = 67;
/// For how many rounds of news a goodbye is told.
const LEAVE_ROUNDS: u32 = 5;
