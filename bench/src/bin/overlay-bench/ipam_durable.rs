//! Leases that outlive the process: in one file, and, with feature `etcd`, by two managers on an etcd that this starts.
//!
//! In the file, 64 callers claim one by one; beside it, the same file system flushes one small write after the other.
#![expect(clippy::expect_used, reason = "a benchmark that cannot run ends")]

use std::fs::File;
use std::io::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use overlay_bench::Bench;
use overlay_core::testing::block_on;
use overlay_core::{IpFamily, NetworkId, NodeId, Prefix, Store, UnixTime};
use overlay_ipam::{AddressRequest, Allocator, Config, Ipam, LeaseOwner, SubnetRequest};
use overlay_store::RedbStore;

pub(crate) fn run(bench: &mut Bench<'_>) -> io::Result<()> {
    redb(bench)?;
    #[cfg(feature = "etcd")]
    etcd::run(bench)?;
    Ok(())
}

const CALLERS: usize = 64;
const ROUND: usize = 50;
const NOW: UnixTime = UnixTime::from_millis(1_767_225_600_000);
const NETWORK: NetworkId = NetworkId::from_bytes([7; 16]);

/// Every claim is for another owner.
static OWNERS: AtomicU64 = AtomicU64::new(0);

fn request() -> AddressRequest {
    let number = OWNERS.fetch_add(1, Ordering::Relaxed);
    let owner = LeaseOwner::new(number.to_be_bytes()).expect("8 bytes are an owner");
    AddressRequest::any(owner, IpFamily::V4)
}

fn allocator(store: Arc<dyn Store>, manager: u8) -> Allocator {
    let node = NodeId::from_bytes([manager; 16]);
    Allocator::new(store, &Prefix::ALL, node, Config::default(), [manager; 32]).expect("an empty root is short enough")
}

fn subnets() -> [SubnetRequest; 1] {
    [SubnetRequest::this("10.0.0.0/8".parse().expect("a subnet"))]
}

fn redb(bench: &mut Bench<'_>) -> io::Result<()> {
    // Beside the build, not in a temporary folder: that may be memory.
    let folder = std::env::current_exe()?.with_file_name(format!("overlay-bench-ipam-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let store = RedbStore::open(folder.join("store")).map_err(io::Error::other)?;
    let mut file = File::create(folder.join("flushed"))?;
    let manager = allocator(Arc::new(store), 1);
    block_on(manager.claim_subnets(NETWORK, &subnets(), NOW)).map_err(io::Error::other)?;
    let claim = || {
        for _ in 0..ROUND {
            block_on(manager.claim_one(NETWORK, request(), NOW)).expect("a /8 is large enough");
        }
    };
    let figure = bench.figure("ipam/redb-claims-64", "claims/s").rate(|| {
        thread::scope(|scope| (0..CALLERS).for_each(|_| drop(scope.spawn(claim))));
        (CALLERS * ROUND) as u64
    });
    let reported = figure
        .yardstick_rate("one fdatasync each", || {
            (0..200).map(|_| file.write_all(&[7; 96]).and_then(|()| file.sync_data()).expect("a disk")).count() as u64
        })
        .report();
    std::fs::remove_dir_all(&folder)?;
    reported
}

#[cfg(feature = "etcd")]
mod etcd {
    use std::sync::Mutex;

    use async_trait::async_trait;
    use overlay_core::{Commit, CommitError, Key, Limits, Listing, Reading, Revision, StoreError, Watch};
    use overlay_store::testing::EtcdServer;
    use overlay_store::{EtcdConfig, EtcdSecurity, EtcdStore};
    use tokio::runtime::Runtime;

    use super::*;

    /// Counts what is committed.
    #[derive(Debug)]
    struct Counted {
        inner: EtcdStore,
        counts: Arc<Mutex<Counts>>,
    }

    #[derive(Debug, Default, Clone, Copy)]
    struct Counts {
        commits: u64,
        conflicts: u64,
        bytes: u64,
    }

    #[async_trait]
    impl Store for Counted {
        async fn read(&self, keys: &[Key]) -> Result<Reading, StoreError> {
            self.inner.read(keys).await
        }

        async fn list(&self, prefix: &Prefix) -> Result<Listing, StoreError> {
            self.inner.list(prefix).await
        }

        async fn commit(&self, commit: Commit) -> Result<Revision, CommitError> {
            let bytes = commit.puts.iter().map(|(key, value)| key.as_bytes().len() + value.len()).sum::<usize>();
            let done = self.inner.commit(commit).await;
            let mut counts = self.counts.lock().expect("nobody panics with it");
            counts.commits += 1;
            match &done {
                Ok(_) => counts.bytes += bytes as u64,
                Err(_) => counts.conflicts += 1,
            }
            done
        }

        async fn watch(&self, prefix: &Prefix, from: Revision) -> Result<Box<dyn Watch>, StoreError> {
            self.inner.watch(prefix, from).await
        }

        fn limits(&self) -> Limits {
            self.inner.limits()
        }
    }

    pub(super) fn run(bench: &mut Bench<'_>) -> io::Result<()> {
        let Some(server) = EtcdServer::start("ipam/etcd-claims-2-managers") else { return Ok(()) };
        let runtime = Runtime::new()?;
        let counts = Arc::new(Mutex::new(Counts::default()));
        let open = || {
            let prefix = Prefix::new("bench/").map_err(io::Error::other)?;
            let config = EtcdConfig::new([server.endpoint()], prefix, EtcdSecurity::PlaintextOnLoopback);
            runtime.block_on(EtcdStore::open(config)).map_err(io::Error::other)
        };
        let plain = Arc::new(open()?);
        let counted = |inner| Arc::new(Counted { inner, counts: Arc::clone(&counts) });
        let managers = [allocator(counted(open()?), 1), allocator(counted(open()?), 2)].map(Arc::new);
        for manager in &managers {
            runtime.block_on(manager.claim_subnets(NETWORK, &subnets(), NOW)).map_err(io::Error::other)?;
        }
        *counts.lock().expect("nobody panics with it") = Counts::default();
        let mut claims = 0;
        bench
            .figure("ipam/etcd-claims-2-managers", "claims/s")
            .rate(|| {
                let done = runtime.block_on(claim_at_once(&managers));
                claims += done;
                done
            })
            .yardstick_rate("one put each", || runtime.block_on(put_at_once(&plain)))
            .report()?;
        let Counts { commits, conflicts, bytes } = *counts.lock().expect("nobody panics with it");
        let each = |count: u64| count as f64 / claims as f64;
        bench
            .figure("ipam/etcd-claims-conflicts", "of 100 commits")
            .value(100.0 * conflicts as f64 / commits as f64)
            .report()?;
        bench.figure("ipam/etcd-claims-bytes", "bytes/claim").value(each(bytes)).report()
    }

    async fn claim_at_once(managers: &[Arc<Allocator>; 2]) -> u64 {
        let callers: Vec<_> = (0..CALLERS)
            .map(|number| {
                let manager = Arc::clone(&managers[number % 2]);
                tokio::spawn(async move {
                    for _ in 0..ROUND / 5 {
                        let requests = [request(), request(), request(), request()];
                        manager.claim(NETWORK, &requests, NOW).await.expect("a /8 is large enough");
                    }
                })
            })
            .collect();
        for caller in callers {
            caller.await.expect("it ends");
        }
        (CALLERS * (ROUND / 5) * 4) as u64
    }

    async fn put_at_once(store: &Arc<EtcdStore>) -> u64 {
        let callers: Vec<_> = (0..CALLERS)
            .map(|number| {
                let store = Arc::clone(store);
                tokio::spawn(async move {
                    let key = Key::new(format!("plain/{number}")).expect("it is short");
                    for _ in 0..ROUND / 5 {
                        store.commit(Commit::new().put(key.clone(), vec![7; 64])).await.expect("it answers");
                    }
                })
            })
            .collect();
        for caller in callers {
            caller.await.expect("it ends");
        }
        (CALLERS * (ROUND / 5)) as u64
    }
}
