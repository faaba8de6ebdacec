//! What the tables have done and how long their queues are.

use serde::Serialize;

/// Counts since the start, and lengths now, of the tables.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct TablesMetrics {
    /// Networks subscribed to.
    pub networks: usize,
    /// Entries and tombstones of everybody in them, subscriptions included.
    pub entries: usize,
    /// Of those, tombstones.
    pub tombstones: usize,
    /// What they count for: keys, values and 200 bytes for each.
    pub entry_bytes: usize,
    /// The most changes by which a watermark is behind this node's last change in a network; of each network,
    /// [`Gossip::watermark_lag`](crate::Gossip::watermark_lag) says it.
    pub watermark_lag: u64,
    /// Fresh changes that are still being told.
    pub fresh: usize,
    /// Requests for entries that wait for an answer.
    pub pulls: usize,
    /// Confirmations that are owed to owners.
    pub confirmations: usize,
    /// What was heard of others and waits to be acted upon: see [`Gossip::acted`](crate::Gossip::acted).
    pub unacted: usize,
    /// Messages that wait to be sent, and their bytes.
    pub transmits: usize,
    /// Bytes of those.
    pub transmit_bytes: usize,
    /// Events that wait to be fetched.
    pub events: usize,
    /// Changes that this node made.
    pub made: u64,
    /// Changes of others that were taken in from news.
    pub taken_fresh: u64,
    /// Changes of others that were taken in from answers.
    pub taken_pulled: u64,
    /// Changes seen before: doubled by the network, told by many, or from the past.
    pub stale: u64,
    /// Comparisons begun.
    pub comparisons: u64,
    /// Comparisons by others that found a difference.
    pub mismatches: u64,
    /// Answers given with entries.
    pub chunks: u64,
    /// Requests for entries that were not answered in time.
    pub pulls_lost: u64,
    /// Changes not told as news, since they were too many or too large; comparison carries them.
    pub fresh_overflow: u64,
    /// Entries that differed from their owner's under the same number and were put right.
    pub repaired: u64,
    /// Tombstones that were dropped.
    pub collected: u64,
    /// What was refused, by reason.
    pub refused: RefusedMetrics,
}

/// What was refused of what others sent, by reason. Nothing of it changed anything.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RefusedMetrics {
    /// Bodies that were no messages.
    pub malformed: u64,
    /// Messages of nodes that are no members.
    pub stranger: u64,
    /// Messages about networks that this node does not subscribe to.
    pub foreign_network: u64,
    /// Changes in this node's own name that it did not make.
    pub own_name: u64,
    /// Changes of owners that are no members, or whose start is not known to membership.
    pub unknown_owner: u64,
    /// Changes of an owner's former start.
    pub past_incarnation: u64,
    /// Changes of an owner that does not subscribe to the network.
    pub not_subscribed: u64,
    /// Changes that are not signed.
    pub unsigned: u64,
    /// Changes of owners whose signatures cannot be verified, or not yet.
    pub unvouched: u64,
    /// Changes with a signature that is not their owner's, and what somebody showed in an owner's name that it did not make: forged, altered, of another entry, network or start.
    pub signature: u64,
    /// Changes that came with a forged one, or after too many, and were not looked at; comparison brings those that are true.
    pub unverified: u64,
    /// Changes beyond an owner's limits.
    pub full: u64,
    /// Answers that nobody asked for, or that came too late.
    pub unasked: u64,
    /// Confirmations of what was never changed, or of another start or subscription.
    pub confirmation: u64,
    /// Requests dropped since too many answers wait.
    pub overload: u64,
}
