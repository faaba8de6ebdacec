//! Machines, a clock, and what lies between them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use overlay_core::Instant;

use super::conditions::Conditions;
use super::machine::Machine;
use super::queue::{Queue, What};
use crate::chance::Chance;
use crate::{Class, Transmit};

/// A network of machines on a virtual clock. Nodes are numbered from 0 in the order in which they were added.
pub struct Net<M: Machine> {
    pub(super) seed: u64,
    now: Instant,
    /// How messages are treated from now on.
    pub conditions: Conditions,
    stations: Vec<Station<M>>,
    queue: Queue,
    pub(super) chance: Chance,
    /// When the last message of a stream arrives, by sender and receiver.
    streams: BTreeMap<(usize, usize), Instant>,
    cut: BTreeSet<(usize, usize)>,
    events: Vec<(Instant, usize, M::Event)>,
    keep: fn(&M::Event) -> bool,
}

/// One machine and its port.
struct Station<M> {
    machine: Option<M>,
    wake: Option<Instant>,
    /// Does nothing before this.
    paused: Instant,
    /// When all that it has sent is out.
    idle: Instant,
    /// Stations of different groups do not reach each other.
    group: usize,
    sent: Sent,
}

/// What a node has sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sent {
    /// Datagrams and messages on streams.
    pub messages: u64,
    /// Their bytes, without UDP, TCP and IP.
    pub bytes: u64,
    /// The longest datagram.
    pub longest_datagram: usize,
}

/// How long a stream that is not used stays open.
const STREAM_IDLE: Duration = Duration::from_secs(60);

impl<M: Machine> Net<M> {
    /// A network without machines at time 0.
    pub fn new(conditions: Conditions, seed: u64) -> Self {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_be_bytes());
        Self {
            seed,
            now: Instant::ZERO,
            conditions,
            stations: Vec::new(),
            queue: Queue::default(),
            chance: Chance::new(bytes),
            streams: BTreeMap::new(),
            cut: BTreeSet::new(),
            events: Vec::new(),
            keep: |_| true,
        }
    }

    /// Keeps only these events for [`take_events`](Self::take_events): of thousands of nodes, all are too many.
    pub fn keep_events(&mut self, keep: fn(&M::Event) -> bool) {
        self.keep = keep;
    }

    /// The time.
    pub const fn now(&self) -> Instant {
        self.now
    }

    /// Where node `node` is reached.
    pub fn address(node: usize) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(Ipv4Addr::from(0x0a00_0001 + node as u32)), 7946)
    }

    /// Who is reached there.
    fn station_at(&self, address: SocketAddr) -> Option<usize> {
        let IpAddr::V4(ip) = address.ip() else { return None };
        let node = u32::from(ip).checked_sub(0x0a00_0001)? as usize;
        (node < self.stations.len() && address.port() == 7946).then_some(node)
    }

    /// Adds a node, which `make` makes of its address, a seed and the time.
    pub fn add(&mut self, make: impl FnOnce(SocketAddr, [u8; 32], Instant) -> M) -> usize {
        let node = self.stations.len();
        let machine = make(Self::address(node), self.chance.seed(), self.now);
        let now = self.now;
        self.stations.push(Station {
            machine: Some(machine),
            wake: None,
            paused: now,
            idle: now,
            group: 0,
            sent: Sent::default(),
        });
        self.pump(node);
        node
    }

    /// How many nodes were added.
    pub fn len(&self) -> usize {
        self.stations.len()
    }

    /// Whether none was added.
    pub fn is_empty(&self) -> bool {
        self.stations.is_empty()
    }

    /// The nodes that are not crashed.
    pub fn running(&self) -> impl Iterator<Item = usize> {
        (0..self.len()).filter(|node| self.machine(*node).is_some())
    }

    /// A node's machine; none while it is crashed.
    pub fn machine(&self, node: usize) -> Option<&M> {
        self.stations.get(node)?.machine.as_ref()
    }

    /// Calls a node's machine, and carries what it sends. `None` while it is crashed.
    pub fn with<T>(&mut self, node: usize, call: impl FnOnce(&mut M, Instant) -> T) -> Option<T> {
        let now = self.now;
        let result = call(self.stations.get_mut(node)?.machine.as_mut()?, now);
        self.pump(node);
        Some(result)
    }

    /// What a node has sent since it was added.
    pub fn sent(&self, node: usize) -> Sent {
        self.stations.get(node).map(|station| station.sent).unwrap_or_default()
    }

    /// The events kept since the last call: when, at which node, what.
    pub fn take_events(&mut self) -> Vec<(Instant, usize, M::Event)> {
        std::mem::take(&mut self.events)
    }

    /// Stops a node for good; its machine is given back.
    pub fn crash(&mut self, node: usize) -> Option<M> {
        let station = self.stations.get_mut(node)?;
        station.wake = None;
        station.machine.take()
    }

    /// Puts a machine where one crashed.
    pub fn restart(&mut self, node: usize, make: impl FnOnce(SocketAddr, [u8; 32], Instant) -> M) {
        let machine = make(Self::address(node), self.chance.seed(), self.now);
        if let Some(station) = self.stations.get_mut(node) {
            station.machine = Some(machine);
            station.wake = None;
            self.pump(node);
        }
    }

    /// A node does nothing for `span`, and then all at once: first what its clock says, then what arrived meanwhile.
    pub fn pause(&mut self, node: usize, span: Duration) {
        let until = self.now + span;
        if let Some(station) = self.stations.get_mut(node) {
            station.paused = station.paused.max(until);
        }
    }

    /// From now on these nodes reach only each other.
    pub fn isolate(&mut self, nodes: impl IntoIterator<Item = usize>) {
        let group = self.stations.iter().map(|station| station.group).max().unwrap_or_default() + 1;
        for node in nodes {
            if let Some(station) = self.stations.get_mut(node) {
                station.group = group;
            }
        }
    }

    /// From now on nothing gets from one node to the other; the other way is not cut by this.
    pub fn cut(&mut self, from: usize, to: usize) {
        self.cut.insert((from, to));
    }

    /// All reach all again.
    pub fn heal(&mut self) {
        self.cut.clear();
        self.stations.iter_mut().for_each(|station| station.group = 0);
    }

    /// Lets `span` pass.
    pub fn run_for(&mut self, span: Duration) {
        let until = self.now + span;
        while let Some(happening) = self.queue.pop(until) {
            self.now = self.now.max(happening.at);
            self.happen(happening);
        }
        self.now = until;
    }

    /// Lets time pass until `done`, which is asked every 10 ms, or until `limit` is over: then `None`, otherwise the time
    /// that passed.
    pub fn run_until(&mut self, limit: Duration, mut done: impl FnMut(&Self) -> bool) -> Option<Duration> {
        let start = self.now;
        while !done(self) {
            if self.now - start >= limit {
                return None;
            }
            self.run_for(Duration::from_millis(10));
        }
        Some(self.now - start)
    }

    fn happen(&mut self, happening: super::queue::Happening) {
        let (node, now) = (happening.node, self.now);
        let Some(station) = self.stations.get_mut(node) else { return };
        if station.machine.is_none() {
            return;
        }
        if station.paused > now {
            let until = station.paused;
            if matches!(happening.what, What::Wake) {
                station.wake = Some(until);
            }
            return self.queue.put_off(happening, until);
        }
        let Some(machine) = &mut station.machine else { return };
        match happening.what {
            What::Wake if station.wake != Some(happening.at) => return, // another was planned since
            What::Wake => {
                station.wake = None;
                machine.handle_timeout(now);
            }
            What::Arrive { from, class, payload } => machine.handle(from, class, &payload, now),
        }
        self.pump(node);
    }

    /// Takes from a machine all that it has, and plans when it wakes.
    fn pump(&mut self, node: usize) {
        let now = self.now;
        while let Some(transmit) = self.stations[node].machine.as_mut().and_then(|machine| machine.poll_transmit(now)) {
            self.carry(node, transmit);
        }
        let Some(station) = self.stations.get_mut(node) else { return };
        let Some(machine) = &mut station.machine else { return };
        while let Some(event) = machine.poll_event() {
            if (self.keep)(&event) {
                self.events.push((now, node, event));
            }
        }
        let Some(wake) = machine.poll_timeout() else { return };
        let wake = wake.max(now);
        if station.wake.is_none_or(|planned| wake < planned) {
            station.wake = Some(wake);
            self.queue.push(wake, node, What::Wake);
        }
    }

    fn carry(&mut self, from: usize, transmit: Transmit) {
        let (Transmit { to, class, payload }, now) = (transmit, self.now);
        let station = &mut self.stations[from];
        station.sent.messages += 1;
        station.sent.bytes += payload.len() as u64;
        if class == Class::Datagram {
            station.sent.longest_datagram = station.sent.longest_datagram.max(payload.len());
        }
        let takes = Duration::from_nanos(payload.len() as u64 * 1_000_000_000 / self.conditions.rate.max(1));
        station.idle = station.idle.max(now) + takes;
        let out = station.idle;
        let Some(to) = self.station_at(to) else { return };
        if self.stations[from].group != self.stations[to].group || self.cut.contains(&(from, to)) {
            return;
        }
        let what = || What::Arrive { from: Self::address(from), class, payload: payload.clone() };
        match class {
            Class::Stream => {
                let at = self.stream_arrival(from, to, out);
                self.queue.push(at, to, what());
            }
            Class::Datagram => {
                for _ in 0..=usize::from(self.happens(self.conditions.duplication)) {
                    if !self.happens(self.conditions.loss) {
                        let at = out + self.datagram_delay();
                        self.queue.push(at, to, what());
                    }
                }
            }
        }
    }

    fn datagram_delay(&mut self) -> Duration {
        let delay = self.latency();
        if self.happens(self.conditions.reordering) {
            delay + self.chance.within(self.conditions.latency.end * 10)
        } else {
            delay
        }
    }

    /// When a message on a stream arrives: after all before it; later by a round trip if the stream has to be opened, and by
    /// each loss.
    fn stream_arrival(&mut self, from: usize, to: usize, out: Instant) -> Instant {
        let last = self.streams.get(&(from, to)).max(self.streams.get(&(to, from))).copied();
        let mut at = out + self.latency();
        if last.is_none_or(|last| last + STREAM_IDLE < out) {
            at += self.latency() + self.latency();
        }
        let mut timeout = Duration::from_millis(200);
        while timeout < Duration::from_secs(10) && self.happens(self.conditions.loss) {
            at += timeout;
            timeout *= 2;
        }
        let at = self.streams.get(&(from, to)).copied().map_or(at, |last| at.max(last));
        self.streams.insert((from, to), at);
        at
    }

    fn latency(&mut self) -> Duration {
        let latency = &self.conditions.latency;
        latency.start + self.chance.within(latency.end.saturating_sub(latency.start))
    }

    fn happens(&mut self, share: f64) -> bool {
        share > 0.0 && (self.chance.below(1 << 30) as f64) < share * f64::from(1 << 30)
    }
}

impl<M: Machine> fmt::Debug for Net<M> {
    /// What repeats the run, and how far it is.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seed, now, running) = (self.seed, self.now, self.running().count());
        write!(f, "seed {seed} at {now}: {running} of {} nodes running, {} happenings", self.len(), self.queue.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Config, Gossip};

    #[test]
    fn a_node_that_crashed_while_it_was_paused_wakes_in_its_next_life() {
        let mut net: Net<Gossip> = Net::new(Conditions::lan(), 1);
        net.add_gossip(&Config::lan());
        net.add_gossip(&Config::lan());
        net.join_all();
        net.run_for(Duration::from_secs(3));
        net.pause(1, Duration::from_secs(2));
        net.crash(1);
        net.run_for(Duration::from_secs(3));
        net.restart_gossip(1, &Config::lan(), 2, &[0]);
        net.run_for(Duration::from_secs(5));
        let probes = net.machine(1).map(|gossip| gossip.metrics().membership.probes_begun);
        assert!(probes.is_some_and(|probes| probes > 2), "{probes:?}");
    }
}
