//! Clients at work at the same time.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;

use bytes::Bytes;

use super::commit;
use super::history::{Act, Told, What, check};
use crate::testing::{Dice, yield_now};
use crate::{Commit, CommitError, Compare, Key, KeyChange, Prefix, Revision, Store, StoreError, WatchEvent};

/// How much was tried: a test asserts that it is enough.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tried {
    /// Commits that succeeded.
    pub done: usize,
    /// Commits whose answer was lost.
    pub lost: usize,
    /// Of those, how many were done all the same.
    pub lost_done: usize,
    /// Commits that conflicted, or could not be tried.
    pub not_done: usize,
    /// Readings and listings.
    pub reads: usize,
    /// Resets that a follower got over.
    pub resets: usize,
}

/// Four clients read, list and commit at the same time, in an order that `dice` choose: one order of commits, the one that
/// a watch tells, must explain all that each of them saw, and what was over before must not come after.
///
/// A follower (list, watch, list again when reset) must end with what is there. `store` may fail
/// ([`FlakyStore`](crate::testing::FlakyStore)); `observer` is the same store without faults.
pub async fn interleaved(
    store: &dyn Store,
    observer: &dyn Store,
    under: &Prefix,
    mut dice: Dice,
    rounds: usize,
) -> Tried {
    let start = observer.list(under).await.expect("list");
    assert!(start.entries.is_empty(), "the part of the store a law is given must be empty");
    let clock = AtomicU64::new(0);
    let clients = (0..4).map(|name| {
        let client =
            Client { name, store, under, clock: &clock, dice: Dice::new(dice.seed()), at: start.at, seen: Vec::new() };
        boxed(client.work(rounds))
    });
    let clients = clients.collect();
    let work = async {
        let acts: Vec<Act> = join(clients, Dice::new(dice.seed())).await.into_iter().flatten().collect();
        commit(observer, Commit::new().put(end(under), "")).await;
        Outcome::Acts(acts)
    };
    let parts = vec![boxed(work), boxed(observe(observer, under, start.at)), boxed(follow(store, under))];
    let (mut acts, mut told, mut followed) = (Vec::new(), Vec::new(), (Vec::new(), 0));
    for outcome in join(parts, Dice::new([0; 32])).await {
        match outcome {
            Outcome::Acts(made) => acts = made,
            Outcome::Told(heard) => told = heard,
            Outcome::Followed(entries, resets) => followed = (entries, resets),
        }
    }
    check(&acts, &told, under, mark(under));
    let last = observer.list(under).await.expect("list").entries;
    let last: Vec<_> = last.into_iter().map(|(key, entry)| (key, entry.value)).collect();
    let end = end(under);
    let until_end =
        |entries: &[(Key, Bytes)]| entries.iter().filter(|(key, _)| *key != end).cloned().collect::<Vec<_>>();
    assert_eq!(until_end(&followed.0), until_end(&last), "the follower");
    tried(&acts, told.len() - 1, followed.1)
}

enum Outcome {
    Acts(Vec<Act>),
    Told(Vec<Told>),
    Followed(Vec<(Key, Bytes)>, usize),
}

fn tried(acts: &[Act], told: usize, resets: usize) -> Tried {
    let mut tried = Tried { resets, ..Tried::default() };
    for act in acts {
        match act.what {
            What::Done(..) => tried.done += 1,
            What::Lost(_) => tried.lost += 1,
            What::NotDone(_) => tried.not_done += 1,
            What::Read(..) | What::List(..) => tried.reads += 1,
        }
    }
    tried.lost_done = told - tried.done;
    tried
}

/// One of those at work.
struct Client<'s> {
    name: u8,
    store: &'s dyn Store,
    under: &'s Prefix,
    clock: &'s AtomicU64,
    dice: Dice,
    at: Revision,
    seen: Vec<(Key, Option<Revision>)>,
}

impl Client<'_> {
    async fn work(mut self, rounds: usize) -> Vec<Act> {
        let mut acts = Vec::new();
        for round in 0..rounds {
            if self.dice.one_in(2) {
                yield_now().await;
            }
            let began = self.clock.fetch_add(1, Ordering::SeqCst);
            let what = match self.dice.below(8) {
                0 => self.list().await,
                1..4 => self.read().await,
                _ => self.commit(round).await,
            };
            let ended = self.clock.fetch_add(1, Ordering::SeqCst);
            acts.extend(what.map(|what| Act { began, ended, what }));
        }
        acts
    }

    async fn list(&mut self) -> Option<What> {
        let prefix = self.prefix();
        let listing = self.store.list(&prefix).await.ok()?;
        self.at = listing.at;
        Some(What::List(prefix, listing))
    }

    async fn read(&mut self) -> Option<What> {
        let keys: Vec<Key> = (0..=self.dice.below(3)).map(|_| self.key()).collect();
        let reading = self.store.read(&keys).await.ok()?;
        self.at = reading.at;
        let revisions = reading.entries.iter().map(|entry| entry.as_ref().map(|entry| entry.revision));
        self.seen = keys.iter().cloned().zip(revisions).collect();
        Some(What::Read(keys, reading))
    }

    async fn commit(&mut self, round: usize) -> Option<What> {
        let mark = format!("{}.{round}", self.name);
        let mut made = Commit::new().put(self.under.key([b'm', self.name]).expect("a key"), mark.clone());
        for (key, revision) in self.seen.drain(..) {
            made = made.compare(Compare::Key { key, revision });
        }
        if self.dice.one_in(6) {
            made = made.compare(Compare::Prefix { prefix: self.prefix(), revision: self.at });
        }
        for _ in 0..self.dice.below(4) {
            let key = self.key();
            made = match self.dice.below(3) {
                _ if made.written().any(|other| *other == key) => made,
                0 => made.delete(key),
                _ => made.put(key, mark.clone()),
            };
        }
        match self.store.commit(made.clone()).await {
            Ok(at) => Some(What::Done(made, at)),
            Err(CommitError::Ambiguous(_)) => Some(What::Lost(made)),
            Err(CommitError::Conflict { compare, found }) => {
                if let Compare::Key { revision, .. } = &compare {
                    assert_ne!(*revision, found, "{compare:?} does not hold, it is said");
                }
                assert!(made.compares.contains(&compare));
                Some(What::NotDone(made))
            }
            Err(CommitError::Failed(_)) => Some(What::NotDone(made)),
            Err(error) => panic!("{made:?}: {error:?}"),
        }
    }

    fn key(&mut self) -> Key {
        let names = ["ka", "ka\0", "kb", "kb\u{7f}", "kc"];
        self.under.key(names[self.dice.below(names.len())]).expect("a key")
    }

    fn prefix(&mut self) -> Prefix {
        let names = ["k", "ka", "kb", ""];
        self.under.join(names[self.dice.below(names.len())]).expect("a prefix")
    }
}

/// The mark of a commit: what it put under the client's own key.
fn mark(under: &Prefix) -> impl Fn(&[KeyChange]) -> Option<Bytes> {
    let marks = under.join("m").expect("a prefix");
    move |changes| changes.iter().find(|change| marks.contains(&change.key)).and_then(|change| change.value.clone())
}

fn end(under: &Prefix) -> Key {
    under.key("z").expect("a key")
}

/// All that is told, up to the end.
async fn observe(observer: &dyn Store, under: &Prefix, from: Revision) -> Outcome {
    let mut watch = observer.watch(under, from).await.expect("watch");
    let mut told = Vec::new();
    loop {
        match watch.next().await.expect("watch") {
            WatchEvent::Changes { revision, changes } => {
                let is_last = changes.iter().any(|change| change.key == end(under));
                told.push((revision, changes));
                if is_last {
                    return Outcome::Told(told);
                }
            }
            WatchEvent::Reset => panic!("the observer was reset: the store's history is too short for this law"),
        }
    }
}

/// What a follower has in the end, and how often it had to begin again.
async fn follow(store: &dyn Store, under: &Prefix) -> Outcome {
    let mut resets = 0;
    loop {
        match followed(store, under).await {
            Ok(Some(entries)) => return Outcome::Followed(entries, resets),
            Ok(None) => resets += 1,
            Err(_) => {}
        }
        yield_now().await;
    }
}

async fn followed(store: &dyn Store, under: &Prefix) -> Result<Option<Vec<(Key, Bytes)>>, StoreError> {
    let listing = store.list(under).await?;
    let entries = listing.entries.into_iter().map(|(key, entry)| (key, entry.value));
    let mut entries: std::collections::BTreeMap<Key, Bytes> = entries.collect();
    let mut watch = store.watch(under, listing.at).await?;
    while !entries.contains_key(&end(under)) {
        match watch.next().await {
            Ok(WatchEvent::Reset) => return Ok(None),
            Err(_) => yield_now().await,
            Ok(WatchEvent::Changes { changes, .. }) => {
                for KeyChange { key, value } in changes {
                    match value {
                        Some(value) => entries.insert(key, value),
                        None => entries.remove(&key),
                    };
                }
            }
        }
    }
    Ok(Some(entries.into_iter().collect()))
}

type Boxed<'f, T> = Pin<Box<dyn Future<Output = T> + 'f>>;

fn boxed<'f, T>(future: impl Future<Output = T> + 'f) -> Boxed<'f, T> {
    Box::pin(future)
}

/// Polls all, each time in an order that `dice` choose, until all have ended.
async fn join<T>(futures: Vec<Boxed<'_, T>>, mut dice: Dice) -> Vec<T> {
    let mut left: Vec<_> = futures.into_iter().enumerate().collect();
    let mut outputs: Vec<Option<T>> = left.iter().map(|_| None).collect();
    poll_fn(|context| {
        for last in (1..left.len()).rev() {
            left.swap(last, dice.below(last + 1));
        }
        left.retain_mut(|(at, future)| match future.as_mut().poll(context) {
            Poll::Ready(output) => {
                outputs[*at] = Some(output);
                false
            }
            Poll::Pending => true,
        });
        if left.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    outputs.into_iter().flatten().collect()
}
