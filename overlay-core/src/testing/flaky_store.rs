//! A store that fails in all the ways one can.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use crate::testing::{Dice, yield_now};
use crate::{
    Commit, CommitError, Key, Limits, Listing, Prefix, Reading, Revision, Store, StoreError, Watch, WatchEvent,
};

/// Makes one call in `rate` of a store fail, in a way that its dice choose, and stalls others.
///
/// Commits are refused; done with their answer lost; not done with their answer lost; or not done *yet*: with their
/// answer lost and done later, before some other call. Reads are refused. Watches fail and are [reset](WatchEvent::Reset).
/// Every call may let other tasks go first, before and after what it does. What was done how often is
/// [counted](Self::injected), so that a test can show that it has met with what it is to withstand.
///
/// A clone is another handle on the same store, dice and counts.
///
/// ```
/// use overlay_core::testing::{Dice, FlakyStore, block_on};
/// use overlay_core::{Commit, Key, MemoryStore, Store};
///
/// let store = FlakyStore::new(MemoryStore::default(), Dice::new([7; 32]), 3);
/// let key = Key::new("key")?;
/// while block_on(store.commit(Commit::new().put(key.clone(), "value"))).is_err() {}
/// store.calm();
/// assert!(block_on(store.get(&key))?.is_some());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct FlakyStore<S> {
    inner: S,
    faults: Arc<Mutex<Faults>>,
}

/// How often a [`FlakyStore`] did what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Injected {
    /// Calls that let others go first.
    pub stalls: u64,
    /// Reads, listings, watches and commits that were refused with nothing done.
    pub refused: u64,
    /// Commits that were tried, with their answer lost.
    pub lost_answers: u64,
    /// Commits that were never tried, with their answer lost.
    pub lost_requests: u64,
    /// Commits whose answer was lost before they were tried, later.
    pub late: u64,
    /// Those of them that took effect.
    pub late_done: u64,
    /// Watches that were reset.
    pub resets: u64,
}

impl<S> FlakyStore<S> {
    /// Makes one call of `inner` in `rate` fail; none for 0.
    pub fn new(inner: S, dice: Dice, rate: usize) -> Self {
        let faults = Faults { dice, rate, late: Vec::new(), injected: Injected::default() };
        Self { inner, faults: Arc::new(Mutex::new(faults)) }
    }

    /// No more faults; commits that are late are done before the next call.
    pub fn calm(&self) {
        self.faults().rate = 0;
    }

    /// Faults again, one call in `rate`.
    pub fn storm(&self, rate: usize) {
        self.faults().rate = rate;
    }

    /// What was done so far.
    pub fn injected(&self) -> Injected {
        self.faults().injected
    }

    fn faults(&self) -> MutexGuard<'_, Faults> {
        lock(&self.faults)
    }
}

impl<S: Store> FlakyStore<S> {
    /// What may happen before and after any call: others go first, a late commit arrives.
    async fn elsewhere(&self) {
        stall(&self.faults).await;
        loop {
            let Some(late) = self.faults().arrival() else { return };
            let done = self.inner.commit(late).await.is_ok();
            self.faults().injected.late_done += u64::from(done);
        }
    }

    async fn before(&self, doing: &'static str) -> Result<(), StoreError> {
        self.elsewhere().await;
        let mut faults = self.faults();
        if faults.fails() {
            return Err(faults.refuse(doing));
        }
        Ok(())
    }

    /// A commit with nothing to do has no effect that could be lost.
    async fn fail(&self, commit: Commit) -> Result<Revision, CommitError> {
        let way = match commit.is_empty() {
            true => 0,
            false => self.faults().dice.below(4),
        };
        let doing = "commit";
        match way {
            0 => return Err(self.faults().refuse(doing).into()),
            1 => self.faults().injected.lost_requests += 1,
            2 => self.faults().postpone(commit),
            _ => {
                let _ = self.inner.commit(commit).await;
                self.faults().injected.lost_answers += 1;
            }
        }
        stall(&self.faults).await;
        Err(CommitError::Ambiguous(injected(doing)))
    }
}

#[async_trait]
impl<S: Store> Store for FlakyStore<S> {
    async fn read(&self, keys: &[Key]) -> Result<Reading, StoreError> {
        self.before("read").await?;
        let reading = self.inner.read(keys).await?;
        stall(&self.faults).await;
        Ok(reading)
    }

    async fn list(&self, prefix: &Prefix) -> Result<Listing, StoreError> {
        self.before("list").await?;
        let listing = self.inner.list(prefix).await?;
        stall(&self.faults).await;
        Ok(listing)
    }

    async fn commit(&self, commit: Commit) -> Result<Revision, CommitError> {
        self.elsewhere().await;
        if self.faults().fails() {
            commit.check(self.inner.limits())?;
            return self.fail(commit).await;
        }
        let revision = self.inner.commit(commit).await?;
        stall(&self.faults).await;
        Ok(revision)
    }

    async fn watch(&self, prefix: &Prefix, from: Revision) -> Result<Box<dyn Watch>, StoreError> {
        self.before("watch").await?;
        let inner = self.inner.watch(prefix, from).await?;
        Ok(Box::new(FlakyWatch { inner, faults: Arc::clone(&self.faults), reset: false }))
    }

    fn limits(&self) -> Limits {
        self.inner.limits()
    }
}

#[derive(Debug)]
struct Faults {
    dice: Dice,
    rate: usize,
    late: Vec<Commit>,
    injected: Injected,
}

impl Faults {
    fn fails(&mut self) -> bool {
        self.rate > 0 && self.dice.one_in(self.rate)
    }

    fn refuse(&mut self, doing: &'static str) -> StoreError {
        self.injected.refused += 1;
        injected(doing)
    }

    /// What a watch tells instead of what it has to.
    fn disturb(&mut self) -> Option<Result<WatchEvent, StoreError>> {
        if !self.fails() {
            return None;
        }
        if !self.dice.one_in(4) {
            return Some(Err(self.refuse("watch")));
        }
        self.injected.resets += 1;
        Some(Ok(WatchEvent::Reset))
    }

    fn postpone(&mut self, commit: Commit) {
        self.injected.late += 1;
        self.late.push(commit);
    }

    /// A late commit whose time has come.
    fn arrival(&mut self) -> Option<Commit> {
        if self.late.is_empty() || (self.rate > 0 && !self.dice.one_in(4)) {
            return None;
        }
        let at = self.dice.below(self.late.len());
        Some(self.late.swap_remove(at))
    }

    fn stalls(&mut self) -> usize {
        if self.rate == 0 || !self.dice.one_in(2) {
            return 0;
        }
        self.injected.stalls += 1;
        1 + self.dice.below(3)
    }
}

struct FlakyWatch {
    inner: Box<dyn Watch>,
    faults: Arc<Mutex<Faults>>,
    reset: bool,
}

#[async_trait]
impl Watch for FlakyWatch {
    async fn next(&mut self) -> Result<WatchEvent, StoreError> {
        stall(&self.faults).await;
        if self.reset {
            return Ok(WatchEvent::Reset);
        }
        if let Some(event) = lock(&self.faults).disturb() {
            self.reset = event.is_ok();
            return event;
        }
        self.inner.next().await
    }
}

async fn stall(faults: &Mutex<Faults>) {
    let times = lock(faults).stalls();
    for _ in 0..times {
        yield_now().await;
    }
}

fn injected(doing: &'static str) -> StoreError {
    StoreError::Unavailable { doing, source: "a fault was injected".into() }
}

fn lock(faults: &Mutex<Faults>) -> MutexGuard<'_, Faults> {
    faults.lock().unwrap_or_else(PoisonError::into_inner)
}
