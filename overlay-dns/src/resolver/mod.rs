//! The resolver: a machine without I/O.

mod cache;
mod config;
mod fairness;
mod flight;
mod forward;
mod relay;
mod sockets;
mod upstream;
mod vet;

use std::net::SocketAddr;

use overlay_core::Instant;
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};

use self::forward::Forwarder;
use crate::answer::{self, Answered, Limits, REFUSED};
use crate::slow::{self, Odd, Refusal};
use crate::wire::{HEADER_LEN, Posed, Query, RD};
use crate::{Lookup, Metrics, RecordSource, RecordType, View};

pub use self::config::{Config, ConfigError, Upstreams};
pub use self::sockets::SocketId;

/// Answers names of ours from a [`RecordSource`], and has upstream servers asked for the others.
///
/// It does no I/O: a driver gives it what arrives and sends what it says. After each `handle_` or `set_` call, take what
/// [`poll_transmit`](Self::poll_transmit) and [`poll_reply`](Self::poll_reply) give until they give nothing, and look at
/// [`poll_timeout`](Self::poll_timeout) again. With feature `tokio` there is a driver, `Server`.
///
/// # The rules, in their order
/// 1. A name that the source knows is answered from it, whatever type is asked for: with records, or NOERROR without.
/// 2. A single label that it does not know is NXDOMAIN, unless [`Config::forward_single_labels`] (types by which
///    validators walk down from the root are let through: NS, SOA, DS, DNSKEY).
/// 3. Where nothing may leave (an internal network, no upstream servers), or recursion was not asked for: REFUSED.
/// 4. Anything else is forwarded: from the cache, by joining the same question under way, or to the server that answers
///    soonest. When that one is late the next is asked as well; the first answer counts.
///
/// # Bounds
/// Memory is bounded by [`Config::max_waiting`] and [`Config::cache_bytes`], whoever asks whatever: beyond, clients get
/// SERVFAIL at once. Questions of ours never wait for others.
#[derive(Debug)]
pub struct Resolver<S = View> {
    source: S,
    rng: ChaCha12Rng,
    forwarder: Forwarder,
    max_udp: u16,
    forward_single_labels: bool,
}

/// Who asks, and where the reply goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Client {
    /// Where it is; its share is counted by IP address.
    pub address: SocketAddr,
    /// How it asks.
    pub transport: Transport,
    /// The driver's own, given back with the reply: a socket, a connection.
    pub token: u64,
}

/// How a message travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// In a datagram: replies are cut to what the client takes.
    Udp,
    /// In a stream, each message after its length in two bytes, which the driver adds and takes away.
    Tcp,
}

/// What becomes of a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a reply is to be sent"]
pub enum Handled {
    /// The reply is in the buffer.
    Reply,
    /// [`Resolver::poll_reply`] gives one later, within [`Config::deadline`].
    Waits,
    /// There is none: the bytes are no query, or a copy of one that waits.
    Drop,
}

/// A message to an upstream server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transmit {
    /// Where to.
    pub to: SocketAddr,
    /// By what; given back with the answer.
    pub path: Path,
    /// The message, without a length in front.
    pub message: Vec<u8>,
}

/// By what a message leaves and its answer comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Path {
    /// A datagram by this socket.
    Udp(SocketId),
    /// A connection for this query alone, by a number that is not used twice.
    Tcp(u64),
}

/// A reply that took its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Whose question it was.
    pub client: Client,
    /// The message, without a length in front.
    pub message: Vec<u8>,
}

/// Why the machine wants to be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// A server is late: another is asked, or the question is given up.
    Late,
}

impl<S: RecordSource> Resolver<S> {
    /// A resolver that forwards nothing until [`set_upstreams`](Self::set_upstreams).
    ///
    /// # Errors
    /// As [`Config::check`].
    pub fn new(source: S, mut config: Config, seed: [u8; 32]) -> Result<Self, ConfigError> {
        config.check()?;
        config.max_udp = config.max_udp.min(MAX_DATAGRAM);
        let mut rng = ChaCha12Rng::from_seed(seed);
        let mut forwarder_seed = [0; 32];
        rng.fill_bytes(&mut forwarder_seed);
        Ok(Self {
            source,
            rng,
            max_udp: config.max_udp,
            forward_single_labels: config.forward_single_labels,
            forwarder: Forwarder::new(config, forwarder_seed),
        })
    }

    /// Takes another source, for every query from now on, and gives the one before: it can be large, and dropped where
    /// nobody waits for it.
    pub fn set_source(&mut self, source: S) -> S {
        std::mem::replace(&mut self.source, source)
    }

    /// What answers names of ours.
    pub fn source(&self) -> &S {
        &self.source
    }

    /// Asks these servers from now on, and forgets what others said. What is known of servers that stay is kept.
    pub fn set_upstreams(&mut self, upstreams: &Upstreams) {
        self.forwarder.set_upstreams(upstreams);
    }

    /// Answers a query, or begins to. `reply` is overwritten; what is in it counts for [`Handled::Reply`] only.
    #[inline]
    pub fn handle_query(&mut self, client: Client, query: &[u8], reply: &mut Vec<u8>, now: Instant) -> Handled {
        match Query::parse(query) {
            Some(parsed) => {
                let question = query.get(HEADER_LEN..HEADER_LEN + parsed.question_len()).unwrap_or_default();
                self.question(client, Posed { query: &parsed, question }, reply, now)
            }
            None => self.odd(client, query, reply, now),
        }
    }

    /// Takes a message from an upstream server. One that fits nothing is counted, and changes nothing.
    pub fn handle_upstream(&mut self, path: Path, from: SocketAddr, message: &[u8], now: Instant) {
        self.forwarder.answer(path, from, message, now);
    }

    /// Hears that nothing will come by a path from a server: it could not be sent to, or a connection was refused or closed.
    /// The next server is asked.
    pub fn handle_failure(&mut self, path: Path, from: SocketAddr, now: Instant) {
        self.forwarder.failure(path, from, now);
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.forwarder.timeout(now);
    }

    /// When to call [`handle_timeout`](Self::handle_timeout), unless something happens before.
    pub fn poll_timeout(&self) -> Option<(Instant, Reason)> {
        self.forwarder.next_timer().map(|at| (at, Reason::Late))
    }

    /// The next message to an upstream server.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.forwarder.transmits.pop_front()
    }

    /// The next reply to a client whose query had to wait.
    pub fn poll_reply(&mut self) -> Option<Reply> {
        self.forwarder.replies.pop_front()
    }

    /// How many clients' questions wait for upstream servers.
    pub fn waiting(&self) -> usize {
        self.forwarder.waiting()
    }

    /// What was counted so far.
    pub fn metrics(&self) -> Metrics {
        self.forwarder.metrics()
    }

    #[inline]
    fn question(&mut self, client: Client, posed: Posed<'_>, reply: &mut Vec<u8>, now: Instant) -> Handled {
        self.forwarder.metrics.queries.count(posed.query.record_type);
        let limits = self.limits(client);
        let lookup = self.source.lookup(&posed.query.question());
        match answer::write(posed, lookup, limits, reply, &mut self.rng) {
            Some(Answered::Records) => self.forwarder.metrics.results.records += 1,
            Some(Answered::NoData) => self.forwarder.metrics.results.no_data += 1,
            Some(Answered::NoName) => self.forwarder.metrics.results.no_name += 1,
            None => return self.elsewhere(client, posed, reply, now),
        }
        Handled::Reply
    }

    /// What is not ours, by the rules 2 to 4.
    fn elsewhere(&mut self, client: Client, posed: Posed<'_>, reply: &mut Vec<u8>, now: Instant) -> Handled {
        let query = posed.query;
        if query.question().labels == 1 && !self.forward_single_labels && !is_for_validators(query.record_type) {
            self.forwarder.metrics.results.no_name += 1;
            let limits = self.limits(client);
            let _ = answer::write(posed, Lookup::NoName { apex: 1 }, limits, reply, &mut self.rng);
            return Handled::Reply;
        }
        if query.flags & RD == 0 || !self.source.forwards() || !self.forwarder.has_servers() {
            self.forwarder.metrics.results.refused += 1;
            answer::empty(posed, REFUSED, self.max_udp, reply);
            return Handled::Reply;
        }
        self.forwarder.ask(client, posed, reply, now)
    }

    /// A message that is not of the usual shape.
    #[cold]
    fn odd(&mut self, client: Client, bytes: &[u8], reply: &mut Vec<u8>, now: Instant) -> Handled {
        let read = match slow::read(bytes, self.max_udp) {
            Odd::Any(message) => slow::any(&message, &self.source, self.max_udp),
            other => other,
        };
        match read {
            Odd::Query(query, question) => {
                self.question(client, Posed { query: &query, question: &question }, reply, now)
            }
            Odd::Refusal(refusal, message) => {
                *reply = message;
                self.forwarder.metrics.queries.count(0);
                *match refusal {
                    Refusal::Malformed => &mut self.forwarder.metrics.results.malformed,
                    Refusal::Refused => &mut self.forwarder.metrics.results.refused,
                    Refusal::NotImplemented | Refusal::Version => &mut self.forwarder.metrics.results.not_implemented,
                } += 1;
                Handled::Reply
            }
            Odd::Any(_) | Odd::Noise => {
                self.forwarder.metrics.queries.count(0);
                self.forwarder.metrics.results.noise += 1;
                Handled::Drop
            }
        }
    }

    const fn limits(&self, client: Client) -> Limits {
        Limits { tcp: matches!(client.transport, Transport::Tcp), max_udp: self.max_udp }
    }
}

/// What a datagram can carry, in bytes, by IPv4: 65,535 without the headers.
const MAX_DATAGRAM: u16 = 65_507;

/// Types by which a validating client walks from the root to a zone: they are asked of top-level domains, which are
/// single labels.
fn is_for_validators(record_type: u16) -> bool {
    matches!(RecordType::from(record_type), RecordType::NS | RecordType::SOA | RecordType::DS | RecordType::DNSKEY)
}
