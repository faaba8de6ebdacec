//! Traffic with upstream servers.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, UdpSocket};
use tokio::task::{AbortHandle, JoinSet};

use super::batch::send_one;
use super::core::{Core, Heard, hear};
use super::dial::Dial;
use crate::{Path, RecordSource, SocketId, Transmit};

/// Sockets that queries leave by, opened when they are first needed.
pub(super) struct Outside {
    dial: Box<dyn Dial>,
    sockets: BTreeMap<(u16, bool), Open>,
    hears: JoinSet<()>,
    /// One task for each connection.
    streams: JoinSet<()>,
    max_streams: usize,
    /// No socket is opened any more: a task that hears one would hold all of this for ever.
    is_closed: bool,
}

/// An open socket, and the task that hears what comes to it.
struct Open {
    generation: u32,
    socket: Arc<UdpSocket>,
    hears: AbortHandle,
}

/// After so many failures in a row a socket is heard no more.
const FAILURES: u32 = 100;

/// How long a connection may take, whatever the machine has given up by then.
const PATIENCE: Duration = Duration::from_secs(5);

impl Outside {
    pub(super) fn new(dial: Box<dyn Dial>, max_streams: usize) -> Self {
        Self {
            dial,
            sockets: BTreeMap::new(),
            hears: JoinSet::new(),
            streams: JoinSet::new(),
            max_streams,
            is_closed: false,
        }
    }

    /// Sends a message, or begins to.
    ///
    /// # Errors
    /// If this is closed, no socket could be opened, there are as many connections as may be, or the system knows no way to that server.
    pub(super) fn send<S: RecordSource + Send + 'static>(
        &mut self,
        core: &Arc<Core<S>>,
        transmit: Transmit,
    ) -> io::Result<()> {
        if self.is_closed {
            return Err(io::ErrorKind::NotConnected.into());
        }
        while self.hears.try_join_next().is_some() || self.streams.try_join_next().is_some() {}
        match transmit.path {
            Path::Udp(id) => {
                let socket = self.open(core, id, transmit.to)?;
                match send_one(socket, &transmit.message, transmit.to) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()), // lost, as any datagram may be
                    other => other,
                }
            }
            Path::Tcp(_) if self.streams.len() >= self.max_streams => Err(io::ErrorKind::QuotaExceeded.into()),
            Path::Tcp(_) => {
                let fd = self.dial.tcp(transmit.to)?;
                let stream = TcpStream::from(fd);
                stream.set_nonblocking(true)?;
                self.streams.spawn(by_tcp(Arc::clone(core), TcpSocket::from_std_stream(stream), transmit));
                Ok(())
            }
        }
    }

    pub(super) fn close(&mut self) {
        self.is_closed = true;
        self.hears.abort_all();
        self.streams.abort_all();
        self.sockets.clear();
    }

    fn open<S: RecordSource + Send + 'static>(
        &mut self,
        core: &Arc<Core<S>>,
        id: SocketId,
        to: SocketAddr,
    ) -> io::Result<&UdpSocket> {
        let key = (id.number, to.is_ipv6());
        if self.sockets.get(&key).is_none_or(|open| open.generation != id.generation) {
            let socket = self.dial.udp(to)?;
            socket.set_nonblocking(true)?;
            let socket = Arc::new(UdpSocket::from_std(socket)?);
            let hears = self.hears.spawn(hear_all(Arc::clone(core), Arc::clone(&socket), Path::Udp(id)));
            let open = Open { generation: id.generation, socket, hears };
            if let Some(old) = self.sockets.insert(key, open) {
                old.hears.abort();
            }
        }
        let open = self.sockets.get(&key).ok_or(io::ErrorKind::NotFound)?;
        Ok(&open.socket)
    }
}

/// Gives the machine every datagram.
async fn hear_all<S: RecordSource + Send + 'static>(core: Arc<Core<S>>, socket: Arc<UdpSocket>, path: Path) {
    let mut buffer = vec![0; usize::from(u16::MAX)];
    let mut failures = 0;
    while failures < FAILURES {
        match socket.recv_from(&mut buffer).await {
            Ok((length, from)) => {
                failures = 0;
                let message = buffer.get(..length).unwrap_or_default();
                hear(&core, path, Heard::Message(from, message));
            }
            Err(_) => failures += 1, // a server that refused a datagram: others may be heard yet
        }
    }
}

/// One query by a connection of its own.
async fn by_tcp<S: RecordSource + Send + 'static>(core: Arc<Core<S>>, socket: TcpSocket, transmit: Transmit) {
    let (to, path) = (transmit.to, transmit.path);
    match tokio::time::timeout(PATIENCE, exchange(socket, transmit)).await {
        Ok(Ok(message)) => hear(&core, path, Heard::Message(to, &message)),
        _ => hear(&core, path, Heard::Nothing(to)),
    }
}

async fn exchange(socket: TcpSocket, transmit: Transmit) -> io::Result<Vec<u8>> {
    let mut stream = socket.connect(transmit.to).await?;
    let length = u16::try_from(transmit.message.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut framed = length.to_be_bytes().to_vec();
    framed.extend(transmit.message);
    stream.write_all(&framed).await?;
    let length = stream.read_u16().await?;
    let mut message = vec![0; length.into()];
    stream.read_exact(&mut message).await?;
    Ok(message)
}
