//! Keys that are changed for others while packets flow.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail loudly too")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use overlay_core::testing::Dice;
use overlay_crypto::{SaKey, Spi};
use overlay_fabric::{Cluster, ClusterConfig};
use overlay_gossip::testing::{Conditions, seeds};
use overlay_node::{Encryption, NetworkSpec, Place};

/// Seeds of a plain run. `.ci/run full` asks for more.
const SEEDS: u64 = 40;
const NODES: usize = 4;
const STEP: Duration = Duration::from_millis(40);

/// A cluster with two encrypted networks, one of which has keys of its own, and a container of each on every node.
fn cluster(seed: u64, conditions: Conditions) -> Cluster {
    let config = ClusterConfig { conditions, ..ClusterConfig::default() };
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
fn probe(cluster: &Cluster, pair: usize, seed: u64) {
    let (from, other) = (pair % NODES, pair / NODES % (NODES - 1));
    let to = (from + 1 + other) % NODES;
    for network in ["shared", "own"] {
        let trace = cluster.probe(&format!("{network}-{from}"), &format!("{network}-{to}"));
        assert!(trace.arrives(), "seed {seed}, {:?}: {trace}", cluster.now());
    }
}

/// A moment later: no name has two keys, and some pairs reach each other.
fn step(cluster: &mut Cluster, keys: &mut Keys, dice: &mut Dice, seed: u64) {
    cluster.run_for(STEP);
    keys.look(cluster);
    (0..3).for_each(|_| probe(cluster, dice.below(NODES * NODES), seed));
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
        let mut dice = Dice::new([seed as u8; 32]);
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
            let rests = (0..NODES).all(|node| {
                cluster.agent(node).is_some_and(|it| {
                    let rotations = it.metrics().rotations;
                    rotations.began == rotations.ended
                })
            });
            if rests {
                break;
            }
            step(&mut cluster, &mut keys, &mut dice, seed);
        }
        assert!(ended(&cluster) >= 2 && left_behind(&cluster) == 0, "seed {seed}: {} rotations", ended(&cluster));
        cluster.settle(Duration::from_secs(30)).unwrap_or_else(|violation| panic!("seed {seed}: {violation}"));
        // Nothing is left of what was before.
        let of_host = cluster.places(0).unwrap().place(&Place::Host).unwrap().crypto.state();
        assert_eq!(of_host.sas.len(), 2 * 2 * (NODES - 1), "seed {seed}");
        assert!(keys.0.len() > of_host.sas.len() * NODES);
    }
}

#[test]
fn nodes_that_crash_in_any_stage_or_are_cut_off_come_to_keys_that_both_ends_have() {
    for seed in seeds(SEEDS) {
        let mut dice = Dice::new([seed as u8 ^ 0x55; 32]);
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
        (0..NODES * (NODES - 1)).for_each(|pair| probe(&cluster, pair, seed));
        let spis: BTreeSet<&(usize, Spi)> = keys.0.keys().collect();
        assert!(spis.len() > 4 * NODES * (NODES - 1), "seed {seed}");
    }
}
