//! The machine on every node.

mod catalogue;
mod config;
mod gossip;
mod input;
mod keyring;
mod local;
mod metrics;
mod report;
mod seal;
mod watch;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use overlay_core::{EndpointId, Instant, Mtu, NetworkId, NodeId};
use overlay_crypto::{Cause, RotationConfig};
use overlay_dns::Health;
use overlay_gossip::{Gossip, Heard, Member, Metadata, Reason};
use overlay_lb::Ask;

pub use config::{AgentConfig, AgentError, Me, UnderlayError};
pub use input::{AgentEvent, Input, InputError};
pub use metrics::{AgentMetrics, Contested};
pub(crate) use report::own_ends;
pub use report::{masqueraded, unpublished};
pub use seal::{GossipKeyChange, GossipKeyError};

#[cfg(feature = "testing")]
pub(crate) use keyring::agreed;

use catalogue::Catalogue;
use keyring::{Keyring, Offers};
use local::{Plug, Told};
use report::Reports;
use watch::Watches;

use crate::derive::Deriver;
use crate::explain::{Said, explain_with};
use crate::knowledge::Claims;
use crate::{
    Contest, Desired, Endpoint, Explanation, Knowledge, NodeFacts, Protection, RemoteEndpoint, Standing, Target,
    Underlay, mesh,
};

/// What runs on every node: it gathers what the node must know, from the catalogue, from other nodes and from the container
/// runtime, and says what the node should hold. A machine without I/O.
///
/// After every call that takes `now`, poll [`poll_transmit`](Self::poll_transmit) and [`poll_event`](Self::poll_event) until
/// they are empty, then ask [`poll_timeout`](Self::poll_timeout) when to call [`handle_timeout`](Self::handle_timeout). At
/// [`AgentEvent::Changed`], have the places hold what is [`desired`](Self::desired), and give [`Input::Applied`] back for each.
///
/// A network is followed from the moment the catalogue has an endpoint of it on this node, and while a service on it is watched: so its peers are known before the
/// endpoint is plugged in, and in place when it is. It has a place while an endpoint is plugged in.
#[derive(Debug)]
pub struct Agent {
    gossip: Gossip,
    knowledge: Knowledge,
    catalogue: Catalogue,
    /// Of the networks that are followed.
    claims: BTreeMap<NetworkId, Claims>,
    /// What nodes said that have started again since, by network: until when it counts.
    lapsing: BTreeMap<(NetworkId, NodeId), Instant>,
    plugs: BTreeMap<EndpointId, Plug>,
    /// What this node tells in the tables.
    told: BTreeMap<EndpointId, Told>,
    /// What keys come of; none if the node cannot encrypt.
    keyring: Option<Keyring>,
    /// How its keys are rotated.
    rotation: RotationConfig,
    /// The keys that nodes have published.
    offers: Offers,
    /// Whether the rotation of keys may go on.
    doubt_keys: bool,
    /// Whether others have published other keys.
    doubt_records: bool,
    /// What gossip is sealed with; none if it is not.
    seal: Option<seal::Seal>,
    /// What this node has said of that.
    seals_told: seal::SealsTold,
    reports: Reports,
    watches: Watches,
    deriver: Deriver,
    /// Endpoints of this node, and networks, of which something changed since they were looked at last.
    touched: BTreeSet<EndpointId>,
    touched_networks: BTreeSet<NetworkId>,
    /// Networks whose endpoints here changed since then.
    shifted: BTreeSet<NetworkId>,
    /// Whether the node was told to take no part in the routing mesh any more.
    out_of_mesh: bool,
    changed: bool,
    events: VecDeque<AgentEvent>,
    counts: AgentMetrics,
}

impl Agent {
    /// The agent of the node `me`, alone until it has [joined](Input::Join) others.
    ///
    /// `me.incarnation` must be greater than at every earlier start of this node.
    ///
    /// # Errors
    /// If something of the configuration is out of range, or `me` has no address that others could send to.
    pub fn new(config: AgentConfig, me: Me, seed: [u8; 32], now: Instant) -> Result<Self, AgentError> {
        let settings = config.settings(&me)?;
        let underlay = me.underlay()?;
        let facts = facts(&underlay, me.address, Standing::Alive);
        let member =
            Member { role: me.role, metadata: metadata(&underlay), ..Member::new(me.id, me.incarnation, me.address) };
        Ok(Self {
            gossip: Gossip::new(config.gossip, member, seed, now)?,
            knowledge: Knowledge {
                me: me.id,
                nodes: Arc::new([(me.id, facts)].into()),
                networks: BTreeMap::new(),
                gateway_ports: Arc::default(),
                records: Arc::default(),
                rotated: None,
                protection: Protection::default(),
                settings: Arc::new(settings),
            },
            catalogue: Catalogue::default(),
            claims: BTreeMap::new(),
            lapsing: BTreeMap::new(),
            plugs: BTreeMap::new(),
            told: BTreeMap::new(),
            keyring: None,
            rotation: config.rotation,
            offers: Offers::default(),
            doubt_keys: false,
            doubt_records: false,
            seal: None,
            seals_told: seal::SealsTold::default(),
            reports: Reports::default(),
            watches: Watches::default(),
            deriver: Deriver::default(),
            touched: BTreeSet::new(),
            touched_networks: BTreeSet::new(),
            shifted: BTreeSet::new(),
            out_of_mesh: false,
            changed: false,
            events: VecDeque::new(),
            counts: AgentMetrics::default(),
        })
    }

    /// Goes on as a later start of this node, after [`AgentEvent::Superseded`]: with all that the catalogue, the container runtime and places
    /// have told, but knowing no other node; so have it [`Join`](Input::Join) them. `incarnation` is greater than that of any start
    /// before, and `seed` is new.
    pub fn begin_anew(&mut self, incarnation: u64, seed: [u8; 32], now: Instant) {
        self.gossip.begin_anew(incarnation, seed, now);
        self.keyring.iter_mut().for_each(|keyring| keyring.begin_anew(incarnation));
        let me = self.knowledge.me;
        Arc::make_mut(&mut self.knowledge.nodes).retain(|id, _| *id == me);
        self.knowledge.networks.clear();
        (self.claims, self.lapsing, self.told, self.offers) = Default::default();
        self.knowledge.records = Arc::default();
        self.seals_told = seal::SealsTold::default();
        self.doubt_seal();
        self.touched_networks.extend(self.catalogue.networks.keys());
        self.touched.extend(self.catalogue.endpoints.keys());
        self.changed = true;
        self.settle(now);
    }

    /// Takes what happened.
    ///
    /// # Errors
    /// If it makes no sense; then nothing has changed but a count.
    pub fn handle(&mut self, input: Input, now: Instant) -> Result<(), InputError> {
        match input {
            Input::Message { from, class, payload } => {
                let payload = self.open(from, class, payload, now)?;
                self.gossip.handle(from, class, &payload, now)?;
            }
            Input::Catalogue(change) => self.handle_catalogue(change, now),
            Input::Join(seeds) => self.gossip.join(&seeds, now),
            Input::Plug { endpoint, namespace, interface, adopted } => {
                self.plug(endpoint, (namespace, interface), adopted)?;
            }
            Input::GatewayPort { container, port } => self.set_gateway_port(container, port)?,
            Input::Unplug(endpoint) => self.unplug(endpoint),
            Input::Health(endpoint, health) => self.set_health(endpoint, health),
            Input::Watch(service) => self.watch(service),
            Input::Unwatch(service) => self.unwatch(&service),
            Input::Underlay { vtep, mtu } => self.set_underlay(vtep, mtu, now)?,
            Input::Applied { place, state, result } => self.handle_applied(place, state, result),
            Input::Taken(taken) => {
                self.reports.take(taken);
                self.touched.extend(self.plugs.keys());
            }
            Input::Rekey => self.rekey(),
            Input::Used(usage) => self.use_keys(&usage, now),
            Input::RotateKeys => self.rotate_keys(Cause::Demand, now),
            Input::RotateGossipKeys { without } => self.rotate_gossip(without, now),
            Input::GossipWithout(node) => self.rotate_gossip_without(node, now),
            Input::GossipKeysKept { version } => self.keep_gossip_keys(version),
            Input::Vouch => self.gossip.vouch(now),
            Input::Leave => self.gossip.leave(now),
        }
        self.settle(now);
        Ok(())
    }

    /// Does what is due. Harmless when nothing is.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.gossip.handle_timeout(now);
        self.settle(now);
    }

    /// When to call [`handle_timeout`](Self::handle_timeout), and what for; `None` if only an input can bring work.
    pub fn poll_timeout(&self) -> Option<(Instant, Reason)> {
        let lapses = self.lapsing.values().min().map(|until| (*until, Reason::Tables));
        let keys = self.keys_due().map(|at| (at, Reason::Tables));
        let gossip = self.gossip.poll_timeout();
        let seal = self.seal.as_ref().and_then(seal::Seal::poll_timeout).map(|at| (at, Reason::Tables));
        [lapses, keys, seal, gossip].into_iter().flatten().min_by_key(|(at, _)| *at)
    }

    /// The next thing that happened.
    pub fn poll_event(&mut self) -> Option<AgentEvent> {
        if std::mem::take(&mut self.changed) {
            return Some(AgentEvent::Changed);
        }
        self.events.pop_front()
    }

    /// What this node should hold. What did not change since the last call is the same `Arc`.
    ///
    /// O(what changed), and O(n) for the places that a change is in: a place's value is whole.
    pub fn desired(&mut self) -> Arc<Desired> {
        self.deriver.derive(&self.knowledge)
    }

    /// What this node knows.
    pub const fn knowledge(&self) -> &Knowledge {
        &self.knowledge
    }

    /// An endpoint that is on this node, by what the catalogue said last.
    pub fn assigned(&self, endpoint: EndpointId) -> Option<&Endpoint> {
        self.catalogue.endpoints.get(&endpoint).map(AsRef::as_ref)
    }

    /// This node's endpoints in the routing mesh: it plugs them in by itself. One that is [unplugged](Input::Unplug) stays so.
    pub fn in_mesh(&self) -> impl Iterator<Item = EndpointId> {
        let is_part = |id: &&EndpointId| self.assigned(**id).is_some_and(|endpoint| self.is_of_mesh(endpoint));
        self.plugs.keys().filter(is_part).copied()
    }

    /// What was said last of an endpoint that is plugged in; `None` of one that is not.
    pub fn health(&self, endpoint: EndpointId) -> Option<Health> {
        self.plugs.get(&endpoint).map(|plug| plug.health)
    }

    /// The live nodes that have not confirmed yet what this node said last of an endpoint here. This node itself, as long as it says nothing of it:
    /// others may hold something older then.
    ///
    /// # Errors
    /// Why the others cannot be told of it, in words: then they have heard something older, if anything.
    pub fn unheard(&self, endpoint: EndpointId) -> Result<BTreeSet<NodeId>, String> {
        if let Some(reason) = self.reports.why_untold(endpoint) {
            return Err(reason.to_owned());
        }
        Ok(match self.told.get(&endpoint) {
            Some(told) => self.gossip.behind(told.network, told.sequence).collect(),
            None => [self.knowledge.me].into(),
        })
    }

    /// Up to which number what others say was heard: [`desired`](Self::desired) follows from all of it.
    pub const fn heard(&self) -> Heard {
        self.gossip.heard()
    }

    /// All places hold what follows from what was [heard](Self::heard) up to this number, or cannot. See [`Gossip::acted`].
    pub fn acted(&mut self, through: Heard) {
        self.gossip.acted(through);
    }

    /// The gossip beneath: who is there, and through which of this node's changes everybody has confirmed.
    pub const fn gossip(&self) -> &Gossip {
        &self.gossip
    }

    /// Why an endpoint here does not reach a name or an address, or how it does: see [`explain`](crate::explain()).
    pub fn explain(&self, from: EndpointId, to: &Target, held: &Desired) -> Explanation {
        let said = self.said().map(|(network, _, endpoint, why)| Said { network, endpoint, why });
        explain_with(&self.knowledge, &said.collect::<Vec<_>>(), (from, to), held)
    }

    /// What becomes of a client that asks this node for a published port: see [`explain_published`](crate::explain_published()).
    pub fn explain_published(&self, ask: &Ask, held: &Desired) -> Explanation {
        crate::explain_published(&self.knowledge, ask, held)
    }

    /// What nodes say of endpoints that does not count: of which endpoint of which network, which node, and why. What comes or moves is among them for a moment; what stays is somebody's lie, or a
    /// catalogue that is late.
    pub fn contested(&self) -> impl Iterator<Item = (NetworkId, EndpointId, NodeId, Contest)> {
        self.said().map(|(network, endpoint, said, why)| (network, endpoint, said.node, why))
    }

    /// The same, with what is said.
    fn said(&self) -> impl Iterator<Item = (NetworkId, EndpointId, &RemoteEndpoint, Contest)> {
        self.claims.iter().flat_map(|(network, claims)| {
            let section = self.knowledge.networks.get(network).into_iter();
            let contested = section.flat_map(|section| claims.contested(section, &self.catalogue.assigned));
            contested.map(|(endpoint, said, why)| (*network, endpoint, said, why))
        })
    }

    /// A snapshot of counts and lengths. O(owners of entries).
    pub fn metrics(&self) -> AgentMetrics {
        self.measure()
    }

    /// Has the node say something in a table that it would not say by itself, as one that was taken over may; whether it could.
    #[cfg(feature = "testing")]
    pub fn say(&mut self, at: overlay_gossip::EntryKey, value: bytes::Bytes, now: Instant) -> bool {
        let said = self.gossip.put(at, value, now).is_ok();
        self.settle(now);
        said
    }

    /// Whether an endpoint is its node's part of the routing mesh.
    fn is_of_mesh(&self, endpoint: &Endpoint) -> bool {
        self.catalogue.networks.get(&endpoint.spec.network).is_some_and(|network| mesh::is_part(network, endpoint))
    }

    fn set_underlay(&mut self, vtep: IpAddr, mtu: Mtu, now: Instant) -> Result<(), UnderlayError> {
        let underlay = Underlay { vtep, mtu };
        config::check(&underlay)?;
        self.say_underlay(&underlay, now);
        self.touched.extend(self.plugs.keys());
        Ok(())
    }

    fn say_underlay(&mut self, underlay: &Underlay, now: Instant) {
        let address = self.gossip.me().address;
        self.gossip.set_metadata(metadata(underlay), now);
        self.put_node(self.knowledge.me, Some(facts(underlay, address, Standing::Alive)));
    }

    /// Brings all that follows from what changed up to date.
    fn settle(&mut self, now: Instant) {
        self.take_gossip(now);
        self.settle_seal(now);
        self.lapse(now);
        while let Some(network) = self.touched_networks.pop_first() {
            self.settle_network(network, now);
        }
        let concerned = self.place_endpoints();
        self.settle_records();
        self.settle_keys(now);
        self.tell_endpoints(&concerned, now);
        // Once more at most for each endpoint that is plugged in: it comes to stand once.
        while !self.touched.is_empty() {
            let stand = self.place_endpoints();
            self.tell_endpoints(&stand, now);
        }
    }
}

const fn facts(underlay: &Underlay, address: std::net::SocketAddr, standing: Standing) -> NodeFacts {
    NodeFacts { address, vtep: underlay.vtep, mtu: underlay.mtu, standing }
}

/// An [`Underlay`] has 20 bytes at most, so it fits.
fn metadata(underlay: &Underlay) -> Metadata {
    Metadata::new(underlay.encode()).unwrap_or_default()
}
