//! A connection on which only the server speaks, at the client.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::dial::{Address, Connection, heard, read_frame};
use super::frame::{Frame, Purpose};
use super::{RemoteError, misread};

/// See the module.
#[derive(Debug)]
pub(super) struct Hearing {
    connection: Connection,
    heard: Instant,
}

impl Hearing {
    pub(super) async fn begin(address: &Address, purpose: Purpose) -> Result<Self, RemoteError> {
        Ok(Self { connection: address.dial(purpose).await?, heard: Instant::now() })
    }

    /// What the server says next, be it that it lives. May be dropped and called again: nothing is missed.
    pub(super) async fn next(&mut self) -> Result<Frame<()>, RemoteError> {
        let silence = Duration::from_millis(self.connection.welcome.beat_millis).saturating_mul(3);
        // Who calls rarely has not listened: silence counts only while somebody does.
        let until = (self.heard + silence.min(LONGEST)).max(Instant::now() + LISTEN);
        let line = match timeout_at(until, self.connection.lines.next()).await {
            Ok(line) => heard(line),
            Err(_) => Err(RemoteError::Late { after: silence }),
        };
        self.heard = Instant::now();
        if let Some(server) = &self.connection.server {
            server.check().map_err(RemoteError::Untrusted)?; // what it says is believed as long as it is
        }
        let line = line?;
        // What a later release tells, and this one does not understand, is in the way of nothing else.
        read_frame(&line).or_else(|garbled| misread::told(&line).map(Frame::Told).ok_or(garbled))
    }
}

/// A call listens for so long at least.
const LISTEN: Duration = Duration::from_secs(1);
/// A server that is silent for so long is dead, whatever it said of its beat: an hour.
const LONGEST: Duration = Duration::from_secs(3600);
