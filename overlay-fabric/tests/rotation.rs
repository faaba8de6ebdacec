//! Keys that are changed for others while packets flow.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail loudly too")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use overlay_core::testing::Dice;
use overlay_core::{Instant, Name};
use overlay_crypto::{Direction, Epoch, SaKey, Spi, Stage, Usage};
use overlay_fabric::{Cluster, ClusterConfig, Observed};
use overlay_gossip::testing::{Conditions, seeds};
use overlay_node::{Encryption, NetworkSpec, Place};

/// Seeds of a plain run. `.ci/run full` asks for more.
const SEEDS: u64 = 40;
const NODES: usize = 4;
const STEP: Duration = Duration::from_millis(40);

/// A cluster with two encrypted networks, one of which has keys of its own, and a container of each on every node.
fn cluster(seed: u64, conditions: Conditions) -> Cluster {
    // Who comes back after it was removed is given the key of gossip as it joins, which is not simulated here.
    let config = ClusterConfig { conditions, sealed: false, ..ClusterConfig::default() };
    let mut cluster = Cluster::with(config, seed, NODES).unwrap();
    for (name, encryption) in [("shared", Encryption::Shared), ("own", Encryption::Own)] {
        let spec = NetworkSpec::overlay(name.parse().unwrap());
        cluster.create_network(NetworkSpec { encryption, attachable: true, ..spec }).unwrap();
        (0..NODES).for_each(|node| drop(cluster.attach(&format!("{name}-{node}"), node, name).unwrap()));
    }
    cluster.settle(Duration::from_secs(60)).unwrap_or_else(|violation| panic!("{violation}"));
    cluster
}

/// All that was found of associations: each name has one key for good.
#[derive(Default)]
struct Keys(BTreeMap<(usize, Spi), SaKey>);

impl Keys {
    fn look(&mut self, cluster: &Cluster) {
        for node in 0..NODES {
            let Some(host) = cluster.places(node).and_then(|places| places.place(&Place::Host)) else { continue };
            for (id, sa) in host.crypto.state().sas {
                let known = self.0.entry((node, id.spi)).or_insert_with(|| sa.key.clone());
                assert_eq!(*known, sa.key, "SPI {} of node {node} has two keys", id.spi);
            }
        }
    }
}

/// A pair reaches each other, sealed, in both networks.
fn probe(cluster: &Cluster, observed: &Observed, pair: usize, seed: u64) {
    let (from, other) = (pair % NODES, pair / NODES % (NODES - 1));
    let to = (from + 1 + other) % NODES;
    for network in ["shared", "own"] {
        let trace = observed.probe(&container(network, from), &format!("{network}-{to}"));
        assert!(trace.arrives(), "seed {seed}, {:?}: {trace}", cluster.now());
    }
}

/// A node's container of a network.
fn container(network: &str, node: usize) -> Name {
    format!("{network}-{node}").parse().unwrap()
}

/// A moment later: no name has two keys, and some pairs reach each other.
fn step(cluster: &mut Cluster, keys: &mut Keys, dice: &mut Dice, seed: u64) {
    cluster.run_for(STEP);
    keys.look(cluster);
    let observed = cluster.observe();
    (0..3).for_each(|_| probe(cluster, &observed, dice.below(NODES * NODES), seed));
}

fn ended(cluster: &Cluster) -> u64 {
    (0..NODES).filter_map(|node| cluster.agent(node)).map(|agent| agent.metrics().rotations.ended).sum()
}

fn left_behind(cluster: &Cluster) -> u64 {
    (0..NODES).filter_map(|node| cluster.agent(node)).map(|agent| agent.metrics().rotations.left_behind).sum()
}

#[test]
fn no_packet_is_lost_while_nodes_change_their_keys_one_by_one_or_all_at_once() {
    for seed in seeds(SEEDS) {
        let mut dice = Dice::new(wide(seed));
        let lossy = Conditions { loss: 0.1, duplication: 0.05, reordering: 0.1, ..Conditions::lan() };
        let mut cluster = cluster(seed, if dice.one_in(2) { lossy } else { Conditions::lan() });
        let mut keys = Keys::default();
        for _ in 0..3 {
            let all = dice.one_in(3);
            let which = dice.below(NODES);
            (0..NODES)
                .filter(|node| all || *node == which || dice.one_in(3))
                .for_each(|node| cluster.rotate_keys(node));
            (0..dice.below(100)).for_each(|_| step(&mut cluster, &mut keys, &mut dice, seed));
            cluster.check_always().unwrap();
        }
        for _ in 0..2000 {
            step(&mut cluster, &mut keys, &mut dice, seed); // what was asked for just now begins
            if rests(&cluster) {
                break;
            }
        }
        assert!(ended(&cluster) >= 2 && left_behind(&cluster) == 0, "seed {seed}: {} rotations", ended(&cluster));
        cluster.settle(Duration::from_secs(30)).unwrap_or_else(|violation| panic!("seed {seed}: {violation}"));
        // Nothing is left of what was before, once the last word of each has come, which may be lost and said again.
        let held = |cluster: &Cluster| cluster.places(0).unwrap().place(&Place::Host).unwrap().crypto.state().sas.len();
        let all = 2 * 2 * (NODES - 1);
        let limit = Duration::from_secs(60);
        assert!(cluster.run_until(limit, |it| held(it) == all).is_some(), "seed {seed}: {} SAs", held(&cluster));
        assert!(keys.0.len() > all * NODES);
    }
}

/// Since when each pair of nodes was not disturbed.
struct Pairs(BTreeMap<(usize, usize), Instant>);

/// So long after a disturbance a pair reaches each other: who was away is found again, and has heard of all others' keys.
const CALM: Duration = Duration::from_secs(15);

impl Pairs {
    fn of(cluster: &Cluster) -> Self {
        let pairs = (0..NODES).flat_map(|a| (a + 1..NODES).map(move |b| (a, b)));
        Self(pairs.map(|pair| (pair, cluster.now())).collect())
    }

    fn disturb(&mut self, node: usize, now: Instant) {
        self.0.iter_mut().filter(|((a, b), _)| [a, b].contains(&&node)).for_each(|(_, since)| *since = now);
    }

    /// Every live pair has keys that both accept, in both ways: nobody else's trouble is theirs. How many were looked at.
    fn check(&self, cluster: &Cluster, away: &BTreeSet<usize>, seed: u64) -> u64 {
        let (mut checked, observed) = (0, cluster.observe());
        let calm = self.0.iter().filter(|(_, since)| cluster.now() - **since >= CALM).map(|(pair, _)| *pair);
        for (a, b) in calm.filter(|(a, b)| !away.contains(a) && !away.contains(b)) {
            for (from, to) in [(a, b), (b, a)] {
                for network in ["shared", "own"] {
                    let trace = observed.probe(&container(network, from), &format!("{network}-{to}"));
                    assert!(trace.arrives(), "seed {seed}, {:?}, {away:?} are away: {trace}", cluster.now());
                    checked += 1;
                }
            }
        }
        checked
    }
}

fn rests(cluster: &Cluster) -> bool {
    rests_but_for(cluster, NODES)
}

/// Whether no other node is changing its keys.
fn rests_but_for(cluster: &Cluster, removed: usize) -> bool {
    (0..NODES)
        .filter(|node| *node != removed)
        .filter_map(|node| cluster.agent(node))
        .all(|agent| agent.metrics().stage.is_none_or(|stage| stage == Stage::Steady))
}

/// Until no node is changing its keys: of that which was removed this is not waited for.
fn rest(cluster: &mut Cluster, keys: &mut Keys, removed: usize) {
    for _ in 0..5000 {
        cluster.run_for(STEP);
        keys.look(cluster);
        if rests_but_for(cluster, removed) {
            return cluster.run_for(Duration::from_secs(1)); // until their hosts hold no more than that
        }
    }
    panic!("seed {}: keys are changed for ever", cluster.seed());
}

/// What a node that was removed may know: all keys that it ever had, those among them that it derives from what it still hears of the others.
struct Removed {
    node: usize,
    /// The others' epochs when it was removed.
    epochs: BTreeMap<usize, Epoch>,
}

impl Removed {
    fn of(cluster: &Cluster, node: usize) -> Self {
        let epoch = |other: usize| Some((other, cluster.agent(other)?.metrics().epoch?));
        Self { node, epochs: (0..NODES).filter(|other| *other != node).filter_map(epoch).collect() }
    }

    /// It opens nothing of the others, whose epochs are all later ones, and nothing of it arrives.
    fn check(&self, cluster: &Cluster, keys: &Keys, seed: u64) {
        let known: Vec<&SaKey> =
            keys.0.iter().filter(|((node, _), _)| *node == self.node).map(|(_, key)| key).collect();
        for other in (0..NODES).filter(|other| *other != self.node) {
            let is = cluster.agent(other).and_then(|agent| agent.metrics().epoch).unwrap();
            assert!(self.epochs.get(&other).is_none_or(|was| is > *was), "seed {seed}: node {other} is at {is} still");
            let host = cluster.places(other).unwrap().place(&Place::Host).unwrap().crypto.state();
            for (id, sa) in host.sas {
                assert!(!known.contains(&&sa.key), "seed {seed}: node {} knows {id} of node {other}", self.node);
                let own = if sa.direction == Direction::Out { sa.epochs.sender } else { sa.epochs.receiver };
                assert!(self.epochs.get(&other).is_none_or(|was| own > *was), "seed {seed}: {sa} of node {other}");
            }
            for network in ["shared", "own"] {
                let trace = cluster.probe(&format!("{network}-{}", self.node), &format!("{network}-{other}"));
                assert!(!trace.arrives(), "seed {seed}: {trace}");
            }
        }
    }
}

#[test]
fn a_node_that_is_removed_opens_nothing_of_the_next_epoch_and_comes_back_only_as_a_node_of_the_catalogue() {
    for seed in seeds(SEEDS) {
        let mut dice = Dice::new(wide(seed ^ 0xaaaa));
        let lossy = Conditions { loss: 0.1, duplication: 0.05, reordering: 0.1, ..Conditions::lan() };
        let mut cluster = cluster(seed, if dice.one_in(2) { lossy } else { Conditions::lan() });
        let (mut keys, node) = (Keys::default(), dice.below(NODES));
        if dice.one_in(2) {
            (0..NODES).filter(|_| dice.one_in(2)).for_each(|node| cluster.rotate_keys(node));
            (0..dice.below(60)).for_each(|_| step(&mut cluster, &mut keys, &mut dice, seed));
        }
        let removed = Removed::of(&cluster, node);
        cluster.remove_node(node).unwrap();
        let mut pairs = Pairs::of(&cluster);
        pairs.disturb(node, cluster.now());
        let away = BTreeSet::from([node]);
        pairs.0.values_mut().for_each(|since| *since = Instant::ZERO); // the others are not disturbed by it
        for _ in 0..300 {
            cluster.run_for(STEP);
            keys.look(&cluster);
            pairs.check(&cluster, &away, seed);
        }
        rest(&mut cluster, &mut keys, node);
        removed.check(&cluster, &keys, seed);
        let has_heard = |cluster: &Cluster| {
            let heard = cluster.agent(node).unwrap().knowledge().records.clone();
            removed.epochs.iter().all(|(other, was)| heard[&cluster.node_id(*other).unwrap()].current.epoch > *was)
        };
        assert!(has_heard(&cluster), "seed {seed}: it heard of all their epochs, and derived what it could");

        cluster.begin_anew(node);
        for _ in 0..200 {
            cluster.run_for(STEP);
            keys.look(&cluster);
        }
        rest(&mut cluster, &mut keys, node);
        removed.check(&cluster, &keys, seed);
        cluster.settle(Duration::from_secs(30)).unwrap_or_else(|violation| panic!("seed {seed}: {violation}"));

        cluster.readmit_node(node).unwrap();
        for network in ["shared", "own"] {
            drop(cluster.attach(&format!("{network}-{node}"), node, network).unwrap());
        }
        cluster.settle(Duration::from_secs(60)).unwrap_or_else(|violation| panic!("seed {seed}: {violation}"));
        let observed = cluster.observe();
        (0..NODES * (NODES - 1)).for_each(|pair| probe(&cluster, &observed, pair, seed));
    }
}

#[test]
fn whatever_happens_to_others_a_live_pair_has_keys_that_both_accept_and_all_come_to_such_keys() {
    let (mut checked, mut removals, mut rotations) = (0, 0, 0);
    for seed in seeds(SEEDS) {
        let mut dice = Dice::new(wide(seed));
        let lossy = Conditions { loss: 0.05, duplication: 0.05, reordering: 0.1, ..Conditions::lan() };
        let mut cluster = cluster(seed, if dice.one_in(2) { lossy } else { Conditions::lan() });
        let (mut keys, mut pairs) = (Keys::default(), Pairs::of(&cluster));
        let (mut away, mut removed) = (BTreeSet::<usize>::new(), None::<Removed>);
        pairs.0.values_mut().for_each(|since| *since = Instant::ZERO);
        for _ in 0..8 {
            (0..NODES).for_each(|node| match dice.below(6) {
                0 => cluster.rotate_keys(node),
                1 => cluster.use_keys(node, Usage::MOST),
                _ => {}
            });
            // One node at a time is away, dead or cut off or removed: the others are undisturbed.
            match (away.first().copied(), dice.below(4)) {
                (None, what) => {
                    let node = dice.below(NODES);
                    away.insert(node);
                    match what {
                        0 => cluster.crash(node),
                        1 => cluster.partition([node]),
                        _ => {
                            removed = Some(Removed::of(&cluster, node));
                            cluster.remove_node(node).unwrap();
                            removals += 1;
                        }
                    }
                }
                (Some(node), 0..3) => {
                    come_back(&mut cluster, node, removed.take().is_some());
                    away.clear();
                    pairs.disturb(node, cluster.now());
                }
                _ => {}
            }
            for _ in 0..50 + dice.below(300) {
                cluster.run_for(STEP);
                keys.look(&cluster);
                if dice.one_in(8) {
                    checked += pairs.check(&cluster, &away, seed);
                }
            }
            cluster.check_always().unwrap();
        }
        if let Some(removed) = &removed {
            cluster.run_for(Duration::from_secs(20));
            rest(&mut cluster, &mut keys, removed.node);
            removed.check(&cluster, &keys, seed);
        }
        away.iter().for_each(|node| come_back(&mut cluster, *node, removed.is_some()));
        cluster.run_for(Duration::from_secs(90)); // longer than anybody is waited for, twice over
        cluster.settle(Duration::from_secs(60)).unwrap_or_else(|violation| panic!("seed {seed}: {violation}"));
        let observed = cluster.observe();
        (0..NODES * (NODES - 1)).for_each(|pair| probe(&cluster, &observed, pair, seed));
        rotations += ended(&cluster);
    }
    println!("{checked} probes of live pairs, {removals} removals, {rotations} rotations of what runs at the end");
    assert!(checked > 100 * SEEDS && removals > SEEDS / 2);
}

/// A node that was dead, cut off or removed is as the others again.
fn come_back(cluster: &mut Cluster, node: usize, was_removed: bool) {
    if was_removed {
        cluster.readmit_node(node).unwrap();
        for network in ["shared", "own"] {
            drop(cluster.attach(&format!("{network}-{node}"), node, network).unwrap());
        }
    }
    cluster.heal();
    cluster.restart(node).unwrap();
}

/// A seed whole, where there are more of them than a byte tells apart.
fn wide(seed: u64) -> [u8; 32] {
    let mut bytes = [0x3c; 32];
    bytes[..8].copy_from_slice(&seed.to_be_bytes());
    bytes
}

#[test]
fn nodes_that_crash_in_any_stage_or_are_cut_off_come_to_keys_that_both_ends_have() {
    for seed in seeds(SEEDS) {
        let mut dice = Dice::new(wide(seed ^ 0x5555));
        let mut cluster = cluster(seed, Conditions::lan());
        let mut keys = Keys::default();
        for _ in 0..6 {
            (0..NODES).for_each(|node| {
                if dice.one_in(2) {
                    cluster.rotate_keys(node);
                }
            });
            for _ in 0..dice.below(30) {
                cluster.run_for(STEP);
                cluster.check_always().unwrap();
                keys.look(&cluster);
            }
            let node = dice.below(NODES);
            match dice.below(3) {
                0 => cluster.crash(node),
                1 => cluster.partition([node]),
                _ => cluster.heal(),
            }
            for _ in 0..dice.below(100) {
                cluster.run_for(STEP);
                keys.look(&cluster);
            }
            cluster.check_always().unwrap();
            cluster.restart(node).unwrap();
        }
        cluster.heal();
        (0..NODES).for_each(|node| cluster.restart(node).unwrap());
        cluster.run_for(Duration::from_secs(90)); // longer than anybody is waited for, twice over
        cluster.settle(Duration::from_secs(60)).unwrap_or_else(|violation| panic!("seed {seed}: {violation}"));
        let observed = cluster.observe();
        (0..NODES * (NODES - 1)).for_each(|pair| probe(&cluster, &observed, pair, seed));
        let spis: BTreeSet<&(usize, Spi)> = keys.0.keys().collect();
        assert!(spis.len() > 4 * NODES * (NODES - 1), "seed {seed}");
    }
}
