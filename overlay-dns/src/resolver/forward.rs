//! Questions for upstream servers.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use overlay_core::Instant;
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};
use smallvec::SmallVec;

use super::cache::{Cache, Found, Kept};
use super::fairness::Fairness;
use super::flight::{Attempt, Flight, Key, Waiter};
use super::relay::{self, Age};
use super::sockets::Sockets;
use super::upstream::Upstream;
use super::vet::{self, Verdict};
use super::{Client, Config, Handled, Path, Reply, Transmit, Transport, Upstreams};
use crate::Metrics;
use crate::answer::Limits;
use crate::wire::{HEADER_LEN, Message, OPCODE, Posed, QR, Query, RCODE, TC, word};

/// Asks servers, keeps what they say, and tells those who wait.
#[derive(Debug)]
pub(super) struct Forwarder {
    config: Config,
    rng: ChaCha12Rng,
    servers: Vec<Upstream>,
    cache: Cache,
    flights: BTreeMap<u64, Flight>,
    by_key: BTreeMap<Key, u64>,
    by_path: BTreeMap<(Path, u16), u64>,
    timers: BTreeSet<(Instant, u64)>,
    fairness: Fairness,
    sockets: Sockets,
    last_flight: u64,
    last_connection: u64,
    pub(super) metrics: Metrics,
    pub(super) transmits: VecDeque<Transmit>,
    pub(super) replies: VecDeque<Reply>,
}

/// Each server is asked so often for one question.
const ROUNDS: usize = 3;
/// The most queries for one question.
const MAX_SENT: usize = 9;
/// Among how many of those who wait for a question a copy is looked for: those who came last.
const COPIES: usize = 32;
/// After so many wrong ids a question is asked by TCP: one of 8,192 who guess is right before.
const GUESSES: u32 = 8;
/// One in so many questions goes to another server as well, to learn how fast that is now.
const PROBE: u32 = 32;
/// After how long clients are given what is past its time, if there is such (RFC 8767 §5).
const STALE_AFTER: Duration = Duration::from_millis(1800);

impl Forwarder {
    pub(super) fn new(config: Config, seed: [u8; 32]) -> Self {
        let mut rng = ChaCha12Rng::from_seed(seed);
        let mut cache_seed = [0; 16];
        rng.fill_bytes(&mut cache_seed);
        Self {
            cache: Cache::new(config.cache_bytes, cache_seed),
            fairness: Fairness::new(config.max_waiting),
            sockets: Sockets::new(config.sockets),
            config,
            rng,
            servers: Vec::new(),
            flights: BTreeMap::new(),
            by_key: BTreeMap::new(),
            by_path: BTreeMap::new(),
            timers: BTreeSet::new(),
            last_flight: 0,
            last_connection: 0,
            metrics: Metrics::default(),
            transmits: VecDeque::new(),
            replies: VecDeque::new(),
        }
    }

    pub(super) fn set_upstreams(&mut self, upstreams: &Upstreams) {
        let usable = upstreams.usable();
        if usable.iter().eq(self.servers.iter().map(|server| &server.address)) {
            return;
        }
        let known = std::mem::take(&mut self.servers);
        let server = |address| known.iter().find(|it| it.address == address).cloned();
        self.servers = usable.into_iter().map(|it| server(it).unwrap_or_else(|| Upstream::new(it))).collect();
        self.cache.clear();
        self.ask_anew();
    }

    pub(super) fn has_servers(&self) -> bool {
        !self.servers.is_empty()
    }

    pub(super) fn next_timer(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    pub(super) const fn waiting(&self) -> usize {
        self.fairness.waiting()
    }

    pub(super) fn metrics(&self) -> Metrics {
        let upstreams = self.servers.iter().map(Upstream::metrics).collect();
        Metrics { cache: self.cache.metrics(), upstreams, ..self.metrics.clone() }
    }

    /// Answers from the cache, or lets the client wait.
    pub(super) fn ask(&mut self, client: Client, posed: Posed<'_>, out: &mut Vec<u8>, now: Instant) -> Handled {
        let key = Key::of(posed.query);
        let limits = self.limits(client);
        let mut is_stale = false;
        match self.cache.get(key.as_bytes(), now) {
            Some(Found::Fresh(reply, age)) => {
                relay::write(reply, Age::Seconds(age), posed, limits, out);
                self.metrics.results.cached += 1;
                return Handled::Reply;
            }
            Some(Found::Stale(reply, true)) => {
                relay::write(reply, Age::Stale, posed, limits, out);
                self.metrics.results.stale += 1;
                return Handled::Reply;
            }
            Some(Found::Failure) => {
                relay::failure(posed, limits, out);
                self.metrics.results.failed += 1;
                return Handled::Reply;
            }
            Some(Found::Stale(_, false)) => is_stale = true,
            None => {}
        }
        self.wait((client, posed), (key, is_stale), out, now)
    }

    fn wait(
        &mut self,
        (client, posed): (Client, Posed<'_>),
        (key, is_stale): (Key, bool),
        out: &mut Vec<u8>,
        now: Instant,
    ) -> Handled {
        let under_way = self.by_key.get(&key).copied();
        if under_way
            .and_then(|id| self.flights.get(&id))
            .is_some_and(|flight| flight.is_waited_for_by(client, posed.query))
        {
            self.metrics.results.repeated += 1;
            return Handled::Drop;
        }
        if !self.fairness.admit(client.address.ip()) {
            relay::failure(posed, self.limits(client), out);
            self.metrics.results.overloaded += 1;
            return Handled::Reply;
        }
        let id = match under_way {
            Some(id) => {
                self.metrics.forwards.coalesced += 1;
                id
            }
            None => self.begin(key, is_stale, now),
        };
        let waiter =
            Waiter { client, query: Box::new(posed.query.clone()), question: SmallVec::from_slice(posed.question) };
        if let Some(flight) = self.flights.get_mut(&id) {
            flight.waiters.push(waiter);
        }
        Handled::Waits
    }

    /// Takes a message that came by `path`.
    pub(super) fn answer(&mut self, path: Path, from: SocketAddr, bytes: &[u8], now: Instant) {
        let found = self.find(path, from, bytes);
        let Some((id, at)) = found else {
            self.metrics.forwards.unexpected += 1;
            return self.note_guess(path, from, bytes, now);
        };
        let Some(flight) = self.flights.get(&id) else { return };
        let Some(attempt) = flight.attempts.get(at) else { return };
        let verdict = match Message::parse(bytes) {
            Some(message) if is_same(message.question(), &attempt.question, self.config.mixed_case) => {
                vet::judge(&message, flight.key.name(), flight.key.record_type(), flight.key.dnssec_ok())
            }
            // Somebody else's guess, perhaps: the right answer may still come.
            Some(_) => return self.metrics.forwards.lies += 1,
            None => match incomplete(bytes, &attempt.question, self.config.mixed_case) {
                Some(verdict) => verdict,
                None => return self.metrics.forwards.lies += 1,
            },
        };
        self.take(id, at, verdict, now);
    }

    /// Nothing will come by `path` from a server.
    pub(super) fn failure(&mut self, path: Path, from: SocketAddr, now: Instant) {
        let all = (path, 0)..=(path, u16::MAX);
        let ids: SmallVec<[u64; 4]> = self.by_path.range(all).map(|(_, id)| *id).collect();
        for id in ids {
            let is_it = |it: &Attempt| it.path == path && it.server == from;
            let at = self.flights.get(&id).and_then(|flight| flight.attempts.iter().position(is_it));
            if let Some(at) = at {
                self.take(id, at, Verdict::Useless { lie: false }, now);
            }
        }
    }

    /// Does what is due.
    pub(super) fn timeout(&mut self, now: Instant) {
        while let Some((at, id)) = self.timers.first().copied()
            && at <= now
        {
            self.timers.remove(&(at, id));
            let Some(flight) = self.flights.get_mut(&id) else { continue };
            if now >= flight.deadline {
                self.fail(id, now);
                continue;
            }
            if flight.stale_at.is_some_and(|at| at <= now) {
                flight.stale_at = None;
                self.give_stale(id, now);
            }
            let Some(flight) = self.flights.get_mut(&id) else { continue };
            if flight.hedge_at <= now {
                let sent = flight.sent;
                self.next(id, now);
                let is_sent = self.flights.get(&id).is_some_and(|flight| flight.sent > sent);
                self.metrics.forwards.hedged += u64::from(is_sent);
            }
            self.go_on(id, now);
        }
    }

    /// Which query a message answers: the flight and the attempt.
    fn find(&self, path: Path, from: SocketAddr, bytes: &[u8]) -> Option<(u64, usize)> {
        let id = word(bytes, 0)?;
        let flags = word(bytes, 2)?;
        if flags & QR == 0 || flags & OPCODE != 0 {
            return None;
        }
        let flight = self.by_path.get(&(path, id))?;
        let attempts = &self.flights.get(flight)?.attempts;
        let at = attempts.iter().position(|it| it.path == path && it.id == id && it.server == from)?;
        Some((*flight, at))
    }

    /// Counts what would be an answer to a question under way but for its id. When there were a few, somebody guesses, and the
    /// question goes by TCP, where there is nothing to guess.
    fn note_guess(&mut self, path: Path, from: SocketAddr, bytes: &[u8], now: Instant) {
        let asked = bytes.get(HEADER_LEN..).unwrap_or_default();
        let is_near = |it: &Attempt| {
            let theirs = asked.get(..it.question.len());
            it.path == path && it.server == from && theirs.is_some_and(|theirs| is_same(theirs, &it.question, false))
        };
        let under_way = self.by_path.range((path, 0)..=(path, u16::MAX)).map(|(_, id)| *id);
        let guessed =
            under_way.filter_map(|id| Some((id, self.flights.get(&id)?.attempts.iter().position(is_near)?))).next();
        let Some((id, at)) = guessed else { return };
        let Some(flight) = self.flights.get_mut(&id) else { return };
        flight.guesses += 1;
        if flight.guesses >= GUESSES {
            let attempt = flight.attempts.remove(at);
            self.close(&attempt);
            self.send(id, attempt.server, Transport::Tcp, now);
            self.go_on(id, now);
        }
    }

    /// Acts on a verdict over the attempt `at`.
    fn take(&mut self, id: u64, at: usize, verdict: Verdict, now: Instant) {
        let Some(flight) = self.flights.get_mut(&id) else { return };
        if at >= flight.attempts.len() {
            return;
        }
        let attempt = flight.attempts.remove(at);
        self.close(&attempt);
        let server = self.servers.iter_mut().find(|it| it.address == attempt.server);
        match verdict {
            Verdict::Reply(reply) => {
                server.into_iter().for_each(|it| it.heard(now - attempt.sent, attempt.with_edns));
                return self.finish(id, reply, now);
            }
            Verdict::Cut if matches!(attempt.path, Path::Udp(_)) => {
                server.into_iter().for_each(|it| it.heard(now - attempt.sent, attempt.with_edns));
                self.send(id, attempt.server, Transport::Tcp, now);
            }
            Verdict::NoEdns if attempt.with_edns => {
                let flight = self.flights.get_mut(&id);
                flight.into_iter().for_each(|flight| flight.without_edns.push(attempt.server));
                self.send(id, attempt.server, Transport::Udp, now);
            }
            Verdict::Useless { .. } | Verdict::Cut | Verdict::NoEdns => {
                self.metrics.forwards.lies += u64::from(verdict == Verdict::Useless { lie: true });
                server.into_iter().for_each(Upstream::was_silent);
                self.next(id, now);
            }
        }
        self.go_on(id, now);
    }

    /// Waits on, if somebody was asked who may answer yet.
    fn go_on(&mut self, id: u64, now: Instant) {
        match self.flights.get(&id) {
            Some(flight) if flight.attempts.is_empty() => self.fail(id, now),
            _ => self.arm(id),
        }
    }

    /// The servers, the one that answers soonest first.
    fn order(&self) -> SmallVec<[SocketAddr; 3]> {
        let mut order: SmallVec<[_; 3]> = self.servers.iter().map(|it| (it.cost(), it.address)).collect();
        order.sort_by_key(|(cost, _)| *cost);
        order.into_iter().map(|(_, address)| address).collect()
    }

    /// Has the servers that there are now asked what waits, when the clock is looked at next. What was asked of others is
    /// void: their answers come too late.
    fn ask_anew(&mut self) {
        let order = self.order();
        let ids: Vec<u64> = self.flights.keys().copied().collect();
        for id in ids {
            let Some(flight) = self.flights.get_mut(&id) else { continue };
            let stays = |attempt: &Attempt| order.contains(&attempt.server);
            let (left, void) = std::mem::take(&mut flight.attempts).into_iter().partition(stays);
            flight.attempts = left;
            flight.order.clone_from(&order);
            flight.sent = 0;
            flight.hedge_at = Instant::ZERO;
            let void: SmallVec<[Attempt; 2]> = void;
            void.iter().for_each(|attempt| self.close(attempt));
            self.arm(id);
        }
    }

    fn begin(&mut self, key: Key, is_stale: bool, now: Instant) -> u64 {
        self.last_flight += 1;
        let id = self.last_flight;
        let deadline = now + self.config.deadline;
        let flight = Flight {
            key: key.clone(),
            order: self.order(),
            sent: 0,
            guesses: 0,
            without_edns: SmallVec::new(),
            attempts: SmallVec::new(),
            waiters: Vec::new(),
            deadline,
            stale_at: is_stale.then_some(now + STALE_AFTER),
            hedge_at: deadline,
            wake: deadline,
        };
        self.by_key.insert(key, id);
        self.flights.insert(id, flight);
        self.timers.insert((deadline, id));
        self.next(id, now);
        if self.servers.len() > 1 && self.rng.next_u32().is_multiple_of(PROBE) {
            self.next(id, now);
        }
        self.arm(id);
        id
    }

    /// Asks the next server in order, unless enough were asked.
    fn next(&mut self, id: u64, now: Instant) {
        let (least, most) = self.config.hedge;
        let Some(flight) = self.flights.get_mut(&id) else { return };
        let round = flight.sent / flight.order.len().max(1);
        let server = flight.order.get(flight.sent % flight.order.len().max(1)).copied();
        let (Some(server), true) = (server, round < ROUNDS && flight.sent < MAX_SENT) else {
            flight.hedge_at = flight.deadline;
            return;
        };
        flight.sent += 1;
        let expected = self.servers.iter().find(|it| it.address == server).map_or(most, Upstream::expected);
        flight.hedge_at = now + expected.clamp(least, most) * (1 << round);
        self.send(id, server, Transport::Udp, now);
    }

    fn send(&mut self, id: u64, to: SocketAddr, by: Transport, now: Instant) {
        let Some(flight) = self.flights.get_mut(&id) else { return };
        let server = self.servers.iter_mut().find(|it| it.address == to);
        let with_edns = !flight.without_edns.contains(&to) && !server.as_ref().is_some_and(|it| it.plain);
        server.into_iter().for_each(|it| it.sent += 1);
        let path = match by {
            Transport::Udp if flight.guesses < GUESSES => Path::Udp(self.sockets.choose(&mut self.rng)),
            _ => {
                self.metrics.forwards.by_tcp += 1;
                self.last_connection += 1;
                Path::Tcp(self.last_connection)
            }
        };
        let mut message_id = self.rng.next_u32() as u16;
        while self.by_path.contains_key(&(path, message_id)) {
            message_id = message_id.wrapping_add(1);
        }
        let mut question = flight.key.question();
        if self.config.mixed_case {
            mix_case(&mut question, &mut self.rng);
        }
        let attempt = Attempt { server: to, path, id: message_id, sent: now, with_edns, question };
        let message = attempt.message(&flight.key, self.config.max_udp.min(UPSTREAM_UDP));
        flight.attempts.push(attempt);
        self.by_path.insert((path, message_id), id);
        self.transmits.push_back(Transmit { to, path, message });
        self.metrics.forwards.sent += 1;
    }

    /// Gives all who wait the reply, and keeps it.
    fn finish(&mut self, id: u64, reply: vet::Reply, now: Instant) {
        let Some(flight) = self.remove(id, now) else { return };
        for waiter in &flight.waiters {
            self.tell(waiter, |out, limits| relay::write(&reply, Age::Seconds(0), waiter.posed(), limits, out));
            self.metrics.results.forwarded += 1;
        }
        if let Some(ttl) = reply.ttl {
            let times = (ttl.min(self.config.max_ttl), self.config.stale.unwrap_or_default());
            self.cache.put(flight.key.as_bytes(), Kept::Reply(reply), times, now);
        }
    }

    /// Gives all who wait what is past its time, or SERVFAIL.
    fn fail(&mut self, id: u64, now: Instant) {
        self.give_stale(id, now);
        let Some(flight) = self.remove(id, now) else { return };
        for waiter in &flight.waiters {
            self.tell(waiter, |out, limits| relay::failure(waiter.posed(), limits, out));
            self.metrics.results.failed += 1;
        }
        self.cache.fail(flight.key.as_bytes(), self.config.failure_ttl, now);
    }

    /// Gives all who wait what is past its time, if there is such. Servers are asked on.
    fn give_stale(&mut self, id: u64, now: Instant) {
        let Some(flight) = self.flights.get_mut(&id) else { return };
        let Some(Found::Stale(reply, _)) = self.cache.get(flight.key.as_bytes(), now) else { return };
        let reply = reply.clone();
        for waiter in std::mem::take(&mut flight.waiters) {
            self.tell(&waiter, |out, limits| relay::write(&reply, Age::Stale, waiter.posed(), limits, out));
            self.metrics.results.stale += 1;
        }
    }

    fn tell(&mut self, waiter: &Waiter, write: impl FnOnce(&mut Vec<u8>, Limits)) {
        let mut message = Vec::new();
        write(&mut message, self.limits(waiter.client));
        self.fairness.done(waiter.client.address.ip());
        self.replies.push_back(Reply { client: waiter.client, message });
    }

    /// Takes a flight away, with all that points to it. Servers that had time to answer and did not are remembered for it.
    fn remove(&mut self, id: u64, now: Instant) -> Option<Flight> {
        let flight = self.flights.remove(&id)?;
        self.by_key.remove(&flight.key);
        self.timers.remove(&(flight.wake, id));
        for attempt in &flight.attempts {
            self.close(attempt);
            let server = self.servers.iter_mut().find(|it| it.address == attempt.server);
            if let Some(server) = server.filter(|it| now - attempt.sent > it.expected()) {
                server.was_silent();
            }
        }
        Some(flight)
    }

    fn close(&mut self, attempt: &Attempt) {
        self.by_path.remove(&(attempt.path, attempt.id));
        if let Path::Udp(socket) = attempt.path {
            self.sockets.done(socket);
        }
    }

    /// Puts a flight's timer where it belongs.
    fn arm(&mut self, id: u64) {
        let Some(flight) = self.flights.get_mut(&id) else { return };
        self.timers.remove(&(flight.wake, id));
        flight.wake = flight.deadline.min(flight.hedge_at).min(flight.stale_at.unwrap_or(flight.deadline));
        self.timers.insert((flight.wake, id));
    }

    const fn limits(&self, client: Client) -> Limits {
        Limits { tcp: matches!(client.transport, Transport::Tcp), max_udp: self.config.max_udp }
    }
}

/// The largest reply by UDP that we ask of servers: what is larger comes by TCP, and no fragment is forged.
const UPSTREAM_UDP: u16 = 1232;

impl Flight {
    /// Whether this very query waits already: a client that hears nothing sends it again.
    fn is_waited_for_by(&self, client: Client, query: &Query) -> bool {
        let same = |it: &&Waiter| it.client == client && it.query.id == query.id;
        self.waiters.iter().rev().take(COPIES).any(|it| same(&it))
    }
}

impl Waiter {
    fn posed(&self) -> Posed<'_> {
        Posed { query: &self.query, question: &self.question }
    }
}

/// Whether a reply repeats the question; with random capitals, these too. Type and class have no letters: 65 is not 97.
fn is_same(theirs: &[u8], ours: &[u8], mixed_case: bool) -> bool {
    let (theirs, ours) = (theirs.split_last_chunk::<4>(), ours.split_last_chunk::<4>());
    let (Some((their_name, their_type)), Some((our_name, our_type))) = (theirs, ours) else { return false };
    let is_same_name = if mixed_case { their_name == our_name } else { their_name.eq_ignore_ascii_case(our_name) };
    is_same_name && their_type == our_type
}

/// What a message says that repeats no question, since the server could not read it or would not, or whose records end
/// before their count does, since some who cut leave the counts as they were.
fn incomplete(bytes: &[u8], question: &[u8], mixed_case: bool) -> Option<Verdict> {
    let (flags, questions, additional) = (word(bytes, 2)?, word(bytes, 4)?, word(bytes, 10)?);
    let repeats = |theirs: &[u8]| is_same(theirs, question, mixed_case);
    match (questions, flags & RCODE) {
        (0, 1 | 4) if additional == 0 => Some(Verdict::NoEdns),
        (0, 1 | 2 | 4 | 5) => Some(Verdict::Useless { lie: false }),
        (1, _) if flags & TC != 0 && bytes.get(HEADER_LEN..HEADER_LEN + question.len()).is_some_and(repeats) => {
            Some(Verdict::Cut)
        }
        _ => None,
    }
}

/// Chooses small letters and capitals by chance: the name's letters, and neither type nor class behind it.
fn mix_case(question: &mut [u8], rng: &mut ChaCha12Rng) {
    let name = question.len().saturating_sub(4);
    let mut bits = 0_u64;
    for (at, byte) in question.iter_mut().take(name).enumerate() {
        if at % 64 == 0 {
            bits = rng.next_u64();
        }
        if byte.is_ascii_lowercase() && bits & 1 == 1 {
            *byte = byte.to_ascii_uppercase();
        }
        bits >>= 1;
    }
}
