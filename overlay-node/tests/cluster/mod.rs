//! What tests of managers share.

#![allow(dead_code, reason = "not every test uses all of it")]

use std::sync::atomic::{AtomicIsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use overlay_core::testing::Dice;
use overlay_core::{
    Commit, CommitError, EndpointId, IpFamily, Key, Limits, Listing, Mac, MemoryStore, NetworkId, NodeId, Port, Prefix,
    Protocol, Reading, Revision, ServiceId, Store, StoreError, UnixTime, Vni, Watch,
};
use overlay_gossip::Role;
use overlay_ipam::SubnetRequest;
use overlay_node::{Manager, NodeSpec, PublishMode, PublishedPort};

pub(crate) const NOW: UnixTime = UnixTime::from_millis(1_767_225_600_000);

pub(crate) fn root() -> Prefix {
    Prefix::new("cluster/").unwrap()
}

pub(crate) fn manager(store: Arc<dyn Store>, number: u8) -> Manager {
    Manager::new(store, &root(), NodeId::from_bytes([number; 16]), [number; 32]).unwrap()
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

pub(crate) fn mac(number: u8) -> Mac {
    Mac::new([0x02, 0, 0, 0, 0, number + 1])
}

pub(crate) fn vni(number: u32) -> Vni {
    Vni::new(number).unwrap()
}

pub(crate) fn port(number: u16) -> Port {
    Port::new(number).unwrap()
}

pub(crate) fn tcp(published: Option<u16>, target: u16, mode: PublishMode) -> PublishedPort {
    let published = published.map(port);
    PublishedPort { published, mode, ..PublishedPort::new(Protocol::Tcp, port(target)) }
}

/// Some subnets: any, a certain one, of both families, or one that is in the way of others.
pub(crate) fn subnets(dice: &mut Dice) -> Vec<SubnetRequest> {
    let this = |text: &str| SubnetRequest::this(text.parse().unwrap());
    match dice.below(4) {
        0 => Vec::new(),
        1 => vec![SubnetRequest::any(IpFamily::V4), this("fd00:7::/64")],
        2 => vec![this("10.7.0.0/24")],
        _ => vec![this("10.7.0.0/16")],
    }
}

/// What becomes of the commit at which a manager dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Last {
    /// It is never done.
    Lost,
    /// It is done.
    Done,
    /// It is done when [`Mortal::arrive`] is called.
    Late,
}

/// A store whose manager dies after so many commits: nothing that it asks for is done any more.
#[derive(Debug, Clone)]
pub(crate) struct Mortal {
    inner: MemoryStore,
    left: Arc<AtomicIsize>,
    last: Last,
    late: Arc<Mutex<Option<Commit>>>,
}

impl Mortal {
    pub(crate) fn new(inner: MemoryStore, commits: usize, last: Last) -> Self {
        Self { inner, left: Arc::new(AtomicIsize::new(commits as isize)), last, late: Arc::default() }
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.left.load(Ordering::SeqCst) < 0
    }

    /// The last commit is done, if it is late and can be done still: whether it was.
    pub(crate) fn arrive(&self) -> bool {
        let late = self.late.lock().unwrap().take();
        late.is_some_and(|commit| self.inner.commit_now(commit).is_ok())
    }

    fn living(&self) -> Result<(), StoreError> {
        match self.is_dead() {
            true => Err(StoreError::Unavailable { doing: "live", source: "it is dead".into() }),
            false => Ok(()),
        }
    }
}

#[async_trait]
impl Store for Mortal {
    async fn read(&self, keys: &[Key]) -> Result<Reading, StoreError> {
        self.living()?;
        self.inner.read(keys).await
    }

    async fn list(&self, prefix: &Prefix) -> Result<Listing, StoreError> {
        self.living()?;
        self.inner.list(prefix).await
    }

    async fn commit(&self, commit: Commit) -> Result<Revision, CommitError> {
        self.living()?;
        if commit.is_empty() {
            return self.inner.commit(commit).await;
        }
        if self.left.fetch_sub(1, Ordering::SeqCst) > 0 {
            return self.inner.commit(commit).await;
        }
        match self.last {
            Last::Lost => {}
            Last::Done => drop(self.inner.commit(commit).await),
            Last::Late => *self.late.lock().unwrap() = Some(commit),
        }
        Err(CommitError::Ambiguous(StoreError::Unavailable { doing: "live", source: "it has died".into() }))
    }

    async fn watch(&self, prefix: &Prefix, from: Revision) -> Result<Box<dyn Watch>, StoreError> {
        self.living()?;
        self.inner.watch(prefix, from).await
    }

    fn limits(&self) -> Limits {
        self.inner.limits()
    }
}
