//! What can be counted of a driver.

use overlay_node::AgentMetrics;
use serde::Serialize;

use crate::packets::CarrierCounts;

/// A snapshot of a driver's counts and lengths, and of all that it runs. Counts begin with its start, if nothing else is said.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct DriverMetrics {
    /// Of its agent, and of that's gossip.
    pub agent: AgentMetrics,
    /// Of its places.
    pub places: PlaceMetrics,
    /// Of the resolvers of its places together, with those that have ended.
    pub names: overlay_dns::Metrics,
    /// Resolvers at work.
    pub resolvers: usize,
    /// What its carrier has done since that began; `None` where the kernel carries the packets.
    pub carried: Option<CarrierCounts>,
}

/// Lengths now, and counts since the start, of places and of the rounds that bring them to what they should hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PlaceMetrics {
    /// Places that there should be.
    pub wanted: usize,
    /// Places that do not hold what they should, or should not be there any more, as far as is known: 0 but while something changes.
    pub lacking: usize,
    /// Of those, such as could not be brought to it, and are tried again.
    pub failing: usize,
    /// Rounds that have ended.
    pub rounds: u64,
    /// Places that were changed in them: each once for each round.
    pub changed: u64,
    /// Steps that were planned for those.
    pub steps: u64,
    /// Places that could not be brought to what they should hold: each once for each round.
    pub failures: u64,
    /// Endpoints whose containers have ended by themselves.
    pub vanished: u64,
    /// Files of what was plugged in that are damaged: [`Status::unreadable`](crate::Status::unreadable).
    pub unreadable: usize,
}
