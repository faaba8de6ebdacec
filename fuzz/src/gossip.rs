//! Bodies for overlay-gossip: no bytes make a machine panic, and those it refuses change nothing.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use overlay_core::{Instant, NetworkId, NodeId};
use overlay_gossip::testing::TestKeys;
use overlay_gossip::{Class, Config, EntryKey, Gossip, Key, Member, Protocol, STREAM_LIMIT, TableId, Transmit};

use crate::Body;

pub(crate) const TARGETS: &[(&str, Body)] =
    &[("gossip_handle", handle), ("gossip_messages", messages), ("gossip_signed", signed)];

const NETWORK: NetworkId = NetworkId::from_bytes([9; 16]);

/// One payload, from a stranger; a message of foca's, which comes 17 bytes in, goes to it.
fn handle(data: &[u8]) {
    let membership = if data.get(17) == Some(&10) { Protocol::Foca } else { Protocol::Swim };
    if let Some([mut node, _]) = pair(membership) {
        give(&mut node, Class::Datagram, data);
        give(&mut node, Class::Stream, data);
    }
}

/// Messages of a member: what follows the sender's name in a payload. The first byte says where a second payload begins.
fn messages(data: &[u8]) {
    let Some((cut, rest)) = data.split_first() else { return };
    let Some([mut node, _]) = pair(Protocol::Swim) else { return };
    let (first, second) = rest.split_at(rest.len().min(usize::from(*cut)));
    for messages in [first, second] {
        let payload = [&[1][..], &id(2).to_bytes(), messages].concat();
        give(&mut node, Class::Datagram, &payload);
        give(&mut node, Class::Stream, &payload);
    }
}

/// Messages of a member, as in [`messages`], to a node that verifies: no bytes make it see a third one otherwise than that says.
fn signed(data: &[u8]) {
    let Some((cut, rest)) = data.split_first() else { return };
    let Some(nodes) = cluster(&[1, 2, 3].map(|number| (number, signing(number)))) else { return };
    let Ok([mut node, _, third]) = <[Gossip; 3]>::try_from(nodes) else { return };
    let (first, second) = rest.split_at(rest.len().min(usize::from(*cut)));
    for messages in [first, second] {
        for class in [Class::Datagram, Class::Stream] {
            let payload = [&[2][..], &id(2).to_bytes(), messages].concat();
            give(&mut node, class, &payload);
            assert_eq!(node.member(id(3)).map(|(member, _)| member), Some(third.me()), "believed of another");
        }
    }
}

fn signing(number: u8) -> Config {
    let mut config = Config::lan();
    config.tables.verify = Some(Arc::new(TestKeys::new(id(number), number.into(), 5)));
    config
}

fn give(node: &mut Gossip, class: Class, payload: &[u8]) {
    let before = view(node);
    if node.handle(address(2), class, payload, Instant::ZERO).is_err() {
        assert_eq!(view(node), before, "refused, and changed something");
    }
    while let Some(Transmit { class, payload, .. }) = node.poll_transmit(Instant::ZERO) {
        assert!(payload.len() <= if class == Class::Datagram { 1_400 } else { STREAM_LIMIT });
    }
    while node.poll_event().is_some() {}
    if let Some((due, _)) = node.poll_timeout() {
        node.handle_timeout(due);
    }
}

/// What can be seen of a node, but for the counts of what it was given.
fn view(node: &Gossip) -> String {
    let members: Vec<_> = node.members().collect();
    let entries: Vec<_> = node.entries(NETWORK, TableId(1)).collect();
    format!(
        "{members:?} {entries:?} {:?} {:?} {:?}",
        node.metrics().membership,
        node.metrics().sent,
        node.poll_timeout()
    )
}

/// Two nodes that know each other and have an entry each.
fn pair(membership: Protocol) -> Option<[Gossip; 2]> {
    let config = Config { membership, ..Config::lan() };
    cluster(&[(1, config.clone()), (2, config)])?.try_into().ok()
}

/// Nodes of which the first knows all others, and each has an entry.
fn cluster(settings: &[(u8, Config)]) -> Option<Vec<Gossip>> {
    let now = Instant::ZERO;
    let made = settings.iter().map(|(number, config)| {
        let member = Member::new(id(*number), 5, address(*number));
        let mut node = Gossip::new(config.clone(), member, [*number; 32], now).ok()?;
        node.subscribe(NETWORK, now).ok()?;
        let at = EntryKey { network: NETWORK, table: TableId(1), key: Key::new(vec![*number]).ok()? };
        node.put(at, vec![*number; 40].into(), now).ok()?;
        Some(node)
    });
    let mut nodes = made.collect::<Option<Vec<Gossip>>>()?;
    nodes.iter_mut().skip(1).for_each(|node| node.join(&[address(1)], now));
    let mut under_way = VecDeque::new();
    for _ in 0..40 * settings.len() {
        nodes.iter_mut().for_each(|node| node.handle_timeout(now));
        for node in &mut nodes {
            let from = node.me().address;
            under_way.extend(std::iter::from_fn(|| node.poll_transmit(now)).map(|transmit| (from, transmit)));
        }
        let Some((from, Transmit { to, class, payload })) = under_way.pop_front() else { break };
        let receiver = nodes.iter_mut().find(|node| node.me().address == to)?;
        receiver.handle(from, class, &payload, now).ok()?;
    }
    assert_eq!(nodes.first()?.live() + 1, nodes.len(), "the first does not know the others");
    Some(nodes)
}

fn id(number: u8) -> NodeId {
    NodeId::from_bytes([number; 16])
}

fn address(number: u8) -> SocketAddr {
    ([192, 0, 2, number], 7946).into()
}
