//! The store on etcd.

mod config;
mod error;
mod space;
mod watch;

use std::fmt;
use std::future::Future;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use etcd_client::{
    Client, CompareOp, Error, GetOptions, KeyValue, KvClient, ResponseHeader, SortOrder, SortTarget, Txn, TxnOp,
    TxnOpResponse, TxnResponse, WatchClient,
};
use overlay_core::{
    Commit, CommitError, Compare, Entry, Key, Limits, Listing, Prefix, Reading, Revision, Store, StoreError, Watch,
};
use tokio::runtime::Handle;

pub use config::{EtcdConfig, EtcdError, EtcdSecurity};
use error::{Failure, number, revision};
use space::Space;
use watch::EtcdWatch;

/// A [`Store`] on [etcd](https://etcd.io) 3.4 or later: for several managers.
///
/// A commit is one transaction of etcd, an entry's revision its `mod_revision`. Reads are linearizable. Every request ends within
/// [`EtcdConfig::deadline`]; a commit without an answer by then is [`Ambiguous`](CommitError::Ambiguous). Connections are made
/// again when they break, watches go on where they were; history that etcd has compacted meanwhile is a
/// [`Reset`](overlay_core::WatchEvent::Reset). Revisions count the changes of the whole etcd, so they have gaps.
///
/// It is opened inside a tokio runtime, which does its I/O and must live as long; it is then used under any executor. A commit whose future is
/// dropped may be done all the same.
///
/// ```no_run
/// use overlay_core::{Prefix, Store};
/// use overlay_store::{EtcdConfig, EtcdSecurity, EtcdStore};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let security = EtcdSecurity::Tls {
///     authority: std::fs::read("etcd-ca.pem")?,
///     certificate: std::fs::read("manager.pem")?,
///     key: std::fs::read("manager.key")?,
///     server_name: None,
/// };
/// let servers = ["192.0.2.1:2379", "192.0.2.2:2379", "192.0.2.3:2379"];
/// let store = EtcdStore::open(EtcdConfig::new(servers, Prefix::new("overlay/prod/")?, security)).await?;
/// let nodes = store.list(&Prefix::new("node/")?).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct EtcdStore {
    kv: KvClient,
    watch: WatchClient,
    space: Space,
    deadline: Duration,
    runtime: Handle,
}

impl EtcdStore {
    /// What a commit may have at most: what etcd takes if its own limits (`--max-txn-ops`, `--max-request-bytes`) were not lowered.
    pub const LIMITS: Limits = Limits { operations: 128, value: 1_000_000, commit: 1 << 20 };

    /// Connects, and reads once to see that it may.
    ///
    /// # Errors
    /// What is wrong with the configuration, or why no server answers as it should within the deadline.
    pub async fn open(config: EtcdConfig) -> Result<Self, EtcdError> {
        config.check()?;
        let runtime = Handle::try_current().map_err(|_| EtcdError::NoRuntime)?;
        let client = Client::connect(config.urls(), Some(config.options())).await;
        let client = client.map_err(|error| EtcdError::Tls(format!("{error:?}").into()))?;
        let store = Self {
            kv: client.kv_client().max_decoding_message_size(LARGEST_ANSWER),
            watch: client.watch_client().max_decoding_message_size(LARGEST_ANSWER),
            space: Space::new(config.prefix),
            deadline: config.deadline,
            runtime,
        };
        store.at("open").await.map_err(EtcdError::Unreachable)?;
        Ok(store)
    }

    /// Runs a call on the runtime, so that it can be waited for anywhere.
    async fn call<T: Send + 'static>(
        &self,
        call: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Failure> {
        let deadline = self.deadline;
        let task = self.runtime.spawn(async move { tokio::time::timeout(deadline, call).await });
        match task.await {
            Err(_) => Err(Failure::Ended),
            Ok(Err(_)) => Err(Failure::Late),
            Ok(Ok(answer)) => answer.map_err(Failure::Etcd),
        }
    }

    async fn txn(&self, txn: Txn) -> Result<TxnResponse, Failure> {
        let mut kv = self.kv.clone();
        self.call(async move { kv.txn(txn).await }).await
    }

    /// Where etcd is.
    async fn at(&self, doing: &'static str) -> Result<Revision, StoreError> {
        let (first, end) = self.space.range(&Prefix::ALL);
        let options = GetOptions::new().with_range(end).with_count_only();
        let mut kv = self.kv.clone();
        let answer = self.call(async move { kv.get(first, Some(options)).await }).await;
        answer.and_then(|answer| at(answer.header())).map_err(|failure| failure.reading(doing))
    }

    /// All pages of a listing, at the revision of the first.
    async fn pages(&self, prefix: &Prefix) -> Result<Listing, Failure> {
        let (mut first, end) = self.space.range(prefix);
        let mut listing: Option<Listing> = None;
        loop {
            let mut options = GetOptions::new().with_range(end.clone()).with_limit(PAGE);
            if let Some(listing) = &listing {
                options = options.with_revision(number(listing.at));
            }
            let mut kv = self.kv.clone();
            let from = first.clone();
            let mut answer = self.call(async move { kv.get(from, Some(options)).await }).await?;
            let at = at(answer.header())?;
            let (more, page) = (answer.more(), answer.take_kvs());
            let listing = listing.get_or_insert_with(|| Listing { at, entries: Vec::new() });
            if let Some(last) = page.last() {
                let next = [last.key(), &[0]].concat();
                if next <= first {
                    return Err(Failure::Malformed("keys in order"));
                }
                first = next;
            } else if more {
                return Err(Failure::Malformed("the entries it says there are"));
            }
            listing.entries.extend(page.into_iter().filter_map(|kv| Some((self.space.ours(kv.key())?, entry(kv)))));
            if !more {
                return Ok(Listing { at: listing.at, entries: std::mem::take(&mut listing.entries) });
            }
        }
    }

    fn compare(&self, compare: &Compare) -> etcd_client::Compare {
        match compare {
            Compare::Key { key, revision } => {
                let expected = revision.map_or(0, number); // of an absent key it is 0
                etcd_client::Compare::mod_revision(self.space.key(key), CompareOp::Equal, expected)
            }
            Compare::Prefix { prefix, revision } => {
                let (first, end) = self.space.range(prefix);
                let above = number(*revision).saturating_add(1);
                etcd_client::Compare::mod_revision(first, CompareOp::Less, above).with_range(end)
            }
        }
    }

    /// What is read of a comparison if one does not hold: the latest change.
    fn finding(&self, compare: &Compare) -> TxnOp {
        match compare {
            Compare::Key { key, .. } => TxnOp::get(self.space.key(key), Some(GetOptions::new().with_keys_only())),
            Compare::Prefix { prefix, .. } => {
                let (first, end) = self.space.range(prefix);
                let options = GetOptions::new().with_range(end).with_sort(SortTarget::Mod, SortOrder::Descend);
                TxnOp::get(first, Some(options.with_limit(1).with_keys_only()))
            }
        }
    }
}

#[async_trait]
impl Store for EtcdStore {
    async fn read(&self, keys: &[Key]) -> Result<Reading, StoreError> {
        let doing = "read";
        let mut reading: Option<Reading> = None;
        for keys in keys.chunks(Self::LIMITS.operations) {
            let pinned = reading.as_ref().map(|reading| number(reading.at));
            let options = pinned.map(|at| GetOptions::new().with_revision(at));
            let gets: Vec<TxnOp> = keys.iter().map(|key| TxnOp::get(self.space.key(key), options.clone())).collect();
            let answer = self.txn(Txn::new().and_then(gets)).await.map_err(|failure| failure.reading(doing))?;
            let at = at(answer.header()).map_err(|failure| failure.reading(doing))?;
            let found = answer.op_responses().into_iter().map(first_found);
            let reading = reading.get_or_insert_with(|| Reading { at, entries: Vec::new() });
            reading.entries.extend(found.map(|kv| kv.map(entry)));
        }
        match reading {
            Some(reading) if reading.entries.len() == keys.len() => Ok(reading),
            Some(_) => Err(Failure::Malformed("an entry for each key").reading(doing)),
            None => Ok(Reading { at: self.at(doing).await?, entries: Vec::new() }),
        }
    }

    async fn list(&self, prefix: &Prefix) -> Result<Listing, StoreError> {
        let first = self.pages(prefix).await;
        let again = match first {
            Err(failure) if failure.is_compacted() => self.pages(prefix).await, // between two pages
            other => other,
        };
        again.map_err(|failure| failure.reading("list"))
    }

    async fn commit(&self, commit: Commit) -> Result<Revision, CommitError> {
        commit.check(Self::LIMITS)?;
        let compares: Vec<_> = commit.compares.iter().map(|compare| self.compare(compare)).collect();
        let findings: Vec<_> = commit.compares.iter().map(|compare| self.finding(compare)).collect();
        let changes = !commit.is_empty();
        let puts = commit.puts.into_iter().map(|(key, value)| TxnOp::put(self.space.key(&key), value, None));
        let deletes = commit.deletes.iter().map(|key| TxnOp::delete(self.space.key(key), None));
        let operations: Vec<_> = puts.chain(deletes).collect();
        let fail = |failure: Failure| match changes {
            true => failure.committing(),
            false => CommitError::Failed(failure.reading("commit")),
        };
        let answer = self.txn(Txn::new().when(compares).and_then(operations).or_else(findings)).await.map_err(fail)?;
        if answer.succeeded() {
            return at(answer.header()).map_err(fail);
        }
        let found =
            answer.op_responses().into_iter().map(|found| first_found(found).map(|kv| revision(kv.mod_revision())));
        let broken = commit.compares.into_iter().zip(found).find(|(compare, found)| match compare {
            Compare::Key { revision, .. } => found != revision,
            Compare::Prefix { revision, .. } => *found > Some(*revision),
        });
        let nothing = || Failure::Malformed("what was in the way").reading("commit");
        let (compare, found) = broken.ok_or_else(nothing)?;
        Err(CommitError::Conflict { compare, found })
    }

    async fn watch(&self, prefix: &Prefix, from: Revision) -> Result<Box<dyn Watch>, StoreError> {
        let at = self.at("watch").await?;
        if from > at {
            return Err(StoreError::Ahead { asked: from, at });
        }
        Ok(Box::new(EtcdWatch::begin(self, prefix, from)))
    }

    fn limits(&self) -> Limits {
        Self::LIMITS
    }
}

impl fmt::Debug for EtcdStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdStore")
            .field("space", &self.space)
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}

/// How many entries an answer may have.
const PAGE: i64 = 512;
/// Bytes an answer may have: a page of the largest values. Requests are limited by etcd.
const LARGEST_ANSWER: usize = 600 << 20;

fn at(header: Option<&ResponseHeader>) -> Result<Revision, Failure> {
    header.map(|header| revision(header.revision())).ok_or(Failure::Malformed("a header"))
}

fn first_found(answer: TxnOpResponse) -> Option<KeyValue> {
    match answer {
        TxnOpResponse::Get(mut found) => found.take_kvs().into_iter().next(),
        TxnOpResponse::Put(_) | TxnOpResponse::Delete(_) | TxnOpResponse::Txn(_) => None,
    }
}

fn entry(kv: KeyValue) -> Entry {
    let revision = revision(kv.mod_revision());
    let (_, value) = kv.into_key_value();
    Entry { value: Bytes::from(value), revision }
}
