//! What all tasks share: the machine, and where its replies go.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use overlay_core::Instant;
use tokio::net::UdpSocket;
use tokio::sync::{Notify, mpsc, watch};

use super::batch::send_one;
use super::outside::Outside;
use crate::{RecordSource, Reply, Resolver, Transport};

/// The machine behind a lock that is held for a batch, and never across an await.
pub(super) struct Core<S> {
    state: Mutex<State<S>>,
    start: tokio::time::Instant,
    /// Rings when the machine wants to be called earlier than it did.
    earlier: Notify,
    /// Rings when nobody waits any more, once [`State::is_stopping`].
    none_waits: Notify,
}

/// The machine and its surroundings.
pub(super) struct State<S> {
    pub(super) resolver: Resolver<S>,
    sockets: Vec<Arc<UdpSocket>>,
    connections: BTreeMap<u64, mpsc::Sender<Vec<u8>>>,
    last_connection: u64,
    outside: Outside,
    /// For when the clock is set.
    armed: Option<Instant>,
    pub(super) is_stopping: bool,
}

impl<S: RecordSource + Send + 'static> Core<S> {
    pub(super) fn new(resolver: Resolver<S>, sockets: Vec<Arc<UdpSocket>>, outside: Outside) -> Self {
        let state = State {
            resolver,
            sockets,
            connections: BTreeMap::new(),
            last_connection: 0,
            outside,
            armed: None,
            is_stopping: false,
        };
        Self {
            state: Mutex::new(state),
            start: tokio::time::Instant::now(),
            earlier: Notify::new(),
            none_waits: Notify::new(),
        }
    }

    /// Calls the machine, and does what it says then.
    pub(super) fn with<T>(self: &Arc<Self>, call: impl FnOnce(&mut State<S>, Instant) -> T) -> T {
        let now = self.now();
        let mut state = self.lock();
        let result = call(&mut state, now);
        while let Some(reply) = state.resolver.poll_reply() {
            state.deliver(reply);
        }
        while let Some(transmit) = state.resolver.poll_transmit() {
            let (path, to) = (transmit.path, transmit.to);
            if state.outside.send(self, transmit).is_err() {
                state.resolver.handle_failure(path, to, now);
                while let Some(reply) = state.resolver.poll_reply() {
                    state.deliver(reply);
                }
            }
        }
        let next = state.resolver.poll_timeout().map(|(at, _)| at);
        if next != state.armed {
            let is_earlier = next.is_some_and(|next| state.armed.is_none_or(|armed| next < armed));
            if is_earlier {
                state.armed = next;
                self.earlier.notify_one();
            }
        }
        if state.is_stopping && state.resolver.waiting() == 0 {
            self.none_waits.notify_one();
        }
        result
    }

    /// Answers from another source from now on. The old one is dropped when the lock is free again: 10⁵ names take a while.
    pub(super) fn set_source(self: &Arc<Self>, source: S) {
        let old = self.with(|state, _| state.resolver.set_source(source));
        drop(old);
    }

    /// Waits until nobody waits any more.
    pub(super) async fn settled(&self) {
        while self.lock().resolver.waiting() > 0 {
            self.none_waits.notified().await; // it may have rung before somebody came
        }
    }

    fn now(&self) -> Instant {
        Instant::ZERO + self.start.elapsed()
    }
}

impl<S> Core<S> {
    /// Ends what tasks of their own do.
    pub(super) fn close(&self) {
        self.lock().outside.close();
    }

    fn lock(&self) -> MutexGuard<'_, State<S>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S> State<S> {
    /// A number for someone who takes replies by a stream.
    fn connect(&mut self, replies: mpsc::Sender<Vec<u8>>) -> u64 {
        self.last_connection += 1;
        self.connections.insert(self.last_connection, replies);
        self.last_connection
    }

    /// What cannot be delivered at once is lost: by UDP as any datagram; a stream has room for all it may wait for.
    fn deliver(&self, reply: Reply) {
        let Reply { client, message } = reply;
        match client.transport {
            Transport::Udp => {
                let socket = usize::try_from(client.token).ok().and_then(|token| self.sockets.get(token));
                let _ = socket.map(|socket| send_one(socket.as_ref(), &message, client.address));
            }
            Transport::Tcp => {
                let _ = self.connections.get(&client.token).map(|replies| replies.try_send(message));
            }
        }
    }
}

/// A place that replies by a stream go to, for as long as somebody holds it.
pub(super) struct Ticket<S: RecordSource + Send + 'static> {
    core: Arc<Core<S>>,
    pub(super) token: u64,
}

impl<S: RecordSource + Send + 'static> Ticket<S> {
    pub(super) fn new(core: &Arc<Core<S>>, replies: mpsc::Sender<Vec<u8>>) -> Self {
        Self { core: Arc::clone(core), token: core.with(|state, _| state.connect(replies)) }
    }
}

impl<S: RecordSource + Send + 'static> Drop for Ticket<S> {
    fn drop(&mut self) {
        self.core.with(|state, _| state.connections.remove(&self.token));
    }
}

impl<S> fmt::Debug for Core<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core").finish_non_exhaustive()
    }
}

/// Calls the machine when it wants to be called.
pub(super) async fn keep_time<S: RecordSource + Send + 'static>(core: Arc<Core<S>>) {
    loop {
        let next = core.with(|state, now| {
            state.resolver.handle_timeout(now);
            state.armed = state.resolver.poll_timeout().map(|(at, _)| at);
            state.armed.map(|at| at - now)
        });
        let sleep = tokio::time::sleep(next.unwrap_or(NEVER));
        tokio::select! {
            () = sleep => {}
            () = core.earlier.notified() => {}
        }
    }
}

/// Longer than anything waits.
const NEVER: Duration = Duration::from_secs(3600);

/// What a message from outside is handed to.
pub(super) fn hear<S: RecordSource + Send + 'static>(core: &Arc<Core<S>>, path: crate::Path, heard: Heard<'_>) {
    core.with(|state, now| match heard {
        Heard::Message(from, message) => state.resolver.handle_upstream(path, from, message, now),
        Heard::Nothing(from) => state.resolver.handle_failure(path, from, now),
    });
}

/// What came by a path.
#[derive(Debug, Clone, Copy)]
pub(super) enum Heard<'m> {
    Message(SocketAddr, &'m [u8]),
    Nothing(SocketAddr),
}

/// Waits until the server stops, or is gone.
pub(super) async fn stopped(stopping: &mut watch::Receiver<bool>) {
    let _ = stopping.wait_for(|stop| *stop).await;
}

#[cfg(test)]
mod tests {
    use std::sync::{OnceLock, Weak};

    use super::*;
    use crate::server::Here;
    use crate::{Client, Config, Handled, Upstreams, View};

    fn core() -> Arc<Core<View>> {
        over(View::default())
    }

    fn over<S: RecordSource + Send + 'static>(source: S) -> Arc<Core<S>> {
        let mut resolver = Resolver::new(source, Config::default(), [7; 32]).unwrap();
        resolver.set_upstreams(&Upstreams { servers: vec!["127.0.0.1:9".parse().unwrap()], ourselves: Vec::new() });
        Arc::new(Core::new(resolver, Vec::new(), Outside::new(Box::new(Here), 1)))
    }

    /// A source that says, when it is dropped, whether others can be answered meanwhile.
    #[derive(Default)]
    struct Large {
        core: Arc<OnceLock<Weak<Core<Self>>>>,
        lets_others: Arc<OnceLock<bool>>,
    }

    impl RecordSource for Large {
        fn lookup(&self, _: &crate::Question<'_>) -> crate::Lookup<'_> {
            crate::Lookup::NotOurs
        }
    }

    impl Drop for Large {
        fn drop(&mut self) {
            if let Some(core) = self.core.get().and_then(Weak::upgrade) {
                let _ = self.lets_others.set(core.state.try_lock().is_ok());
            }
        }
    }

    #[tokio::test]
    async fn queries_are_answered_while_a_source_that_was_replaced_is_taken_apart() {
        let first = Large::default();
        let (place, lets_others) = (Arc::clone(&first.core), Arc::clone(&first.lets_others));
        let core = over(first);
        assert!(place.set(Arc::downgrade(&core)).is_ok());
        core.set_source(Large::default());
        assert_eq!(lets_others.get(), Some(&true));
    }

    fn ask(core: &Arc<Core<View>>) -> Handled {
        let query = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x07example\x03org\0\0\x01\0\x01";
        let client = Client { address: "10.0.9.3:4711".parse().unwrap(), transport: Transport::Udp, token: 0 };
        core.with(|state, now| state.resolver.handle_query(client, query, &mut Vec::new(), now))
    }

    #[tokio::test]
    async fn a_query_that_comes_while_the_server_is_dropped_leaves_no_task_behind() {
        let core = core();
        core.close();
        assert_eq!(ask(&core), Handled::Waits);
        assert_eq!(Arc::strong_count(&core), 1, "a task that hears a socket holds one");
        assert_eq!(core.lock().resolver.waiting(), 0);
    }

    #[tokio::test]
    async fn a_query_that_comes_while_the_server_stops_is_waited_for() {
        let core = core();
        core.with(|state, _| state.is_stopping = true);
        assert_eq!(ask(&core), Handled::Waits);
        let settled = tokio::time::timeout(Duration::from_millis(10), core.settled());
        assert!(settled.await.is_err(), "one waits still");
        core.with(|state, now| state.resolver.handle_timeout(now + NEVER));
        core.settled().await;
    }
}
