//! The catalogue of a server, followed.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use overlay_node::{CatalogueChange, ControlError, Reference};

use super::dial::Address;
use super::frame::{Frame, Purpose, Told, Wish};
use super::hearing::Hearing;
use super::mirror::{self, Mirror};
use super::{Follow, FollowError, RemoteError};

/// Follows the catalogue of a [`ControlServer`](super::ControlServer): made by [`ControlClient::follow`](super::ControlClient::follow).
///
/// It has a connection of its own, so that it keeps no call waiting. After the connection broke, the next call makes another, is told what has changed since, or all where
/// the server's store has forgotten that, and tells what differs. What a slow follower does not read yet stays in the server's store.
///
/// A node that is no manager is told what it [needs](overlay_node::View). What comes to be needed is told as new, what is needed no more as gone.
#[derive(Debug)]
pub struct RemoteFeed {
    address: Address,
    hearing: Option<Hearing>,
    /// What has come of a batch.
    part: Vec<CatalogueChange>,
    told: Mirror,
    unreadable: BTreeMap<String, String>,
    /// What was not understood, and what of a batch: it stays as it was known.
    misread: BTreeMap<String, String>,
    part_misread: BTreeMap<String, String>,
    /// Whether some of it was never told of.
    flawed: bool,
    /// As of when all was told.
    at: u64,
    /// The services that were watched as of then, if what was told is a part of the catalogue.
    held: Option<BTreeSet<Reference>>,
    /// The services that are watched, and those that this connection was made with.
    watches: BTreeSet<Reference>,
    asked: BTreeSet<Reference>,
    /// What was heard and not given away yet.
    heard: Vec<CatalogueChange>,
}

impl RemoteFeed {
    pub(super) fn new(address: Address) -> Self {
        let (part, told, unreadable, held) = Default::default();
        let (watches, asked, heard) = Default::default();
        let (misread, part_misread, flawed) = Default::default();
        let hearing = None;
        Self {
            address,
            hearing,
            part,
            told,
            unreadable,
            misread,
            part_misread,
            flawed,
            at: 0,
            held,
            watches,
            asked,
            heard,
        }
    }

    /// What a connection is made for.
    fn purpose(&self) -> Purpose {
        // What cannot be read is known by the whole alone.
        let after = Some(self.at).filter(|at| *at > 0 && self.unreadable.is_empty());
        match (after, &self.held) {
            (None, None) if self.watches.is_empty() => Purpose::Follow,
            (Some(after), None) if self.watches.is_empty() => Purpose::FollowAfter(after),
            (after, held) => Purpose::FollowWith(Wish { after, held: held.clone(), watches: self.watches.clone() }),
        }
    }

    async fn connect(&mut self) -> Result<Hearing, FollowError> {
        self.part.clear();
        self.part_misread.clear();
        let purpose = self.purpose();
        let is_later = matches!(purpose, Purpose::FollowWith(_));
        let mut begun = Hearing::begin(&self.address, purpose).await;
        if is_later && matches!(begun, Err(RemoteError::Unknown { .. })) {
            begun = Hearing::begin(&self.address, Purpose::Follow).await; // of an older release: it tells all
        }
        self.asked.clone_from(&self.watches);
        begun.map_err(FollowError::Remote)
    }

    /// What is told next; of a batch that is not whole yet, and where it is said that the server lives, nothing.
    async fn hear(&mut self) -> Result<Vec<CatalogueChange>, FollowError> {
        if self.hearing.is_none() {
            self.hearing = Some(self.connect().await?);
        }
        let Some(hearing) = &mut self.hearing else { return Ok(Vec::new()) };
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

    /// As that, and it ends the connection where the server does not go on.
    async fn hear_on(&mut self) -> Result<Vec<CatalogueChange>, FollowError> {
        let heard = self.hear().await;
        // The server goes on after trouble with its store; all else ends the connection.
        if matches!(heard, Err(FollowError::Remote(_))) {
            self.hearing = None;
        }
        heard
    }

    /// Whether what was told is all that is for who watches these services.
    fn has_watched(&self) -> bool {
        self.at > 0 && self.held.as_ref().is_none_or(|held| *held == self.watches)
    }

    fn heed(&mut self, told: Told) -> Vec<CatalogueChange> {
        self.part.extend(told.changes);
        self.part_misread.extend(told.misread);
        if told.more {
            return Vec::new();
        }
        self.at = told.at;
        self.held = told.part.then(|| self.asked.clone());
        let now = told.unreadable.unwrap_or_else(|| self.unreadable.clone());
        let before = std::mem::replace(&mut self.unreadable, now);
        let batch = std::mem::take(&mut self.part);
        self.note_misread(told.all, &batch);
        match told.all {
            true => self.told.heed_all(batch, self.unreadable.keys().chain(self.misread.keys())),
            false => {
                let misread: BTreeSet<_> = self.misread.keys().filter_map(|key| mirror::id_in(key)).collect();
                let is_misread = |key: &String| mirror::id_in(key).is_some_and(|id| misread.contains(&id));
                let freed = before.keys().filter(|key| !self.unreadable.contains_key(*key) && !is_misread(key));
                self.told.heed(batch, freed)
            }
        }
    }

    /// Remembers what of a batch was not understood, and forgets what is now, or is gone.
    fn note_misread(&mut self, all: bool, batch: &[CatalogueChange]) {
        let now = std::mem::take(&mut self.part_misread);
        self.flawed |= now.keys().any(|key| !self.misread.contains_key(key));
        if all {
            self.misread = now;
        } else if !self.misread.is_empty() || !now.is_empty() {
            let understood: BTreeSet<_> = batch.iter().map(mirror::id).collect();
            self.misread.retain(|key, _| mirror::id_in(key).is_none_or(|id| !understood.contains(&id)));
            self.misread.extend(now);
        }
    }
}

#[async_trait]
impl Follow for RemoteFeed {
    async fn next(&mut self) -> Result<Vec<CatalogueChange>, FollowError> {
        loop {
            if !self.heard.is_empty() || std::mem::take(&mut self.flawed) {
                return Ok(std::mem::take(&mut self.heard));
            }
            self.heard = self.hear_on().await?;
        }
    }

    async fn watch(&mut self, services: BTreeSet<Reference>) -> Result<Vec<CatalogueChange>, FollowError> {
        self.watches = services.into_iter().take(Wish::WATCHES).collect();
        while !self.has_watched() {
            if self.held.is_some() && self.asked != self.watches {
                self.hearing = None; // the next is made with them
            }
            let heard = self.hear_on().await?;
            self.heard.extend(heard);
        }
        Ok(std::mem::take(&mut self.heard))
    }

    fn unreadable(&self) -> BTreeMap<String, String> {
        let misread = self.misread.iter().map(|(key, flaw)| (key.clone(), flaw.clone()));
        self.unreadable.clone().into_iter().chain(misread).collect()
    }
}
