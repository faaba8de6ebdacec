//! The catalogue of a server, followed.

use std::collections::BTreeMap;

use async_trait::async_trait;
use overlay_node::{CatalogueChange, ControlError};

use super::dial::Address;
use super::frame::{Frame, Purpose, Told};
use super::hearing::Hearing;
use super::mirror::Mirror;
use super::{Follow, FollowError, RemoteError};

/// Follows the catalogue of a [`ControlServer`](super::ControlServer): made by [`ControlClient::follow`](super::ControlClient::follow).
///
/// It has a connection of its own, so that it keeps no call waiting. After the connection broke, the next call makes another, is told what has changed since, or all where
/// the server's store has forgotten that, and tells what differs. What a slow follower does not read yet stays in the server's store.
#[derive(Debug)]
pub struct RemoteFeed {
    address: Address,
    hearing: Option<Hearing>,
    /// What has come of a batch.
    part: Vec<CatalogueChange>,
    told: Mirror,
    unreadable: BTreeMap<String, String>,
    /// As of when all was told.
    at: u64,
}

impl RemoteFeed {
    pub(super) fn new(address: Address) -> Self {
        Self { address, hearing: None, part: Vec::new(), told: Mirror::default(), unreadable: BTreeMap::new(), at: 0 }
    }

    async fn hear(&mut self) -> Result<Vec<CatalogueChange>, FollowError> {
        let hearing = match &mut self.hearing {
            Some(hearing) => hearing,
            none => {
                self.part.clear();
                // What cannot be read is known by the whole alone.
                let purpose = match self.at > 0 && self.unreadable.is_empty() {
                    true => Purpose::FollowAfter(self.at),
                    false => Purpose::Follow,
                };
                none.insert(Hearing::begin(&self.address, purpose).await.map_err(FollowError::Remote)?)
            }
        };
        match hearing.next().await.map_err(FollowError::Remote)? {
            Frame::Told(told) => Ok(self.heed(told)),
            Frame::Beat => Ok(Vec::new()),
            Frame::Trouble(ControlError::Store(error)) => Err(FollowError::Store(error)),
            Frame::Refused(refusal) => Err(FollowError::Remote(refusal.into())),
            Frame::Bye => Err(FollowError::Remote(RemoteError::Lost)),
            Frame::Welcome(_) | Frame::Answer { .. } | Frame::Trouble(_) | Frame::Watched(_) => {
                Err(FollowError::Remote(RemoteError::Garbled { flaw: "it tells no changes".to_owned() }))
            }
        }
    }

    fn heed(&mut self, told: Told) -> Vec<CatalogueChange> {
        self.part.extend(told.changes);
        if told.more {
            return Vec::new();
        }
        self.at = told.at;
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
                        self.hearing = None;
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
