//! What a virtual network can carry.

use std::net::SocketAddr;

use overlay_core::Instant;

use crate::{Class, Event, Gossip, Transmit};

/// A machine that a [`Net`](crate::testing::Net) drives: [`Gossip`], or another to compare it with.
pub trait Machine {
    /// What it tells its user.
    type Event;

    /// Takes a message. What it makes of bad ones is its affair.
    fn handle(&mut self, from: SocketAddr, class: Class, payload: &[u8], now: Instant);
    /// Does what is due.
    fn handle_timeout(&mut self, now: Instant);
    /// When something is due.
    fn poll_timeout(&self) -> Option<Instant>;
    /// The next message to send.
    fn poll_transmit(&mut self, now: Instant) -> Option<Transmit>;
    /// The next thing that happened.
    fn poll_event(&mut self) -> Option<Self::Event>;
}

impl Machine for Gossip {
    type Event = Event;

    fn handle(&mut self, from: SocketAddr, class: Class, payload: &[u8], now: Instant) {
        // Bad messages are counted in the metrics, where a test finds them.
        let _ = Self::handle(self, from, class, payload, now);
    }

    fn handle_timeout(&mut self, now: Instant) {
        Self::handle_timeout(self, now);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        Self::poll_timeout(self).map(|(at, _)| at)
    }

    fn poll_transmit(&mut self, now: Instant) -> Option<Transmit> {
        Self::poll_transmit(self, now)
    }

    fn poll_event(&mut self) -> Option<Event> {
        Self::poll_event(self)
    }
}
