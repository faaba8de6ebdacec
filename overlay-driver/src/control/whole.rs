//! The whole catalogue, held once for all nodes that are told a part of it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use overlay_core::StoreError;
use overlay_node::{Feed, Records};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::follow::unreadable;

/// See the module. It hears of changes until it is dropped.
pub(super) struct Whole {
    known: watch::Receiver<Known>,
    past: Arc<Mutex<Past>>,
    learning: JoinHandle<()>,
}

/// What there is.
#[derive(Clone, Default)]
pub(super) struct Known {
    /// None before all was heard.
    pub(super) records: Option<Arc<Records>>,
    /// Records that cannot be read, by key, and why. What they were before is as it was.
    pub(super) unreadable: Arc<BTreeMap<String, String>>,
    /// As of when.
    pub(super) at: u64,
    /// Why the store cannot be read now.
    pub(super) trouble: Option<Arc<StoreError>>,
}

impl Whole {
    pub(super) fn new(feed: Feed) -> Self {
        let (tell, known) = watch::channel(Known::default());
        let past = Arc::<Mutex<Past>>::default();
        let learning = tokio::spawn(learn(feed, tell, Arc::clone(&past)));
        Self { known, past, learning }
    }

    /// What there is, and each time that this is otherwise; whoever looks seldom sees the last alone.
    pub(super) fn known(&self) -> watch::Receiver<Known> {
        self.known.clone()
    }

    /// What there was, as of this revision; `None` if that is forgotten, or not reached within a second, as another manager may be ahead of us.
    pub(super) async fn as_of(&self, at: u64) -> Option<Arc<Records>> {
        let mut known = self.known();
        drop(timeout(CATCH_UP, known.wait_for(|known| known.at >= at)).await);
        if known.borrow().at < at {
            return None;
        }
        self.past.lock().unwrap_or_else(PoisonError::into_inner).as_of(at)
    }
}

impl Drop for Whole {
    fn drop(&mut self) {
        self.learning.abort();
    }
}

async fn learn(mut feed: Feed, tell: watch::Sender<Known>, past: Arc<Mutex<Past>>) {
    let mut records = Records::default();
    #[expect(clippy::infinite_loop, reason = "who started it ends it")]
    loop {
        let goes_on = feed.hears(); // else it lists all, and what was meanwhile is not known
        let changes = match feed.advance().await {
            Ok(changes) => changes,
            Err(error) => {
                tell.send_modify(|known| known.trouble = Some(Arc::new(error)));
                sleep(REST).await;
                continue;
            }
        };
        let mut is_news = !changes.is_empty();
        changes.into_iter().for_each(|change| records.heed(change));
        if !feed.hears() {
            continue; // it lists all next
        }
        let at = feed.at().0;
        tell.send_if_modified(|known| {
            let flaws = unreadable(&feed);
            is_news |= known.records.is_none();
            let wakes = is_news || known.trouble.take().is_some() || flaws != *known.unreadable;
            if is_news || !goes_on {
                known.records = Some(Arc::new(records.clone()));
            }
            let news = known.records.clone().filter(|_| is_news || !goes_on);
            past.lock().unwrap_or_else(PoisonError::into_inner).heed(at, goes_on, news);
            if flaws != *known.unreadable {
                known.unreadable = Arc::new(flaws);
            }
            known.at = at;
            wakes
        });
    }
}

/// How it was after each of the last changes. What follows one another shares nearly all.
#[derive(Default)]
struct Past(VecDeque<Stood>);

/// How it was from one revision to another.
struct Stood {
    from: u64,
    until: u64,
    records: Arc<Records>,
}

impl Past {
    /// It is as of this revision as it was before, or otherwise. Either goes on from there, or what was between is not known.
    fn heed(&mut self, at: u64, goes_on: bool, news: Option<Arc<Records>>) {
        match self.0.back_mut() {
            Some(last) if last.until > at => self.0.clear(), // the store is an older copy: its revisions mean something else now
            Some(last) if goes_on => {
                last.until = if news.is_some() { at.saturating_sub(1).max(last.until) } else { at }
            }
            _ => {}
        }
        let Some(records) = news else { return };
        if self.0.len() == MOST {
            self.0.pop_front();
        }
        self.0.push_back(Stood { from: at, until: at, records });
    }

    fn as_of(&self, at: u64) -> Option<Arc<Records>> {
        let after = self.0.partition_point(|stood| stood.from <= at);
        let stood = self.0.get(after.checked_sub(1)?).filter(|stood| at <= stood.until)?;
        Some(Arc::clone(&stood.records))
    }
}

/// So many changes are remembered: who missed more is told all that it needs.
const MOST: usize = 1_024;
/// How long who was told more than we know is let wait for us to hear of it.
const CATCH_UP: Duration = Duration::from_secs(1);
/// How long it rests after the store could not be read.
const REST: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(past: &Past, at: u64, records: &Arc<Records>) -> bool {
        past.as_of(at).is_some_and(|found| Arc::ptr_eq(&found, records))
    }

    #[test]
    fn what_was_is_known_for_each_revision_since_the_first_that_is_remembered() {
        let (mut past, all) = (Past::default(), (0..1_030).map(|_| Arc::default()).collect::<Vec<Arc<Records>>>());
        for (number, records) in all.iter().enumerate() {
            past.heed(10 * number as u64, number > 0, Some(Arc::clone(records)));
        }
        assert!(past.as_of(59).is_none(), "it is forgotten");
        for (at, number) in [(60, 6), (65, 6), (69, 6), (70, 7), (10_290, 1_029)] {
            assert!(kept(&past, at, &all[number]), "{at}");
        }
        assert!(past.as_of(10_291).is_none(), "it was not heard of yet");
        past.heed(10_300, true, None);
        assert!(kept(&past, 10_295, &all[1_029]) && kept(&past, 10_300, &all[1_029]));
    }

    #[test]
    fn of_what_was_while_nothing_was_heard_nothing_is_known_and_an_older_copy_has_another_past() {
        let (mut past, all) = (Past::default(), [(); 3].map(|()| Arc::<Records>::default()));
        past.heed(10, false, Some(Arc::clone(&all[0])));
        past.heed(15, true, None);
        past.heed(30, false, Some(Arc::clone(&all[1])));
        assert!(kept(&past, 15, &all[0]) && past.as_of(16).is_none() && past.as_of(29).is_none());
        assert!(kept(&past, 30, &all[1]));
        past.heed(20, false, Some(Arc::clone(&all[2])));
        assert!(past.as_of(15).is_none() && kept(&past, 20, &all[2]) && past.as_of(30).is_none());
    }
}
