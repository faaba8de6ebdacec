//! The in-memory backend at work: packets in place.

mod live;

use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use overlay_core::{
    BackendError, EndpointId, Instant, IpFamily, Meter, Name, Protocol, Refusal, State as _, is_host_address,
};

use self::live::{Live, Taker};
use crate::flow::{HashKey, narrow, wide};
use crate::packet::{Content, Quote, Segment, View, echo_reply, refusal, rewrite, stir};
use crate::{
    Capabilities, Flow, FlowId, FlowTable, Readings, Scheduler, Signal, Stage, State, TableError, TableSize,
    TimeoutScope, Timeouts, Tuple, Way,
};

/// How large a [`Balancer`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// The most flows at once: 80 to 96 bytes each, taken at the beginning.
    pub flows: usize,
    /// The most sources that come back to their replica: what is beyond is not remembered.
    pub sources: usize,
    /// How many slots each service's table has that hashes: two bytes each.
    pub table: TableSize,
    /// Idle timeouts of services that say none.
    pub timeouts: Timeouts,
    /// What services hash by whose scheduler [does](crate::Scheduler::is_hash).
    pub choice: ChoiceKey,
}

impl Default for Config {
    /// 65,536 flows, 16,384 sources, tables of 65,537, and the choice that everybody knows.
    fn default() -> Self {
        let (timeouts, choice) = (Timeouts::default(), ChoiceKey::default());
        Self { flows: 1 << 16, sources: 1 << 14, table: TableSize::DEFAULT, timeouts, choice }
    }
}

/// What balancers hash by that are to make the same choice for the same packet: those with equal keys and tables do.
///
/// Who knows it can draw addresses and ports that all come to one replica. So it should be a secret that the balancers of a cluster share
/// and their clients do not know; the default is none. A balancer's flow table is keyed by its own seed, whatever this is.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct ChoiceKey([u8; 32]);

impl ChoiceKey {
    /// The key of these bytes: all of them should be by chance.
    pub const fn new(secret: [u8; 32]) -> Self {
        Self(secret)
    }
}

impl fmt::Debug for ChoiceKey {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ChoiceKey(..)")
    }
}

/// Balances a client's packets in user space: a machine without I/O, which holds a [`State`] and decides packets in place.
///
/// It sees all packets of a client, both ways. Of a flow's first packet it picks a replica, and translates the flow's from then
/// on; a replica that drains keeps its flows. When a replica goes, or is down, its flows end: UDP's at once; TCP's
/// ends are each sent a segment that makes them ask, by [`poll_transmit`](Self::poll_transmit), and what they ask is
/// answered with a reset. The same happens when a TCP flow was idle for too long, so that nobody waits for ever.
///
/// ```
/// use std::sync::Arc;
/// use overlay_core::{EndpointId, Instant, Port, Protocol};
/// use overlay_lb::{Balancer, Config, Replica, Service, State, Verdict};
///
/// let mut dns = Service::new(["10.0.0.9".parse()?]).port(Protocol::Udp, Port::DNS, Port::new(5353)?);
/// dns.replicas.insert(EndpointId::from_bytes([1; 16]), Replica::new(["10.0.0.2".parse()?]));
/// let state = State { services: [("dns".parse()?, dns)].into_iter().collect(), ..State::default() };
///
/// let mut balancer = Balancer::new(Config::default(), [7; 32], Instant::ZERO);
/// balancer.handle_state(Arc::new(state), Instant::ZERO)?;
/// let mut question = [
///     69, 0, 0, 30, 0, 1, 64, 0, 64, 17, 0x26, 0xa8, 10, 0, 0, 1, 10, 0, 0, 9, // IPv4
///     0x9c, 0x40, 0, 53, 0, 10, 0x00, 0x00, 1, 2, // UDP, from 40000 to 53
/// ];
/// let verdict = balancer.handle_packet(&mut question, Instant::ZERO);
/// assert_eq!(verdict, Verdict::Forth { replica: "10.0.0.2:5353".parse()? });
/// assert_eq!(question[16..20], [10, 0, 0, 2]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Balancer {
    config: Config,
    /// Its own.
    key: HashKey,
    /// The same for all that choose alike.
    choice: HashKey,
    live: Live,
    flows: FlowTable,
    stirring: VecDeque<(Flow, Way)>,
    answer: Vec<u8>,
    errors: Bucket,
    counts: Counts,
    swept: Instant,
}

/// What becomes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict<'b> {
    /// It is none of a service's: it goes on as it is.
    Pass,
    /// It was translated, and goes to a replica.
    Forth {
        /// Which.
        replica: SocketAddr,
    },
    /// It was translated, and goes to the client.
    Back,
    /// It goes no further, and this goes back to where it came from.
    Answer(&'b [u8]),
    /// It goes no further.
    Drop(Reason),
}

/// Why a packet goes no further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// It is no whole IP packet.
    Malformed,
    /// It is a fragment: its flow is not known, or its checksum covers more than it has.
    Fragment,
    /// It is for a VIP, in a protocol that none has.
    Protocol,
    /// It belongs to no flow, and begins none.
    NoFlow,
    /// There are as many flows as there can be.
    Full,
    /// It would be answered, but that may not be, or has been too often lately.
    Silent,
}

/// What a [`Balancer`] has done since it began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Counts {
    /// Flows that began.
    pub opened: u64,
    /// Flows that were cut, since their replica or service went.
    pub cut: u64,
    /// Flows that were idle for too long.
    pub expired: u64,
    /// Flows that had only begun, or had ended, and made room for others.
    pub evicted: u64,
    /// Packets for a VIP that nobody takes.
    pub refused: u64,
    /// Packets dropped without an answer.
    pub dropped: u64,
}

impl Balancer {
    /// One without services yet. The secret seed is its own: it keys the tables of flows and sources, and says nothing of who is
    /// chosen; that does [`Config::choice`].
    pub fn new(config: Config, seed: [u8; 32], now: Instant) -> Self {
        let key = HashKey::new(seed.map(|byte| byte ^ 0x5c));
        Self {
            live: Live::new(config.sources, seed),
            flows: FlowTable::new(config.flows, seed),
            config,
            key,
            choice: HashKey::new(config.choice.0),
            stirring: VecDeque::new(),
            answer: Vec::new(),
            errors: Bucket { tokens: ERRORS_AT_ONCE, since: now },
            counts: Counts::default(),
            swept: now,
        }
    }

    /// What it can express: all but services at the machine's own addresses, of which it has none.
    pub fn capabilities() -> Capabilities {
        Capabilities {
            backend: "user space",
            schedulers: Scheduler::ALL.into(),
            replicas: crate::Service::MAX_REPLICAS,
            affinity: true,
            timeouts: TimeoutScope::Each,
            all_ports: true,
            rejects: true,
            published: false,
            protocols: [Protocol::Tcp, Protocol::Udp, Protocol::Sctp].into(),
        }
    }

    /// Takes another state. Flows that it has no place for are cut. What did not change of it costs nothing if it was made from a copy
    /// of the last; the search for flows to cut is O(flows).
    ///
    /// # Errors
    /// If the state makes no sense; nothing has changed then.
    pub fn handle_state(&mut self, state: Arc<State>, _now: Instant) -> Result<(), Refusal> {
        state.check()?;
        Self::capabilities().permit(&state)?;
        let replicas: usize = state.services.values().map(|service| service.replicas.len()).sum();
        if replicas > MOST_REPLICAS {
            let reason = "user space has 8,388,608 of all services at most";
            return Err(Refusal::new("services", format!("{replicas} replicas"), reason));
        }
        if self.live.become_state(state, self.config.table)? {
            let gone: Vec<FlowId> =
                self.flows.flows().filter(|(_, flow)| !self.live.stands(flow)).map(|(id, _)| id).collect();
            for id in gone {
                self.counts.cut += 1;
                let stage = self.flows.stage(id);
                if let (Some(stage), Some(flow)) = (stage, self.flows.remove(id)) {
                    self.live.ended(flow.owner, stage);
                    stir_both(&mut self.stirring, flow, stage);
                }
            }
            self.live.forget_owners();
        }
        Ok(())
    }

    /// Decides an Ethernet frame, in place: its addresses stay, but an answer goes back to where it came from.
    #[inline]
    pub fn handle_frame(&mut self, frame: &mut [u8], now: Instant) -> Verdict<'_> {
        let Some((ethernet, ip)) = frame.split_at_mut_checked(ETHERNET) else {
            return Verdict::Drop(Reason::Malformed);
        };
        if !matches!(ethernet[12..], [0x08, 0x00] | [0x86, 0xdd]) {
            return Verdict::Pass;
        }
        let ended = self.decide(ip, now);
        if let (Ended::Answered, Some(head)) = (ended, self.answer.get_mut(..ETHERNET)) {
            head[..6].copy_from_slice(&ethernet[6..12]);
            head[6..12].copy_from_slice(&ethernet[..6]);
            head[12..].copy_from_slice(&ethernet[12..]);
        }
        self.verdict(ended, 0)
    }

    /// Decides an IP packet, in place.
    pub fn handle_packet(&mut self, ip: &mut [u8], now: Instant) -> Verdict<'_> {
        let ended = self.decide(ip, now);
        self.verdict(ended, ETHERNET)
    }

    /// Forgets what has been idle for too long, some of the flows at a time.
    pub fn handle_timeout(&mut self, now: Instant) {
        if now < self.swept + SWEEP {
            return;
        }
        self.swept = now;
        let count = self.flows.most() / 16 + 1;
        let Self { flows, live, stirring, counts, .. } = self;
        flows.sweep(count, now, |flow, stage| {
            counts.expired += 1;
            live.ended(flow.owner, stage);
            stir_both(stirring, flow, stage);
        });
        live.forget_sources(now);
    }

    /// When [`handle_timeout`](Self::handle_timeout) wants to be called; never while there are no flows. To be asked after each call
    /// of another method.
    pub fn poll_timeout(&self) -> Option<Instant> {
        (!self.flows.is_empty() || self.live.remembers()).then(|| self.swept + SWEEP)
    }

    /// The next IP packet that it has to send by itself. Whoever sends it finds the station.
    pub fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        let (flow, way) = self.stirring.pop_front()?;
        let (from, to) = match way {
            Way::Forth => (SocketAddr::new(flow.client.ip(), flow.alias), flow.replica),
            Way::Back => (flow.vip, flow.client),
        };
        let mut packet = Vec::with_capacity(60);
        stir(&Tuple::new(Protocol::Tcp, from, to), IpFamily::of(to.ip()), &mut packet);
        Some(packet)
    }

    /// How many flows a replica of a service has: those that have not ended.
    pub fn flows_of(&self, service: &Name, endpoint: EndpointId) -> u32 {
        self.live.flows_of(service, endpoint)
    }

    /// Its flows.
    pub const fn flows(&self) -> &FlowTable {
        &self.flows
    }

    /// What it has done.
    pub const fn counts(&self) -> Counts {
        self.counts
    }

    #[inline(always)]
    fn verdict(&self, ended: Ended, from: usize) -> Verdict<'_> {
        match ended {
            Ended::Passed => Verdict::Pass,
            Ended::Forth(address, port) => Verdict::Forth { replica: SocketAddr::new(narrow(address), port) },
            Ended::Back => Verdict::Back,
            Ended::Answered => Verdict::Answer(self.answer.get(from..).unwrap_or_default()),
            Ended::Dropped(reason) => Verdict::Drop(reason),
        }
    }

    #[inline(always)]
    fn decide(&mut self, ip: &mut [u8], now: Instant) -> Ended {
        let Some(view) = View::read(ip) else { return self.dropped(Reason::Malformed) };
        match &view.content {
            Content::Segment(segment) => self.segment(ip, &view, segment, now),
            Content::Error { quote } => self.error(ip, &view, *quote, now),
            _ if !self.live.is_vip(view.to) => Ended::Passed,
            Content::Echo if !is_somebodys(&view) => self.dropped(Reason::Silent),
            Content::Echo => {
                echo_reply(ip, &view);
                self.answer.clear();
                self.answer.resize(ETHERNET, 0);
                self.answer.extend_from_slice(ip.get(..view.end).unwrap_or_default());
                Ended::Answered
            }
            Content::Fragment => self.dropped(Reason::Fragment),
            Content::Other => self.dropped(Reason::Protocol),
        }
    }

    #[inline(always)]
    fn segment(&mut self, ip: &mut [u8], view: &View, segment: &Segment, now: Instant) -> Ended {
        let tuple = view.tuple(segment);
        let signal = view.signal(ip, segment.protocol);
        if let Some((id, way)) = self.flows.find(&tuple, now) {
            let again = signal == Signal::Begin && way == Way::Forth && self.flows.stage(id) == Some(Stage::Closing);
            if !again {
                return self.go_on(ip, view, (id, way, signal), now);
            }
            self.flows.remove(id); // its owner was told when it closed
        }
        if !self.live.is_vip(view.to) {
            return Ended::Passed;
        }
        match (segment.protocol, signal) {
            (Protocol::Udp, _) | (_, Signal::Begin) => self.begin(ip, view, &tuple, now),
            (Protocol::Sctp, _) => self.dropped(Reason::NoFlow),
            (Protocol::Tcp, _) => self.refuse(ip, view, now),
        }
    }

    #[inline(always)]
    fn go_on(&mut self, ip: &mut [u8], view: &View, (id, way, signal): (FlowId, Way, Signal), now: Instant) -> Ended {
        let (Some(translated), Some(owner)) = (self.flows.translated(id, way), self.flows.owner(id)) else {
            return self.dropped(Reason::NoFlow);
        };
        rewrite(ip, view, &translated);
        let timeouts = self.live.timeouts_of(owner).unwrap_or(&self.config.timeouts);
        if self.flows.note((id, way), signal, timeouts, now) == Some(Stage::Closing) {
            self.live.closed(owner);
        }
        match way {
            Way::Forth => Ended::Forth(translated.to, translated.to_port),
            Way::Back => Ended::Back,
        }
    }

    #[inline(never)]
    fn begin(&mut self, ip: &mut [u8], view: &View, tuple: &Tuple, now: Instant) -> Ended {
        if !is_somebodys(view) {
            return self.dropped(Reason::Silent);
        }
        let taker = self.live.pick(&self.choice, tuple, now);
        let Some(Taker { owner, replica }) = taker else { return self.refuse(ip, view, now) };
        let end = |address, port| SocketAddr::new(narrow(address), port);
        let flow = Flow {
            protocol: tuple.protocol,
            client: end(tuple.from, tuple.from_port),
            vip: end(tuple.to, tuple.to_port),
            replica,
            alias: tuple.from_port,
            owner,
        };
        let Some(id) = self.insert(flow, now) else { return self.dropped(Reason::Full) };
        self.counts.opened += 1;
        self.live.opened(owner);
        if let Some(translated) = self.flows.translated(id, Way::Forth) {
            rewrite(ip, view, &translated);
        }
        Ended::Forth(wide(replica.ip()), replica.port())
    }

    /// Inserts a flow; under another port of the client's where the replica would take it for another flow, and in place of one that has
    /// only begun where there is no room.
    fn insert(&mut self, mut flow: Flow, now: Instant) -> Option<FlowId> {
        for attempt in 0..ALIASES {
            let Self { flows, live, counts, .. } = self;
            let timeouts = live.timeouts_of(flow.owner).copied().unwrap_or(self.config.timeouts);
            let mut over = Vec::new();
            let inserted = flows.insert(&flow, &timeouts, |flow, stage| over.push((flow.owner, stage)), now);
            for (owner, stage) in over {
                counts.expired += 1;
                live.ended(owner, stage);
            }
            match inserted {
                Ok(id) => return Some(id),
                Err(TableError::Ambiguous) => {
                    let spread = self.key.of_address(u128::from(flow.alias) << 16 | attempt) as u16;
                    flow.alias = spread | LEAST_ALIAS;
                }
                Err(TableError::Full) => {
                    let (evicted, stage) = flows.evict(now)?;
                    counts.evicted += 1;
                    live.ended(evicted.owner, stage);
                }
                Err(TableError::Known) => return None,
            }
        }
        None
    }

    #[inline(never)]
    fn error(&mut self, ip: &mut [u8], view: &View, at: usize, now: Instant) -> Ended {
        let quote = Quote::read(ip, view, at);
        let found = quote.and_then(|quote| Some((quote, self.flows.find(&quote.tuple.turned(), now)?)));
        let Some((quote, (id, way))) = found else {
            return if self.live.is_vip(view.to) { self.dropped(Reason::NoFlow) } else { Ended::Passed };
        };
        // It is about a packet that left here; the answers to that come as `way` says.
        let (Some(answers), Some(flow)) = (self.flows.translated(id, way), self.flows.flow(id)) else {
            return self.dropped(Reason::NoFlow);
        };
        let mut ends = Tuple { from: view.from, to: view.to, ..answers };
        match way {
            Way::Back if view.from == wide(flow.replica.ip()) => ends.from = answers.from,
            Way::Back => {}
            Way::Forth => ends.to = answers.to,
        }
        quote.rewrite(ip, view, &answers.turned(), &ends);
        match way {
            Way::Forth => Ended::Forth(wide(flow.replica.ip()), flow.replica.port()),
            Way::Back => Ended::Back,
        }
    }

    #[inline(never)]
    fn refuse(&mut self, ip: &[u8], view: &View, now: Instant) -> Ended {
        self.counts.refused += 1;
        let Content::Segment(segment) = view.content else { return self.dropped(Reason::Protocol) };
        if !is_somebodys(view) || (segment.protocol != Protocol::Tcp && !self.errors.take(now)) {
            return self.dropped(Reason::Silent);
        }
        self.answer.clear();
        self.answer.resize(ETHERNET, 0);
        match refusal(ip, view, segment, &mut self.answer) {
            true => Ended::Answered,
            false => self.dropped(Reason::Silent),
        }
    }

    const fn dropped(&mut self, reason: Reason) -> Ended {
        self.counts.dropped += 1;
        Ended::Dropped(reason)
    }
}

impl Meter for Balancer {
    type Reading = Readings;

    /// O(flows).
    fn read(&mut self) -> Result<Readings, BackendError> {
        let mut readings = Readings::default();
        for (id, flow) in self.flows.flows() {
            if self.flows.stage(id).is_some_and(|stage| stage != Stage::Closing) {
                readings.add(flow.vip.ip(), flow.replica.ip(), 1);
            }
        }
        Ok(readings)
    }
}

impl fmt::Debug for Balancer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Balancer").field("flows", &self.flows).field("counts", &self.counts).finish_non_exhaustive()
    }
}

/// Whether a packet's source is one host, that can be answered (RFC 1122 §3.2.1.3, RFC 4443 §2.4 e.6).
fn is_somebodys(view: &View) -> bool {
    is_host_address(narrow(view.from))
}

/// A verdict before it borrows.
#[derive(Clone, Copy)]
enum Ended {
    Passed,
    /// To this address and port of a replica's, as numbers: those are passed on at once.
    Forth(u128, u16),
    Back,
    Answered,
    Dropped(Reason),
}

/// Both ends of a TCP flow that has not ended are to be made ask for it.
fn stir_both(stirring: &mut VecDeque<(Flow, Way)>, flow: Flow, stage: Stage) {
    if flow.protocol == Protocol::Tcp && stage == Stage::Established {
        stirring.extend([(flow, Way::Back), (flow, Way::Forth)]);
    }
}

/// How many ICMP errors may be sent (RFC 4443 §2.4 f).
struct Bucket {
    tokens: u32,
    since: Instant,
}

impl Bucket {
    fn take(&mut self, now: Instant) -> bool {
        let more = ((now - self.since).as_nanos() / BETWEEN_ERRORS.as_nanos()) as u32;
        if more > 0 {
            self.tokens = self.tokens.saturating_add(more).min(ERRORS_AT_ONCE);
            self.since = now;
        }
        let may = self.tokens > 0;
        self.tokens = self.tokens.saturating_sub(1);
        may
    }
}

const ETHERNET: usize = 14;
/// A flow's owner has 24 bits, and those that go keep theirs for a moment.
const MOST_REPLICAS: usize = 1 << 23;
const SWEEP: Duration = Duration::from_millis(125);
const ALIASES: u128 = 24;
const LEAST_ALIAS: u16 = 0xc000; // RFC 6335 §6: nobody's
const ERRORS_AT_ONCE: u32 = 50;
const BETWEEN_ERRORS: Duration = Duration::from_millis(1);
