//! The handle of a running node.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use overlay_core::{EndpointId, IfName, Name, NodeId, UnixTime};
use overlay_dns::Health;
use overlay_lb::Ask;
use overlay_node::{
    Condition, Control, ControlError, Desired, Drained, Endpoint, EndpointSpec, Explanation, Reference, Target,
    mesh_replica,
};
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::time::timeout;
use tracing::{Instrument as _, Span};

use crate::builder::Builder;
use crate::chance::random;
use crate::control::Follow;
use crate::events::Events;
use crate::ground::Ground;
use crate::heart::{Command, Plug};
use crate::spans;
use crate::{
    Attach, AttachError, Attached, DrainError, DriverEvent, DriverMetrics, PlugError, Plugged, ServiceWatch, Source,
    Status, Stopped, TearDownError,
};

/// A node that runs: a handle on its task, which a clone shares. When the last is dropped the task ends, and leaves what is in the
/// kernel as it is, as [`stop`](Self::stop) does.
#[derive(Debug, Clone)]
pub struct Driver {
    pub(crate) node: NodeId,
    pub(crate) address: SocketAddr,
    pub(crate) control: Arc<dyn Control>,
    pub(crate) commands: mpsc::Sender<Command>,
    pub(crate) events: Events,
}

/// How long an endpoint may take until it is in effect.
const IN_EFFECT: Duration = Duration::from_secs(15);
/// For how long what failed is tried again before it counts.
const TRIED: Duration = Duration::from_secs(1);
/// For how long it is asked again whose answer was lost, and how long it rests in between.
const DOUBT: Duration = Duration::from_secs(10);
const REST: Duration = Duration::from_millis(100);
/// How long it may take until one is unplugged.
const UNPLUGGED: Duration = Duration::from_secs(10);
/// How long it may take until all places are gone.
const GONE: Duration = Duration::from_secs(30);
/// How long a goodbye may take.
const GOODBYE: Duration = Duration::from_secs(2);

impl Driver {
    /// Within which a node brings about what others say, or confirms it all the same: 3 s. A place that fails is not waited for.
    pub const ACTED_WITHIN: Duration = Duration::from_secs(3);

    /// A driver of the node `node` of `cluster`, on this ground. What is attached is written down by `control`; what all nodes shall
    /// hold is learnt from `catalogue`.
    pub fn builder<G: Ground>(
        node: NodeId,
        ground: G,
        control: Arc<dyn Control>,
        catalogue: impl Follow + 'static,
    ) -> Builder<G> {
        Builder::new(node, ground, control, Box::new(catalogue))
    }

    /// Which node it is.
    pub const fn node(&self) -> NodeId {
        self.node
    }

    /// Where its gossip port is reached.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The manager's interface it was started with.
    pub fn control(&self) -> Arc<dyn Control> {
        Arc::clone(&self.control)
    }

    /// What happens from now on, for a log. Who does not listen for long misses the oldest.
    pub fn events(&self) -> broadcast::Receiver<DriverEvent> {
        self.events.listen()
    }

    /// Calls these addresses until a node answers.
    ///
    /// # Errors
    /// If the driver has stopped.
    pub async fn join(&self, seeds: impl IntoIterator<Item = SocketAddr>) -> Result<(), Stopped> {
        self.send(Command::Join(seeds.into_iter().collect())).await
    }

    /// Attaches a container to a network: claims its addresses, plugs it in, and returns when that is in effect. If it serves a service that
    /// publishes in the routing mesh, it is on the ingress network then too, by an interface of its own there, unless it was already. Others lead to it
    /// from when they have heard that: a moment later.
    ///
    /// # Errors
    /// What is wrong with it, or in the way. Then it is taken back, unless it [is left](AttachError::is_left); of an endpoint that was attached before,
    /// what stood is left, plugged in as it was. If this future is dropped half-way, [detach](Self::detach) it by the id that was given.
    pub async fn attach(&self, attach: Attach) -> Result<Attached, AttachError> {
        let span = spans::attach(self.node, &attach.container, &attach.network);
        self.attach_all(attach, &span).instrument(span.clone()).await
    }

    async fn attach_all(&self, attach: Attach, span: &Span) -> Result<Attached, AttachError> {
        let network = self.control.network(&attach.network).await?;
        let replica = attach.service.map(|service| mesh_replica(service, self.node, &attach.container));
        let (id, stood) = match (attach.id, replica) {
            (Some(id), _) => (id, self.stood(id).await?),
            (None, Some(replica)) if network.spec.ingress && self.is_here(replica).await? => {
                (replica, self.stood(replica).await?)
            }
            (None, _) => (EndpointId::generate(random), Stood::default()),
        };
        spans::is_endpoint(span, id);
        let endpoint = self.attach_for_certain(id, attach.spec(network.id, self.node)).await?;
        let plugged = match self.plug_attached(&attach, id).await {
            Ok(plugged) => plugged,
            Err(error) => return Err(self.take_back(id, stood, error).await),
        };
        if let Some(replica) = replica.filter(|replica| *replica != id) {
            let before = self.plugged(replica).await.map_err(PlugError::from)?;
            if let Err(error) = self.plug_replica(&attach, replica).await {
                self.plug_as(replica, before).await;
                return Err(self.take_back(id, stood, error).await);
            }
        }
        Ok(Attached { endpoint, interface: plugged.interface })
    }

    /// Asks for an endpoint, and again by the same id where the answer was lost, as when a manager dies: another does what that one did not, or finds it done.
    async fn attach_for_certain(&self, id: EndpointId, spec: EndpointSpec) -> Result<Endpoint, ControlError> {
        let until = tokio::time::Instant::now() + DOUBT;
        let mut doubt = None;
        loop {
            match (self.control.attach(id, spec.clone(), now()).await, doubt.take()) {
                (Err(error), _) if error.is_in_doubt() => doubt = Some(error),
                // What was in doubt is still, whoever could not be asked since.
                (Err(ControlError::Unreachable(_)), Some(error)) => doubt = Some(error),
                (asked, _) => return asked,
            }
            if let Some(error) = doubt.take_if(|_| until <= tokio::time::Instant::now()) {
                return Err(error);
            }
            tokio::time::sleep(REST).await;
        }
    }

    /// Plugs a container in to the ingress network too, if it was given an endpoint there.
    async fn plug_replica(&self, attach: &Attach, replica: EndpointId) -> Result<(), AttachError> {
        if !self.is_here(replica).await? {
            return Ok(());
        }
        if attach.source == Source::Tap {
            // It serves there what is masqueraded alone; what else it could not, its endpoint's condition says.
            return Ok(self.plug_one(replica, attach.container.clone(), Source::Tap, None).await.map(drop)?);
        }
        self.plug_attached(&Attach { interface: None, ..attach.clone() }, replica).await.map(drop)
    }

    /// Whether the catalogue has an endpoint on this node.
    async fn is_here(&self, endpoint: EndpointId) -> Result<bool, ControlError> {
        let found = self.control.endpoint(endpoint).await?;
        Ok(found.is_some_and(|it| it.spec.node == self.node && it.condition != Condition::Removing))
    }

    async fn plug_attached(&self, attach: &Attach, endpoint: EndpointId) -> Result<Plugged, AttachError> {
        let (container, source) = (attach.container.clone(), attach.source.clone());
        let plugged = self.plug_one(endpoint, container, source, attach.interface).await?;
        match timeout(IN_EFFECT, self.settled(endpoint)).await {
            Ok(Ok(Ok(()))) => Ok(plugged),
            Ok(Ok(Err(reason))) => Err(AttachError::NotInEffect { endpoint, reason }),
            Ok(Err(stopped)) => Err(PlugError::from(stopped).into()),
            Err(_) => Err(AttachError::Late { endpoint, after: IN_EFFECT }),
        }
    }

    /// Whether an endpoint is in effect, after what failed had its chance to be tried again: a failure may be an older one of its place.
    async fn settled(&self, endpoint: EndpointId) -> Result<Result<(), String>, Stopped> {
        let mut failed = self.in_effect(endpoint).await?;
        let tried_until = tokio::time::Instant::now() + TRIED;
        while failed.is_err() && tokio::time::Instant::now() < tried_until {
            tokio::time::sleep(TRIED / 10).await;
            failed = self.in_effect(endpoint).await?;
        }
        Ok(failed)
    }

    /// What there is of an endpoint.
    async fn stood(&self, endpoint: EndpointId) -> Result<Stood, AttachError> {
        let plugged = self.plugged(endpoint).await.map_err(PlugError::from)?;
        Ok(Stood { attached: self.is_here(endpoint).await?, plugged })
    }

    /// How an endpoint is plugged in, if it is.
    async fn plugged(&self, endpoint: EndpointId) -> Result<Option<Plugged>, Stopped> {
        self.ask(|asked| Command::Plugged(endpoint, asked)).await
    }

    /// Has an endpoint plugged in as it was before, or not at all.
    async fn plug_as(&self, endpoint: EndpointId, before: Option<Plugged>) {
        match before {
            // Where that cannot be, what there is of it is left: its condition says what is wrong.
            Some(Plugged { container, source, interface, .. }) => {
                let plug = Plug { endpoint, container, source, interface: Some(interface), restores: true };
                drop(self.ask(|asked| Command::Plug(plug, asked)).await);
            }
            None => drop(self.unplug(endpoint).await),
        }
    }

    /// Leaves what stood before, and nothing more.
    async fn take_back(&self, endpoint: EndpointId, stood: Stood, error: AttachError) -> AttachError {
        if !matches!(error, AttachError::Plug(PlugError::Withdrawn)) {
            self.plug_as(endpoint, stood.plugged).await;
        }
        if stood.attached {
            return error;
        }
        match self.control.detach(endpoint, now()).await {
            Ok(_) => error,
            Err(_) => AttachError::Left { endpoint, source: Box::new(error) },
        }
    }

    /// Ends an attachment: unplugs it, and gives its addresses back. Gives what was ended; `None` if there is none such. With the last by which a
    /// container serves, it leaves the ingress network too, if [`attach`](Self::attach) had it join.
    ///
    /// # Errors
    /// If the manager could not do it: it is unplugged all the same.
    pub async fn detach(&self, endpoint: EndpointId) -> Result<Option<Endpoint>, AttachError> {
        self.detach_all(endpoint).instrument(spans::detach(self.node, endpoint)).await
    }

    async fn detach_all(&self, endpoint: EndpointId) -> Result<Option<Endpoint>, AttachError> {
        self.unplug(endpoint).await.map_err(PlugError::from)?;
        let ended = self.control.detach(endpoint, now()).await?;
        let spec = ended.as_ref().map(|ended| &ended.spec);
        if let Some((service, container)) = spec.and_then(|spec| Some((spec.service?, &spec.container))) {
            let replica = mesh_replica(service, self.node, container);
            if replica != endpoint && !self.is_here(replica).await? {
                self.unplug(replica).await.map_err(PlugError::from)?;
            }
        }
        Ok(ended)
    }

    /// Plugs the container of an endpoint in, which the catalogue has on this node or will have: one that moved here, say. It is in
    /// effect later; see [`in_effect`](Self::in_effect). Again, when the container was started anew.
    ///
    /// What it has on the ingress network by its service is plugged in with it, if the catalogue can be asked for that.
    ///
    /// # Errors
    /// If it cannot be reached, or its interface is taken. Nothing of it is plugged in then, but what was before.
    pub async fn plug(
        &self,
        endpoint: EndpointId,
        container: Name,
        source: Source,
        interface: Option<IfName>,
    ) -> Result<Plugged, PlugError> {
        let before = self.plugged(endpoint).await?;
        let plugged = match self.plug_one(endpoint, container.clone(), source.clone(), interface).await {
            Ok(plugged) => plugged,
            Err(error) => {
                // It may have entered another namespace. Who unplugged it meanwhile has it so.
                if before.is_some() && !matches!(error, PlugError::Withdrawn) {
                    self.plug_as(endpoint, before).await;
                }
                return Err(error);
            }
        };
        if let Some(replica) = self.replica_of(endpoint).await
            && let Err(error) = self.plug_one(replica, container, source, None).await
        {
            self.plug_as(endpoint, before).await;
            return Err(error);
        }
        Ok(plugged)
    }

    async fn plug_one(
        &self,
        endpoint: EndpointId,
        container: Name,
        source: Source,
        interface: Option<IfName>,
    ) -> Result<Plugged, PlugError> {
        self.ask(|asked| Command::Plug(Plug { endpoint, container, source, interface, restores: false }, asked)).await?
    }

    /// The endpoint on the ingress network that goes with one here, as far as the catalogue can be asked.
    async fn replica_of(&self, endpoint: EndpointId) -> Option<EndpointId> {
        let spec = self.control.endpoint(endpoint).await.ok()??.spec;
        let replica = mesh_replica(spec.service?, self.node, &spec.container);
        (replica != endpoint && self.is_here(replica).await.ok()?).then_some(replica)
    }

    /// Waits until an endpoint that is plugged in is in effect here: reachable where it can be, named for others, and able to ask for
    /// names; or until it is known why not.
    ///
    /// # Errors
    /// If the driver has stopped.
    pub async fn in_effect(&self, endpoint: EndpointId) -> Result<Result<(), String>, Stopped> {
        self.ask(|asked| Command::Await(endpoint, asked)).await
    }

    /// Unplugs an endpoint, and waits a while until nothing of it is left here. Nothing happens if it is not plugged in.
    ///
    /// # Errors
    /// If the driver has stopped.
    pub async fn unplug(&self, endpoint: EndpointId) -> Result<(), Stopped> {
        let unplugged = self.ask(|asked| Command::Unplug(endpoint, asked));
        timeout(UNPLUGGED, unplugged).await.unwrap_or(Ok(()))
    }

    /// Whether an endpoint that is plugged in should be sent to, and with it the one on the ingress network that its container has for its service.
    ///
    /// # Errors
    /// If the driver has stopped.
    pub async fn set_health(&self, endpoint: EndpointId, health: Health) -> Result<(), Stopped> {
        self.send(Command::Health(endpoint, health)).await
    }

    /// Takes an endpoint's work away, and returns when it has none: it gets no new flows by names, VIPs or published ports from any live node
    /// of the cluster, and those it had have ended; or when `deadline` has passed, with what stands then. After that it can be
    /// [detached](Self::detach), which cuts what is left; of a service's last endpoint the work is refused from the first step on.
    ///
    /// 1. All are told that it is draining: their resolvers do not name it for its service any more, their balancers choose others.
    /// 2. It waits until every live node that knows the network has confirmed to *hold* that (its watermark), this one included. A node that
    ///    cannot bring it about confirms after [`ACTED_WITHIN`](Self::ACTED_WITHIN) all the same; one that fails is not waited for.
    /// 3. It waits until nobody has begun a flow for [`Drain::QUIET`](overlay_node::Drain::QUIET), and none stands. That is counted in the container's own namespace, by
    ///    connection tracking and TCP's sockets, whoever began the flow and by whichever way it came. A UDP flow stands until it was idle
    ///    for as long as the kernel keeps it: 30 s, or 120 s if it had an answer. Flows of a virtual machine cannot be seen:
    ///    they are waited for until the deadline, and [said](Drained::uncounted) not to be known. So are those of UDP and SCTP where the kernel, or
    ///    the namespace, tracks nothing: TCP's are counted alone then, and end it. Who still begins flows at the deadline is [named](Drained::arrived).
    ///
    /// Where it serves a service that publishes in the routing mesh, the endpoint on the ingress network that its container has
    /// [for that](Self::attach) is drained with it, and the answer is of both.
    ///
    /// An idle endpoint takes some 0.4 s. Several may be drained at once, and one by several callers. If this future is dropped, or returns, the
    /// endpoint *stays* draining: [say](Self::set_health) that it is healthy to have it back. The catalogue does not know; a
    /// driver that is started again says that it is healthy.
    ///
    /// # Errors
    /// See [`DrainError`]. It ends at once when the endpoint goes, or the driver stops.
    pub async fn drain(&self, endpoint: EndpointId, deadline: Duration) -> Result<Drained, DrainError> {
        self.drain_all(endpoint, deadline).instrument(spans::drain(self.node, endpoint)).await
    }

    async fn drain_all(&self, endpoint: EndpointId, deadline: Duration) -> Result<Drained, DrainError> {
        let own = self.ask(|asked| Command::Drain(endpoint, deadline, asked));
        let Some(replica) = self.ask(|asked| Command::Replica(endpoint, asked)).await? else { return own.await? };
        let (own, replica) = tokio::join!(own, self.ask(|asked| Command::Drain(replica, deadline, asked)));
        match (own??, replica?) {
            (own, Ok(replica)) => Ok(own.and(replica)),
            (own, Err(DrainError::NotHere { .. } | DrainError::Gone { .. })) => Ok(own), // it has ended by itself
            (_, Err(error)) => Err(error),
        }
    }

    /// Follows the endpoints of a service, as this node knows them by the catalogue and by gossip, for somebody who balances by himself: an HTTP proxy,
    /// say. Nothing need be plugged in here, nor the service be there yet; who wants to know whether it is asks [`Control::service`]. Endpoints of a network
    /// that was not followed before come as their nodes are heard, in a fraction of a second mostly.
    ///
    /// # Errors
    /// If the driver has stopped.
    pub async fn watch(&self, service: impl Into<Reference>) -> Result<ServiceWatch, Stopped> {
        let service = service.into();
        Ok(ServiceWatch::new(self.ask(|asked| Command::Watch(service, asked)).await?))
    }

    /// How it is doing.
    ///
    /// # Errors
    /// If the driver has stopped.
    pub async fn status(&self) -> Result<Status, Stopped> {
        self.ask(Command::Status).await
    }

    /// What was counted of it, of its agent, gossip, resolvers and carrier, at one moment. Cheap enough to be asked for each second.
    ///
    /// # Errors
    /// If the driver has stopped.
    pub async fn metrics(&self) -> Result<DriverMetrics, Stopped> {
        self.ask(Command::Metrics).await
    }

    /// Looks at all places anew, repairs what is not as it should be, and returns when that is done or has failed.
    ///
    /// # Errors
    /// If the driver has stopped.
    pub async fn look(&self) -> Result<(), Stopped> {
        self.ask(Command::Look).await
    }

    /// Why an endpoint here does not reach a name or an address, or how it does, held against what the places hold.
    ///
    /// # Errors
    /// If the driver has stopped.
    pub async fn explain(&self, from: EndpointId, to: Target) -> Result<Explanation, Stopped> {
        self.look().await?;
        self.ask(|asked| Command::Explain(from, to, asked)).await
    }

    /// What becomes of a client that asks this node for a published port: which service has it, whether here and for him, which replicas take it, the
    /// way to the first of them, held against what the places hold; and what of the host is in the way, with what mends it.
    ///
    /// # Errors
    /// If the driver has stopped.
    pub async fn explain_published(&self, ask: Ask) -> Result<Explanation, Stopped> {
        self.look().await?;
        self.ask(|asked| Command::ExplainPublished(ask, asked)).await
    }

    /// What the node's places hold, which are looked at before.
    ///
    /// # Errors
    /// If the driver has stopped.
    pub async fn holds(&self) -> Result<Desired, Stopped> {
        self.look().await?;
        self.ask(Command::Holds).await
    }

    /// Stops, and leaves what is in the kernel as it is: containers go on to reach each other, but find no new names, until a driver is
    /// started again. The other nodes take this one for failed after a while.
    pub async fn stop(self) {
        let _ = self.ask(Command::Stop).await;
        self.commands.closed().await;
    }

    /// Removes all of this node: unplugs every container, empties and removes every place, takes the node from the catalogue with all
    /// its attachments, and says goodbye to the others.
    ///
    /// # Errors
    /// What is left, and why. The node goes on then; call it again.
    pub async fn tear_down(self) -> Result<(), TearDownError> {
        match timeout(GONE, self.ask(Command::TearDown)).await {
            Ok(done) => done?,
            Err(_) => self.must_be_empty().await?,
        }
        match self.control.remove_node(&self.node.into(), now()).await {
            Err(error) if error.refusal().is_none() => return Err(error.into()),
            _ => {}
        }
        let _ = timeout(GOODBYE, self.ask(Command::Leave)).await;
        self.stop().await;
        Ok(())
    }

    /// All places may be gone by the time they can be asked for.
    async fn must_be_empty(&self) -> Result<(), TearDownError> {
        let places = self.status().await?.places.into_iter();
        let left = places.map(|it| format!("{}: {}", it.place, it.failure.unwrap_or_else(|| "late".to_owned())));
        let left: Vec<String> = left.collect();
        if left.is_empty() { Ok(()) } else { Err(TearDownError::Left { left }) }
    }

    pub(crate) async fn send(&self, command: Command) -> Result<(), Stopped> {
        self.commands.send(command).await.map_err(|_| Stopped)
    }

    pub(crate) async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, Stopped> {
        ask(&self.commands, command).await
    }
}

/// What there was of an endpoint before it was asked for.
#[derive(Debug, Default)]
struct Stood {
    /// The catalogue had it on this node.
    attached: bool,
    plugged: Option<Plugged>,
}

/// A command that is sent while its receiver goes may be neither refused nor dropped, but lie in the channel as long as there are senders: so
/// the end of the receiver is waited for too.
async fn ask<T>(
    commands: &mpsc::Sender<Command>,
    command: impl FnOnce(oneshot::Sender<T>) -> Command,
) -> Result<T, Stopped> {
    let (asked, mut answer) = oneshot::channel();
    commands.send(command(asked)).await.map_err(|_| Stopped)?;
    tokio::select! {
        biased;
        answered = &mut answer => answered.map_err(|_| Stopped),
        () = commands.closed() => answer.try_recv().map_err(|_| Stopped),
    }
}

/// The date, by this machine's clock.
#[expect(clippy::disallowed_methods, reason = "records carry a date, and here is where it is read")]
pub(crate) fn now() -> UnixTime {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    UnixTime::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_asks_while_it_ends_is_told_so() {
        for round in 0..20_000 {
            let (commands, heard) = mpsc::channel(64);
            let ending = tokio::task::spawn_blocking(move || {
                (0..round % 64).for_each(|_| std::hint::spin_loop()); // at another moment each time
                drop(heard);
            });
            let asked = timeout(Duration::from_secs(30), ask(&commands, Command::Stop)).await;
            assert_eq!(asked.expect("it is never told"), Err(Stopped));
            ending.await.unwrap();
        }
    }
}
