//! Networks of [`Gossip`].

use std::net::SocketAddr;

use overlay_core::{Instant, NodeId};

use super::net::Net;
use crate::{Config, Gossip, Member};

impl Net<Gossip> {
    /// Adds a node with the first incarnation.
    ///
    /// # Panics
    /// If `config` is out of range.
    pub fn add_gossip(&mut self, config: &Config) -> usize {
        let id = Self::node_id(self.len());
        self.add(|address, seed, now| gossip(config, Member::new(id, 1, address), seed, now))
    }

    /// Starts a crashed node anew, with the next incarnation, and lets it join through these nodes.
    ///
    /// # Panics
    /// If `config` is out of range.
    pub fn restart_gossip(&mut self, node: usize, config: &Config, incarnation: u64, seeds: &[usize]) {
        let id = Self::node_id(node);
        self.restart(node, |address, seed, now| gossip(config, Member::new(id, incarnation, address), seed, now));
        let seeds: Vec<SocketAddr> = seeds.iter().copied().map(Self::address).collect();
        self.with(node, |gossip, now| gossip.join(&seeds, now));
    }

    /// The id of node `node`: of all bits, as drawn ids are.
    pub fn node_id(node: usize) -> NodeId {
        let number = node as u128 + 1;
        NodeId::from_bytes(number.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835).to_be_bytes())
    }

    /// Lets all nodes join through the first three.
    pub fn join_all(&mut self) {
        let seeds: Vec<SocketAddr> = (0..self.len().min(3)).map(Self::address).collect();
        for node in 0..self.len() {
            self.with(node, |gossip, now| gossip.join(&seeds, now));
        }
    }

    /// Whether every running node knows exactly the running ones as alive or suspected.
    pub fn is_complete(&self) -> bool {
        let running = self.running().count();
        self.running().all(|node| self.machine(node).is_some_and(|gossip| gossip.live() + 1 == running))
    }
}

#[expect(clippy::expect_used, reason = "a test kit says what is wrong by panicking")]
fn gossip(config: &Config, me: Member, seed: [u8; 32], now: Instant) -> Gossip {
    Gossip::new(config.clone(), me, seed, now).expect("a configuration in range")
}
