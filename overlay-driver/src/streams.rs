//! Messages over TCP: a connection to each node that is written to, four bytes of length before each message.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use overlay_crypto::gossip::Keyring;
use overlay_gossip::STREAM_LIMIT;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::OwnedReadHalf;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::counted::counted;
use crate::home::Home;

/// Connections of one node.
#[derive(Debug)]
pub(crate) struct Streams {
    home: Home,
    arrived: Receiver<(SocketAddr, Bytes)>,
    writers: BTreeMap<SocketAddr, Sender<Bytes>>,
    tasks: JoinSet<()>,
}

/// Messages that may wait at one connection; what is more is dropped, as when a connection breaks.
const WAITING: usize = 256;
/// Connections that are read at once. Others wait to be accepted.
const CONNECTIONS: usize = 256;
/// Of one address, or one /64 of IPv6. Further ones are closed: whoever holds many connections open, and says nothing on them, keeps only itself out.
const OF_ADDRESS: usize = 64;
/// How long making a connection, or one message on it, may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a connection stays that nothing comes over.
const IDLE: Duration = Duration::from_secs(60);

impl Streams {
    pub(crate) fn new(listener: TcpListener, home: Home) -> Self {
        let (arrive, arrived) = channel(WAITING);
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, arrive));
        Self { home, arrived, writers: BTreeMap::new(), tasks }
    }

    /// The next message, and from where. May be dropped and called again.
    pub(crate) async fn receive(&mut self) -> Option<(SocketAddr, Bytes)> {
        self.arrived.recv().await
    }

    /// Sends on the connection to `to`, a new one if there is none that works.
    pub(crate) fn send(&mut self, to: SocketAddr, message: Bytes) {
        while self.tasks.try_join_next().is_some() {}
        self.writers.retain(|_, writer| !writer.is_closed());
        let writer = self.writers.entry(to).or_insert_with(|| {
            let (writer, messages) = channel(WAITING);
            self.tasks.spawn(write(self.home.clone(), to, messages));
            writer
        });
        let _ = writer.try_send(message); // as good as lost, which gossip is made for
    }

    /// Ends. The address is free by then.
    pub(crate) async fn end(mut self) {
        self.tasks.shutdown().await;
    }
}

async fn accept(listener: TcpListener, arrive: Sender<(SocketAddr, Bytes)>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let mut readers = JoinSet::new();
    let mut of_address: BTreeMap<IpAddr, usize> = BTreeMap::new();
    loop {
        let Ok(place) = Arc::clone(&room).acquire_owned().await else { return };
        let accepted = listener.accept().await;
        while let Some(ended) = readers.try_join_next() {
            let _ = ended.map(|from| leave(&mut of_address, from));
        }
        match accepted {
            Ok((_, from)) if of_address.get(&counted(from.ip())).is_some_and(|count| *count >= OF_ADDRESS) => {}
            Ok((stream, from)) => {
                *of_address.entry(counted(from.ip())).or_default() += 1;
                let arrive = arrive.clone();
                readers.spawn(async move {
                    read(stream, from, arrive).await;
                    drop(place);
                    counted(from.ip())
                });
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await, // no descriptor is free, say
        }
    }
}

fn leave(of_address: &mut BTreeMap<IpAddr, usize>, from: IpAddr) {
    if let Some(count) = of_address.get_mut(&from) {
        *count -= 1;
        if *count == 0 {
            of_address.remove(&from);
        }
    }
}

/// Reads messages until one is cut, too long or late: the first, for which the other end has connected, as any part of one.
async fn read(mut stream: TcpStream, from: SocketAddr, arrive: Sender<(SocketAddr, Bytes)>) {
    let mut patience = PATIENCE;
    while let Ok(Ok(length)) = timeout(patience, stream.read_u32()).await {
        patience = IDLE;
        let length = length as usize;
        if length > STREAM_LIMIT + Keyring::OVERHEAD {
            return;
        }
        // As much as has come, not as much as is promised.
        let mut message = Vec::new();
        let whole = timeout(PATIENCE, (&mut stream).take(length as u64).read_to_end(&mut message)).await;
        if !matches!(whole, Ok(Ok(read)) if read == length) || arrive.send((from, message.into())).await.is_err() {
            return;
        }
    }
}

async fn write(home: Home, to: SocketAddr, mut messages: Receiver<Bytes>) {
    let Ok(Some(stream)) = timeout(PATIENCE, connect(home, to)).await else { return };
    let (mut reader, mut writer) = stream.into_split();
    let mut ended = pin!(ended(&mut reader));
    loop {
        let message = tokio::select! {
            biased;
            () = &mut ended => return, // what is written now would go nowhere, and be taken for sent
            message = timeout(IDLE, messages.recv()) => message,
        };
        let Ok(Some(message)) = message else { return };
        let mut framed = Vec::with_capacity(message.len() + 4);
        framed.extend((message.len() as u32).to_be_bytes());
        framed.extend(&message);
        if !matches!(timeout(PATIENCE, writer.write_all(&framed)).await, Ok(Ok(()))) {
            return;
        }
    }
}

/// Until the other end is closed, which otherwise says nothing: its node has ended, or will have no more of this.
async fn ended(reader: &mut OwnedReadHalf) {
    let mut buffer = [0; 64];
    while let Ok(1..) = reader.read(&mut buffer).await {}
}

async fn connect(home: Home, to: SocketAddr) -> Option<TcpStream> {
    let socket = tokio::task::spawn_blocking(move || home.stream(to)).await.ok()?.ok()?;
    let socket = TcpSocket::from_std_stream(std::net::TcpStream::from(socket));
    let stream = socket.connect(to).await.ok()?;
    stream.set_nodelay(true).ok()?;
    Some(stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn connect_from(from: [u8; 4], to: SocketAddr) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((from, 0).into()).unwrap();
        socket.connect(to).await.unwrap()
    }

    async fn received(streams: &mut Streams) -> (SocketAddr, Bytes) {
        timeout(Duration::from_secs(30), streams.receive()).await.expect("it is never received").unwrap()
    }

    #[tokio::test]
    async fn who_holds_as_many_connections_as_there_may_be_keeps_nobody_else_out() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = listener.local_addr().unwrap();
        let mut streams = Streams::new(listener, Home::default());
        let mut held = Vec::new();
        for _ in 0..CONNECTIONS {
            let mut stream = connect_from([127, 0, 0, 2], to).await;
            let _ = stream.write_all(&[0, 0, 0, 1, 7]).await; // one that is closed takes it no more
            held.push(stream);
        }
        for _ in 0..OF_ADDRESS {
            assert_eq!(received(&mut streams).await.1, [7][..]);
        }
        let mut other = connect_from([127, 0, 0, 3], to).await;
        other.write_all(&[0, 0, 0, 1, 8]).await.unwrap();
        assert_eq!(received(&mut streams).await.1, [8][..]);

        held.clear();
        let again = async {
            loop {
                let mut stream = connect_from([127, 0, 0, 2], to).await;
                let _ = stream.write_all(&[0, 0, 0, 1, 9]).await;
                let heard = timeout(Duration::from_millis(100), streams.receive()).await;
                if heard.is_ok_and(|heard| heard.is_some_and(|(_, message)| message == [9][..])) {
                    return;
                }
            }
        };
        timeout(Duration::from_secs(30), again).await.expect("its places are never free again");
    }
}
