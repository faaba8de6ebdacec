//! A connection of somebody who follows the catalogue, at the server.

use std::collections::BTreeMap;
use std::io;
use std::pin::pin;
use std::sync::PoisonError;
use std::time::Duration;

use overlay_core::{Revision, StoreError};
use overlay_node::{CatalogueChange, Feed};
use tokio::time::sleep;

use super::connection::Who;
use super::follow::unreadable;
use super::frame::{Frame, Purpose, Refusal, Told, line};
use super::lines::{Lines, write};
use super::server::{Service, Stopping};
use super::transport::{Reader, Writer};

/// Tells all that there is, and then every change, as fast as it is read at the other end.
pub(super) async fn feed(
    (mut lines, to): (Lines<Reader>, Writer),
    who: &Who,
    after: Option<u64>,
    (service, mut stopping): (&Service, Stopping),
) {
    let limits = &service.limits;
    let mut teller = Teller { to, patience: limits.write, unreadable: BTreeMap::new(), has_told_all: false };
    let feed = service.feed.as_ref().map(|feed| {
        let mut feed = feed.lock().unwrap_or_else(PoisonError::into_inner);
        match after {
            None => feed.beside(),
            Some(after) => feed.beside_after(Revision(after)),
        }
    });
    let Some(mut feed) = feed else {
        let refusal = Refusal::Unserved { what: "the catalogue".to_owned() };
        return drop(teller.say(&Frame::Refused(refusal)).await);
    };
    let told = async {
        loop {
            let told = teller.wait(&mut feed, limits.beat.max(LEAST_BEAT), who).await?;
            if let Err(refusal) = who.admit(&Purpose::Follow) {
                return teller.say(&Frame::Refused(refusal)).await;
            }
            teller.tell(told, &mut feed).await?;
        }
    };
    tokio::select! {
        ended = told => drop::<io::Result<()>>(ended),
        _ = lines.next() => {} // who follows says nothing, but that it has ended
        () = stopping.wait() => {}
    }
}

struct Teller {
    to: Writer,
    patience: Duration,
    /// What the other end knows of records that cannot be read.
    unreadable: BTreeMap<String, String>,
    has_told_all: bool,
}

type Step = Result<Vec<CatalogueChange>, StoreError>;

impl Teller {
    async fn say(&mut self, frame: &Frame<()>) -> io::Result<()> {
        write(&mut self.to, &line(frame), self.patience).await
    }

    /// Waits for something to tell, and says meanwhile that we live.
    async fn wait(&mut self, feed: &mut Feed, beat: Duration, who: &Who) -> io::Result<Step> {
        let mut next = pin!(feed.advance());
        loop {
            tokio::select! {
                step = &mut next => return Ok(step),
                () = sleep(beat) => match who.admit(&Purpose::Follow) {
                    Ok(()) => self.say(&Frame::Beat).await?,
                    Err(_) => return Ok(Ok(Vec::new())), // it is told so
                },
            }
        }
    }

    async fn tell(&mut self, step: Step, feed: &mut Feed) -> io::Result<()> {
        let unreadable = unreadable(feed);
        let changes = match step {
            Ok(changes) => changes,
            Err(error) => {
                self.say(&Frame::Trouble(error.into())).await?;
                sleep(REST).await;
                return Ok(());
            }
        };
        let is_news = self.unreadable != unreadable;
        let all = !self.has_told_all && !feed.goes_on();
        if !feed.hears() || !all && !is_news && changes.is_empty() {
            return Ok(());
        }
        self.has_told_all |= all;
        let at = feed.at().0;
        let mut parts = changes.chunks(PART);
        let mut part = parts.next().unwrap_or_default();
        loop {
            let next = parts.next();
            let unreadable = (next.is_none() && (is_news || all)).then(|| unreadable.clone());
            self.say(&Frame::Told(Told { all, more: next.is_some(), at, changes: part.to_vec(), unreadable })).await?;
            match next {
                Some(next) => part = next,
                None => break,
            }
        }
        self.unreadable = unreadable;
        Ok(())
    }
}

/// How many changes are in one line. A record has a megabyte at most in the stores there are, so such a line is never too long.
const PART: usize = 16;
/// The shortest time between two beats.
const LEAST_BEAT: Duration = Duration::from_millis(1);
/// How long it rests after the store could not be read.
const REST: Duration = Duration::from_secs(1);
