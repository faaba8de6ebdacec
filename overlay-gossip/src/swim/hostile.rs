//! A member that was taken over: it has the key of gossip and its own, and says what it likes of others.

use std::sync::Arc;
use std::time::Duration;

use overlay_core::NodeId;
use proptest::prelude::*;

use crate::swim::statements::statement;
use crate::tables::{FORGERIES, FORGERIES_AT_ONCE, Group, forged_voucher};
use crate::testing::{Conditions, Net, TestKeys};
use crate::wire::{self, Kind, News, Proofs, SyncPush, Update};
use crate::{Class, Config, Event, Gossip, Member, Metadata, Role, Standing};

const CLUSTER: u64 = 5;
/// Who hears it.
const HEARER: usize = 0;
/// Whom it is about.
const VICTIM: usize = 1;
/// Who says it.
const LIAR: usize = 2;
/// Who stands by.
const OTHER: usize = 3;

fn id(node: usize) -> NodeId {
    Net::<Gossip>::node_id(node)
}

/// Four that sign and know each other, and how each signs.
fn cluster() -> (Net<Gossip>, Vec<Arc<TestKeys>>) {
    let mut net: Net<Gossip> = Net::new(Conditions::lan(), 7);
    let mut all = Vec::new();
    for node in 0..4 {
        let keys = Arc::new(TestKeys::new(id(node), TestKeys::secret(node, 1), CLUSTER));
        net.add_gossip(&signing(&keys));
        all.push(keys);
    }
    net.join_all();
    settle(&mut net);
    assert!(net.is_complete(), "{net:?}");
    (net, all)
}

fn signing(keys: &Arc<TestKeys>) -> Config {
    let mut config = Config::lan();
    config.tables.verify = Some(Arc::clone(keys) as _);
    config
}

fn settle(net: &mut Net<Gossip>) {
    net.run_for(Duration::from_secs(8));
}

/// What a node knows of another, as it would tell it on.
fn word(net: &Net<Gossip>, of: usize, about: usize) -> Update {
    let all = net.machine(of).unwrap().told_of(id(about), net.now());
    all.unwrap()
}

fn signed(update: Update, secret: u64) -> Update {
    let signature = TestKeys::signature(secret, &statement(&update)).into();
    Update { signature, ..update }
}

fn payload(kind: Kind, body: &[u8]) -> Vec<u8> {
    let mut payload = wire::begin(id(LIAR));
    wire::put_frame(kind, body, &mut payload);
    wire::mark_signed(&mut payload);
    payload
}

fn news(updates: &[Update]) -> Vec<u8> {
    let mut body = Vec::new();
    News { updates: updates.to_vec() }.encode(&mut body);
    payload(Kind::News, &body)
}

fn hear(net: &mut Net<Gossip>, at: usize, class: Class, payload: &[u8]) {
    let heard = net.with(at, |gossip, now| gossip.handle(Net::<Gossip>::address(LIAR), class, payload, now));
    heard.unwrap().unwrap();
}

/// How everybody sees the victim: which start, where, as what, and how it stands.
fn views(net: &Net<Gossip>) -> Vec<(Member, Standing)> {
    let see = |node: usize| {
        net.machine(node).unwrap().member(id(VICTIM)).map(|(member, standing)| (member.clone(), standing))
    };
    [HEARER, LIAR, OTHER].into_iter().filter_map(see).collect()
}

/// Says this to everybody, in every way; nobody may believe it, then or later, and the victim has nothing to object to.
fn assert_not_believed(net: &mut Net<Gossip>, what: &str, lie: &Update) {
    let before = views(net);
    let mut push = Vec::new();
    SyncPush { updates: vec![lie.clone()] }.encode(&mut push);
    net.take_events();
    for node in [HEARER, VICTIM, OTHER] {
        hear(net, node, Class::Datagram, &news(std::slice::from_ref(lie)));
        hear(net, node, Class::Stream, &payload(Kind::SyncPush, &push));
    }
    assert_eq!(views(net), before, "{what}");
    settle(net);
    assert_eq!(views(net), before, "{what}, later");
    let told = net.take_events();
    let wrong = told
        .iter()
        .find(|(_, _, event)| matches!(event, Event::Superseded { .. } | Event::Left(_) | Event::Suspended(_)));
    assert_eq!(wrong, None, "{what}");
}

#[test]
fn nobody_is_moved_changed_or_silenced_by_what_another_says_of_it() {
    let (mut net, _) = cluster();
    let truth = word(&net, OTHER, VICTIM);
    let liars = TestKeys::secret(LIAR, 1);
    let elsewhere = Member { address: Net::<Gossip>::address(LIAR), ..truth.member.clone() };
    let with =
        |member: Member, revision: u32, standing: Standing| Update { member, revision, standing, ..truth.clone() };
    let later = |incarnation: u64| Member { incarnation, ..elsewhere.clone() };
    let manager =
        Member { role: Role::Manager, metadata: Metadata::new("vtep 192.0.2.66").unwrap(), ..truth.member.clone() };
    let lies = [
        ("moved, under its next number", with(elsewhere.clone(), truth.revision + 1, Standing::Alive)),
        ("made a manager with another tunnel", with(manager, truth.revision + 1, Standing::Alive)),
        ("moved, as its next start", with(later(2), 0, Standing::Alive)),
        ("silenced by the greatest start", with(later(u64::MAX), 0, Standing::Alive)),
        ("silenced by the greatest number", with(truth.member.clone(), u32::MAX, Standing::Alive)),
        ("suspected under a number it never had", with(elsewhere.clone(), u32::MAX, Standing::Suspected)),
        ("suspended as a later start", with(later(9), 0, Standing::Suspended)),
        ("gone as a later start", with(later(9), 0, Standing::Left)),
        ("gone", with(truth.member.clone(), truth.revision, Standing::Left)),
    ];
    for (what, lie) in lies {
        assert_not_believed(&mut net, what, &lie);
        assert_not_believed(&mut net, what, &Update { signature: Box::default(), ..lie.clone() });
        assert_not_believed(&mut net, what, &signed(lie, liars));
    }
    let metrics = net.machine(HEARER).unwrap().metrics().membership;
    assert!(metrics.forged > 0 && metrics.unsigned > 0 && metrics.forged_leaves > 0, "{metrics:?}");
    net.with(VICTIM, |gossip, now| gossip.set_address(Net::<Gossip>::address(9), now));
    net.run_for(Duration::from_secs(1));
    let seen: Vec<_> = views(&net).into_iter().map(|(member, _)| member.address).collect();
    assert_eq!(seen, [Net::<Gossip>::address(9); 3], "what it says itself is heard all the same");
}

#[test]
fn what_was_true_once_is_not_taken_again() {
    let (mut net, _) = cluster();
    let first = word(&net, OTHER, VICTIM);
    net.with(VICTIM, |gossip, now| gossip.set_metadata(Metadata::new("new").unwrap(), now));
    settle(&mut net);
    assert_not_believed(&mut net, "its former word", &first);
    let second = word(&net, OTHER, VICTIM);
    assert!(second.number() > first.number());
    let raised = Update { member: first.member.clone(), revision: second.revision + 1, ..first.clone() };
    assert_not_believed(&mut net, "its former word under another number", &raised);
    let swapped = Update { revision: second.revision + 1, ..second };
    assert_not_believed(&mut net, "its present word under another number", &swapped);
    let shown = shown_of(&mut net, VICTIM);
    net.crash(VICTIM);
    net.restart_gossip(VICTIM, &TestKeys::of_start(&Config::lan(), VICTIM, 2), 2, &[HEARER]);
    settle(&mut net);
    assert_eq!(word(&net, OTHER, VICTIM).member.incarnation, 2);
    assert_not_believed(&mut net, "its former start", &first);
    hear(&mut net, HEARER, Class::Stream, &proofs(vec![shown]));
    assert_not_believed(&mut net, "its former start, with what that has shown", &first);
}

fn shown_of(net: &mut Net<Gossip>, node: usize) -> Group {
    net.with(OTHER, |gossip, now| gossip.shown_by(id(node), now)).unwrap().unwrap()
}

fn proofs(shown: Vec<Group>) -> Vec<u8> {
    let mut body = Vec::new();
    Proofs { shown }.encode(&mut body);
    payload(Kind::Proofs, &body)
}

#[test]
fn who_claims_a_later_start_of_another_cannot_prove_it() {
    let (mut net, keys) = cluster();
    let (truth, liars) = (word(&net, OTHER, VICTIM), TestKeys::secret(LIAR, 1));
    let member = Member { incarnation: 2, address: Net::<Gossip>::address(LIAR), ..truth.member.clone() };
    let claim = signed(Update { member, revision: 0, ..truth }, liars);
    let voucher = |of: NodeId, cluster: u64| TestKeys::shown(of, liars, cluster);
    let true_one = shown_of(&mut net, VICTIM);
    let false_ones = [
        ("its own", forged_voucher(id(VICTIM), 2, voucher(id(LIAR), CLUSTER), liars)),
        ("one of another cluster", forged_voucher(id(VICTIM), 2, voucher(id(VICTIM), CLUSTER + 1), liars)),
        (
            "a true one, signed by who it is not",
            forged_voucher(id(VICTIM), 2, TestKeys::shown(id(VICTIM), TestKeys::secret(VICTIM, 1), CLUSTER), liars),
        ),
        ("the true one of the true start, as the later one's", Group { incarnation: 2, ..true_one.clone() }),
        ("nothing", Group { incarnation: 2, changes: Vec::new(), ..true_one.clone() }),
        (
            "more than one",
            Group { incarnation: 2, changes: [&true_one.changes[..], &true_one.changes[..]].concat(), ..true_one },
        ),
    ];
    let before = views(&net);
    for (what, shown) in false_ones {
        hear(&mut net, HEARER, Class::Datagram, &news(std::slice::from_ref(&claim)));
        assert_eq!(net.machine(HEARER).unwrap().metrics().membership.claims, 1, "{what}");
        let forged = net.machine(HEARER).unwrap().metrics().membership.forged;
        hear(&mut net, HEARER, Class::Stream, &proofs(vec![shown]));
        assert_eq!(net.machine(HEARER).unwrap().metrics().membership.forged, forged + 1, "{what}");
        assert_eq!(
            (views(&net), keys[HEARER].known(id(VICTIM))),
            (before.clone(), Some(TestKeys::secret(VICTIM, 1))),
            "{what}"
        );
    }
    net.run_for(Duration::from_secs(40));
    assert_eq!(net.machine(HEARER).unwrap().metrics().membership.claims, 0, "it is not kept for ever");
    assert_eq!(views(&net), before);
    assert!(!net.take_events().iter().any(|(_, _, event)| matches!(event, Event::Superseded { .. })));
}

#[test]
fn proof_of_a_start_that_is_over_does_not_undo_a_later_one() {
    let (mut net, keys) = cluster();
    let start_again = |net: &mut Net<Gossip>, incarnation: u64| {
        net.crash(VICTIM);
        let config = TestKeys::of_start(&Config::lan(), VICTIM, incarnation);
        net.restart_gossip(VICTIM, &config, incarnation, &[OTHER]);
        settle(net);
        (word(net, OTHER, VICTIM), shown_of(net, VICTIM))
    };
    net.isolate([HEARER]);
    let (second, third) = (start_again(&mut net, 2), start_again(&mut net, 3));
    for said in [&second.0, &third.0] {
        hear(&mut net, HEARER, Class::Datagram, &news(std::slice::from_ref(said)));
    }
    for shown in [third.1, second.1] {
        hear(&mut net, HEARER, Class::Stream, &proofs(vec![shown]));
        let known = net.machine(HEARER).unwrap().member(id(VICTIM)).map(|(member, _)| member.incarnation);
        assert_eq!((known, keys[HEARER].known(id(VICTIM))), (Some(3), Some(TestKeys::secret(VICTIM, 3))));
    }
}

#[test]
fn nobody_is_kept_out_by_false_claims_of_it() {
    let (mut net, _) = cluster();
    let truth = word(&net, OTHER, VICTIM);
    net.crash(VICTIM);
    let member = Member { incarnation: 2, address: Net::<Gossip>::address(LIAR), ..truth.member.clone() };
    let greater = signed(Update { member, revision: 7, ..truth }, TestKeys::secret(LIAR, 1));
    for node in [HEARER, OTHER] {
        hear(&mut net, node, Class::Datagram, &news(std::slice::from_ref(&greater)));
    }
    net.restart_gossip(VICTIM, &TestKeys::of_start(&Config::lan(), VICTIM, 2), 2, &[HEARER]);
    for _ in 0..40 {
        net.run_for(Duration::from_millis(200));
        for node in [HEARER, OTHER] {
            hear(&mut net, node, Class::Datagram, &news(std::slice::from_ref(&greater)));
        }
    }
    let seen: Vec<_> =
        views(&net).into_iter().map(|(member, standing)| (member.incarnation, member.address, standing)).collect();
    assert_eq!(seen, [(2, Net::<Gossip>::address(VICTIM), Standing::Alive); 3], "{net:?}");
}

#[test]
fn an_earlier_process_of_a_node_is_told_by_proof_that_a_later_one_is_there() {
    let (mut net, _) = cluster();
    net.isolate([VICTIM]);
    let later = net.add(|_, seed, now| {
        let member = Member::new(id(VICTIM), 2, Net::<Gossip>::address(4));
        Gossip::new(TestKeys::of_start(&Config::lan(), VICTIM, 2), member, seed, now).unwrap()
    });
    net.with(later, |gossip, now| gossip.join(&[Net::<Gossip>::address(HEARER)], now));
    settle(&mut net);
    net.take_events();
    net.heal();
    net.run_for(Duration::from_secs(60));
    let superseded =
        |(_, node, event): &(_, usize, Event)| (*node, event.clone()) == (VICTIM, Event::Superseded { incarnation: 2 });
    assert!(net.take_events().iter().any(superseded), "{net:?}");
}

#[test]
fn forgeries_cost_a_bounded_number_of_signatures_and_newcomers_are_known_all_the_same() {
    let (mut net, keys) = cluster();
    let truth = word(&net, OTHER, VICTIM);
    let lie = |revision: u32| Update { revision, signature: vec![7; 8].into(), ..truth.clone() };
    let datagram = news(&(1..=8).map(lie).collect::<Vec<_>>());
    keys[HEARER].take_looks();
    for _ in 0..3_000 {
        hear(&mut net, HEARER, Class::Datagram, &datagram);
    }
    assert_eq!(keys[HEARER].take_looks(), FORGERIES_AT_ONCE as usize);
    let newcomer = net.add_gossip(&TestKeys::of_start(&Config::lan(), 4, 1));
    net.with(newcomer, |gossip, now| gossip.join(&[Net::<Gossip>::address(OTHER)], now));
    for _ in 0..400 {
        net.run_for(Duration::from_millis(50));
        (0..10).for_each(|_| hear(&mut net, HEARER, Class::Datagram, &datagram));
    }
    assert!(net.is_complete(), "{net:?}");
    assert!(keys[HEARER].take_looks() <= 20 * FORGERIES as usize + 100);
}

#[test]
fn while_a_cluster_is_brought_to_sign_only_those_are_believed_unsigned_that_have_not_begun() {
    let mut net: Net<Gossip> = Net::new(Conditions::lan(), 7);
    for node in 0..4 {
        let keys = Arc::new(TestKeys::new(id(node), TestKeys::secret(node, 1), CLUSTER).taking_unsigned());
        net.add_gossip(&if node == VICTIM { Config::lan() } else { signing(&keys) });
    }
    net.join_all();
    settle(&mut net);
    assert!(net.is_complete(), "{net:?}");
    let signer = word(&net, HEARER, OTHER);
    let lie = Update { revision: signer.revision + 1, signature: Box::default(), ..signer };
    hear(&mut net, HEARER, Class::Datagram, &news(&[lie]));
    assert_eq!(net.machine(HEARER).unwrap().metrics().membership.unsigned, 1);
    net.with(VICTIM, |gossip, now| gossip.set_address(Net::<Gossip>::address(9), now));
    net.run_for(Duration::from_secs(1));
    let addresses = views(&net).into_iter().map(|(member, _)| member.address);
    assert!(addresses.eq([Net::<Gossip>::address(9); 3]), "{net:?}");
    net.crash(VICTIM);
    net.restart_gossip(VICTIM, &TestKeys::of_start(&Config::lan(), VICTIM, 2), 2, &[HEARER]);
    settle(&mut net);
    assert_eq!(views(&net).into_iter().map(|(member, _)| member.incarnation).collect::<Vec<_>>(), [2; 3]);
}

/// Restarts the victim while who was taken over tells everybody, every few milliseconds, of that start, and answers no question.
fn restart_against(said: &[u8]) -> Vec<(u64, Standing)> {
    let (mut net, _) = cluster();
    net.crash(LIAR); // what it says is said for it; it proves nothing
    net.crash(VICTIM);
    let tell =
        |net: &mut Net<Gossip>| [HEARER, OTHER].into_iter().for_each(|node| hear(net, node, Class::Datagram, said));
    (0..FORGERIES_AT_ONCE).for_each(|_| tell(&mut net));
    net.restart_gossip(VICTIM, &TestKeys::of_start(&Config::lan(), VICTIM, 2), 2, &[HEARER]);
    for _ in 0..6_000 {
        net.run_for(Duration::from_millis(2));
        tell(&mut net);
    }
    let see = |node: usize| {
        let machine = net.machine(node).unwrap();
        machine.member(id(VICTIM)).map(|(member, standing)| (member.incarnation, standing))
    };
    [HEARER, OTHER].into_iter().filter_map(see).collect()
}

#[test]
fn a_node_that_signs_is_not_superseded_by_what_nobody_signed_whatever_it_takes_of_others() {
    let mut net: Net<Gossip> = Net::new(Conditions::lan(), 7);
    for node in 0..4 {
        net.add_gossip(&signing(&Arc::new(
            TestKeys::new(id(node), TestKeys::secret(node, 1), CLUSTER).taking_unsigned(),
        )));
    }
    net.join_all();
    settle(&mut net);
    net.take_events();
    for (incarnation, revision) in [(1, u32::MAX), (9, 0)] {
        let member = Member::new(id(VICTIM), incarnation, Net::<Gossip>::address(LIAR));
        hear(&mut net, VICTIM, Class::Datagram, &news(&[Update { revision, ..Update::alive(member) }]));
    }
    let events = net.take_events();
    assert!(!events.iter().any(|(_, _, event)| matches!(event, Event::Superseded { .. })), "{events:?}");
}

/// Of some start of a node, by none of its keys.
fn false_word(of: usize, incarnation: u64) -> Update {
    let member = Member::new(id(of), incarnation, Net::<Gossip>::address(LIAR));
    signed(Update { revision: 7, ..Update::alive(member) }, 0)
}

#[test]
fn nobody_is_kept_out_by_who_tells_of_it_first_and_proves_nothing() {
    assert_eq!(restart_against(&news(&[false_word(VICTIM, 2)])), [(2, Standing::Alive); 2]);
}

#[test]
fn nobody_is_kept_out_by_forgeries_that_come_before_each_proof() {
    assert_eq!(restart_against(&news(&[false_word(LIAR, 1)])), [(2, Standing::Alive); 2]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is done to a true word, what others know of a member is what it said.
    #[test]
    fn no_change_of_a_word_is_believed(byte in any::<prop::sample::Index>(), bit in 0..8_u8, raised in 0..3_u32, later in 0..3_u64) {
        let (mut net, _) = cluster();
        let (mut update, before) = (word(&net, OTHER, VICTIM), views(&net));
        update.revision += raised;
        update.member.incarnation += later;
        let mut datagram = news(&[update]);
        let body = wire::Packet::HEADER_LEN + 2; // kind and length come before
        let at = body + byte.index(datagram.len() - body);
        datagram[at] ^= 1 << bit;
        let from = Net::<Gossip>::address(LIAR);
        net.with(HEARER, |gossip, now| gossip.handle(from, Class::Datagram, &datagram, now));
        let seen = views(&net).into_iter().map(|(member, _)| member);
        prop_assert!(seen.eq(before.iter().map(|(member, _)| member.clone())));
        settle(&mut net);
        prop_assert_eq!(views(&net), before);
    }
}
