//! Connections of nodes, at the server.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use overlay_crypto::pki::Usage;
use rustls::ServerConfig;
use rustls::server::Acceptor;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use super::verifier::server_config;
use super::{CONTROL, Credentials, CredentialsError, JOIN, Peer};
use crate::control::connection::{self, Who};
use crate::control::frame::{Frame, Refusal, line};
use crate::control::lines::write;
use crate::control::server::{Service, Stopping};
use crate::control::slots::{Full, Slot, Slots};
use crate::control::transport::of_tls;
use crate::counted::counted;

/// What a [`ControlServer`](crate::control::ControlServer) bears from other nodes, beside its [`Limits`](crate::control::Limits).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeLimits {
    /// Connections of nodes at once, those that follow the catalogue among them: 4,096. One more is told so and closed.
    pub connections: usize,
    /// Connections at once of one node: 8. One more is told so and closed.
    pub connections_of_node: usize,
    /// Handshakes at once: 64. Others wait to be accepted.
    pub handshakes: usize,
    /// Of one address, or one /64 of IPv6, which one machine may have: 16. One more is closed, so that whoever begins many and ends none keeps only itself out.
    pub handshakes_of_address: usize,
    /// How long a handshake may take: 5 s.
    pub handshake: Duration,
    /// Connections at once of those that have no certificate: 32, as soon as they say so; they take no place of nodes' handshakes. One more is closed. Each is for one call.
    pub strangers: usize,
    /// Of one address, or one /64 of IPv6: 4. One more is closed.
    pub strangers_of_address: usize,
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
            strangers: 32,
            strangers_of_address: 4,
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
    /// The places of those.
    rooms: Arc<Slots<IpAddr>>,
    limits: NodeLimits,
}

/// Who began a connection, once it has proved who it is, and what is to be given back as it ends.
struct Begun {
    stream: TlsStream<TcpStream>,
    who: Who,
    _stranger: Option<Slot<IpAddr>>,
}

/// Who has not proved it; and the socket, while it may still be told why.
type Unproved = Option<(TcpStream, Taken)>;

/// What a connection takes up for as long as it is there, be it to be told why it was refused.
enum Taken {
    Hand { _place: Place },
    Stranger { _room: Slot<IpAddr> },
}

impl Tls {
    pub(in crate::control) fn new(credentials: Credentials, limits: NodeLimits) -> Result<Self, CredentialsError> {
        let key = |error: rustls::Error| CredentialsError::Key(error.to_string());
        let nodes = server_config(&credentials, CONTROL).map_err(key)?;
        let strangers = server_config(&credentials, JOIN).map_err(key)?;
        let rooms = Slots::new(limits.strangers, limits.strangers_of_address);
        Ok(Self { credentials, nodes, strangers, rooms, limits })
    }

    /// Who is at the other end, once it has proved it. The socket is given back where it has not. A place among handshakes is held until it is known to be a stranger's. Who has proved to be a node
    /// and speaks no protocol has a stranger's room: nothing else counts such connections.
    async fn shake_hands(&self, (stream, from): (TcpStream, IpAddr), place: Place) -> Result<Begun, Unproved> {
        let changes = self.credentials.changes();
        stream.set_nodelay(true).map_err(|_| None)?;
        let begun = LazyConfigAcceptor::new(Acceptor::default(), stream).await.map_err(|_| None)?;
        if begun.client_hello().alpn().is_some_and(|mut offered| offered.any(|it| it == JOIN)) {
            let slot = self.rooms.take(from).map_err(|_| None)?;
            drop(place);
            let stream = begun.into_stream(Arc::clone(&self.strangers)).into_fallible().await;
            return match stream {
                Ok(stream) => Ok(Begun { stream, who: Who::Stranger, _stranger: Some(slot) }),
                Err((_, io)) => Err(Some((io, Taken::Stranger { _room: slot }))),
            };
        }
        let stream = match begun.into_stream(Arc::clone(&self.nodes)).into_fallible().await {
            Ok(stream) => stream,
            Err((_, io)) => return Err(Some((io, Taken::Hand { _place: place }))),
        };
        drop(place);
        let (_, connection) = stream.get_ref();
        if connection.alpn_protocol() != Some(CONTROL) {
            let room = self.rooms.take(from).map_err(|_| None)?;
            return Ok(Begun { stream, who: Who::Unspoken, _stranger: Some(room) });
        }
        let shown = connection.peer_certificates().unwrap_or_default();
        let shown = self.credentials.read(shown).map_err(|_| None)?;
        let peer = Peer::new(self.credentials.clone(), shown, Usage::Client, changes).ok_or(None)?;
        Ok(Begun { stream, who: Who::Node(Arc::new(peer)), _stranger: None })
    }
}

/// What a handshake takes up: a place among all, and one of its address's.
struct Place {
    _all: OwnedSemaphorePermit,
    _address: Slot<IpAddr>,
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
    let shaking = Slots::new(usize::MAX, limits.handshakes_of_address);
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
                let from = counted(from.ip());
                let Ok(hand) = shaking.take(from) else { continue };
                let place = Place { _all: place, _address: hand };
                let (tls, service, slots, stopping) =
                    (Arc::clone(&tls), Arc::clone(&service), Arc::clone(&slots), stopping.clone());
                connections.spawn(async move {
                    let Some(begun) = begin((stream, from), &tls, place).await else { return };
                    let Begun { stream, who, _stranger } = begun;
                    if matches!(who, Who::Node(_)) {
                        serve(stream, who, &slots, service, stopping).await;
                    } else {
                        let stranger = connection::serve(of_tls(stream), who, service, stopping);
                        drop(timeout(tls.limits.join, stranger).await);
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
async fn begin(from: (TcpStream, IpAddr), tls: &Tls, place: Place) -> Option<Begun> {
    match timeout(tls.limits.handshake, tls.shake_hands(from, place)).await.ok()? {
        Ok(begun) => Some(begun),
        Err(refused) => {
            // What it sent meanwhile is read: else its system would throw away the alert that says why.
            if let Some((mut stream, _taken)) = refused {
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

/// How long accepting rests after it failed.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);
/// How long a connection is read from whose other end was refused.
const LAST_WORDS: Duration = Duration::from_secs(1);
