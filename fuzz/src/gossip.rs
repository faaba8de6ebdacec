//! Bodies for overlay-gossip: no bytes make a machine panic, and those it refuses change nothing.

use std::collections::VecDeque;
use std::net::SocketAddr;

use overlay_core::{Instant, NetworkId, NodeId};
use overlay_gossip::{Class, Config, EntryKey, Gossip, Key, Member, Protocol, STREAM_LIMIT, TableId, Transmit};

use crate::Body;

pub(crate) const TARGETS: &[(&str, Body)] = &[("gossip_handle", handle), ("gossip_messages", messages)];

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
    let now = Instant::ZERO;
    let config = Config { membership, ..Config::lan() };
    let made = [1, 2].map(|number| {
        let mut node =
            Gossip::new(config.clone(), Member::new(id(number), 5, address(number)), [number; 32], now).ok()?;
        node.subscribe(NETWORK, now).ok()?;
        let at = EntryKey { network: NETWORK, table: TableId(1), key: Key::new(vec![number]).ok()? };
        node.put(at, vec![number; 40].into(), now).ok()?;
        Some(node)
    });
    let [Some(one), Some(two)] = made else { return None };
    let mut nodes = [one, two];
    nodes[1].join(&[address(1)], now);
    let mut under_way = VecDeque::new();
    for _ in 0..40 {
        nodes.iter_mut().for_each(|node| node.handle_timeout(now));
        for node in &mut nodes {
            let from = node.me().address;
            under_way.extend(std::iter::from_fn(|| node.poll_transmit(now)).map(|transmit| (from, transmit)));
        }
        let Some((from, Transmit { to, class, payload })) = under_way.pop_front() else { break };
        let receiver = nodes.iter_mut().find(|node| node.me().address == to)?;
        receiver.handle(from, class, &payload, now).ok()?;
    }
    assert!(nodes.iter().all(|node| node.live() == 1), "they do not know each other");
    Some(nodes)
}

fn id(number: u8) -> NodeId {
    NodeId::from_bytes([number; 16])
}

fn address(number: u8) -> SocketAddr {
    ([192, 0, 2, number], 7946).into()
}
