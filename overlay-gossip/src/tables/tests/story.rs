//! One promise at a time.

use std::time::Duration;

use bytes::Bytes;

use super::pump::{Pump, TABLE, key, network, node_id};
use crate::member_change::MemberChange;
use crate::tables::{Refused, TableEvent, TablesConfig};
use crate::{Sequence, TableId};

const SECOND: Duration = Duration::from_secs(1);

fn events(pump: &mut Pump, node: usize) -> Vec<TableEvent> {
    std::iter::from_fn(|| pump.nodes[node].tables.poll_event()).collect()
}

#[test]
fn an_entry_reaches_every_subscriber_and_the_watermark_says_so() {
    let mut pump = Pump::with_nodes(1, &TablesConfig::default(), 10);
    pump.run(SECOND);
    let sequence = pump.put(3, network(1), &key("web"), "10.0.0.3");
    let took = pump.run_until(2 * SECOND, |pump| pump.is_equal(network(1))).unwrap();
    assert!(took < SECOND, "{took:?}");
    pump.run(2 * SECOND);
    assert_eq!(pump.nodes[3].tables.watermark(network(1)), Some(sequence));
    assert_eq!(pump.nodes[3].tables.unconfirmed(network(1)).count(), 0);
    assert!(events(&mut pump, 3).contains(&TableEvent::Watermark { network: network(1), through: sequence }));
    let put = events(&mut pump, 0).into_iter().find(|event| matches!(event, TableEvent::Put { .. }));
    let (value, owner) = (Bytes::from("10.0.0.3"), node_id(3));
    assert_eq!(put, Some(TableEvent::Put { network: network(1), owner, table: TABLE, key: key("web"), value }));
}

#[test]
fn a_node_alone_confirms_to_itself() {
    let mut pump = Pump::with_nodes(2, &TablesConfig::default(), 1);
    assert_eq!(pump.nodes[0].tables.watermark(network(1)), Some(Sequence(0)));
    let sequence = pump.put(0, network(1), &key("a"), "1");
    assert_eq!(pump.nodes[0].tables.watermark(network(1)), Some(sequence));
    assert_eq!(pump.nodes[0].tables.watermark(network(2)), None);
}

#[test]
fn whom_a_watermark_waits_for_is_said_by_name() {
    let mut pump = Pump::with_nodes(15, &TablesConfig::default(), 4);
    pump.run(SECOND);
    pump.nodes[2].up = false; // dead, and nobody notices
    (0..3).for_each(|at| {
        pump.put(0, network(1), &key(format!("k{at}")), "v");
    });
    pump.run(2 * SECOND);
    let tables = &pump.nodes[0].tables;
    assert_eq!(tables.unconfirmed(network(1)).collect::<Vec<_>>(), [node_id(2)]);
    assert_eq!((tables.watermark_lag(network(1)), tables.watermark_lag(network(2))), (Some(3), None));
    assert_eq!(tables.metrics().watermark_lag, 3);
}

#[test]
fn a_network_stays_among_its_subscribers() {
    let mut pump = Pump::with_nodes(3, &TablesConfig::default(), 4);
    pump.subscribe(2, network(2));
    pump.subscribe(3, network(2));
    pump.put(2, network(2), &key("secret"), "x");
    pump.run(3 * SECOND);
    assert_eq!(pump.view(3, network(2)).len(), 1);
    for node in [0, 1] {
        assert_eq!(pump.view(node, network(2)).len(), 0);
        assert_eq!(pump.nodes[node].tables.metrics().refused.foreign_network, 0, "nobody even tried");
        assert_eq!(pump.nodes[node].tables.subscribers(network(2)).len(), 2);
    }
}

#[test]
fn a_large_value_goes_by_comparison() {
    let mut pump = Pump::with_nodes(4, &TablesConfig::default(), 6);
    pump.run(SECOND);
    pump.put(0, network(1), &key("large"), vec![7; 64 * 1024]);
    assert!(pump.run_until(2 * SECOND, |pump| pump.is_equal(network(1))).is_some());
    assert_eq!(pump.nodes[0].tables.metrics().fresh_overflow, 1);
}

#[test]
fn what_is_out_of_bounds_is_refused_by_name_and_changes_nothing() {
    let config = TablesConfig { entries_limit: 2, networks_limit: 2, ..TablesConfig::default() };
    let mut pump = Pump::with_nodes(5, &config, 1);
    let now = pump.now;
    let tables = &mut pump.nodes[0].tables;
    let mut put = |net, name: &str, len| tables.put(network(net), (TABLE, key(name)), vec![0; len].into(), now);
    assert_eq!(put(2, "a", 1), Err(Refused::NotSubscribed { network: network(2) }));
    assert_eq!(put(0, "a", 1), Err(Refused::Reserved));
    assert_eq!(put(1, "a", 65_537), Err(Refused::ValueTooLong { found: 65_537 }));
    assert_eq!((put(1, "a", 1), put(1, "b", 1)), (Ok(Sequence(1)), Ok(Sequence(2))));
    assert!(matches!(put(1, "c", 1), Err(Refused::Full { entries: 2, .. })));
    assert_eq!(put(1, "a", 1), Ok(Sequence(1)), "the same value is no change");
    assert_eq!(put(1, "a", 2), Ok(Sequence(3)), "a change in place has room");
    assert_eq!(tables.remove(network(1), (TABLE, key("z")), now), Ok(None));
    assert_eq!(tables.remove(network(1), (TABLE, key("b")), now), Ok(Some(Sequence(4))));
    assert!(tables.put(network(1), (TABLE, key("c")), Bytes::new(), now).is_ok(), "room was made");
    assert_eq!(tables.entries(network(1), TABLE).count(), 2);
    assert_eq!(tables.entries(network(1), TableId(0)).count(), 0);
    assert_eq!(tables.subscribe(network(0), now), Err(Refused::Reserved));
    assert_eq!(tables.subscribe(network(2), now), Ok(()));
    assert_eq!(tables.subscribe(network(3), now), Err(Refused::TooManyNetworks { found: 2 }));
    assert_eq!(tables.metrics().networks, 2);
}

#[test]
fn a_suspended_owner_is_hidden_after_a_grace_and_back_without_a_transfer() {
    let mut pump = Pump::with_nodes(6, &TablesConfig::default(), 5);
    for at in 0..50 {
        pump.put(4, network(1), &key(format!("k{at}")), "v");
    }
    pump.run(3 * SECOND);
    events(&mut pump, 0);
    pump.cut(&[4], 1);
    pump.run(4 * SECOND);
    assert_eq!(pump.view(0, network(1)).len(), 50, "within the grace");
    pump.run(6 * SECOND);
    assert_eq!(pump.view(0, network(1)).len(), 0);
    assert_eq!(events(&mut pump, 0), [TableEvent::Hidden { network: network(1), owner: node_id(4) }]);
    let pulled = pump.nodes[0].tables.metrics().taken_pulled;
    pump.heal();
    pump.run(SECOND);
    assert_eq!(pump.view(0, network(1)).len(), 50);
    assert_eq!(events(&mut pump, 0), [TableEvent::Restored { network: network(1), owner: node_id(4) }]);
    assert_eq!(pump.nodes[0].tables.metrics().taken_pulled, pulled);
}

#[test]
fn what_an_owner_had_goes_when_it_expires_leaves_or_unsubscribes() {
    for change in [Some(MemberChange::Expired), Some(MemberChange::Left), None] {
        let mut pump = Pump::with_nodes(7, &TablesConfig::default(), 4);
        pump.put(3, network(1), &key("k"), "v");
        pump.run(2 * SECOND);
        events(&mut pump, 0);
        match change {
            Some(change) => {
                pump.crash(3);
                pump.tell_others(3, change, SECOND..2 * SECOND);
            }
            None => pump.unsubscribe(3, network(1)),
        }
        pump.run(5 * SECOND);
        assert_eq!(pump.view(0, network(1)).len(), 0);
        assert_eq!(events(&mut pump, 0), [TableEvent::Dropped { network: network(1), owner: node_id(3) }]);
        assert!(!pump.nodes[0].tables.subscribers(network(1)).contains(&node_id(3)));
    }
}

#[test]
fn who_subscribes_again_counts_on_and_its_former_entries_do_not_return() {
    let mut pump = Pump::with_nodes(8, &TablesConfig::default(), 5);
    pump.put(4, network(1), &key("old"), "1");
    pump.run(2 * SECOND);
    pump.cut(&[3], 1); // does not hear of what follows
    pump.run(3 * SECOND);
    pump.unsubscribe(4, network(1));
    pump.run(SECOND);
    pump.subscribe(4, network(1));
    let sequence = pump.put(4, network(1), &key("new"), "2");
    assert_eq!(sequence, Sequence(2));
    pump.run(2 * SECOND);
    pump.heal();
    pump.run(4 * SECOND);
    assert!(pump.is_equal(network(1)));
    assert_eq!(pump.view(3, network(1)).len(), 1);
    assert_eq!(pump.nodes[4].tables.watermark(network(1)), Some(sequence));
}

#[test]
fn a_removal_is_forgotten_once_all_have_seen_it_and_whoever_was_away_learns_of_it_still() {
    let mut pump = Pump::with_nodes(9, &TablesConfig::default(), 6);
    for at in 0..20 {
        pump.put(0, network(1), &key(format!("k{at}")), "v");
    }
    pump.run(2 * SECOND);
    pump.cut(&[5], 1);
    pump.run(3 * SECOND);
    (0..10).for_each(|at| pump.remove(0, network(1), &key(format!("k{at}"))));
    pump.run(5 * SECOND);
    for node in 0..5 {
        assert_eq!(pump.nodes[node].tables.metrics().tombstones, 1, "the last change stays, node {node}");
    }
    pump.put(0, network(1), &key("k19"), "w");
    pump.run(5 * SECOND);
    for node in 0..5 {
        assert_eq!(pump.nodes[node].tables.metrics().tombstones, 0, "node {node}");
    }
    pump.heal();
    pump.run(2 * SECOND);
    assert_eq!(pump.view(5, network(1)).len(), 10);
    assert!(pump.is_equal(network(1)));
    let roots: Vec<u64> = pump.nodes.iter().map(|node| node.tables.replicas[&network(1)].root()).collect();
    assert!(roots.iter().all(|root| *root == roots[0]));
}

#[test]
fn a_tombstone_goes_at_its_cap_although_a_subscriber_never_confirms() {
    let config = TablesConfig { tombstone_cap: 20 * SECOND, ..TablesConfig::default() };
    let mut pump = Pump::with_nodes(10, &config, 4);
    pump.put(0, network(1), &key("k"), "v");
    pump.run(2 * SECOND);
    pump.nodes[3].up = false; // dead, and nobody notices
    pump.remove(0, network(1), &key("k"));
    pump.put(0, network(1), &key("other"), "v");
    pump.run(10 * SECOND);
    assert_eq!(pump.nodes[1].tables.metrics().tombstones, 1);
    pump.run(15 * SECOND);
    assert!((0..3).all(|node| pump.nodes[node].tables.metrics().tombstones == 0));
    pump.nodes[3].up = true;
    pump.heal();
    pump.run(3 * SECOND);
    assert_eq!(pump.view(3, network(1)).keys().map(|(_, at)| at.clone()).collect::<Vec<_>>(), [key("other")]);
}

#[test]
fn a_restarted_owner_has_what_it_declares_and_nothing_else() {
    let mut pump = Pump::with_nodes(11, &TablesConfig::default(), 5);
    for at in 0..5 {
        pump.put(2, network(1), &key(format!("k{at}")), "old");
    }
    pump.run(2 * SECOND);
    pump.crash(2);
    pump.run(SECOND);
    pump.restart(2);
    let sequence = pump.put(2, network(1), &key("k0"), "new");
    assert_eq!(sequence, Sequence(1));
    pump.run(5 * SECOND);
    assert!(pump.is_equal(network(1)));
    assert_eq!(pump.view(0, network(1)).into_values().collect::<Vec<_>>(), [Bytes::from("new")]);
}

#[test]
fn news_rides_along_within_its_budget_and_is_a_message() {
    let mut pump = Pump::with_nodes(12, &TablesConfig::default(), 2);
    pump.run(SECOND);
    let now = pump.now;
    for at in 0..30 {
        let entry = (TABLE, key(format!("key {at}")));
        pump.nodes[0].tables.put(network(1), entry, vec![1; 50].into(), now).unwrap();
    }
    for budget in [0, 1, 30, 100, 200, 500, 1_000] {
        let mut out = vec![9];
        pump.nodes[0].tables.fill(node_id(1), budget, &mut out, now);
        assert!(out.len() <= budget + 1 && out[0] == 9);
        assert_eq!(out.len() > 1, budget >= 100, "{budget}");
        if out.len() > 1 {
            pump.nodes[1].tables.handle(node_id(0), &out[1..], now).unwrap();
        }
    }
    assert!(pump.nodes[1].tables.metrics().taken_fresh > 10);
}

#[test]
fn nothing_new_costs_a_digest_a_second() {
    let mut pump = Pump::with_nodes(13, &TablesConfig::default(), 40);
    for node in 0..40 {
        pump.put(node, network(1), &key("k"), "v");
    }
    pump.run(40 * SECOND);
    let (before, streams) = (pump.tally.bytes, pump.tally.streams);
    pump.run(60 * SECOND);
    let each = (pump.tally.bytes - before) as f64 / 40.0 / 60.0;
    println!("idle: {each:.1} bytes a second and node");
    assert!(each < 100.0 && each > 10.0, "{each}");
    assert_eq!(pump.tally.streams, streams);
}

#[test]
fn who_missed_very_many_removals_learns_of_them_in_bounded_messages() {
    let mut pump = Pump::with_nodes(14, &TablesConfig::default(), 3);
    (0..6_000).for_each(|at| {
        pump.put(0, network(1), &key(format!("k{at}")), "v");
    });
    pump.run(3 * SECOND);
    pump.cut(&[2], 1);
    pump.run(3 * SECOND);
    (0..3_000).for_each(|at| pump.remove(0, network(1), &key(format!("k{}", 2 * at))));
    pump.put(0, network(1), &key("k1"), "w");
    pump.run(20 * SECOND);
    assert_eq!(pump.nodes[0].tables.metrics().tombstones, 0);
    pump.put(0, network(1), &key("last"), vec![1; 60_000]);
    pump.heal();
    pump.run(5 * SECOND);
    assert!(pump.is_equal(network(1)));
    assert_eq!(pump.view(2, network(1)).len(), 3_001);
}
