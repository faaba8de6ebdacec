//! What can go wrong.

use std::time::Duration;

use overlay_crypto::Usage;
use overlay_node::{Input, Place};

use crate::{Cluster, FabricError, UpkeepCounts};

impl Cluster {
    /// A node changes the keys of its encrypted networks for others; without effect while it has none.
    pub fn rotate_keys(&mut self, node: usize) {
        self.post(node, Input::RotateKeys);
    }

    /// A node is told that as much was sealed by each association that its host holds.
    pub fn use_keys(&mut self, node: usize, usage: Usage) {
        let host = self.places(node).and_then(|places| places.place(&Place::Host));
        let held = host.map(|host| host.crypto.state().sas).unwrap_or_default();
        self.post(node, Input::Used(held.into_keys().map(|id| (id, usage)).collect()));
    }

    /// The agent of a node, and the manager if it is one, die at once. What its places hold stays, and its containers run on.
    pub fn crash(&mut self, node: usize) {
        if let Some(station) = self.net.crash(node) {
            self.past = self.past.plus(station.counts);
            self.broken.extend(station.broken);
        }
        if let Some(node) = self.nodes.get_mut(node) {
            (node.manager, node.feed) = (None, None);
            node.reports.clear();
        }
    }

    /// A node that is down starts again, and finds what its places hold; without effect for one that runs.
    ///
    /// # Errors
    /// If there is no such node.
    pub fn restart(&mut self, node: usize) -> Result<(), FabricError> {
        if self.net.machine(node).is_some() {
            return Ok(());
        }
        let station = self.start(node)?;
        self.net.restart(node, |_, _, _| station);
        self.join(node);
        Ok(())
    }

    /// The agent of a node goes on as a later start of it, with all that it was told of the catalogue; without effect for one that is down.
    pub fn begin_anew(&mut self, number: usize) {
        let seed = self.dice.seed();
        let Some(node) = self.nodes.get_mut(number).filter(|_| self.net.machine(number).is_some()) else { return };
        node.incarnation += 1;
        let incarnation = node.incarnation;
        self.net.with(number, |station, now| station.agent.begin_anew(incarnation, seed, now));
        self.join(number);
    }

    /// A node loses its power: its agent dies, and its places are gone. Its containers are there again when it
    /// [restarts](Self::restart).
    pub fn power_off(&mut self, node: usize) {
        self.crash(node);
        if let Some(node) = self.nodes.get(node) {
            node.places.held.clear();
        }
        self.forget_packets(node);
    }

    /// A node does nothing for a while, and then all at once.
    pub fn pause(&mut self, node: usize, span: Duration) {
        self.net.pause(node, span);
    }

    /// From now on these nodes reach only each other, and the others only each other.
    pub fn partition(&mut self, nodes: impl IntoIterator<Item = usize>) {
        let apart: Vec<usize> = nodes.into_iter().filter(|node| *node < self.len()).collect();
        for here in &apart {
            for there in (0..self.len()).filter(|there| !apart.contains(there)) {
                self.cut(*here, there);
                self.cut(there, *here);
            }
        }
    }

    /// From now on nothing gets from one node to the other; the other way is not cut by this.
    pub fn cut(&mut self, from: usize, to: usize) {
        self.cut.insert((from, to));
        self.net.cut(from, to);
    }

    /// All nodes reach all again.
    pub fn heal(&mut self) {
        self.cut.clear();
        self.net.heal();
    }

    /// A node's clock is so many milliseconds ahead from now on, or behind. Only dates in records come from it.
    pub fn skew(&mut self, node: usize, millis: i64) {
        if let Some(node) = self.nodes.get_mut(node) {
            node.skew = millis;
        }
    }

    /// Of the calls of a node's places, one in so many fails from now on: is refused, stops half-way, or is done with its answer lost.
    /// None for 0.
    pub fn fail_places(&mut self, node: usize, one_in: usize) {
        if let Some(node) = self.nodes.get(node) {
            node.places.fail_one_in(one_in);
        }
    }

    /// What was made to fail so far at the places of all nodes, and what they did about it.
    pub fn upkeep_counts(&self) -> UpkeepCounts {
        let running = self.net.running().filter_map(|node| self.net.machine(node));
        let counts = running.fold(self.past, |sum, station| sum.plus(station.counts));
        UpkeepCounts { injected: self.nodes.iter().map(|node| node.places.injected()).sum(), ..counts }
    }

    /// Of the calls of the store, one in so many fails from now on. None for 0.
    pub fn fail_store(&mut self, one_in: usize) {
        match one_in {
            0 => self.store.calm(),
            rate => self.store.storm(rate),
        }
    }

    /// Of the calls that managers are in, one in so many is broken off somewhere from now on, as if the manager had died; it is made again
    /// then, by any manager. It takes a [store that stalls](Self::fail_store) for a call to be in the middle of anything. None for 0.
    pub const fn break_calls(&mut self, one_in: usize) {
        self.break_calls = one_in;
    }

    /// How many calls were broken off.
    pub const fn broken_calls(&self) -> u64 {
        self.broken_calls
    }
}
