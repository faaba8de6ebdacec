//! A whole cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use overlay_core::testing::{Dice, FlakyStore, Injected, block_on};
use overlay_core::{Instant, MemoryStore, Name, NetworkId, NodeId, Prefix, Revision, Store, UnixTime};
use overlay_crypto::Chance;
use overlay_crypto::gossip::{Succession, Verifier};
use overlay_gossip::Role;
use overlay_gossip::testing::Net;
use overlay_node::{Agent, Control, Feed, Input, Manager, Me, MemoryPlaces, NodeSpec, Places as _, Stay, Upkeep};

use crate::node::{Connection, Node, vtep};
use crate::observed::{Observed, ObservedNode};
use crate::places::FaultyPlaces;
use crate::plane::Plane;
use crate::poll::poll;
use crate::seal::{Disk, Nonces};
use crate::station::{Beside, Station, UpkeepCounts};
use crate::{ClusterConfig, FabricError};

/// Real nodes in one process, on a virtual clock: managers over one store, an agent on each node, their gossip through a
/// virtual underlay, and places in memory.
///
/// A run is a function of its seed and of the calls; whatever goes wrong names the seed. See the crate's page.
pub struct Cluster {
    pub(crate) seed: u64,
    pub(crate) config: ClusterConfig,
    pub(crate) net: Net<Station>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) memory: MemoryStore,
    pub(crate) store: FlakyStore<MemoryStore>,
    pub(crate) root: Prefix,
    /// Beside which those of the nodes are.
    feed: Feed,
    /// What no fault touches, to look at the catalogue.
    pub(crate) oracle: Manager,
    pub(crate) dice: Dice,
    /// Pairs of nodes between which nothing gets through, each way by itself.
    pub(crate) cut: BTreeSet<(usize, usize)>,
    /// Containers ever started.
    pub(crate) started: u64,
    /// Of a manager's calls, one in so many is broken off.
    pub(crate) break_calls: usize,
    /// How many were.
    pub(crate) broken_calls: u64,
    settle_at: Instant,
    nonces: Option<Nonces>,
    pub(crate) verifier: Arc<Verifier>,
    /// Packets, once somebody asked for any.
    pub(crate) plane: Option<Box<Plane>>,
    /// What nodes that died had counted and found.
    pub(crate) past: UpkeepCounts,
    pub(crate) broken: Vec<String>,
}

/// How often the store is looked at for changes, and managers for reports: a network's round trip is of that size.
const TICK: Duration = Duration::from_millis(10);
/// How often a manager finishes what was left half-done.
const SETTLE: Duration = Duration::from_secs(5);
/// The date at which a run begins: 2026-01-01.
pub(crate) const EPOCH: UnixTime = UnixTime::from_millis(1_767_225_600_000);

impl Cluster {
    /// A cluster of so many nodes with the usual settings, all of which have joined, and its default ingress network.
    ///
    /// # Panics
    /// Never with these settings.
    pub fn new(seed: u64, nodes: usize) -> Self {
        match Self::with(ClusterConfig::default(), seed, nodes) {
            Ok(cluster) => cluster,
            Err(error) => panic!("seed {seed}: the usual settings make no cluster: {error}"),
        }
    }

    /// A cluster of so many nodes with settings of one's own.
    ///
    /// # Errors
    /// If a setting is out of range.
    pub fn with(config: ClusterConfig, seed: u64, nodes: usize) -> Result<Self, FabricError> {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_be_bytes());
        let mut dice = Dice::new(bytes);
        let memory = MemoryStore::with_history(config.history);
        let store = FlakyStore::new(memory.clone(), Dice::new(dice.seed()), 0);
        let root = Prefix::new("cluster/").map_err(FabricError::internal)?;
        let oracle = Manager::new(Arc::new(memory.clone()), &root, NodeId::from_bytes([0xff; 16]), dice.seed());
        let oracle = oracle.map_err(FabricError::internal)?;
        let net = Net::new(config.conditions.clone(), u64::from_be_bytes(first_8(dice.seed())));
        let feed = Feed::new(Arc::new(store.clone()), &root).map_err(FabricError::internal)?;
        let nonces = config.nonces.then(Nonces::default);
        let mut cluster = Self {
            seed,
            config,
            net,
            nodes: Vec::new(),
            memory,
            store,
            root,
            feed,
            oracle,
            dice,
            cut: BTreeSet::new(),
            started: 0,
            break_calls: 0,
            broken_calls: 0,
            settle_at: Instant::ZERO,
            nonces,
            verifier: Self::shared_verifier(),
            plane: None,
            past: UpkeepCounts::default(),
            broken: Vec::new(),
        };
        let ingress = NetworkId::from_bytes(cluster.draw());
        block_on(cluster.oracle.found_cluster(ingress, EPOCH))?;
        (0..nodes).try_for_each(|_| cluster.add_node())?;
        Ok(cluster)
    }

    /// Adds a node, which joins the others. Nodes are numbered from 0.
    ///
    /// # Errors
    /// If a setting is out of range.
    pub fn add_node(&mut self) -> Result<(), FabricError> {
        let number = self.nodes.len();
        let role = if number < self.config.managers.max(1) { Role::Manager } else { Role::Worker };
        let id = NodeId::from_bytes(self.draw());
        let name: Name = format!("node-{number}").parse().map_err(FabricError::internal)?;
        block_on(self.oracle.add_node(id, NodeSpec { name, role }, self.date(number)))?;
        let node = Node {
            id,
            role,
            vtep: vtep(number),
            incarnation: 0,
            places: FaultyPlaces::new(Dice::new(self.dice.seed()), !self.config.without_esp.contains(&number)),
            keys: Disk::default(),
            containers: BTreeMap::new(),
            skew: 0,
            manager: None,
            feed: None,
            is_removed: false,
            reports: Vec::new(),
        };
        self.nodes.push(node);
        let station = self.start(number)?;
        self.net.add(|_, _, _| station);
        self.add_to_plane(number);
        self.join(number);
        Ok(())
    }

    /// The time since the cluster was made.
    pub const fn now(&self) -> Instant {
        self.net.now()
    }

    /// What repeats the run.
    pub const fn seed(&self) -> u64 {
        self.seed
    }

    /// How many nodes there are, dead ones included.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there is no node.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Lets time pass.
    pub fn run_for(&mut self, span: Duration) {
        let until = self.now() + span;
        while self.now() < until {
            self.net.run_for(TICK.min(until - self.now()));
            self.attend();
            self.carry();
        }
    }

    /// Lets time pass until `done`, which is asked every 10 ms, or until `limit` is over: then `None`, otherwise the time that passed.
    pub fn run_until(&mut self, limit: Duration, mut done: impl FnMut(&Self) -> bool) -> Option<Duration> {
        let start = self.now();
        while !done(self) {
            if self.now() - start >= limit {
                return None;
            }
            self.run_for(TICK);
        }
        Some(self.now() - start)
    }

    /// A node's agent; none while it is down.
    pub fn agent(&self, node: usize) -> Option<&Agent> {
        self.net.machine(node).map(|station| &station.agent)
    }

    /// What a node's places hold, to look at and to meddle with; `None` if there is no such node.
    pub fn places(&self, node: usize) -> Option<&MemoryPlaces> {
        self.nodes.get(node).map(|node| &node.places.held)
    }

    /// A node's id; `None` if there is no such node.
    pub fn node_id(&self, node: usize) -> Option<NodeId> {
        self.nodes.get(node).map(|node| node.id)
    }

    /// What faults the store was given so far.
    pub fn store_faults(&self) -> Injected {
        self.store.injected()
    }

    /// How many records the catalogue has, of whatever kind: addresses that are taken among them.
    pub fn records(&self) -> usize {
        self.memory.len()
    }

    /// A copy of all that the places of all nodes hold.
    pub fn observe(&self) -> Observed {
        let nodes = self.nodes.iter().enumerate().map(|(number, node)| ObservedNode {
            vtep: Some(node.vtep),
            containers: node.containers.iter().map(|(name, it)| (name.clone(), it.namespace.clone())).collect(),
            views: self.net.machine(number).map(|station| station.views.clone()),
            places: ObservedNode::of(&node.places.held),
        });
        Observed::new(nodes.collect(), self.cut.clone())
    }

    /// The nodes that run, and are of the catalogue.
    pub(crate) fn members(&self) -> impl Iterator<Item = usize> {
        self.net.running().filter(|number| !self.nodes[*number].is_removed)
    }

    /// The date by a node's clock.
    pub(crate) fn date(&self, node: usize) -> UnixTime {
        let skew = self.nodes.get(node).map_or(0, |node| node.skew);
        let millis = EPOCH.as_millis().saturating_add_signed(skew);
        UnixTime::from_millis(millis) + (self.now() - Instant::ZERO)
    }

    /// Whether what one node sends gets to the other.
    pub(crate) fn reaches(&self, from: usize, to: usize) -> bool {
        from == to || !self.cut.contains(&(from, to))
    }

    /// A new life of a node: its agent, which finds the places that are there.
    pub(crate) fn start(&mut self, number: usize) -> Result<Station, FabricError> {
        let (first, now, seeds) = (self.first_gossip_key(), self.now(), [(); 5].map(|()| self.dice.seed()));
        let node = self.nodes.get_mut(number).ok_or(FabricError::NoNode(number))?;
        node.incarnation += 1;
        if node.role == Role::Manager && !node.is_removed {
            node.manager = Some(manager(&self.store, &self.root, (node.id, seeds[0]))?);
        }
        node.feed = Some(Connection { feed: self.feed.beside(), seen: None });
        let mut config = self.config.agent.clone();
        if self.config.signed {
            config.gossip.tables.verify = self.signing(number).map(|signing| Arc::new(signing) as _);
        }
        let node = self.nodes.get_mut(number).ok_or(FabricError::NoNode(number))?;
        let me = Me {
            id: node.id,
            incarnation: node.incarnation,
            address: Net::<Station>::address(number),
            role: node.role,
            vtep: node.vtep,
            mtu: self.config.mtu,
        };
        let disk = node.keys.clone();
        let mut agent = if self.config.sealed {
            let keys = disk.read().unwrap_or_else(|| Succession::new(first));
            Agent::sealed(config, me, (keys, Chance::new(seeds[4])), seeds[1], now)
        } else {
            Agent::new(config, me, seeds[1], now)
        }
        .map_err(FabricError::internal)?;
        let chance = node.places.protects().map(|()| Chance::new(seeds[3])); // of a simulation: anybody can know it
        agent.set_protection(chance, now);
        let found = node.places.held.places().into_iter().map(|(place, _)| place);
        let upkeep = Upkeep::new(self.config.upkeep, found, now);
        let beside = Beside { seed: seeds[2], watched: self.config.watched, disk, nonces: self.nonces.clone() };
        Ok(Station::new(agent, node.places.clone(), upkeep, beside, now))
    }

    /// Lets a node join through the first three others, and plugs in again what runs on it.
    pub(crate) fn join(&mut self, number: usize) {
        let seeds = (0..self.nodes.len()).filter(|other| *other != number).take(3).map(Net::<Station>::address);
        let plugs = self.nodes.get(number).into_iter().flat_map(|node| node.containers.values());
        let plugs = plugs.flat_map(|container| container.plugs.keys().flat_map(|id| container.plug(*id, true)));
        let inputs: Vec<Input> = [Input::Join(seeds.collect())].into_iter().chain(plugs).collect();
        inputs.into_iter().for_each(|input| self.post(number, input));
    }

    /// Hands an input to a node's agent, a moment later; nothing if it is down.
    pub(crate) fn post(&mut self, number: usize, input: Input) {
        let delay = self.latency();
        self.net.with(number, |station, now| station.post(input, now + delay));
    }

    fn latency(&mut self) -> Duration {
        let latency = &self.net.conditions.latency;
        let span = latency.end.saturating_sub(latency.start).as_micros() as usize;
        latency.start + Duration::from_micros(self.dice.below(span.max(1)) as u64)
    }

    /// A manager that a node can talk to, both ways.
    fn manager_for(&self, node: usize) -> Option<usize> {
        let mutual = |other: usize| self.reaches(node, other) && self.reaches(other, node);
        self.net.running().find(|other| self.nodes[*other].manager.is_some() && mutual(*other))
    }

    /// What goes between nodes and managers, and what managers do by themselves.
    fn attend(&mut self) {
        let at = block_on(self.memory.read(&[])).map(|reading| reading.at).ok();
        for number in 0..self.nodes.len() {
            self.plug_again(number);
            let is_told = self.net.machine(number).is_some() && !self.nodes[number].is_removed;
            if !is_told || self.manager_for(number).is_none() {
                continue;
            }
            self.feed(number, at);
            self.report(number);
        }
        if self.settle_at <= self.now() {
            self.settle_at = self.now() + SETTLE;
            let manager = self.net.running().find(|number| self.nodes[*number].manager.is_some());
            if let Some(manager) = manager.and_then(|number| Some((number, self.nodes[number].manager.as_ref()?))) {
                // What it cannot finish now, it finishes the next time.
                let _ = block_on(manager.1.settle(self.date(manager.0)));
            }
        }
    }

    /// What the agent unplugged because of news that were overtaken (a container that moved away and back) runs here still, so the
    /// runtime plugs it in again.
    fn plug_again(&mut self, number: usize) {
        if self.net.machine(number).is_none_or(|station| station.withdrawn.is_empty()) {
            return;
        }
        let withdrawn = self.net.with(number, |station, _| std::mem::take(&mut station.withdrawn));
        for endpoint in withdrawn.unwrap_or_default() {
            let plug: Vec<_> = self.nodes[number].containers.values().flat_map(|it| it.plug(endpoint, true)).collect();
            plug.into_iter().for_each(|input| self.post(number, input));
        }
    }

    /// Hands on what changed in the catalogue, if anything did.
    fn feed(&mut self, number: usize, at: Option<Revision>) {
        let mut told = Vec::new();
        if let Some(connection) = &mut self.nodes[number].feed {
            while connection.seen.is_none() || connection.seen != at {
                match poll(connection.feed.next()) {
                    Some(Ok(changes)) => told.extend(changes),
                    Some(Err(_)) => break,
                    None => connection.seen = at,
                }
            }
        }
        told.into_iter().for_each(|change| self.post(number, Input::Catalogue(change)));
    }

    /// Passes on what a node says of its endpoints.
    fn report(&mut self, number: usize) {
        if self.net.machine(number).is_some_and(|station| !station.reports.is_empty()) {
            let new = self.net.with(number, |station, _| std::mem::take(&mut station.reports));
            self.nodes[number].reports.extend(new.unwrap_or_default());
        }
        if self.nodes[number].reports.is_empty() {
            return;
        }
        let (Some(manager), id) = (self.manager_for(number), self.nodes[number].id) else { return };
        let reports = std::mem::take(&mut self.nodes[number].reports);
        let Some(manager) = &self.nodes[manager].manager else { return };
        // The first that gets nowhere holds back the others: a later report of an endpoint must not come before an earlier one.
        let lost = |(endpoint, moves, result): &(_, u64, Result<(), String>)| {
            let stay = Stay { node: id, moves: *moves };
            block_on(manager.report(*endpoint, stay, result.clone())).is_err_and(|error| error.refusal().is_none())
        };
        let from = reports.iter().position(lost).unwrap_or(reports.len());
        self.nodes[number].reports = reports.into_iter().skip(from).collect();
    }

    /// Whether nothing is on its way to or from the catalogue, and all running nodes hold what they want.
    pub(crate) fn is_quiet(&self) -> bool {
        let at = block_on(self.memory.read(&[])).map(|reading| reading.at).ok();
        self.members().all(|number| {
            let node = &self.nodes[number];
            node.reports.is_empty()
                && node.feed.as_ref().is_some_and(|connection| connection.seen == at)
                && self.net.machine(number).is_some_and(Station::is_settled)
        })
    }
}

/// A node's manager.
pub(crate) fn manager(
    store: &FlakyStore<MemoryStore>,
    root: &Prefix,
    (node, seed): (NodeId, [u8; 32]),
) -> Result<Manager, FabricError> {
    Manager::new(Arc::new(store.clone()), root, node, seed).map_err(FabricError::internal)
}

fn first_8(seed: [u8; 32]) -> [u8; 8] {
    let [a, b, c, d, e, f, g, h, ..] = seed;
    [a, b, c, d, e, f, g, h]
}

impl fmt::Debug for Cluster {
    /// What repeats the run, and how far it is.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seed, now, running) = (self.seed, self.now(), self.net.running().count());
        write!(f, "seed {seed} at {now}: {running} of {} nodes running", self.nodes.len())
    }
}
