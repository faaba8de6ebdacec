//! What a resolver is told.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// How a [`Resolver`](crate::Resolver) works. The defaults suit a container's resolver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The largest reply by UDP, in bytes: 512 at least, and no more than a datagram carries (65,507). 1232 by default, which passes every path unfragmented.
    pub max_udp: u16,
    /// Whether names of a single label that are not ours may go to upstream servers. Not by default: `db` is a service that is not
    /// there yet, and nobody else's business.
    pub forward_single_labels: bool,
    /// Whether queries to upstream servers have random capitals that their answers must repeat (0x20), so that forging one
    /// is harder still. Off by default: some servers fold them.
    pub mixed_case: bool,
    /// After how long a question is given up: SERVFAIL. Below the 5 s after which clients ask again; 4 s by default.
    pub deadline: Duration,
    /// How long the first server may take, at least and at most, before the second is asked as well. In between it is what that server's
    /// answers took so far. 20 to 400 ms by default.
    pub hedge: (Duration, Duration),
    /// Questions that may wait for upstream servers at once; 4096 by default, 1 at least. A client may have as many as
    /// are free then, so one alone can fill half.
    pub max_waiting: usize,
    /// Among how many sockets, each with a random port, queries are spread; 64 by default, 1 at least.
    pub sockets: u16,
    /// Bytes that the cache may take; 4 MiB by default. 0 keeps nothing.
    pub cache_bytes: usize,
    /// The longest that a reply is kept, whatever it says; 1 h by default.
    pub max_ttl: Duration,
    /// How long it is remembered that no server answered (RFC 9520 §3.2); 1 s by default.
    pub failure_ttl: Duration,
    /// How long past its time a reply may be given when no server answers (RFC 8767); never by default.
    pub stale: Option<Duration>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_udp: 1232,
            forward_single_labels: false,
            mixed_case: false,
            deadline: Duration::from_secs(4),
            hedge: (Duration::from_millis(20), Duration::from_millis(400)),
            max_waiting: 4096,
            sockets: 64,
            cache_bytes: 4 << 20,
            max_ttl: Duration::from_secs(3600),
            failure_ttl: Duration::from_secs(1),
            stale: None,
        }
    }
}

impl Config {
    /// Whether the values make sense.
    ///
    /// # Errors
    /// The first that does not.
    pub fn check(&self) -> Result<(), ConfigError> {
        if self.max_udp < 512 {
            return Err(ConfigError::MaxUdp { found: self.max_udp });
        }
        if self.max_waiting == 0 || self.sockets == 0 {
            return Err(ConfigError::Zero);
        }
        if self.hedge.0 > self.hedge.1 || self.hedge.1 >= self.deadline || self.hedge.0.is_zero() {
            return Err(ConfigError::Hedge);
        }
        Ok(())
    }
}

/// Which value of a [`Config`] makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// Below what every client takes.
    #[error("max_udp is {found}, every client takes 512 bytes")]
    MaxUdp {
        /// The value given.
        found: u16,
    },
    /// Nothing could be forwarded.
    #[error("max_waiting and sockets are 1 at least")]
    Zero,
    /// The times do not follow one another.
    #[error("hedge's first time is above zero and at most its second, which is below the deadline")]
    Hedge,
}

/// Where names go that are not ours.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Upstreams {
    /// The servers, the preferred first. Without any, what is not ours is refused.
    pub servers: Vec<SocketAddr>,
    /// Addresses at which this resolver itself answers, such as 127.0.0.11:53 and the socket behind it. A server among them is left out:
    /// its answers would be our own questions.
    pub ourselves: Vec<SocketAddr>,
}

impl Upstreams {
    /// Servers at port 53, as resolv.conf names them.
    pub fn at(servers: impl IntoIterator<Item = IpAddr>) -> Self {
        Self { servers: servers.into_iter().map(|ip| SocketAddr::new(ip, 53)).collect(), ourselves: Vec::new() }
    }

    /// The servers that are not ourselves, each once.
    pub(crate) fn usable(&self) -> Vec<SocketAddr> {
        let mut usable: Vec<SocketAddr> = Vec::new();
        for server in &self.servers {
            if !self.ourselves.iter().chain(&usable).any(|known| is_same(known, server)) {
                usable.push(*server);
            }
        }
        usable
    }
}

/// Whether these are one place: an IPv4 address in IPv6's clothes is the same.
fn is_same(a: &SocketAddr, b: &SocketAddr) -> bool {
    a == b || (a.ip().to_canonical(), a.port()) == (b.ip().to_canonical(), b.port()) && a.is_ipv4() != b.is_ipv4()
}
