//! Long stories by chance: what must hold in every one.

use std::sync::Arc;
use std::time::Duration;

use overlay_core::NodeId;

use super::pump::{CALM, Pump, STORM, Tally, key, network};
use crate::tables::{Disbelief, Signature, TablesConfig, Verify};

/// Stories of a plain run; `PROPTEST_CASES` may ask for more, as it does of the properties.
const SEEDS: u64 = 40;

#[expect(clippy::disallowed_methods, reason = "a test may be asked for more cases")]
fn seeds() -> u64 {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    cases.unwrap_or(0).max(SEEDS)
}

#[test]
fn after_any_story_all_tables_are_equal_and_nothing_removed_is_back() {
    let mut sum = Tally::default();
    for seed in 0..seeds() {
        let seen = std::panic::catch_unwind(|| story(seed));
        let Ok(tally) = seen else {
            panic!("seed {seed} repeats it");
        };
        for (sum, one) in [
            (&mut sum.lost, tally.lost),
            (&mut sum.doubled, tally.doubled),
            (&mut sum.late, tally.late),
            (&mut sum.puts, tally.puts),
            (&mut sum.removals, tally.removals),
            (&mut sum.crashes, tally.crashes),
            (&mut sum.restarts, tally.restarts),
            (&mut sum.cuts, tally.cuts),
            (&mut sum.unsubscribed, tally.unsubscribed),
            (&mut sum.watermark_checks, tally.watermark_checks),
            (&mut sum.removal_checks, tally.removal_checks),
        ] {
            *sum += one;
        }
    }
    println!("{sum:?}");
    let counts = [
        (sum.lost, 1_000),
        (sum.doubled, 1_000),
        (sum.late, 1_000),
        (sum.puts, 5_000),
        (sum.removals, 1_000),
        (sum.crashes, 20),
        (sum.restarts, 20),
        (sum.cuts, 20),
        (sum.unsubscribed, 20),
        (sum.watermark_checks, 10_000),
        (sum.removal_checks, 1_000),
    ];
    assert!(counts.iter().all(|(found, least)| found >= least), "too little happened: {sum:?}");
}

/// Signs by the owner that a statement names: nothing for use.
#[derive(Debug)]
struct Named;

fn named(statement: &[u8]) -> Vec<u8> {
    statement.iter().fold(7_u64, |sum, byte| sum.rotate_left(5) ^ u64::from(*byte)).to_be_bytes().to_vec()
}

impl Verify for Named {
    fn sign(&self, statements: &[Vec<u8>]) -> Vec<Signature> {
        statements.iter().map(|statement| Signature::new(named(statement)).unwrap()).collect()
    }

    fn longest(&self) -> usize {
        8
    }

    fn verify(&self, owner: NodeId, statement: &[u8], signature: &[u8]) -> Result<(), Disbelief> {
        match (statement[38..54] == owner.to_bytes(), signature) {
            (_, []) => Err(Disbelief::Unsigned),
            (true, signature) if signature == named(statement) => Ok(()),
            _ => Err(Disbelief::Forged),
        }
    }
}

/// Half a minute of changes and faults, then calm.
fn story(seed: u64) -> Tally {
    let config = TablesConfig {
        tombstone_cap: Duration::from_secs(if seed.is_multiple_of(3) { 2 } else { 600 }),
        hide_after: Duration::from_millis(500),
        datagram: if seed.is_multiple_of(2) { 1_300 } else { 420 },
        fresh_bytes: if seed.is_multiple_of(5) { 1_024 } else { 16_384 },
        chunk: if seed.is_multiple_of(4) { 1_024 } else { 65_536 },
        verify: (seed % 4 > 1).then(|| Arc::new(Named) as _),
        ..TablesConfig::default()
    };
    let count = 3 + (seed % 7) as usize;
    let mut pump = Pump::with_nodes(seed, &config, count);
    pump.weather = STORM;
    for _ in 0..60 {
        turn(&mut pump);
        let pause = pump.chance.within(Duration::from_secs(1));
        pump.run(pause);
        pump.check_removals();
    }
    pump.weather = CALM;
    for node in 0..pump.nodes.len() {
        if !pump.nodes[node].up {
            pump.restart(node);
        }
    }
    pump.heal();
    pump.run(Duration::from_secs(20));
    pump.check_removals();
    for net in [1, 2] {
        assert!(pump.is_equal(network(net)), "network {net} differs");
        settled(&pump, net);
    }
    pump.tally
}

/// What holds once all is quiet: the same hash everywhere, watermarks at the end, short queues.
fn settled(pump: &Pump, net: u8) {
    let subscribers: Vec<_> = pump.nodes.iter().filter(|node| node.wants.contains(&network(net))).collect();
    let root = |node: &super::pump::Node| node.tables.replicas[&network(net)].root();
    assert!(subscribers.windows(2).all(|pair| root(pair[0]) == root(pair[1])), "roots differ");
    for node in subscribers {
        let metrics = node.tables.metrics();
        assert_eq!(
            (metrics.watermark_lag, metrics.fresh, metrics.pulls, metrics.transmits),
            (0, 0, 0, 0),
            "{metrics:?}"
        );
        assert_eq!(metrics.refused.signature + metrics.refused.unsigned, 0, "{metrics:?}");
        assert_eq!(metrics.refused.own_name + metrics.refused.full + metrics.repaired, 0, "{metrics:?}");
    }
}

/// One thing that happens.
pub(super) fn turn(pump: &mut Pump) {
    let count = pump.nodes.len();
    let node = pump.chance.below(count);
    let net = network(1 + pump.chance.below(2) as u8);
    match pump.chance.below(20) {
        0 if pump.nodes[node].up => pump.crash(node),
        1 | 2 if !pump.nodes[node].up => pump.restart(node),
        3 => {
            let island: Vec<usize> = (0..count).filter(|_| pump.chance.one_of(1, 3)).collect();
            pump.cut(&island, 1);
        }
        4 | 5 => pump.heal(),
        6 if pump.nodes[node].up && pump.nodes[node].wants.contains(&net) => pump.unsubscribe(node, net),
        7 | 8 if pump.nodes[node].up => pump.subscribe(node, net),
        9 if count < 12 => {
            let node = pump.add(Duration::from_millis(500));
            pump.subscribe(node, net);
        }
        _ => changes(pump, node, net),
    }
}

/// Some changes of a node: mostly few, at times very many.
fn changes(pump: &mut Pump, node: usize, net: overlay_core::NetworkId) {
    if !pump.nodes[node].up || !pump.nodes[node].wants.contains(&net) {
        return;
    }
    let many = if pump.chance.one_of(1, 8) { 200 } else { 8 };
    for _ in 0..pump.chance.below(many) {
        let key = key(format!("key {}", pump.chance.below(many / 2)));
        if pump.chance.one_of(1, 3) {
            pump.remove(node, net, &key);
        } else {
            let len = if pump.chance.one_of(1, 50) { 3_000 } else { pump.chance.below(60) };
            let mut value = pump.chance.number().to_be_bytes().to_vec();
            value.resize(4 + len, 0);
            pump.put(node, net, &key, value);
        }
    }
}
