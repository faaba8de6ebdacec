//! Connections of nodes, at the server.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::server::Acceptor;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use super::verifier::{chain, server_config};
use super::{CONTROL, Credentials, CredentialsError, JOIN, Peer};
use crate::control::connection::{self, Who};
use crate::control::frame::{Frame, Refusal, line};
use crate::control::lines::write;
use crate::control::server::{Service, Stopping};
use crate::control::slots::{Full, Slots};
use crate::control::transport::of_tls;

/// What a [`ControlServer`](crate::control::ControlServer) bears from other nodes, beside its [`Limits`](crate::control::Limits).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeLimits {
    /// Connections of nodes at once, those that follow the catalogue among them: 4,096. One more is told so and closed.
    pub connections: usize,
    /// Connections at once of one node: 8. One more is told so and closed.
    pub connections_of_node: usize,
    /// Handshakes at once, and with them connections of those that have no certificate yet: 64. Others wait to be accepted.
    pub handshakes: usize,
    /// Of one address: 16. One more is closed, so that whoever begins many and ends none keeps only itself out.
    pub handshakes_of_address: usize,
    /// How long a handshake may take: 5 s.
    pub handshake: Duration,
    /// How long somebody without a certificate may take to ask for one, and to be answered: 15 s.
    pub join: Duration,
}

impl Default for NodeLimits {
    fn default() -> Self {
        Self {
            connections: 4096,
            connections_of_node: 8,
            handshakes: 64,
            handshakes_of_address: 16,
            handshake: Duration::from_secs(5),
            join: Duration::from_secs(15),
        }
    }
}

/// What connections of nodes are accepted with.
pub(in crate::control) struct Tls {
    credentials: Credentials,
    nodes: Arc<ServerConfig>,
    /// For those that have no certificate yet.
    strangers: Arc<ServerConfig>,
    limits: NodeLimits,
}

impl Tls {
    pub(in crate::control) fn new(credentials: Credentials, limits: NodeLimits) -> Result<Self, CredentialsError> {
        let key = |error: rustls::Error| CredentialsError::Key(error.to_string());
        let nodes = server_config(&credentials, CONTROL).map_err(key)?;
        let strangers = server_config(&credentials, JOIN).map_err(key)?;
        Ok(Self { credentials, nodes, strangers, limits })
    }

    /// Who is at the other end, once it has proved it. The socket is given back where it has not.
    async fn shake_hands(&self, stream: TcpStream) -> Result<(TlsStream<TcpStream>, Who), Option<TcpStream>> {
        let changes = self.credentials.changes();
        stream.set_nodelay(true).map_err(|_| None)?;
        let begun = LazyConfigAcceptor::new(Acceptor::default(), stream).await.map_err(|_| None)?;
        let joins = begun.client_hello().alpn().is_some_and(|mut offered| offered.any(|it| it == JOIN));
        let config = if joins { &self.strangers } else { &self.nodes };
        let stream = begun.into_stream(Arc::clone(config)).into_fallible().await.map_err(|(_, io)| Some(io))?;
        let (_, connection) = stream.get_ref();
        if joins {
            return Ok((stream, Who::Stranger));
        }
        if connection.alpn_protocol() != Some(CONTROL) {
            return Ok((stream, Who::Unspoken));
        }
        let shown = chain(connection.peer_certificates().unwrap_or_default()).map_err(|_| None)?;
        let peer = Peer::new(self.credentials.clone(), shown, changes).ok_or(None)?;
        Ok((stream, Who::Node(Arc::new(peer))))
    }
}

/// Accepts nodes until the server is to stop.
pub(in crate::control) async fn accept(
    listener: TcpListener,
    tls: Arc<Tls>,
    service: Arc<Service>,
    mut stopping: Stopping,
) {
    let limits = &tls.limits;
    let room = Arc::new(Semaphore::new(limits.handshakes.clamp(1, Semaphore::MAX_PERMITS)));
    let slots = Slots::new(limits.connections, limits.connections_of_node);
    let shaking = Shaking::default();
    let mut connections = JoinSet::new();
    loop {
        let place = tokio::select! {
            () = stopping.wait() => break,
            place = Arc::clone(&room).acquire_owned() => place,
        };
        let (Ok(place), accepted) = (
            place,
            tokio::select! {
                () = stopping.wait() => break,
                accepted = listener.accept() => accepted,
            },
        ) else {
            break;
        };
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok((stream, from)) => {
                let Some(hand) = shaking.take(from.ip(), limits.handshakes_of_address) else { continue };
                let (tls, service, slots, stopping) =
                    (Arc::clone(&tls), Arc::clone(&service), Arc::clone(&slots), stopping.clone());
                connections.spawn(async move {
                    if let Some((stream, who)) = begin(stream, &tls).await {
                        if matches!(who, Who::Node(_)) {
                            drop((place, hand));
                            serve(stream, who, &slots, service, stopping).await;
                        } else {
                            let stranger = connection::serve(of_tls(stream), who, service, stopping);
                            drop(timeout(tls.limits.join, stranger).await);
                            drop((place, hand));
                        }
                    }
                });
            }
            // No descriptors or no memory: some will be free again.
            Err(_) => sleep(ACCEPT_AGAIN).await,
        }
    }
    drop(listener);
    let all = async { while connections.join_next().await.is_some() {} };
    drop(timeout(service.limits.grace, all).await);
}

/// A handshake, in the time that there is for it.
async fn begin(stream: TcpStream, tls: &Tls) -> Option<(TlsStream<TcpStream>, Who)> {
    match timeout(tls.limits.handshake, tls.shake_hands(stream)).await.ok()? {
        Ok(begun) => Some(begun),
        Err(refused) => {
            // What it sent meanwhile is read: else its system would throw away the alert that says why.
            if let Some(mut stream) = refused {
                drop(stream.shutdown().await);
                drop(timeout(LAST_WORDS, drain(&mut stream)).await);
            }
            None
        }
    }
}

async fn drain(stream: &mut TcpStream) -> io::Result<()> {
    let mut bytes = [0; 1024];
    for _ in 0..64 {
        if stream.read(&mut bytes).await? == 0 {
            break;
        }
    }
    Ok(())
}

/// Serves a node, if it has a place left.
async fn serve(
    stream: TlsStream<TcpStream>,
    who: Who,
    slots: &Arc<Slots<overlay_core::NodeId>>,
    service: Arc<Service>,
    stopping: Stopping,
) {
    let Who::Node(peer) = &who else { return };
    match slots.take(peer.identity.node) {
        Ok(slot) => {
            connection::serve(of_tls(stream), who, service, stopping).await;
            drop(slot);
        }
        Err(full) => {
            let refusal = match full {
                Full::All(limit) => Refusal::Busy { limit },
                Full::One(limit) => Refusal::NodeBusy { limit },
            };
            let (_, mut to) = of_tls(stream);
            drop(write(&mut to, &line(&Frame::<()>::Refused(refusal)), service.limits.write).await);
        }
    }
}

/// How many handshakes each address has.
#[derive(Debug, Clone, Default)]
struct Shaking(Arc<Mutex<BTreeMap<IpAddr, usize>>>);

/// A handshake of an address, until it is dropped.
struct Hand(Shaking, IpAddr);

impl Shaking {
    fn take(&self, from: IpAddr, most: usize) -> Option<Hand> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = all.entry(from).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        drop(all);
        Some(Hand(self.clone(), from))
    }
}

impl Drop for Hand {
    fn drop(&mut self) {
        let mut all = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = all.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                all.remove(&self.1);
            }
        }
    }
}

/// How long accepting rests after it failed.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);
/// How long a connection is read from whose other end was refused.
const LAST_WORDS: Duration = Duration::from_secs(1);
