//! What these tests share.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use async_trait::async_trait;
use overlay_core::{EndpointId, MemoryStore, NetworkId, NodeId, Prefix, ServiceId, Store, UnixTime};
use overlay_driver::control::{Caller, ControlClient, ControlServer, Limits, Local, Question, Serving};
use overlay_gossip::Role;
use overlay_node::{Manager, NetworkSpec, NodeSpec};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

pub(crate) const NOW: UnixTime = UnixTime::from_millis(1_767_225_600_000);

pub(crate) fn root() -> Prefix {
    Prefix::new("cluster/").unwrap()
}

pub(crate) fn manager(store: Arc<dyn Store>) -> Manager {
    Manager::new(store, &root(), NodeId::from_bytes([1; 16]), [1; 32]).unwrap()
}

pub(crate) fn network(number: u8) -> NetworkId {
    NetworkId::from_bytes([0x20, number, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, number])
}

pub(crate) fn service(number: u8) -> ServiceId {
    ServiceId::from_bytes([0x30, number, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, number])
}

pub(crate) fn endpoint(number: u8) -> EndpointId {
    EndpointId::from_bytes([0x40, number, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, number])
}

pub(crate) fn node(number: u8) -> NodeId {
    NodeId::from_bytes([0x50, number, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, number])
}

pub(crate) fn node_spec(name: &str) -> NodeSpec {
    NodeSpec { name: name.parse().unwrap(), role: Role::Worker }
}

pub(crate) fn overlay(name: &str) -> NetworkSpec {
    NetworkSpec { attachable: true, ..NetworkSpec::overlay(name.parse().unwrap()) }
}

/// A directory that goes with the test.
#[derive(Debug)]
pub(crate) struct Directory(PathBuf);

impl Directory {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("overlay-control-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// A cluster whose manager is served.
pub(crate) struct Served {
    pub(crate) store: MemoryStore,
    pub(crate) lever: Arc<Lever>,
    pub(crate) serving: Option<Serving>,
    directory: Directory,
}

impl Served {
    pub(crate) async fn new() -> Self {
        Self::with(|server| server).await
    }

    pub(crate) async fn bearing(limits: Limits) -> Self {
        Self::with(|server| server.with_limits(limits)).await
    }

    pub(crate) async fn with(set_up: impl FnOnce(ControlServer) -> ControlServer) -> Self {
        let mut served =
            Self { store: MemoryStore::default(), lever: Arc::default(), serving: None, directory: Directory::new() };
        served.serving = Some(set_up(served.server()).bind(served.path()).await.unwrap());
        served
    }

    pub(crate) fn server(&self) -> ControlServer {
        let server = ControlServer::new(Arc::new(self.manager())).with_clock(|| NOW).with_local(self.lever.clone());
        server.with_feed(Arc::new(self.store.clone()), &root()).unwrap()
    }

    pub(crate) async fn again(&mut self) {
        self.serving = None;
        self.serving = Some(self.server().bind(self.path()).await.unwrap());
    }

    pub(crate) fn manager(&self) -> Manager {
        manager(Arc::new(self.store.clone()))
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.directory.join("control.sock")
    }

    pub(crate) fn client(&self) -> ControlClient {
        ControlClient::new(self.path())
    }
}

/// A process that is asked for little things.
#[derive(Debug, Default)]
pub(crate) struct Lever {
    pub(crate) asked: AtomicUsize,
    pub(crate) done: AtomicUsize,
    pub(crate) release: Notify,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Pull {
    /// Who asks?
    Who,
    /// So many bytes.
    Bytes(usize),
    /// Wait for the release; then it is done.
    Wait {
        changes: bool,
    },
    Panic,
    Refuse,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Pulled {
    Who { uid: u32, pid: Option<i32> },
    Bytes(String),
    Done,
}

#[derive(Debug, Clone, PartialEq, thiserror::Error, Serialize, Deserialize)]
#[error("the lever is stuck at {at}: oil it")]
pub(crate) struct Stuck {
    pub(crate) at: u32,
}

impl Question for Pull {
    type Answer = Pulled;
    type Refusal = Stuck;

    fn changes(&self) -> bool {
        matches!(self, Self::Wait { changes: true } | Self::Panic)
    }
}

#[async_trait]
impl Local<Pull> for Lever {
    async fn answer(&self, question: Pull, caller: &Caller) -> Result<Pulled, Stuck> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        match question {
            Pull::Who => Ok(Pulled::Who { uid: caller.uid, pid: caller.pid }),
            Pull::Bytes(bytes) => Ok(Pulled::Bytes("x".repeat(bytes))),
            Pull::Wait { .. } => {
                self.release.notified().await;
                self.done.fetch_add(1, Ordering::SeqCst);
                Ok(Pulled::Done)
            }
            Pull::Panic => panic!("as it was asked to"),
            Pull::Refuse => Err(Stuck { at: 7 }),
        }
    }
}

/// Until it is so; for long at most.
pub(crate) async fn until(mut is_so: impl FnMut() -> bool) {
    for _ in 0..2000 {
        if is_so() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    panic!("it is never so");
}

pub(crate) fn exists(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok()
}
