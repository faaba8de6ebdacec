//! The same protocol between nodes, over mutual TLS.

mod credentials;
mod managers;
mod recent;
mod server;
mod verifier;

pub(super) use credentials::Peer;
pub use credentials::{Credentials, CredentialsError};
pub use managers::Managers;
pub(super) use managers::failed;
pub use server::NodeLimits;
pub(super) use server::{Tls, accept};

/// What a client of the control API says that it speaks, and with which version, before anything else (ALPN, RFC 7301).
const CONTROL: &[u8] = b"overlay-control/1";
/// What one says that has no certificate yet, and asks for its first by a join token.
const JOIN: &[u8] = b"overlay-join/1";
