//! Whatever bytes arrive: no panic, and no change where an error is given. The budgets of what is sent.

#![allow(clippy::unwrap_used, reason = "tests, whose helpers clippy does not take for such")]

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use overlay_core::{Instant, NetworkId, NodeId};
use overlay_gossip::{
    Class, Config, Disbelief, EntryKey, Event, Gossip, Key, Malformed, Member, Metadata, Protocol, STREAM_LIMIT,
    Signature, Standing, TableEvent, TableId, TablesConfig, Transmit, Verify,
};
use proptest::prelude::*;

const NETWORK: NetworkId = NetworkId::from_bytes([9; 16]);

fn address(number: u8) -> SocketAddr {
    ([192, 0, 2, number], 7946).into()
}

fn id(number: u8) -> NodeId {
    NodeId::from_bytes([number; 16])
}

fn node(number: u8, config: &Config) -> Gossip {
    let mut gossip =
        Gossip::new(config.clone(), Member::new(id(number), 5, address(number)), [number; 32], Instant::ZERO).unwrap();
    gossip.subscribe(NETWORK, Instant::ZERO).unwrap();
    gossip
}

/// Two nodes that know each other and have entries, and all payloads that they sent to get there.
fn pair(config: &Config) -> ([Gossip; 2], Vec<(SocketAddr, Transmit)>, Instant) {
    pair_of([config.clone(), config.clone()])
}

fn pair_of([one, other]: [Config; 2]) -> ([Gossip; 2], Vec<(SocketAddr, Transmit)>, Instant) {
    let mut nodes = [node(1, &one), node(2, &other)];
    let mut now = Instant::ZERO;
    for (number, node) in nodes.iter_mut().enumerate() {
        let at = EntryKey { network: NETWORK, table: TableId(1), key: Key::new(vec![number as u8]).unwrap() };
        node.put(at.clone(), vec![7; 100].into(), now).unwrap();
        node.put(EntryKey { table: TableId(2), ..at }, vec![7; 3_000].into(), now).unwrap();
    }
    nodes[1].join(&[address(1)], now);
    let mut log = Vec::new();
    while now < Instant::ZERO + Duration::from_secs(4) {
        now = nodes.iter().filter_map(|node| node.poll_timeout()).map(|(at, _)| at).min().unwrap().max(now);
        nodes.iter_mut().for_each(|node| node.handle_timeout(now));
        let mut under_way = VecDeque::new();
        loop {
            for node in &mut nodes {
                let from = node.me().address;
                while let Some(transmit) = node.poll_transmit(now) {
                    log.push((from, transmit.clone()));
                    under_way.push_back((from, transmit));
                }
            }
            let Some((from, Transmit { to, class, payload })) = under_way.pop_front() else { break };
            if let Some(receiver) = nodes.iter_mut().find(|node| node.me().address == to) {
                receiver.handle(from, class, &payload, now).unwrap();
            }
        }
    }
    assert!(nodes.iter().all(|node| node.live() == 1 && node.entries(NETWORK, TableId(1)).count() == 2));
    (nodes, log, now)
}

/// All that can be seen of a machine, but for the counts of what it was given.
fn view(gossip: &Gossip) -> String {
    let mut metrics = gossip.metrics();
    metrics.received = Default::default();
    (metrics.malformed, metrics.refused, metrics.tables.refused) = Default::default();
    let members: Vec<_> = gossip.members().collect();
    let entries: Vec<_> = [1, 2].into_iter().flat_map(|table| gossip.entries(NETWORK, TableId(table))).collect();
    format!("{metrics:?} {members:?} {entries:?} {:?} {:?}", gossip.poll_timeout(), gossip.watermark(NETWORK))
}

fn assert_harmless(gossip: &mut Gossip, class: Class, payload: &[u8], now: Instant) {
    let before = view(gossip);
    let outcome = gossip.handle(address(2), class, payload, now);
    if outcome.is_err() {
        assert_eq!(view(gossip), before, "{outcome:?}");
    }
    while let Some(Transmit { class, payload, .. }) = gossip.poll_transmit(now) {
        assert!(payload.len() <= if class == Class::Datagram { 1_400 } else { STREAM_LIMIT });
    }
    while gossip.poll_event().is_some() {}
}

proptest! {
    #[test]
    fn no_bytes_make_a_machine_panic_or_change_where_they_are_refused(
        payloads in proptest::collection::vec((any::<bool>(), proptest::collection::vec(any::<u8>(), 0..200)), 1..8),
        foca: bool,
    ) {
        let membership = if foca { Protocol::Foca } else { Protocol::Swim };
        let ([mut gossip, _], _, now) = pair(&Config { membership, ..Config::lan() });
        for (headed, bytes) in payloads {
            let payload = if headed { [&[1][..], &id(2).to_bytes(), &bytes].concat() } else { bytes };
            assert_harmless(&mut gossip, Class::Datagram, &payload, now);
        }
    }

    #[test]
    fn broken_messages_of_a_real_node_do_no_harm(
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>(), any::<bool>()), 1..60),
    ) {
        let ([mut gossip, _], log, now) = pair(&Config::lan());
        for (which, place, byte, cut) in edits {
            let (_, Transmit { class, payload, .. }) = &log[which.index(log.len())];
            let mut payload = payload.to_vec();
            let place = place.index(payload.len());
            payload[place] ^= byte;
            if cut {
                payload.truncate(place);
            }
            assert_harmless(&mut gossip, *class, &payload, now);
        }
    }

    #[test]
    fn no_datagram_exceeds_its_budget_and_no_stream_its_limit(
        budget in 1_000..1_600_usize,
        seal in 0..256_usize,
        metadata in 0..=256_usize,
        v6: bool,
    ) {
        let config = Config { datagram_budget: budget, seal_overhead: seal, ..Config::lan() };
        let limit = |class| if class == Class::Datagram { budget - seal } else { STREAM_LIMIT };
        let mut gossip = node(1, &config);
        let mut now = Instant::ZERO;
        gossip.set_metadata(Metadata::new(vec![7; metadata]).unwrap(), now);
        let mut sent = 0;
        for number in 2..40_u8 {
            let address = if v6 { SocketAddr::new([0x2001, 0xdb8, 0, 0, 0, 0, 0, number.into()].into(), 7946) } else { address(number) };
            let member = Member { metadata: Metadata::new(vec![number; metadata]).unwrap(), ..Member::new(id(number), u64::MAX, address) };
            let mut other = Gossip::new(config.clone(), member, [number; 32], now).unwrap();
            other.join(&[self::address(1)], now);
            other.handle_timeout(now);
            for _ in 0..4 {
                while let Some(Transmit { payload, class, .. }) = other.poll_transmit(now) {
                    gossip.handle(address, class, &payload, now).unwrap();
                }
                while let Some(Transmit { payload, class, to }) = gossip.poll_transmit(now) {
                    sent += 1;
                    prop_assert!(payload.len() <= limit(class));
                    if to == address {
                        other.handle(self::address(1), class, &payload, now).unwrap();
                    }
                }
            }
        }
        for number in 0..60_u8 {
            let at = EntryKey { network: NETWORK, table: TableId(1), key: Key::new(vec![number; 40]).unwrap() };
            gossip.put(at, vec![number; usize::from(number) * 10].into(), now).unwrap();
        }
        for _ in 0..40 {
            now += Duration::from_millis(50);
            gossip.handle_timeout(now);
            while let Some(Transmit { payload, class, .. }) = gossip.poll_transmit(now) {
                sent += 1;
                prop_assert!(payload.len() <= limit(class));
            }
        }
        prop_assert!(sent > 60, "{} messages", sent);
    }
}

#[test]
fn a_goodbye_that_was_never_said_is_objected_to_and_counted() {
    let ([mut gossip, mut other], _, now) = pair(&Config::lan());
    // A third node says goodbye in the first one's name: its own goodbye, with the name changed.
    let mut third = node(3, &Config::lan());
    third.join(&[address(2)], now);
    third.leave(now);
    let forged = forged_leave(&gossip, now);
    other.handle(address(3), Class::Datagram, &forged, now).unwrap();
    gossip.handle(address(3), Class::Datagram, &forged, now).unwrap();
    assert_eq!(gossip.metrics().membership.forged_leaves, 1);
    assert_eq!(other.member(id(1)).unwrap().1, Standing::Left, "believed for the moment");
    gossip.handle_timeout(now + Duration::from_millis(300));
    while let Some(Transmit { class, payload, .. }) = gossip.poll_transmit(now) {
        other.handle(address(1), class, &payload, now).unwrap();
    }
    // It probes whoever it knows, and is told.
    let mut later = now;
    for _ in 0..100 {
        later += Duration::from_millis(50);
        for turn in [0, 1] {
            let (from, to) = if turn == 0 { (&mut gossip, &mut other) } else { (&mut other, &mut gossip) };
            from.handle_timeout(later);
            let source = from.me().address;
            while let Some(Transmit { class, payload, to: there }) = from.poll_transmit(later) {
                if there == to.me().address {
                    to.handle(source, class, &payload, later).unwrap();
                }
            }
        }
    }
    assert_eq!(other.member(id(1)).unwrap().1, Standing::Alive, "until it objected");
}

/// What a node says that leaves, in the name of `victim`, with its number.
fn forged_leave(victim: &Gossip, now: Instant) -> Vec<u8> {
    let mut twin = Gossip::new(Config::lan(), victim.me().clone(), [9; 32], now).unwrap();
    let mut helper = node(3, &Config::lan());
    twin.join(&[address(3)], now);
    twin.handle_timeout(now);
    for _ in 0..6 {
        while let Some(Transmit { class, payload, .. }) = twin.poll_transmit(now) {
            helper.handle(address(1), class, &payload, now).unwrap();
        }
        while let Some(Transmit { class, payload, .. }) = helper.poll_transmit(now) {
            twin.handle(address(3), class, &payload, now).unwrap();
        }
    }
    while twin.poll_transmit(now).is_some() {}
    twin.leave(now);
    twin.handle_timeout(now + Duration::from_millis(300));
    let mut payload =
        std::iter::from_fn(|| twin.poll_transmit(now)).find(|t| t.class == Class::Datagram).unwrap().payload.to_vec();
    payload[1..17].copy_from_slice(&id(3).to_bytes()); // passed on by the third
    payload
}

#[test]
fn strangers_are_read_at_their_rate_and_members_always() {
    let config = Config { stranger_rate: 1, stranger_burst: 3, ..Config::lan() };
    let ([mut gossip, _], log, now) = pair(&config);
    let before = gossip.metrics().refused;
    let payload = [&[1][..], &id(77).to_bytes()].concat();
    (0..10).for_each(|_| gossip.handle(address(77), Class::Datagram, &payload, now).unwrap());
    assert!(gossip.metrics().refused - before >= 7);
    let refused = gossip.metrics().refused;
    for (from, transmit) in log.iter().filter(|(from, _)| *from == address(2)) {
        gossip.handle(*from, transmit.class, &transmit.payload, now).unwrap();
    }
    assert_eq!(gossip.metrics().refused, refused);
}

#[test]
fn another_version_is_refused_by_name_and_counted() {
    let mut gossip = node(1, &Config::lan());
    let payload = [&[9][..], &id(2).to_bytes()].concat();
    let refused = gossip.handle(address(2), Class::Datagram, &payload, Instant::ZERO);
    assert_eq!(refused, Err(Malformed::Version { found: 9, read: 2 }));
    assert_eq!(gossip.metrics().malformed, 1);
}

#[test]
fn a_second_start_with_an_older_incarnation_is_told() {
    let ([mut gossip, _], _, now) = pair(&Config::lan());
    let mut old = Gossip::new(Config::lan(), Member::new(id(2), 4, address(2)), [4; 32], now).unwrap();
    old.join(&[address(1)], now);
    old.handle_timeout(now);
    for _ in 0..6 {
        while let Some(Transmit { class, payload, .. }) = old.poll_transmit(now) {
            gossip.handle(address(2), class, &payload, now).unwrap();
        }
        while let Some(Transmit { class, payload, .. }) = gossip.poll_transmit(now) {
            old.handle(address(1), class, &payload, now).unwrap();
        }
    }
    let events: Vec<Event> = std::iter::from_fn(|| old.poll_event()).collect();
    assert!(events.contains(&Event::Superseded { incarnation: 5 }), "{events:?}");
}

#[test]
fn an_older_start_is_told_at_whatever_address_it_joins() {
    let ([mut gossip, _], _, now) = pair(&Config::lan());
    let mut old = Gossip::new(Config::lan(), Member::new(id(2), 4, address(22)), [4; 32], now).unwrap();
    old.join(&[address(1)], now);
    old.handle_timeout(now);
    assert!(supersedes(&mut [&mut gossip, &mut old], now).contains(&Event::Superseded { incarnation: 5 }));
}

#[test]
fn a_member_that_was_started_again_elsewhere_is_told() {
    let ([mut gossip, mut old], _, now) = pair(&Config::lan());
    let mut new = Gossip::new(Config::lan(), Member::new(id(2), 6, address(22)), [6; 32], now).unwrap();
    new.join(&[address(1)], now);
    new.handle_timeout(now);
    assert_eq!(supersedes(&mut [&mut gossip, &mut new], now), [], "it is the later one");
    assert_eq!(gossip.member(id(2)).unwrap().0.address, address(22));
    let told = supersedes(&mut [&mut gossip, &mut old], now);
    assert_eq!(told, [Event::Superseded { incarnation: 6 }]);
    assert_eq!(gossip.member(id(2)).unwrap().0.address, address(22));
}

/// What the last of two is told of later starts within five seconds, if only these are heard.
fn supersedes(two: &mut [&mut Gossip; 2], mut now: Instant) -> Vec<Event> {
    for _ in 0..100 {
        now += Duration::from_millis(50);
        for turn in [0, 1] {
            two[turn].handle_timeout(now);
            let source = two[turn].me().address;
            while let Some(Transmit { to, class, payload }) = two[turn].poll_transmit(now) {
                if to == two[1 - turn].me().address {
                    two[1 - turn].handle(source, class, &payload, now).unwrap();
                }
            }
        }
    }
    std::iter::from_fn(|| two[1].poll_event()).filter(|event| matches!(event, Event::Superseded { .. })).collect()
}

#[test]
fn a_changed_address_is_told_and_used() {
    let ([mut gossip, mut other], _, mut now) = pair(&Config::lan());
    while gossip.poll_event().is_some() {}
    other.set_address(address(22), now);
    for _ in 0..40 {
        now += Duration::from_millis(50);
        for turn in [0, 1] {
            let (from, to) = if turn == 0 { (&mut other, &mut gossip) } else { (&mut gossip, &mut other) };
            from.handle_timeout(now);
            let source = from.me().address;
            while let Some(Transmit { class, payload, to: there }) = from.poll_transmit(now) {
                if there == to.me().address {
                    to.handle(source, class, &payload, now).unwrap();
                }
            }
        }
    }
    let (member, standing) = gossip.member(id(2)).unwrap();
    assert_eq!((member.address, standing), (address(22), Standing::Alive));
    let mut events = std::iter::from_fn(|| gossip.poll_event());
    assert!(events.any(|event| matches!(event, Event::Changed(member) if member.address == address(22))));
}

/// A payload of node 2's with these messages, each its kind and body.
fn payload(messages: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let mut out = [&[1][..], &id(2).to_bytes()].concat();
    for (kind, body) in messages {
        out.push(*kind);
        varint(body.len() as u64, &mut out);
        out.extend_from_slice(body);
    }
    out
}

fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// An update of a worker without metadata that is alive.
fn alive(id: NodeId, incarnation: u64, address: [u8; 4]) -> Vec<u8> {
    let mut out = id.to_bytes().to_vec();
    out.push(0);
    varint(incarnation, &mut out);
    out.push(0);
    out.extend_from_slice(&address);
    out.extend_from_slice(&7946_u16.to_be_bytes());
    out.push(0);
    out
}

/// A request for all entries of node 1.
fn want() -> Vec<u8> {
    [&[5, 1][..], &NETWORK.to_bytes(), &id(1).to_bytes(), &[5, 0, 0]].concat()
}

const PING: u8 = 1;
const SYNC_REQUEST: u8 = 6;
const SYNC_PUSH: u8 = 8;
const TABLE: u8 = 9;

#[test]
fn who_is_alive_here_is_not_forgotten_at_once_when_somebody_says_that_it_was_gone_for_long() {
    let config = Config { expire_after: Duration::from_secs(1), ..Config::lan() };
    for (flags, standing, end) in [(2, Standing::Suspended, &[][..]), (3, Standing::Left, &[0])] {
        // Once, or again and again of ever later revisions.
        for revisions in [&[0][..], &[1], &[1, 2, 3]] {
            let ([mut gossip, _], _, now) = pair(&config);
            for revision in revisions {
                let mut said = alive(id(2), 5, [192, 0, 2, 2]);
                (said[16], said[18]) = (flags, *revision);
                varint(u32::MAX.into(), &mut said); // seconds
                said.extend_from_slice(end);
                gossip.handle(address(2), Class::Datagram, &payload(&[(5, said)]), now).unwrap();
            }
            gossip.handle_timeout(now + Duration::from_millis(1));
            assert_eq!(gossip.member(id(2)).map(|(_, standing)| standing), Some(standing), "revisions {revisions:?}");
            let kept = if standing == Standing::Left { 1 } else { 2 };
            assert_eq!(gossip.entries(NETWORK, TableId(1)).count(), kept);
        }
    }
}

fn waiting_bytes(gossip: &mut Gossip, now: Instant) -> usize {
    std::iter::from_fn(|| gossip.poll_transmit(now)).map(|transmit| transmit.payload.len()).sum()
}

#[test]
fn what_a_member_asks_for_and_nobody_fetches_stays_within_the_limit_of_answers() {
    let ([mut gossip, _], _, now) = pair(&Config::lan());
    for number in 0..30 {
        let at = EntryKey { network: NETWORK, table: TableId(1), key: Key::new(vec![number, 1]).unwrap() };
        gossip.put(at, vec![number; 60_000].into(), now).unwrap();
    }
    let strangers = (0..2_000_u32).flat_map(|number| {
        let mut octets = [77; 16];
        octets[..4].copy_from_slice(&number.to_be_bytes());
        alive(NodeId::from_bytes(octets), 1, [192, 0, 3, 1])
    });
    gossip.handle(address(2), Class::Stream, &payload(&[(SYNC_PUSH, strangers.collect())]), now).unwrap();
    assert!(gossip.live() > 2_000);
    waiting_bytes(&mut gossip, now);

    let limit = Config::lan().tables.answers_limit + 2 * STREAM_LIMIT;
    for (kind, body) in [(TABLE, want()), (SYNC_REQUEST, alive(id(2), 5, [192, 0, 2, 2]))] {
        let payload = payload(&[(kind, body)]);
        for _ in 0..1_000 {
            gossip.handle(address(2), Class::Stream, &payload, now).unwrap();
        }
        let waiting = waiting_bytes(&mut gossip, now);
        assert!(waiting <= limit && waiting > limit / 2, "{waiting} bytes of answers to messages of kind {kind}");
    }
    assert!(gossip.metrics().refused > 0 && gossip.metrics().tables.refused.overload > 0);
}

#[test]
fn events_that_nobody_fetches_stay_within_their_limit_and_are_one_for_each_entry() {
    let tables = TablesConfig { events_limit: 16, ..TablesConfig::default() };
    let ([mut gossip, mut other], _, mut now) = pair(&Config { tables, ..Config::lan() });
    while gossip.poll_event().is_some() {}
    let mut put = |keys: u8, rounds: u8, gossip: &mut Gossip| {
        for round in 0..rounds {
            for key in 0..keys {
                let at = EntryKey { network: NETWORK, table: TableId(1), key: Key::new(vec![key, 9]).unwrap() };
                other.put(at, vec![round; 50].into(), now).unwrap();
            }
            let until = now + Duration::from_secs(2);
            while now < until {
                now += Duration::from_millis(20);
                exchange(gossip, &mut other, now);
            }
        }
        std::iter::from_fn(|| gossip.poll_event()).collect::<Vec<_>>()
    };
    let events = put(1, 10, &mut gossip);
    let puts: Vec<_> = events.iter().filter(|event| matches!(event, Event::Table(TableEvent::Put { .. }))).collect();
    let [Event::Table(TableEvent::Put { value, .. })] = puts[..] else { panic!("{puts:?}") };
    assert_eq!(value[0], 9, "as it is when it is fetched");
    let events = put(200, 1, &mut gossip);
    assert!(events.len() <= 18, "{events:?}");
    assert!(events.contains(&Event::Table(TableEvent::Reread { network: NETWORK })));
}

/// Wakes both and carries what they have to say to each other.
fn exchange(one: &mut Gossip, other: &mut Gossip, now: Instant) {
    for _ in 0..4 {
        for turn in [0, 1] {
            let (from, to) = if turn == 0 { (&mut *one, &mut *other) } else { (&mut *other, &mut *one) };
            from.handle_timeout(now);
            let source = from.me().address;
            while let Some(Transmit { class, payload, to: there }) = from.poll_transmit(now) {
                if there == to.me().address {
                    to.handle(source, class, &payload, now).unwrap();
                }
            }
        }
    }
}

#[test]
fn a_payload_asks_once_so_that_little_makes_no_flood() {
    let ([mut gossip, _], _, now) = pair(&Config::lan());
    waiting_bytes(&mut gossip, now);
    let ping = (PING, vec![7; 12]);
    let sync = (SYNC_REQUEST, alive(id(2), 5, [192, 0, 2, 2]));
    let table = (TABLE, want());
    let floods = [
        (Class::Datagram, vec![ping.clone(), ping.clone()]),
        (Class::Datagram, vec![sync.clone()]),
        (Class::Datagram, vec![table.clone()]),
        (Class::Stream, vec![ping]),
        (Class::Stream, vec![sync.clone(), sync]),
        (Class::Stream, vec![table.clone(), table]),
        (Class::Stream, vec![(TABLE, vec![2; STREAM_LIMIT])]),
    ];
    for (number, (class, messages)) in floods.into_iter().enumerate() {
        let before = view(&gossip);
        let refused = gossip.handle(address(2), class, &payload(&messages), now);
        assert!(refused.is_err(), "flood {number} was taken");
        assert_eq!(view(&gossip), before);
        assert_eq!(waiting_bytes(&mut gossip, now), 0);
    }
}

#[test]
fn who_has_said_goodbye_says_nothing_more() {
    for membership in [Protocol::Swim, Protocol::Foca] {
        let ([mut gossip, mut other], log, mut now) = pair(&Config { membership, ..Config::lan() });
        gossip.leave(now);
        let until = now + Duration::from_secs(3);
        while now < until {
            now += Duration::from_millis(20);
            exchange(&mut gossip, &mut other, now);
        }
        let events: Vec<Event> = std::iter::from_fn(|| gossip.poll_event()).collect();
        assert!(events.contains(&Event::Gone), "{events:?}");
        assert_eq!(gossip.poll_timeout(), None);
        for (from, Transmit { class, payload, .. }) in log.iter().filter(|(from, _)| *from == address(2)) {
            gossip.handle(*from, *class, payload, now).unwrap();
        }
        let at = EntryKey { network: NETWORK, table: TableId(1), key: Key::new("late").unwrap() };
        gossip.put(at, "v".into(), now).unwrap();
        gossip.handle_timeout(now + Duration::from_secs(5));
        assert_eq!((waiting_bytes(&mut gossip, now), gossip.poll_timeout()), (0, None));
    }
}

/// Signs with a sum that nobody else is to know.
#[derive(Debug)]
struct Signed(NodeId);

impl Signed {
    fn sum(&self, statement: &[u8]) -> Vec<u8> {
        let sum = |sum: u64, byte: &u8| (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
        self.0.to_bytes().iter().chain(statement).fold(0xcbf2_9ce4_8422_2325, sum).to_be_bytes().to_vec()
    }
}

impl Verify for Signed {
    fn sign(&self, statements: &[Vec<u8>]) -> Vec<Signature> {
        statements.iter().map(|statement| Signature::new(self.sum(statement)).unwrap()).collect()
    }

    fn verify(&self, owner: NodeId, statement: &[u8], signature: &[u8]) -> Result<(), Disbelief> {
        if Self(owner).sum(statement) == signature { Ok(()) } else { Err(Disbelief::Forged) }
    }
}

fn signing(number: u8) -> Config {
    let tables = TablesConfig { verify: Some(Arc::new(Signed(id(number)))), ..TablesConfig::default() };
    Config { tables, ..Config::lan() }
}

#[test]
fn with_signatures_a_goodbye_in_anothers_name_is_refused_and_a_true_one_is_believed() {
    let ([mut gossip, mut other], _, mut now) = pair_of([signing(1), signing(2)]);
    let mut forged = id(1).to_bytes().to_vec();
    forged.push(3); // left
    forged.extend_from_slice(&[5, 0, 192, 0, 2, 1]);
    forged.extend_from_slice(&7946_u16.to_be_bytes());
    forged.extend_from_slice(&[0, 0]);
    for signature in [vec![], vec![7; 8], Signed(id(3)).sum(b"goodbye")] {
        let mut news = forged.clone();
        news.push(signature.len() as u8);
        news.extend_from_slice(&signature);
        let before = other.metrics().membership.forged_leaves;
        let mut payload = payload(&[(5, news)]);
        payload[1..17].copy_from_slice(&id(3).to_bytes());
        other.handle(address(3), Class::Datagram, &payload, now).unwrap();
        assert_eq!(other.member(id(1)).unwrap().1, Standing::Alive);
        assert_eq!(other.metrics().membership.forged_leaves, before + 1);
    }
    gossip.leave(now);
    let until = now + Duration::from_secs(1);
    while now < until {
        now += Duration::from_millis(20);
        exchange(&mut gossip, &mut other, now);
    }
    assert_eq!(other.member(id(1)).unwrap().1, Standing::Left);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_clock_makes_a_machine_panic(moments in proptest::collection::vec(prop_oneof![Just(0), Just(u64::MAX), any::<u64>(), 0..20_000_000_000_u64], 1..40), foca: bool) {
        let membership = if foca { Protocol::Foca } else { Protocol::Swim };
        let ([mut gossip, mut other], _, _) = pair(&Config { membership, ..Config::lan() });
        for (number, nanos) in moments.into_iter().enumerate() {
            let now = Instant::from_nanos(nanos);
            let at = EntryKey { network: NETWORK, table: TableId(1), key: Key::new(vec![number as u8]).unwrap() };
            gossip.put(at.clone(), vec![7; 10].into(), now).unwrap();
            other.remove(at, now).unwrap();
            exchange(&mut gossip, &mut other, now);
            while gossip.poll_event().is_some() {}
        }
    }
}
