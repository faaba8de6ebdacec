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
use super::frame::{Frame, Purpose, Refusal, Told, Wish, line};
use super::lines::{Lines, write};
use super::server::{Service, Stopping};
use super::shower;
use super::transport::{Reader, Writer};

/// Tells all that there is, and then every change, as fast as it is read at the other end; to a node that is no manager, what it needs of that.
pub(super) async fn feed(
    (mut lines, to): (Lines<Reader>, Writer),
    who: &Who,
    wish: Wish,
    (service, mut stopping): (&Service, Stopping),
) {
    let teller = Teller { to, patience: service.limits.write };
    let told = async {
        match who.needs_a_part(service).await {
            Some(node) => shower::show(node, wish, teller, who, service).await,
            None => tell_all(wish, teller, who, service).await,
        }
    };
    tokio::select! {
        ended = told => drop::<io::Result<()>>(ended),
        _ = lines.next() => {} // who follows says nothing, but that it has ended
        () = stopping.wait() => {}
    }
}

async fn tell_all(wish: Wish, mut teller: Teller, who: &Who, service: &Service) -> io::Result<()> {
    let feed = service.feed.as_ref().map(|feed| {
        let mut feed = feed.lock().unwrap_or_else(PoisonError::into_inner);
        match wish.after.filter(|_| wish.held.is_none()) {
            None => feed.beside(),
            Some(after) => feed.beside_after(Revision(after)),
        }
    });
    let Some(mut feed) = feed else {
        return teller.say(&Frame::Refused(Refusal::Unserved { what: "the catalogue".to_owned() })).await;
    };
    let beat = service.limits.beat.max(LEAST_BEAT);
    let mut all = All { teller, unreadable: BTreeMap::new(), has_told_all: false };
    loop {
        let step = all.wait(&mut feed, beat, who).await?;
        if let Err(refusal) = who.admit(&Purpose::Follow) {
            return all.teller.say(&Frame::Refused(refusal)).await;
        }
        if who.needs_a_part(service).await.is_some() {
            return all.teller.say(&Frame::Bye).await; // it was demoted: it comes anew
        }
        all.tell(step, &mut feed).await?;
    }
}

/// Who speaks on a connection of somebody who follows.
pub(super) struct Teller {
    to: Writer,
    patience: Duration,
}

impl Teller {
    pub(super) async fn say(&mut self, frame: &Frame<()>) -> io::Result<()> {
        write(&mut self.to, &line(frame), self.patience).await
    }

    /// Tells a batch, in parts.
    pub(super) async fn batch(&mut self, Told { changes, mut unreadable, all, part, at, .. }: Told) -> io::Result<()> {
        let mut parts = changes.chunks(PART);
        let mut next = Some(parts.next().unwrap_or_default());
        while let Some(changes) = next {
            next = parts.next();
            let more = next.is_some();
            let unreadable = if more { None } else { unreadable.take() };
            self.say(&Frame::Told(Told {
                all,
                part,
                more,
                at,
                changes: changes.to_vec(),
                unreadable,
                ..Told::default()
            }))
            .await?;
        }
        Ok(())
    }
}

/// Tells all.
struct All {
    teller: Teller,
    /// What the other end knows of records that cannot be read.
    unreadable: BTreeMap<String, String>,
    has_told_all: bool,
}

type Step = Result<Vec<CatalogueChange>, StoreError>;

impl All {
    /// Waits for something to tell, and says meanwhile that we live.
    async fn wait(&mut self, feed: &mut Feed, beat: Duration, who: &Who) -> io::Result<Step> {
        let mut next = pin!(feed.advance());
        loop {
            tokio::select! {
                step = &mut next => return Ok(step),
                () = sleep(beat) => match who.admit(&Purpose::Follow) {
                    Ok(()) => self.teller.say(&Frame::Beat).await?,
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
                self.teller.say(&Frame::Trouble(error.into())).await?;
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
        let flaws = (is_news || all).then(|| unreadable.clone());
        let told =
            Told { all, part: false, more: false, at: feed.at().0, changes, unreadable: flaws, ..Told::default() };
        self.teller.batch(told).await?;
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
