//! Calling those that do not call: seeds, and members that are suspended.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use overlay_core::{Instant, NodeId};

use crate::member::plain;
use crate::membership::{SEEDS, Source};
use crate::swim::Swim;
use crate::swim::roster::{Index, ME, Slot};
use crate::wire::{Kind, Ping};

/// Whom to call, and when.
#[derive(Debug, Default)]
pub(super) struct Seeds {
    seeds: Vec<Seed>,
    /// The next call.
    pub(super) at: Option<Instant>,
    /// How often seeds were called without anybody there; the calls become rarer.
    failures: u32,
    /// Whether a cluster has answered.
    pub(super) joined: bool,
    next: usize,
    /// Numbers of the last calls, which answers give back.
    numbers: VecDeque<u32>,
}

#[derive(Debug)]
struct Seed {
    address: SocketAddr,
    /// Who answered there last.
    node: Option<NodeId>,
}

/// The most seeds that are called at once before a cluster has answered.
const CALLS_AT_ONCE: usize = 3;
/// Calls whose answers are waited for.
const NUMBERS: usize = 256;

impl Swim {
    pub(super) fn add_seeds(&mut self, seeds: &[SocketAddr], now: Instant) {
        let me = self.roster.slot(ME).map(|slot| slot.member.address);
        for address in seeds.iter().copied().map(plain) {
            let known = Some(address) == me || self.seeds.seeds.iter().any(|seed| seed.address == address);
            if !known && self.seeds.seeds.len() < SEEDS {
                self.seeds.seeds.push(Seed { address, node: None });
            }
        }
        self.seeds.next = self.chance.below(self.seeds.seeds.len());
        self.seeds.failures = 0;
        self.seeds.at = (!self.seeds.seeds.is_empty()).then_some(now);
    }

    /// Somebody has to be called: sees to it that it is done soon.
    pub(super) fn schedule_call(&mut self, now: Instant) {
        let at = now + self.call_interval();
        self.seeds.at = Some(self.seeds.at.map_or(at, |before| before.min(at)));
    }

    /// Alone: the configured interval, in a cluster so much longer that all together call about ten times as often.
    fn call_interval(&mut self) -> Duration {
        let crowd = (self.roster.live() as u32 + 1).div_ceil(10);
        self.chance.around(self.config.seed_interval * crowd)
    }

    pub(super) fn serve_seeds(&mut self, now: Instant) {
        if self.seeds.at.is_none_or(|at| at > now) {
            return;
        }
        if !self.seeds.joined && self.roster.live() == 0 && !self.seeds.seeds.is_empty() {
            return self.knock(now);
        }
        let strangers = self.absent_seeds();
        let choice = self.chance.below(strangers.len() + self.roster.down());
        let called = match strangers.get(choice) {
            Some(address) => {
                self.call(*address, None, now);
                true
            }
            None => self.roster.draw_down(&mut self.chance).map(|at| self.call_member(at, now)).is_some(),
        };
        self.seeds.at = None;
        if called {
            self.schedule_call(now);
        }
    }

    /// Calls seeds until a cluster answers; every failure makes the next attempt later, to eight intervals at most.
    fn knock(&mut self, now: Instant) {
        let count = self.seeds.seeds.len().min(CALLS_AT_ONCE);
        for _ in 0..count {
            self.seeds.next = (self.seeds.next + 1) % self.seeds.seeds.len();
            let address = self.seeds.seeds.get(self.seeds.next).map(|seed| seed.address);
            address.into_iter().for_each(|address| self.call(address, None, now));
        }
        let wait = self.config.seed_interval * (1 << self.seeds.failures.min(3));
        self.seeds.failures += 1;
        self.seeds.at = Some(now + self.chance.around(wait));
    }

    /// Seeds where no live member is known to be.
    fn absent_seeds(&mut self) -> Vec<SocketAddr> {
        let roster = &self.roster;
        let live_there = |address: SocketAddr, node: NodeId| {
            let slot = roster.find(node).and_then(|at| roster.slot(at));
            slot.is_some_and(|slot| slot.is_live() && slot.member.address == address)
        };
        let mut absent = Vec::new();
        for seed in &mut self.seeds.seeds {
            if seed.node.is_some_and(|node| live_there(seed.address, node)) {
                continue;
            }
            let found = roster.iter().find(|(_, slot)| slot.is_live() && slot.member.address == seed.address);
            seed.node = found.map(|(_, slot)| slot.member.id);
            if seed.node.is_none() {
                absent.push(seed.address);
            }
        }
        absent
    }

    fn call_member(&mut self, at: Index, now: Instant) {
        if let Some(Slot { member, .. }) = self.roster.slot(at) {
            let (address, id) = (member.address, member.id);
            self.call(address, Some(id), now);
        }
    }

    fn call(&mut self, address: SocketAddr, node: Option<NodeId>, now: Instant) {
        let ping = Ping { sequence: self.call_number(), digest: self.roster.digest(), target: None };
        let mut body = Vec::new();
        ping.encode(&mut body);
        self.send((address, node), Kind::Ping, &body, now);
    }

    /// A number whose answer will be known for one to a call.
    pub(super) fn call_number(&mut self) -> u32 {
        self.counts.calls += 1;
        let number = self.chance.number();
        if self.seeds.numbers.len() == NUMBERS {
            self.seeds.numbers.pop_front();
        }
        self.seeds.numbers.push_back(number);
        number
    }

    /// An answer that is to no probe; true if it is one to a call. Whoever answers and is no live member is asked for
    /// everything at once, unless somebody else is being asked: all called seeds answer a newcomer at the same time.
    pub(super) fn answered(&mut self, from: Source, number: u32, now: Instant) -> bool {
        let Some(place) = self.seeds.numbers.iter().position(|called| *called == number) else { return false };
        self.seeds.numbers.remove(place);
        if let Some(seed) = self.seeds.seeds.iter_mut().find(|seed| seed.address == from.address) {
            seed.node = Some(from.node);
        }
        let live = self.roster.find(from.node).and_then(|at| self.roster.slot(at)).is_some_and(Slot::is_live);
        if (!self.seeds.joined || !live) && !self.is_syncing(now) {
            self.begin_sync(from, now);
        }
        true
    }
}
