//! `store`: commits in memory, in one file, and, with feature `etcd`, on an etcd that this starts.
//!
//! The file's commits come from 64 callers; beside it, the same file system flushes one small write after the other. etcd's
//! come from two handles with 32 callers each; beside it, as many put without comparing.
#![expect(clippy::expect_used, reason = "a benchmark that cannot run ends")]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::thread;

use bytes::Bytes;
use overlay_bench::Bench;
use overlay_core::testing::block_on;
use overlay_core::{Commit, Key, MemoryStore, Revision, Snapshot, Store, Transaction, Undecided};
use overlay_store::RedbStore;

pub(crate) fn run(bench: &mut Bench<'_>) -> io::Result<()> {
    memory(bench)?;
    redb(bench)?;
    #[cfg(feature = "etcd")]
    etcd::run(bench)?;
    Ok(())
}

/// As many keys as the leases of a large cluster.
const KEYS: usize = 100_000;
const CALLERS: usize = 64;
/// Commits of each caller in a round.
const ROUND: usize = 50;

fn key(n: usize) -> Key {
    Key::new(format!("ipam/lease/{n:016x}")).expect("it is short")
}

fn memory(bench: &mut Bench<'_>) -> io::Result<()> {
    let keys: Vec<Key> = (0..KEYS).map(|n| key(n.wrapping_mul(0x9E37_79B9) % (1 << 40))).collect();
    let value = Bytes::from(vec![7; 64]);
    let store = MemoryStore::default();
    let filled = keys.iter().fold(Commit::new(), |commit, key| commit.put(key.clone(), value.clone()));
    let mut revisions = vec![block_on(store.commit(filled)).expect("nothing is compared"); KEYS];
    let mut map: BTreeMap<Key, (Bytes, Revision)> =
        keys.iter().map(|key| (key.clone(), (value.clone(), Revision(1)))).collect();
    let any = |n: usize| n.wrapping_mul(7919) % KEYS;
    bench
        .figure("store/memory-commit", "ns")
        .each(|n| {
            let at = any(n);
            let commit = Commit::new().unchanged(keys[at].clone(), revisions[at]).put(keys[at].clone(), value.clone());
            revisions[at] = block_on(store.commit(commit)).expect("it is unchanged");
        })
        .yardstick("an insert into a BTreeMap", |n| {
            map.insert(keys[any(n)].clone(), (value.clone(), Revision(n as u64)));
        })
        .report()?;
    bench
        .figure("store/memory-transaction", "ns")
        .each(|n| {
            let key = &keys[any(n)];
            let touch = |snapshot: &Snapshot| -> Result<(Commit, ()), Undecided<()>> {
                snapshot.get(key)?;
                Ok((Commit::new().put(key.clone(), value.clone()), ()))
            };
            block_on(Transaction::on(&store).reading([key.clone()]).run(touch)).expect("nobody else is here");
        })
        .yardstick("an insert into a BTreeMap", |n| {
            map.insert(keys[any(n)].clone(), (value.clone(), Revision(n as u64)));
        })
        .report()
}

fn redb(bench: &mut Bench<'_>) -> io::Result<()> {
    let folder = Folder::new()?;
    let store = RedbStore::open(folder.0.join("store")).map_err(io::Error::other)?;
    let mut file = File::create(folder.0.join("flushed"))?;
    bench
        .figure("store/redb-commits-64", "commits/s")
        .rate(|| at_once(&store))
        .yardstick_rate("one fdatasync each", || {
            (0..200).map(|_| file.write_all(&[7; 96]).and_then(|()| file.sync_data()).expect("a disk")).count() as u64
        })
        .report()
}

/// All callers commit, each to a key of its own that it compares.
fn at_once(store: &(impl Store + Clone)) -> u64 {
    let caller = |n: usize| {
        let key = key(n);
        let mut revision = block_on(store.get(&key)).expect("it answers").map(|entry| entry.revision);
        for _ in 0..ROUND {
            let compare = overlay_core::Compare::Key { key: key.clone(), revision };
            let commit = Commit::new().compare(compare).put(key.clone(), vec![7; 64]);
            revision = Some(block_on(store.commit(commit)).expect("nobody else writes it"));
        }
    };
    thread::scope(|scope| (0..CALLERS).for_each(|n| drop(scope.spawn(move || caller(n)))));
    (CALLERS * ROUND) as u64
}

struct Folder(PathBuf);

impl Folder {
    /// Beside the build, not in a temporary folder: that may be memory.
    fn new() -> io::Result<Self> {
        let path = std::env::current_exe()?.with_file_name(format!("overlay-bench-store-{}", std::process::id()));
        std::fs::create_dir_all(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(feature = "etcd")]
mod etcd {
    use std::sync::Arc;

    use overlay_core::Prefix;
    use overlay_store::testing::EtcdServer;
    use overlay_store::{EtcdConfig, EtcdSecurity, EtcdStore};
    use tokio::runtime::Runtime;

    use super::*;

    pub(super) fn run(bench: &mut Bench<'_>) -> io::Result<()> {
        let Some(server) = EtcdServer::start("store/etcd-commits-2-handles") else { return Ok(()) };
        let runtime = Runtime::new()?;
        let open = || {
            let security = EtcdSecurity::PlaintextOnLoopback;
            let config = EtcdConfig::new([server.endpoint()], Prefix::new("bench/").expect("it is short"), security);
            runtime.block_on(EtcdStore::open(config)).map_err(io::Error::other)
        };
        let handles = Arc::new([open()?, open()?]);
        bench
            .figure("store/etcd-commits-2-handles", "commits/s")
            .rate(|| runtime.block_on(at_once(&handles, true)))
            .yardstick_rate("puts that compare nothing", || runtime.block_on(at_once(&handles, false)))
            .report()
    }

    async fn at_once(handles: &Arc<[EtcdStore; 2]>, compares: bool) -> u64 {
        let callers: Vec<_> = (0..CALLERS)
            .map(|n| {
                let handles = Arc::clone(handles);
                tokio::spawn(async move { caller(&handles[n % 2], n, compares).await })
            })
            .collect();
        for caller in callers {
            caller.await.expect("it ends");
        }
        (CALLERS * ROUND / 5) as u64
    }

    async fn caller(store: &EtcdStore, n: usize, compares: bool) {
        let key = key(n);
        let mut revision = store.get(&key).await.expect("it answers").map(|entry| entry.revision);
        for _ in 0..ROUND / 5 {
            let mut commit = Commit::new().put(key.clone(), vec![7; 64]);
            if compares {
                commit = commit.compare(overlay_core::Compare::Key { key: key.clone(), revision });
            }
            revision = Some(store.commit(commit).await.expect("nobody else writes it"));
        }
    }
}
