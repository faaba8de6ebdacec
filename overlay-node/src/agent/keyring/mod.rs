//! Keys that this node agrees on with others, for the tunnels of encrypted networks.

mod offers;
mod secret;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use overlay_core::{Instant, IpFamily, NodeId};
use overlay_crypto::{
    Cause, Chance, Epoch, EpochRecord, EpochRecords, EpochSecret, Lanes, Rotation, RotationConfig, RotationCounts,
    RotationEvent, SaId, Spi, Stage, State, Usage,
};

use super::{Agent, AgentEvent};
use crate::derive::is_vtep;
use crate::{Carried, Place, Protection, TunnelKeys};

pub(super) use offers::{KEYS, Offers};
use secret::Secret;

/// A node's own secrets, and what it agreed on.
///
/// There is a secret while an endpoint of an encrypted network is plugged in here, and no longer. It is changed for another without a packet lost by a [`Rotation`], also where no
/// further keys come of it: an SPI comes twice, a network with keys of its own comes back, a peer's records are older than some before. Then that tunnel waits, and no other. Another VTEP of this
/// node, another start and associations that were lost begin a new epoch at once.
#[derive(Debug)]
pub(super) struct Keyring {
    chance: Chance,
    config: RotationConfig,
    /// The number of the next epoch: above all before, of this start and of others.
    next: u64,
    own: Option<Own>,
    agreed: Arc<BTreeMap<NodeId, TunnelKeys>>,
    /// Until then no rotation is begun for a tunnel that the present secret has no keys for.
    rests_until: Instant,
    /// Whether there is such a tunnel.
    waits: bool,
    /// Whether another epoch was asked for, and is still to begin.
    is_asked: bool,
    /// Not before this.
    asked_from: Instant,
    counts: RotationCounts,
}

/// This node's secrets, for tunnels from one VTEP.
#[derive(Debug)]
struct Own {
    vtep: IpAddr,
    current: Secret,
    /// The next, or the previous, as the stage of the rotation is.
    beside: Option<Secret>,
    rotation: Rotation,
    /// The stage that the secrets are in.
    stage: Stage,
    /// For which record of each peer this node seals.
    sealed_for: BTreeMap<NodeId, EpochRecord>,
    /// The associations that the host is to hold in this stage: known when all was agreed on at its beginning. What is agreed on later, a peer puts to work only after this node has
    /// confirmed that it holds it.
    needs: Option<BTreeSet<Spi>>,
    /// Whether the host holds what this stage asks of it.
    is_held: bool,
}

/// What tunnels are wanted.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    /// What needs protection here.
    carried: BTreeSet<Carried>,
    peers: BTreeMap<NodeId, Peer>,
    /// All nodes that are there, and are the cluster's.
    nodes: BTreeSet<NodeId>,
}

/// A node that tunnels are wanted to.
#[derive(Debug)]
pub(super) struct Peer {
    records: EpochRecords,
    vtep: IpAddr,
    carried: BTreeSet<Carried>,
}

/// So many epochs can one start of a node have, before it has one that the next start could have too.
const EPOCHS: u64 = 1 << 20;

/// How long a node rests after a tunnel that lacks keys, or who holds the associations, had it begin an epoch.
const REST: Duration = Duration::from_secs(10);

/// So many stages may end one after the other at once, where nobody is waited for.
const STAGES: usize = 3;

impl Keyring {
    fn new(chance: Chance, config: RotationConfig, incarnation: u64) -> Self {
        Self {
            chance,
            config,
            next: first(incarnation).unwrap_or(u64::MAX),
            own: None,
            agreed: Arc::default(),
            rests_until: Instant::ZERO,
            waits: false,
            is_asked: false,
            asked_from: Instant::ZERO,
            counts: RotationCounts::default(),
        }
    }

    pub(super) fn begin_anew(&mut self, incarnation: u64) {
        self.forget();
        // An incarnation that nobody can have counted up to is somebody's lie: this process is above its own epochs all the same.
        self.next = first(incarnation).map_or(self.next, |first| first.max(self.next));
    }

    fn forget(&mut self) {
        (self.own, self.agreed) = (None, Arc::default());
        (self.waits, self.is_asked) = (false, false);
    }

    /// What is to be published: the next only once it is opened here, and then before anybody seals with it.
    fn records(&self) -> Option<EpochRecords> {
        let own = self.own.as_ref()?;
        let current = EpochRecords::of(own.current.record());
        let is_told = own.stage == Stage::Promoted || own.is_held;
        Some(match own.beside.as_ref().filter(|_| is_told) {
            Some(beside) => current.beside(beside.record()),
            None => current,
        })
    }

    /// When something is due.
    fn poll_timeout(&self) -> Option<Instant> {
        let (peer, asked) = (self.waits.then_some(self.rests_until), self.is_asked.then_some(self.asked_from));
        let rotation = self.own.as_ref().and_then(|own| own.rotation.poll_timeout());
        [peer, asked, rotation].into_iter().flatten().min()
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
        self.begin(me, vtep, now);
        let Some(own) = &mut self.own else { return };
        self.waits = !own.agree(wanted, lanes);
        if self.waits && self.rests_until <= now {
            own.rotation.rotate(Cause::Spent, now);
            (self.waits, self.rests_until) = (false, now + REST);
        }
        self.gather();
    }

    fn begin(&mut self, me: NodeId, vtep: IpAddr, now: Instant) {
        if self.own.is_some() {
            return;
        }
        let mut seed = [0; 32];
        self.chance.draw(&mut seed);
        let (Some(current), Ok(rotation)) = (self.secret(me), Rotation::new(self.config, seed, now)) else { return };
        let (beside, stage, sealed_for, needs) = (None, rotation.stage(), BTreeMap::new(), None);
        self.own = Some(Own { vtep, current, beside, rotation, stage, sealed_for, needs, is_held: false });
    }

    fn secret(&mut self, me: NodeId) -> Option<Secret> {
        let epoch = Epoch::new(self.next).ok()?;
        self.next = self.next.checked_add(1)?; // none twice: after the last there is no key
        Some(Secret::new(EpochSecret::generate(me, epoch, |to| self.chance.draw(to))))
    }

    /// What is known of tunnels' keys: sealed with the present ones of both, opened with all.
    fn gather(&mut self) {
        let Some(own) = &self.own else { return };
        let mut gathered = BTreeMap::<NodeId, TunnelKeys>::new();
        for secret in [&own.current].into_iter().chain(&own.beside) {
            for (node, record, peer, tunnels) in secret.all() {
                let sealed_for = own.sealed_for.get(&node).copied().unwrap_or(record);
                let is_present = secret.record() == own.current.record() && sealed_for == record;
                let ends = (own.vtep, peer);
                let keys = gathered.entry(node).or_insert_with(|| TunnelKeys::none(sealed_for, ends));
                for (carried, lanes) in tunnels {
                    let all = keys.tunnels.entry(*carried).or_default();
                    all.takes.extend_from_slice(&lanes.takes);
                    if is_present {
                        all.sends.clone_from(&lanes.sends);
                    }
                }
            }
        }
        if *self.agreed != gathered {
            self.agreed = Arc::new(gathered);
        }
    }

    /// Goes on with the rotation, if it is time.
    fn turn(&mut self, me: NodeId, now: Instant) {
        let Some(mut own) = self.own.take() else { return };
        own.rotation.handle_timeout(now);
        let next = if own.lacks_next() { self.secret(me) } else { None };
        own.follow(next);
        self.own = Some(own);
    }

    /// The host holds this: perhaps what the rotation waits for.
    fn handle_held(&mut self, host: Option<&State>, now: Instant) {
        let Some(own) = self.own.as_mut().filter(|own| own.stage != Stage::Steady && !own.is_held) else { return };
        let all = needed(&self.agreed);
        let needs = own.needs.get_or_insert_with(|| all.clone());
        needs.retain(|spi| all.contains(spi));
        let holds: BTreeSet<Spi> = host.into_iter().flat_map(|host| host.sas.keys()).map(|id| id.spi).collect();
        if needs.is_subset(&holds) {
            own.is_held = true;
            own.rotation.handle_held(own.stage, now);
        }
    }

    /// All others act upon what was published, in this stage.
    fn handle_confirmed(&mut self, now: Instant) {
        if let Some(own) = self.own.as_mut().filter(|own| own.is_held) {
            own.rotation.handle_confirmed(own.stage, now);
        }
    }

    /// Of the associations that this node seals by, that counts by which most was.
    fn handle_usage(&mut self, usage: &BTreeMap<SaId, Usage>, now: Instant) {
        let Some(own) = self.own.as_mut().filter(|own| own.stage == own.rotation.stage()) else { return };
        let epoch = own.current.record().epoch;
        let tunnels = self.agreed.values().flat_map(|keys| keys.tunnels.values().map(|lanes| (keys.peer, lanes)));
        let sends = tunnels.flat_map(|(destination, lanes)| lanes.sends.iter().map(move |it| (destination, it)));
        let present = sends.filter(|(_, issued)| issued.epochs.sender == epoch);
        let used = present.filter_map(|(destination, it)| usage.get(&SaId { destination, spi: it.spi }));
        let most = used.fold(Usage::default(), |most, it| Usage {
            bytes: most.bytes.max(it.bytes),
            packets: most.packets.max(it.packets),
        });
        own.rotation.handle_usage(most, now);
    }

    /// A node was removed: keys of an epoch that it has agreed with are changed for others.
    fn forget_node(&mut self, node: NodeId, now: Instant) {
        let Some(own) = &mut self.own else { return };
        if [&own.current].into_iter().chain(&own.beside).any(|secret| secret.is_known_to(node)) {
            own.rotation.rotate(Cause::Removal, now);
        }
    }

    /// Whether the rotation went on from where the secrets are.
    fn has_turned(&self) -> bool {
        self.own.as_ref().is_some_and(|own| own.stage != own.rotation.stage())
    }

    /// Whether it waits for the host or for others.
    fn is_rotating(&self) -> bool {
        self.own.as_ref().is_some_and(|own| own.stage != Stage::Steady)
    }
}

impl Own {
    /// Whether all that is wanted has keys that no other tunnel has, of the present secret or of the next.
    fn agree(&mut self, wanted: &Wanted, lanes: Lanes) -> bool {
        // Who has no record for now may come back with the same. Who is elsewhere has to be agreed with anew, by another secret.
        let stays = |node: NodeId, epoch: Epoch, at: IpAddr| match wanted.peers.get(&node) {
            Some(peer) => peer.vtep == at && peer.records.contains(epoch),
            None => wanted.nodes.contains(&node) && wanted.peers.values().all(|peer| peer.vtep != at),
        };
        self.current.let_go(stays, &wanted.carried);
        self.beside.iter_mut().for_each(|beside| beside.let_go(stays, &wanted.carried));
        self.sealed_for.extend(wanted.peers.iter().map(|(node, peer)| (*node, peer.records.current)));
        self.sealed_for.retain(|node, _| wanted.nodes.contains(node));
        let is_next = self.stage == Stage::Installing;
        let mut has_all = true;
        for (node, peer) in wanted.peers.iter().filter(|(_, peer)| can_tunnel(self.vtep, peer.vtep)) {
            let current = self.current.agree(*node, peer, lanes).is_ok();
            // Who has not heard yet that this node has promoted the other seals for the previous still.
            let beside = self.beside.as_mut().is_some_and(|beside| beside.agree(*node, peer, lanes).is_ok());
            has_all &= current || is_next && beside;
        }
        let mut seen = BTreeSet::<Spi>::new();
        let all = [&self.current].into_iter().chain(&self.beside).flat_map(Secret::all);
        let mut takes = all.flat_map(|(.., tunnels)| tunnels.values()).flat_map(|keys| &keys.takes);
        has_all && takes.all(|issued| seen.insert(issued.spi))
    }

    fn lacks_next(&self) -> bool {
        self.stage != Stage::Installing && self.rotation.stage() == Stage::Installing
    }

    /// Brings the secrets to the stage that the rotation is in.
    fn follow(&mut self, next: Option<Secret>) {
        let stage = self.rotation.stage();
        match (self.stage, stage) {
            (before, now) if before == now => return,
            (_, Stage::Installing) => self.beside = next,
            (_, Stage::Promoted) => self.beside.iter_mut().for_each(|beside| std::mem::swap(&mut self.current, beside)),
            (_, Stage::Steady) => self.beside = None,
        }
        (self.stage, self.needs, self.is_held) = (stage, None, false);
    }
}

impl TunnelKeys {
    const fn none(record: EpochRecord, (local, peer): (IpAddr, IpAddr)) -> Self {
        Self { record, local, peer, tunnels: BTreeMap::new() }
    }
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
        let issued = carried.iter().filter_map(|of| Some((*of, secret::issue(&mut pair, *of, Lanes::ONE).ok()?)));
        keys.tunnels = issued.collect();
    }
    keys
}

fn can_tunnel(here: IpAddr, there: IpAddr) -> bool {
    is_vtep(here) && is_vtep(there) && here != there && IpFamily::of(here) == IpFamily::of(there)
}

/// The associations of all tunnels that a host has: not of those to an address that several nodes say is theirs.
fn needed(agreed: &BTreeMap<NodeId, TunnelKeys>) -> BTreeSet<Spi> {
    let mut at = BTreeMap::<IpAddr, usize>::new();
    agreed.values().for_each(|keys| *at.entry(keys.peer).or_default() += 1);
    let alone = agreed.values().filter(|keys| at.get(&keys.peer) == Some(&1));
    let lanes = alone.flat_map(|keys| keys.tunnels.values());
    lanes.flat_map(|lanes| lanes.takes.iter().chain(&lanes.sends)).map(|issued| issued.spi).collect()
}

/// The first epoch of a start of a node: above all of earlier ones, as its incarnation is. None of one that leaves no room for epochs.
fn first(incarnation: u64) -> Option<u64> {
    Some(incarnation.checked_mul(EPOCHS)?.max(1))
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
                let mut new = Keyring::new(chance, self.rotation, incarnation);
                new.next = self.keyring.take().map_or(new.next, |old| old.next.max(new.next));
                self.keyring = Some(new);
                self.knowledge.protection = Protection::Keys(Arc::default());
            }
            Err(reason) => {
                self.keyring = None;
                self.knowledge.protection = Protection::Lacking(reason.into());
                self.tell_records(None, now);
            }
        }
        self.touched.extend(self.plugs.keys());
        self.changed = true;
        self.settle(now);
    }

    pub(super) fn rekey(&mut self) {
        self.keyring.iter_mut().for_each(|keyring| keyring.is_asked = keyring.own.is_some());
    }

    pub(super) fn rotate_keys(&mut self, cause: Cause, now: Instant) {
        let own = self.keyring.iter_mut().filter_map(|keyring| keyring.own.as_mut());
        own.for_each(|own| own.rotation.rotate(cause, now));
        self.doubt_keys = true;
    }

    pub(super) fn use_keys(&mut self, usage: &BTreeMap<SaId, Usage>, now: Instant) {
        self.keyring.iter_mut().for_each(|keyring| keyring.handle_usage(usage, now));
        self.doubt_keys = true;
    }

    pub(super) fn forget_node(&mut self, node: NodeId, now: Instant) {
        self.keyring.iter_mut().for_each(|keyring| keyring.forget_node(node, now));
    }

    /// When something of keys is due.
    pub(super) fn keys_due(&self) -> Option<Instant> {
        self.keyring.as_ref().and_then(Keyring::poll_timeout)
    }

    /// Agrees with those that tunnels are wanted to, if something changed, and says so.
    pub(super) fn settle_keys(&mut self, now: Instant) {
        let is_due = self.keys_due().is_some_and(|due| due <= now);
        let is_doubted = std::mem::take(&mut self.doubt_keys);
        let Some(mut keyring) = self.keyring.take_if(|_| self.changed || is_due || is_doubted) else { return };
        keyring.obey(now);
        let me = self.knowledge.me;
        let vtep = self.knowledge.nodes.get(&me).map(|facts| facts.vtep);
        let wanted = vtep.zip(self.wanted_tunnels());
        let host = self.reports.held(&Place::Host);
        // Whom a stage leaves behind has not confirmed what was told in that stage, before anything is told in the next.
        let behind = if keyring.is_rotating() { self.behind_with_records() } else { BTreeSet::new() };
        // A stage may end as soon as it begins, if nobody is there.
        for _ in 0..STAGES {
            keyring.turn(me, now);
            match &wanted {
                Some((vtep, wanted)) => keyring.agree((me, *vtep), wanted, self.knowledge.settings.lanes, now),
                None => keyring.forget(),
            }
            keyring.handle_held(host.as_ref().map(|host| &host.crypto), now);
            let is_told = self.tell_records(keyring.records(), now);
            self.tell_failing(now);
            if is_told && keyring.is_rotating() && self.all_have_confirmed_records() {
                keyring.handle_confirmed(now);
            }
            if !keyring.has_turned() {
                break;
            }
        }
        self.take_rotation(&mut keyring, &behind);
        let is = Protection::Keys(Arc::clone(&keyring.agreed));
        self.changed |= self.knowledge.protection != is;
        self.knowledge.protection = is;
        self.keyring = Some(keyring);
    }

    /// Tells what became of a rotation.
    fn take_rotation(&mut self, keyring: &mut Keyring, behind: &BTreeSet<NodeId>) {
        let Some(own) = &mut keyring.own else { return };
        while let Some(event) = own.rotation.poll_event() {
            keyring.counts.count(event);
            if matches!(event, RotationEvent::LeftBehind(_)) {
                self.events.push_back(AgentEvent::LeftBehind { nodes: behind.clone() });
            }
        }
        self.knowledge.rotated = own.rotation.cause().or(self.knowledge.rotated);
    }

    /// The epoch of this node's keys and the stage that they are in, and how many rotations of them there were.
    pub(super) fn epochs(&self) -> (Option<(Epoch, Stage)>, RotationCounts) {
        let Some(keyring) = &self.keyring else { return Default::default() };
        (keyring.own.as_ref().map(|own| (own.current.record().epoch, own.stage)), keyring.counts)
    }

    /// Tunnels to the cluster's nodes that have an endpoint on an encrypted network of here, and a key; `None` if no such network is here.
    fn wanted_tunnels(&self) -> Option<Wanted> {
        let is_there = |node: &NodeId| self.catalogue.nodes.contains(node);
        let nodes = self.knowledge.nodes.keys().copied().filter(is_there).collect();
        let mut wanted = Wanted { nodes, ..Wanted::default() };
        for section in self.knowledge.networks.values().filter(|section| section.needs_protection()) {
            let is_ready = self.knowledge.settings.tunnel_port(&section.network).is_some();
            let Some(carried) = section.carried().filter(|_| is_ready) else { continue };
            wanted.carried.insert(carried);
            let nodes: BTreeSet<NodeId> = section.remote.values().map(|remote| remote.node).collect();
            for node in nodes {
                let facts = self.knowledge.nodes.get(&node).zip(self.knowledge.records.get(&node));
                let Some((facts, records)) = facts else { continue };
                let none = || Peer { records: *records, vtep: facts.vtep, carried: BTreeSet::new() };
                wanted.peers.entry(node).or_insert_with(none).carried.insert(carried);
            }
        }
        (!wanted.carried.is_empty()).then_some(wanted)
    }
}
