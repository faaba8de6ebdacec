//! With signatures: whose word is taken, and at what cost.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use overlay_core::{NetworkId, NodeId};
use proptest::prelude::*;

use super::pump::{Pump, TABLE, key, network, node_id};
use crate::tables::verify::statement;
use crate::tables::wire::{Change, Chunk, End, Fresh, Group, Message, Part};
use crate::tables::{Intervals, TablesConfig, VOUCHERS};
use crate::testing::TestKeys;

const CLUSTER: u64 = 5;

fn keys(node: usize) -> Arc<TestKeys> {
    Arc::new(TestKeys::new(node_id(node), 1_000 + node as u64, CLUSTER))
}

/// A cluster of three that know each other, and how each signs.
fn cluster() -> (Pump, Vec<Arc<TestKeys>>) {
    let mut pump = Pump::new(41, &TablesConfig::default());
    let known: Vec<_> = (0..3).map(keys).collect();
    for (node, known) in known.iter().enumerate() {
        pump.config = TablesConfig { verify: Some(Arc::clone(known) as _), ..TablesConfig::default() };
        pump.add(Duration::ZERO);
        pump.subscribe(node, network(1));
        pump.subscribe(node, network(2));
    }
    pump.run(Duration::from_secs(5));
    (pump, known)
}

fn fresh(network: NetworkId, owner: NodeId, incarnation: u64, changes: Vec<Change>) -> Vec<u8> {
    let mut out = Vec::new();
    let group = Group { owner, incarnation, stable: 0, changes };
    Message::Fresh(Fresh { groups: vec![(network, group)] }).encode(&mut out);
    out
}

/// An entry of node 1 as it passes it on.
fn genuine(pump: &Pump, of: NetworkId, name: &str) -> Change {
    pump.nodes[1].tables.replicas[&of].chain(node_id(1)).unwrap().change(TABLE, &key(name)).unwrap()
}

/// Node 0 hears this from node 2; what it refused: unsigned, unvouched, forged, not looked at, and of a former start.
fn hear(pump: &mut Pump, body: &[u8]) -> [u64; 5] {
    let now = pump.now;
    let tables = &mut pump.nodes[0].tables;
    let before = tables.metrics().refused;
    tables.handle(node_id(2), body, now).unwrap();
    let after = tables.metrics().refused;
    [
        after.unsigned - before.unsigned,
        after.unvouched - before.unvouched,
        after.signature - before.signature,
        after.unverified - before.unverified,
        after.past_incarnation - before.past_incarnation,
    ]
}

#[test]
fn what_is_made_at_once_is_signed_at_once_and_proved_one_by_one_by_whoever_passes_it_on() {
    let (mut pump, known) = cluster();
    known[1].take_signed();
    for number in 0..100 {
        pump.put(1, network(1), &key(format!("{number}")), "v");
    }
    pump.put(1, network(1), &key("0"), "w"); // in place of one that was not signed yet
    pump.remove(1, network(1), &key("1"));
    pump.run(Duration::from_secs(5));
    assert_eq!(known[1].take_signed(), [100]);
    assert!(pump.is_equal(network(1)) && pump.view(0, network(1)).len() == 99);
    let refused = pump.nodes[0].tables.metrics().refused;
    assert_eq!((refused.signature, refused.unsigned, refused.unvouched), (0, 0, 0), "{refused:?}");
}

#[test]
fn what_is_forged_altered_replayed_or_transplanted_is_refused_by_name() {
    let (mut pump, _) = cluster();
    pump.put(1, network(1), &key("k"), "old");
    pump.run(Duration::from_secs(1));
    let old = genuine(&pump, network(1), "k");
    pump.put(1, network(1), &key("k"), "new");
    pump.put(2, network(1), &key("own"), "v");
    pump.run(Duration::from_secs(2));
    let (new, before) = (genuine(&pump, network(1), "k"), pump.view(0, network(1)));
    let victim = node_id(1);
    let later = |change: &Change| Change { sequence: change.sequence + 9, covers: Vec::new(), ..change.clone() };
    let own = Change { signature: TestKeys::signature(1_002, b"anything").into(), ..later(&new) };
    let forged = [0, 0, 1, 0, 0];
    let (of, start) = (network(1), 1);
    let news = [
        ("forged with the liar's own key", fresh(of, victim, start, vec![own]), forged),
        (
            "unsigned",
            fresh(of, victim, start, vec![Change { signature: Bytes::new(), ..later(&new) }]),
            [1, 0, 0, 0, 0],
        ),
        ("another value", fresh(of, victim, start, vec![Change { value: Some("lie".into()), ..later(&new) }]), forged),
        ("a removal", fresh(of, victim, start, vec![Change { value: None, ..later(&new) }]), forged),
        ("another key", fresh(of, victim, start, vec![Change { key: key("other"), ..later(&new) }]), forged),
        ("under a later number", fresh(of, victim, start, vec![later(&old)]), forged),
        ("in another network", fresh(network(2), victim, start, vec![new.clone()]), forged),
        ("as another owner's", fresh(of, node_id(2), start, vec![later(&new)]), forged),
        ("of a former start", fresh(of, victim, 0, vec![new.clone()]), [0, 0, 0, 0, 1]),
        ("the older one again", fresh(of, victim, start, vec![old]), [0; 5]),
        ("the present one again", fresh(of, victim, start, vec![new]), [0; 5]),
    ];
    for (what, body, refused) in news {
        assert_eq!(hear(&mut pump, &body), refused, "{what}");
        assert_eq!(pump.view(0, network(1)), before, "{what}");
        assert_eq!(pump.view(0, network(2)).len(), 0, "{what}");
    }
}

#[test]
fn nobody_vouches_for_another_nor_comes_from_another_cluster() {
    let (mut pump, _) = cluster();
    pump.put(1, network(1), &key("k"), "v");
    pump.run(Duration::from_secs(2));
    let victim = node_id(1);
    let shows = |shown: Vec<u8>, secret: u64| {
        let mut change = genuine(&pump, network(1), "k");
        (change.sequence, change.table, change.key) = (99, VOUCHERS, key("voucher"));
        change.value = Some(shown.into());
        change.signature = TestKeys::signature(secret, &statement(network(0), victim, 1, &change)).into();
        fresh(network(0), victim, 1, vec![change])
    };
    let liars = shows(TestKeys::shown(node_id(2), 1_002, CLUSTER), 1_002);
    let invented = shows(TestKeys::shown(victim, 1_002, 6), 1_002);
    let without_its_secret = shows(TestKeys::shown(victim, 1_001, CLUSTER), 1_002);
    for (what, body) in [("the liar's", liars), ("another cluster's", invented), ("a true one", without_its_secret)] {
        assert_eq!(hear(&mut pump, &body), [0, 0, 1, 0, 0], "{what}");
    }
    let forged = Change { sequence: 9, ..genuine(&pump, network(1), "k") };
    let signature = TestKeys::signature(1_002, &statement(network(1), victim, 1, &forged)).into();
    let body = fresh(network(1), victim, 1, vec![Change { signature, ..forged }]);
    assert_eq!(hear(&mut pump, &body), [0, 0, 1, 0, 0]);
    assert_eq!(pump.nodes[0].tables.metrics().refused.unvouched, 0, "vouchers come before what is verified by them");
}

#[test]
fn forgeries_cost_a_bounded_number_of_signatures_and_nothing_true_is_lost() {
    let (mut pump, known) = cluster();
    pump.put(1, network(1), &key("k"), "v");
    pump.run(Duration::from_secs(2));
    let forged = |sequence| Change { sequence, signature: vec![7; 8].into(), ..genuine(&pump, network(1), "k") };
    let body = fresh(network(1), node_id(1), 1, (100..130).map(forged).collect());
    known[0].take_looks();
    for _ in 0..3_000 {
        hear(&mut pump, &body);
    }
    assert_eq!(known[0].take_looks(), 1_000);
    let refused = pump.nodes[0].tables.metrics().refused;
    assert_eq!((refused.signature, refused.unverified), (1_000, 89_000));
    pump.put(1, network(1), &key("true"), "v");
    pump.run(Duration::from_secs(5));
    assert_eq!(pump.view(0, network(1)).len(), 2);
}

#[test]
fn who_starts_again_signs_with_another_key() {
    let (mut pump, known) = cluster();
    pump.put(1, network(1), &key("k"), "v");
    pump.run(Duration::from_secs(2));
    assert_eq!(known[0].known(node_id(1)), Some(1_001));
    let fresh_key = Arc::new(TestKeys::new(node_id(1), 9_999, CLUSTER));
    pump.config = TablesConfig { verify: Some(fresh_key as _), ..TablesConfig::default() };
    pump.crash(1);
    pump.restart(1);
    pump.put(1, network(1), &key("again"), "v");
    pump.run(Duration::from_secs(10));
    assert_eq!(known[0].known(node_id(1)), Some(9_999));
    assert_eq!(pump.view(0, network(1)).len(), 1);
}

#[test]
fn nobody_but_its_owner_is_believed_that_an_entry_was_removed() {
    let (mut pump, _) = cluster();
    for name in ["a", "b", "c"] {
        pump.put(1, network(1), &key(name), "v");
    }
    pump.run(Duration::from_secs(2));
    let (now, before) = (pump.now, pump.view(0, network(1)));
    let answer_of = |pump: &mut Pump, from: usize, end: &End| {
        let tables = &mut pump.nodes[0].tables;
        tables.pull(node_id(from), network(1), vec![(node_id(1), 1)], now);
        let wants = std::iter::from_fn(|| tables.poll_transmit()).filter_map(|sent| Message::parse(&sent.body).ok());
        let ids: Vec<u64> =
            wants.filter_map(|it| if let Message::Want(want) = it { Some(want.id) } else { None }).collect();
        let group = Group { owner: node_id(1), incarnation: 1, stable: 0, changes: Vec::new() };
        let parts = vec![Part { group, end: Some(end.clone()) }];
        let (id, mut body) = (*ids.last().unwrap(), Vec::new());
        Message::Chunk(Chunk { id, network: network(1), parts }).encode(&mut body);
        tables.handle(node_id(from), &body, now).unwrap();
        std::iter::from_fn(|| tables.poll_transmit()).map(|sent| sent.to).collect::<Vec<_>>()
    };
    let seen = pump.nodes[0].tables.replicas[&network(1)].chain(node_id(1)).unwrap().seen().clone();
    let gone = End { floor: seen.last(), seen, alive: Some(Intervals::default()) };
    assert_eq!(answer_of(&mut pump, 2, &gone), [node_id(1)], "the owner is asked");
    assert_eq!(pump.view(0, network(1)), before);
    pump.run(Duration::from_secs(15)); // it answers, and all is as it was
    assert_eq!(pump.view(0, network(1)), before);
    assert!(pump.is_equal(network(1)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is done to a genuine change, what another node believes of its owner is what the owner said.
    #[test]
    fn no_change_of_a_change_is_believed(
        byte in any::<prop::sample::Index>(),
        bit in 0..8_u8,
        of in 1..3_u8,
        owner in 0..3_usize,
        start in 0..3_u64,
        later in 0..4_u64,
    ) {
        let (mut pump, _) = cluster();
        pump.put(1, network(1), &key("k"), "v");
        pump.put(2, network(1), &key("other"), "w");
        pump.run(Duration::from_secs(2));
        let views = |pump: &Pump| [pump.view(0, network(1)), pump.view(0, network(2))];
        let (mut change, before) = (genuine(&pump, network(1), "k"), views(&pump));
        change.sequence += later;
        let mut body = fresh(network(of), node_id(owner), start, vec![change]);
        let now = pump.now;
        let _ = pump.nodes[0].tables.handle(node_id(2), &body, now);
        prop_assert_eq!(&views(&pump), &before);
        let at = byte.index(body.len());
        body[at] ^= 1 << bit;
        let _ = pump.nodes[0].tables.handle(node_id(2), &body, now);
        prop_assert_eq!(&views(&pump), &before);
    }
}
