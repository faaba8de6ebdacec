//! What TCP clients may take.

use std::time::Duration;

/// Bounds for connections, and for the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once, by each listener; 256 by default. When there are as many, a new one takes the place of another: of
    /// the client (by IP address) that has most, the one that has been idle longest. So nobody is kept out, or thrown
    /// out, by others that open connections.
    pub connections: usize,
    /// How long a connection may bring no whole query, and how long a client may take no reply; 10 s by default.
    pub idle: Duration,
    /// Queries of one connection that may wait for upstream servers at once; 64 by default. What comes beyond is read
    /// later.
    pub pipelined: usize,
    /// Connections to upstream servers at once, for what they cut by UDP; 256 by default. Beyond, the next server is asked.
    pub upstream_connections: usize,
    /// How long a server that stops waits for upstream servers; 4 s by default.
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 256,
            idle: Duration::from_secs(10),
            pipelined: 64,
            upstream_connections: 256,
            grace: Duration::from_secs(4),
        }
    }
}
