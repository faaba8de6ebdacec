//! The one task that has the agent: everything that happens comes to it, and everything is told by it.

mod damaged;
mod drains;
mod explained;
mod hindrances;
mod jobs;
mod measured;
mod plugs;
mod rounds;
mod usage;
mod watches;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use overlay_core::{EndpointId, Instant, NodeId, NsKey};
use overlay_crypto::{SaId, Usage};
use overlay_dns::Health;
use overlay_gossip::{Class, Transmit};
use overlay_kernel::netlink::Notices;
use overlay_lb::Ask;
use overlay_node::{
    Acting, Agent, AgentConfig, AgentEvent, CatalogueChange, Control, Desired, Drained, Explanation, GossipKeyChange,
    GossipKeyError, Input, Me, Place, PlaceState, Reference, Target, Upkeep, masqueraded, mesh_replica,
};
use tokio::net::UdpSocket;
use tokio::sync::mpsc::{Receiver, UnboundedReceiver, UnboundedSender};
use tokio::sync::{oneshot, watch};

use crate::book::{Book, Plugged};
use crate::control::Ring;
use crate::events::Events;
use crate::ground::{Ground, Hindrances};
use crate::hints::Hints;
use crate::home::Home;
use crate::reporter::Reporter;
use crate::resolvers::{Bound, Resolvers};
use crate::seal::Writing;
use crate::signed;
use crate::status::{self, DriverEvent, PlaceStatus, Status};
use crate::streams::Streams;
use crate::watch::Latest;
use crate::works::{Done, Works};
use crate::{DrainError, DriverMetrics, PlaceMetrics, PlugError, Source};

pub(crate) use drains::Counted;
pub(crate) use jobs::Jobs;
pub(crate) use plugs::Entered;

/// What somebody who has the driver's handle wants.
#[derive(Debug)]
pub(crate) enum Command {
    Join(Vec<SocketAddr>),
    RotateKeys,
    Plug(Plug, oneshot::Sender<Result<Plugged, PlugError>>),
    /// How an endpoint is plugged in, if it is.
    Plugged(EndpointId, oneshot::Sender<Option<Plugged>>),
    /// Whether an endpoint that is plugged in is in effect, as soon as that is known.
    Await(EndpointId, oneshot::Sender<Result<(), String>>),
    /// Answered when no place holds it any more.
    Unplug(EndpointId, oneshot::Sender<()>),
    Health(EndpointId, Health),
    /// The endpoint on the ingress network that goes with one, if it is plugged in.
    Replica(EndpointId, oneshot::Sender<Option<EndpointId>>),
    ChangeGossipKeys(GossipKeyChange, oneshot::Sender<Result<(), GossipKeyError>>),
    RotateGossipKeys(BTreeSet<NodeId>, oneshot::Sender<Result<(), GossipKeyError>>),
    GossipKeys(oneshot::Sender<Option<Ring>>),
    /// Answered when it has no work any more, or this time has passed.
    Drain(EndpointId, Duration, oneshot::Sender<Result<Drained, DrainError>>),
    Watch(Reference, oneshot::Sender<watch::Receiver<Latest>>),
    Status(oneshot::Sender<Status>),
    Metrics(oneshot::Sender<DriverMetrics>),
    Explain(EndpointId, Target, oneshot::Sender<Explanation>),
    ExplainPublished(Ask, oneshot::Sender<Explanation>),
    Holds(oneshot::Sender<Desired>),
    /// Looks at every place, and answers when all are as they should be or have failed.
    Look(oneshot::Sender<()>),
    Leave(oneshot::Sender<()>),
    TearDown(oneshot::Sender<()>),
    Stop(oneshot::Sender<()>),
}

/// What is to be plugged in.
#[derive(Debug, Clone)]
pub(crate) struct Plug {
    pub(crate) endpoint: EndpointId,
    pub(crate) container: overlay_core::Name,
    pub(crate) source: Source,
    pub(crate) interface: Option<overlay_core::IfName>,
    /// As it was before: its interface may be there still, or be so again.
    pub(crate) restores: bool,
}

/// What comes back from where something was done aside.
#[derive(Debug)]
pub(crate) enum News {
    Entered(Box<Entered>),
    Catalogue(Vec<CatalogueChange>),
    Deaf(String),
    /// What was heard of the catalogue is what there is of these services, or all that can be heard of them now.
    Watching(BTreeSet<Reference>),
    /// The node has another certificate to show.
    Certificate,
    Hints(Place, Vec<Notices>),
    BindAgain(Place),
    /// Of those that are plugged in, those whose containers are gone.
    Vanished(Vec<EndpointId>),
    /// An endpoint was withdrawn: whether the catalogue still has it here.
    Withdrawn(EndpointId, bool),
    /// The same of an endpoint whose file is damaged; `None` where the catalogue cannot be asked.
    Damaged(EndpointId, Option<bool>),
    Mtu(overlay_core::Mtu),
    /// The flows of an endpoint were looked at.
    Flows(Box<Counted>),
    /// What of the host is in the way of published ports.
    Hindrances(Hindrances),
    /// What was sealed by the host's associations.
    Used(BTreeMap<SaId, Usage>),
    /// That version of gossip's keys was written down, or why not.
    GossipKeys(u64, Result<(), String>),
}

/// What a heart hears.
#[derive(Debug)]
pub(crate) struct Ears {
    pub(crate) commands: Receiver<Command>,
    pub(crate) news: UnboundedReceiver<News>,
    pub(crate) done: UnboundedReceiver<Done>,
    pub(crate) bound: UnboundedReceiver<Bound>,
    pub(crate) heard: UnboundedReceiver<Place>,
}

/// See the module.
pub(crate) struct Heart<G> {
    pub(crate) agent: Agent,
    pub(crate) config: AgentConfig,
    pub(crate) me: Me,
    pub(crate) seed: [u8; 32],
    pub(crate) origin: tokio::time::Instant,
    pub(crate) udp: UdpSocket,
    pub(crate) streams: Streams,
    pub(crate) ground: G,
    pub(crate) home: Home,
    pub(crate) upkeep: Upkeep,
    pub(crate) works: Works<G>,
    pub(crate) resolvers: Resolvers<G>,
    pub(crate) hints: Hints,
    pub(crate) book: Book,
    pub(crate) control: Arc<dyn Control>,
    pub(crate) reporter: Reporter,
    pub(crate) events: Events,
    pub(crate) news: UnboundedSender<News>,
    pub(crate) jobs: Jobs,
    pub(crate) state: State,
}

/// What a heart remembers.
#[derive(Debug, Default)]
pub(crate) struct State {
    desired: Arc<Desired>,
    /// When what is desired is asked for next, if it changed.
    look_at: Option<Instant>,
    /// What places hold, as far as they said so.
    held: BTreeMap<Place, Arc<PlaceState>>,
    failures: BTreeMap<Place, String>,
    /// Places that an earlier start has left, as long as they stay as it left them.
    adopted: BTreeSet<Place>,
    /// Whether the catalogue was heard, ever.
    has_heard: bool,
    /// From when on names are answered there: as soon as the others have been heard.
    names_at: Option<Instant>,
    /// From when on it is known who else is there: whom gossip does not know by then is not there.
    acquainted_at: Instant,
    /// Whether names are answered there, as far as that is known.
    named: BTreeMap<Place, Result<(), String>>,
    reported: BTreeMap<EndpointId, Result<(), String>>,
    awaiting: BTreeMap<EndpointId, Vec<oneshot::Sender<Result<(), String>>>>,
    /// Of those whose files are damaged, such as the catalogue is yet to be asked for.
    doubted: BTreeSet<EndpointId>,
    /// Endpoints that are being unplugged, and who waits for it.
    leaving: Vec<(EndpointId, oneshot::Sender<()>)>,
    hindered: hindrances::Hindered,
    used: usage::Used,
    /// Namespaces that are being entered: one endpoint's several times, where several have asked for it.
    entering: BTreeMap<(EndpointId, u64), overlay_core::Name>,
    /// How often one was asked to be.
    asked_to_enter: u64,
    acting: Acting,
    drains: drains::Drains,
    pub(crate) writing: Writing,
    looking: Vec<oneshot::Sender<()>>,
    /// Services that are watched, and what is known of each.
    watched: BTreeMap<Reference, watch::Sender<Latest>>,
    /// Those, for who follows the catalogue.
    pub(crate) wanted: watch::Sender<BTreeSet<Reference>>,
    tearing_down: Vec<oneshot::Sender<()>>,
    gone: Vec<oneshot::Sender<()>>,
    deaf: Option<String>,
    /// What was counted of places, lengths left out.
    counts: PlaceMetrics,
    rotating: measured::Rotating,
    is_over: bool,
}

impl State {
    /// With what an earlier start has left, where names are answered at this time even if nobody was heard.
    pub(crate) fn of(adopted: BTreeSet<Place>, unheard: Instant) -> Self {
        let names_at = (!adopted.is_empty()).then_some(unheard);
        Self { adopted, names_at, acquainted_at: Instant::ZERO + ACQUAINTED, ..Self::default() }
    }
}

/// The time from a change to the round that brings it about: what comes together is done together.
const LINGER: Duration = Duration::from_millis(1);
/// How often it is looked whether containers are where they were, and what the underlay carries.
const WATCH: Duration = Duration::from_millis(500);
/// How long it takes to hear what other nodes say, after one has answered.
const HEARD: Duration = Duration::from_millis(100);
/// How long it may take until one answers, of a node that has just begun.
const ACQUAINTED: Duration = Duration::from_secs(3);
/// Datagrams that are taken before anything else has its turn.
const BATCH: usize = 64;
const LARGEST: usize = 65_536;

impl<G: Ground> Heart<G> {
    /// Runs until it is stopped. What hears for it is given back by then: whoever waits for its end finds everything free.
    pub(crate) async fn run(mut self, ears: &mut Ears) {
        let mut buffer = vec![0; LARGEST];
        let mut watch = tokio::time::interval(WATCH);
        watch.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while !self.state.is_over {
            self.settle().await;
            if self.state.is_over {
                break;
            }
            let due = self.due();
            tokio::select! {
                received = self.udp.recv_from(&mut buffer) => self.take_datagrams(received, &mut buffer),
                Some((from, message)) = self.streams.receive() => self.take_message(from, Class::Stream, message),
                Some(done) = ears.done.recv() => self.take_done(done),
                Some(news) = ears.news.recv() => self.take_news(news),
                Some(bound) = ears.bound.recv() => self.take_bound(bound),
                Some(place) = ears.heard.recv() => self.take_hint(&place),
                command = ears.commands.recv() => match command {
                    Some(command) => self.take_command(command),
                    None => break, // nobody has a handle any more
                },
                _ = watch.tick() => {
                    self.watch();
                    self.end_watches();
                    self.watch_for_hindrances();
                    self.watch_usage();
                    self.write_gossip_keys();
                }
                () = sleep_until(due) => {
                    let now = self.now();
                    self.agent.handle_timeout(now);
                }
            }
        }
        drop(std::mem::take(&mut self.state)); // whoever waits for something is told that it ends
        // Whoever comes next must not meet a job of ours.
        while self.works.is_busy()
            && let Some(done) = ears.done.recv().await
        {
            self.works.put_away(done);
        }
        tokio::join!(self.jobs.end(), self.streams.end(), self.resolvers.end(), self.reporter.end());
    }

    pub(crate) fn now(&self) -> Instant {
        Instant::ZERO + self.origin.elapsed()
    }

    fn due(&self) -> Option<tokio::time::Instant> {
        let agent = self.agent.poll_timeout().map(|(at, _)| at);
        let upkeep = self.upkeep.poll_timeout().filter(|_| self.may_work());
        let next = [agent, self.state.look_at, self.state.names_at, upkeep, self.state.drains.poll_timeout()];
        let next = next.into_iter().flatten().min();
        next.map(|at| self.origin + (at - Instant::ZERO))
    }

    /// Nothing is taken away that an earlier start has left, on no better ground than that the catalogue was not heard yet.
    fn may_work(&self) -> bool {
        self.state.has_heard || self.state.adopted.is_empty() || self.book.is_empty()
    }

    /// Does all that is due, sends all there is to send.
    async fn settle(&mut self) {
        self.take_events();
        let now = self.now();
        if self.state.look_at.is_some_and(|at| at <= now) {
            self.state.look_at = None;
            self.state.desired = self.agent.desired();
            let changed = self.upkeep.desire(Arc::clone(&self.state.desired), now);
            self.state.acting.desire(changed, self.agent.heard());
            let desired = &self.state.desired;
            self.hints.retain(|place| desired.places.contains_key(place));
            self.serve_adopted();
            self.tell_watchers();
        }
        if self.state.names_at.is_some_and(|at| at <= now) {
            self.state.names_at = None;
            self.serve_adopted();
            self.tell_watchers();
        }
        if self.may_work()
            && let Some(round) = self.upkeep.begin(now)
        {
            self.state.acting.begin();
            self.works.begin(round);
            self.publish();
        }
        self.take_events();
        self.answer();
        self.mind_acted();
        self.mind_rotation();
        let now = self.now();
        self.mind_drains(now);
        while let Some(Transmit { to, class, payload }) = self.agent.poll_transmit(now) {
            match class {
                // What is lost on the way is lost: gossip is made for it.
                Class::Datagram => drop(self.udp.send_to(&payload, to).await),
                Class::Stream => self.streams.send(to, payload),
            }
        }
    }

    fn take_events(&mut self) {
        while let Some(event) = self.agent.poll_event() {
            match event {
                AgentEvent::Changed => {
                    let now = self.now();
                    self.state.look_at.get_or_insert(now + LINGER);
                }
                AgentEvent::Report { endpoint, moves, result } => {
                    self.state.reported.insert(endpoint, result.clone());
                    self.reporter.report(endpoint, Some(moves), result);
                }
                AgentEvent::Withdrawn(endpoint) => self.look_whether_withdrawn(endpoint),
                AgentEvent::Joined => {
                    self.say(DriverEvent::Joined);
                    let heard = self.now() + HEARD;
                    self.state.names_at = self.state.names_at.map(|at| at.min(heard));
                    self.state.acquainted_at = self.state.acquainted_at.min(heard);
                }
                AgentEvent::LeftBehind { nodes } => self.say(DriverEvent::LeftBehind { nodes }),
                AgentEvent::GossipKeys { version } => self.take_gossip_keys(version),
                AgentEvent::LackingGossipKey { key } => {
                    self.say(DriverEvent::LackingGossipKey { key: key.to_string() });
                }
                AgentEvent::Superseded { incarnation } => self.begin_anew(incarnation),
                AgentEvent::Gone => {
                    answer_all(self.state.gone.drain(..));
                    self.state.is_over = true;
                }
                _ => {}
            }
        }
    }

    /// Whoever makes no sense to the agent is its affair: it counts it.
    pub(crate) fn tell(&mut self, input: Input) {
        let now = self.now();
        let _ = self.agent.handle(input, now);
    }

    fn take_message(&mut self, from: SocketAddr, class: Class, payload: Bytes) {
        self.tell(Input::Message { from, class, payload });
    }

    fn take_datagrams(&mut self, received: std::io::Result<(usize, SocketAddr)>, buffer: &mut [u8]) {
        let mut next = received;
        for _ in 0..BATCH {
            // Errors are of earlier datagrams that came back.
            let Ok((length, from)) = next else { return };
            let payload = Bytes::copy_from_slice(buffer.get(..length).unwrap_or_default());
            self.take_message(from, Class::Datagram, payload);
            next = self.udp.try_recv_from(buffer);
        }
    }

    fn take_command(&mut self, command: Command) {
        match command {
            Command::Join(seeds) => self.tell(Input::Join(seeds)),
            Command::Plug(plug, asked) => self.enter(plug, asked),
            Command::Plugged(endpoint, asked) => drop(asked.send(self.book.get(endpoint).cloned())),
            Command::Await(endpoint, asked) => self.state.awaiting.entry(endpoint).or_default().push(asked),
            Command::Unplug(endpoint, asked) => {
                self.unplug(endpoint);
                self.state.leaving.push((endpoint, asked));
            }
            Command::Health(endpoint, health) => {
                let both = [Some(endpoint), self.replica(endpoint)];
                both.into_iter().flatten().for_each(|endpoint| self.tell(Input::Health(endpoint, health)));
            }
            Command::Replica(endpoint, asked) => drop(asked.send(self.replica(endpoint))),
            Command::RotateKeys => self.tell(Input::RotateKeys),
            Command::ChangeGossipKeys(change, asked) => {
                let now = self.now();
                let _ = asked.send(self.agent.change_gossip_keys(change, now));
            }
            Command::RotateGossipKeys(without, asked) => {
                let sealed = self.agent.seal().map(drop).ok_or(GossipKeyError::Unsealed);
                self.tell(Input::RotateGossipKeys { without });
                let _ = asked.send(sealed);
            }
            Command::GossipKeys(asked) => drop(asked.send(self.ring())),
            Command::Drain(endpoint, patience, asked) => self.drain(endpoint, patience, asked),
            Command::Watch(service, asked) => drop(asked.send(self.begin_watch(service))),
            Command::Status(asked) => drop(asked.send(self.status())),
            Command::Metrics(asked) => self.metrics(asked),
            Command::Explain(from, to, asked) => self.explain(from, &to, asked),
            Command::ExplainPublished(ask, asked) => self.explain_published(ask, asked),
            Command::Holds(asked) => drop(asked.send(self.held())),
            Command::Look(asked) => {
                let places: Vec<Place> = self.state.desired.places.keys().cloned().collect();
                places.iter().for_each(|place| self.doubt(place));
                self.state.looking.push(asked);
            }
            Command::Leave(asked) => {
                self.state.gone.push(asked);
                self.tell(Input::Leave);
            }
            Command::TearDown(asked) => {
                let all: BTreeSet<EndpointId> = self.book.all().map(|plugged| plugged.endpoint).collect();
                let own: Vec<EndpointId> = self.agent.in_mesh().collect();
                all.iter().chain(&own).for_each(|endpoint| self.unplug(*endpoint));
                self.state.tearing_down.push(asked);
            }
            Command::Stop(asked) => {
                let _ = asked.send(());
                self.state.is_over = true;
            }
        }
    }

    fn take_news(&mut self, news: News) {
        match news {
            News::Entered(entered) => self.take_entered(*entered),
            News::Catalogue(changes) => {
                self.state.deaf = None;
                let is_first = !std::mem::replace(&mut self.state.has_heard, true);
                self.look_for_damaged(is_first, &changes);
                if is_first {
                    // Who watched before that was told nothing, and it may change nothing else.
                    let now = self.now();
                    self.state.look_at.get_or_insert(now + LINGER);
                }
                for change in changes {
                    self.tell(Input::Catalogue(change));
                }
            }
            News::Certificate => self.tell(Input::Vouch),
            News::Deaf(reason) => {
                if self.state.deaf.is_none() {
                    self.say(DriverEvent::Deaf { reason: reason.clone() });
                }
                self.state.deaf = Some(reason);
            }
            News::Watching(services) => self.watch_heard(services),
            News::Hints(place, notices) => {
                if self.state.desired.places.contains_key(&place) {
                    self.hints.listen(&place, notices);
                }
            }
            News::Flows(counted) => self.take_counted(*counted),
            News::GossipKeys(version, written) => self.take_written(version, written),
            News::Hindrances(found) => self.take_hindrances(found),
            News::Used(usage) => self.take_usage(usage),
            News::BindAgain(place) => self.resolvers.bind_again(&place),
            News::Vanished(endpoints) => endpoints.into_iter().for_each(|endpoint| self.vanish(endpoint)),
            News::Withdrawn(endpoint, here) => self.take_withdrawn(endpoint, here),
            News::Damaged(endpoint, here) => self.take_damaged(endpoint, here),
            News::Mtu(mtu) => {
                if self.me.mtu != mtu {
                    self.me.mtu = mtu;
                    self.tell(Input::Underlay { vtep: self.me.vtep, mtu });
                }
            }
        }
    }

    /// Answers who waits for something that is so now.
    fn answer(&mut self) {
        self.answer_awaiting();
        let held = &self.state.held;
        let is_held = |endpoint: &EndpointId| {
            let states = held.values().flat_map(|state| state.vxlan.segments.values());
            states.into_iter().any(|segment| segment.ports.contains_key(endpoint))
        };
        let (stay, gone): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.state.leaving).into_iter().partition(|(endpoint, _)| is_held(endpoint));
        self.state.leaving = stay;
        answer_all(gone.into_iter().map(|(_, asked)| asked));
        let settled = self.state.look_at.is_none() && self.works.round().is_none();
        if settled && self.upkeep.lacking().all(|place| self.state.failures.contains_key(place)) {
            answer_all(self.state.looking.drain(..));
        }
        if settled && self.state.desired.places.is_empty() && self.upkeep.lacking().next().is_none() {
            answer_all(self.state.tearing_down.drain(..));
        }
    }

    fn status(&self) -> Status {
        let lacking: BTreeSet<&Place> = self.upkeep.lacking().collect();
        let all: BTreeSet<&Place> = self.state.desired.places.keys().chain(lacking.iter().copied()).collect();
        let place = |place: &Place| PlaceStatus {
            place: place.to_string(),
            holds: !lacking.contains(place),
            failure: self.state.failures.get(place).cloned(),
            balancer: self.ground.balancer(place),
            hindrances: if *place == Place::Host { self.hindrances() } else { Vec::new() },
            masqueraded: if *place == Place::Host { masqueraded(self.agent.knowledge()) } else { Vec::new() },
        };
        Status {
            node: self.me.id,
            address: self.me.address,
            members: status::members(&self.agent),
            places: all.into_iter().map(place).collect(),
            plugged: self.book.all().cloned().collect(),
            unreadable: self.book.damaged().map(|(_, file, why)| format!("{}: {why}", file.display())).collect(),
            known: self.agent.metrics().remote,
            keys: status::keys(&self.agent),
            seal: self.seal_status(),
            signed: signed::status(&self.agent),
            contested: signed::contested(&self.agent),
            catalogue: self.state.deaf.clone(),
        }
    }

    fn held(&self) -> Desired {
        Desired { places: self.state.held.clone() }
    }

    pub(crate) fn say(&self, event: DriverEvent) {
        self.events.tell(event);
    }

    /// Another start of this node is there: goes on as a later one.
    fn begin_anew(&mut self, incarnation: u64) {
        self.say(DriverEvent::Superseded);
        let seeds: Vec<SocketAddr> = self.agent.gossip().members().map(|(member, _)| member.address).collect();
        self.me.incarnation = incarnation.saturating_add(1);
        self.seed.iter_mut().zip(self.me.incarnation.to_le_bytes()).for_each(|(byte, more)| *byte ^= more);
        let now = self.now();
        self.agent.begin_anew(self.me.incarnation, self.seed, now);
        self.tell(Input::Join(seeds));
        self.state.acquainted_at = now + ACQUAINTED;
        self.state.look_at = Some(now + LINGER);
    }

    fn node(&self) -> NodeId {
        self.me.id
    }

    fn replica(&self, endpoint: EndpointId) -> Option<EndpointId> {
        let spec = &self.agent.assigned(endpoint)?.spec;
        let replica = mesh_replica(spec.service?, self.me.id, &spec.container);
        Some(replica).filter(|replica| *replica != endpoint && self.book.get(*replica).is_some())
    }

    fn key_of(&self, endpoint: EndpointId) -> Option<NsKey> {
        self.book.get(endpoint)?.namespace.clone()
    }
}

/// Who does not wait any more need not be told.
fn answer_all(asked: impl Iterator<Item = oneshot::Sender<()>>) {
    for asked in asked {
        let _ = asked.send(());
    }
}

async fn sleep_until(due: Option<tokio::time::Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}
