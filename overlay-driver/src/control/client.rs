//! The client.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use overlay_core::{EndpointId, NetworkId, NodeId, ServiceId, UnixTime};
use overlay_node::{
    Control, ControlError, Endpoint, EndpointSpec, Network, NetworkSpec, Node, NodeSpec, Reference, Service,
    ServiceSpec, Stay,
};
use serde::de::DeserializeOwned;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};

use super::call::Call;
use super::dial::{Address, Target, read_frame};
use super::frame::{Fault, Frame, Outcome, Purpose};
use super::link::{Link, Unanswered};
use super::{
    AskError, Credentials, CredentialsError, Limits, Managers, Question, RemoteError, RemoteFeed, RemoteWatch,
};

/// A [`Control`] in another process: whoever serves at this path with a [`ControlServer`](super::ControlServer).
///
/// Errors are those that the server's own [`Control`] gave, kind and text; besides, [`ControlError::Unreachable`] says that nothing
/// was changed, for the reason in its source, a [`RemoteError`]. A call that only reads is asked again if the connection breaks, and so is
/// one that the server has certainly not taken. What may have been done says [`ControlError::InDoubt`]: repeat it with the same id, and
/// get what became of it. The time of calls is the server's, whatever `now` is given here.
///
/// It connects when it is needed, again after the connection broke, and one connection serves all calls of all clones. It works inside a
/// tokio runtime with time and I/O. A call that is dropped before it ended may have been done or not.
///
/// ```no_run
/// use overlay_driver::control::ControlClient;
/// use overlay_node::Control;
///
/// # async fn list() -> Result<(), Box<dyn std::error::Error>> {
/// let client = ControlClient::new("/run/overlay/control.sock");
/// for network in client.networks().await? {
///     println!("{} {}", network.id.short(), network.spec.name);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct ControlClient {
    pub(super) address: Address,
    link: Arc<Mutex<Option<Arc<Link>>>>,
}

impl ControlClient {
    /// How long a call takes at most, unless it [is said](Self::with_deadline) otherwise.
    pub const DEADLINE: Duration = Duration::from_secs(30);

    /// A client of whoever serves at this path. It does not connect yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self::to(Target::Path(path.into()))
    }

    /// A client of whichever of these managers serves, over TLS. It does not connect yet.
    pub fn of_managers(managers: Managers) -> Self {
        Self::to(Target::Managers(managers))
    }

    /// A client of these managers that shows no certificate.
    pub(crate) fn without_certificate(
        managers: &Managers,
        credentials: &Credentials,
    ) -> Result<Self, CredentialsError> {
        Ok(Self::of_managers(managers.without_certificate(credentials)?))
    }

    /// Has the next call make a connection of its own: with the present certificate. Calls on the one that stands end as they would.
    pub(crate) async fn connect_anew(&self) {
        *self.link.lock().await = None;
    }

    pub(super) fn to(to: Target) -> Self {
        let address = Address { to, answer: Limits::default().answer, deadline: Self::DEADLINE };
        Self { address, link: Arc::default() }
    }

    /// Gives calls so much time, a day at most, with all that is asked again.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.address.deadline = deadline.min(LONGEST);
        self
    }

    /// Takes answers of as many bytes at most; 64 MiB unless that is said otherwise, as the server gives them.
    #[must_use]
    pub fn with_longest_answer(mut self, bytes: usize) -> Self {
        self.address.answer = bytes;
        self
    }

    /// Where the server is, if it is on this machine.
    pub fn path(&self) -> Option<&Path> {
        match &self.address.to {
            Target::Path(path) => Some(path),
            Target::Managers(_) => None,
        }
    }

    /// Connects, if it is not connected: to know at once whether somebody serves there, and serves us.
    ///
    /// # Errors
    /// If not.
    pub async fn connect(&self) -> Result<(), RemoteError> {
        self.link().await.map(drop)
    }

    /// Follows the server's catalogue.
    pub fn follow(&self) -> RemoteFeed {
        RemoteFeed::new(self.address.clone())
    }

    /// Follows the endpoints of a service, as the server's node knows them.
    pub fn watch(&self, service: impl Into<Reference>) -> RemoteWatch {
        RemoteWatch::new(self.address.clone(), service.into())
    }

    /// Asks the process that serves.
    ///
    /// # Errors
    /// Why it refuses, with its own type; or why it could not be asked, and whether it may have been done.
    pub async fn ask<Q: Question>(&self, question: &Q) -> Result<Q::Answer, AskError<Q::Refusal>> {
        let unsent = |flaw: serde_json::Error| AskError::Unreachable(RemoteError::Unknown { flaw: flaw.to_string() });
        let call = Call::Local(serde_json::to_value(question).map_err(unsent)?);
        let changes = question.changes();
        let doubt = |Unanswered { error, may_be_done }| match changes && may_be_done {
            true => AskError::InDoubt(error),
            false => AskError::Unreachable(error),
        };
        match self.request::<Q::Answer>(&call, changes).await.map_err(doubt)? {
            Outcome::Ok(answer) => Ok(answer),
            Outcome::Error(fault) => match *fault {
                Fault::Local(refusal) => match serde_json::from_value(refusal) {
                    Ok(refusal) => Err(AskError::Refused(refusal)),
                    Err(error) => Err(doubt(garbled(error.to_string()))),
                },
                Fault::Control(error) => Err(doubt(garbled(error.to_string()))),
                fault => Err(doubt(undone(fault))),
            },
        }
    }

    async fn control<T: DeserializeOwned>(&self, call: Call) -> Result<T, ControlError> {
        let changes = call.changes();
        let failed = |Unanswered { error, may_be_done }| match changes && may_be_done {
            true => ControlError::InDoubt(Arc::new(error)),
            false => ControlError::Unreachable(Arc::new(error)),
        };
        match self.request(&call, changes).await.map_err(failed)? {
            Outcome::Ok(value) => Ok(value),
            Outcome::Error(fault) => match *fault {
                Fault::Control(error) => Err(error),
                fault => Err(failed(undone(fault))),
            },
        }
    }

    /// Asks, and again where that does no harm.
    pub(super) async fn request<T: DeserializeOwned>(
        &self,
        call: &Call,
        changes: bool,
    ) -> Result<Outcome<T>, Unanswered> {
        let deadline = Instant::now() + self.address.deadline;
        let mut attempts = 0;
        let line = loop {
            attempts += 1;
            match self.once(call, deadline).await {
                Ok(line) => break line,
                Err(Unanswered { error: RemoteError::Lost, may_be_done })
                    if attempts < ATTEMPTS && !(changes && may_be_done) => {}
                Err(unanswered) => return Err(unanswered),
            }
        };
        match read_frame(&line) {
            Ok(Frame::Answer { outcome, .. }) => Ok(outcome),
            Ok(_) => Err(garbled("it is no answer".to_owned())),
            Err(error) => Err(Unanswered { error, may_be_done: true }),
        }
    }

    async fn once(&self, call: &Call, deadline: Instant) -> Result<bytes::Bytes, Unanswered> {
        let patience = self.address.deadline;
        let late = |_| Unanswered::unsent(RemoteError::Late { after: patience });
        let link = timeout_at(deadline, self.link()).await.map_err(late)?.map_err(Unanswered::unsent)?;
        link.ask(call, deadline, patience).await
    }

    /// Calls another manager next, if there is one.
    pub(super) async fn call_another(&self) {
        let mut held = self.link.lock().await;
        *held = None;
        if let Target::Managers(managers) = &self.address.to
            && let Some(first) = managers.addresses().first()
        {
            managers.put_last(*first);
        }
    }

    /// The connection; another, if it is over.
    async fn link(&self) -> Result<Arc<Link>, RemoteError> {
        let mut held = self.link.lock().await;
        if let Some(link) = held.as_ref().filter(|link| !link.is_over()) {
            return Ok(Arc::clone(link));
        }
        *held = None;
        let link = Arc::new(Link::new(self.address.dial(Purpose::Call).await?));
        Ok(Arc::clone(held.insert(link)))
    }
}

fn garbled(flaw: String) -> Unanswered {
    Unanswered { error: RemoteError::Garbled { flaw }, may_be_done: true }
}

/// What the server says of a request that it gave no result of.
pub(super) fn undone(fault: Fault) -> Unanswered {
    match fault {
        Fault::Malformed { flaw } => Unanswered::unsent(RemoteError::Unknown { flaw }),
        Fault::Unserved { what } => Unanswered::unsent(RemoteError::Unserved { what }),
        Fault::Locked {} => Unanswered::unsent(RemoteError::Locked),
        Fault::TooLong { bytes, limit } => {
            Unanswered { error: RemoteError::AnswerTooLong { bytes, limit }, may_be_done: true }
        }
        Fault::Late { millis } => {
            Unanswered { error: RemoteError::Late { after: Duration::from_millis(millis) }, may_be_done: true }
        }
        Fault::Control(_) | Fault::Local(_) | Fault::Cluster(_) => garbled("it answers something else".to_owned()),
    }
}

impl fmt::Debug for ControlClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ControlClient").field("to", &self.address.to).finish_non_exhaustive()
    }
}

#[async_trait]
impl Control for ControlClient {
    async fn create_network(&self, id: NetworkId, spec: NetworkSpec, _now: UnixTime) -> Result<Network, ControlError> {
        self.control(Call::CreateNetwork { id, spec }).await
    }

    async fn change_network(
        &self,
        network: &Reference,
        spec: NetworkSpec,
        _now: UnixTime,
    ) -> Result<Network, ControlError> {
        self.control(Call::ChangeNetwork { network: network.clone(), spec }).await
    }

    async fn remove_network(&self, network: &Reference, _now: UnixTime) -> Result<Network, ControlError> {
        self.control(Call::RemoveNetwork { network: network.clone() }).await
    }

    async fn network(&self, network: &Reference) -> Result<Network, ControlError> {
        self.control(Call::Network { network: network.clone() }).await
    }

    async fn networks(&self) -> Result<Vec<Network>, ControlError> {
        self.control(Call::Networks {}).await
    }

    async fn create_service(&self, id: ServiceId, spec: ServiceSpec, _now: UnixTime) -> Result<Service, ControlError> {
        self.control(Call::CreateService { id, spec }).await
    }

    async fn remove_service(&self, service: &Reference, _now: UnixTime) -> Result<Service, ControlError> {
        self.control(Call::RemoveService { service: service.clone() }).await
    }

    async fn service(&self, service: &Reference) -> Result<Service, ControlError> {
        self.control(Call::Service { service: service.clone() }).await
    }

    async fn services(&self) -> Result<Vec<Service>, ControlError> {
        self.control(Call::Services {}).await
    }

    async fn attach(&self, id: EndpointId, spec: EndpointSpec, _now: UnixTime) -> Result<Endpoint, ControlError> {
        self.control(Call::Attach { id, spec }).await
    }

    async fn relocate(&self, endpoint: EndpointId, node: NodeId, _now: UnixTime) -> Result<Endpoint, ControlError> {
        self.control(Call::Relocate { endpoint, node }).await
    }

    async fn detach(&self, endpoint: EndpointId, _now: UnixTime) -> Result<Option<Endpoint>, ControlError> {
        self.control(Call::Detach { endpoint }).await
    }

    async fn endpoint(&self, endpoint: EndpointId) -> Result<Option<Endpoint>, ControlError> {
        self.control(Call::Endpoint { endpoint }).await
    }

    async fn endpoints(&self, network: NetworkId) -> Result<Vec<Endpoint>, ControlError> {
        self.control(Call::Endpoints { network }).await
    }

    async fn report(&self, endpoint: EndpointId, stay: Stay, result: Result<(), String>) -> Result<(), ControlError> {
        self.control(Call::Report { endpoint, stay, failure: result.err() }).await
    }

    async fn add_node(&self, id: NodeId, spec: NodeSpec, _now: UnixTime) -> Result<Node, ControlError> {
        self.control(Call::AddNode { id, spec }).await
    }

    async fn remove_node(&self, node: &Reference, _now: UnixTime) -> Result<Vec<Endpoint>, ControlError> {
        self.control(Call::RemoveNode { node: node.clone() }).await
    }

    async fn node(&self, node: &Reference) -> Result<Node, ControlError> {
        self.control(Call::Node { node: node.clone() }).await
    }

    async fn nodes(&self) -> Result<Vec<Node>, ControlError> {
        self.control(Call::Nodes {}).await
    }
}

/// The longest deadline.
const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// How often a call is tried whose connection breaks.
const ATTEMPTS: u32 = 3;
