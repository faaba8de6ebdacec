//! The `foca` crate as membership, with what it lacks around it: announcements repeated until somebody answers,
//! comparison of membership over streams, standings that end in suspension and expiry, and goodbyes told from failures.
//!
//! Lifeguard cannot be had from its hooks: foca refuses a changed `probe_period` or `probe_rtt` (`Foca::set_config`), tells
//! nobody of a suspicion before it has become a death, and does not say who suspects. So there is no local health, no
//! shortening by confirmations, and [`Event::Suspected`] never comes.

mod peer;
mod sync;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::net::SocketAddr;
use std::num::{NonZeroU8, NonZeroUsize};
use std::time::Duration;

use foca::{AccumulatingRuntime, Foca, NoCustomBroadcast, OwnedNotification, PeriodicParams, PostcardCodec, Timer};
use overlay_core::{Instant, NodeId};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use crate::chance::Chance;
use crate::foca_core::peer::Peer;
use crate::member::plain;
use crate::membership::{Membership, Outgoing, SEEDS, Source, Urgency};
use crate::metrics::MembershipMetrics;
use crate::wire::{self, Kind, Message, Packet};
use crate::{Class, Config, Event, Member, Reason, Standing};

/// foca, and what we know through it.
pub(crate) struct FocaCore {
    config: Config,
    me: Member,
    foca: Foca<Peer, PostcardCodec, ChaCha8Rng, NoCustomBroadcast>,
    runtime: AccumulatingRuntime<Peer>,
    timers: BinaryHeap<Reverse<(Instant, Timer<Peer>, u64)>>,
    planned: u64,
    known: BTreeMap<NodeId, Known>,
    live: Vec<NodeId>,
    seeds: Vec<SocketAddr>,
    failures: u32,
    announce_at: Option<Instant>,
    sync_at: Instant,
    /// Who has been asked for a comparison.
    asked: Option<NodeId>,
    phase: Phase,
    leave_at: Option<Instant>,
    chance: Chance,
    transmits: VecDeque<Outgoing>,
    events: VecDeque<Event>,
    counts: MembershipMetrics,
}

/// One other member.
#[derive(Debug)]
struct Known {
    peer: Peer,
    member: Member,
    standing: Standing,
    since: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Alone,
    Joined,
    Leaving,
    Gone,
}

impl FocaCore {
    pub(crate) fn new(config: Config, me: Member, seed: [u8; 32], now: Instant) -> Self {
        let mut chance = Chance::new(seed);
        let rng = ChaCha8Rng::from_seed(chance.seed());
        let foca = Foca::new(Peer::new(&me, 0), settings(&config, 1), rng, PostcardCodec);
        Self {
            foca,
            me,
            runtime: AccumulatingRuntime::new(),
            timers: BinaryHeap::new(),
            planned: 0,
            known: BTreeMap::new(),
            live: Vec::new(),
            seeds: Vec::new(),
            failures: 0,
            announce_at: None,
            sync_at: now + chance.within(config.sync_interval * SYNC_PERIODS),
            asked: None,
            phase: Phase::Alone,
            leave_at: None,
            chance,
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            counts: MembershipMetrics::default(),
            config,
        }
    }

    /// Announces this node to seeds until a cluster answers, since foca's one announcement may be lost, and then a node
    /// stays alone for good; later to seeds at which nobody is known to live, since else two halves never meet again.
    fn announce(&mut self, now: Instant) {
        self.announce_at = None;
        if matches!(self.phase, Phase::Leaving | Phase::Gone) {
            return;
        }
        let there = |id: &NodeId| self.known.get(id).map(|known| known.member.address);
        let live: BTreeSet<SocketAddr> = self.live.iter().filter_map(there).collect();
        let absent: Vec<SocketAddr> = self.seeds.iter().copied().filter(|seed| !live.contains(seed)).collect();
        if let Some(seed) = absent.get(self.chance.below(absent.len())).copied() {
            self.counts.calls += 1;
            self.count(|this| this.foca.announce(Peer::somebody(seed), &mut this.runtime));
        }
        let wait = self.config.seed_interval * (1 << self.failures.min(3));
        self.failures = if live.is_empty() { self.failures + 1 } else { 3 };
        self.announce_at = (!self.seeds.is_empty()).then(|| now + self.chance.around(wait));
    }

    /// foca refuses some messages for reasons of its own; they are counted.
    fn count<T>(&mut self, call: impl FnOnce(&mut Self) -> Result<T, foca::Error>) {
        if call(self).is_err() {
            self.counts.stray += 1;
        }
    }

    /// Takes from foca what it has to send, to plan and to say.
    fn settle(&mut self, now: Instant) {
        while let Some((to, data)) = self.runtime.to_send() {
            let mut payload = wire::begin(self.me.id);
            wire::put_frame(Kind::Foca, &data, &mut payload);
            let node = self.known.contains_key(&to.id()).then(|| to.id());
            self.transmits.push_back(Outgoing { to: foca::Identity::addr(&to), node, class: Class::Datagram, payload });
        }
        while let Some((after, timer)) = self.runtime.to_schedule() {
            self.planned += 1;
            self.timers.push(Reverse((now + after, timer, self.planned)));
        }
        while let Some(notification) = self.runtime.to_notify() {
            self.hear(notification, now);
        }
    }

    fn hear(&mut self, notification: OwnedNotification<Peer>, now: Instant) {
        match notification {
            OwnedNotification::MemberUp(peer) | OwnedNotification::Rename(_, peer) => self.up(peer, now),
            OwnedNotification::MemberDown(peer) => self.down(&peer, now),
            OwnedNotification::Rejoin(peer) => {
                self.counts.refutations += 1;
                self.me = peer.member();
            }
            _ => {}
        }
    }

    fn up(&mut self, peer: Peer, now: Instant) {
        let (id, member) = (peer.id(), peer.member());
        if id == self.me.id {
            return;
        }
        if peer.leaving {
            return self.stand(&peer, Standing::Left, now);
        }
        if self.known.len() + 1 >= self.config.member_limit && !self.known.contains_key(&id) {
            self.counts.refused_full += 1;
            return;
        }
        let known = Known { peer, member: member.clone(), standing: Standing::Alive, since: now };
        let event = match self.known.insert(id, known) {
            Some(was) if was.standing == Standing::Alive && was.member == member => None,
            Some(was) if was.standing == Standing::Alive => Some(Event::Changed(member)),
            _ => {
                self.live.push(id);
                Some(Event::Up(member))
            }
        };
        self.events.extend(event);
        self.resize();
        if self.phase == Phase::Alone {
            self.phase = Phase::Joined;
            self.events.push_back(Event::Joined);
            self.sync_at = now;
        }
    }

    fn down(&mut self, peer: &Peer, now: Instant) {
        let standing = if peer.leaving { Standing::Left } else { Standing::Suspended };
        let current = self.known.get(&peer.id()).is_some_and(|known| known.peer.number() <= peer.number());
        if current {
            self.stand(peer, standing, now);
        }
    }

    fn stand(&mut self, peer: &Peer, standing: Standing, now: Instant) {
        let id = peer.id();
        let Some(known) = self.known.get_mut(&id) else { return };
        if known.standing == standing || known.standing == Standing::Left {
            return;
        }
        (known.standing, known.since) = (standing, now);
        self.live.retain(|live| *live != id);
        self.events.push_back(if standing == Standing::Left { Event::Left(id) } else { Event::Suspended(id) });
    }

    /// Holds what we know to foca's list: its notifications alone tell of a node that changed its identity and failed in one
    /// breath in an order that can leave a ghost.
    #[expect(clippy::needless_collect, reason = "it is asked once for each member that is known")]
    pub(super) fn reconcile(&mut self, now: Instant) {
        let there: BTreeSet<NodeId> = self.foca.iter_members().map(|member| member.id().id()).collect();
        let is_ghost = |known: &&Known| known.standing == Standing::Alive && !there.contains(&known.peer.id());
        let ghosts: Vec<Peer> = self.known.values().filter(is_ghost).map(|known| known.peer.clone()).collect();
        ghosts.iter().for_each(|ghost| self.stand(ghost, Standing::Suspended, now));

        let peers = self.foca.iter_members().map(foca::Member::id);
        let is_missed = |peer: &&Peer| !peer.leaving && self.known.get(&peer.id()).is_none_or(is_gone);
        let missed: VecDeque<Peer> = peers.filter(is_missed).cloned().collect();
        missed.into_iter().for_each(|peer| self.up(peer, now));
    }

    /// What foca's settings derive from the cluster's size follows it.
    fn resize(&mut self) {
        let size = self.live.len() + 1;
        if size.is_power_of_two() {
            let settings = settings(&self.config, size);
            self.count(|this| this.foca.set_config(settings));
        }
    }

    fn expire(&mut self, now: Instant) {
        let over: Vec<NodeId> = self.expiries().filter(|(at, _)| *at <= now).map(|(_, id)| id).collect();
        for id in over {
            if self.known.remove(&id).is_some_and(|known| known.standing == Standing::Suspended) {
                self.events.push_back(Event::Expired(id));
            }
        }
    }

    fn expiries(&self) -> impl Iterator<Item = (Instant, NodeId)> {
        let gone = self.known.iter().filter(|(_, known)| known.standing != Standing::Alive);
        gone.map(|(id, known)| (known.since + self.config.expire_after, *id))
    }
}

fn is_gone(known: &Known) -> bool {
    known.standing != Standing::Alive
}

/// foca's settings for a cluster of this size.
fn settings(config: &Config, size: usize) -> foca::Config {
    let digits = (size as f64).log10().max(1.0);
    let tellings = (f64::from(config.retransmit_factor) * (size as f64 + 1.0).log10()).ceil().max(1.0) as u8;
    let every = |frequency: Duration, members: usize| {
        Some(PeriodicParams { frequency, num_members: NonZeroUsize::new(members).unwrap_or(NonZeroUsize::MIN) })
    };
    let room = config.room() * 2 / 3 - Packet::HEADER_LEN - 4;
    foca::Config {
        probe_period: config.probe_period,
        probe_rtt: config.probe_timeout.min(config.probe_period / 2),
        num_indirect_probes: NonZeroUsize::new(config.indirect_probes).unwrap_or(NonZeroUsize::MIN),
        max_transmissions: NonZeroU8::new(tellings).unwrap_or(NonZeroU8::MIN),
        suspect_to_down_after: config.probe_period.mul_f64(config.suspicion_factor * 2.0 * digits),
        remove_down_after: Some(config.expire_after),
        max_packet_size: NonZeroUsize::new(room).unwrap_or(NonZeroUsize::MIN),
        notify_down_members: true,
        periodic_announce: every(config.sync_interval * SYNC_PERIODS, 1),
        periodic_announce_to_down_members: every(config.seed_interval, 1),
        periodic_gossip: every(config.gossip_interval, config.gossip_fanout),
    }
}

/// How many intervals of comparison lie between two, since foca has no digests that would call for one.
const SYNC_PERIODS: u32 = 10;

impl Membership for FocaCore {
    fn join(&mut self, seeds: &[SocketAddr], now: Instant) {
        for seed in seeds.iter().copied().map(plain) {
            if seed != self.me.address && !self.seeds.contains(&seed) && self.seeds.len() < SEEDS {
                self.seeds.push(seed);
            }
        }
        self.failures = 0;
        self.announce(now);
        self.settle(now);
    }

    fn leave(&mut self, now: Instant) {
        if matches!(self.phase, Phase::Leaving | Phase::Gone) {
            return;
        }
        self.phase = Phase::Leaving;
        self.leave_at = Some(now + self.config.gossip_interval * 5);
        let goodbye = self.foca.identity().leaving();
        self.count(|this| this.foca.change_identity(goodbye, &mut this.runtime));
        self.settle(now);
    }

    fn change(&mut self, me: Member, now: Instant) {
        if matches!(self.phase, Phase::Leaving | Phase::Gone) {
            return;
        }
        let peer = self.foca.identity().revised(&me);
        self.me = me;
        self.count(|this| this.foca.change_identity(peer, &mut this.runtime));
        self.settle(now);
    }

    fn handle(&mut self, from: Source, message: &Message<'_>, now: Instant) {
        match message {
            _ if self.phase == Phase::Gone => return,
            Message::Foca(data) => self.count(|this| this.foca.handle_data(data, &mut this.runtime)),
            Message::SyncRequest(request) => self.on_sync_request(from, request, now),
            Message::SyncReply(reply) => self.on_sync_reply(from, reply, now),
            Message::SyncPush(push) => self.apply(&push.updates),
            _ => self.counts.stray += 1, // the other protocol's
        }
        self.settle(now);
    }

    fn handle_timeout(&mut self, now: Instant) {
        let mut due = Vec::new(); // before any is served: at the end of time, those that follow are due at once too
        while self.timers.peek().is_some_and(|Reverse((at, ..))| *at <= now) {
            due.extend(self.timers.pop());
        }
        for Reverse((_, timer, _)) in due {
            self.count(|this| this.foca.handle_timer(timer, &mut this.runtime));
            self.settle(now);
        }
        if self.leave_at.is_some_and(|at| at <= now) {
            (self.phase, self.leave_at) = (Phase::Gone, None);
            self.events.push_back(Event::Gone);
            return;
        }
        if self.announce_at.is_some_and(|at| at <= now) {
            self.announce(now);
        }
        if self.sync_at <= now {
            self.begin_sync(now);
        }
        self.expire(now);
        self.settle(now);
    }

    fn poll_timeout(&self) -> Option<(Instant, Reason)> {
        if self.phase == Phase::Gone {
            return None;
        }
        let all = [
            self.timers.peek().map(|Reverse((at, ..))| (*at, Reason::Foca)),
            self.announce_at.map(|at| (at, Reason::Seed)),
            (!self.live.is_empty()).then_some((self.sync_at, Reason::Sync)),
            self.expiries().min().map(|(at, _)| (at, Reason::Expiry)),
            self.leave_at.map(|at| (at, Reason::Leave)),
        ];
        all.into_iter().flatten().min()
    }

    fn poll_transmit(&mut self) -> Option<Outgoing> {
        self.transmits.pop_front()
    }

    fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// foca tells its news itself.
    fn news(&self) -> Option<Urgency> {
        None
    }

    fn fill(&mut self, _: NodeId, _: usize, _: &mut Vec<u8>, _: Instant) {}

    fn draw(&mut self, count: usize) -> Vec<(NodeId, SocketAddr)> {
        let mut drawn: Vec<NodeId> = Vec::with_capacity(count);
        for _ in 0..count * 4 {
            let Some(id) = self.live.get(self.chance.below(self.live.len())) else { break };
            if drawn.len() < count && !drawn.contains(id) {
                drawn.push(*id);
            }
        }
        drawn.into_iter().filter_map(|id| Some((id, self.known.get(&id)?.member.address))).collect()
    }

    fn me(&self) -> &Member {
        &self.me
    }

    fn member(&self, node: NodeId) -> Option<(&Member, Standing)> {
        if node == self.me.id {
            return Some((&self.me, Standing::Alive));
        }
        self.known.get(&node).map(|known| (&known.member, known.standing))
    }

    fn members(&self) -> Box<dyn Iterator<Item = (&Member, Standing)> + '_> {
        Box::new(self.known.values().map(|known| (&known.member, known.standing)))
    }

    fn live(&self) -> usize {
        self.live.len()
    }

    fn metrics(&self) -> MembershipMetrics {
        let of = |standing| self.known.values().filter(|known| known.standing == standing).count();
        MembershipMetrics {
            alive: self.live.len(),
            suspended: of(Standing::Suspended),
            left: of(Standing::Left),
            news: self.foca.updates_backlog(),
            ..self.counts
        }
    }
}

impl std::fmt::Debug for FocaCore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FocaCore").field("me", &self.me).field("known", &self.known).finish_non_exhaustive()
    }
}
