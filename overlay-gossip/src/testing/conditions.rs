//! How a network treats what it carries.

use std::ops::Range;
use std::time::Duration;

/// What happens to messages under way. Shares are from 0 to 1.
#[derive(Debug, Clone, PartialEq)]
pub struct Conditions {
    /// One-way delay, drawn anew for each message.
    pub latency: Range<Duration>,
    /// The share of packets that is lost. A stream loses none: it sends again, 200 ms later at first and then twice as long
    /// each time, and opening it costs a round trip.
    pub loss: f64,
    /// The share of datagrams that arrives twice.
    pub duplication: f64,
    /// The share of datagrams that is late by up to ten times the latency, so that others overtake it.
    pub reordering: f64,
    /// What a node can send, in bytes per second; what is more waits.
    pub rate: u64,
}

impl Conditions {
    /// A switched network: 0.2 to 1.5 ms one way, 1 Gbit/s, nothing lost.
    pub fn lan() -> Self {
        Self {
            latency: Duration::from_micros(200)..Duration::from_micros(1_500),
            loss: 0.0,
            duplication: 0.0,
            reordering: 0.0,
            rate: 125_000_000,
        }
    }

    /// Between sites: 20 to 120 ms one way, 1 % lost, some of it doubled and overtaken, 100 Mbit/s.
    pub fn wan() -> Self {
        Self {
            latency: Duration::from_millis(20)..Duration::from_millis(120),
            loss: 0.01,
            duplication: 0.005,
            reordering: 0.01,
            rate: 12_500_000,
        }
    }
}
