//! What others may not do.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use overlay_core::{Instant, NetworkId, NodeId};
use proptest::prelude::*;

use super::pump::{Pump, TABLE, key, network, node_id};
use crate::member_change::MemberChange;
use crate::tables::chain::Room;
use crate::tables::hash::place;
use crate::tables::wire::tests::message;
use crate::tables::wire::{
    Change, Chunk, Confirm, Confirmed, Digest, End, Fresh, Group, Message, Missing, Part, Pieces, Root, Scope, Summary,
    Vector, Vectors, Want,
};
use crate::tables::{DIRECTORY, Disbelief, Intervals, Signature, Tables, TablesConfig, Verify};
use crate::{Key, TableId};

const NOW: Instant = Instant::from_nanos(1_000_000_000);

fn change(sequence: u64, name: &str) -> Change {
    let (covers, value, signature) = (Vec::new(), Some(Bytes::from("forged")), Bytes::new());
    Change { sequence, covers, table: TABLE, key: key(name), value, signature }
}

fn fresh(network: NetworkId, owner: NodeId, incarnation: u64, change: Change) -> Vec<u8> {
    let group = Group { owner, incarnation, stable: 0, changes: vec![change] };
    let mut out = Vec::new();
    Message::Fresh(Fresh { groups: vec![(network, group)] }).encode(&mut out);
    out
}

/// Two nodes that have heard of each other's subscriptions, and an entry of node 1.
fn pair(config: &TablesConfig) -> Pump {
    let mut pump = Pump::with_nodes(31, config, 2);
    pump.put(1, network(1), &key("k"), "v");
    pump.run(Duration::from_secs(5));
    assert_eq!(pump.view(0, network(1)).len(), 1);
    pump
}

#[test]
fn what_is_not_the_owners_word_of_today_is_refused_and_counted() {
    let mut pump = pair(&TablesConfig::default());
    let before = pump.view(0, network(1));
    let tables = &mut pump.nodes[0].tables;
    let (me, other) = (node_id(0), node_id(1));
    let bodies = [
        fresh(network(1), me, 1, change(9, "own name")),
        fresh(network(1), node_id(7), 1, change(1, "no member")),
        fresh(network(1), other, 0, change(9, "former start")),
        fresh(network(1), other, 2, change(9, "start to come")),
        fresh(network(9), other, 1, change(9, "foreign network")),
        fresh(network(1), other, 1, change(1, "from the past")),
    ];
    let stale = tables.metrics().stale;
    for body in &bodies {
        assert_eq!(tables.handle(other, body, NOW), Ok(()));
    }
    assert_eq!(tables.handle(node_id(9), &bodies[0], NOW), Ok(()));
    let metrics = tables.metrics();
    let refused = metrics.refused;
    assert_eq!((refused.own_name, refused.unknown_owner, refused.past_incarnation), (1, 2, 1));
    assert_eq!((refused.foreign_network, refused.stranger, metrics.stale - stale), (1, 1, 1));
    assert_eq!(pump.view(0, network(1)), before);
}

#[test]
fn a_change_of_who_does_not_subscribe_is_refused() {
    let mut pump = pair(&TablesConfig::default());
    pump.unsubscribe(1, network(1));
    pump.run(Duration::from_secs(2));
    let tables = &mut pump.nodes[0].tables;
    assert_eq!(tables.handle(node_id(1), &fresh(network(1), node_id(1), 1, change(9, "late")), NOW), Ok(()));
    assert_eq!(tables.metrics().refused.not_subscribed, 1);
    assert_eq!(tables.entries(network(1), TABLE).count(), 0);
}

#[test]
fn a_confirmation_of_what_was_never_made_does_not_count() {
    let mut pump = pair(&TablesConfig::default());
    pump.put(0, network(1), &key("mine"), "v");
    let tables = &mut pump.nodes[0].tables;
    let (subscription, _) = tables.subscription(node_id(1), network(1)).unwrap();
    let good = Confirmed { network: network(1), subscription, owner_incarnation: 1, through: 1 };
    let bad = [
        Confirmed { through: 2, ..good },
        Confirmed { subscription: subscription + 1, ..good },
        Confirmed { owner_incarnation: 2, ..good },
    ];
    let confirm = |incarnation, networks: &[Confirmed]| {
        let mut out = Vec::new();
        Message::Confirm(Confirm { incarnation, networks: networks.to_vec() }).encode(&mut out);
        out
    };
    tables.handle(node_id(1), &confirm(1, &bad), NOW).unwrap();
    tables.handle(node_id(1), &confirm(2, &[good]), NOW).unwrap();
    assert_eq!((tables.metrics().refused.confirmation, tables.watermark(network(1)).unwrap().0), (4, 0));
    tables.handle(node_id(1), &confirm(1, &[good]), NOW).unwrap();
    assert_eq!(tables.watermark(network(1)).unwrap().0, 1);
}

/// A keyed sum: nothing for use, enough to tell a forger who does not know it.
#[derive(Debug)]
struct Mac {
    me: NodeId,
}

fn mac(owner: NodeId, statement: &[u8]) -> Vec<u8> {
    use std::hash::Hasher;
    let key = u128::from_be_bytes(owner.to_bytes());
    let mut hasher = siphasher::sip::SipHasher24::new_with_keys(key as u64 ^ 0x5ec7e7, (key >> 64) as u64);
    hasher.write(statement);
    hasher.finish().to_be_bytes().to_vec()
}

impl Verify for Mac {
    fn sign(&self, statements: &[Vec<u8>]) -> Vec<Signature> {
        statements.iter().map(|statement| Signature::new(mac(self.me, statement)).unwrap()).collect()
    }

    fn verify(&self, owner: NodeId, statement: &[u8], signature: &[u8]) -> Result<(), Disbelief> {
        match signature {
            [] => Err(Disbelief::Unsigned),
            _ if mac(owner, statement) == signature => Ok(()),
            _ => Err(Disbelief::Forged),
        }
    }
}

fn signing(node: usize) -> TablesConfig {
    TablesConfig { verify: Some(Arc::new(Mac { me: node_id(node) })), ..TablesConfig::default() }
}

#[test]
fn with_signatures_nobody_writes_in_anothers_name() {
    let mut pump = Pump::new(32, &TablesConfig::default());
    for node in 0..3 {
        pump.config = signing(node);
        pump.add(Duration::ZERO);
        pump.subscribe(node, network(1));
    }
    pump.put(1, network(1), &key("k"), "v");
    pump.remove(1, network(1), &key("k"));
    pump.put(2, network(1), &key("k"), vec![1; 5_000]);
    pump.run(Duration::from_secs(5));
    assert!(pump.is_equal(network(1)) && pump.view(0, network(1)).len() == 1);
    assert_eq!(pump.nodes[0].tables.metrics().refused.signature, 0);

    // Node 2 was taken over. It has node 1's signature of an older entry, and its own key.
    let mut forged = change(9, "forged");
    let mut copied = change(10, "copied");
    forged.signature = mac(node_id(2), b"anything").into();
    let genuine =
        pump.nodes[2].tables.replicas[&network(1)].chain(node_id(2)).unwrap().change(TABLE, &key("k")).unwrap();
    copied.signature = genuine.signature;
    for change in [forged, copied, change(11, "unsigned")] {
        let body = fresh(network(1), node_id(1), 1, change);
        pump.nodes[0].tables.handle(node_id(2), &body, NOW).unwrap();
    }
    let refused = pump.nodes[0].tables.metrics().refused;
    assert_eq!((refused.signature, refused.unsigned), (2, 1));
    assert_eq!(pump.view(0, network(1)).len(), 1);
}

#[test]
fn nobody_makes_others_keep_more_subscriptions_than_a_node_may_have() {
    let config = TablesConfig { networks_limit: 3, ..TablesConfig::default() };
    let mut pump = pair(&config);
    let now = pump.now;
    for number in 10..30 {
        let mut subscription = change(number, "network");
        (subscription.table, subscription.key) =
            (TableId(0), Key::new(network(number as u8).to_bytes().to_vec()).unwrap());
        let body = fresh(network(0), node_id(1), 1, subscription);
        pump.nodes[0].tables.handle(node_id(1), &body, now).unwrap();
    }
    assert_eq!(pump.nodes[0].tables.metrics().refused.full, 18, "two beside the true one");
}

#[test]
fn an_entry_that_somebody_told_wrongly_is_put_right_by_its_owner() {
    let mut pump = Pump::with_nodes(33, &TablesConfig::default(), 4);
    pump.run(Duration::from_secs(2));
    // Somebody tells node 0 of node 1's first change before node 1 makes it.
    let body = fresh(network(1), node_id(1), 1, change(1, "k"));
    let now = pump.now;
    pump.nodes[0].tables.handle(node_id(2), &body, now).unwrap();
    pump.put(1, network(1), &key("k"), "true");
    pump.run(Duration::from_secs(30));
    assert!(pump.is_equal(network(1)));
    assert!(pump.nodes.iter().map(|node| node.tables.metrics().repaired).sum::<u64>() > 0);
}

#[test]
fn an_owner_above_its_limits_is_cut_off_there_and_asked_again_only_after_a_while() {
    let mut pump = Pump::new(34, &TablesConfig::default());
    for limit in [10, 1_000] {
        pump.config.entries_limit = limit;
        let node = pump.add(Duration::ZERO);
        pump.subscribe(node, network(1));
    }
    for at in 0..100 {
        pump.put(1, network(1), &key(format!("k{at}")), "v");
    }
    pump.run(Duration::from_secs(9));
    let metrics = pump.nodes[0].tables.metrics();
    assert_eq!(pump.view(0, network(1)).len(), 10);
    assert!(metrics.refused.full > 0);
    assert!(pump.nodes[1].tables.metrics().chunks < 10);
    assert_eq!(pump.nodes[1].tables.watermark(network(1)).unwrap().0, 10, "the truth");
}

fn state(tables: &Tables) -> (Vec<(NetworkId, u64)>, Vec<NodeId>) {
    let roots = tables.replicas.iter().map(|(network, replica)| (*network, replica.root())).collect();
    (roots, tables.subscribers(network(1)).to_vec())
}

proptest! {
    #[test]
    fn bytes_that_are_no_message_change_nothing(body in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut tables = Tables::new(TablesConfig::default(), node_id(0), 1, [7; 32], NOW);
        tables.handle_member(node_id(1), MemberChange::Alive { incarnation: 1 }, NOW);
        tables.subscribe(network(1), NOW).unwrap();
        let before = state(&tables);
        if tables.handle(node_id(1), &body, NOW).is_err() {
            prop_assert_eq!(state(&tables), before);
            prop_assert_eq!(tables.metrics().refused.malformed, 1);
        }
    }

    #[test]
    fn messages_of_any_content_never_panic_and_stay_in_bounds(messages in proptest::collection::vec(message(), 1..20)) {
        let mut pump = pair_without_run();
        let config = TablesConfig::default();
        for mut message in messages {
            aim(&mut message);
            let mut body = Vec::new();
            message.encode(&mut body);
            let tables = &mut pump.nodes[0].tables;
            tables.handle(node_id(1), &body, NOW).unwrap();
            tables.handle_timeout(NOW + Duration::from_secs(2));
            prop_assert_eq!(tables.entries(network(1), TABLE).filter(|(owner, ..)| *owner == node_id(0)).count(), 1);
            while let Some(transmit) = tables.poll_transmit() {
                let most = match transmit.class {
                    crate::Class::Datagram => config.datagram,
                    crate::Class::Stream => crate::STREAM_LIMIT,
                };
                prop_assert!(transmit.body.len() <= most);
                prop_assert!(Message::parse(&transmit.body).is_ok());
            }
            prop_assert!(tables.watermark(network(1)).unwrap().0 <= 1);
        }
    }
}

fn pair_without_run() -> Pump {
    let mut pump = Pump::with_nodes(35, &TablesConfig::default(), 2);
    pump.run(Duration::from_millis(200));
    pump.put(0, network(1), &key("mine"), "v");
    pump
}

/// Gives a message of chance the network and owner that make it through the first checks.
fn aim(message: &mut Message) {
    let (net, owner) = (network(1), node_id(1));
    match message {
        Message::Fresh(fresh) => fresh.groups.iter_mut().for_each(|(network, group)| {
            *network = net;
            (group.owner, group.incarnation) = (owner, 1);
        }),
        Message::Digest(digest) => digest.roots.iter_mut().for_each(|root| root.network = net),
        Message::Summary(summary) => summary.network = net,
        Message::Pieces(pieces) => pieces.network = net,
        Message::Vectors(vectors) => {
            vectors.network = net;
            vectors.owners.iter_mut().for_each(|vector| (vector.owner, vector.incarnation) = (owner, 1));
        }
        Message::Want(want) => {
            want.network = net;
            want.owners.truncate(1);
            want.owners.iter_mut().for_each(|missing| (missing.owner, missing.incarnation) = (node_id(0), 1));
        }
        Message::Chunk(chunk) => {
            (chunk.network, chunk.id) = (net, 1);
            chunk.parts.truncate(1);
            chunk.parts.iter_mut().for_each(|part| (part.group.owner, part.group.incarnation) = (owner, 1));
        }
        Message::Confirm(confirm) => confirm.networks.iter_mut().for_each(|confirmed| confirmed.network = net),
        Message::Tip(tip) => (tip.network, tip.incarnation) = (net, 1),
    }
}

/// One message to a node that came from another, and what the node says to it.
fn give(tables: &mut Tables, from: NodeId, message: &Message, now: Instant) -> Vec<Message> {
    let mut body = Vec::new();
    message.encode(&mut body);
    tables.handle(from, &body, now).unwrap();
    std::iter::from_fn(|| tables.poll_transmit()).map(|transmit| Message::parse(&transmit.body).unwrap()).collect()
}

#[test]
fn who_claims_to_have_seen_what_is_yet_to_come_makes_nobody_deaf_to_it() {
    let mut pump = Pump::with_nodes(36, &TablesConfig::default(), 4);
    pump.put(1, network(1), &key("k"), "v");
    pump.run(Duration::from_secs(5));
    let (owner, liar, now) = (node_id(1), node_id(2), pump.now);
    let mut all = Intervals::default();
    all.insert_span(1, Intervals::MOST);
    let vector = Vector { owner, incarnation: 1, content: 7, seen: all.clone() };
    let claim = Message::Vectors(Vectors { network: network(1), whole: Scope::NONE, owners: vec![vector] });
    let asked = give(&mut pump.nodes[0].tables, liar, &claim, now);
    let [Message::Want(want)] = &asked[..] else { panic!("{asked:?}") };
    let group = Group { owner, incarnation: 1, stable: u64::MAX, changes: vec![] };
    let end = Some(End { seen: all, floor: u64::MAX, alive: Some(Intervals::default()) });
    let lie = Message::Chunk(Chunk { id: want.id, network: network(1), parts: vec![Part { group, end }] });
    give(&mut pump.nodes[0].tables, liar, &lie, now);

    pump.run(Duration::from_secs(5));
    pump.put(1, network(1), &key("later"), "v");
    pump.run(Duration::from_secs(30));
    for node in 0..4 {
        assert_eq!(pump.view(node, network(1)).len(), 2, "node {node}");
    }
    assert_eq!(pump.nodes[1].tables.watermark_lag(network(1)), Some(0));
}

#[test]
fn a_few_bytes_do_not_make_a_flood_of_vectors() {
    let mut tables = Tables::new(TablesConfig::default(), node_id(0), 1, [7; 32], NOW);
    for owner in 1..=1_100 {
        tables.handle_member(node_id(owner), MemberChange::Alive { incarnation: 1 }, NOW);
        let body = fresh(DIRECTORY, node_id(owner), 1, Change { table: TableId(0), ..change(1, "sixteen bytes ok") });
        tables.handle(node_id(owner), &body, NOW).unwrap();
    }
    while tables.poll_transmit().is_some() {}
    let requests = [
        Message::Vectors(Vectors { network: DIRECTORY, whole: Scope::ALL, owners: vec![] }),
        Message::Summary(Box::new(Summary { network: DIRECTORY, hashes: [7; 32] })),
        Message::Pieces(Pieces { network: DIRECTORY, parts: u32::MAX, hashes: vec![[7; 32]; 32] }),
        Message::Digest(Digest {
            incarnation: 1,
            roots: vec![Root { network: DIRECTORY, subscription: 0, hash: 7 }; 7_000],
        }),
    ];
    for message in requests {
        let mut body = Vec::new();
        message.encode(&mut body);
        (0..2_000).for_each(|_| tables.handle(node_id(1), &body, NOW).unwrap());
        let bytes = tables.metrics().transmit_bytes;
        assert!(bytes <= tables.config.answers_limit + crate::STREAM_LIMIT, "{bytes} for {}", body.len());
        while tables.poll_transmit().is_some() {}
    }
    assert!(tables.metrics().refused.overload > 0);
}

/// A node that knows such owners of the directory, each with as many gaps as make a long vector.
fn crowded(crowd: &[NodeId]) -> Tables {
    let mut tables = Tables::new(TablesConfig::default(), node_id(0), 1, [7; 32], NOW);
    for owner in crowd {
        tables.handle_member(*owner, MemberChange::Alive { incarnation: 1 }, NOW);
        for number in 1..=17 {
            let change = Change { table: TableId(1), ..change(number << 52, &format!("k{number}")) };
            tables.handle(*owner, &fresh(DIRECTORY, *owner, 1, change), NOW).unwrap();
        }
    }
    while tables.poll_transmit().is_some() {}
    tables
}

/// How many owners a node names to another that has other hashes of part 3.
fn named_of_part_3(tables: &mut Tables, to: NodeId) -> usize {
    let pieces = Pieces { network: DIRECTORY, parts: 1 << 3, hashes: vec![[7; 32]] };
    let told = give(tables, to, &Message::Pieces(pieces), NOW);
    let lengths = told.iter().map(Message::encoded_len);
    assert!(lengths.max().unwrap() < crate::STREAM_LIMIT);
    told.iter().map(|message| if let Message::Vectors(vectors) = message { vectors.owners.len() } else { 0 }).sum()
}

#[test]
fn owners_that_fill_one_part_of_a_network_still_fit_its_messages() {
    let in_part = |owner: &NodeId| place(*owner).part() == 3;
    let crowd: Vec<NodeId> = (1..).map(node_id).filter(in_part).take(1_800).collect();
    let mut tables = crowded(&crowd);
    let digest = Digest { incarnation: 1, roots: vec![Root { network: DIRECTORY, subscription: 0, hash: 7 }] };
    let told = give(&mut tables, crowd[0], &Message::Digest(digest), NOW);
    assert!(matches!(&told[..], [Message::Summary(_)]), "{told:?}");
    let summary = Message::Summary(Box::new(Summary { network: DIRECTORY, hashes: [7; 32] }));
    let told = give(&mut tables, crowd[0], &summary, NOW);
    assert!(matches!(&told[..], [Message::Pieces(pieces)] if pieces.parts == u32::MAX), "{told:?}");
    assert_eq!(named_of_part_3(&mut tables, crowd[0]), 1_800);
}

#[test]
fn owners_that_fill_one_piece_of_a_part_still_fit_its_messages() {
    let in_piece = |owner: &NodeId| place(*owner).index() == 3 * 32 + 5;
    let crowd: Vec<NodeId> = (1..).map(node_id).filter(in_piece).take(600).collect();
    assert_eq!(named_of_part_3(&mut crowded(&crowd), crowd[0]), 600);
}

#[test]
fn an_answer_that_no_message_could_hold_is_not_sent() {
    let mut tables = Tables::new(TablesConfig::default(), node_id(0), 1, [7; 32], NOW);
    let owner = node_id(1);
    tables.handle_member(owner, MemberChange::Alive { incarnation: 1 }, NOW);
    let room = Room { entries: usize::MAX, bytes: usize::MAX, spans: usize::MAX };
    tables.replicas.get_mut(&DIRECTORY).unwrap().edit(owner, 1, |chain| {
        for number in 1..=32_768_u64 {
            let change = Change { key: Key::new(number.to_be_bytes().to_vec()).unwrap(), ..change(number << 47, "k") };
            chain.apply(change, room, NOW);
        }
        let seen = [32_768_u64 << 47].into_iter().collect();
        chain.finish(&End { seen, floor: u64::MAX, alive: None });
    });
    let mut after = 0;
    for _ in 0..100 {
        let missing = Missing { owner, incarnation: 1, after, seen: Intervals::default() };
        let want = Message::Want(Want { id: 1, network: DIRECTORY, owners: vec![missing] });
        let mut body = Vec::new();
        want.encode(&mut body);
        tables.handle(owner, &body, NOW).unwrap();
        let transmit = tables.poll_transmit().unwrap();
        assert!(transmit.body.len() < crate::STREAM_LIMIT - 1_000, "{} bytes", transmit.body.len());
        let Message::Chunk(chunk) = Message::parse(&transmit.body).unwrap() else { panic!("no chunk") };
        after = chunk.parts[0].group.changes.last().map_or(after, |change| change.sequence);
        if chunk.parts[0].end.is_some() {
            assert_eq!(after, 32_768 << 47, "all entries before the end");
            return;
        }
    }
    panic!("it never ends");
}

#[test]
fn a_member_that_comes_and_goes_leaves_one_deadline() {
    let mut tables = Tables::new(TablesConfig::default(), node_id(0), 1, [7; 32], NOW);
    for turn in 0..1_000 {
        let now = NOW + Duration::from_millis(turn);
        tables.handle_member(node_id(1), MemberChange::Alive { incarnation: 1 }, now);
        tables.handle_member(node_id(1), MemberChange::Suspended, now);
    }
    assert!(tables.hides.len() <= 1, "{} deadlines", tables.hides.len());
}

#[test]
fn who_names_an_owner_twice_is_not_understood() {
    let missing = Missing { owner: node_id(1), incarnation: 1, after: 0, seen: Intervals::default() };
    let want = Message::Want(Want { id: 1, network: network(1), owners: vec![missing; 2] });
    let group = Group { owner: node_id(1), incarnation: 1, stable: 0, changes: vec![] };
    let part = Part { group, end: None };
    let chunk = Message::Chunk(Chunk { id: 1, network: network(1), parts: vec![part; 2] });
    for message in [want, chunk] {
        let mut body = Vec::new();
        message.encode(&mut body);
        assert!(Message::parse(&body).is_err(), "{message:?}");
    }
}
