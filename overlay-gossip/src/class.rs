//! How a message travels.

/// Which of a node's two channels to another a message takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// One UDP datagram: may be lost, doubled or overtaken, and never exceeds
    /// [`Config::datagram_budget`](crate::Config::datagram_budget).
    Datagram,
    /// One message on a reliable ordered stream between the two, such as TCP with a length before each message; up to
    /// [`STREAM_LIMIT`] bytes. May be lost as a whole when the connection breaks.
    Stream,
}

/// The longest message on a stream, in bytes without the seal: a value of 64 KiB with all that goes around it fits, and so
/// do chunks of what is compared.
pub const STREAM_LIMIT: usize = 256 * 1024;
