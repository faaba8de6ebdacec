//! Encrypted networks: who has keys, and what follows.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use overlay_core::{Instant, Mtu, NetworkId, NsId, NsKey, Port, PortRange, Protocol, State as _, Vni};
use overlay_crypto::{Chance, Datagram, Direction, EpochRecord, Limits, Reason, RotationConfig, SaId, Usage, Verdict};
use overlay_dns::Health;
use overlay_gossip::Role;
use overlay_node::{
    Agent, AgentConfig, AgentError, AgentEvent, CatalogueChange, Encryption, Endpoint, EndpointSpec, Input, Me,
    Network, NetworkSpec, Place, PlaceState, Protection, Target, derive, explain,
};

use crate::town::{Town, agent, container, endpoint, eth0, id, network, node_id};

const PORT: Port = Port::VXLAN_ENCRYPTED;

/// So many nodes that can encrypt, and an encrypted network, on which each has an endpoint: that of node 0 has number 2, and so on.
fn town(seed: u64, nodes: usize) -> Town {
    encrypting(Town::new(seed, nodes), nodes)
}

fn encrypting(mut town: Town, nodes: usize) -> Town {
    for node in 0..nodes {
        town.net.with(node, |agent, now| agent.0.set_protection(Ok(Chance::new([node as u8 + 1; 32])), now));
    }
    let spec = NetworkSpec { encryption: Encryption::Shared, ..network().spec };
    town.publish(&CatalogueChange::Network(Arc::new(Network { spec, ..network() })));
    (0..nodes).for_each(|node| town.assign(node as u8 + 2, node, 0));
    town.run(2);
    town
}

fn plugged(seed: u64, nodes: usize) -> Town {
    plug_all(town(seed, nodes), nodes)
}

fn plug_all(mut town: Town, nodes: usize) -> Town {
    (0..nodes).for_each(|node| town.plug(node as u8 + 2, node));
    town.run(3);
    town
}

fn host(town: &mut Town, node: usize) -> Arc<PlaceState> {
    town.desired(node).places[&Place::Host].clone()
}

/// What node `of` is known to have published, at another.
fn record(town: &Town, at: usize, of: usize) -> Option<EpochRecord> {
    Some(town.net.machine(at).unwrap().0.knowledge().records.get(&node_id(of))?.current)
}

#[test]
fn a_node_has_a_key_while_an_endpoint_of_an_encrypted_network_is_plugged_in_and_another_each_time() {
    let mut town = town(21, 2);
    assert_eq!((record(&town, 1, 0), record(&town, 0, 0)), (None, None));
    town.plug(2, 0);
    town.run(2);
    let first = record(&town, 1, 0).unwrap();
    assert_eq!(record(&town, 0, 0), Some(first));
    town.tell(0, Input::Unplug(id(2)));
    town.run(2);
    assert_eq!((record(&town, 1, 0), town.desired(0).places.len()), (None, 0));
    town.plug(2, 0);
    town.run(2);
    let second = record(&town, 1, 0).unwrap();
    assert!(second.epoch > first.epoch && second.public != first.public);
}

#[test]
fn both_ends_of_a_tunnel_have_the_same_keys_and_the_segment_is_at_a_port_of_its_own() {
    let mut town = plugged(22, 3);
    let [a, b] = [0, 1].map(|node| host(&mut town, node));
    for state in [&a, &b] {
        assert_eq!((state.crypto.ports.clone(), state.crypto.tunnels.len()), ([PORT].into(), 2));
        assert_eq!(state.crypto.check(), Ok(()));
        assert!(state.firewall.tunnels.contains_key(&PORT) && state.firewall.tunnels.contains_key(&Port::VXLAN));
    }
    let sends = a.crypto.sas.iter().filter(|(_, sa)| sa.direction == Direction::Out);
    let shared: Vec<_> = sends.filter_map(|(id, ours)| Some((ours, b.crypto.sas.get(id)?))).collect();
    assert!(matches!(&shared[..], [(ours, theirs)] if ours.key == theirs.key && theirs.direction == Direction::In));
    let segment = town.segment(0).unwrap();
    assert_eq!((segment.vtep.port, segment.mtu), (PORT, Mtu::new(1416).unwrap()), "ESP takes 34 bytes of 1450");
    let peer = segment.peers.values().next().unwrap().vtep;
    let datagram =
        Datagram { source: segment.vtep.local, destination: peer, source_port: 50_000, destination_port: PORT.get() };
    assert!(matches!(a.crypto.outgoing(&datagram), Verdict::Seal(_)));
    assert_eq!(a.crypto.incoming(&datagram), Verdict::Drop(Reason::Clear));
}

#[test]
fn what_changes_besides_leaves_associations_and_their_keys_as_they_are() {
    let mut town = plugged(23, 2);
    let before = host(&mut town, 0);
    town.tell(1, Input::Health(id(3), Health::Suspect));
    town.run(2);
    assert!(Arc::ptr_eq(&before, &host(&mut town, 0)));
    let vtep = town.segment(1).unwrap().vtep.local;
    town.tell(1, Input::Underlay { vtep, mtu: Mtu::new(1400).unwrap() });
    town.run(2);
    assert_eq!(before.crypto, host(&mut town, 0).crypto);
    // A peer whose last endpoint went and came keeps its associations too: their keys could not be put to work again.
    town.assign(4, 1, 0);
    town.plug(4, 1);
    town.tell(0, Input::Health(id(2), Health::Suspect));
    town.run(2);
    assert_eq!(before.crypto, host(&mut town, 0).crypto);
}

#[test]
fn who_is_told_to_has_other_keys_and_so_have_its_peers() {
    let mut town = plugged(24, 2);
    let (before, first) = ([0, 1].map(|node| host(&mut town, node)), record(&town, 1, 0).unwrap());
    town.tell(0, Input::Rekey);
    town.run(2);
    assert!(record(&town, 1, 0).unwrap().epoch > first.epoch);
    let after = [0, 1].map(|node| host(&mut town, node));
    for (before, after) in before.iter().zip(&after) {
        let keys = before.crypto.sas.keys().collect::<BTreeSet<_>>();
        assert!(after.crypto.sas.len() == 2 && after.crypto.sas.keys().all(|id| !keys.contains(id)));
    }
    assert!(after[0].crypto.sas.keys().eq(after[1].crypto.sas.keys()));
}

#[test]
fn a_later_start_of_a_node_has_a_later_epoch_whatever_it_had_before() {
    let mut town = plugged(25, 2);
    (0..3).for_each(|_| town.tell(0, Input::Rekey));
    town.run(2);
    let before = record(&town, 1, 0).unwrap();
    town.net.with(0, |node, now| node.0.begin_anew(8, [8; 32], now));
    town.tell(0, Input::Join(vec![overlay_gossip::testing::Net::<crate::town::Node>::address(1)]));
    town.run(5);
    assert!(record(&town, 1, 0).unwrap().epoch > before.epoch);
    let [a, b] = [0, 1].map(|node| host(&mut town, node));
    assert!(a.crypto.sas.keys().eq(b.crypto.sas.keys()) && a.crypto.sas.len() == 2);
    let now = town.net.now();
    let later = agent(0, 9, "192.0.2.77:7946".parse().unwrap(), [1; 32], now);
    assert_eq!(later.0.knowledge().protection, Protection::default(), "and nothing is adopted");
}

#[test]
fn a_peer_without_a_key_gets_no_tunnel_and_explain_says_so() {
    let town = plugged(26, 2);
    let mut knowledge = town.net.machine(0).unwrap().0.knowledge().clone();
    let target = Target::Name(container(3).as_str().parse().unwrap());
    let whole = explain(&knowledge, id(2), &target, &derive(&knowledge));
    assert!(
        whole.to_string().contains("sealed    port 4793 by 1 associations, of epoch 1048576 here (steady) and of"),
        "{whole}"
    );
    Arc::make_mut(&mut knowledge.records).remove(&node_id(1));
    knowledge.protection = Protection::Keys(Arc::default());
    let desired = derive(&knowledge);
    let host = &desired.places[&Place::Host].crypto;
    assert!(host.tunnels.is_empty() && host.ports.contains(&PORT), "it is guarded");
    let broken = explain(&knowledge, id(2), &target, &desired);
    assert!(broken.to_string().contains("has published no key"), "{broken}");
}

#[test]
fn a_node_that_loses_what_it_encrypts_by_says_so_and_publishes_nothing() {
    let mut town = plugged(27, 2);
    town.net.with(0, |node, now| node.0.set_protection(Err("ESP is gone".to_owned()), now));
    town.run(2);
    assert_eq!((record(&town, 1, 0), town.sandbox(0)), (None, None));
    assert_eq!(host(&mut town, 0).crypto, overlay_crypto::State::default());
}

#[test]
fn who_says_that_it_is_at_anothers_address_gets_nothing_that_is_for_that() {
    let mut town = plugged(28, 3);
    let vtep = town.segment(1).unwrap().vtep.local;
    let to_b = |state: &PlaceState| state.crypto.tunnels.keys().filter(|tunnel| tunnel.peer == vtep).count();
    assert_eq!(to_b(&host(&mut town, 0)), 1);
    town.tell(2, Input::Underlay { vtep, mtu: Mtu::ETHERNET });
    town.run(3);
    assert!(record(&town, 0, 2).is_some() && record(&town, 0, 1).is_some());
    let state = host(&mut town, 0);
    assert_eq!(
        (to_b(&state), state.crypto.ports.clone()),
        (0, [PORT].into()),
        "neither does: what is for it is dropped"
    );
}

#[test]
fn a_peer_whose_epochs_went_back_is_agreed_with_anew_and_not_as_often_as_it_likes() {
    let mut town = plugged(29, 2);
    let first = record(&town, 1, 0).unwrap();
    let later = Chance::new([99; 32]);
    // Its clock was ahead once, and is not any more.
    let forget = |town: &mut Town, chance| {
        town.net.with(1, |node, now| {
            node.0.set_protection(Err("gone for now".to_owned()), now);
            node.0.set_protection(Ok(chance), now);
        });
    };
    (0..4).for_each(|_| town.tell(1, Input::Rekey));
    town.run(2);
    forget(&mut town, later);
    town.live(9);
    let [a, b] = [0, 1].map(|node| host(&mut town, node));
    assert!(a.crypto.sas.keys().eq(b.crypto.sas.keys()) && a.crypto.sas.len() == 2);
    let second = record(&town, 1, 0).unwrap();
    assert!(second.epoch > first.epoch, "node 0 has rotated to one of its own");
    forget(&mut town, Chance::new([98; 32]));
    town.run(1);
    assert_eq!(record(&town, 1, 0), Some(second), "it rests");
}

fn ended(town: &Town, node: usize) -> u64 {
    town.net.machine(node).unwrap().0.metrics().rotations.ended
}

#[test]
fn keys_are_changed_when_that_is_asked_for_and_both_ends_have_the_same_ones_then() {
    let mut town = plugged(41, 3);
    town.live(1);
    let (before, first) = (host(&mut town, 0), record(&town, 1, 0).unwrap());
    town.tell(0, Input::RotateKeys);
    town.live(10);
    let (after, second) = (host(&mut town, 0), record(&town, 1, 0).unwrap());
    assert!(second.epoch > first.epoch && ended(&town, 0) == 1);
    assert!(after.crypto.sas.len() == 4 && after.crypto.sas.keys().all(|id| !before.crypto.sas.contains_key(id)));
    let peer = host(&mut town, 1);
    assert_eq!(after.crypto.sas.keys().filter(|id| peer.crypto.sas.contains_key(id)).count(), 2);
    assert_eq!(record(&town, 0, 1).unwrap(), record(&town, 2, 1).unwrap(), "others have theirs as before");
}

#[test]
fn who_does_not_act_upon_another_key_is_left_behind_after_a_minute_and_named_and_nobody_else() {
    let town = Town::acting(Duration::from_secs(86_400), 44, 3);
    let mut town = plug_all(encrypting(town, 3), 3);
    let live = |town: &mut Town, seconds: u64| {
        for _ in 0..seconds {
            town.live(1);
            for node in 0..2 {
                town.net.with(node, |node, _| node.0.acted(node.0.heard())).unwrap();
            }
        }
    };
    live(&mut town, 2);
    town.net.with(2, |node, _| node.0.acted(node.0.heard())).unwrap(); // and nothing after that
    live(&mut town, 2);
    town.events();
    town.tell(0, Input::RotateKeys);
    let left = |town: &mut Town| -> Vec<(usize, AgentEvent)> {
        town.events().into_iter().filter(|(_, event)| matches!(event, AgentEvent::LeftBehind { .. })).collect()
    };
    live(&mut town, 50);
    assert_eq!((left(&mut town), ended(&town, 0)), (vec![], 0), "it is waited for");
    live(&mut town, 100);
    let named = (0, AgentEvent::LeftBehind { nodes: [node_id(2)].into() });
    assert_eq!((left(&mut town), ended(&town, 0)), (vec![named.clone(), named], 1), "in both stages");
}

#[test]
fn a_node_that_is_removed_has_no_keys_at_once_and_the_others_have_other_keys_soon() {
    let mut town = plugged(45, 3);
    town.live(2);
    let (before, firsts) = (host(&mut town, 0), [0, 1].map(|node| record(&town, node, node).unwrap()));
    // Of the one that is removed nobody tells itself: it goes on as it was, and answers nobody.
    (0..2).for_each(|node| town.tell(node, Input::Catalogue(CatalogueChange::NodeGone(node_id(2)))));
    for node in 0..2 {
        let state = host(&mut town, node);
        assert!(state.crypto.tunnels.len() == 1 && state.crypto.sas.keys().all(|id| !known(&mut town, 2).contains(id)));
    }
    town.live(10);
    for (node, first) in firsts.iter().enumerate() {
        assert_eq!((ended(&town, node), record(&town, node, 2)), (1, None), "and it is not waited for");
        assert!(record(&town, 2, node).unwrap().epoch > first.epoch, "node 2 hears of it still");
        let state = host(&mut town, node);
        assert!(state.crypto.sas.len() == 2 && state.crypto.sas.keys().all(|id| !before.crypto.sas.contains_key(id)));
    }
    // Not even as another start of itself.
    town.net.with(2, |node, now| node.0.begin_anew(8, [8; 32], now));
    town.tell(2, Input::Join(vec![overlay_gossip::testing::Net::<crate::town::Node>::address(1)]));
    town.live(5);
    assert!(record(&town, 2, 2).is_some() && record(&town, 0, 2).is_none());
    assert_eq!(host(&mut town, 0).crypto.tunnels.len(), 1);
    town.admit(2);
    town.live(5);
    assert!(host(&mut town, 0).crypto.tunnels.len() == 2 && record(&town, 0, 2).is_some());
    let theirs = known(&mut town, 2);
    assert_eq!(host(&mut town, 0).crypto.sas.keys().filter(|id| theirs.contains(*id)).count(), 2);
}

/// How much was sealed by each association that a node sends by.
fn used(town: &mut Town, node: usize, usage: Usage) -> Input {
    let state = host(town, node);
    let sends = state.crypto.sas.iter().filter(|(_, sa)| sa.direction == Direction::Out);
    Input::Used(sends.map(|(id, _)| (*id, usage)).collect())
}

#[test]
fn a_node_whose_keys_were_used_for_as_much_as_they_may_be_changes_them_and_the_host_ends_them_soon_after() {
    let mut town = plugged(47, 2);
    town.live(2);
    let soft = RotationConfig::default().usage;
    let limits = |town: &mut Town, node: usize| -> Vec<_> {
        let state = host(town, node);
        let of = |direction: Direction| state.crypto.sas.values().find(|sa| sa.direction == direction).unwrap().limits;
        vec![of(Direction::Out), of(Direction::In)]
    };
    assert_eq!(limits(&mut town, 0), [Some(Limits::of(soft)), None]);
    let enough = [Usage { packets: soft.packets, bytes: 1 }, Usage { packets: 1, bytes: soft.bytes }];
    let less = Usage { packets: soft.packets - 1, bytes: soft.bytes - 1 };
    for (rotations, usage) in enough.into_iter().enumerate() {
        let input = used(&mut town, 0, less);
        town.tell(0, input);
        town.live(10);
        assert_eq!(ended(&town, 0), rotations as u64);
        let input = used(&mut town, 0, usage);
        town.tell(0, input.clone());
        town.live(10);
        town.tell(0, input); // of what is there no more
        town.live(10);
        assert_eq!((ended(&town, 0), ended(&town, 1)), (rotations as u64 + 1, 0));
    }
}

/// The associations that a node has.
fn known(town: &mut Town, node: usize) -> BTreeSet<SaId> {
    host(town, node).crypto.sas.keys().copied().collect()
}

#[test]
fn a_node_that_is_gone_before_it_is_removed_has_others_change_their_keys_all_the_same_and_a_stranger_has_not() {
    let mut town = plugged(46, 3);
    town.live(2);
    town.tell(2, Input::Leave);
    town.live(5);
    assert_eq!((ended(&town, 0), host(&mut town, 0).crypto.tunnels.len()), (0, 1));
    town.tell(0, Input::Catalogue(CatalogueChange::NodeGone(node_id(7))));
    town.live(10);
    assert_eq!(ended(&town, 0), 0, "nothing was agreed on with that one");
    town.tell(0, Input::Catalogue(CatalogueChange::NodeGone(node_id(2))));
    town.live(10);
    assert_eq!(ended(&town, 0), 1);
}

#[test]
fn a_node_whose_host_fails_is_waited_for_and_named_though_it_confirms_and_no_more_when_it_holds_again() {
    let mut town = plugged(48, 3);
    town.live(2);
    let fails = |town: &mut Town, result: Result<(), String>| {
        let state = Some(host(town, 2));
        town.tell(2, Input::Applied { place: Place::Host, state, result });
    };
    let live = |town: &mut Town, seconds: u64| {
        for _ in 0..seconds {
            town.run(1);
            (0..2).for_each(|node| town.apply(node)); // the third holds nothing that is new
        }
    };
    fails(&mut town, Err("no room".to_owned()));
    town.run(2);
    town.events();
    town.tell(0, Input::RotateKeys);
    live(&mut town, 50);
    assert_eq!(ended(&town, 0), 0, "it is waited for");
    live(&mut town, 100);
    let left: Vec<_> = town.events().into_iter().filter(|it| matches!(it.1, AgentEvent::LeftBehind { .. })).collect();
    let named = (0, AgentEvent::LeftBehind { nodes: [node_id(2)].into() });
    assert_eq!((left, ended(&town, 0)), (vec![named.clone(), named], 1), "in both stages");
    town.tell(0, Input::RotateKeys);
    live(&mut town, 10);
    assert_eq!(ended(&town, 0), 1);
    fails(&mut town, Ok(()));
    town.live(10);
    assert_eq!(ended(&town, 0), 2, "it follows");
}

#[test]
fn a_peer_that_says_it_is_at_anothers_address_does_not_keep_a_node_from_changing_its_keys() {
    let mut town = plugged(42, 3);
    let vtep = town.segment(1).unwrap().vtep.local;
    town.tell(2, Input::Underlay { vtep, mtu: Mtu::ETHERNET });
    town.live(2);
    town.tell(0, Input::RotateKeys);
    town.live(10);
    assert_eq!(ended(&town, 0), 1);
}

#[test]
fn an_incarnation_that_leaves_no_room_for_epochs_takes_none_from_a_node() {
    let mut town = plugged(43, 2);
    let before = record(&town, 1, 0).unwrap();
    town.net.with(0, |node, now| node.0.begin_anew(1 << 60, [8; 32], now));
    town.tell(0, Input::Join(vec![overlay_gossip::testing::Net::<crate::town::Node>::address(1)]));
    town.live(10);
    let after = record(&town, 1, 0).unwrap();
    assert!(after.epoch > before.epoch && after.epoch.get() < u64::MAX / 2);
    town.tell(0, Input::RotateKeys);
    town.live(10);
    assert!(record(&town, 1, 0).unwrap().epoch > after.epoch && ended(&town, 0) == 1);
    let [a, b] = [0, 1].map(|node| host(&mut town, node));
    assert!(a.crypto.sas.keys().eq(b.crypto.sas.keys()) && a.crypto.sas.len() == 2);
}

#[test]
fn the_port_of_encrypted_networks_is_nobody_elses_and_none_that_tunnels_send_from() {
    let begin = |port: u16| {
        let config = AgentConfig { encrypted_port: Port::new(port).unwrap(), ..AgentConfig::lan() };
        let (address, vtep) = ("192.0.2.7:7946".parse().unwrap(), [192, 0, 2, 7].into());
        let me = Me { id: node_id(0), incarnation: 1, address, role: Role::Worker, vtep, mtu: Mtu::ETHERNET };
        Agent::new(config, me, [1; 32], Instant::ZERO).map(|_| ())
    };
    for wrong in [4789, 7946, 49_152, 65_535] {
        let port = Port::new(wrong).unwrap();
        assert_eq!(begin(wrong), Err(AgentError::EncryptedPort { port }));
    }
    assert_eq!(begin(49_151), Ok(()));
}

const OWN: NetworkId = NetworkId::from_bytes([0x2a; 16]);
const OWN_PORT: Port = PortRange::VXLAN_ENCRYPTED.first();

fn own(port: Option<Port>) -> CatalogueChange {
    let spec = NetworkSpec { encryption: Encryption::Own, ..NetworkSpec::overlay("vault".parse().unwrap()) };
    CatalogueChange::Network(Arc::new(Network { id: OWN, spec, vni: Vni::new(4098).ok(), port, ..network() }))
}

fn plug_own(town: &mut Town, number: u8, node: usize) {
    let namespace = Some(NsKey { name: container(number), id: NsId { device: 4, inode: number.into() } });
    town.tell(node, Input::Plug { endpoint: id(number), namespace, interface: eth0(), adopted: false });
}

/// As [`plugged`], and a network that has a port of its own, on which node 0 has endpoint 12, and so on; not plugged in yet.
fn beside_own(seed: u64, nodes: usize) -> Town {
    let mut town = plugged(seed, nodes);
    town.publish(&own(Some(OWN_PORT)));
    for node in 0..nodes {
        let of = endpoint(node as u8 + 12, node, 0);
        let spec = EndpointSpec { network: OWN, ..of.spec.clone() };
        town.publish(&CatalogueChange::Endpoint(Arc::new(Endpoint { spec, ..of })));
    }
    town.run(2);
    town
}

#[test]
fn a_network_with_its_own_port_has_its_own_guard_tunnels_and_keys_while_it_is_here() {
    let mut town = beside_own(30, 2);
    let shared = host(&mut town, 0).crypto.clone();
    assert_eq!((shared.ports.clone(), shared.tunnels.len(), shared.sas.len()), ([PORT].into(), 1, 2));
    (0..2).for_each(|node| plug_own(&mut town, node as u8 + 12, node));
    town.run(3);
    let [a, b] = [0, 1].map(|node| host(&mut town, node).crypto.clone());
    assert_eq!((a.ports.clone(), a.tunnels.len(), a.check()), ([PORT, OWN_PORT].into(), 2, Ok(())));
    assert!(a.sas.keys().eq(b.sas.keys()) && a.sas.len() == 4);
    assert!(shared.sas.iter().all(|(id, sa)| a.sas.get(id) == Some(sa)), "what was there stays as it is");
    for (id, sa) in &a.sas {
        assert!(b.sas[id].key == sa.key && b.sas[id].port == sa.port);
        assert!(a.sas.iter().all(|(other, one)| other == id || one.key != sa.key && other.spi != id.spi));
    }
    let sandbox = town.desired(0).places[&Place::Network(OWN)].clone();
    assert!(sandbox.vxlan.segments.values().all(|segment| segment.vtep.port == OWN_PORT));
    assert!(host(&mut town, 0).firewall.tunnels.contains_key(&OWN_PORT));

    town.tell(0, Input::Unplug(id(12)));
    town.run(2);
    assert_eq!(host(&mut town, 0).crypto, shared, "all of it goes with the last endpoint, and nothing else does");
    plug_own(&mut town, 12, 0);
    town.live(10);
    let [after, there] = [0, 1].map(|node| host(&mut town, node).crypto.clone());
    assert!(after.sas.keys().eq(there.sas.keys()) && after.sas.len() == 4);
    assert!(after.sas.keys().all(|id| !a.sas.contains_key(id)), "its keys are spent, so there is another epoch");
}

#[test]
fn what_is_carried_at_an_own_port_is_explained_by_that() {
    let mut town = beside_own(31, 2);
    (0..2).for_each(|node| plug_own(&mut town, node as u8 + 12, node));
    town.run(3);
    let knowledge = town.net.machine(0).unwrap().0.knowledge().clone();
    let to = |number: u8| Target::Name(container(number).as_str().parse().unwrap());
    let explained = |number, from| explain(&knowledge, id(from), &to(number), &derive(&knowledge)).to_string();
    assert!(explained(13, 12).contains("sealed    port 29200 by 1 associations"), "{}", explained(13, 12));
    assert!(explained(3, 2).contains("sealed    port 4793 by 1 associations"), "{}", explained(3, 2));
}

#[test]
fn a_port_that_the_node_does_not_keep_for_that_carries_nothing_and_is_said() {
    let mut town = beside_own(32, 1);
    town.publish(&own(Port::new(30_000).ok()));
    plug_own(&mut town, 12, 0);
    town.run(2);
    assert!(!town.desired(0).places.contains_key(&Place::Network(OWN)));
    assert_eq!(host(&mut town, 0).crypto.ports, [PORT].into());
    town.apply(0);
    let said = town.events().into_iter().any(|(_, event)| {
        matches!(event, AgentEvent::Report { endpoint, result: Err(why), .. } if endpoint == id(12) && why.contains("30000"))
    });
    assert!(said);
}

#[test]
fn ports_of_which_networks_have_their_own_are_nobody_elses() {
    let begin = |first: u16, last: u16, kept: Option<u16>| {
        let own_ports = PortRange::new(Port::new(first).unwrap(), Port::new(last).unwrap()).unwrap();
        let kept = kept.into_iter().map(|port| (Protocol::Udp, Port::new(port).unwrap())).collect();
        let config = AgentConfig { own_ports, kept, ..AgentConfig::lan() };
        let (address, vtep) = ("192.0.2.7:7946".parse().unwrap(), [192, 0, 2, 7].into());
        let me = Me { id: node_id(0), incarnation: 1, address, role: Role::Worker, vtep, mtu: Mtu::ETHERNET };
        Agent::new(config, me, [1; 32], Instant::ZERO).map(|_| ())
    };
    for (first, last, kept, port) in [
        (4700, 4790, None, 4789),
        (4790, 4800, None, 4793),
        (7900, 8000, None, 7946),
        (100, 200, Some(123), 123),
        (49_000, 49_152, None, 49_152),
    ] {
        let said = begin(first, last, kept).unwrap_err();
        assert!(matches!(said, AgentError::OwnPorts { port: of, .. } if of.get() == port), "{said}");
    }
    assert_eq!(begin(49_000, 49_151, None), Ok(()));
}

#[test]
fn who_has_left_or_is_given_up_has_no_associations_and_who_comes_back_has_others() {
    let mut town = plugged(33, 4);
    let before = host(&mut town, 0).crypto.clone();
    assert_eq!(before.tunnels.len(), 3);
    let of = |town: &mut Town, node: usize| {
        let peer = overlay_gossip::testing::Net::<crate::town::Node>::address(node).ip();
        let crypto = host(town, 0).crypto.clone();
        let ends = crypto.sas.iter().filter(|(id, sa)| [id.destination, sa.source].contains(&peer)).count();
        (crypto.tunnels.keys().filter(|tunnel| tunnel.peer == peer).count(), ends)
    };
    town.tell(2, Input::Leave);
    town.run(2);
    assert_eq!((of(&mut town, 2), of(&mut town, 1)), ((0, 0), (1, 2)), "who left has none");
    town.net.isolate([3]);
    let gone = |town: &Town| !town.net.machine(0).unwrap().0.knowledge().nodes.contains_key(&node_id(3));
    let waited = (0..2000).find(|_| {
        town.run(60);
        gone(&town)
    });
    assert!(waited.is_some(), "it is given up");
    assert_eq!((of(&mut town, 3), of(&mut town, 1)), ((0, 0), (1, 2)));
    assert!(before.sas.iter().filter(|(id, _)| host(&mut town, 0).crypto.sas.contains_key(id)).count() == 2);
    town.net.heal();
    town.tell(3, Input::Join(vec![overlay_gossip::testing::Net::<crate::town::Node>::address(0)]));
    town.live(30);
    assert_eq!(of(&mut town, 3), (1, 2), "who comes back");
    let [a, b] = [0, 3].map(|node| host(&mut town, node).crypto.clone());
    let with = a.sas.keys().filter(|id| b.sas.contains_key(id));
    assert_eq!(with.clone().count(), 2, "has the keys that are there");
    assert!(with.clone().all(|id| !before.sas.contains_key(id)), "and none of before");
}

#[test]
fn other_keys_are_made_once_in_ten_seconds_however_often_they_are_asked_for_and_not_forgotten() {
    let mut town = plugged(34, 2);
    let mut epochs = vec![record(&town, 1, 0).unwrap().epoch];
    for _ in 0..22 {
        town.tell(0, Input::Rekey);
        town.run(1);
        let epoch = record(&town, 1, 0).unwrap().epoch;
        if epochs.last() != Some(&epoch) {
            epochs.push(epoch);
        }
    }
    assert_eq!(epochs.len(), 4, "at 0 s, 10 s and 20 s");
    town.run(10);
    let last = record(&town, 1, 0).unwrap().epoch;
    assert!(last > epochs[3], "what was asked for meanwhile comes when it may");
    town.run(30);
    assert_eq!(record(&town, 1, 0).unwrap().epoch, last, "and once");
    let [a, b] = [0, 1].map(|node| host(&mut town, node));
    assert!(a.crypto.sas.keys().eq(b.crypto.sas.keys()) && a.crypto.sas.len() == 2);
}
