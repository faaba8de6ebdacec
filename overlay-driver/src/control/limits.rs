//! What a server bears.

use std::time::Duration;

/// What a [`ControlServer`](super::ControlServer) bears from those who call. All of it together bounds its memory: at most
/// `connections` × (`in_flight` requests and their answers).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one request, 1 MiB. A longer one ends its connection.
    pub request: usize,
    /// Bytes of one answer, 64 MiB: a listing of some 100,000 endpoints. In place of a longer one, the caller is told so.
    pub answer: usize,
    /// Connections at once, those that follow the catalogue among them: 64. One more is told so and closed.
    pub connections: usize,
    /// Connections at once of one user: 32, so that none keeps the others out, be it by mistake. One more is told so and closed.
    pub connections_of_user: usize,
    /// Requests at once on one connection, 16, answered or not read yet. Further ones wait in the socket.
    pub in_flight: usize,
    /// How long a new connection may take to say what it wants: 5 s.
    pub hello: Duration,
    /// How long a connection may be there without a whole request, if none is in flight: 60 s. Then it is told so, and closed; a
    /// [`ControlClient`](super::ControlClient) makes another when it needs it.
    pub idle: Duration,
    /// How long one call may take, 60 s: then its caller is told that it may be done or not.
    pub call: Duration,
    /// How long a caller may take to make room for more of an answer: 10 s. Then its connection is closed.
    pub write: Duration,
    /// How often who follows hears that the server lives, if there is nothing else to tell: 10 s. Three times that of silence,
    /// and the server is taken for dead.
    pub beat: Duration,
    /// How long calls may go on once the server is to stop: 5 s.
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            request: 1 << 20,
            answer: 1 << 26,
            connections: 64,
            connections_of_user: 32,
            in_flight: 16,
            hello: Duration::from_secs(5),
            idle: Duration::from_secs(60),
            call: Duration::from_secs(60),
            write: Duration::from_secs(10),
            beat: Duration::from_secs(10),
            grace: Duration::from_secs(5),
        }
    }
}
