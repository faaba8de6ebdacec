//! Several [`Tables`] on a network that is a function of its seed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use overlay_core::{Instant, NetworkId, NodeId};

use crate::chance::Chance;
use crate::member_change::MemberChange;
use crate::tables::{Tables, TablesConfig, TablesTransmit};
use crate::{Class, Heard, Key, Sequence, TableId};

pub(super) const TABLE: TableId = TableId(7);

pub(super) fn network(number: u8) -> NetworkId {
    NetworkId::from_bytes([number; 16])
}

pub(super) fn node_id(node: usize) -> NodeId {
    NodeId::from_bytes((node as u128 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835).to_be_bytes())
}

pub(super) fn key(text: impl Into<String>) -> Key {
    Key::new(text.into().into_bytes()).unwrap()
}

/// What the network does to messages.
#[derive(Debug, Clone, Copy)]
pub(super) struct Weather {
    pub(super) loss: usize,        // datagrams, percent
    pub(super) stream_loss: usize, // streams, percent
    pub(super) duplication: usize, // datagrams, percent
    pub(super) reordering: usize,  // datagrams, percent, up to 300 ms late
}

pub(super) const CALM: Weather = Weather { loss: 0, stream_loss: 0, duplication: 0, reordering: 0 };
pub(super) const STORM: Weather = Weather { loss: 20, stream_loss: 5, duplication: 10, reordering: 20 };

/// Changes by number: of which key, and whether it was removed.
type History = BTreeMap<u64, (Key, bool)>;

#[derive(Debug)]
enum Delivery {
    Message { from: usize, to: usize, transmit: TablesTransmit },
    Member { at: usize, of: usize, change: MemberChange },
}

#[derive(Debug)]
pub(super) struct Node {
    pub(super) tables: Tables,
    pub(super) incarnation: u64,
    pub(super) up: bool,
    pub(super) island: u32,
    /// Networks it subscribes to, as its user wanted it.
    pub(super) wants: BTreeSet<NetworkId>,
}

/// What happened, for tests that must not pass for want of anything happening.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Tally {
    pub(super) datagrams: u64,
    pub(super) streams: u64,
    pub(super) bytes: u64,
    pub(super) lost: u64,
    pub(super) doubled: u64,
    pub(super) late: u64,
    pub(super) puts: u64,
    pub(super) removals: u64,
    pub(super) crashes: u64,
    pub(super) restarts: u64,
    pub(super) cuts: u64,
    pub(super) unsubscribed: u64,
    pub(super) watermark_checks: u64,
    pub(super) removal_checks: u64,
}

#[derive(Debug)]
pub(super) struct Pump {
    pub(super) now: Instant,
    pub(super) nodes: Vec<Node>,
    pub(super) weather: Weather,
    pub(super) tally: Tally,
    pub(super) chance: Chance,
    pub(super) config: TablesConfig,
    deliveries: BTreeMap<(Instant, u64), Delivery>,
    due: BTreeSet<(Instant, usize)>,
    due_of: Vec<Option<Instant>>,
    stamp: u64,
    /// The last removal of a key by its owner's start.
    removals: BTreeMap<(NetworkId, NodeId, u64, Key), u64>,
    /// All that an owner's start changed.
    history: BTreeMap<(NetworkId, usize, u64), History>,
}

impl Pump {
    pub(super) fn new(seed: u64, config: &TablesConfig) -> Self {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_be_bytes());
        Self {
            now: Instant::ZERO + Duration::from_secs(1),
            nodes: Vec::new(),
            weather: CALM,
            tally: Tally::default(),
            chance: Chance::new(bytes),
            config: config.clone(),
            deliveries: BTreeMap::new(),
            due: BTreeSet::new(),
            due_of: Vec::new(),
            stamp: 0,
            removals: BTreeMap::new(),
            history: BTreeMap::new(),
        }
    }

    /// Nodes that know each other and subscribe to network 1.
    pub(super) fn with_nodes(seed: u64, config: &TablesConfig, count: usize) -> Self {
        let mut pump = Self::new(seed, config);
        for _ in 0..count {
            let node = pump.add(Duration::ZERO);
            pump.subscribe(node, network(1));
        }
        pump
    }

    /// Adds a node of which the others hear within `spread`.
    pub(super) fn add(&mut self, spread: Duration) -> usize {
        let node = self.nodes.len();
        let tables = Tables::new(self.config.clone(), node_id(node), 1, self.chance.seed(), self.now);
        self.nodes.push(Node { tables, incarnation: 1, up: true, island: 0, wants: BTreeSet::new() });
        self.due_of.push(None);
        self.introduce(node, spread);
        node
    }

    /// Has a node and the others within reach hear of each other.
    fn introduce(&mut self, node: usize, spread: Duration) {
        for other in 0..self.nodes.len() {
            if other != node && self.nodes[other].up && self.nodes[other].island == self.nodes[node].island {
                for (at, of) in [(node, other), (other, node)] {
                    let change = MemberChange::Alive { incarnation: self.nodes[of].incarnation };
                    let delay = self.chance.within(spread);
                    self.deliver(delay, Delivery::Member { at, of, change });
                }
            }
        }
    }

    pub(super) fn subscribe(&mut self, node: usize, network: NetworkId) {
        self.nodes[node].tables.subscribe(network, self.now).unwrap();
        self.nodes[node].wants.insert(network);
        self.drain(node);
    }

    pub(super) fn unsubscribe(&mut self, node: usize, network: NetworkId) {
        self.nodes[node].tables.unsubscribe(network, self.now);
        self.nodes[node].wants.remove(&network);
        self.tally.unsubscribed += 1;
        self.drain(node);
    }

    pub(super) fn put(&mut self, node: usize, network: NetworkId, key: &Key, value: impl Into<Bytes>) -> Sequence {
        self.tally.puts += 1;
        let sequence = self.nodes[node].tables.put(network, (TABLE, key.clone()), value.into(), self.now).unwrap();
        self.remember(node, network, sequence, (key.clone(), false));
        self.drain(node);
        sequence
    }

    pub(super) fn remove(&mut self, node: usize, network: NetworkId, key: &Key) {
        let removed = self.nodes[node].tables.remove(network, (TABLE, key.clone()), self.now).unwrap();
        if let Some(sequence) = removed {
            self.tally.removals += 1;
            let id = (network, node_id(node), self.nodes[node].incarnation, key.clone());
            self.removals.insert(id, sequence.0);
            self.remember(node, network, sequence, (key.clone(), true));
        }
        self.drain(node);
    }

    fn remember(&mut self, node: usize, network: NetworkId, sequence: Sequence, change: (Key, bool)) {
        let of = (network, node, self.nodes[node].incarnation);
        self.history.entry(of).or_default().insert(sequence.0, change);
    }

    /// Through which of an owner's changes a node shows its user all, or something later: what was put and removed again need not have been seen.
    pub(super) fn shown(&self, node: usize, owner: usize, network: NetworkId) -> u64 {
        let (tables, id) = (&self.nodes[node].tables, node_id(owner));
        let Some(history) = self.history.get(&(network, owner, self.nodes[owner].incarnation)) else { return 0 };
        if tables.members.get(id).is_none_or(|known| known.incarnation != self.nodes[owner].incarnation) {
            return 0;
        }
        let entries = tables.entries(network, TABLE).filter(|(of, ..)| *of == id);
        let view: BTreeMap<&Key, u64> = entries.map(|(_, key, _, sequence)| (key, sequence.0)).collect();
        let removed: BTreeMap<&Key, u64> =
            history.iter().filter(|(_, (_, removed))| *removed).map(|(number, (key, _))| (key, *number)).collect();
        let base = self.base(node, owner, network);
        let shows = |number: &u64, key: &Key| {
            let shown = view.get(key).or_else(|| removed.get(key)).copied().unwrap_or(0);
            *number <= base || shown >= *number
        };
        let lacks = history.iter().find(|(number, (key, _))| !shows(number, key));
        lacks.map_or_else(|| history.keys().next_back().copied().unwrap_or(0), |(number, _)| *number - 1)
    }

    /// Above which number an owner's changes count, as a node knows.
    pub(super) fn base(&self, node: usize, owner: usize, network: NetworkId) -> u64 {
        self.nodes[node].tables.subscription(node_id(owner), network).map_or(0, |(_, base)| base)
    }

    /// Stops a node; the others suspect, and so suspend, it within two seconds.
    pub(super) fn crash(&mut self, node: usize) {
        self.nodes[node].up = false;
        self.tally.crashes += 1;
        self.tell_others(node, MemberChange::Suspended, Duration::from_secs(1)..Duration::from_secs(2));
    }

    /// Starts a crashed node anew, with nothing but its networks.
    pub(super) fn restart(&mut self, node: usize) {
        let seed = self.chance.seed();
        let wants = std::mem::take(&mut self.nodes[node].wants);
        let it = &mut self.nodes[node];
        it.incarnation += 1;
        it.up = true;
        it.tables = Tables::new(self.config.clone(), node_id(node), it.incarnation, seed, self.now);
        self.tally.restarts += 1;
        self.introduce(node, Duration::from_millis(300));
        wants.into_iter().for_each(|network| self.subscribe(node, network));
    }

    /// Cuts some nodes off; each side suspends the other.
    pub(super) fn cut(&mut self, nodes: &[usize], island: u32) {
        self.tally.cuts += 1;
        nodes.iter().for_each(|node| self.nodes[*node].island = island);
        for node in nodes {
            for other in (0..self.nodes.len()).filter(|other| !nodes.contains(other)) {
                for (at, of) in [(*node, other), (other, *node)] {
                    let delay = Duration::from_secs(1) + self.chance.within(Duration::from_secs(1));
                    self.deliver(delay, Delivery::Member { at, of, change: MemberChange::Suspended });
                }
            }
        }
    }

    /// Puts all nodes on one island again, and has all hear of all.
    pub(super) fn heal(&mut self) {
        self.nodes.iter_mut().for_each(|node| node.island = 0);
        for node in 0..self.nodes.len() {
            if self.nodes[node].up {
                self.introduce(node, Duration::from_millis(200));
            }
        }
    }

    /// Has those on a node's island hear of it.
    pub(super) fn tell_others(&mut self, node: usize, change: MemberChange, when: std::ops::Range<Duration>) {
        for other in 0..self.nodes.len() {
            if other != node && self.nodes[other].island == self.nodes[node].island {
                let delay = when.start + self.chance.within(when.end - when.start);
                self.deliver(delay, Delivery::Member { at: other, of: node, change });
            }
        }
    }

    pub(super) fn run(&mut self, span: Duration) {
        let end = self.now + span;
        while self.step(end) {}
        self.now = end;
    }

    /// Runs until `done`, at most for `span`; how long it took.
    pub(super) fn run_until(&mut self, span: Duration, done: impl Fn(&Self) -> bool) -> Option<Duration> {
        let (start, end) = (self.now, self.now + span);
        let mut look = self.now;
        while !(self.now >= look && done(self)) {
            look = self.now + Duration::from_millis(5);
            if !self.step(end) {
                return None;
            }
        }
        Some(self.now - start)
    }

    /// Does the next thing before `end`.
    fn step(&mut self, end: Instant) -> bool {
        let message = self.deliveries.first_key_value().map(|((at, _), _)| *at);
        let timer = self.due.first().copied();
        let at = [message, timer.map(|(at, _)| at)].into_iter().flatten().min();
        let Some(at) = at.filter(|at| *at <= end) else {
            return false;
        };
        self.now = self.now.max(at);
        if message == Some(at) {
            let (_, delivery) = self.deliveries.pop_first().unwrap();
            self.arrive(delivery);
        } else if let Some((due, node)) = timer {
            self.due.remove(&(due, node));
            self.due_of[node] = None;
            if self.nodes[node].up {
                self.nodes[node].tables.handle_timeout(self.now);
                self.drain(node);
            }
        }
        true
    }

    fn arrive(&mut self, delivery: Delivery) {
        match delivery {
            Delivery::Message { from, to, transmit } => {
                if self.nodes[to].up && self.nodes[from].island == self.nodes[to].island {
                    let now = self.now;
                    self.nodes[to].tables.handle(node_id(from), &transmit.body, now).unwrap();
                    self.drain(to);
                    self.check_watermark(to);
                }
            }
            Delivery::Member { at, of, change } => {
                let late = match change {
                    MemberChange::Alive { incarnation } => {
                        !self.nodes[of].up
                            || incarnation != self.nodes[of].incarnation
                            || self.nodes[at].island != self.nodes[of].island
                    }
                    MemberChange::Suspended => self.nodes[of].up && self.nodes[at].island == self.nodes[of].island,
                    MemberChange::Expired | MemberChange::Left => self.nodes[of].up,
                };
                if self.nodes[at].up && !late {
                    self.nodes[at].tables.handle_member(node_id(of), change, self.now);
                    self.drain(at);
                }
            }
        }
    }

    /// A node has acted upon what it had heard up to there.
    pub(super) fn acted(&mut self, node: usize, heard: Heard) {
        self.nodes[node].tables.acted(heard);
        self.drain(node);
    }

    /// Sends what a node has to send, and minds its deadline.
    fn drain(&mut self, node: usize) {
        while let Some(transmit) = self.nodes[node].tables.poll_transmit() {
            self.send(node, transmit);
        }
        let due = self.nodes[node].tables.poll_timeout().map(|(due, _)| due.max(self.now));
        if let Some(old) = std::mem::replace(&mut self.due_of[node], due) {
            self.due.remove(&(old, node));
        }
        due.into_iter().for_each(|due| {
            self.due.insert((due, node));
        });
    }

    fn send(&mut self, from: usize, transmit: TablesTransmit) {
        let to = (0..self.nodes.len()).find(|to| node_id(*to) == transmit.to).unwrap();
        let len = transmit.body.len();
        self.tally.bytes += len as u64;
        let weather = self.weather;
        let latency = Duration::from_micros(200) + self.chance.within(Duration::from_micros(1_300));
        match transmit.class {
            Class::Stream => {
                self.tally.streams += 1;
                assert!(len <= crate::STREAM_LIMIT, "a body of {len} bytes for a stream");
                if self.chance.one_of(weather.stream_loss, 100) {
                    self.tally.lost += 1;
                    return;
                }
                let wire = Duration::from_nanos(8 * len as u64); // 1 Gbit/s
                self.deliver(2 * latency + wire, Delivery::Message { from, to, transmit });
            }
            Class::Datagram => {
                self.tally.datagrams += 1;
                assert!(len <= self.config.datagram, "a body of {len} bytes for a datagram");
                if self.chance.one_of(weather.loss, 100) {
                    self.tally.lost += 1;
                    return;
                }
                if self.chance.one_of(weather.duplication, 100) {
                    self.tally.doubled += 1;
                    let later = latency + self.chance.within(Duration::from_millis(50));
                    self.deliver(later, Delivery::Message { from, to, transmit: transmit.clone() });
                }
                let late = self.chance.one_of(weather.reordering, 100);
                self.tally.late += u64::from(late);
                let more = if late { self.chance.within(Duration::from_millis(300)) } else { Duration::ZERO };
                self.deliver(latency + more, Delivery::Message { from, to, transmit });
            }
        }
    }

    fn deliver(&mut self, delay: Duration, delivery: Delivery) {
        self.stamp += 1;
        self.deliveries.insert((self.now + delay, self.stamp), delivery);
    }

    /// A watermark is never ahead of what live subscribers have seen.
    fn check_watermark(&mut self, at: usize) {
        for (network, mark, other) in self.counted(at) {
            let truth = self.seen(other, at, network);
            assert!(mark.0 <= truth, "watermark {mark} of node {at}, {truth} was seen");
            self.tally.watermark_checks += u64::from(mark.0 > 0);
        }
    }

    /// The watermarks of a node, and each other node that counts in one: what it has not heard of yet, a restart or a new subscription, it
    /// cannot count.
    pub(super) fn counted(&self, at: usize) -> Vec<(NetworkId, Sequence, usize)> {
        let (node, mut counted) = (&self.nodes[at], Vec::new());
        for network in &node.wants {
            let mark = node.tables.watermark(*network).unwrap();
            for id in node.tables.subscribers(*network) {
                let other = self.nodes.iter().position(|node| node.tables.me == *id).unwrap();
                let (tables, incarnation) = (&self.nodes[other].tables, self.nodes[other].incarnation);
                let heard = node.tables.members.get(*id).map(|known| known.incarnation);
                let subscribed = |tables: &Tables| tables.subscription(*id, *network);
                let same = heard == Some(incarnation) && subscribed(&node.tables) == subscribed(tables);
                if same && tables.replicas.contains_key(network) {
                    counted.push((*network, mark, other));
                }
            }
        }
        counted
    }

    /// Through which of an owner's changes a node has seen all.
    pub(super) fn seen(&self, node: usize, owner: usize, network: NetworkId) -> u64 {
        let chain = self.nodes[node].tables.replicas.get(&network).and_then(|replica| replica.chain(node_id(owner)));
        let chain = chain.filter(|chain| chain.incarnation == self.nodes[owner].incarnation);
        chain.map_or(0, |chain| chain.through().0)
    }

    /// Who has seen a removal has nothing older of its key.
    pub(super) fn check_removals(&mut self) {
        for ((network, owner, incarnation, key), number) in &self.removals {
            for node in self.nodes.iter().filter(|node| node.up) {
                let replica = node.tables.replicas.get(network);
                let chain = replica.and_then(|replica| replica.chain(*owner));
                let Some(chain) = chain.filter(|chain| chain.incarnation == *incarnation) else {
                    continue;
                };
                if chain.seen().contains(*number) {
                    let back = chain.slot(TABLE, key).filter(|slot| slot.value.is_some() && slot.sequence < *number);
                    assert_eq!(back, None, "{key:?} came back at {:?}", node.tables.me);
                    self.tally.removal_checks += 1;
                }
            }
        }
    }

    /// What a node has of a network.
    pub(super) fn view(&self, node: usize, network: NetworkId) -> BTreeMap<(NodeId, Key), Bytes> {
        let entries = self.nodes[node].tables.entries(network, TABLE);
        entries.map(|(owner, key, value, _)| ((owner, key.clone()), value.clone())).collect()
    }

    /// What all running subscribers' own entries are: what every one of them should have.
    pub(super) fn truth(&self, network: NetworkId) -> BTreeMap<(NodeId, Key), Bytes> {
        let mut truth = BTreeMap::new();
        for at in (0..self.nodes.len()).filter(|at| self.nodes[*at].up && self.nodes[*at].wants.contains(&network)) {
            truth.extend(self.view(at, network).into_iter().filter(|((owner, _), _)| *owner == node_id(at)));
        }
        truth
    }

    /// Whether all running subscribers have exactly what they should have.
    pub(super) fn is_equal(&self, network: NetworkId) -> bool {
        let truth = self.truth(network);
        let up = |node: &usize| self.nodes[*node].up && self.nodes[*node].wants.contains(&network);
        (0..self.nodes.len()).filter(up).all(|node| self.view(node, network) == truth)
    }

    /// Whether all running subscribers have as many entries: cheaper to ask often.
    pub(super) fn all_have(&self, network: NetworkId, count: usize) -> bool {
        let of = |node: &Node| -> usize {
            node.tables
                .replicas
                .get(&network)
                .map_or(0, |replica| replica.chains().values().map(|chain| chain.len() - chain.tombstones()).sum())
        };
        self.nodes.iter().filter(|node| node.up).all(|node| of(node) == count)
    }
}
