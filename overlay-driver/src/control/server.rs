//! The server: what it is made of, and whom it lets in.

use std::fmt;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use nix::sys::socket::{MsgFlags, send};
use overlay_core::{Prefix, Store, UnixTime};
use overlay_crypto::pki::Role;
use overlay_node::{Control, Feed, RootError};
use tokio::net::unix::UCred;
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};

use super::connection::Who;
use super::frame::{Frame, Refusal, line};
use super::question::{AnyLocal, Spoken};
use super::slots::{Full, Slot, Slots};
use super::socket::SocketFile;
use super::tls::{self, Tls};
use super::transport::of_unix;
use super::whole::Whole;
use super::{
    Access, BindError, Caller, Cluster, Credentials, Limits, ListenError, Local, NodeLimits, Question, connection,
};
use crate::Driver;

/// Serves a [`Control`] at a Unix socket, for [`ControlClient`](super::ControlClient)s on the same machine: [`Control`] itself, the
/// catalogue to be followed, and questions of the process.
///
/// The `now` of every call is this server's, not the caller's: clocks of one machine do not differ, and records are dated by who keeps
/// them.
///
/// Put the socket where nobody else may write: who can replace its file can serve in its place.
///
/// ```
/// use std::sync::Arc;
///
/// use overlay_core::{MemoryStore, NetworkId, NodeId, Prefix, UnixTime};
/// use overlay_driver::control::{ControlClient, ControlServer, Follow};
/// use overlay_node::{CatalogueChange, Control, Manager, NetworkSpec};
///
/// # let path = std::env::temp_dir().join(format!("overlay-doc-server-{}.sock", std::process::id()));
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// let store = Arc::new(MemoryStore::default());
/// let root = Prefix::new("cluster/")?;
/// let manager = Manager::new(store.clone(), &root, NodeId::from_bytes([1; 16]), [7; 32])?;
/// let serving = ControlServer::new(Arc::new(manager)).with_feed(store, &root)?.bind(&path).await?;
///
/// let client = ControlClient::new(&path); // in another process, usually
/// let id = NetworkId::from_bytes([2; 16]);
/// let front = client.create_network(id, NetworkSpec::overlay("front".parse()?), UnixTime::EPOCH).await?;
/// assert_eq!(client.follow().next().await?, [CatalogueChange::Network(Arc::new(front))]);
///
/// serving.stop().await; // what was asked is answered; the file is gone
/// assert!(!path.exists());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "it serves once it is bound"]
pub struct ControlServer {
    service: Service,
    mode: u32,
    group: Option<u32>,
}

impl ControlServer {
    /// A server of this control, for root and its own user, with a socket that only these may open (mode 0600).
    pub fn new(control: Arc<dyn Control>) -> Self {
        Self::of(Some(control))
    }

    /// A server of a node that has not begun, as its [vault](crate::OpenVault) is locked: it answers questions of its [`Local`], such as brings the unlock key, and refuses all else with
    /// [`RemoteError::Locked`](super::RemoteError::Locked).
    pub fn locked<Q: Question>(local: Arc<dyn Local<Q>>) -> Self {
        Self::of(None).with_local(local)
    }

    fn of(control: Option<Arc<dyn Control>>) -> Self {
        let service = Service {
            control,
            feed: None,
            whole: OnceLock::new(),
            local: None,
            driver: None,
            cluster: None,
            access: Access::default(),
            limits: Limits::default(),
            clock: Arc::new(system_time),
        };
        Self { service, mode: 0o600, group: None }
    }

    /// Lets others follow the catalogue, too, whose manager was made with this root: see [`Feed`].
    ///
    /// # Errors
    /// If the root is longer than 200 bytes.
    pub fn with_feed(mut self, store: Arc<dyn Store>, root: &Prefix) -> Result<Self, RootError> {
        self.service.feed = Some(Mutex::new(Feed::new(store, root)?));
        Ok(self)
    }

    /// Has this one answer [`Question`]s.
    pub fn with_local<Q: Question>(mut self, local: Arc<dyn Local<Q>>) -> Self {
        self.service.local = Some(Arc::new(Spoken::new(local)));
        self
    }

    /// Lets others watch the endpoints of services, as the node of this driver knows them: see [`Driver::watch`].
    pub fn with_driver(mut self, driver: Driver) -> Self {
        self.service.driver = Some(driver);
        self
    }

    /// Lets nodes join, and answers what they ask of the cluster itself. Nodes that are removed are let in no more.
    pub fn with_cluster(mut self, cluster: Cluster) -> Self {
        self.service.cluster = Some(cluster);
        self
    }

    /// Serves these.
    pub fn with_access(mut self, access: Access) -> Self {
        self.service.access = access;
        self
    }

    /// Bears so much.
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.service.limits = limits;
        self
    }

    /// Who may open the socket, as `chmod` has it: 0600 or, for a group, 0660. See [`with_access`](Self::with_access), too: both must
    /// let a caller in.
    pub fn with_mode(mut self, mode: u32) -> Self {
        self.mode = mode;
        self
    }

    /// The socket's group.
    pub fn with_group(mut self, gid: u32) -> Self {
        self.group = Some(gid);
        self
    }

    /// Takes the time of calls from this clock, not from the system's.
    pub fn with_clock(mut self, clock: impl Fn() -> UnixTime + Send + Sync + 'static) -> Self {
        self.service.clock = Arc::new(clock);
        self
    }

    /// Binds the socket, and serves from now on, on the runtime that it is called in. What a dead process left at the path is
    /// replaced.
    ///
    /// # Errors
    /// If a living process serves there, if something else is there, or the system refuses.
    pub async fn bind(self, path: impl AsRef<Path>) -> Result<Serving, BindError> {
        let (file, listener) = SocketFile::bind(path.as_ref(), self.mode, self.group).await?;
        let (stop, stopping) = watch::channel(false);
        let task = tokio::spawn(accept(listener, Arc::new(self.service), Stopping(stopping)));
        Ok(Serving { file: Some(file), address: None, stop, task })
    }

    /// Serves other nodes over mutual TLS at a socket that listens already, from now on, on the runtime that it is called in: each may do what [its
    /// role](super) lets it. Whom to let in, and what to prove itself with, is asked of the credentials at each handshake. The access of processes, mode and group mean nothing here.
    ///
    /// # Errors
    /// If the credentials are a worker's, TLS has no use for them, or the runtime none for the socket.
    pub fn listen(
        self,
        listener: std::net::TcpListener,
        credentials: Credentials,
        limits: NodeLimits,
    ) -> Result<Serving, ListenError> {
        if credentials.identity().role != Role::Manager {
            return Err(ListenError::Worker(credentials.identity()));
        }
        let tls = Tls::new(credentials, limits)?;
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let address = Some(listener.local_addr()?);
        let (stop, stopping) = watch::channel(false);
        let task = tokio::spawn(tls::accept(listener, Arc::new(tls), Arc::new(self.service), Stopping(stopping)));
        Ok(Serving { file: None, address, stop, task })
    }

    /// Serves one connection, until it ends: an end of a pair whose other end a child process has, say. Its caller is who made the
    /// pair.
    ///
    /// # Panics
    /// Outside a tokio runtime that does I/O and time.
    pub async fn serve(self, stream: UnixStream) {
        let service = Arc::new(self.service);
        let (_stop, stopping) = watch::channel(false);
        if let Some((caller, _slot)) = admit(&stream, &service, &Slots::new(1, 1)) {
            connection::serve(of_unix(stream), Who::Process(caller), service, Stopping(stopping)).await;
        }
    }
}

impl fmt::Debug for ControlServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Service { control, access, limits, .. } = &self.service;
        f.debug_struct("ControlServer")
            .field("control", control)
            .field("access", access)
            .field("limits", limits)
            .finish_non_exhaustive()
    }
}

/// A [`ControlServer`] at work. When it is dropped, all ends at once; [`stop`](Self::stop) lets those who wait have their answers first.
#[derive(Debug)]
pub struct Serving {
    file: Option<SocketFile>,
    address: Option<SocketAddr>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Serving {
    /// Where other nodes are served; `None` where processes are.
    pub const fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// Where processes are served; empty where nodes are.
    pub fn path(&self) -> &Path {
        self.file.as_ref().map_or_else(|| Path::new(""), SocketFile::path)
    }

    /// Removes the socket's file, takes no more requests, and waits for those that were taken, for [`Limits::grace`] at most.
    pub async fn stop(mut self) {
        self.file = None;
        self.stop.send_replace(true);
        drop((&mut self.task).await);
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.file = None; // before nobody listens any more: a successor would have to take it for a dead one's
        self.task.abort();
    }
}

/// What is served.
pub(super) struct Service {
    /// None while the node is locked.
    pub(super) control: Option<Arc<dyn Control>>,
    /// Beside which those are that followers have.
    pub(super) feed: Option<Mutex<Feed>>,
    /// What those are told from that are told a part, once there is one.
    pub(super) whole: OnceLock<Whole>,
    pub(super) local: Option<Arc<dyn AnyLocal>>,
    /// Who knows the endpoints of services.
    pub(super) driver: Option<Driver>,
    /// What a manager has of its cluster.
    pub(super) cluster: Option<Cluster>,
    pub(super) access: Access,
    pub(super) limits: Limits,
    pub(super) clock: Arc<dyn Fn() -> UnixTime + Send + Sync>,
}

/// Tells when the server is to stop.
#[derive(Debug, Clone)]
pub(super) struct Stopping(watch::Receiver<bool>);

impl Stopping {
    /// Returns when it is, or when nobody is left who could say so.
    pub(super) async fn wait(&mut self) {
        drop(self.0.wait_for(|stop| *stop).await);
    }
}

async fn accept(listener: UnixListener, service: Arc<Service>, mut stopping: Stopping) {
    let slots = Slots::new(service.limits.connections, service.limits.connections_of_user);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stopping.wait() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    if let Some((caller, slot)) = admit(&stream, &service, &slots) {
                        let served = connection::serve(of_unix(stream), Who::Process(caller), Arc::clone(&service), stopping.clone());
                        connections.spawn(async move {
                            served.await;
                            drop(slot);
                        });
                    }
                }
                // No descriptors or no memory: some will be free again.
                Err(_) => sleep(ACCEPT_AGAIN).await,
            },
        }
    }
    drop(listener);
    let all = async { while connections.join_next().await.is_some() {} };
    drop(timeout(service.limits.grace, all).await);
}

/// Who calls, if it may and there is room for it; else it is told why not.
fn admit(stream: &UnixStream, service: &Service, slots: &Arc<Slots<u32>>) -> Option<(Caller, Slot<u32>)> {
    let caller = stream.peer_cred().map(caller).ok()?;
    let admitted = match service.access.admits(caller) {
        false => Err(Refusal::Denied { uid: caller.uid, gid: caller.gid }),
        true => slots.take(caller.uid).map_err(|full| match full {
            Full::All(limit) => Refusal::Busy { limit },
            Full::One(limit) => Refusal::UserBusy { uid: caller.uid, limit },
        }),
    };
    match admitted {
        Ok(slot) => Some((caller, slot)),
        Err(refusal) => {
            // The runtime does not know yet that a new socket has room for it.
            let told = line(&Frame::<()>::Refused(refusal));
            send(stream.as_raw_fd(), &told, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL).ok();
            None
        }
    }
}

fn caller(credentials: UCred) -> Caller {
    Caller { uid: credentials.uid(), gid: credentials.gid(), pid: credentials.pid() }
}

#[expect(clippy::disallowed_methods, reason = "the driver is where the clock is read")]
fn system_time() -> UnixTime {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    UnixTime::from_millis(since.as_millis().try_into().unwrap_or(u64::MAX))
}

/// How long accepting rests after it failed.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);
