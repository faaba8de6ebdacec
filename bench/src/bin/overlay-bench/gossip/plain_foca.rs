//! foca as it comes, on the same virtual network: its LAN preset for the cluster's size, each node announced once to one of
//! three seeds.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, VecDeque};
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::rc::Rc;

use foca::{
    AccumulatingRuntime, BroadcastHandler, Config, Foca, Identity, Invalidates, OwnedNotification, PostcardCodec, Timer,
};
use overlay_core::Instant;
use overlay_gossip::testing::{Machine, Net};
use overlay_gossip::{Class, Transmit};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use serde::{Deserialize, Serialize};

/// One node.
pub(crate) struct PlainFoca {
    foca: Foca<Node, PostcardCodec, ChaCha8Rng, Entries>,
    runtime: AccumulatingRuntime<Node>,
    fresh: Rc<RefCell<Vec<u64>>>,
    timers: BinaryHeap<Reverse<(Instant, Timer<Node>, u64)>>,
    planned: u64,
    transmits: VecDeque<(SocketAddr, bytes::Bytes)>,
    events: VecDeque<Event>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    Down(SocketAddr),
    /// The entry of this number has arrived.
    Entry(u64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Node {
    address: SocketAddr,
    generation: u32,
}

impl Identity for Node {
    type Addr = SocketAddr;

    fn renew(&self) -> Option<Self> {
        Some(Self { generation: self.generation + 1, ..*self })
    }

    fn addr(&self) -> SocketAddr {
        self.address
    }

    fn win_addr_conflict(&self, other: &Self) -> bool {
        self.generation > other.generation
    }
}

/// Takes each entry of 64 bytes once.
struct Entries {
    seen: BTreeSet<u64>,
    fresh: Rc<RefCell<Vec<u64>>>,
}

struct Key(u64);

impl Invalidates for Key {
    fn invalidates(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl BroadcastHandler<Node> for Entries {
    type Key = Key;
    type Error = std::array::TryFromSliceError;

    fn receive_item(&mut self, data: &[u8], _: Option<&Node>) -> Result<Option<Key>, Self::Error> {
        let number = u64::from_be_bytes(data.get(..8).unwrap_or_default().try_into()?);
        let fresh = self.seen.insert(number);
        if fresh {
            self.fresh.borrow_mut().push(number);
        }
        Ok(fresh.then_some(Key(number)))
    }
}

impl PlainFoca {
    pub(crate) fn new(address: SocketAddr, size: usize, seed: [u8; 32], now: Instant) -> Self {
        let config = Config::new_lan(NonZeroU32::new(size as u32).unwrap_or(NonZeroU32::MIN));
        let fresh = Rc::new(RefCell::new(Vec::new()));
        let entries = Entries { seen: BTreeSet::new(), fresh: Rc::clone(&fresh) };
        let node = Node { address, generation: 0 };
        let foca = Foca::with_custom_broadcast(node, config, ChaCha8Rng::from_seed(seed), PostcardCodec, entries);
        let mut this = Self {
            foca,
            fresh,
            runtime: AccumulatingRuntime::new(),
            timers: BinaryHeap::new(),
            planned: 0,
            transmits: VecDeque::new(),
            events: VecDeque::new(),
        };
        this.settle(now);
        this
    }

    pub(crate) fn announce(&mut self, seed: SocketAddr, now: Instant) {
        let _ = self.foca.announce(Node { address: seed, generation: 0 }, &mut self.runtime);
        self.settle(now);
    }

    pub(crate) fn put(&mut self, number: u64, now: Instant) {
        let mut entry = number.to_be_bytes().to_vec();
        entry.extend([0; 56]);
        let _ = self.foca.add_broadcast(&entry);
        self.settle(now);
    }

    pub(crate) fn live(&self) -> usize {
        self.foca.num_members()
    }

    fn settle(&mut self, now: Instant) {
        self.events.extend(self.fresh.borrow_mut().drain(..).map(Event::Entry));
        while let Some((to, data)) = self.runtime.to_send() {
            self.transmits.push_back((to.address, data));
        }
        while let Some((after, timer)) = self.runtime.to_schedule() {
            self.planned += 1;
            self.timers.push(Reverse((now + after, timer, self.planned)));
        }
        while let Some(notification) = self.runtime.to_notify() {
            if let OwnedNotification::MemberDown(node) = notification {
                self.events.push_back(Event::Down(node.address));
            }
        }
    }
}

impl Machine for PlainFoca {
    type Event = Event;

    fn handle(&mut self, _: SocketAddr, _: Class, payload: &[u8], now: Instant) {
        let _ = self.foca.handle_data(payload, &mut self.runtime);
        self.settle(now);
    }

    fn handle_timeout(&mut self, now: Instant) {
        while let Some(Reverse((at, ..))) = self.timers.peek() {
            if *at > now {
                break;
            }
            if let Some(Reverse((_, timer, _))) = self.timers.pop() {
                let _ = self.foca.handle_timer(timer, &mut self.runtime);
            }
        }
        self.settle(now);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.timers.peek().map(|Reverse((at, ..))| *at)
    }

    fn poll_transmit(&mut self, _: Instant) -> Option<Transmit> {
        let (to, payload) = self.transmits.pop_front()?;
        Some(Transmit { to, class: Class::Datagram, payload })
    }

    fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }
}

/// A network of `size` nodes, started at once.
pub(crate) fn network(mut net: Net<PlainFoca>, size: usize) -> Net<PlainFoca> {
    for _ in 0..size {
        net.add(|address, seed, now| PlainFoca::new(address, size, seed, now));
    }
    for node in 1..size {
        net.with(node, |foca, now| foca.announce(Net::<PlainFoca>::address(if node < 3 { 0 } else { node % 3 }), now));
    }
    net
}
