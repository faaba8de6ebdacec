//! Keys that this node agrees on with others, for the tunnels of encrypted networks.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use overlay_core::{Instant, IpFamily, NetworkId, NodeId};
use overlay_crypto::{
    AgreeError, Chance, Cipher, Direction, Epoch, EpochRecord, EpochSecret, Issued, Lanes, Pair, Spi, Use,
};

use super::Agent;
use crate::derive::is_vtep;
use crate::{Protection, Section, TunnelKeys, Underlay};

/// A node's own secret, and what it agreed on.
///
/// There is a secret while an endpoint of an encrypted network is plugged in here, and no longer; whatever would have a key put to work again begins
/// a new epoch: another VTEP of this node, an SPI that comes twice, another start.
#[derive(Debug)]
pub(super) struct Keyring {
    chance: Chance,
    /// The number of the next epoch: above all before, of this start and of others.
    next: u64,
    own: Option<Own>,
    agreed: Arc<BTreeMap<NodeId, TunnelKeys>>,
    /// Until then no peer's record makes this node begin an epoch.
    rests_until: Instant,
}

/// A secret, for tunnels from one VTEP.
#[derive(Debug)]
struct Own {
    secret: EpochSecret,
    vtep: IpAddr,
}

/// Whom tunnels are wanted to: by node, its record and VTEP.
type Peers = BTreeMap<NodeId, (EpochRecord, IpAddr)>;

/// What keys are for that all encrypted networks share, as they share a port.
const SHARED: NetworkId = NetworkId::from_bytes([0; 16]);

/// So many epochs can one start of a node have, before it has one that the next start could have too.
const EPOCHS: u64 = 1 << 20;

/// How long a node rests after a peer's record had it begin an epoch.
const REST: Duration = Duration::from_secs(10);

/// So often in a row an SPI may come twice: by chance it does not twice in the life of a cluster.
const TRIES: usize = 8;

impl Keyring {
    fn new(chance: Chance, incarnation: u64) -> Self {
        let next = first(incarnation);
        Self { chance, next, own: None, agreed: Arc::default(), rests_until: Instant::ZERO }
    }

    pub(super) fn begin_anew(&mut self, incarnation: u64) {
        self.forget();
        self.next = self.next.max(first(incarnation));
    }

    fn forget(&mut self) {
        (self.own, self.agreed) = (None, Arc::default());
    }

    fn record(&self) -> Option<EpochRecord> {
        self.own.as_ref().map(|own| own.secret.record())
    }

    /// Agrees with these peers, as node `me` at `vtep`; with those that it did not agree with before.
    fn agree(&mut self, (me, vtep): (NodeId, IpAddr), peers: &Peers, lanes: Lanes, now: Instant) {
        if self.own.as_ref().is_some_and(|own| own.vtep != vtep) {
            self.forget();
        }
        for _ in 0..TRIES {
            self.begin(me, vtep);
            if self.try_agree(peers, lanes, now) {
                return;
            }
            self.forget();
        }
    }

    fn begin(&mut self, me: NodeId, vtep: IpAddr) {
        if self.own.is_some() {
            return;
        }
        let Ok(epoch) = Epoch::new(self.next) else { return };
        self.next = self.next.saturating_add(1);
        let secret = EpochSecret::generate(me, epoch, |to| self.chance.draw(to));
        self.own = Some(Own { secret, vtep });
    }

    /// Whether it went without an SPI of this node's that comes twice, and without a record that this epoch of it cannot be agreed on with.
    fn try_agree(&mut self, peers: &Peers, lanes: Lanes, now: Instant) -> bool {
        let Some(own) = &mut self.own else { return true };
        for (node, (record, peer)) in peers {
            if self.agreed.get(node).is_some_and(|keys| (keys.record, keys.peer) == (*record, *peer)) {
                continue;
            }
            if !can_tunnel(own.vtep, *peer) {
                continue;
            }
            let agreed = Arc::make_mut(&mut self.agreed);
            agreed.retain(|other, keys| keys.peer != *peer || peers.contains_key(other));
            let keys = own.secret.agree(*node, *record).map(|pair| issue(pair, (own.vtep, *peer), lanes));
            let is_elsewhere = agreed.get(node).is_none_or(|keys| keys.peer != *peer);
            match keys {
                Ok(keys) => drop(agreed.insert(*node, keys)),
                // It is for another address, was let go, or is older than one that was there: this node's next epoch agrees with it, but not as
                // often as somebody likes who says such things.
                Err(AgreeError::Old { .. }) if self.rests_until <= now => {
                    self.rests_until = now + REST;
                    return false;
                }
                Err(_) if is_elsewhere => drop(agreed.remove(node)),
                Err(_) => {}
            }
        }
        let mut seen = BTreeSet::<Spi>::new();
        self.agreed.values().flat_map(|keys| &keys.takes).all(|issued| seen.insert(issued.spi))
    }
}

/// What follows from a secret that two nodes have: each key once.
fn issue(mut pair: Pair, (local, peer): (IpAddr, IpAddr), lanes: Lanes) -> TunnelKeys {
    let record = pair.record();
    let mut all = |direction| -> Vec<Issued> {
        let r#use = |lane| Use { network: SHARED, lane, direction };
        lanes.iter().filter_map(|lane| pair.issue(r#use(lane), Cipher::default()).ok()).collect()
    };
    let (takes, sends) = (all(Direction::In), all(Direction::Out));
    TunnelKeys { record, local, peer, sends, takes }
}

/// What two nodes at these addresses would agree on, with keys that anybody knows.
#[cfg(feature = "testing")]
pub(crate) fn agreed((me, local): (NodeId, IpAddr), (node, peer): (NodeId, IpAddr), epoch: u64) -> TunnelKeys {
    let secret = |node: NodeId| {
        let epoch = Epoch::new(epoch).unwrap_or(Epoch::FIRST);
        EpochSecret::generate(node, epoch, |to| to.iter_mut().zip(node.to_bytes()).for_each(|(to, byte)| *to = byte))
    };
    let record = secret(node).record();
    match secret(me).agree(node, record) {
        Ok(pair) => issue(pair, (local, peer), Lanes::ONE),
        Err(_) => TunnelKeys { record, local, peer, sends: Vec::new(), takes: Vec::new() },
    }
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
        self.keyring.iter_mut().for_each(Keyring::forget);
        self.changed = true;
    }

    /// Agrees with those that tunnels are wanted to, if something changed, and says so.
    pub(super) fn settle_keys(&mut self, now: Instant) {
        let Some(mut keyring) = self.keyring.take_if(|_| self.changed) else { return };
        let me = self.knowledge.me;
        let vtep = self.knowledge.nodes.get(&me).map(|facts| facts.vtep);
        match vtep.zip(self.protected_peers()) {
            Some((vtep, peers)) => keyring.agree((me, vtep), &peers, self.knowledge.settings.lanes, now),
            None => keyring.forget(),
        }
        self.knowledge.protection = Protection::Keys(Arc::clone(&keyring.agreed));
        self.publish(keyring.record(), now);
        self.keyring = Some(keyring);
    }

    /// The nodes that have an endpoint on an encrypted network and a key; `None` if no such network is here.
    fn protected_peers(&self) -> Option<Peers> {
        let sections = self.knowledge.networks.values().filter(|section| section.needs_protection());
        let mut sections = sections.peekable();
        sections.peek()?;
        let remote =
            |section: &Arc<Section>| section.remote.values().map(|remote| remote.node).collect::<BTreeSet<_>>();
        let nodes: BTreeSet<NodeId> = sections.flat_map(remote).collect();
        let keyed = nodes.into_iter().filter_map(|node| {
            let facts = self.knowledge.nodes.get(&node)?;
            Some((node, (facts.record?, facts.vtep)))
        });
        Some(keyed.collect())
    }

    fn publish(&mut self, record: Option<EpochRecord>, now: Instant) {
        let Some(facts) = self.knowledge.nodes.get(&self.knowledge.me).copied() else { return };
        if facts.record != record {
            self.say_underlay(&Underlay { vtep: facts.vtep, mtu: facts.mtu, record }, now);
        }
    }
}
