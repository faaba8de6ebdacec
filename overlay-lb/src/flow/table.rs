//! The flow table.

use std::fmt;
use std::time::Duration;

use overlay_core::{Instant, Protocol};

use super::entry::{Entry, OWNER};
use super::hash::Key;
use super::index::Index;
use super::{Flow, Stage, Tuple, Way};
use crate::Timeouts;

/// Flows, found by any packet of theirs, either way.
///
/// All memory is taken at the beginning: 64 bytes for each flow there can be, and an index of 16 to 32 bytes more. Finding,
/// inserting and removing are O(1) and allocate nothing. When a flow has been idle for as long as its [`Timeouts`] say, it is
/// no more: [`find`](Self::find) does not find it any more, and [`sweep`](Self::sweep) takes it out.
///
/// ```
/// use overlay_core::{Instant, Protocol};
/// use overlay_lb::{Flow, FlowTable, Timeouts, Tuple, Way};
///
/// let mut table = FlowTable::new(1024, [7; 32]);
/// let (client, vip, replica) = ("10.0.9.5:40000".parse()?, "10.0.9.100:80".parse()?, "10.0.9.2:8080".parse()?);
/// let flow = Flow { protocol: Protocol::Tcp, client, vip, replica, alias: 40_000, owner: 0 };
/// let id = table.insert(&flow, &Timeouts::default(), |_, _| {}, Instant::ZERO)?;
/// let reply = Tuple::new(Protocol::Tcp, replica, client);
/// assert_eq!(table.find(&reply, Instant::ZERO), Some((id, Way::Back)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct FlowTable {
    entries: Box<[Entry]>,
    index: Index,
    key: Key,
    len: usize,
    /// The first of the places that are free, one leading to the next; none is `NONE`.
    free: u32,
    /// Places from here on were never used.
    fresh: u32,
    /// Where the sweep goes on.
    hand: u32,
}

/// A flow in a table, until it is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowId(u32);

/// Why a flow was not inserted; nothing has changed but that flows in its way that were over may have gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum TableError {
    /// The table is full.
    #[error("the table is full")]
    Full,
    /// The client's packets belong to another flow already.
    #[error("the client has a flow from there to there already")]
    Known,
    /// The replica's packets belong to another flow of the client already: try another alias, or another replica.
    #[error("the replica has a flow from that port of the client already")]
    Ambiguous,
}

impl FlowTable {
    /// The most flows of a table.
    pub const MAX: usize = 1 << 30;

    /// A table for so many flows at most ([`MAX`](Self::MAX) itself at most), that hashes by a secret seed.
    pub fn new(most: usize, seed: [u8; 32]) -> Self {
        let most = most.clamp(1, Self::MAX);
        Self {
            entries: vec![Entry::free(NONE); most].into_boxed_slice(),
            index: Index::new(most * 2),
            key: Key::new(seed),
            len: 0,
            free: NONE,
            fresh: 0,
            hand: 0,
        }
    }

    /// Inserts a flow whose first packet came `now`. Flows in its way that are over are taken out, which `gone` is told of.
    ///
    /// # Errors
    /// [`TableError`]; nothing else has changed then than that.
    pub fn insert(
        &mut self,
        flow: &Flow,
        timeouts: &Timeouts,
        mut gone: impl FnMut(Flow, Stage),
        now: Instant,
    ) -> Result<FlowId, TableError> {
        let mut entry = Entry::new(flow);
        let [forth, back] = [Way::Forth, Way::Back].map(|way| self.key.of(&entry.tuple(way)));
        for (hash, way, taken) in [(forth, Way::Forth, TableError::Known), (back, Way::Back, TableError::Ambiguous)] {
            if let Some((id, _)) = self.find_hashed(hash, &entry.tuple(way)) {
                let stage = self.stage(id).filter(|_| self.is_over(id, now)).ok_or(taken)?;
                self.remove(id).into_iter().for_each(|flow| gone(flow, stage));
            }
        }
        let place = self.take_place().ok_or(TableError::Full)?;
        entry.deadline = tick(now + idle(flow.protocol, Stage::Opening, timeouts)) + 1;
        self.entries[place as usize] = entry;
        self.index.insert(forth, place << 1);
        self.index.insert(back, place << 1 | 1);
        self.len += 1;
        Ok(FlowId(place))
    }

    /// The flow of a packet, and which way it goes.
    #[inline]
    pub fn find(&self, packet: &Tuple, now: Instant) -> Option<(FlowId, Way)> {
        let found = self.find_hashed(self.key.of(packet), packet)?;
        (!self.is_over(found.0, now)).then_some(found)
    }

    /// The flows of many packets. What is slow about one is waiting for memory, and here they wait together: of up to 32 at a time.
    /// `found` gets as many as there are packets, or as it has room for.
    pub fn find_many(&self, packets: &[Tuple], found: &mut [Option<(FlowId, Way)>], now: Instant) {
        for (packets, found) in packets.chunks(TOGETHER).zip(found.chunks_mut(TOGETHER)) {
            let (mut hashes, mut places) = ([0; TOGETHER], [0_u32; TOGETHER]);
            for (hash, packet) in hashes.iter_mut().zip(packets) {
                *hash = self.key.of(packet);
            }
            for (place, hash) in places.iter_mut().zip(&hashes).take(packets.len()) {
                *place = self.index.peek(*hash);
            }
            let mut used = [false; TOGETHER];
            for (used, place) in used.iter_mut().zip(&places).take(packets.len()) {
                *used = self.entries.get((place >> 1) as usize).is_some_and(|entry| !entry.is_free());
            }
            for (at, (found, packet)) in found.iter_mut().zip(packets).enumerate() {
                let place = places[at];
                let likely = self.entries.get((place >> 1) as usize).filter(|_| used[at]);
                let is = likely.is_some_and(|entry| entry.sends(way(place), packet));
                let hit = if is { Some(id(place)) } else { self.find_hashed(hashes[at], packet) };
                *found = hit.filter(|(id, _)| !self.is_over(*id, now));
            }
        }
    }

    /// Notes a packet of a flow, as [`find`](Self::find) found it: how far the flow has come, and that it is not idle. The stage, if that
    /// has changed.
    pub fn note(
        &mut self,
        (id, way): (FlowId, Way),
        packet: Signal,
        timeouts: &Timeouts,
        now: Instant,
    ) -> Option<Stage> {
        let entry = self.entries.get_mut(id.0 as usize).filter(|entry| !entry.is_free())?;
        let before = entry.stage();
        match (packet, way) {
            (Signal::Abort, _) => entry.set_stage(Stage::Closing),
            (Signal::End, _) if entry.close(way) => entry.set_stage(Stage::Closing),
            (_, Way::Back) if before == Stage::Opening => entry.set_stage(Stage::Established),
            _ => {}
        }
        let idle = idle(entry.protocol(), entry.stage(), timeouts);
        let deadline = tick(now + idle) + 1;
        if entry.deadline != deadline {
            entry.deadline = deadline;
        }
        (entry.stage() != before).then_some(entry.stage())
    }

    /// Takes a flow out.
    pub fn remove(&mut self, id: FlowId) -> Option<Flow> {
        let entry = *self.entries.get(id.0 as usize).filter(|entry| !entry.is_free())?;
        for (bit, way) in [(0, Way::Forth), (1, Way::Back)] {
            let hash = self.key.of(&entry.tuple(way));
            let (entries, key) = (&self.entries, &self.key);
            let hash_of = |place: u32| key.of(&entries[(place >> 1) as usize].tuple(self::way(place)));
            self.index.remove(hash, id.0 << 1 | bit, hash_of);
        }
        self.entries[id.0 as usize] = Entry::free(self.free);
        self.free = id.0;
        self.len -= 1;
        Some(entry.flow())
    }

    /// A flow.
    pub fn flow(&self, id: FlowId) -> Option<Flow> {
        self.entry(id).map(Entry::flow)
    }

    /// How far it has come.
    pub fn stage(&self, id: FlowId) -> Option<Stage> {
        self.entry(id).map(Entry::stage)
    }

    /// Who serves it.
    pub fn owner(&self, id: FlowId) -> Option<u32> {
        self.entry(id).map(Entry::owner)
    }

    /// What a packet of the flow becomes.
    #[inline(always)]
    pub(crate) fn translated(&self, id: FlowId, way: Way) -> Option<Tuple> {
        self.entry(id).map(|entry| entry.translated(way))
    }

    /// All flows, those that are over and not swept yet too. O(most).
    pub fn flows(&self) -> impl Iterator<Item = (FlowId, Flow)> {
        let used = self.entries.iter().take(self.fresh as usize).enumerate().filter(|(_, entry)| !entry.is_free());
        used.map(|(at, entry)| (FlowId(at as u32), entry.flow()))
    }

    /// Looks at `count` places more, round and round, and takes out the flows there that are over, which `gone` is told of.
    pub fn sweep(&mut self, count: usize, now: Instant, mut gone: impl FnMut(Flow, Stage)) {
        for _ in 0..count.min(self.fresh as usize) {
            self.hand = if self.hand + 1 < self.fresh { self.hand + 1 } else { 0 };
            let id = FlowId(self.hand);
            let stage = self.stage(id);
            if let Some(stage) = stage.filter(|_| self.is_over(id, now))
                && let Some(flow) = self.remove(id)
            {
                gone(flow, stage);
            }
        }
    }

    /// Makes room in a full table: of the next few places, takes out the first flow that is over, or has only begun.
    pub(crate) fn evict(&mut self, now: Instant) -> Option<(Flow, Stage)> {
        for _ in 0..LOOK.min(self.fresh) {
            self.hand = if self.hand + 1 < self.fresh { self.hand + 1 } else { 0 };
            let id = FlowId(self.hand);
            if let Some(stage) = self.stage(id)
                && (self.is_over(id, now) || stage != Stage::Established)
            {
                return self.remove(id).map(|flow| (flow, stage));
            }
        }
        None
    }

    /// How many flows there are, those that are over and not swept yet too.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many there can be.
    pub const fn most(&self) -> usize {
        self.entries.len()
    }

    /// The memory that it has, in bytes.
    pub const fn bytes(&self) -> usize {
        self.entries.len() * size_of::<Entry>() + self.index.bytes()
    }

    #[inline]
    fn find_hashed(&self, hash: u64, packet: &Tuple) -> Option<(FlowId, Way)> {
        let is = |place: u32| self.entries[(place >> 1) as usize].sends(way(place), packet);
        self.index.find(hash, is).map(id)
    }

    fn entry(&self, id: FlowId) -> Option<&Entry> {
        self.entries.get(id.0 as usize).filter(|entry| !entry.is_free())
    }

    #[inline]
    fn is_over(&self, id: FlowId, now: Instant) -> bool {
        self.entries[id.0 as usize].deadline < tick(now)
    }

    fn take_place(&mut self) -> Option<u32> {
        if self.free != NONE {
            let place = self.free;
            self.free = self.entries[place as usize].deadline;
            return Some(place);
        }
        let place = self.fresh;
        ((place as usize) < self.entries.len()).then(|| {
            self.fresh += 1;
            place
        })
    }
}

impl fmt::Debug for FlowTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FlowTable").field("len", &self.len).field("most", &self.most()).finish_non_exhaustive()
    }
}

/// What a packet means to its flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Signal {
    /// TCP's SYN without ACK, SCTP's INIT: a flow begins.
    Begin,
    /// More of it.
    More,
    /// TCP's FIN, SCTP's SHUTDOWN: this way ends.
    End,
    /// TCP's RST, SCTP's ABORT: all ends.
    Abort,
}

/// For how long a flow may be idle. One that is closed one way only can go on the other way for long.
const fn idle(protocol: Protocol, stage: Stage, timeouts: &Timeouts) -> Duration {
    match (protocol, stage) {
        (Protocol::Udp, _) => timeouts.datagram,
        (_, Stage::Established) => timeouts.established,
        _ => timeouts.transitory,
    }
}

const fn way(place: u32) -> Way {
    if place & 1 == 0 { Way::Forth } else { Way::Back }
}

const fn id(place: u32) -> (FlowId, Way) {
    (FlowId(place >> 1), way(place))
}

/// Time in eighths of a second or so: 32 bits of them last 18 years.
const fn tick(at: Instant) -> u32 {
    let ticks = at.as_nanos() >> 27;
    if ticks > (u32::MAX - 1) as u64 { u32::MAX - 1 } else { ticks as u32 }
}

const NONE: u32 = u32::MAX;
const TOGETHER: usize = 32;
const LOOK: u32 = 16;
const _: () = assert!(size_of::<Entry>() == 64 && OWNER == (1 << 24) - 1);
