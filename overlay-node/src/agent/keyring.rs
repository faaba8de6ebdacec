//! Keys that this node agrees on with others, for the tunnels of encrypted networks.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use overlay_core::{Instant, IpFamily, NodeId};
use overlay_crypto::{
    AgreeError, AlreadyIssued, Chance, Cipher, Direction, Epoch, EpochRecord, EpochSecret, Issued, Lanes, Pair, Spi,
    Use,
};

use super::Agent;
use crate::derive::is_vtep;
use crate::{Carried, LaneKeys, Protection, TunnelKeys, Underlay};

/// A node's own secret, and what it agreed on.
///
/// There is a secret while an endpoint of an encrypted network is plugged in here, and no longer; whatever would have a key put to work again begins
/// a new epoch: another VTEP of this node, an SPI that comes twice, another start, a network with keys of its own that comes back.
#[derive(Debug)]
pub(super) struct Keyring {
    chance: Chance,
    /// The number of the next epoch: above all before, of this start and of others.
    next: u64,
    own: Option<Own>,
    agreed: Arc<BTreeMap<NodeId, TunnelKeys>>,
    /// Until then no peer's record makes this node begin an epoch.
    rests_until: Instant,
    /// Whether there is one that would.
    waits: bool,
    /// Whether another epoch was asked for, and is still to begin.
    is_asked: bool,
    /// Not before this.
    asked_from: Instant,
}

/// A secret, for tunnels from one VTEP.
#[derive(Debug)]
struct Own {
    secret: EpochSecret,
    vtep: IpAddr,
    /// What the keys come of that were agreed on, and further ones will.
    pairs: BTreeMap<NodeId, Pair>,
}

/// What tunnels are wanted.
#[derive(Debug, Default)]
struct Wanted {
    /// What needs protection here.
    carried: BTreeSet<Carried>,
    peers: BTreeMap<NodeId, Peer>,
    /// All nodes that are there.
    nodes: BTreeSet<NodeId>,
}

/// A node that tunnels are wanted to.
#[derive(Debug)]
struct Peer {
    record: EpochRecord,
    vtep: IpAddr,
    carried: BTreeSet<Carried>,
}

/// So many epochs can one start of a node have, before it has one that the next start could have too.
const EPOCHS: u64 = 1 << 20;

/// How long a node rests after a peer's record, or who holds the associations, had it begin an epoch.
const REST: Duration = Duration::from_secs(10);

/// So often in a row an SPI may come twice: by chance it does not twice in the life of a cluster.
const TRIES: usize = 8;

impl Keyring {
    fn new(chance: Chance, incarnation: u64) -> Self {
        let next = first(incarnation);
        Self {
            chance,
            next,
            own: None,
            agreed: Arc::default(),
            rests_until: Instant::ZERO,
            waits: false,
            is_asked: false,
            asked_from: Instant::ZERO,
        }
    }

    pub(super) fn begin_anew(&mut self, incarnation: u64) {
        self.forget();
        self.next = self.next.max(first(incarnation));
    }

    fn forget(&mut self) {
        (self.own, self.agreed) = (None, Arc::default());
        (self.waits, self.is_asked) = (false, false);
    }

    fn record(&self) -> Option<EpochRecord> {
        self.own.as_ref().map(|own| own.secret.record())
    }

    /// When it will begin an epoch, if it waits for that.
    fn poll_timeout(&self) -> Option<Instant> {
        let (peer, asked) = (self.waits.then_some(self.rests_until), self.is_asked.then_some(self.asked_from));
        peer.into_iter().chain(asked).min()
    }

    /// Lets all keys go, if that was asked for and is due.
    fn obey(&mut self, now: Instant) {
        if self.is_asked && self.asked_from <= now {
            self.forget();
            self.asked_from = now + REST;
        }
    }

    /// Agrees with these peers, as node `me` at `vtep`: with those and on what it did not agree before. What is not wanted here any more, or with
    /// nodes that are gone, is forgotten.
    fn agree(&mut self, (me, vtep): (NodeId, IpAddr), wanted: &Wanted, lanes: Lanes, now: Instant) {
        if self.own.as_ref().is_some_and(|own| own.vtep != vtep) {
            self.forget();
        }
        self.let_go(wanted);
        for _ in 0..TRIES {
            self.begin(me, vtep);
            self.waits = false;
            if self.try_agree(wanted, lanes, now) {
                return;
            }
            self.forget();
        }
    }

    fn let_go(&mut self, wanted: &Wanted) {
        let stays = |node: &NodeId| wanted.nodes.contains(node);
        let whole = |keys: &TunnelKeys| keys.tunnels.keys().all(|carried| wanted.carried.contains(carried));
        if self.agreed.iter().all(|(node, keys)| stays(node) && whole(keys)) {
            return;
        }
        let agreed = Arc::make_mut(&mut self.agreed);
        agreed.retain(|node, _| stays(node));
        agreed.values_mut().for_each(|keys| keys.tunnels.retain(|carried, _| wanted.carried.contains(carried)));
        self.own.iter_mut().for_each(|own| own.pairs.retain(|node, _| stays(node)));
    }

    fn begin(&mut self, me: NodeId, vtep: IpAddr) {
        if self.own.is_some() {
            return;
        }
        let Ok(epoch) = Epoch::new(self.next) else { return };
        self.next = self.next.saturating_add(1);
        let secret = EpochSecret::generate(me, epoch, |to| self.chance.draw(to));
        self.own = Some(Own { secret, vtep, pairs: BTreeMap::new() });
    }

    /// Whether it went without what needs another epoch: an SPI of this node's that comes twice, a key that was issued before, a record
    /// that this epoch cannot be agreed on with.
    fn try_agree(&mut self, wanted: &Wanted, lanes: Lanes, now: Instant) -> bool {
        for (node, peer) in &wanted.peers {
            if !self.meet(*node, peer, wanted, now) || self.issue(*node, peer, lanes).is_err() {
                return false;
            }
        }
        let mut seen = BTreeSet::<Spi>::new();
        let mut takes = self.agreed.values().flat_map(|keys| keys.tunnels.values()).flat_map(|keys| &keys.takes);
        takes.all(|issued| seen.insert(issued.spi))
    }

    /// Agrees with a peer, unless that was done. Whether this epoch can be; if only for now it cannot, there is nothing agreed on.
    fn meet(&mut self, node: NodeId, peer: &Peer, wanted: &Wanted, now: Instant) -> bool {
        let Some(own) = &mut self.own else { return true };
        let is_there = |keys: &TunnelKeys| (keys.record, keys.peer) == (peer.record, peer.vtep);
        if self.agreed.get(&node).is_some_and(is_there) || !can_tunnel(own.vtep, peer.vtep) {
            return true;
        }
        let agreed = Arc::make_mut(&mut self.agreed);
        agreed.retain(|other, keys| keys.peer != peer.vtep || wanted.peers.contains_key(other));
        match own.secret.agree(node, peer.record) {
            Ok(pair) => {
                agreed.insert(node, TunnelKeys::none(peer.record, (own.vtep, peer.vtep)));
                own.pairs.insert(node, pair);
            }
            // It is for another address, was let go, or is older than one that was there: this node's next epoch agrees with it, but not as
            // often as somebody likes who says such things.
            Err(AgreeError::Old { .. }) if self.rests_until <= now => {
                self.rests_until = now + REST;
                return false;
            }
            Err(error) => {
                self.waits |= matches!(error, AgreeError::Old { .. });
                if agreed.get(&node).is_some_and(|keys| keys.peer != peer.vtep) {
                    agreed.remove(&node);
                    own.pairs.remove(&node);
                }
            }
        }
        true
    }

    /// Adds the keys of what tunnels to a peer are to carry, if it was agreed with.
    fn issue(&mut self, node: NodeId, peer: &Peer, lanes: Lanes) -> Result<(), AlreadyIssued> {
        let pair = self.own.as_mut().and_then(|own| own.pairs.get_mut(&node));
        let (Some(pair), Some(keys)) = (pair, self.agreed.get(&node)) else { return Ok(()) };
        let lacking: Vec<Carried> =
            peer.carried.iter().filter(|carried| !keys.tunnels.contains_key(carried)).copied().collect();
        for carried in lacking {
            let issued = issue(pair, carried, lanes)?;
            let keys = Arc::make_mut(&mut self.agreed).get_mut(&node);
            keys.into_iter().for_each(|keys| drop(keys.tunnels.insert(carried, issued.clone())));
        }
        Ok(())
    }
}

impl TunnelKeys {
    const fn none(record: EpochRecord, (local, peer): (IpAddr, IpAddr)) -> Self {
        Self { record, local, peer, tunnels: BTreeMap::new() }
    }
}

/// What follows from a secret that two nodes have: each key once.
fn issue(pair: &mut Pair, carried: Carried, lanes: Lanes) -> Result<LaneKeys, AlreadyIssued> {
    let mut all = |direction| -> Result<Vec<Issued>, AlreadyIssued> {
        let r#use = |lane| Use { network: carried.network(), lane, direction };
        lanes.iter().map(|lane| pair.issue(r#use(lane), Cipher::default())).collect()
    };
    Ok(LaneKeys { takes: all(Direction::In)?, sends: all(Direction::Out)? })
}

/// What two nodes at these addresses would agree on, with keys that anybody knows.
#[cfg(feature = "testing")]
pub(crate) fn agreed(
    (me, local): (NodeId, IpAddr),
    (node, peer): (NodeId, IpAddr),
    (epoch, carried): (u64, &BTreeSet<Carried>),
) -> TunnelKeys {
    let secret = |node: NodeId| {
        let epoch = Epoch::new(epoch).unwrap_or(Epoch::FIRST);
        EpochSecret::generate(node, epoch, |to| to.iter_mut().zip(node.to_bytes()).for_each(|(to, byte)| *to = byte))
    };
    let record = secret(node).record();
    let mut keys = TunnelKeys::none(record, (local, peer));
    if let Ok(mut pair) = secret(me).agree(node, record) {
        let issued = carried.iter().filter_map(|of| Some((*of, issue(&mut pair, *of, Lanes::ONE).ok()?)));
        keys.tunnels = issued.collect();
    }
    keys
}

fn can_tunnel(here: IpAddr, there: IpAddr) -> bool {
    is_vtep(here) && is_vtep(there) && here != there && IpFamily::of(here) == IpFamily::of(there)
}

/// The first epoch of a start of a node: above all of earlier ones, as its incarnation is.
const fn first(incarnation: u64) -> u64 {
    match incarnation.saturating_mul(EPOCHS) {
        0 => 1,
        first => first,
    }
}

impl Agent {
    /// Says whether the places that hold what is [desired](Self::desired) can protect tunnels: then with chance for keys, and if not, why. Until this is
    /// said, they cannot, and encrypted networks carry nothing here.
    ///
    /// From then on, while an endpoint of an encrypted network is plugged in, the node publishes a key by gossip, and agrees with each other
    /// node on such a network that publishes one. It has no key twice: see [`Chance`].
    pub fn set_protection(&mut self, chance: Result<Chance, String>, now: Instant) {
        let incarnation = self.gossip.me().incarnation;
        match chance {
            Ok(chance) => {
                self.keyring = Some(Keyring::new(chance, incarnation));
                self.knowledge.protection = Protection::Keys(Arc::default());
            }
            Err(reason) => {
                self.keyring = None;
                self.knowledge.protection = Protection::Lacking(reason.into());
                self.publish(None, now);
            }
        }
        self.touched.extend(self.plugs.keys());
        self.changed = true;
        self.settle(now);
    }

    pub(super) fn rekey(&mut self) {
        self.keyring.iter_mut().for_each(|keyring| keyring.is_asked = keyring.own.is_some());
    }

    /// When keys may be agreed on that cannot be for now.
    pub(super) fn keys_due(&self) -> Option<Instant> {
        self.keyring.as_ref().and_then(Keyring::poll_timeout)
    }

    /// Agrees with those that tunnels are wanted to, if something changed, and says so.
    pub(super) fn settle_keys(&mut self, now: Instant) {
        let is_due = self.keys_due().is_some_and(|due| due <= now);
        let Some(mut keyring) = self.keyring.take_if(|_| self.changed || is_due) else { return };
        keyring.obey(now);
        let me = self.knowledge.me;
        let vtep = self.knowledge.nodes.get(&me).map(|facts| facts.vtep);
        match vtep.zip(self.wanted_tunnels()) {
            Some((vtep, wanted)) => keyring.agree((me, vtep), &wanted, self.knowledge.settings.lanes, now),
            None => keyring.forget(),
        }
        self.knowledge.protection = Protection::Keys(Arc::clone(&keyring.agreed));
        self.changed |= is_due;
        self.publish(keyring.record(), now);
        self.keyring = Some(keyring);
    }

    /// Tunnels to the nodes that have an endpoint on an encrypted network of here, and a key; `None` if no such network is here.
    fn wanted_tunnels(&self) -> Option<Wanted> {
        let mut wanted = Wanted { nodes: self.knowledge.nodes.keys().copied().collect(), ..Wanted::default() };
        for section in self.knowledge.networks.values().filter(|section| section.needs_protection()) {
            let is_ready = self.knowledge.settings.tunnel_port(&section.network).is_some();
            let Some(carried) = section.carried().filter(|_| is_ready) else { continue };
            wanted.carried.insert(carried);
            let nodes: BTreeSet<NodeId> = section.remote.values().map(|remote| remote.node).collect();
            for node in nodes {
                let Some(facts) = self.knowledge.nodes.get(&node) else { continue };
                let Some(record) = facts.record else { continue };
                let none = || Peer { record, vtep: facts.vtep, carried: BTreeSet::new() };
                wanted.peers.entry(node).or_insert_with(none).carried.insert(carried);
            }
        }
        (!wanted.carried.is_empty()).then_some(wanted)
    }

    fn publish(&mut self, record: Option<EpochRecord>, now: Instant) {
        let Some(facts) = self.knowledge.nodes.get(&self.knowledge.me).copied() else { return };
        if facts.record != record {
            self.say_underlay(&Underlay { vtep: facts.vtep, mtu: facts.mtu, record }, now);
        }
    }
}
