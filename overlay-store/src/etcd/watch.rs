//! Changes as etcd tells them.

use std::mem;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use etcd_client::{Event, EventType, WatchClient, WatchOptions, WatchResponse, WatchStream};
use overlay_core::{KeyChange, Prefix, Revision, StoreError, Watch, WatchEvent};
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::task::AbortHandle;

use super::EtcdStore;
use super::error::{Failure, number, revision};
use super::space::Space;

/// How many events are kept for a reader that is slow; etcd keeps the rest.
const KEPT: usize = 64;
/// How long nothing is tried after a connection was lost.
const PAUSE: Duration = Duration::from_millis(200);

/// The reader's side: a task on the runtime follows etcd.
pub(super) struct EtcdWatch {
    events: Receiver<Result<WatchEvent, StoreError>>,
    task: AbortHandle,
    reset: bool,
}

impl EtcdWatch {
    pub(super) fn begin(store: &EtcdStore, prefix: &Prefix, told: Revision) -> Self {
        let (sender, events) = mpsc::channel(KEPT);
        let range = store.space.range(prefix);
        let (client, space, deadline) = (store.watch.clone(), store.space.clone(), store.deadline);
        let follower = Follower { client, space, range, deadline, told, connected: false, sender };
        let task = store.runtime.spawn(follower.run()).abort_handle();
        Self { events, task, reset: false }
    }
}

#[async_trait]
impl Watch for EtcdWatch {
    async fn next(&mut self) -> Result<WatchEvent, StoreError> {
        if self.reset {
            return Ok(WatchEvent::Reset);
        }
        let event = self.events.recv().await.unwrap_or_else(|| Err(Failure::Ended.reading(DOING)));
        self.reset = matches!(event, Ok(WatchEvent::Reset));
        event
    }
}

impl Drop for EtcdWatch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

const DOING: &str = "watch";

/// Follows etcd, over as many connections as it takes.
struct Follower {
    client: WatchClient,
    space: Space,
    range: (Vec<u8>, Vec<u8>),
    deadline: Duration,
    told: Revision,
    connected: bool, // since a failure was told last
    sender: Sender<Result<WatchEvent, StoreError>>,
}

/// Why a connection is followed no longer.
enum End {
    /// Another may do better.
    Lost(Failure),
    /// Changes are missing.
    Gap,
    /// Nobody listens.
    Unheard,
}

impl Follower {
    async fn run(mut self) {
        loop {
            match self.follow().await {
                End::Unheard => return,
                End::Gap => return drop(self.sender.send(Ok(WatchEvent::Reset)).await),
                End::Lost(_) if mem::take(&mut self.connected) => {} // it may well be found again at once
                End::Lost(failure) => {
                    if self.sender.send(Err(failure.reading(DOING))).await.is_err() {
                        return;
                    }
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn follow(&mut self) -> End {
        let mut stream = match self.connect().await {
            Ok(stream) => stream,
            Err(failure) => return End::Lost(failure),
        };
        loop {
            let answer = match stream.message().await {
                Ok(Some(answer)) => answer,
                Ok(None) => return End::Lost(Failure::Malformed("an end")),
                Err(error) => return End::Lost(Failure::Etcd(error)),
            };
            if let Some(end) = self.take(&answer).await {
                return end;
            }
            self.connected = true; // whom it may not tell anything, etcd says so in an answer
        }
    }

    async fn connect(&mut self) -> Result<WatchStream, Failure> {
        let (first, end) = self.range.clone();
        let from = number(self.told).saturating_add(1);
        let options = WatchOptions::new().with_range(end).with_start_revision(from);
        let watch = self.client.watch(first, Some(options));
        tokio::time::timeout(self.deadline, watch).await.map_err(|_| Failure::Late)?.map_err(Failure::Etcd)
    }

    /// Hands on what an answer tells. All changes of one revision come in one answer.
    async fn take(&mut self, answer: &WatchResponse) -> Option<End> {
        let behind = answer.header().is_some_and(|header| revision(header.revision()) < self.told);
        if answer.compact_revision() > 0 || (answer.created() && behind) {
            return Some(End::Gap); // compacted, or restored from an older copy
        }
        if answer.canceled() {
            return Some(End::Lost(Failure::Cancelled(answer.cancel_reason().to_owned())));
        }
        for event in self.events(answer.events()) {
            let WatchEvent::Changes { revision, .. } = &event else { continue };
            let revision = *revision;
            if revision <= self.told {
                continue;
            }
            if self.sender.send(Ok(event)).await.is_err() {
                return Some(End::Unheard);
            }
            self.told = revision;
        }
        None
    }

    fn events(&self, events: &[Event]) -> Vec<WatchEvent> {
        let changes = events.iter().filter_map(|event| self.change(event));
        let mut told: Vec<(Revision, Vec<KeyChange>)> = Vec::new();
        for (revision, change) in changes {
            match told.last_mut() {
                Some((last, changes)) if *last == revision => changes.push(change),
                _ => told.push((revision, vec![change])),
            }
        }
        let in_order = |(revision, mut changes): (Revision, Vec<KeyChange>)| {
            changes.sort_unstable_by(|a, b| a.key.cmp(&b.key));
            WatchEvent::Changes { revision, changes }
        };
        told.into_iter().map(in_order).collect()
    }

    fn change(&self, event: &Event) -> Option<(Revision, KeyChange)> {
        let kv = event.kv()?;
        let key = self.space.ours(kv.key())?;
        let value = match event.event_type() {
            EventType::Put => Some(Bytes::copy_from_slice(kv.value())),
            EventType::Delete => None,
        };
        Some((revision(kv.mod_revision()), KeyChange { key, value }))
    }
}
