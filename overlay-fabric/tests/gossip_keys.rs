//! The key of gossip, changed while nodes talk, die, come back and are dismissed.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail loudly too")]

use std::collections::BTreeSet;
use std::time::Duration;

use overlay_core::testing::Dice;
use overlay_crypto::gossip::Generation;
use overlay_crypto::{RotationConfig, Stage};
use overlay_fabric::{Cluster, ClusterConfig};
use overlay_gossip::testing::{Conditions, seeds};
use overlay_node::Agent;

/// Seeds of a plain run. `.ci/run full` asks for more.
const SEEDS: u64 = 40;
const STEP: Duration = Duration::from_millis(100);
/// How long it takes at most from calm to one key.
const CALM: Duration = Duration::from_secs(120);

fn lossy() -> Conditions {
    Conditions { loss: 0.1, duplication: 0.05, reordering: 0.1, ..Conditions::lan() }
}

/// A cluster that looks at nonces, and waits for others ten seconds at most.
fn config(conditions: Conditions) -> ClusterConfig {
    let mut config = ClusterConfig { conditions, nonces: true, watched: false, ..ClusterConfig::default() };
    config.agent.gossip_rotation =
        RotationConfig { limit: Duration::from_secs(10), rest: Duration::from_secs(1), ..RotationConfig::default() };
    config
}

fn cluster(seed: u64, nodes: usize, config: ClusterConfig) -> Cluster {
    let mut cluster = Cluster::with(config, seed, nodes).unwrap();
    let all_know_all = |cluster: &Cluster| running(cluster).all(|(_, it)| it.metrics().nodes == nodes);
    assert!(cluster.run_until(CALM, all_know_all).is_some(), "seed {seed}");
    cluster.run_for(Duration::from_secs(2));
    cluster
}

fn running(cluster: &Cluster) -> impl Iterator<Item = (usize, &Agent)> {
    (0..cluster.len()).filter_map(|node| Some((node, cluster.agent(node)?)))
}

fn primary(agent: &Agent) -> Generation {
    agent.gossip_keys().unwrap().primary()
}

fn is_at_rest(agent: &Agent) -> bool {
    agent.gossip_stage() == Stage::Steady && agent.gossip_keys().unwrap().keys().count() == 1
}

fn unopened(cluster: &Cluster) -> u64 {
    running(cluster).map(|(_, agent)| agent.metrics().unopened).sum()
}

#[test]
fn all_come_to_one_new_key_whoever_asks_for_it_and_how_many_and_no_message_is_refused_where_none_is_lost() {
    for seed in seeds(SEEDS) {
        let mut dice = Dice::new([seed as u8; 32]);
        let is_lossy = dice.one_in(2);
        let nodes = 2 + dice.below(5);
        let mut cluster = cluster(seed, nodes, config(if is_lossy { lossy() } else { Conditions::lan() }));
        for _ in 0..2 {
            let before = primary(cluster.agent(0).unwrap());
            for node in 0..nodes {
                if node == 0 || dice.one_in(3) {
                    cluster.rotate_gossip_keys(node, []);
                    cluster.run_for(Duration::from_millis(dice.below(400) as u64));
                }
            }
            let new = |cluster: &Cluster| {
                let first = primary(cluster.agent(0).unwrap());
                first > before && running(cluster).all(|(_, it)| is_at_rest(it) && primary(it) == first)
            };
            let within = cluster.run_until(CALM, new);
            assert!(
                within.is_some(),
                "seed {seed}: {:?}",
                running(&cluster).map(|(_, it)| it.gossip_keys()).collect::<Vec<_>>()
            );
            // Who has not heard yet that another follows answers it with the old key for ten seconds at most.
            let refused = unopened(&cluster);
            assert!(refused == 0 || is_lossy && refused < 10, "seed {seed}: {refused}");
            cluster.run_for(Duration::from_secs(10));
            let refused = unopened(&cluster);
            cluster.run_for(Duration::from_secs(10));
            assert_eq!(unopened(&cluster), refused, "seed {seed}");
            cluster.check_always().unwrap();
        }
        let left: u64 = running(&cluster).map(|(_, it)| it.metrics().gossip_rotations.left_behind).sum();
        assert_eq!(left, 0, "seed {seed}");
    }
}

#[test]
fn who_is_dismissed_never_has_the_next_key_though_it_listens_and_talks_on() {
    for seed in seeds(SEEDS) {
        let mut dice = Dice::new([seed as u8 ^ 0x33; 32]);
        let nodes = 3 + dice.below(3);
        let mut cluster = cluster(seed, nodes, config(if dice.one_in(2) { lossy() } else { Conditions::lan() }));
        let gone = dice.below(nodes);
        let before = primary(cluster.agent(gone).unwrap());
        cluster.dismiss(gone);
        let others = |cluster: &Cluster| {
            running(cluster).filter(|(node, _)| *node != gone).all(|(_, it)| is_at_rest(it) && primary(it) > before)
        };
        // The first of those that are left sees to it; should it be dead, the next.
        let within = cluster.run_until(Duration::from_secs(60), |cluster| {
            let keys = cluster.agent(gone).unwrap().gossip_keys().unwrap();
            assert!(keys.generations().all(|generation| generation <= before), "seed {seed}");
            others(cluster)
        });
        assert!(within.is_some(), "seed {seed}");
        // It is deaf and dumb, and says so.
        let refused = unopened(&cluster);
        cluster.run_for(Duration::from_secs(5));
        assert!(unopened(&cluster) > refused, "seed {seed}");
        let dismissed = cluster.agent(gone).unwrap();
        assert!(dismissed.lacking_gossip_key(cluster.now()).is_some_and(|id| id != before.id), "seed {seed}");
        assert_eq!(primary(dismissed), before);
        cluster.check_always().unwrap();
    }
}

/// What is done to a cluster, as a seed says.
fn happen(cluster: &mut Cluster, dice: &mut Dice) {
    let node = dice.below(cluster.len());
    match dice.below(8) {
        0..=2 => cluster.rotate_gossip_keys(node, []),
        3 if running(cluster).count() > 1 => cluster.crash(node),
        4 | 5 => cluster.restart(node).unwrap(),
        6 => cluster.partition([node]),
        _ => cluster.heal(),
    }
}

/// Whoever lacks what the others seal with is given the key of who has the latest; how many were.
fn hand_out(cluster: &mut Cluster) -> usize {
    let Some((from, latest)) = running(cluster).map(|(node, it)| (node, primary(it))).max_by_key(|(_, it)| *it) else {
        return 0;
    };
    let behind: Vec<usize> = running(cluster).filter(|(_, it)| primary(it) != latest).map(|(node, _)| node).collect();
    behind.iter().for_each(|node| cluster.hand_gossip_key(from, *node).unwrap());
    behind.len()
}

fn is_one(cluster: &Cluster) -> bool {
    let all: BTreeSet<Generation> = running(cluster).map(|(_, it)| primary(it)).collect();
    all.len() == 1 && running(cluster).all(|(_, it)| it.metrics().nodes == cluster.len())
}

#[test]
fn whatever_happens_all_come_to_one_key_by_themselves_or_say_that_they_lack_it() {
    let (mut alone, mut given) = (0, 0);
    for seed in seeds(SEEDS) {
        let mut dice = Dice::new([seed as u8 ^ 0x77; 32]);
        let nodes = 3 + dice.below(3);
        let mut cluster = cluster(seed, nodes, config(if dice.one_in(2) { lossy() } else { Conditions::lan() }));
        for _ in 0..12 {
            happen(&mut cluster, &mut dice);
            (0..dice.below(40)).for_each(|_| cluster.run_for(STEP));
            cluster.check_always().unwrap();
        }
        cluster.heal();
        (0..nodes).for_each(|node| cluster.restart(node).unwrap());
        if cluster.run_until(CALM, is_one).is_some() {
            alone += 1;
        } else {
            // Who was away, or apart, until all others had let the old key go.
            given += hand_out(&mut cluster);
            let one = cluster.run_until(CALM, is_one);
            assert!(
                one.is_some(),
                "seed {seed}: {:?}",
                running(&cluster).map(|(_, it)| it.gossip_keys()).collect::<Vec<_>>()
            );
        }
        cluster.run_for(Duration::from_secs(10)); // for so long one is answered with a key that it has left
        let refused = unopened(&cluster);
        cluster.run_for(Duration::from_secs(20));
        assert_eq!(unopened(&cluster), refused, "seed {seed}: somebody is not understood still");
        cluster.rotate_gossip_keys(dice.below(nodes), []);
        let rests = |cluster: &Cluster| running(cluster).all(|(_, it)| is_at_rest(it));
        assert!(cluster.run_until(CALM, rests).is_some() && is_one(&cluster), "seed {seed}");
        cluster.check_always().unwrap();
    }
    println!("{alone} by themselves, {given} nodes were given a key");
    assert!(alone > 0 && given > 0, "{alone} {given}");
}

#[test]
fn who_was_away_for_one_change_by_time_finds_its_way_by_itself() {
    let mut config = config(Conditions::lan());
    config.agent.rotates_gossip_by_time = true;
    config.agent.gossip_rotation.interval = Duration::from_secs(120);
    let mut cluster = cluster(7, 4, config);
    let before = primary(cluster.agent(2).unwrap());
    cluster.crash(2);
    let changed = |cluster: &Cluster| running(cluster).all(|(_, it)| primary(it) > before);
    assert!(cluster.run_until(Duration::from_secs(200), changed).is_some());
    assert!(
        running(&cluster).map(|(_, it)| it.metrics().gossip_rotations.began).sum::<u64>() == 1,
        "one of them made it"
    );
    cluster.restart(2).unwrap();
    let within = cluster.run_until(Duration::from_secs(60), is_one);
    assert!(within.is_some(), "{:?}", running(&cluster).map(|(_, it)| it.gossip_keys()).collect::<Vec<_>>());
    let rests = |cluster: &Cluster| running(cluster).all(|(_, it)| it.metrics().gossip_rotations.began <= 1);
    assert!(rests(&cluster) && primary(cluster.agent(2).unwrap()) > before);
}

#[test]
fn a_node_alone_does_not_change_its_key_by_time() {
    let mut config = config(Conditions::lan());
    config.agent.rotates_gossip_by_time = true;
    config.agent.gossip_rotation.interval = Duration::from_secs(10);
    let mut cluster = cluster(8, 1, config);
    let before = primary(cluster.agent(0).unwrap());
    cluster.run_for(Duration::from_secs(300));
    assert_eq!(primary(cluster.agent(0).unwrap()), before);
}
