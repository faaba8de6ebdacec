//! Setting a driver up.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use overlay_core::{Instant, Name, NodeId, Port, told};
use overlay_crypto::Chance;
use overlay_crypto::gossip::GossipKey;
use overlay_gossip::Role;
use overlay_node::{
    Agent, AgentConfig, Control, GatewayBridge, Manager, Me, NodeSpec, Reference, Upkeep, UpkeepConfig,
};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use zeroize::Zeroizing;

use crate::book::{Book, Plugged};
use crate::chance::fill;
use crate::control::{Credentials, Follow};
use crate::driver::{Driver, now};
use crate::events::Events;
use crate::gateway;
use crate::ground::Ground;
use crate::heart::{Ears, Heart, Jobs, News, State};
use crate::hints::Hints;
use crate::home::Home;
use crate::membership::about;
use crate::reporter::{Reporter, report_now};
use crate::resolvers::Resolvers;
use crate::seal::{self, KeepGossipKeys, KeyFile, Writing};
use crate::signed;
use crate::streams::Streams;
use crate::works::Works;
use crate::{DriverEvent, StartError};

/// What a [`Driver`] is started with. Everything but what [`Driver::builder`] takes has a usual value.
#[derive(Debug)]
pub struct Builder<G> {
    node: NodeId,
    ground: G,
    control: Arc<dyn Control>,
    catalogue: Box<dyn Follow>,
    name: Option<Name>,
    role: Role,
    dir: PathBuf,
    gossip: SocketAddr,
    vtep: Option<IpAddr>,
    upstreams: Vec<SocketAddr>,
    keys: Vec<GossipKey>,
    kept_keys: Option<Arc<dyn KeepGossipKeys>>,
    credentials: Option<Credentials>,
    takes_unsigned: bool,
    agent: AgentConfig,
    upkeep: UpkeepConfig,
    workers: usize,
    manager: Option<Arc<Manager>>,
    leads: Option<watch::Receiver<bool>>,
    gateway: Option<Option<GatewayBridge>>,
}

/// How often a manager settles what was left half-done.
const SETTLE: Duration = Duration::from_secs(60);
/// How long a node that starts again waits for others before it answers names without them.
const UNHEARD: Duration = Duration::from_millis(500);
/// How long the catalogue rests that could not be heard, and twice as long after each further time.
const DEAF: Duration = Duration::from_millis(500);
/// And no longer than that: many nodes may come back to one manager.
const DEAF_MOST: Duration = Duration::from_secs(4);

impl<G: Ground> Builder<G> {
    pub(crate) fn new(node: NodeId, ground: G, control: Arc<dyn Control>, catalogue: Box<dyn Follow>) -> Self {
        Self {
            node,
            ground,
            control,
            catalogue,
            name: None,
            role: Role::Worker,
            dir: PathBuf::from("/run/overlay"),
            gossip: SocketAddr::new(IpAddr::from([127, 0, 0, 1]), Port::GOSSIP.get()),
            vtep: None,
            upstreams: Vec::new(),
            keys: Vec::new(),
            kept_keys: None,
            credentials: None,
            takes_unsigned: false,
            agent: AgentConfig::lan(),
            upkeep: UpkeepConfig { retry_first: Duration::from_millis(20), ..UpkeepConfig::default() },
            workers: 8,
            manager: None,
            leads: None,
            gateway: None,
        }
    }

    /// What people call the node; the beginning of its id if it has no name.
    #[must_use]
    pub fn name(self, name: Name) -> Self {
        Self { name: Some(name), ..self }
    }

    /// Where gossip is bound and reached: an address of the host that the other nodes can send to, and a port, of 0 any. Tunnels end at the
    /// same address, unless [`vtep`](Self::vtep) says otherwise. 127.0.0.1, port 7946.
    #[must_use]
    pub fn gossip(self, address: SocketAddr) -> Self {
        Self { gossip: address, ..self }
    }

    /// The keys that all nodes of the cluster have: gossip is sealed with the first and opened with any, [`Keyring::LIMIT`](overlay_crypto::gossip::Keyring::LIMIT) at most, and what nobody sealed is as if it
    /// had not come. None: gossip goes as it is, and whoever reaches its port is believed, unless an earlier start has [written keys down](Self::gossip_key_file). The first key comes to a node by another way than gossip;
    /// later ones come by it, and are written down. Of these keys none counts that was here and was retired.
    #[must_use]
    pub fn gossip_keys(self, keys: impl IntoIterator<Item = GossipKey>) -> Self {
        Self { keys: keys.into_iter().collect(), ..self }
    }

    /// Where the keys of gossip are written down as they change, for this node alone: a file that outlives the machine's start, or the node may not know the cluster's key after it.
    /// `gossip-keys` in the [directory](Self::dir).
    #[must_use]
    pub fn gossip_key_file(self, file: impl Into<PathBuf>) -> Self {
        self.gossip_keys_kept(Arc::new(KeyFile(file.into())))
    }

    /// As [`gossip_key_file`](Self::gossip_key_file), but somewhere else than in a file of their own: in the node's [`OpenVault`](crate::OpenVault), say.
    #[must_use]
    pub fn gossip_keys_kept(self, kept: Arc<dyn KeepGossipKeys>) -> Self {
        Self { kept_keys: Some(kept), ..self }
    }

    /// Signs what the node says by gossip with a key that its certificate vouches for, and takes from others only what they have signed so, that they are there included: then a node that was taken over cannot speak in another's
    /// name. All nodes of a cluster do, or none: who does not is not believed by who does. What is shown follows the certificate as it is renewed. Usual for who [is a member](crate::Membership); without it, whoever has the
    /// key of gossip is believed whatever he says.
    #[must_use]
    pub fn signed(self, credentials: &Credentials) -> Self {
        Self { credentials: Some(credentials.clone()), ..self }
    }

    /// With [`signed`](Self::signed), takes what a node says that has never signed anything, too: while a cluster is brought from a release that does not sign to one that does, node by node.
    #[must_use]
    pub fn taking_unsigned(self) -> Self {
        Self { takes_unsigned: true, ..self }
    }

    /// Where tunnels end: an address of the host's.
    #[must_use]
    pub fn vtep(self, address: IpAddr) -> Self {
        Self { vtep: Some(address), ..self }
    }

    /// A directory that is this node's alone, where it is written down what is plugged in. It is made if it is not there.
    /// `/run/overlay`.
    #[must_use]
    pub fn dir(self, dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), ..self }
    }

    /// Who is asked for the names of the world: the host's servers, say ([`ResolvConf`](overlay_dns::ResolvConf)). Nobody, which
    /// refuses such names.
    #[must_use]
    pub fn upstreams(self, servers: impl IntoIterator<Item = SocketAddr>) -> Self {
        Self { upstreams: servers.into_iter().collect(), ..self }
    }

    /// The subnets of the node's gateway bridge, by which containers reach the outside; `None` if they should not. Whatever the agent's
    /// [settings](Self::agent) say of it. If this is not called: the first private subnet that the host has no route to, which is written down in the
    /// directory.
    #[must_use]
    pub fn gateway(self, bridge: Option<GatewayBridge>) -> Self {
        Self { gateway: Some(bridge), ..self }
    }

    /// How its agent is set: all nodes of a cluster agree on it.
    #[must_use]
    pub fn agent(self, config: AgentConfig) -> Self {
        Self { agent: config, ..self }
    }

    /// When places are looked at, and tried again.
    #[must_use]
    pub fn upkeep(self, config: UpkeepConfig) -> Self {
        Self { upkeep: config, ..self }
    }

    /// How many places are worked on at once, each on a thread. At least 1; 8.
    #[must_use]
    pub fn workers(self, workers: usize) -> Self {
        Self { workers: workers.max(1), ..self }
    }

    /// The node is a manager: once a minute it settles what managers left half-done.
    #[must_use]
    pub fn manager(self, manager: Arc<Manager>) -> Self {
        Self { manager: Some(manager), role: Role::Manager, ..self }
    }

    /// A manager that does that only while it leads, as one of several: it would do no harm otherwise, but all would read the whole catalogue for it. See
    /// [`Leading::watch`](crate::Leading::watch).
    #[must_use]
    pub fn settles_while(self, leads: watch::Receiver<bool>) -> Self {
        Self { leads: Some(leads), ..self }
    }

    /// Starts the node: binds its sockets, adds it to the catalogue, plugs in again what an earlier start of it had plugged in. What that
    /// left in the kernel stays as it is until the catalogue and the other nodes were heard.
    ///
    /// # Errors
    /// See [`StartError`].
    ///
    /// # Panics
    /// As [`tokio::spawn`], outside a runtime.
    pub async fn start(mut self) -> Result<Driver, StartError> {
        self.ground.list().map_err(StartError::Places)?; // who may not is told so before anything is changed
        let home = Home::of(self.ground.host());
        let lock = self.lock()?;
        let book = Book::open(&self.dir.join("plugs"))?;
        let events = Events::new(self.node);
        let (udp, tcp) = home.bind(self.gossip).map_err(|source| StartError::Bind { address: self.gossip, source })?;
        let (udp, tcp) = served(udp, tcp).map_err(StartError::Runtime)?;
        let address = udp.local_addr().map_err(StartError::Runtime)?;
        let vtep = self.vtep.unwrap_or_else(|| address.ip());
        let mtu = home.mtu(vtep).map_err(StartError::Underlay)?.ok_or(StartError::Vtep { vtep })?;
        let me = Me { id: self.node, incarnation: now().as_millis(), address, role: self.role, vtep, mtu };
        let (mut seed, mut names_seed) = ([0; 32], [0; 32]);
        fill(&mut seed).and_then(|()| fill(&mut names_seed)).map_err(StartError::Seed)?;
        self.agent.gateway = match self.gateway {
            Some(bridge) => bridge,
            None => Some(gateway::choose(&self.dir, self.node, self.ground.host().as_deref(), &events)?),
        };
        if let (Some(host), Ok(called)) = (self.ground.host(), Name::new("host")) {
            self.agent.host = Some(host.key(called));
        }
        let agent = self.agent_of(me, seed)?;
        let name = self.name.clone().or_else(|| self.node.short().to_string().parse().ok());
        if let Some(name) = name {
            self.control.add_node(self.node, NodeSpec { name, role: self.role }, now()).await?;
        }
        let (commands, ears, mouths) = channels();
        let streams = Streams::new(tcp, home.clone());
        let hints = Hints::start(mouths.heard).map_err(StartError::Runtime)?;
        let (plugged, book) = self.enter_again(book, &events).await;
        let found = self.ground.list().map_err(StartError::Places)?;
        let mut state = State::of(found.iter().cloned().collect(), Instant::ZERO + UNHEARD);
        state.writing = Writing::to(self.kept_keys(), &agent);
        let heart = Heart {
            works: Works::new(self.ground.clone(), self.node, self.workers, mouths.done),
            resolvers: Resolvers::new(self.ground.clone(), home.clone(), self.upstreams, names_seed, mouths.bound),
            upkeep: Upkeep::new(self.upkeep, found, Instant::ZERO),
            reporter: Reporter::start(self.control.clone(), self.node, events.clone()),
            agent,
            config: self.agent,
            me,
            seed,
            origin: tokio::time::Instant::now(),
            udp,
            streams,
            ground: self.ground,
            home,
            hints,
            book,
            control: self.control.clone(),
            events: events.clone(),
            news: mouths.news.clone(),
            jobs: Jobs::default(),
            state,
        };
        let settled = self.manager.map(|manager| (manager, self.leads));
        let (catalogue, news, shows) = (self.catalogue, mouths.news, self.credentials);
        run(heart, ears, plugged, Beside { catalogue, news, events: events.clone(), settled, shows }, lock);
        Ok(Driver { node: self.node, address, control: self.control, commands, events })
    }

    /// The node's agent, its gossip sealed if there are keys for it.
    fn agent_of(&mut self, me: Me, seed: [u8; 32]) -> Result<Agent, StartError> {
        let mut chance = chance()?;
        let keys = seal::found(&*self.kept_keys(), std::mem::take(&mut self.keys))?;
        let mut agent = match keys {
            None => Agent::new(self.settings()?, me, seed, Instant::ZERO)?,
            Some(keys) => {
                let keys = (keys, seal::beside(&mut chance));
                Agent::sealed(self.settings()?, me, keys, seed, Instant::ZERO)?
            }
        };
        agent.set_protection(self.ground.protects().map(|()| chance), Instant::ZERO);
        Ok(agent)
    }

    fn kept_keys(&self) -> Arc<dyn KeepGossipKeys> {
        self.kept_keys.clone().unwrap_or_else(|| Arc::new(KeyFile(self.dir.join("gossip-keys"))))
    }

    /// How its agent is set: as was said, but that it confirms what it has acted upon, and signs what it says if it has a certificate.
    fn settings(&self) -> Result<AgentConfig, StartError> {
        let mut settings = self.agent.clone();
        settings.gossip.tables.act_within = Some(Driver::ACTED_WITHIN);
        if let Some(credentials) = &self.credentials {
            let signing = signed::signing(credentials)?;
            let signing = if self.takes_unsigned { signing.taking_unsigned() } else { signing };
            settings.gossip.tables.verify = Some(Arc::new(signing));
        }
        Ok(settings)
    }

    /// Of two processes with one directory the second does not start.
    fn lock(&self) -> Result<File, StartError> {
        let failed = |source| StartError::Dir { dir: self.dir.clone(), source };
        fs::create_dir_all(&self.dir).map_err(failed)?;
        let lock = File::create(self.dir.join("lock")).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => Ok(lock),
            Err(fs::TryLockError::WouldBlock) => Err(StartError::Running { dir: self.dir.clone() }),
            Err(fs::TryLockError::Error(source)) => Err(failed(source)),
        }
    }

    /// Enters again what is written down; what is not there any more is erased.
    async fn enter_again(&mut self, mut book: Book, events: &Events) -> (Vec<Plugged>, Book) {
        let mut again = Vec::new();
        for (endpoint, file, reason) in book.damaged() {
            let (what, reason) =
                (file.display().to_string(), format!("{reason}; detach it, and attach its container again"));
            let ended = Err(format!("what was written of it on its node, {what}, cannot be read: {reason}"));
            let _ = report_now(&*self.control, endpoint, self.node, ended).await;
            events.tell(DriverEvent::Unreadable { what, reason });
        }
        let written: Vec<Plugged> = book.all().cloned().collect();
        for plugged in written {
            let there = plugged.namespace.as_ref().is_none_or(|key| self.ground.is_there(&plugged.source, key));
            let entered = there && self.ground.enter(&plugged.container, &plugged.source).is_ok();
            if entered {
                again.push(plugged);
            } else {
                let _ = book.erase(plugged.endpoint);
                let ended = Err("its container has ended".to_owned());
                let _ = report_now(&*self.control, plugged.endpoint, self.node, ended).await;
                events.tell(DriverEvent::Vanished(plugged.endpoint));
            }
        }
        (again, book)
    }
}

type Sockets = (tokio::net::UdpSocket, tokio::net::TcpListener);

fn served(udp: std::net::UdpSocket, tcp: std::net::TcpListener) -> io::Result<Sockets> {
    udp.set_nonblocking(true)?;
    tcp.set_nonblocking(true)?;
    Ok((tokio::net::UdpSocket::from_std(udp)?, tokio::net::TcpListener::from_std(tcp)?))
}

/// The ends that others speak into.
struct Mouths {
    news: mpsc::UnboundedSender<News>,
    done: mpsc::UnboundedSender<crate::works::Done>,
    bound: mpsc::UnboundedSender<crate::resolvers::Bound>,
    heard: mpsc::UnboundedSender<overlay_node::Place>,
}

fn channels() -> (mpsc::Sender<crate::heart::Command>, Ears, Mouths) {
    let (commands, heard_commands) = mpsc::channel(64);
    let ((news, n), (done, d)) = (mpsc::unbounded_channel(), mpsc::unbounded_channel());
    let ((bound, b), (heard, h)) = (mpsc::unbounded_channel(), mpsc::unbounded_channel());
    let ears = Ears { commands: heard_commands, news: n, done: d, bound: b, heard: h };
    (commands, ears, Mouths { news, done, bound, heard })
}

/// What feeds a heart, or is done beside it.
struct Beside {
    catalogue: Box<dyn Follow>,
    news: mpsc::UnboundedSender<News>,
    events: Events,
    /// Who settles, and while what holds.
    settled: Option<(Arc<Manager>, Option<watch::Receiver<bool>>)>,
    shows: Option<Credentials>,
}

/// Runs a heart, and what feeds it, until it ends.
fn run<G: Ground>(
    mut heart: Heart<G>,
    mut ears: Ears,
    plugged: Vec<Plugged>,
    Beside { catalogue, news, events, settled, shows }: Beside,
    lock: File,
) {
    for plugged in plugged {
        let _ = heart.tell_plugged(&plugged, true); // it was taken by an earlier start
    }
    let watched = heart.state.wanted.subscribe();
    tokio::spawn(async move {
        let mut beside = JoinSet::new();
        if let Some(credentials) = shows {
            beside.spawn(signed::show(credentials, news.clone()));
        }
        beside.spawn(follow(catalogue, news, events, watched));
        if let Some(settled) = settled {
            beside.spawn(settle(settled.0, settled.1));
        }
        heart.run(&mut ears).await;
        beside.shutdown().await;
        let Ears { commands, news, done, bound, heard } = ears;
        drop((news, done, bound, heard)); // what nobody has taken holds sockets, too
        drop(lock);
        drop(commands); // the handles see by it that all has ended
    });
}

/// Hears of the catalogue, without end, and has what concerns the services that are watched be told.
async fn follow(
    mut catalogue: Box<dyn Follow>,
    news: mpsc::UnboundedSender<News>,
    events: Events,
    mut watched: watch::Receiver<BTreeSet<Reference>>,
) {
    let (mut rest, mut unread) = (DEAF, BTreeMap::new());
    loop {
        let (heard, asked) = tokio::select! {
            heard = catalogue.next() => (heard, None),
            Ok(()) = watched.changed() => {
                let services = watched.borrow_and_update().clone();
                (catalogue.watch(services.clone()).await, Some(services))
            }
        };
        tell_unread(&mut unread, catalogue.unreadable(), &events);
        let failed = heard.as_ref().err().map(|error| told(error));
        let heard = heard.ok().filter(|changes| !changes.is_empty()).map(News::Catalogue);
        let is_deaf = failed.is_some();
        // Where nobody can be asked, what is known is the best there is.
        let all = heard.into_iter().chain(failed.map(News::Deaf)).chain(asked.map(News::Watching));
        for it in all {
            if news.send(it).is_err() {
                return;
            }
        }
        if !is_deaf {
            rest = DEAF;
            continue;
        }
        tokio::select! {
            () = tokio::time::sleep(about(rest)) => {}
            Ok(()) = watched.changed() => watched.mark_changed(),
        }
        rest = (rest * 2).min(DEAF_MOST);
    }
}

/// Tells of what cannot be read, once.
fn tell_unread(before: &mut BTreeMap<String, String>, now: BTreeMap<String, String>, events: &Events) {
    for (what, reason) in now.iter().filter(|(what, _)| !before.contains_key(*what)) {
        events.tell(DriverEvent::Unreadable { what: what.clone(), reason: reason.clone() });
    }
    *before = now;
}

async fn settle(manager: Arc<Manager>, leads: Option<watch::Receiver<bool>>) {
    let mut now_and_then = tokio::time::interval(SETTLE);
    #[expect(clippy::infinite_loop, reason = "who started it ends it")]
    loop {
        now_and_then.tick().await;
        if leads.as_ref().is_none_or(|leads| *leads.borrow()) {
            let _ = manager.settle(now()).await; // what is in the way is tried again
        }
    }
}

/// Chance for keys.
fn chance() -> Result<Chance, StartError> {
    let mut bytes = Zeroizing::new([0; 32]);
    fill(bytes.as_mut_slice()).map_err(StartError::Seed)?;
    Ok(Chance::new(*bytes))
}
