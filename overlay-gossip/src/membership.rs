//! What a membership protocol is to the rest of the machine.

use std::fmt::Debug;
use std::net::SocketAddr;

use overlay_core::{Instant, NodeId};

use crate::metrics::MembershipMetrics;
use crate::tables::Group;
use crate::wire::Message;
use crate::{Class, Event, Member, Reason, Standing};

/// Finds out who is there. Sub-machine: never sees tables, sockets or clocks.
pub(crate) trait Membership: Debug + Send + Sync {
    /// Calls these addresses until one answers, and again whenever none of them is a live member.
    fn join(&mut self, seeds: &[SocketAddr], now: Instant);
    /// Says goodbye; ends with [`Event::Gone`].
    fn leave(&mut self, now: Instant);
    /// Tells everybody that this node is otherwise now. Its id and incarnation stay.
    fn change(&mut self, me: Member, now: Instant);

    /// Takes one message that is not the tables'.
    fn handle(&mut self, from: Source, message: &Message<'_>, now: Instant);
    fn handle_timeout(&mut self, now: Instant);
    fn poll_timeout(&self) -> Option<(Instant, Reason)>;
    fn poll_transmit(&mut self) -> Option<Outgoing>;
    fn poll_event(&mut self) -> Option<Event>;
    /// What a member that is there by now has shown of itself: verified, and not yet with the tables.
    fn poll_shown(&mut self) -> Option<Group> {
        None
    }

    /// Whether there is something for [`fill`](Self::fill), and whether it is urgent.
    fn news(&self) -> Option<Urgency>;
    /// Appends a message of news for `to`, of `room` bytes at most.
    fn fill(&mut self, to: NodeId, room: usize, out: &mut Vec<u8>, now: Instant);
    /// Up to `count` different live members, drawn anew at each call.
    fn draw(&mut self, count: usize) -> Vec<(NodeId, SocketAddr)>;

    fn me(&self) -> &Member;
    fn member(&self, node: NodeId) -> Option<(&Member, Standing)>;
    /// All others, in the order of their ids.
    fn members(&self) -> Box<dyn Iterator<Item = (&Member, Standing)> + '_>;
    /// Others alive or suspected.
    fn live(&self) -> usize;
    fn metrics(&self) -> MembershipMetrics;
    /// What would be told of a node.
    #[cfg(test)]
    fn told_of(&self, _: NodeId, _: Instant) -> Option<crate::wire::Update> {
        None
    }
}

/// The most seeds that are kept.
pub(crate) const SEEDS: usize = 64;

/// Who says so, and from where.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Source {
    pub(crate) node: NodeId,
    pub(crate) address: SocketAddr,
}

/// A payload that has room for more.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) to: SocketAddr,
    /// Who is there, as far as known.
    pub(crate) node: Option<NodeId>,
    pub(crate) class: Class,
    pub(crate) payload: Vec<u8>,
}

/// How soon news have to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Urgency {
    /// With the next round.
    Usual,
    /// Now: this node is wronged.
    Now,
}
