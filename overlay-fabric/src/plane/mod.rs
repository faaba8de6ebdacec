//! The data plane: packets on their way between datapaths and containers.

mod attached;
mod capture;
mod host;
mod own;
mod stack;
mod wire;

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use overlay_core::testing::Dice;
use overlay_core::{EndpointId, Instant};
use overlay_datapath::Fate;
use overlay_gossip::testing::Conditions;

pub(crate) use self::attached::Published;
pub use self::capture::{Capture, Captured, Link};
pub(crate) use self::host::Host;
pub(crate) use self::stack::{End, Question, Stack};
use crate::node::node_at;

/// The port at which each container answers.
pub(crate) const SERVED: u16 = 80;
/// The port at which each container counts datagrams and throws them away (RFC 863).
pub(crate) const DISCARD: u16 = 9;

/// What became of what the data planes of nodes sent each other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UnderlayCounts {
    /// Packets that nodes sent.
    pub sent: u64,
    /// Packets that came to a node; of one that is doubled, both.
    pub arrived: u64,
    /// Packets that were lost by chance.
    pub lost: u64,
    /// Packets that met a cut.
    pub cut: u64,
    /// Packets too long for a link.
    pub too_big: u64,
    /// Packets for an address where no node is.
    pub stray: u64,
}

pub(crate) struct Plane {
    pub(crate) hosts: Vec<Host>,
    pub(crate) capture: Capture,
    pub(crate) counts: UnderlayCounts,
    pub(crate) asked: u64,
    queue: BinaryHeap<Reverse<Event>>,
    order: u64,
    dice: Dice,
    spare: Vec<Vec<u8>>,
    due: VecDeque<EndpointId>,
}

/// How the underlay is now.
pub(crate) struct Weather<'c> {
    pub(crate) conditions: &'c Conditions,
    pub(crate) cut: &'c BTreeSet<(usize, usize)>,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Event {
    at: Instant,
    order: u64,
    node: usize,
    what: What,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Arrive(Vec<u8>),
    Wake(EndpointId),
    Timeout,
}

impl Plane {
    pub(crate) fn new(seed: [u8; 32], capture: Capture) -> Self {
        Self {
            hosts: Vec::new(),
            capture,
            counts: UnderlayCounts::default(),
            asked: 0,
            queue: BinaryHeap::new(),
            order: 0,
            dice: Dice::new(seed),
            spare: Vec::new(),
            due: VecDeque::new(),
        }
    }

    pub(crate) fn add(&mut self, mtu: usize, now: Instant) {
        let seed = self.dice.seed();
        self.hosts.push(Host::new(seed, mtu, now));
    }

    /// A node takes what it published.
    pub(crate) fn take(&mut self, node: usize, published: &Published, weather: &Weather<'_>, now: Instant) {
        let Some(host) = self.hosts.get_mut(node) else { return };
        host.take(published, now);
        self.push(now, node, What::Timeout);
        self.stir(node, weather, now);
    }

    /// Lets all happen that is to happen until then.
    pub(crate) fn run(&mut self, weather: &Weather<'_>, until: Instant) {
        while self.queue.peek().is_some_and(|Reverse(event)| event.at <= until) {
            let Some(Reverse(Event { at, node, what, .. })) = self.queue.pop() else { return };
            match what {
                What::Arrive(packet) => self.arrive(node, packet, weather, at),
                What::Wake(endpoint) => self.wake(node, endpoint, weather, at),
                What::Timeout => self.time_out(node, weather, at),
            }
        }
    }

    /// A container's stack has something to do now.
    pub(crate) fn poke(&mut self, node: usize, endpoint: EndpointId, weather: &Weather<'_>, now: Instant) {
        self.due.push_back(endpoint);
        self.stir(node, weather, now);
    }

    /// A frame comes out of a container, whatever its stack would send.
    pub(crate) fn inject(
        &mut self,
        (node, endpoint): (usize, EndpointId),
        frame: &[u8],
        weather: &Weather<'_>,
        now: Instant,
    ) {
        self.leave((node, endpoint), frame, weather, now);
        self.stir(node, weather, now);
    }

    fn wake(&mut self, node: usize, endpoint: EndpointId, weather: &Weather<'_>, now: Instant) {
        let stack = self.hosts.get_mut(node).and_then(|host| host.stacks.get_mut(&endpoint));
        if stack.is_some_and(|stack| stack.wake.take_if(|at| *at <= now).is_some()) {
            self.poke(node, endpoint, weather, now);
        }
    }

    fn time_out(&mut self, node: usize, weather: &Weather<'_>, now: Instant) {
        let Some(host) = self.hosts.get_mut(node) else { return };
        host.wake = host.wake.filter(|at| *at > now);
        host.datapath.handle_timeout(now);
        self.send_own(node, weather, now);
        self.stir(node, weather, now);
        let Some(host) = self.hosts.get_mut(node) else { return };
        if let Some(at) = host.datapath.poll_timeout()
            && host.wake.is_none_or(|planned| at < planned)
        {
            let at = at.max(now + Duration::from_micros(1));
            host.wake = Some(at);
            self.push(at, node, What::Timeout);
        }
    }

    fn arrive(&mut self, node: usize, packet: Vec<u8>, weather: &Weather<'_>, now: Instant) {
        self.counts.arrived += 1;
        self.capture.note_node(node, &packet, now);
        let Some(host) = self.hosts.get_mut(node) else { return };
        if host.buffer.fill(&packet).is_ok() {
            host.datapath.handle_packets(std::slice::from_mut(&mut host.buffer), now);
            self.meet(node, weather, now);
            self.send_own(node, weather, now);
            self.stir(node, weather, now);
        }
        self.spare.push(packet);
    }

    /// Polls the stacks that have something to do, and carries what comes of it.
    fn stir(&mut self, node: usize, weather: &Weather<'_>, now: Instant) {
        while let Some(endpoint) = self.due.pop_front() {
            let Some(stack) = self.stack(node, endpoint) else { continue };
            stack.poll(now);
            while let Some(frame) = self.stack(node, endpoint).and_then(|stack| stack.wire.sent.pop_front()) {
                self.leave((node, endpoint), &frame, weather, now);
                if let Some(stack) = self.stack(node, endpoint) {
                    stack.wire.recycle(frame);
                }
            }
            let Some(stack) = self.stack(node, endpoint) else { continue };
            if let Some(at) = stack.poll_timeout(now)
                && stack.wake.is_none_or(|planned| at < planned)
            {
                stack.wake = Some(at);
                self.push(at, node, What::Wake(endpoint));
            }
        }
    }

    fn stack(&mut self, node: usize, endpoint: EndpointId) -> Option<&mut Stack> {
        self.hosts.get_mut(node)?.stacks.get_mut(&endpoint)
    }

    fn leave(&mut self, (node, endpoint): (usize, EndpointId), frame: &[u8], weather: &Weather<'_>, now: Instant) {
        let Some(host) = self.hosts.get_mut(node) else { return };
        if let Some(stack) = host.stacks.get(&endpoint) {
            self.capture.note_container(&stack.container, frame, now);
        }
        if host.buffer.fill(frame).is_ok() {
            host.datapath.handle_frames(endpoint, std::slice::from_mut(&mut host.buffer), now);
            self.meet(node, weather, now);
            self.send_own(node, weather, now);
        }
    }

    /// What a datapath has to send by itself.
    fn send_own(&mut self, node: usize, weather: &Weather<'_>, now: Instant) {
        while let Some(host) = self.hosts.get_mut(node)
            && host.datapath.poll_transmit(&mut host.buffer, now)
        {
            self.meet(node, weather, now);
        }
    }

    /// The packet in a node's buffer goes where it is to go.
    fn meet(&mut self, node: usize, weather: &Weather<'_>, now: Instant) {
        let Some(host) = self.hosts.get_mut(node) else { return };
        match host.buffer.fate() {
            Fate::Port(endpoint) => {
                let Some(stack) = host.stacks.get_mut(&endpoint) else { return };
                self.capture.note_container(&stack.container, host.buffer.packet(), now);
                stack.wire.deliver(host.buffer.packet());
                if self.due.back() != Some(&endpoint) {
                    self.due.push_back(endpoint);
                }
            }
            Fate::Underlay { to, .. } => self.send(node, to, weather, now),
            Fate::Waiting | Fate::Copied | Fate::Drop(_) => {}
        }
    }

    /// The packet in a node's buffer goes to another node, if the underlay lets it.
    fn send(&mut self, from: usize, to: IpAddr, weather: &Weather<'_>, now: Instant) {
        self.counts.sent += 1;
        let Some(len) = self.hosts.get(from).map(|host| host.buffer.packet().len()) else { return };
        let Some(to) = node_at(to).filter(|to| *to < self.hosts.len()) else {
            self.counts.stray += 1;
            return;
        };
        if [from, to].into_iter().any(|node| self.hosts.get(node).is_none_or(|host| len > host.mtu)) {
            self.counts.too_big += 1;
            return;
        }
        let conditions = weather.conditions;
        let takes = Duration::from_nanos(len as u64 * 1_000_000_000 / conditions.rate.max(1));
        let Some(host) = self.hosts.get_mut(from) else { return };
        host.idle = host.idle.max(now) + takes;
        let out = host.idle;
        self.capture.note_node(from, host.buffer.packet(), now);
        if weather.cut.contains(&(from, to)) {
            self.counts.cut += 1;
            return;
        }
        for _ in 0..=usize::from(self.happens(conditions.duplication)) {
            if self.happens(conditions.loss) {
                self.counts.lost += 1;
                continue;
            }
            let at = out + self.delay(conditions);
            let mut packet = self.spare.pop().unwrap_or_default();
            packet.clear();
            packet.extend_from_slice(self.hosts.get(from).map(|host| host.buffer.packet()).unwrap_or_default());
            self.push(at, to, What::Arrive(packet));
        }
    }

    fn delay(&mut self, conditions: &Conditions) -> Duration {
        let latency = &conditions.latency;
        let within = |dice: &mut Dice, span: Duration| dice.below((span.as_micros() as usize).max(1)) as u64;
        let span = latency.end.saturating_sub(latency.start);
        let delay = latency.start + Duration::from_micros(within(&mut self.dice, span));
        match self.happens(conditions.reordering) {
            true => delay + Duration::from_micros(within(&mut self.dice, latency.end * 10)),
            false => delay,
        }
    }

    fn happens(&mut self, share: f64) -> bool {
        share > 0.0 && (self.dice.below(1_000_000) as f64) < share * 1e6
    }

    fn push(&mut self, at: Instant, node: usize, what: What) {
        self.order += 1;
        self.queue.push(Reverse(Event { at, order: self.order, node, what }));
    }
}
