//! One node: a machine, its sockets, and the loop between them. This is all that a driver is.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use overlay_core::{Instant, NetworkId, NodeId};
use overlay_gossip::{Class, Config, Event, Gossip, Member, TableEvent, Transmit};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;

use crate::streams::Streams;
use crate::{Outcome, TABLE};

type Order = Box<dyn FnOnce(&mut Gossip, Instant) + Send>;

/// A running node.
pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) address: SocketAddr,
    orders: UnboundedSender<Order>,
    pulse: Arc<Mutex<Pulse>>,
    task: JoinHandle<()>,
}

/// What can be seen of a node from outside.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Pulse {
    pub(crate) live: usize,
    pub(crate) entries: usize,
    pub(crate) bytes: u64,
}

impl Node {
    pub(crate) async fn start(number: usize, network: NetworkId) -> Outcome<Self> {
        let (udp, tcp) = sockets().await?;
        let address = udp.local_addr()?;
        let id = NodeId::from_bytes([number as u8 + 1; 16]);
        let origin = crate::now();
        let mut gossip = Gossip::new(Config::lan(), Member::new(id, 1, address), [number as u8; 32], Instant::ZERO)?;
        gossip.subscribe(network, Instant::ZERO)?;
        let (orders, ordered) = unbounded_channel();
        let pulse = Arc::new(Mutex::new(Pulse::default()));
        let driver =
            Driver { gossip, udp, network, origin, pulse: Arc::clone(&pulse), ordered, streams: Streams::new(tcp) };
        let task = tokio::spawn(driver.run());
        Ok(Self { id, address, orders, pulse, task })
    }

    /// Has something done to the machine.
    pub(crate) fn tell(&self, order: impl FnOnce(&mut Gossip, Instant) + Send + 'static) {
        let _ = self.orders.send(Box::new(order));
    }

    pub(crate) fn pulse(&self) -> Pulse {
        self.pulse.lock().map(|pulse| *pulse).unwrap_or_default()
    }

    /// Stops it without a goodbye.
    pub(crate) fn stop(self) {
        self.task.abort();
    }
}

/// A UDP and a TCP socket with the same port.
async fn sockets() -> Outcome<(UdpSocket, TcpListener)> {
    for _ in 0..32 {
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        if let Ok(udp) = UdpSocket::bind(tcp.local_addr()?).await {
            return Ok((udp, tcp));
        }
    }
    Err("no port is free for both UDP and TCP".into())
}

struct Driver {
    gossip: Gossip,
    udp: UdpSocket,
    streams: Streams,
    network: NetworkId,
    origin: std::time::Instant,
    ordered: UnboundedReceiver<Order>,
    pulse: Arc<Mutex<Pulse>>,
}

impl Driver {
    async fn run(mut self) {
        let mut datagram = vec![0; 65_536];
        loop {
            self.flush().await;
            let due = self.gossip.poll_timeout().map(|(at, _)| self.origin + (at - Instant::ZERO));
            tokio::select! {
                Ok((len, from)) = self.udp.recv_from(&mut datagram) => self.take(from, Class::Datagram, &datagram[..len]),
                Some((from, message)) = self.streams.receive() => self.take(from, Class::Stream, &message),
                Some(order) = self.ordered.recv() => {
                    let now = self.now();
                    order(&mut self.gossip, now);
                    self.count();
                }
                () = sleep_until(due) => {
                    let now = self.now();
                    self.gossip.handle_timeout(now);
                }
            }
        }
    }

    fn take(&mut self, from: SocketAddr, class: Class, message: &[u8]) {
        let now = self.now();
        let _ = self.gossip.handle(from, class, message, now); // a driver would log what is malformed
    }

    /// Sends all there is to send.
    async fn flush(&mut self) {
        let now = self.now();
        let mut bytes = 0;
        while let Some(Transmit { to, class, payload }) = self.gossip.poll_transmit(now) {
            bytes += payload.len() as u64;
            match class {
                Class::Datagram => {
                    let _ = self.udp.send_to(&payload, to).await; // as good as lost
                }
                Class::Stream => self.streams.send(to, payload),
            }
        }
        let mut more = 0;
        while let Some(event) = self.gossip.poll_event() {
            more += usize::from(matches!(event, Event::Table(TableEvent::Put { .. }))); // no key is put twice here
        }
        if let Ok(mut pulse) = self.pulse.lock() {
            *pulse = Pulse { live: self.gossip.live(), entries: pulse.entries + more, bytes: pulse.bytes + bytes };
        }
    }

    /// Counts the entries: of one's own there are no events.
    fn count(&self) {
        if let Ok(mut pulse) = self.pulse.lock() {
            pulse.entries = self.gossip.entries(self.network, TABLE).count();
        }
    }

    fn now(&self) -> Instant {
        Instant::ZERO + self.origin.elapsed()
    }
}

async fn sleep_until(due: Option<std::time::Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}
