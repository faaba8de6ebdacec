//! The catalogue of a server, followed.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use overlay_node::{CatalogueChange, ControlError};
use tokio::time::{Instant, timeout_at};

use super::dial::{Address, Connection, heard, read_frame};
use super::frame::{Frame, Purpose, Told};
use super::mirror::Mirror;
use super::{Follow, FollowError, RemoteError};

/// Follows the catalogue of a [`ControlServer`](super::ControlServer): made by [`ControlClient::follow`](super::ControlClient::follow).
///
/// It has a connection of its own, so that it keeps no call waiting. After the connection broke, the next call makes another, is told all,
/// and tells what differs. What a slow follower does not read yet stays in the server's store.
#[derive(Debug)]
pub struct RemoteFeed {
    address: Address,
    connection: Option<Connection>,
    /// What has come of a batch.
    part: Vec<CatalogueChange>,
    told: Mirror,
    unreadable: BTreeMap<String, String>,
    heard: Instant,
}

impl RemoteFeed {
    pub(super) fn new(address: Address) -> Self {
        Self {
            address,
            connection: None,
            part: Vec::new(),
            told: Mirror::default(),
            unreadable: BTreeMap::new(),
            heard: Instant::now(),
        }
    }

    async fn hear(&mut self) -> Result<Vec<CatalogueChange>, FollowError> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => {
                self.part.clear();
                let connection = self.address.dial(Purpose::Follow).await.map_err(FollowError::Remote)?;
                self.heard = Instant::now();
                none.insert(connection)
            }
        };
        let silence = Duration::from_millis(connection.welcome.beat_millis).saturating_mul(3);
        // Who calls rarely has not listened: silence counts only while somebody does.
        let until = (self.heard + silence.min(LONGEST)).max(Instant::now() + LISTEN);
        let line = match timeout_at(until, connection.lines.next()).await {
            Ok(line) => heard(line),
            Err(_) => Err(RemoteError::Late { after: silence }),
        };
        self.heard = Instant::now();
        match line.and_then(|line| read_frame(&line)).map_err(FollowError::Remote)? {
            Frame::Told(told) => Ok(self.heed(told)),
            Frame::Beat => Ok(Vec::new()),
            Frame::Trouble(ControlError::Store(error)) => Err(FollowError::Store(error)),
            Frame::Refused(refusal) => Err(FollowError::Remote(refusal.into())),
            Frame::Bye => Err(FollowError::Remote(RemoteError::Lost)),
            Frame::<()>::Welcome(_) | Frame::Answer { .. } | Frame::Trouble(_) => {
                Err(FollowError::Remote(RemoteError::Garbled { flaw: "it tells no changes".to_owned() }))
            }
        }
    }

    fn heed(&mut self, told: Told) -> Vec<CatalogueChange> {
        self.part.extend(told.changes);
        if told.more {
            return Vec::new();
        }
        let now = told.unreadable.unwrap_or_else(|| self.unreadable.clone());
        let before = std::mem::replace(&mut self.unreadable, now);
        let batch = std::mem::take(&mut self.part);
        match told.all {
            true => self.told.heed_all(batch, self.unreadable.keys()),
            false => self.told.heed(batch, before.keys().filter(|key| !self.unreadable.contains_key(*key))),
        }
    }
}

#[async_trait]
impl Follow for RemoteFeed {
    async fn next(&mut self) -> Result<Vec<CatalogueChange>, FollowError> {
        loop {
            match self.hear().await {
                Ok(changes) if changes.is_empty() => {}
                Err(error) => {
                    // The server goes on after trouble with its store; all else ends the connection.
                    if matches!(error, FollowError::Remote(_)) {
                        self.connection = None;
                    }
                    return Err(error);
                }
                changes => return changes,
            }
        }
    }

    fn unreadable(&self) -> BTreeMap<String, String> {
        self.unreadable.clone()
    }
}

/// A call listens for so long at least.
const LISTEN: Duration = Duration::from_secs(1);
/// A server that is silent for so long is dead, whatever it said of its beat: an hour.
const LONGEST: Duration = Duration::from_secs(3600);
