//! Streams from clients (RFC 7766).

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, Id, JoinSet};
use tokio::time::{Instant, timeout};

use super::Limits;
use super::core::{Core, Ticket, stopped};
use crate::{Client, Handled, RecordSource, Transport};

/// Takes connections, each served by a task of its own.
pub(super) async fn accept<S: RecordSource + Send + 'static>(
    core: Arc<Core<S>>,
    listener: TcpListener,
    limits: Limits,
    mut stopping: watch::Receiver<bool>,
) {
    let mut connections = JoinSet::new();
    let told = stopping.clone();
    let mut open = BTreeMap::new();
    let mut is_stopping = false;
    loop {
        tokio::select! {
            accepted = listener.accept(), if !is_stopping => match accepted {
                Ok((stream, address)) => {
                    make_room(&mut open, limits.connections);
                    let (active, activity) = watch::channel(Instant::now());
                    let connection = Connection::new(Arc::clone(&core), address, limits, active);
                    let handle = connections.spawn(connection.serve(stream, told.clone()));
                    open.insert(handle.id(), Open { client: address.ip(), activity, handle });
                }
                Err(_) => tokio::time::sleep(PAUSE).await, // out of descriptors, most likely
            },
            Some(ended) = connections.join_next_with_id() => {
                let id = ended.map_or_else(|error| error.id(), |(id, ())| id);
                open.remove(&id);
            }
            () = stopped(&mut stopping), if !is_stopping => is_stopping = true,
            else => return,
        }
    }
}

/// So many bytes of replies are sent before more queries are answered: few bytes can ask for many.
const FULL: usize = 64 << 10;

/// How long no connection is taken after one could not be.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(50);

/// An open connection, as the accepting task knows it.
struct Open {
    client: IpAddr,
    activity: watch::Receiver<Instant>,
    handle: AbortHandle,
}

/// If there are as many as may be, closes one of the client that has most: what has been idle longest. O(connections).
fn make_room(open: &mut BTreeMap<Id, Open>, most: usize) {
    while open.len() >= most.max(1) {
        let mut counts = BTreeMap::new();
        open.values().for_each(|open| *counts.entry(open.client).or_insert(0_usize) += 1);
        let rank = |open: &Open| (Reverse(counts.get(&open.client).copied()), *open.activity.borrow());
        let oldest = open.iter().min_by_key(|(_, open)| rank(open)).map(|(id, _)| *id);
        let Some(closed) = oldest.and_then(|id| open.remove(&id)) else { return };
        closed.handle.abort();
    }
}

/// One client's stream.
struct Connection<S: RecordSource + Send + 'static> {
    core: Arc<Core<S>>,
    ticket: Ticket<S>,
    address: SocketAddr,
    limits: Limits,
    active: watch::Sender<Instant>,
    replies: mpsc::Receiver<Vec<u8>>,
    /// Queries that wait for upstream servers.
    waiting: usize,
}

impl<S: RecordSource + Send + 'static> Connection<S> {
    fn new(core: Arc<Core<S>>, address: SocketAddr, limits: Limits, active: watch::Sender<Instant>) -> Self {
        let (sender, replies) = mpsc::channel(limits.pipelined.max(1));
        let ticket = Ticket::new(&core, sender);
        Self { core, ticket, address, limits, active, replies, waiting: 0 }
    }

    /// Serves until the client closes, is idle for too long, sends what is no message, or takes no replies. Who closes only
    /// the sending side still gets what waits.
    async fn serve(mut self, mut stream: TcpStream, mut stopping: watch::Receiver<bool>) {
        let mut received = Vec::with_capacity(4096);
        let mut is_over = *stopping.borrow();
        let mut deadline = Instant::now() + self.limits.idle;
        loop {
            let may_read = !is_over && self.waiting < self.limits.pipelined.max(1);
            if is_over && self.waiting == 0 {
                return;
            }
            let mut out = Vec::new();
            tokio::select! {
                read = stream.read_buf(&mut received), if may_read => match read {
                    Ok(0) => is_over = true,
                    Ok(_) => {}
                    Err(_) => return,
                },
                Some(reply) = self.replies.recv() => {
                    self.waiting = self.waiting.saturating_sub(1);
                    frame(&reply, &mut out);
                }
                () = tokio::time::sleep_until(deadline), if self.waiting == 0 => return,
                () = stopped(&mut stopping), if !is_over => is_over = true,
            }
            while let Some(taken) = self.answer(&mut received, &mut out) {
                if !taken && out.is_empty() {
                    break;
                }
                deadline = Instant::now() + self.limits.idle;
                self.active.send_replace(Instant::now());
                if !matches!(timeout(self.limits.idle, stream.write_all(&out)).await, Ok(Ok(()))) {
                    return;
                }
                out.clear();
            }
            if received.starts_with(&[0, 0]) {
                return; // a message without bytes: nothing behind it can be trusted to be one
            }
        }
    }

    /// Answers the whole messages among what was received, as far as queries may wait and `out` is not full, and takes
    /// them out. Whether there were any; `None` if what comes next is no message.
    fn answer(&mut self, received: &mut Vec<u8>, out: &mut Vec<u8>) -> Option<bool> {
        let client = Client { address: self.address, transport: Transport::Tcp, token: self.ticket.token };
        let (mut at, mut reply) = (0, Vec::new());
        while self.waiting < self.limits.pipelined.max(1) && out.len() < FULL {
            let Some((length, rest)) = received.get(at..).and_then(|rest| rest.split_first_chunk()) else { break };
            let length = usize::from(u16::from_be_bytes(*length));
            if length == 0 {
                received.drain(..at);
                return (at > 0).then_some(true);
            }
            let Some(query) = rest.get(..length) else { break };
            match self.core.with(|state, now| state.resolver.handle_query(client, query, &mut reply, now)) {
                Handled::Reply => frame(&reply, out),
                Handled::Waits => self.waiting += 1,
                Handled::Drop => {}
            }
            at += 2 + length;
        }
        received.drain(..at);
        Some(at > 0)
    }
}

/// A message after its length.
fn frame(message: &[u8], out: &mut Vec<u8>) {
    let length = u16::try_from(message.len()).unwrap_or_default();
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(message.get(..usize::from(length)).unwrap_or_default());
}
