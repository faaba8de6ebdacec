//! What a resolver counted.

use std::net::SocketAddr;
use std::time::Duration;

use serde::Serialize;

/// Counters since the resolver was made, and what it knows of its upstream servers now.
///
/// `queries.total()` is the sum of `results`' fields: each query comes to one result, though a forwarded one later.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
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

impl Metrics {
    /// What two resolvers of the same upstream servers have counted together. Of a server that both know, it is the longer round-trip time and the longer
    /// silence of the two.
    #[must_use]
    pub fn and(mut self, other: &Self) -> Self {
        self.queries.add(&other.queries);
        self.results.add(&other.results);
        self.forwards.add(&other.forwards);
        self.cache.add(&other.cache);
        for theirs in &other.upstreams {
            match self.upstreams.iter_mut().find(|ours| ours.address == theirs.address) {
                Some(ours) => ours.add(theirs),
                None => self.upstreams.push(theirs.clone()),
            }
        }
        self
    }

    /// What remains of a resolver that has ended: what it has counted, and nothing of what it kept or knew.
    #[must_use]
    pub fn ended(mut self) -> Self {
        (self.cache.entries, self.cache.bytes) = (0, 0);
        for upstream in &mut self.upstreams {
            (upstream.rtt, upstream.silent) = (None, 0);
        }
        self
    }
}

/// Questions by type.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
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

    const fn add(&mut self, other: &Self) {
        let Self { a, aaaa, ptr, srv, txt, other: rest } = self;
        *a += other.a;
        *aaaa += other.aaaa;
        *ptr += other.ptr;
        *srv += other.srv;
        *txt += other.txt;
        *rest += other.other;
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
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
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

    const fn add(&mut self, other: &Self) {
        self.records += other.records;
        self.no_data += other.no_data;
        self.no_name += other.no_name;
        self.cached += other.cached;
        self.stale += other.stale;
        self.forwarded += other.forwarded;
        self.failed += other.failed;
        self.overloaded += other.overloaded;
        self.refused += other.refused;
        self.malformed += other.malformed;
        self.not_implemented += other.not_implemented;
        self.noise += other.noise;
        self.repeated += other.repeated;
    }
}

/// Traffic with upstream servers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
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

impl Forwards {
    const fn add(&mut self, other: &Self) {
        self.sent += other.sent;
        self.hedged += other.hedged;
        self.by_tcp += other.by_tcp;
        self.coalesced += other.coalesced;
        self.unexpected += other.unexpected;
        self.lies += other.lies;
    }
}

/// Replies kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct CacheMetrics {
    /// Replies.
    pub entries: usize,
    /// Bytes they take, with what it takes to find them.
    pub bytes: usize,
    /// Replies that made room for others before their time was over.
    pub evicted: u64,
}

impl CacheMetrics {
    const fn add(&mut self, other: &Self) {
        self.entries += other.entries;
        self.bytes += other.bytes;
        self.evicted += other.evicted;
    }
}

/// One upstream server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
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

impl UpstreamMetrics {
    fn add(&mut self, other: &Self) {
        self.rtt = self.rtt.max(other.rtt);
        self.silent = self.silent.max(other.silent);
        self.sent += other.sent;
        self.answered += other.answered;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Resolvers with a number of their own in each count, so that none is left out.
    fn counted(from: u64) -> Metrics {
        let mut next = from;
        let mut one = || {
            next += 1;
            next
        };
        let queries = ByType { a: one(), aaaa: one(), ptr: one(), srv: one(), txt: one(), other: one() };
        let results = Results {
            records: one(),
            no_data: one(),
            no_name: one(),
            cached: one(),
            stale: one(),
            forwarded: one(),
            failed: one(),
            overloaded: one(),
            refused: one(),
            malformed: one(),
            not_implemented: one(),
            noise: one(),
            repeated: one(),
        };
        let forwards =
            Forwards { sent: one(), hedged: one(), by_tcp: one(), coalesced: one(), unexpected: one(), lies: one() };
        let cache = CacheMetrics { entries: one() as usize, bytes: one() as usize, evicted: one() };
        let upstream = UpstreamMetrics {
            address: SocketAddr::from(([192, 0, 2, 53], 53)),
            rtt: Some(Duration::from_millis(from)),
            silent: from as u32,
            sent: one(),
            answered: one(),
        };
        Metrics { queries, results, forwards, cache, upstreams: vec![upstream] }
    }

    #[test]
    fn what_two_resolvers_counted_is_added_count_by_count_and_what_ended_keeps_nothing() {
        let both = counted(0).and(&counted(100));
        let sum = |of: &Metrics| of.queries.total() + of.results.total();
        assert_eq!(sum(&both), sum(&counted(0)) + sum(&counted(100)));
        let mut twice = counted(0).and(&Metrics::default()).and(&counted(0));
        for upstream in &mut twice.upstreams {
            (upstream.rtt, upstream.sent, upstream.answered) =
                (Some(Duration::ZERO), upstream.sent / 2, upstream.answered / 2);
        }
        assert_eq!(twice.upstreams, counted(0).upstreams, "one server is one, however many ask it");
        assert_eq!(twice.forwards.lies, 2 * counted(0).forwards.lies);
        assert_eq!(twice.results.repeated, 2 * counted(0).results.repeated);
        assert_eq!((both.upstreams[0].rtt, both.upstreams[0].silent), (Some(Duration::from_millis(100)), 100));
        let ended = both.clone().ended();
        assert_eq!((ended.cache.entries, ended.cache.bytes, ended.upstreams[0].rtt), (0, 0, None));
        assert_eq!((ended.queries, ended.results, ended.forwards), (both.queries, both.results, both.forwards));
    }
}
