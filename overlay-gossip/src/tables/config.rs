//! How the tables are set.

use std::sync::Arc;
use std::time::Duration;

use crate::{ConfigError, STREAM_LIMIT, Verify};

/// Settings of the tables. All nodes of a cluster should agree on the limits: what one refuses, it will never have.
#[derive(Debug, Clone)]
pub struct TablesConfig {
    /// The least time between two rounds of news; the first after a silence goes at once. 10 ms to 10 s. 100 ms: an entry is at
    /// 1,000 nodes within 1.5 s at 10 % loss.
    pub gossip_interval: Duration,
    /// Subscribers told in a round. 1 to 32. 3: as many as membership's news.
    pub fanout: usize,
    /// A change is told λ·log₁₀(n + 1) times by each node. 1 to 16. 5: at 30 % loss, all of 200 nodes have it within
    /// 0.2 s; with 3, some wait for a comparison, and all have it within 3 s. *Measured*.
    pub retransmit_factor: u32,
    /// Datagrams of news to one node in one round. 1 to 64. What is more goes by comparison, each entry once to each node. 4.
    pub round_datagrams: usize,
    /// Fresh changes that wait to be told, in bytes, own and relayed each. What is more goes by comparison. 1 KiB up. 16 KiB.
    pub fresh_bytes: usize,
    /// From one comparison of a network with some subscriber to the next while nothing happens; it costs some 25 bytes per network.
    /// Jittered by a quarter. 10 ms to 10 min. 1 s: what a lost piece of news waits for.
    pub compare_interval: Duration,
    /// From one comparison to the next while more is on its way than news can carry, and for some rounds after. 10 ms up to
    /// `compare_interval`. 100 ms.
    pub bulk_interval: Duration,
    /// How long an answer with entries may take, before another node is asked. 10 ms to 1 min. 1 s: several round trips and 64 KiB
    /// within one data centre.
    pub answer_timeout: Duration,
    /// Bytes of entries in one answer on a stream, plus one entry. 1 KiB to 128 KiB. 64 KiB: asked for one by one, so this is also
    /// what is under way at most between two nodes.
    pub chunk: usize,
    /// How long confirmations are gathered before they go to their owner. 1 ms to 10 s. 200 ms.
    pub confirm_delay: Duration,
    /// Confirms what was [acted](crate::Gossip::acted) upon, and what was not within this after it was heard; without it, all that was seen. 10 ms to
    /// 1 day. None.
    pub act_within: Option<Duration>,
    /// From one reminder of the subscribers that have not confirmed to the next. 10 ms to 1 min. 1 s.
    pub remind_interval: Duration,
    /// How long the entries of a suspended member stay in sight. 0 to 1 day. 5 s: a node that is only slow is back by then.
    pub hide_after: Duration,
    /// When a tombstone goes although not all have confirmed it. 1 s to 30 days. 30 min: NetworkDB's.
    pub tombstone_cap: Duration,
    /// Entries of one owner in one network. 1 to 32,768: their numbers must fit one message. 32,768.
    pub entries_limit: usize,
    /// Bytes of one owner's entries in one network: keys, values and 200 for each entry. 1 KiB up. 64 MiB.
    pub bytes_limit: usize,
    /// Networks that a node may subscribe to, this one and every other. 1 to 32,768. 4,096.
    pub networks_limit: usize,
    /// Bytes of answers that wait to be sent; requests beyond are dropped, and made again elsewhere. 256 KiB up. 8 MiB.
    pub answers_limit: usize,
    /// Keys with an event that the user has not fetched; beyond, one [`TableEvent::Reread`](crate::TableEvent::Reread) stands for a
    /// network's. 16 up. 262,144.
    pub events_limit: usize,
    /// The largest body of a datagram, in bytes. 400 up.
    pub datagram: usize,
    /// Signs this node's changes and checks all others'; without it, whoever can seal can write as anybody.
    pub verify: Option<Arc<dyn Verify>>,
}

impl Default for TablesConfig {
    /// For nodes within one data centre.
    fn default() -> Self {
        Self {
            gossip_interval: Duration::from_millis(100),
            fanout: 3,
            retransmit_factor: 5,
            round_datagrams: 4,
            fresh_bytes: 16 * 1024,
            compare_interval: Duration::from_secs(1),
            bulk_interval: Duration::from_millis(100),
            answer_timeout: Duration::from_secs(1),
            chunk: 64 * 1024,
            confirm_delay: Duration::from_millis(200),
            act_within: None,
            remind_interval: Duration::from_secs(1),
            hide_after: Duration::from_secs(5),
            tombstone_cap: Duration::from_secs(30 * 60),
            entries_limit: ENTRIES,
            bytes_limit: 64 * 1024 * 1024,
            networks_limit: 4_096,
            answers_limit: 8 * 1024 * 1024,
            events_limit: 262_144,
            datagram: 1_300,
            verify: None,
        }
    }
}

impl TablesConfig {
    /// For nodes in several data centres: an answer on a new stream takes some six round trips of up to 400 ms, its handshake and
    /// slow start included, and a lost packet once more.
    pub fn wan() -> Self {
        Self {
            gossip_interval: Duration::from_millis(250),
            compare_interval: Duration::from_secs(2),
            bulk_interval: Duration::from_millis(500),
            answer_timeout: Duration::from_secs(5),
            confirm_delay: Duration::from_millis(500),
            remind_interval: Duration::from_secs(3),
            ..Self::default()
        }
    }

    /// Whether all fields are in range.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let milli = Duration::from_millis;
        let day = Duration::from_secs(86_400);
        let durations = [
            ("tables.gossip_interval", self.gossip_interval, milli(10), milli(10_000)),
            ("tables.compare_interval", self.compare_interval, milli(10), milli(600_000)),
            ("tables.bulk_interval", self.bulk_interval, milli(10), self.compare_interval),
            ("tables.answer_timeout", self.answer_timeout, milli(10), milli(60_000)),
            ("tables.confirm_delay", self.confirm_delay, milli(1), milli(10_000)),
            ("tables.act_within", self.act_within.unwrap_or(day), milli(10), day),
            ("tables.remind_interval", self.remind_interval, milli(10), milli(60_000)),
            ("tables.hide_after", self.hide_after, Duration::ZERO, day),
            ("tables.tombstone_cap", self.tombstone_cap, milli(1_000), 30 * day),
        ];
        let numbers = [
            ("tables.fanout", self.fanout as f64, 1.0, 32.0),
            ("tables.retransmit_factor", self.retransmit_factor.into(), 1.0, 16.0),
            ("tables.round_datagrams", self.round_datagrams as f64, 1.0, 64.0),
            ("tables.fresh_bytes", self.fresh_bytes as f64, 1_024.0, f64::MAX),
            ("tables.chunk", self.chunk as f64, 1_024.0, 131_072.0),
            ("tables.entries_limit", self.entries_limit as f64, 1.0, ENTRIES as f64),
            ("tables.bytes_limit", self.bytes_limit as f64, 1_024.0, f64::MAX),
            ("tables.networks_limit", self.networks_limit as f64, 1.0, ENTRIES as f64),
            ("tables.answers_limit", self.answers_limit as f64, 262_144.0, f64::MAX),
            ("tables.events_limit", self.events_limit as f64, 16.0, f64::MAX),
            ("tables.datagram", self.datagram as f64, 400.0, f64::MAX),
        ];
        ConfigError::first(&durations, &numbers).map_or(Ok(()), Err)
    }

    /// Entries of one owner in one network.
    pub(crate) fn entries(&self) -> usize {
        self.entries_limit.min(ENTRIES)
    }

    /// What an answer may take, values and all: below [`STREAM_LIMIT`].
    pub(crate) fn chunk_room(&self) -> usize {
        self.chunk.min(STREAM_LIMIT / 2)
    }
}

/// The most entries of an owner: their numbers, at 6 bytes each, fit a message on a stream.
const ENTRIES: usize = 32_768;
