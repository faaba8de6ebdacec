//! A connection that many calls share, at the client.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use serde::de::IgnoredAny;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout_at};

use super::RemoteError;
use super::call::Call;
use super::dial::{Connection, heard, read_frame};
use super::frame::{Frame, Request, line};
use super::lines::{Lines, write};
use super::tls::Peer;
use super::transport::{Reader, Writer};

/// Why a request has no answer.
#[derive(Debug, Clone)]
pub(super) struct Unanswered {
    pub(super) error: RemoteError,
    /// Whether the server may have done it.
    pub(super) may_be_done: bool,
}

impl Unanswered {
    /// It never left.
    pub(super) const fn unsent(error: RemoteError) -> Self {
        Self { error, may_be_done: false }
    }
}

/// A connection, and who waits for answers on it. When it is dropped, they are told that it is lost.
#[derive(Debug)]
pub(super) struct Link {
    requests: mpsc::Sender<(u64, Vec<u8>)>,
    waiting: Arc<Waiting>,
    limit: usize,
    server: Option<Peer>,
    tasks: [JoinHandle<()>; 2],
}

impl Link {
    pub(super) fn new(connection: Connection) -> Self {
        let Connection { lines, to, welcome, server } = connection;
        let waiting = Arc::new(Waiting(Mutex::new(Ledger { last: 0, open: Some(BTreeMap::new()) })));
        let (requests, outgoing) = mpsc::channel(OUTGOING);
        let tasks = [
            tokio::spawn(listen(lines, Ending(Arc::clone(&waiting)))),
            tokio::spawn(speak(to, outgoing, Ending(Arc::clone(&waiting)))),
        ];
        Self { requests, waiting, limit: welcome.request, server, tasks }
    }

    /// Whether it can be used no more: it has ended, or who serves is not believed any more.
    pub(super) fn is_over(&self) -> bool {
        self.waiting.lock().open.is_none() || self.server.as_ref().is_some_and(|server| server.check().is_err())
    }

    /// Asks, and gives the line that answers.
    pub(super) async fn ask(&self, call: &Call, deadline: Instant, patience: Duration) -> Result<Bytes, Unanswered> {
        let lost = || Unanswered::unsent(RemoteError::Lost);
        let (id, mut answer) = self.waiting.enter().ok_or_else(lost)?;
        let ticket = Ticket { waiting: &self.waiting, id };
        let request = line(&Request { id, call });
        let bytes = request.len().saturating_sub(1);
        if bytes > self.limit {
            return Err(Unanswered::unsent(RemoteError::TooLong { bytes, limit: self.limit }));
        }
        let exchange = async {
            self.requests.send((id, request)).await.map_err(|_| lost())?;
            (&mut answer).await.unwrap_or_else(|_| Err(lost()))
        };
        match timeout_at(deadline, exchange).await {
            Ok(answer) => answer,
            Err(_) => {
                let may_be_done = ticket.tear();
                // It may have come meanwhile.
                let late = Unanswered { error: RemoteError::Late { after: patience }, may_be_done };
                answer.try_recv().unwrap_or(Err(late))
            }
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

type Answer = Result<Bytes, Unanswered>;

/// Who waits for an answer, by the numbers of their requests.
#[derive(Debug)]
struct Waiting(Mutex<Ledger>);

#[derive(Debug)]
struct Ledger {
    last: u64,
    /// `None` once the connection is over.
    open: Option<BTreeMap<u64, Open>>,
}

#[derive(Debug)]
struct Open {
    is_sent: bool,
    to: oneshot::Sender<Answer>,
}

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number for a request, and where its answer will come.
    fn enter(&self) -> Option<(u64, oneshot::Receiver<Answer>)> {
        let (to, answer) = oneshot::channel();
        let mut ledger = self.lock();
        ledger.last += 1;
        let id = ledger.last;
        ledger.open.as_mut()?.insert(id, Open { is_sent: false, to });
        Some((id, answer))
    }

    /// Whether a request is still wanted. From now on, it may be done.
    fn send(&self, id: u64) -> bool {
        let mut ledger = self.lock();
        let open = ledger.open.as_mut().and_then(|open| open.get_mut(&id));
        open.map(|open| open.is_sent = true).is_some()
    }

    fn take(&self, id: u64) -> Option<Open> {
        self.lock().open.as_mut()?.remove(&id)
    }

    /// The connection is over. Unless the server said that it took nothing else, what was sent may be done.
    fn end(&self, error: &RemoteError, was_taken: bool) {
        let open = self.lock().open.take().unwrap_or_default();
        for Open { is_sent, to } in open.into_values() {
            drop(to.send(Err(Unanswered { error: error.clone(), may_be_done: is_sent && was_taken })));
        }
    }
}

/// A request's place in the ledger, left when its caller does not wait any more.
struct Ticket<'w> {
    waiting: &'w Waiting,
    id: u64,
}

impl Ticket<'_> {
    /// Whether it may be done.
    fn tear(&self) -> bool {
        self.waiting.take(self.id).is_none_or(|open| open.is_sent)
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        self.waiting.take(self.id);
    }
}

/// Ends the connection if its task ends, be it with the runtime.
struct Ending(Arc<Waiting>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.end(&RemoteError::Lost, true);
    }
}

/// Hands out answers as they come.
async fn listen(mut lines: Lines<Reader>, ending: Ending) {
    let waiting = &ending.0;
    loop {
        let told = heard(lines.next().await).and_then(|line| Ok((read_frame::<IgnoredAny>(&line)?, line)));
        match told {
            Ok((Frame::Answer { id, .. }, line)) => {
                if let Some(open) = waiting.take(id) {
                    drop(open.to.send(Ok(line)));
                }
            }
            Ok((Frame::Bye, _)) => return waiting.end(&RemoteError::Lost, false),
            Ok((Frame::Refused(refusal), _)) => return waiting.end(&refusal.into(), true),
            Ok((Frame::Beat, _)) => {}
            Ok(_) => return waiting.end(&RemoteError::Garbled { flaw: "it answers nothing".to_owned() }, true),
            Err(error) => return waiting.end(&error, true),
        }
    }
}

/// Sends requests as they come.
async fn speak(mut to: Writer, mut outgoing: mpsc::Receiver<(u64, Vec<u8>)>, ending: Ending) {
    while let Some((id, request)) = outgoing.recv().await {
        if ending.0.send(id) && write(&mut to, &request, PATIENCE).await.is_err() {
            // What the server said before it closed tells more: who listens ends it.
            return sleep(LAST_WORDS).await;
        }
    }
}

/// Requests that wait to be sent.
const OUTGOING: usize = 16;
/// How long the server may take to make room for more of a request.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long it is listened for why nothing more is taken.
const LAST_WORDS: Duration = Duration::from_secs(1);
