//! One connection, at the server.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use overlay_core::NodeId;
use overlay_crypto::pki::Role;
use overlay_node::Control;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::Instrument as _;

use super::allow::Open;
use super::call::{Call, QUESTIONS, Reply};
use super::frame::{
    Asked, Fault, Frame, Hello, Numbered, Purpose, Refusal, Spoken, VERSION, Wanted, Welcome, Wish, line,
};
use super::lines::{LineError, Lines, write};
use super::reading::Reading;
use super::server::{Service, Stopping};
use super::tls::Peer;
use super::transport::{Reader, Stream, Writer};
use super::{Caller, allow, feeder, watcher};
use crate::spans;

/// Who is at the other end.
#[derive(Debug, Clone)]
pub(super) enum Who {
    /// A process on this machine.
    Process(Caller),
    /// A node, by its certificate.
    Node(Arc<Peer>),
    /// Somebody without a certificate, who asks for one.
    Stranger,
    /// Somebody with whom no protocol was agreed upon.
    Unspoken,
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process(caller) => write!(f, "user {}", caller.uid),
            Self::Node(peer) => write!(f, "node {}", peer.identity.node),
            Self::Stranger | Self::Unspoken => f.write_str("stranger"),
        }
    }
}

impl Who {
    /// Whether somebody may have a connection for that, and go on having it.
    pub(super) fn admit(&self, purpose: &Purpose) -> Result<(), Refusal> {
        match (self, purpose) {
            (Self::Process(_), _) | (Self::Stranger, Purpose::Call) => Ok(()),
            (Self::Stranger, _) => Err(Refusal::OnlyManagers { what: purpose.open().0.to_owned() }),
            (Self::Unspoken, _) => Err(Refusal::Protocol {}),
            (Self::Node(peer), _) => {
                let caller = peer.check().map_err(|error| Refusal::Untrusted { why: error.to_string() })?;
                let (what, open) = purpose.open();
                match open == Open::Managers && caller.role == Role::Worker {
                    true => Err(Refusal::OnlyManagers { what: what.to_owned() }),
                    false => Ok(()),
                }
            }
        }
    }
}

impl Who {
    /// As [`admit`](Self::admit), of a connection that stands: by the node's record, too, as a certificate of before may say more than it is.
    pub(super) async fn admit_still(&self, purpose: &Purpose, service: &Service) -> Result<(), Refusal> {
        self.admit(purpose)?;
        let (what, open) = purpose.open();
        match (self, &service.cluster) {
            (Self::Node(peer), Some(cluster))
                if open == Open::Managers && cluster.was_demoted(peer, (service.clock)()).await =>
            {
                Err(Refusal::OnlyManagers { what: what.to_owned() })
            }
            _ => Ok(()),
        }
    }

    /// The node, if it is told what it needs of the catalogue and no more: if it is no manager, by its certificate and by its record.
    pub(super) async fn needs_a_part(&self, service: &Service) -> Option<NodeId> {
        match (self, &service.cluster) {
            (Self::Node(peer), _) if peer.identity.role != Role::Manager => Some(peer.identity.node),
            (Self::Node(peer), Some(cluster)) if cluster.was_demoted(peer, (service.clock)()).await => {
                Some(peer.identity.node)
            }
            _ => None,
        }
    }
}

/// Serves whoever is at the other end, until either wants no more.
pub(super) async fn serve((read, mut write_half): Stream, who: Who, service: Arc<Service>, mut stopping: Stopping) {
    let mut lines = Lines::new(read, service.limits.request);
    let first = tokio::select! {
        () = stopping.wait() => return,
        first = timeout(service.limits.hello, lines.next()) => first,
    };
    let limits = &service.limits;
    let purpose = match first {
        Ok(Ok(Some(first))) => match hello(&first) {
            Ok(purpose) => who.admit_still(&purpose, &service).await.map(|()| purpose),
            refused => refused,
        },
        Ok(Err(LineError::TooLong { limit })) => Err(Refusal::TooLong { limit }),
        _ => return, // it ended, or said nothing
    };
    let greeting = match purpose.clone() {
        Ok(_) => {
            let beat_millis = limits.beat.as_millis().try_into().unwrap_or(u64::MAX);
            Frame::<()>::Welcome(Welcome { version: VERSION, request: limits.request, beat_millis })
        }
        Err(refusal) => Frame::Refused(refusal),
    };
    if write(&mut write_half, &line(&greeting), limits.write).await.is_err() {
        return;
    }
    match purpose {
        Ok(Purpose::Call) => calls(lines, write_half, who, service, stopping).await,
        Ok(Purpose::Follow) => feeder::feed((lines, write_half), &who, Wish::default(), (&service, stopping)).await,
        Ok(Purpose::FollowAfter(at)) => {
            let wish = Wish { after: Some(at), ..Wish::default() };
            feeder::feed((lines, write_half), &who, wish, (&service, stopping)).await;
        }
        Ok(Purpose::FollowWith(wish)) => feeder::feed((lines, write_half), &who, wish, (&service, stopping)).await,
        Ok(Purpose::Watch(of)) => watcher::watch(of, (lines, write_half), &who, (&service, stopping)).await,
        Err(_) => {}
    }
}

/// What the first line says.
fn hello(first: &[u8]) -> Result<Purpose, Refusal> {
    let malformed = |error: serde_json::Error| Refusal::Malformed { flaw: error.to_string() };
    let Hello { hello: Spoken { version } } = serde_json::from_slice(first).map_err(malformed)?;
    if version != VERSION {
        return Err(Refusal::Version { client: version, server: VERSION });
    }
    let Hello { hello: Wanted { purpose, .. } } = serde_json::from_slice(first).map_err(malformed)?;
    Ok(purpose)
}

async fn calls(lines: Lines<Reader>, mut to: Writer, who: Who, service: Arc<Service>, stopping: Stopping) {
    let patience = service.limits.write;
    let most = service.limits.in_flight.clamp(1, Semaphore::MAX_PERMITS - 1);
    // There is always room: whoever puts in something holds one of the permits until it is written; and one for the last word.
    let (out, answers) = mpsc::channel(most.saturating_add(1));
    let calls = Calls { lines, out, room: Arc::new(Semaphore::new(most)), most, at_work: JoinSet::new(), who, service };
    tokio::join!(calls.serve(stopping), async move { drop(deliver(&mut to, answers, patience).await) });
}

/// A line that goes out, and the permit of its request.
struct Out {
    line: Vec<u8>,
    permit: Option<OwnedSemaphorePermit>,
}

/// Writes what is to go out, until nothing comes any more. If the other end makes no room, it ends, and with it the connection.
async fn deliver(to: &mut Writer, mut answers: mpsc::Receiver<Out>, patience: Duration) -> io::Result<()> {
    while let Some(Out { line, permit }) = answers.recv().await {
        write(to, &line, patience).await?;
        drop(permit);
    }
    Ok(())
}

/// The requests of a connection.
struct Calls {
    lines: Lines<Reader>,
    out: mpsc::Sender<Out>,
    room: Arc<Semaphore>,
    most: usize,
    at_work: JoinSet<()>,
    who: Who,
    service: Arc<Service>,
}

impl Calls {
    /// Takes requests as long as there are any; then those taken are done, whether or not somebody is there to hear of it.
    async fn serve(mut self, stopping: Stopping) {
        let last = self.take_all(stopping).await;
        let mut is_sound = true;
        while let Some(done) = self.at_work.join_next().await {
            is_sound &= done.is_ok();
        }
        // What a panic took away has no answer, so nobody may believe that it was never taken.
        if let Some(last) = last.filter(|_| is_sound) {
            drop(self.out.send(Out { line: line(&last), permit: None }).await);
        }
    }

    /// Gives the last word, if the other end may still hear it.
    async fn take_all(&mut self, mut stopping: Stopping) -> Option<Frame<()>> {
        loop {
            let permit = tokio::select! {
                () = stopping.wait() => return Some(Frame::Bye),
                () = self.out.closed() => return None,
                permit = Arc::clone(&self.room).acquire_owned() => permit.ok()?,
            };
            let line = tokio::select! {
                () = stopping.wait() => return Some(Frame::Bye),
                () = self.out.closed() => return None,
                // What a panic took away is told by the end of the connection.
                Some(done) = self.at_work.join_next() => match done {
                    Ok(()) => continue,
                    Err(_) => return None,
                },
                line = timeout(self.service.limits.idle, self.lines.next()) => line,
            };
            match line {
                Ok(Ok(Some(line))) => {
                    if let Err(refusal) = self.begin(line, permit) {
                        return Some(Frame::Refused(refusal));
                    }
                    if matches!(self.who, Who::Stranger) {
                        return Some(Frame::Bye); // whoever has something else to ask may wait for a place like others
                    }
                }
                Ok(Ok(None) | Err(LineError::Io(_))) => return None,
                Ok(Err(LineError::TooLong { limit })) => return Some(Frame::Refused(Refusal::TooLong { limit })),
                Err(_) if self.room.available_permits() + 1 == self.most => return Some(Frame::Bye),
                Err(_) => {}
            }
        }
    }

    /// Begins what is asked.
    fn begin(&mut self, line: Bytes, permit: OwnedSemaphorePermit) -> Result<(), Refusal> {
        let malformed = |error: serde_json::Error| error.to_string();
        let asked = match serde_json::from_slice::<Asked>(&line) {
            Ok(asked) => Ok(asked),
            Err(error) => match serde_json::from_slice(&line) {
                Ok(Numbered { id }) => Err((id, malformed(error))),
                Err(error) => return Err(Refusal::Malformed { flaw: malformed(error) }),
            },
        };
        drop(line);
        self.who.admit(&Purpose::Call)?;
        let (out, service, who) = (self.out.clone(), Arc::clone(&self.service), self.who.clone());
        self.at_work.spawn(async move {
            let limit = service.limits.answer;
            let line = match asked {
                Ok(Asked { id, call }) => {
                    let span = spans::call(call.open().0, &who);
                    perform(call, Reply { id, limit }, &service, &who).instrument(span).await
                }
                Err((id, flaw)) => Reply { id, limit }.fault(Fault::Malformed { flaw }),
            };
            drop(out.send(Out { line, permit: Some(permit) }).await);
        });
        Ok(())
    }
}

/// Does what is asked, in the time there is for it.
async fn perform(call: Call, reply: Reply, service: &Service, who: &Who) -> Vec<u8> {
    let done = async {
        let Some(control) = service.control.as_deref() else { return locked(call, reply, service, who).await };
        if let Who::Node(peer) = who // a process may all
            && let Err(error) = allow::allow(&peer.identity, &call, control).await
        {
            return reply.fault(Fault::Control(error));
        }
        let (now, cluster) = ((service.clock)(), service.cluster.as_ref());
        if let (Who::Node(peer), Some(cluster)) = (who, cluster)
            && let (what, Open::Managers | Open::Itself) = call.open()
            && cluster.was_demoted(peer, now).await
        {
            return reply.fault(Fault::Control(allow::only_managers(&peer.identity, what).into()));
        }
        if let (Call::RemoveNode { node }, Some(cluster)) = (&call, cluster)
            && !matches!(who, Who::Stranger | Who::Unspoken)
        {
            return match cluster.remove_node(control, node, now).await {
                Ok(gone) => reply.ok(gone.ended),
                Err(error) => reply.fault(Fault::Control(error)),
            };
        }
        let call = match read_a_part(call, reply, (control, service), who).await {
            Ok(answer) => return answer,
            Err(call) => call,
        };
        match (who, call, cluster) {
            (Who::Process(caller), Call::Local(question), _) => match &service.local {
                Some(local) => local.answer(question, caller, reply).await,
                None => reply.fault(Fault::Unserved { what: QUESTIONS.to_owned() }),
            },
            (Who::Process(_), Call::Cluster(ask), Some(cluster)) => cluster.answer_here(ask, control, reply, now).await,
            (Who::Node(peer), Call::Cluster(ask), Some(cluster)) => {
                cluster.answer(ask, (peer.shown(), control), reply, now).await
            }
            (Who::Stranger, Call::Cluster(ask), Some(cluster)) => cluster.let_in(ask, control, reply, now).await,
            (Who::Process(_) | Who::Node(_), call, _) => call.perform(control, reply, now).await,
            (Who::Stranger | Who::Unspoken, call, _) => {
                reply.fault(Fault::Unserved { what: format!("to {} without a certificate", call.open().0) })
            }
        }
    };
    let limit = service.limits.call;
    let late = |_| reply.fault(Fault::Late { millis: limit.as_millis().try_into().unwrap_or(u64::MAX) });
    timeout(limit, done).await.unwrap_or_else(late)
}

/// Answers a node that reads of the catalogue and is told no more of it than it needs; gives the call back where that is not so.
async fn read_a_part(
    call: Call,
    reply: Reply,
    (control, service): (&dyn Control, &Service),
    who: &Who,
) -> Result<Vec<u8>, Call> {
    if !call.reads_networks() {
        return Err(call);
    }
    let Some(node) = who.needs_a_part(service).await else { return Err(call) };
    match Reading::of(node, control, service).await {
        Ok(reading) => reading.answer(call, reply).await,
        Err(error) => Ok(reply.fault(Fault::Control(error))),
    }
}

/// Answers for a node that has not begun.
async fn locked(call: Call, reply: Reply, service: &Service, who: &Who) -> Vec<u8> {
    match (who, call, &service.local) {
        (Who::Process(caller), Call::Local(question), Some(local)) => local.answer(question, caller, reply).await,
        _ => reply.fault(Fault::Locked {}),
    }
}
