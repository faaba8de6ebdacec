//! What a resolver counted.

use std::net::SocketAddr;
use std::time::Duration;

/// Counters since the resolver was made, and what it knows of its upstream servers now.
///
/// `queries.total()` is the sum of `results`' fields: each query comes to one result, though a forwarded one later.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metrics {
    /// Questions by the type asked for.
    pub queries: ByType,
    /// What came of them.
    pub results: Results,
    /// Traffic with upstream servers.
    pub forwards: Forwards,
    /// Replies kept.
    pub cache: CacheMetrics,
    /// Each upstream server, in the order they were given.
    pub upstreams: Vec<UpstreamMetrics>,
}

/// Questions by type.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ByType {
    /// IPv4 addresses.
    pub a: u64,
    /// IPv6 addresses.
    pub aaaa: u64,
    /// Names of addresses.
    pub ptr: u64,
    /// Services' ports.
    pub srv: u64,
    /// Texts.
    pub txt: u64,
    /// Everything else, messages that are no question included.
    pub other: u64,
}

impl ByType {
    /// All of them.
    pub const fn total(&self) -> u64 {
        self.a + self.aaaa + self.ptr + self.srv + self.txt + self.other
    }

    #[inline]
    pub(crate) fn count(&mut self, record_type: u16) {
        *match record_type {
            1 => &mut self.a,
            28 => &mut self.aaaa,
            12 => &mut self.ptr,
            33 => &mut self.srv,
            16 => &mut self.txt,
            _ => &mut self.other,
        } += 1;
    }
}

/// What came of queries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Results {
    /// Answered from our records.
    pub records: u64,
    /// A name of ours without records of that type.
    pub no_data: u64,
    /// NXDOMAIN from our own knowledge: a name below a suffix or in a subnet of ours, or a single label that may not leave.
    pub no_name: u64,
    /// Answered from the cache.
    pub cached: u64,
    /// Answered from the cache past its time, because no upstream server answered (RFC 8767).
    pub stale: u64,
    /// Answered by an upstream server.
    pub forwarded: u64,
    /// SERVFAIL: no upstream server gave an answer in time, or a failure is remembered.
    pub failed: u64,
    /// SERVFAIL at once: the client has its share of the questions that may wait.
    pub overloaded: u64,
    /// REFUSED: nothing may be forwarded, or recursion was not asked for, or a transfer was.
    pub refused: u64,
    /// FORMERR.
    pub malformed: u64,
    /// NOTIMP, BADVERS, and the answer to ANY.
    pub not_implemented: u64,
    /// Dropped without a reply: no DNS header, or a response.
    pub noise: u64,
    /// Dropped without a reply: a copy of a question whose first copy still waits.
    pub repeated: u64,
}

impl Results {
    /// All of them.
    pub const fn total(&self) -> u64 {
        self.records
            + self.no_data
            + self.no_name
            + self.cached
            + self.stale
            + self.forwarded
            + self.failed
            + self.overloaded
            + self.refused
            + self.malformed
            + self.not_implemented
            + self.noise
            + self.repeated
    }
}

/// Traffic with upstream servers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Forwards {
    /// Queries sent, by UDP and TCP.
    pub sent: u64,
    /// Of these, sent because another server was late.
    pub hedged: u64,
    /// Of these, sent by TCP: the answer by UDP was cut, or somebody guessed ids.
    pub by_tcp: u64,
    /// Questions that joined one under way.
    pub coalesced: u64,
    /// Messages that fit no query under way: late, or forged.
    pub unexpected: u64,
    /// Replies with another question, or with records of names that were not asked for.
    pub lies: u64,
}

/// Replies kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CacheMetrics {
    /// Replies.
    pub entries: usize,
    /// Bytes they take, with what it takes to find them.
    pub bytes: usize,
    /// Replies that made room for others before their time was over.
    pub evicted: u64,
}

/// One upstream server.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct UpstreamMetrics {
    /// Where it is.
    pub address: SocketAddr,
    /// Its smoothed round-trip time; `None` before its first answer.
    pub rtt: Option<Duration>,
    /// Queries without an answer since the last one that had one.
    pub silent: u32,
    /// Queries sent to it.
    pub sent: u64,
    /// Answers that could be used.
    pub answered: u64,
}
