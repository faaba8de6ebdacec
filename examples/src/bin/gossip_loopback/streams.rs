//! Messages over TCP: a connection to each node that is written to, four bytes of length before each message.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use bytes::Bytes;
use overlay_gossip::STREAM_LIMIT;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{Receiver, Sender, channel};

/// Connections of one node.
pub(crate) struct Streams {
    arrived: Receiver<(SocketAddr, Vec<u8>)>,
    writers: BTreeMap<SocketAddr, Sender<Bytes>>,
}

/// Messages that may wait at one connection; what is more is dropped, as when a connection breaks.
const WAITING: usize = 256;

impl Streams {
    pub(crate) fn new(listener: TcpListener) -> Self {
        let (arrive, arrived) = channel(WAITING);
        tokio::spawn(accept(listener, arrive));
        Self { arrived, writers: BTreeMap::new() }
    }

    pub(crate) async fn receive(&mut self) -> Option<(SocketAddr, Vec<u8>)> {
        self.arrived.recv().await
    }

    /// Sends on the connection to `to`, a new one if there is none that works.
    pub(crate) fn send(&mut self, to: SocketAddr, message: Bytes) {
        let writer = self.writers.entry(to).or_insert_with(|| connect(to));
        if writer.is_closed() {
            *writer = connect(to);
        }
        let _ = writer.try_send(message);
    }
}

async fn accept(listener: TcpListener, arrive: Sender<(SocketAddr, Vec<u8>)>) {
    while let Ok((stream, from)) = listener.accept().await {
        tokio::spawn(read(stream, from, arrive.clone()));
    }
}

async fn read(mut stream: TcpStream, from: SocketAddr, arrive: Sender<(SocketAddr, Vec<u8>)>) {
    while let Ok(len) = stream.read_u32().await {
        let len = len as usize;
        let mut message = vec![0; len.min(STREAM_LIMIT)];
        let whole = len <= STREAM_LIMIT && stream.read_exact(&mut message).await.is_ok();
        if !whole || arrive.send((from, message)).await.is_err() {
            return;
        }
    }
}

fn connect(to: SocketAddr) -> Sender<Bytes> {
    let (sender, messages) = channel(WAITING);
    tokio::spawn(write(to, messages));
    sender
}

async fn write(to: SocketAddr, mut messages: Receiver<Bytes>) {
    let Ok(mut stream) = TcpStream::connect(to).await else { return };
    let _ = stream.set_nodelay(true);
    while let Some(message) = messages.recv().await {
        let length = (message.len() as u32).to_be_bytes();
        if stream.write_all(&length).await.is_err() || stream.write_all(&message).await.is_err() {
            return;
        }
    }
}
