//! The resolver on real sockets (feature `tokio`).

mod batch;
mod core;
mod dial;
mod limits;
mod outside;
mod tcp;
mod udp;

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, io};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

pub use self::dial::{Dial, Here};
pub use self::limits::Limits;

use self::core::{Core, Ticket};
use self::outside::Outside;
use crate::{Client, Handled, Metrics, RecordSource, Resolver, Transport, Upstreams, View};

/// A [`Resolver`] on sockets that are handed in, on tokio.
///
/// A socket stays in the network namespace it was born in, so the server can serve a container without entering its
/// namespace. Any port will do: in a container, port 53 stays free for the container's own use, and `127.0.0.11:53` is redirected
/// to the socket's port. Hand in sockets bound to an address, not to all: a reply leaves by the address that the kernel
/// chooses.
///
/// Zones and upstream servers change while it runs, without a socket being closed. When the value is dropped everything ends
/// at once; [`stop`](Self::stop) lets those who wait have their answers first.
///
/// ```no_run
/// use std::net::{TcpListener, UdpSocket};
/// use overlay_dns::{Config, Here, Limits, Listen, Policy, Resolver, Server, Upstreams, View, Zone};
///
/// # async fn serve() -> Result<(), Box<dyn std::error::Error>> {
/// let view = View::from(Zone::new("customoverlay".parse()?, Policy::default()));
/// let seed = [0; 32]; // in earnest: from the operating system
/// let mut resolver = Resolver::new(view.clone(), Config::default(), seed)?;
/// resolver.set_upstreams(&Upstreams::at([[192, 0, 2, 53].into()]));
///
/// let udp = UdpSocket::bind("127.0.0.11:5353")?;
/// let tcp = TcpListener::bind("127.0.0.11:5353")?;
/// let server = Server::start(Listen { udp: vec![udp], tcp: vec![tcp] }, resolver, Here, Limits::default())?;
/// server.set_source(view); // any time
/// let unanswered = server.stop().await.unanswered;
/// # Ok(())
/// # }
/// ```
pub struct Server<S = View> {
    core: Arc<Core<S>>,
    tasks: JoinSet<()>,
    clock: JoinSet<()>,
    stop: watch::Sender<bool>,
    grace: Duration,
}

/// Sockets to serve.
#[derive(Debug, Default)]
pub struct Listen {
    /// For datagrams.
    pub udp: Vec<UdpSocket>,
    /// For streams.
    pub tcp: Vec<TcpListener>,
}

/// What was left when a server had stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stopped {
    /// Questions that still waited for an upstream server when the time was over.
    pub unanswered: usize,
}

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// A socket could not be given to the runtime: it must be called within one that does I/O and time.
    #[error("the socket at {local:?} cannot be served")]
    Socket {
        /// Where it is bound.
        local: Option<SocketAddr>,
        /// What the system said.
        source: io::Error,
    },
}

impl<S: RecordSource + Send + 'static> Server<S> {
    /// Serves `listen` until it is stopped or dropped. Queries to upstream servers leave by sockets that `dial` opens.
    ///
    /// # Errors
    /// If a socket cannot be served; then none is.
    ///
    /// # Panics
    /// As [`tokio::spawn`], outside a runtime.
    pub fn start(listen: Listen, resolver: Resolver<S>, dial: impl Dial, limits: Limits) -> Result<Self, ServerError> {
        let mut tcp = Vec::new();
        for listener in listen.tcp {
            let local = listener.local_addr().ok();
            let failed = |source| ServerError::Socket { local, source };
            listener.set_nonblocking(true).map_err(failed)?;
            tcp.push(tokio::net::TcpListener::from_std(listener).map_err(failed)?);
        }
        let mut udp = Vec::new();
        for socket in listen.udp {
            let local = socket.local_addr().ok();
            let failed = |source| ServerError::Socket { local, source };
            socket.set_nonblocking(true).map_err(failed)?;
            udp.push(Arc::new(tokio::net::UdpSocket::from_std(socket).map_err(failed)?));
        }
        let (stop, stopping) = watch::channel(false);
        let core =
            Arc::new(Core::new(resolver, udp.clone(), Outside::new(Box::new(dial), limits.upstream_connections)));
        let mut tasks = JoinSet::new();
        for (token, socket) in udp.into_iter().enumerate() {
            tasks.spawn(udp::serve(Arc::clone(&core), socket, token as u64, stopping.clone()));
        }
        for listener in tcp {
            tasks.spawn(tcp::accept(Arc::clone(&core), listener, limits, stopping.clone()));
        }
        let mut clock = JoinSet::new();
        clock.spawn(core::keep_time(Arc::clone(&core)));
        Ok(Self { core, tasks, clock, stop, grace: limits.grace })
    }

    /// Answers from another source, from the next batch of queries on.
    pub fn set_source(&self, source: S) {
        self.core.set_source(source);
    }

    /// Asks other upstream servers from now on.
    pub fn set_upstreams(&self, upstreams: &Upstreams) {
        self.core.with(|state, _| state.resolver.set_upstreams(upstreams));
    }

    /// What was counted so far.
    pub fn metrics(&self) -> Metrics {
        self.core.with(|state, _| state.resolver.metrics())
    }

    /// Answers a query of this process, without a socket: as one that came by TCP from `address`, whose share it counts
    /// for. `None` if it is no query.
    pub async fn ask(&self, address: SocketAddr, query: &[u8]) -> Option<Vec<u8>> {
        let (replies, mut reply) = mpsc::channel(1);
        let ticket = Ticket::new(&self.core, replies);
        let mut out = Vec::new();
        let client = Client { address, transport: Transport::Tcp, token: ticket.token };
        match self.core.with(|state, now| state.resolver.handle_query(client, query, &mut out, now)) {
            Handled::Reply => Some(out),
            Handled::Waits => reply.recv().await,
            Handled::Drop => None,
        }
    }

    /// Takes no more queries, waits until those that wait have their answers or [`Limits::grace`] is over, and closes the
    /// sockets.
    pub async fn stop(mut self) -> Stopped {
        let _ = self.stop.send(true);
        self.core.with(|state, _| state.is_stopping = true);
        let done = async {
            while self.tasks.join_next().await.is_some() {}
            self.core.settled().await;
        };
        let _ = tokio::time::timeout(self.grace, done).await;
        self.tasks.shutdown().await;
        self.clock.shutdown().await;
        Stopped { unanswered: self.core.with(|state, _| state.resolver.waiting()) }
    }
}

impl<S> Drop for Server<S> {
    fn drop(&mut self) {
        self.core.close();
    }
}

impl<S> fmt::Debug for Server<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("tasks", &self.tasks.len()).finish_non_exhaustive()
    }
}
