//! The machine: frames and packets in, frames and packets out.

mod arrive;
mod flood;
mod forward;
mod gateway;
mod leave;
mod serve;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use overlay_core::{BackendError, EndpointId, Instant, Mac, Meter};
use overlay_crypto::{SaId, Usage};

use self::flood::Flood;
pub(crate) use self::forward::{Way, passage};
use self::serve::Client;
use crate::bucket::{Bucket, Rate};
use crate::buffer::Met;
use crate::content::Contents;
use crate::protection::Protection;
use crate::tables::Station;
use crate::track::Tracker;
use crate::{Buffer, Counts, Fate, Reason, Tables, Trace};

/// How large a [`Datapath`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// Of each endpoint that reaches services: its flows to them, taken when it first sends something.
    pub balancer: overlay_lb::Config,
    /// The most flows that are followed for networks' policies, all together: some 250 bytes each. For one that would be beyond, the endpoint that has begun most
    /// gives one up, which is [counted](Counts::displaced): first one that nobody answered, else, if it has two more than who begins, the one that was answered first. So an
    /// endpoint that begins any number of flows denies none to others; where what begins is an endpoint's that has as many as any, and all answered, it is dropped.
    /// Endpoints elsewhere count as one of 64 for each network, by their addresses, and all that comes by a segment's gateway as one.
    ///
    /// Who has begun a flow is whose packet is the first that is followed of it. So a peer that a policy lets an endpoint speak to, and that has
    /// filled the table itself, can have that endpoint begin flows: it sends more than are followed, and the answers to what gave way begin anew. What then
    /// gives way is the answering endpoint's oldest.
    pub flows: usize,
    /// How many frames for all or many are copied, where a network floods at all.
    pub floods: Rate,
    /// How many ICMP errors are sent (RFC 4443 §2.4 f).
    pub errors: Rate,
}

impl Default for Config {
    /// 4,096 flows of each endpoint, 65,536 for policies, 1,000 floods and 1,000 errors a second.
    fn default() -> Self {
        let rate = Rate { per_second: 1_000, burst: 100 };
        let balancer = overlay_lb::Config { flows: 1 << 12, sources: 1 << 10, ..overlay_lb::Config::default() };
        Self { balancer, flows: 1 << 16, floods: rate, errors: rate }
    }
}

/// Carries packets of overlay networks in user space: a machine without I/O, over buffers that the caller owns.
///
/// What it carries is what its [`Tables`] say: nothing is learned from packets, what nobody told it of is dropped, and each drop is counted by its
/// [`Reason`].
///
/// A node has one, whatever it has of [queues and threads](crate#several-queues).
///
/// After a batch, each buffer has its [`Fate`]. To be polled for [more](Self::poll_transmit) after each call with a `now`, then for its
/// [timeout](Self::poll_timeout).
#[derive(Debug)]
pub struct Datapath {
    config: Config,
    seed: [u8; 32],
    /// What spreads flows over source ports.
    spread: u64,
    tables: Arc<Tables>,
    revision: u64,
    changed: Option<Instant>,
    clients: BTreeMap<EndpointId, Client>,
    /// No client wants its timeout earlier: so a packet costs the same with many as with few.
    due: Option<Instant>,
    /// Clients that may have something to send by themselves.
    stirring: BTreeSet<EndpointId>,
    tracker: Tracker,
    protection: Protection,
    floods: VecDeque<Flood>,
    flood_rate: Bucket,
    error_rate: Bucket,
    identification: u16,
    counts: Counts,
    /// What was read of frames before it was their turn: of no meaning between two calls.
    ahead: Vec<Result<Contents, Reason>>,
}

/// What was looked up of a frame before it was its turn.
struct Seen<'t> {
    contents: &'t Contents,
    /// Who has the Ethernet address that it is for.
    station: Option<&'t Station>,
}

/// What a packet is decided by, beside what is known of flows.
#[derive(Clone, Copy)]
struct Turn<'t> {
    tables: &'t Tables,
    now: Instant,
}

impl Datapath {
    /// One that carries nothing yet. The seed keys what is hashed of strangers' packets.
    pub fn new(config: Config, seed: [u8; 32], now: Instant) -> Self {
        let spread = seed.iter().take(8).fold(0x5eed, |word: u64, byte| word.rotate_left(8) ^ u64::from(*byte));
        Self {
            seed,
            spread,
            tables: Arc::default(),
            revision: 0,
            changed: None,
            clients: BTreeMap::new(),
            due: None,
            stirring: BTreeSet::new(),
            tracker: Tracker::new(config.flows, seed.map(|byte| byte ^ 0x36), now),
            protection: Protection::default(),
            floods: VecDeque::new(),
            flood_rate: Bucket::new(config.floods, now),
            error_rate: Bucket::new(config.errors, now),
            identification: 0,
            counts: Counts::default(),
            ahead: Vec::new(),
            config,
        }
    }

    /// Takes other tables, between two batches. Flows are held to them when their next packet comes, or at the
    /// [timeout](Self::handle_timeout) that is due at once; keys of associations that are new are taken now.
    pub fn handle_tables(&mut self, tables: Arc<Tables>, now: Instant) {
        self.protection.follow(&tables.crypto);
        self.tracker.follow(&self.tables.places_in(&tables));
        self.clients.retain(|endpoint, _| tables.port(*endpoint).is_some_and(|(_, port)| port.services.is_some()));
        self.tables = tables;
        self.revision += 1;
        self.changed = Some(now);
    }

    /// Takes frames that an endpoint here has sent.
    pub fn handle_frames(&mut self, from: EndpointId, batch: &mut [Buffer], now: Instant) {
        let tables = Arc::clone(&self.tables);
        let Some(at) = tables.port(from).and_then(|(_, port)| tables.at(port)) else {
            for buffer in batch {
                let fate = self.leave_gateway(Turn { tables: &tables, now }, from, buffer);
                self.settle(buffer, fate, Some(from));
            }
            return;
        };
        let mut ahead = std::mem::take(&mut self.ahead);
        for batch in batch.chunks_mut(AHEAD) {
            // So the lookups of many wait for memory together.
            let mut stations = [None; AHEAD];
            read_ahead(&mut ahead, batch);
            for (station, contents) in stations.iter_mut().zip(&ahead) {
                let to = contents.as_ref().map_or(Mac::ZERO, |contents| contents.destination);
                *station = if to == at.segment.gateway_mac { None } else { at.segment.find(to) };
            }
            for ((buffer, contents), station) in batch.iter_mut().zip(&ahead).zip(stations) {
                let fate = match contents {
                    Ok(contents) => {
                        let seen = Seen { contents, station };
                        self.leave(Turn { tables: &tables, now }, at, &seen, buffer)
                    }
                    Err(reason) => Err(*reason),
                };
                self.settle(buffer, fate, Some(from));
            }
        }
        self.ahead = ahead;
    }

    /// Takes whole IP packets that came from the underlay: VXLAN in UDP, or ESP.
    pub fn handle_packets(&mut self, batch: &mut [Buffer], now: Instant) {
        let tables = Arc::clone(&self.tables);
        let mut ahead = std::mem::take(&mut self.ahead);
        let mut near = None; // most packets are of the same segment as the one before
        for batch in batch.chunks_mut(AHEAD) {
            let mut segments = [Err(Reason::Malformed); AHEAD];
            for (segment, buffer) in segments.iter_mut().zip(&mut *batch) {
                *segment = self.unwrap(&tables, near, buffer);
                near = segment.ok().or(near);
            }
            read_ahead(&mut ahead, batch);
            for ((buffer, contents), segment) in batch.iter_mut().zip(&ahead).zip(segments) {
                let fate = match (segment, contents.as_ref().map_err(|reason| *reason)) {
                    (Ok(segment), Ok(contents)) => {
                        self.arrive(Turn { tables: &tables, now }, segment, contents, buffer)
                    }
                    (Err(reason), _) | (_, Err(reason)) => Err(reason),
                };
                self.settle(buffer, fate, None);
            }
        }
        self.ahead = ahead;
    }

    /// Gives the next packet that it has to send by itself: copies of what goes to several, and what ends flows. `false`, and nothing of
    /// meaning in the buffer, where there is none.
    pub fn poll_transmit(&mut self, buffer: &mut Buffer, now: Instant) -> bool {
        let tables = Arc::clone(&self.tables);
        let turn = Turn { tables: &tables, now };
        while let Some(fate) = self.copy(turn, buffer).or_else(|| self.stir(turn, buffer)) {
            self.settle(buffer, fate, None);
            if !matches!(buffer.fate(), Fate::Drop(_)) {
                return true;
            }
        }
        false
    }

    /// Forgets flows that were idle for too long, and holds all to tables that are new.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.changed.take().is_some() {
            self.revalidate(now);
        }
        if self.due.is_some_and(|due| due <= now) {
            self.clients.values_mut().for_each(|client| client.balancer.handle_timeout(now));
            self.due = self.clients.values().filter_map(|client| client.balancer.poll_timeout()).min();
            self.stirring.extend(self.clients.keys());
        }
        self.tracker.sweep(now);
    }

    /// When [`handle_timeout`](Self::handle_timeout) wants to be called; now and then a little early, when a client is gone. O(1).
    pub fn poll_timeout(&self) -> Option<Instant> {
        [self.due, self.tracker.poll_timeout(), self.changed].into_iter().flatten().min()
    }

    /// What would become of a frame of an endpoint's here, and why: as [`Tables::trace`].
    pub fn trace(&self, from: EndpointId, frame: &[u8]) -> Trace {
        self.tables.trace(from, frame)
    }

    /// What it has done.
    pub const fn counts(&self) -> &Counts {
        &self.counts
    }

    /// How many flows are followed for policies.
    pub fn flows(&self) -> usize {
        self.tracker.len()
    }

    /// The balancer of an endpoint that reaches services and has sent something.
    pub fn balancer(&self, endpoint: EndpointId) -> Option<&overlay_lb::Balancer> {
        self.clients.get(&endpoint).map(|client| &client.balancer)
    }

    /// Associations that carry nothing, as somebody else has put their keys to work: they need a new epoch.
    pub fn lacking(&self) -> impl Iterator<Item = &SaId> {
        self.protection.lacking().iter()
    }

    /// How much each association has sealed: what tells whether another key is wanted. O(n log n) for n associations.
    pub fn usage(&self) -> BTreeMap<SaId, Usage> {
        self.protection.usage()
    }

    #[inline(always)]
    fn settle(&mut self, buffer: &mut Buffer, met: Result<Met, Reason>, from: Option<EndpointId>) {
        let Met = met.unwrap_or_else(|reason| buffer.meet(Fate::Drop(reason)));
        self.counts.note(buffer.met(), from);
    }
}

/// Reads frames, each to its place.
#[inline(always)]
fn read_ahead(ahead: &mut Vec<Result<Contents, Reason>>, batch: &[Buffer]) {
    ahead.resize(AHEAD, Err(Reason::Malformed));
    for (contents, buffer) in ahead.iter_mut().zip(batch) {
        Contents::read_to(contents, buffer.packet());
    }
}

/// As many as stay in the nearest memory.
const AHEAD: usize = 32;

impl Meter for Datapath {
    type Reading = Counts;

    fn read(&mut self) -> Result<Counts, BackendError> {
        Ok(self.counts.clone())
    }
}
