//! What goes wrong between two processes.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use overlay_crypto::pki::{Identity, VerifyError};

/// Why a [`ControlServer`](super::ControlServer) could not be bound. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// A living process serves there.
    #[error("another process serves {}: stop it, or choose another path", path.display())]
    Conflict {
        /// The path.
        path: PathBuf,
    },
    /// Something else is there.
    #[error("{} is there and is no socket: remove it, or choose another path", path.display())]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// Another process is binding a socket in that directory, and does not get on with it.
    #[error("{} is locked by another process: try again, or choose another directory", directory.display())]
    Locked {
        /// The directory.
        directory: PathBuf,
    },
    /// The system refused.
    #[error("could not {doing} {}", path.display())]
    System {
        /// What was being done.
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Why a [`ControlServer`](super::ControlServer) does not serve other nodes. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// Nodes believe managers alone.
    #[error("{0} cannot serve: nodes call managers")]
    Worker(Identity),
    /// TLS has no use for the credentials.
    #[error("the node's credentials")]
    Credentials(#[from] super::CredentialsError),
    /// The socket cannot be used.
    #[error("the socket")]
    Socket(#[from] io::Error),
}

/// Why a process elsewhere could not be asked, or gave no answer. It is the source of
/// [`ControlError::Unreachable`](overlay_node::ControlError::Unreachable), which says that nothing was changed, and of
/// [`ControlError::InDoubt`](overlay_node::ControlError::InDoubt), which says that this is not known.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum RemoteError {
    /// Nobody listens there, or we may not connect: start the server, or give its path.
    #[error("nobody answers at {}", path.display())]
    Connect {
        /// The path.
        path: PathBuf,
        /// Why.
        source: Arc<io::Error>,
    },
    /// The server does not serve us.
    #[error("user {uid} with group {gid} may not call this server: be root or its user, or have it admit you")]
    Denied {
        /// Who we are.
        uid: u32,
        /// Of which group.
        gid: u32,
    },
    /// The server is of another release.
    #[error(
        "this client speaks version {client} of the protocol, the server version {server}: use those of one release"
    )]
    Version {
        /// Ours.
        client: u32,
        /// Theirs.
        server: u32,
    },
    /// The server has as many connections as it bears: try again after a while.
    #[error("the server has {limit} connections, which is its limit: try again later")]
    Busy {
        /// How many.
        limit: usize,
    },
    /// This user has as many connections as one user may have: end some of its programs, or try again after a while.
    #[error(
        "user {uid} has {limit} connections to the server, which is the limit of one: end some, or try again later"
    )]
    UserBusy {
        /// Who we are.
        uid: u32,
        /// How many.
        limit: usize,
    },
    /// This node has as many connections as one node may have.
    #[error("this node has {limit} connections to the server, which is the limit of one: end some, or try again later")]
    NodeBusy {
        /// How many.
        limit: usize,
    },
    /// No address of a manager is known: name one.
    #[error("no address of a manager is known")]
    NoManager,
    /// Nobody answers at a manager's address.
    #[error("no manager answers at {address}")]
    ConnectTo {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: Arc<io::Error>,
    },
    /// Who answers is not believed to be a manager of this cluster: nothing was told it.
    #[error("who answers is not believed to be a manager of this cluster")]
    Untrusted(#[source] VerifyError),
    /// The manager does not let us in.
    #[error("the manager does not let this node in: {0}")]
    Unwelcome(Unwelcome),
    /// Only managers do that.
    #[error("only managers may {what}")]
    OnlyManagers {
        /// What was asked for.
        what: String,
    },
    /// More than the server reads.
    #[error("a request of {bytes} bytes: the server takes {limit}")]
    TooLong {
        /// What it has.
        bytes: usize,
        /// What it may have.
        limit: usize,
    },
    /// More than is told at once: ask for less of it.
    #[error("an answer of {bytes} bytes: {limit} at most are told at once")]
    AnswerTooLong {
        /// What it has, at least.
        bytes: usize,
        /// What it may have.
        limit: usize,
    },
    /// The server does not know such a request, or something is wrong in it: a mistake of the client, or one of another release.
    #[error("the server does not understand the request: {flaw}")]
    Unknown {
        /// What it does not understand.
        flaw: String,
    },
    /// The server was not set up for that.
    #[error("the server does not serve {what}")]
    Unserved {
        /// `the catalogue` or `questions of its node`.
        what: String,
    },
    /// The node has not begun: its keys are locked, and wait for its unlock key.
    #[error("the node's keys are locked, so it does nothing yet; unlock it with its unlock key")]
    Locked,
    /// The connection ended before the answer: the server stopped, or died.
    #[error("the connection ended before the answer")]
    Lost,
    /// It took too long.
    #[error("no answer within {} s", after.as_secs_f64())]
    Late {
        /// How long it was waited for.
        after: Duration,
    },
    /// What came is no answer: a mistake of the server.
    #[error("the server's answer makes no sense: {flaw}")]
    Garbled {
        /// What is wrong with it.
        flaw: String,
    },
}

/// Why a manager does not let somebody in, as far as it says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unwelcome {
    /// No certificate was shown: join the cluster by a token.
    #[error("no certificate was shown; join the cluster by a token")]
    NoCertificate,
    /// The certificate is of another cluster.
    #[error("the certificate is of another cluster; join this one by a token")]
    Foreign,
    /// The certificate does not count now.
    #[error("the certificate has expired, or does not count yet; have it renewed, and look at the clocks")]
    Expired,
    /// The node was removed from the cluster.
    #[error("the node was removed from the cluster; join anew by a token")]
    Removed,
    /// Another protocol is spoken, or another version of it.
    #[error("the protocol was not agreed upon; use programs of one release")]
    Protocol,
    /// Another version of TLS is spoken than 1.3.
    #[error("TLS 1.3 was not agreed upon")]
    Version,
    /// Something else.
    #[error("{0}")]
    Other(String),
}

/// Why a [`Question`](super::Question) has no answer.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum AskError<R: std::error::Error + 'static> {
    /// It was refused, by who was asked.
    #[error(transparent)]
    Refused(R),
    /// It could not be asked; or it was, has no answer, and is one that changes nothing. Nothing was changed.
    #[error("the node could not be asked")]
    Unreachable(#[source] RemoteError),
    /// It was asked, and what became of it is not known: it may be done or not.
    #[error("it may be done or not")]
    InDoubt(#[source] RemoteError),
}

impl<R: std::error::Error + 'static> AskError<R> {
    /// Whether it may have been done all the same.
    pub const fn is_in_doubt(&self) -> bool {
        matches!(self, Self::InDoubt(_))
    }
}
