//! A connection, at the client.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::time::timeout;

use super::RemoteError;
use super::frame::{Frame, Hello, Purpose, VERSION, Wanted, Welcome, line};
use super::lines::{LineError, Lines, write};
use super::tls::{Managers, Peer, failed};
use super::transport::{Reader, Stream, Writer, of_unix};

/// Where a server is, and what a client bears of it.
#[derive(Debug, Clone)]
pub(super) struct Address {
    pub(super) to: Target,
    /// The longest answer, in bytes.
    pub(super) answer: usize,
    /// How long one call may take.
    pub(super) deadline: Duration,
}

/// Who is called.
#[derive(Debug, Clone)]
pub(super) enum Target {
    /// A process on this machine.
    Path(PathBuf),
    /// Other nodes.
    Managers(Managers),
}

impl Target {
    async fn open(&self) -> Result<(Stream, Option<Peer>), RemoteError> {
        match self {
            Self::Path(path) => match UnixStream::connect(path).await {
                Ok(stream) => Ok((of_unix(stream), None)),
                Err(error) => Err(unreachable(path, error)),
            },
            Self::Managers(managers) => managers.open().await,
        }
    }
}

/// A connection that the server has welcomed.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) lines: Lines<Reader>,
    pub(super) to: Writer,
    pub(super) welcome: Welcome,
    /// The manager at the other end; none where it is a process on this machine, or was proved by a token.
    pub(super) server: Option<Peer>,
}

impl Address {
    /// Connects, and says what for.
    pub(super) async fn dial(&self, purpose: Purpose) -> Result<Connection, RemoteError> {
        let patience = self.deadline.min(CONNECT);
        let connected = timeout(patience, self.connect(purpose)).await;
        connected.unwrap_or(Err(RemoteError::Late { after: patience }))
    }

    async fn connect(&self, purpose: Purpose) -> Result<Connection, RemoteError> {
        let ((read, mut to), server) = self.to.open().await?;
        let mut lines = Lines::new(read, self.answer);
        // Who is refused may not get that far: the answer says why.
        let said = write(&mut to, &line(&Hello { hello: Wanted { version: VERSION, purpose } }), CONNECT).await;
        let first = heard(lines.next().await)?;
        match read_frame::<()>(&first)? {
            Frame::Welcome(welcome) if welcome.version == VERSION => match said {
                Ok(()) => Ok(Connection { lines, to, welcome, server }),
                Err(_) => Err(RemoteError::Lost),
            },
            Frame::Welcome(welcome) => Err(RemoteError::Version { client: VERSION, server: welcome.version }),
            Frame::Refused(refusal) => Err(refusal.into()),
            _ => Err(RemoteError::Garbled { flaw: "it welcomes nobody".to_owned() }),
        }
    }
}

fn unreachable(path: &Path, error: std::io::Error) -> RemoteError {
    RemoteError::Connect { path: path.to_owned(), source: Arc::new(error) }
}

/// A line that there must be.
pub(super) fn heard(line: Result<Option<bytes::Bytes>, LineError>) -> Result<bytes::Bytes, RemoteError> {
    match line {
        Ok(Some(line)) => Ok(line),
        Ok(None) => Err(RemoteError::Lost),
        Err(LineError::Io(error)) => Err(failed(&error).unwrap_or(RemoteError::Lost)),
        Err(LineError::TooLong { limit }) => Err(RemoteError::AnswerTooLong { bytes: limit.saturating_add(1), limit }),
    }
}

/// What a line says.
pub(super) fn read_frame<T: serde::de::DeserializeOwned>(line: &[u8]) -> Result<Frame<T>, RemoteError> {
    serde_json::from_slice(line).map_err(|error| RemoteError::Garbled { flaw: error.to_string() })
}

/// How long it may take until the server has welcomed us.
const CONNECT: Duration = Duration::from_secs(5);
