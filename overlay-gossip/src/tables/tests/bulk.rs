//! Many entries at once: how long, and how many bytes.

use std::time::Duration;

use super::pump::{Pump, key, network};
use crate::tables::TablesConfig;

/// As an endpoint's record: 25 bytes of key, 100 of value.
fn fill(pump: &mut Pump, node: usize, count: usize) {
    for at in 0..count {
        pump.put(node, network(1), &key(format!("endpoint {node:06} {at:09}")), vec![at as u8; 100]);
    }
}

const ENTRY: f64 = 125.0;

#[test]
fn a_burst_is_everywhere_soon_and_costs_little_more_than_itself() {
    for (nodes, entries) in [(20, 1_000), (20, 2_000)] {
        let mut pump = Pump::with_nodes(21, &TablesConfig::default(), nodes);
        pump.run(Duration::from_secs(3));
        let before = pump.tally.bytes;
        (0..nodes).for_each(|node| fill(&mut pump, node, entries / nodes));
        let took = pump.run_until(Duration::from_secs(30), |pump| pump.all_have(network(1), entries));
        let times = (pump.tally.bytes - before) as f64 / nodes as f64 / (entries as f64 * ENTRY);
        println!("{nodes} nodes, {entries} entries of all: {took:?}, {times:.2} times the size");
        assert!(took.is_some_and(|took| took < Duration::from_secs(6)) && times < 3.0, "{took:?} {times}");
        assert!(pump.is_equal(network(1)));
    }
}

#[test]
fn a_burst_of_one_node_is_everywhere_soon() {
    let mut pump = Pump::with_nodes(22, &TablesConfig::default(), 20);
    pump.run(Duration::from_secs(3));
    let before = pump.tally.bytes;
    fill(&mut pump, 0, 2_000);
    let took = pump.run_until(Duration::from_secs(30), |pump| pump.all_have(network(1), 2_000));
    let times = (pump.tally.bytes - before) as f64 / 20.0 / (2_000.0 * ENTRY);
    println!("20 nodes, 2,000 entries of one: {took:?}, {times:.2} times the size");
    assert!(took.is_some_and(|took| took < Duration::from_secs(6)) && times < 3.0, "{took:?} {times}");
}

#[test]
fn a_joiner_gets_everything_once() {
    let mut pump = Pump::with_nodes(23, &TablesConfig::default(), 5);
    (0..5).for_each(|node| fill(&mut pump, node, 400));
    pump.run(Duration::from_secs(20));
    assert!(pump.all_have(network(1), 2_000));
    let before = pump.tally.bytes;
    let joiner = pump.add(Duration::from_millis(5));
    pump.subscribe(joiner, network(1));
    let took = pump.run_until(Duration::from_secs(5), |pump| pump.all_have(network(1), 2_000));
    let times = (pump.tally.bytes - before) as f64 / (2_000.0 * ENTRY);
    println!("a joiner, 2,000 entries: {took:?}, {times:.2} times the size");
    assert!(took.is_some_and(|took| took < Duration::from_millis(500)) && times < 1.3, "{took:?} {times}");
}
