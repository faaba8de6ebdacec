//! Nodes, managers and their authority on a clock of their own.

mod manager;
mod node;
mod trouble;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use node::Node;
use overlay_core::testing::{Dice, FlakyStore, block_on};
use overlay_core::{ClusterId, MemoryStore, NodeId, Store, UnixTime};
use overlay_crypto::pki::{
    Algorithm, CertificateAuthority, JoinRefusal, Joining, KeyDigest, NextRoot, Role, SealingKey, Serial, SigningKey,
    SigningRequest, Usage,
};

pub(crate) const CLUSTER: ClusterId = ClusterId::from_bytes([5; 16]);
pub(crate) const LIFE: Duration = Duration::from_secs(6 * 3600);
/// How long after an outage or a clock that was wrong a node may still be without.
pub(crate) const RECOVERY: Duration = Duration::from_secs(2 * 3600);
const NODES: usize = 6;
const MANAGERS: usize = 3;

/// How often what happened.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts {
    pub(crate) renewals: u64,
    pub(crate) rescues: u64,
    pub(crate) roles: u64,
    pub(crate) removals: u64,
    pub(crate) refused: u64,
    pub(crate) begun: u64,
    pub(crate) roots: u64,
    pub(crate) aborted: u64,
    pub(crate) leaders: u64,
    pub(crate) deposed: u64,
    pub(crate) lost: u64,
    pub(crate) jumps: u64,
    pub(crate) outages: u64,
    pub(crate) given: u64,
    pub(crate) pairs: u64,
}

impl Counts {
    pub(crate) fn add(&mut self, other: &Self) {
        self.renewals += other.renewals;
        self.rescues += other.rescues;
        self.roles += other.roles;
        self.removals += other.removals;
        self.refused += other.refused;
        self.begun += other.begun;
        self.roots += other.roots;
        self.aborted += other.aborted;
        self.leaders += other.leaders;
        self.deposed += other.deposed;
        self.lost += other.lost;
        self.jumps += other.jumps;
        self.outages += other.outages;
        self.given += other.given;
        self.pairs += other.pairs;
    }
}

pub(crate) struct World {
    pub(crate) seed: u64,
    pub(crate) dice: Dice,
    pub(crate) now: UnixTime,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) flaky: FlakyStore<MemoryStore>,
    pub(crate) nodes: Vec<Node>,
    /// Who leads, as far as anybody knows.
    pub(crate) leader: Option<usize>,
    /// Who led, and does not know better.
    pub(crate) deposed: Option<usize>,
    pub(crate) next_tend: UnixTime,
    pub(crate) chaos: bool,
    /// Nodes that were removed, and from which revision on that is known.
    pub(crate) removed: BTreeMap<NodeId, u64>,
    /// The roots that were present, one after the other.
    pub(crate) roots: Vec<KeyDigest>,
    pub(crate) serials: BTreeMap<Serial, KeyDigest>,
    pub(crate) counts: Counts,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut bytes = [3; 32];
        bytes[..8].copy_from_slice(&seed.to_be_bytes());
        let mut dice = Dice::new(bytes);
        let flaky = FlakyStore::new(MemoryStore::default(), Dice::new(dice.seed()), 0);
        let now = UnixTime::from_millis(1_800_000_000_000);
        let mut world = Self {
            seed,
            dice,
            now,
            store: Arc::new(flaky.clone()),
            flaky,
            nodes: Vec::new(),
            leader: None,
            deposed: None,
            next_tend: now,
            chaos: false,
            removed: BTreeMap::new(),
            roots: Vec::new(),
            serials: BTreeMap::new(),
            counts: Counts::default(),
        };
        world.found();
        world
    }

    /// Three managers that can sign, and workers.
    fn found(&mut self) {
        let sealing = SealingKey::generate(|bytes| bytes.copy_from_slice(&self.dice.seed()));
        let first = self.authority();
        first.hold(sealing.clone());
        first.lead(self.usurp(0).unwrap());
        block_on(first.found(&NextRoot::Generate(Algorithm::EcdsaP256), self.now)).unwrap();
        for at in 0..NODES {
            let role = if at < MANAGERS { Role::Manager } else { Role::Worker };
            let key = SigningKey::generate(Algorithm::EcdsaP256).unwrap();
            let token = block_on(first.token(role)).unwrap();
            let joining = Joining { token, request: SigningRequest::create(&key).unwrap(), node: Some(id_of(at)) };
            let issued = block_on(first.join(&joining, self.now)).unwrap();
            let mut node = Node::new(at, key, issued, self.dice.seed(), self.now);
            if role == Role::Manager {
                let authority = self.authority();
                authority.hold(sealing.clone());
                block_on(authority.announce(id_of(at))).unwrap();
                (node.authority, node.sealing) = (Some(authority), Some(sealing.clone()));
            }
            self.nodes.push(node);
        }
        drop(first);
        self.campaign();
    }

    pub(crate) fn run(&mut self, span: Duration, chaos: bool) {
        self.chaos = chaos;
        if chaos {
            self.flaky.storm(12);
        } else {
            self.flaky.calm();
            self.heal();
        }
        let end = self.now + span;
        while self.now < end {
            self.now = self.now + Duration::from_secs(30 + self.dice.below(150) as u64);
            if chaos {
                self.disturb();
            }
            self.lead();
            for at in 0..self.nodes.len() {
                self.live(at);
            }
            let all = self.dice.one_in(25);
            self.check(all);
        }
    }

    /// Every two that live and were reached in time believe each other, each by its own clock and what it has heard: all of them, or a few by chance.
    fn check(&mut self, all: bool) {
        for a in 0..self.nodes.len() {
            let one = self.dice.below(self.nodes.len());
            for b in (0..self.nodes.len()).filter(|b| all || *b == one) {
                let (shows, looks) = (&self.nodes[a], &self.nodes[b]);
                if looks.gone || !looks.counts(self.now) {
                    continue;
                }
                let verified = looks.verify(&shows.issued.chain, Usage::Server, self.now);
                if shows.gone {
                    let known = self.removed.get(&shows.id).is_some_and(|since| looks.heard() >= *since);
                    assert!(!known || verified.is_err(), "seed {}: {a} was removed, and {b} knows", self.seed);
                    self.counts.refused += u64::from(known);
                } else if shows.counts(self.now) {
                    let (seed, now) = (self.seed, self.now);
                    assert!(verified.is_ok(), "seed {seed}, {now}: {b} does not believe {a}: {verified:?}");
                    self.counts.pairs += 1;
                }
            }
        }
    }

    /// Nothing is left to be done.
    pub(crate) fn check_at_rest(&mut self) {
        let seed = self.seed;
        let leader = self.leader.unwrap_or_else(|| panic!("seed {seed}: nobody leads"));
        let authority = self.nodes[leader].authority.as_ref().unwrap();
        assert_eq!(block_on(authority.root_progress(self.now)).unwrap(), None, "seed {seed}");
        let members = block_on(authority.members(self.now)).unwrap();
        let living: BTreeSet<NodeId> = self.nodes.iter().filter(|node| !node.gone).map(|node| node.id).collect();
        assert_eq!(members.iter().map(|member| member.node).collect::<BTreeSet<_>>(), living, "seed {seed}");
        for member in members {
            assert_eq!((member.renew, member.held.role), (None, member.role), "seed {seed}: {}", member.node);
        }
        let trusted = block_on(authority.trusted()).unwrap();
        assert_eq!(trusted.roots.len(), 1, "seed {seed}");
        for node in self.nodes.iter().filter(|node| !node.gone) {
            assert!(node.counts(self.now) && node.issued.roots == trusted.roots, "seed {seed}: {}", node.id);
        }
        // Who was removed does not come back under its name.
        for node in self.removed.keys().copied().filter(|node| trusted.refusals.is_refused(*node)) {
            let token = block_on(authority.token(Role::Worker)).unwrap();
            let key = SigningKey::generate(Algorithm::EcdsaP256).unwrap();
            let joining = Joining { token, request: SigningRequest::create(&key).unwrap(), node: Some(node) };
            let refused = block_on(authority.join(&joining, self.now)).unwrap_err();
            assert_eq!(refused.refusal(), Some(&JoinRefusal::Removed { node }));
        }
    }
}

pub(crate) fn id_of(at: usize) -> NodeId {
    NodeId::from_bytes([at as u8 + 1; 16])
}
