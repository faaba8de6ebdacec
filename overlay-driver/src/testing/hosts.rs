//! A lab in which every host runs a node of one cluster.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use overlay_core::{BackendError, MemoryStore, NetworkId, NodeId, Prefix, Store, StoreError, UnixTime};
use overlay_crypto::gossip::GossipKey;
use overlay_crypto::pki::{JoinToken, Role};
use overlay_node::{Control, ControlError, Feed, Manager, Network, NetworkSpec, RootError};

use super::formed::Formed;
use super::{Container, Lab, LabError};
use crate::chance::random;
use crate::control::{CredentialsError, JoinError, ListenError};
use crate::driver::now;
use crate::packets::CarrierConfig;
use crate::{
    Attach, AttachError, Attached, Builder, Driver, Ground, KernelPlaces, Membership, StartError, UserspacePlaces,
};

/// A [`Lab`] with a driver on each host, and a manager on the first, whose catalogue is in memory. Their gossip is sealed with a key by chance.
///
/// ```no_run
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// use overlay_driver::testing::{Hosts, resolve};
///
/// let hosts = Hosts::start(2, "/run/lab").await?;
/// hosts.network("front").await?;
/// let (web, _) = hosts.run(0, "web", "front").await?;
/// hosts.run(1, "db", "front").await?;
/// // … a moment later:
/// assert_eq!(resolve(&web.namespace, "db", std::time::Duration::from_secs(1))?.len(), 1);
/// hosts.tear_down().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Hosts {
    /// The hosts, and the wire between them.
    pub lab: Lab,
    /// The manager.
    pub manager: Arc<Manager>,
    store: Arc<dyn Store>,
    key: GossipKey,
    drivers: Vec<Option<Driver>>,
    carried: Carried,
    /// The places of the drivers that run, where they are in user space.
    in_user_space: BTreeMap<usize, UserspacePlaces>,
    /// How they came together; in this process, where nothing is said.
    formed: Option<Formed>,
}

/// What carries the packets of a lab's hosts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Carried {
    /// This machine's kernel: [`KernelPlaces`].
    #[default]
    InKernel,
    /// A thread of each driver: [`UserspacePlaces`].
    InUserSpace,
    /// So many threads of each driver.
    InQueues(usize),
}

/// What [`Hosts`] could not do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HostsError {
    /// The lab could not.
    #[error(transparent)]
    Lab(#[from] LabError),
    /// A node's places could not be had.
    #[error(transparent)]
    Places(#[from] BackendError),
    /// A driver did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The manager refused.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// A container was not attached.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// A name that is none.
    #[error(transparent)]
    Name(#[from] overlay_core::NameError),
    /// The catalogue's root.
    #[error(transparent)]
    Root(#[from] RootError),
    /// The catalogue's root.
    #[error("the catalogue's root")]
    Key(#[from] overlay_core::KeyError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A node was not let in.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// The control API is not served.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// A certificate is of no use.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// The cluster's authority.
    #[error("{0}")]
    Authority(String),
    /// The hosts have not come together by tokens.
    #[error("host {} has joined no cluster by a token", host + 1)]
    Unformed {
        /// Which.
        host: usize,
    },
    /// The host's driver is not running.
    #[error("host {} has no driver that runs", host + 1)]
    Down {
        /// Which.
        host: usize,
    },
    /// Not all could be removed.
    #[error(transparent)]
    TearDown(#[from] crate::TearDownError),
}

impl Hosts {
    /// So many hosts in a directory that is made if it is not there. They have called one another when this returns, and find one another
    /// then.
    ///
    /// # Errors
    /// Without the privilege to make namespaces, mostly.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn start(hosts: usize, dir: impl Into<PathBuf>) -> Result<Self, HostsError> {
        Self::start_with(hosts, dir, Carried::InKernel).await
    }

    /// The same where packets are carried so.
    ///
    /// # Errors
    /// As it.
    ///
    /// # Panics
    /// As it.
    pub async fn start_with(hosts: usize, dir: impl Into<PathBuf>, carried: Carried) -> Result<Self, HostsError> {
        let mut started = Self::prepare(hosts, dir, carried).await?;
        for host in 0..started.lab.hosts() {
            started.start_host(host).await?;
        }
        Ok(started)
    }

    /// Hosts without drivers, and a manager.
    async fn prepare(hosts: usize, dir: impl Into<PathBuf>, carried: Carried) -> Result<Self, HostsError> {
        let lab = Lab::new(hosts, dir)?;
        let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
        let mut seed = [0; 32];
        random(&mut seed);
        let manager = Arc::new(Manager::new(Arc::clone(&store), &root()?, node(0), seed)?);
        manager.found_cluster(NetworkId::generate(random), now()).await?;
        let drivers = (0..lab.hosts()).map(|_| None).collect();
        let key = GossipKey::generate(random);
        Ok(Self { lab, manager, store, key, drivers, carried, in_user_space: BTreeMap::new(), formed: None })
    }

    /// So many hosts, of which the first has founded a cluster with an authority of its own, serves its control API over mutual TLS at its address, and runs a
    /// driver. The others know nothing of it: they [join](Self::join).
    ///
    /// # Errors
    /// As [`start`](Self::start).
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn found(hosts: usize, dir: impl Into<PathBuf>) -> Result<Self, HostsError> {
        Self::found_with(hosts, dir, Carried::InKernel).await
    }

    /// The same where packets are carried so.
    ///
    /// # Errors
    /// As it.
    ///
    /// # Panics
    /// As it.
    pub async fn found_with(hosts: usize, dir: impl Into<PathBuf>, carried: Carried) -> Result<Self, HostsError> {
        let mut founded = Self::prepare(hosts, dir, carried).await?;
        let formed = Formed::found(&founded.lab, &founded.store, Arc::clone(&founded.manager)).await?;
        founded.key = formed.key.clone();
        founded.formed = Some(formed);
        founded.start_host(0).await?;
        Ok(founded)
    }

    /// Has a host join the cluster that was founded, by a token and from its own namespace, and starts its driver: with a client over TLS as its control, and
    /// gossip's key as it was told.
    ///
    /// # Errors
    /// If it is not let in. Nothing runs there then.
    pub async fn join(&mut self, host: usize, token: &JoinToken) -> Result<(), HostsError> {
        let formed = self.formed.as_mut().ok_or(HostsError::Unformed { host })?;
        formed.join(&self.lab, host, token).await?;
        self.start_host(host).await
    }

    /// The token by which hosts join.
    ///
    /// # Errors
    /// If the cluster was not founded so.
    pub async fn token(&self, role: Role) -> Result<JoinToken, HostsError> {
        self.formed.as_ref().ok_or(HostsError::Unformed { host: 0 })?.token(role).await
    }

    /// The membership of a host that has joined, or founded.
    ///
    /// # Errors
    /// If it has not.
    pub fn membership(&self, host: usize) -> Result<Membership, HostsError> {
        let formed = self.formed.as_ref().and_then(|formed| formed.member(host));
        formed.cloned().ok_or(HostsError::Unformed { host })
    }

    /// Where the cluster that was founded serves its control API.
    pub fn control_address(&self) -> Option<SocketAddr> {
        self.formed.as_ref().map(|formed| formed.address)
    }

    /// Starts the driver of a host, for the first time or again.
    ///
    /// # Errors
    /// If it runs, or does not start.
    pub async fn start_host(&mut self, host: usize) -> Result<(), HostsError> {
        let driver = match self.carried {
            Carried::InKernel => self.start_on(host, self.places(host)?).await?,
            Carried::InUserSpace => self.start_carrying(host, 1).await?,
            Carried::InQueues(queues) => self.start_carrying(host, queues).await?,
        };
        let others: Vec<SocketAddr> = self.drivers.iter().flatten().map(Driver::address).collect();
        let _ = driver.join(others).await; // it has just started
        if let Some(slot) = self.drivers.get_mut(host) {
            *slot = Some(driver);
        }
        Ok(())
    }

    async fn start_carrying(&mut self, host: usize, queues: usize) -> Result<Driver, HostsError> {
        let config = CarrierConfig { queues, ..CarrierConfig::default() };
        let places = UserspacePlaces::with_carrier(&config, self.places(host)?, &self.lab.dir(host))?;
        let driver = self.start_on(host, places.clone()).await?;
        self.in_user_space.insert(host, places);
        Ok(driver)
    }

    async fn start_on(&self, host: usize, places: impl Ground) -> Result<Driver, HostsError> {
        let mut builder = self
            .builder(host, places)?
            .name(format!("host-{}", host + 1).parse()?)
            .gossip((self.lab.address(host), overlay_core::Port::GOSSIP.get()).into())
            .gossip_keys(self.gossip_keys(host)?)
            .dir(self.lab.dir(host));
        if host == 0 {
            builder = builder.manager(Arc::clone(&self.manager));
        }
        if self.formed.is_some() {
            builder = builder.signed(self.membership(host)?.credentials());
        }
        Ok(builder.start().await?)
    }

    /// A driver of a host, whose catalogue is in this process or, of one that has joined, beyond TLS.
    fn builder<G: Ground>(&self, host: usize, places: G) -> Result<Builder<G>, HostsError> {
        if self.formed.is_some() && host > 0 {
            let client = self.membership(host)?.client().clone();
            let feed = client.follow();
            return Ok(Driver::builder(node(host), places, Arc::new(client), feed));
        }
        let control: Arc<dyn Control> = self.manager.clone();
        Ok(Driver::builder(node(host), places, control, Feed::new(Arc::clone(&self.store), &root()?)?))
    }

    /// As the host was told where it has joined.
    fn gossip_keys(&self, host: usize) -> Result<Vec<GossipKey>, HostsError> {
        match &self.formed {
            Some(_) if host > 0 => Ok(self.membership(host)?.ring().borrow().keys.clone()),
            _ => Ok(vec![self.key.clone()]),
        }
    }

    /// Takes the driver of a host, to stop it or to tear it down.
    pub fn take(&mut self, host: usize) -> Option<Driver> {
        self.in_user_space.remove(&host); // by which it would carry on
        self.drivers.get_mut(host)?.take()
    }

    /// The driver of a host.
    ///
    /// # Errors
    /// If none runs.
    pub fn driver(&self, host: usize) -> Result<Driver, HostsError> {
        self.drivers.get(host).cloned().flatten().ok_or(HostsError::Down { host })
    }

    /// The places of a host whose driver runs, where its packets are carried in user space.
    pub fn in_user_space(&self, host: usize) -> Option<&UserspacePlaces> {
        self.in_user_space.get(&host)
    }

    /// What carries the hosts' packets.
    pub const fn carried(&self) -> Carried {
        self.carried
    }

    /// The places of a host in the kernel, as its driver has them where it has those.
    ///
    /// # Errors
    /// As [`KernelPlaces::new`].
    pub fn places(&self, host: usize) -> Result<KernelPlaces, HostsError> {
        let namespace = self.lab.host(host).try_clone()?;
        Ok(KernelPlaces::new("lab".parse()?, node(host), namespace, &self.lab.dir(host))?)
    }

    /// The key that the nodes' gossip is sealed with: for one that a test starts by itself.
    pub fn gossip_key(&self) -> GossipKey {
        self.key.clone()
    }

    /// Where the catalogue is: in this store, below this prefix.
    ///
    /// # Errors
    /// As [`Prefix::new`], for which there is no reason.
    pub fn catalogue(&self) -> Result<(Arc<dyn Store>, Prefix), HostsError> {
        Ok((Arc::clone(&self.store), root()?))
    }

    /// Another manager of the same catalogue, as if on a machine that is no host here.
    ///
    /// # Errors
    /// None in practice: the root is as the first's.
    pub fn another_manager(&self) -> Result<Manager, HostsError> {
        let mut seed = [0; 32];
        random(&mut seed);
        Ok(Manager::new(Arc::clone(&self.store), &root()?, node(self.lab.hosts()), seed)?)
    }

    /// Creates a network that containers can be attached to.
    ///
    /// # Errors
    /// As [`Control::create_network`].
    pub async fn network(&self, name: &str) -> Result<Network, HostsError> {
        let spec = NetworkSpec { attachable: true, ..NetworkSpec::overlay(name.parse()?) };
        Ok(self.manager.create_network(NetworkId::generate(random), spec, now()).await?)
    }

    /// Makes a container on a host, and attaches it to a network.
    ///
    /// # Errors
    /// If there is one of this name, or it cannot be attached.
    pub async fn run(&self, host: usize, name: &str, network: &str) -> Result<(Container, Attached), HostsError> {
        let container = self.lab.container(name)?;
        let attached = self.attach(host, &container, network).await?;
        Ok((container, attached))
    }

    /// Attaches a container to a network.
    ///
    /// # Errors
    /// As [`Driver::attach`].
    pub async fn attach(&self, host: usize, container: &Container, network: &str) -> Result<Attached, HostsError> {
        let attach = Attach::new(container.name.clone(), container.source.clone(), network);
        Ok(self.driver(host)?.attach(attach).await?)
    }

    /// Tears all drivers that run down, and the lab.
    ///
    /// # Errors
    /// What the first says that has something left; the others are torn down all the same.
    pub async fn tear_down(mut self) -> Result<(), HostsError> {
        let mut torn = Ok(());
        for driver in self.drivers.iter_mut().filter_map(Option::take) {
            torn = torn.and(driver.tear_down().await);
        }
        Ok(torn?)
    }
}

/// The id of a host's node.
pub const fn node(host: usize) -> NodeId {
    NodeId::from_bytes([host as u8 + 1; 16])
}

/// The date.
pub fn date() -> UnixTime {
    now()
}

pub(super) fn root() -> Result<Prefix, HostsError> {
    Ok(Prefix::new("lab/")?)
}
