//! How a machine is set.

use std::time::Duration;

use crate::TablesConfig;

/// Settings of a [`Gossip`](crate::Gossip), from a preset and changed field by field.
///
/// Nodes of one cluster may differ in all of them but should agree on `membership`. Where a number's source is
/// *measured*, it is the least load that met the figures of `overlay-bench -- gossip`.
///
/// ```
/// use overlay_gossip::Config;
///
/// let config = Config { seal_overhead: 29, ..Config::lan() };
/// assert!(config.check().is_ok());
/// ```
#[derive(Debug, Clone)]
pub struct Config {
    /// Which membership protocol. Default: the own core, by measurement (see the crate page).
    pub membership: Protocol,
    /// The largest datagram sent, as UDP payload, seal included. Bytes, 1,000 (so that the longest piece of news fits beside a
    /// probe) to 65,507. 1,400: fits Ethernet's 1,500 below IPv6, UDP and one more tunnel.
    pub datagram_budget: usize,
    /// What the caller's seal adds to each message. Bytes, 0 to 256; 0 without seal. AES-GCM with a nonce and a version has 29.
    pub seal_overhead: usize,

    /// From one probe to the next. 20 ms to 1 min. Shorter finds failures sooner for more datagrams. 1 s: SWIM's and
    /// memberlist's.
    pub probe_period: Duration,
    /// How long an attempt of a probe waits for its answer; above the path's usual round trip. 1 ms up to `probe_period`. A node
    /// that finds itself slow multiplies period and timeout by its health (1 to `health_limit` + 1). *Measured*.
    pub probe_timeout: Duration,
    /// Attempts of a probe before it accuses: the first direct, the others direct and through others. 1 to 8. Three lose a
    /// probe at 20 % loss once in 500 times; one, seven times in a hundred. *Measured*.
    pub probe_attempts: u8,
    /// Members asked to probe in one's stead at each attempt after the first. 0 to 16. 3: SWIM's.
    pub indirect_probes: usize,
    /// How far local health may fall (Lifeguard's S). 0 (no Lifeguard probes) to 32. 8: Lifeguard's.
    pub health_limit: u8,

    /// The least time a suspect has, in probe periods, times log₁₀ of the cluster's size (1 at least). 0.1 to 100. *Measured*.
    pub suspicion_factor: f64,
    /// A lonely accusation's time in multiples of the least (Lifeguard's β). 1 (no Lifeguard suspicion) to 20. *Measured*.
    pub suspicion_stretch: f64,
    /// Independent confirmations that shorten a suspect's time to the least (Lifeguard's K). 0 to 7. 3: Lifeguard's.
    pub confirmations: u8,
    /// How many of those that hear of a suspicion are to probe the suspect at once, on average. 0 (wait for their turn) to 64.
    /// They confirm a true suspicion early, and their probes tell a wronged suspect. *Measured*.
    pub verifiers: u32,

    /// The least time between two rounds of news; the first round after a silence goes at once. 10 ms to 10 s. 200 ms:
    /// memberlist's.
    pub gossip_interval: Duration,
    /// Members told in a round. 1 to 32. 3: memberlist's.
    pub gossip_fanout: usize,
    /// A piece of news is told λ·log₁₀(n + 1) times by each. 1 to 16. 4: memberlist's.
    pub retransmit_factor: u32,

    /// From one call of a seed or suspended member to the next by a node that is alone; in a cluster, all nodes together call
    /// about ten times as often. Jittered by half. 10 ms to 10 min. *Measured*: what a healed partition waits for.
    pub seed_interval: Duration,
    /// How long the digests in probes and answers must have differed from one's own before membership is compared on a
    /// stream. 0 to 10 min: longer than news take to everybody. *Measured*.
    pub sync_after: Duration,
    /// The least time between two such comparisons by one node. 10 ms to 10 min. *Measured*.
    pub sync_interval: Duration,

    /// How long a suspended or left member is remembered. 1 s to 30 days. 30 min: NetworkDB's for its entries.
    pub expire_after: Duration,
    /// Members known at most, oneself included. 2 to 1,000,000. When full, the longest suspended or left makes room; if there is
    /// none, the newcomer is refused and counted. About 250 bytes each, with what the tables keep of it.
    pub member_limit: usize,
    /// Messages per second accepted from senders that are no live members at the address they have. 1 up. They are joiners, nodes
    /// with a new address, and strangers.
    pub stranger_rate: u32,
    /// How many of those may come at once. 1 up: a whole cluster starting.
    pub stranger_burst: u32,

    /// Of the tables.
    pub tables: TablesConfig,
}

/// Membership protocols: same messages to the tables, same events, same push-pull.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// This crate's SWIM with Lifeguard.
    Swim,
    /// The `foca` crate, with announcements repeated until somebody answers and push-pull around it.
    Foca,
}

impl Config {
    /// Nodes within one data centre: round trips below 5 ms.
    pub fn lan() -> Self {
        Self {
            membership: Protocol::Swim,
            datagram_budget: 1_400,
            seal_overhead: 0,
            probe_period: Duration::from_secs(1),
            probe_timeout: Duration::from_millis(150),
            probe_attempts: 3,
            indirect_probes: 3,
            health_limit: 8,
            suspicion_factor: 1.5,
            suspicion_stretch: 5.0,
            confirmations: 3,
            verifiers: 8,
            gossip_interval: Duration::from_millis(200),
            gossip_fanout: 3,
            retransmit_factor: 4,
            seed_interval: Duration::from_millis(250),
            sync_after: Duration::from_secs(1),
            sync_interval: Duration::from_secs(1),
            expire_after: Duration::from_secs(30 * 60),
            member_limit: 16_384,
            stranger_rate: 1_000,
            stranger_burst: 4_000,
            tables: TablesConfig::default(),
        }
    }

    /// Nodes in several data centres: round trips up to 400 ms, more loss.
    pub fn wan() -> Self {
        Self {
            probe_period: Duration::from_secs(3),
            probe_timeout: Duration::from_millis(800),
            gossip_interval: Duration::from_millis(500),
            gossip_fanout: 4,
            seed_interval: Duration::from_secs(1),
            sync_after: Duration::from_secs(4),
            sync_interval: Duration::from_secs(4),
            tables: TablesConfig::wan(),
            ..Self::lan()
        }
    }

    /// Nodes on one machine, as in tests.
    pub fn local() -> Self {
        Self {
            probe_period: Duration::from_millis(500),
            probe_timeout: Duration::from_millis(100),
            gossip_interval: Duration::from_millis(50),
            seed_interval: Duration::from_millis(100),
            sync_after: Duration::from_millis(500),
            sync_interval: Duration::from_millis(500),
            ..Self::lan()
        }
    }

    /// Whether all fields are in range.
    ///
    /// # Errors
    /// Names the first field that is not.
    pub fn check(&self) -> Result<(), ConfigError> {
        let milli = Duration::from_millis;
        let day = Duration::from_secs(86_400);
        let durations = [
            ("probe_period", self.probe_period, milli(20), milli(60_000)),
            ("probe_timeout", self.probe_timeout, milli(1), self.probe_period),
            ("gossip_interval", self.gossip_interval, milli(10), milli(10_000)),
            ("seed_interval", self.seed_interval, milli(10), milli(600_000)),
            ("sync_after", self.sync_after, Duration::ZERO, milli(600_000)),
            ("sync_interval", self.sync_interval, milli(10), milli(600_000)),
            ("expire_after", self.expire_after, milli(1_000), 30 * day),
        ];
        let numbers = [
            ("datagram_budget", self.datagram_budget as f64, 1_000.0, 65_507.0),
            ("seal_overhead", self.seal_overhead as f64, 0.0, 256.0),
            ("probe_attempts", self.probe_attempts.into(), 1.0, 8.0),
            ("indirect_probes", self.indirect_probes as f64, 0.0, 16.0),
            ("health_limit", self.health_limit.into(), 0.0, 32.0),
            ("suspicion_factor", self.suspicion_factor, 0.1, 100.0),
            ("suspicion_stretch", self.suspicion_stretch, 1.0, 20.0),
            ("confirmations", self.confirmations.into(), 0.0, 7.0),
            ("verifiers", self.verifiers.into(), 0.0, 64.0),
            ("gossip_fanout", self.gossip_fanout as f64, 1.0, 32.0),
            ("retransmit_factor", self.retransmit_factor.into(), 1.0, 16.0),
            ("member_limit", self.member_limit as f64, 2.0, 1e6),
            ("stranger_rate", self.stranger_rate.into(), 1.0, f64::MAX),
            ("stranger_burst", self.stranger_burst.into(), 1.0, f64::MAX),
        ];
        ConfigError::first(&durations, &numbers).map_or_else(|| self.tables.check(), Err)
    }

    /// Bytes of a datagram that are ours to fill.
    pub(crate) const fn room(&self) -> usize {
        self.datagram_budget.saturating_sub(self.seal_overhead)
    }
}

/// A field's name, what it is, the least and the most that would be right.
pub(crate) type Limits<T> = (&'static str, T, T, T);

/// A field of a [`Config`] that is out of range; nothing was made. Durations are in seconds.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("{field} is {found}, {least} to {most} would be right")]
pub struct ConfigError {
    /// The field.
    pub field: &'static str,
    /// What it is.
    pub found: f64,
    /// The least it may be.
    pub least: f64,
    /// The most it may be.
    pub most: f64,
}

impl ConfigError {
    /// The first that is wrong.
    pub(crate) fn first(durations: &[Limits<Duration>], numbers: &[Limits<f64>]) -> Option<Self> {
        let seconds = durations
            .iter()
            .map(|(field, value, least, most)| (*field, value.as_secs_f64(), least.as_secs_f64(), most.as_secs_f64()));
        let wrong =
            seconds.chain(numbers.iter().copied()).find(|(_, value, least, most)| !(*least..=*most).contains(value));
        wrong.map(|(field, found, least, most)| Self { field, found, least, most })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_presets_pass_their_check() {
        for preset in [Config::lan(), Config::wan(), Config::local()] {
            assert_eq!(preset.check(), Ok(()));
        }
    }

    #[test]
    fn a_field_out_of_range_is_refused_by_name() {
        let config = Config { probe_timeout: Duration::from_secs(2), ..Config::lan() };
        assert_eq!(config.check().unwrap_err().to_string(), "probe_timeout is 2, 0.001 to 1 would be right");
        assert!(Config { datagram_budget: 999, ..Config::lan() }.check().is_err());
        assert!(Config { suspicion_factor: f64::NAN, ..Config::lan() }.check().is_err());
        let tables = TablesConfig { answer_timeout: Duration::ZERO, ..TablesConfig::default() };
        let refused = Config { tables, ..Config::lan() }.check().unwrap_err();
        assert_eq!(refused.to_string(), "tables.answer_timeout is 0, 0.01 to 60 would be right");
    }
}
