//! Networks with a policy.

use std::sync::Arc;

use overlay_core::{Mtu, NetworkId, Vni};
use overlay_datapath::{Datapath, Fate, Reason, Sandbox, Tables, Wanted};
use overlay_firewall::{Action, Member, PolicyRule, Selector};
use overlay_vxlan::{Segment, Vtep};

use crate::bytes::{End, builder, tcp, udp};
use crate::node::{NOW, cross, datapath, end, end6, endpoint, send, v4, v6, vtep, wanted, with};

/// Nobody may begin anything, but 1 may ask 3 and 2.
pub(crate) fn guarded(node: u8) -> Wanted {
    with(wanted(node), |sandbox| {
        let policy = &mut sandbox.firewall.policy;
        policy.otherwise = Action::Deny;
        for number in 1..=4 {
            let labels = [("is".to_owned(), number.to_string())].into();
            let member = Member { addresses: [v4(number), v6(number)].into(), labels };
            policy.members.insert(endpoint(number), member);
        }
        for to in ["2", "3"] {
            let of = |number: &str| Selector::labels([("is", number)]);
            let rule = PolicyRule::allow(of("1"), of(to));
            policy.rules.insert(format!("one-asks-{to}").parse().unwrap(), rule);
        }
    })
}

fn nodes() -> [Datapath; 2] {
    [datapath(&guarded(1)), datapath(&guarded(2))]
}

#[test]
fn what_was_allowed_to_begin_is_answered_and_nothing_else_begins() {
    let [mut one, mut two] = nodes();
    let (client, server) = (end(1, 5_000), end(3, 80));
    let datagrams = [udp(server, client, b"me first"), udp(client, server, b"?"), udp(server, client, b"!")];
    let segments = [tcp(server, client, true), tcp(client, server, true), tcp(server, client, false)];
    for [unasked, asks, answers] in [datagrams, segments] {
        assert_eq!(cross((&mut two, 3), &mut one, &unasked), Err(Reason::Policy));
        assert!(cross((&mut one, 1), &mut two, &asks).is_ok());
        assert!(cross((&mut two, 3), &mut one, &answers).is_ok());
    }
    assert_eq!(cross((&mut one, 1), &mut two, &udp(end(1, 1), end(4, 1), b"")), Err(Reason::Policy));
    assert_eq!(send(&mut one, 2, &udp(end(2, 1), end(1, 1), b"")).0, Fate::Drop(Reason::Policy));
}

#[test]
fn a_connection_that_begins_is_asked_about_whatever_was_there() {
    let [mut one, _] = nodes();
    assert_eq!(send(&mut one, 1, &tcp(end(1, 5_000), end(2, 80), true)).0, Fate::Port(endpoint(2)));
    assert_eq!(send(&mut one, 2, &tcp(end(2, 80), end(1, 5_000), false)).0, Fate::Port(endpoint(1)));
    let back = tcp(end(2, 80), end(1, 5_000), true);
    assert_eq!(send(&mut one, 2, &back).0, Fate::Drop(Reason::Policy));
}

#[test]
fn what_a_new_policy_forbids_ends() {
    let [mut one, _] = nodes();
    let (asks, answers) = (udp(end(1, 5_000), end(2, 80), b"?"), udp(end(2, 80), end(1, 5_000), b"!"));
    assert_eq!(send(&mut one, 1, &asks).0, Fate::Port(endpoint(2)));
    assert_eq!(send(&mut one, 2, &answers).0, Fate::Port(endpoint(1)));
    one.handle_tables(Arc::new(Tables::new(&guarded(1)).unwrap()), NOW);
    assert_eq!(send(&mut one, 2, &answers).0, Fate::Port(endpoint(1)), "the same policy ends nothing");

    let closed = with(guarded(1), |sandbox| sandbox.firewall.policy.rules.clear());
    one.handle_tables(Arc::new(Tables::new(&closed).unwrap()), NOW);
    assert_eq!(send(&mut one, 2, &answers).0, Fate::Drop(Reason::Policy));
    assert_eq!(send(&mut one, 1, &asks).0, Fate::Drop(Reason::Policy));
    assert_eq!(one.flows(), 0);
}

/// A network more, whose id comes before or behind the other's.
fn beside(mut wanted: Wanted, id: u8) -> Wanted {
    let vni = Vni::new(5_000).unwrap();
    let segment = Segment::new(Vtep::new(vtep(1)), Mtu::new(1_450).unwrap());
    let mut sandbox = Sandbox::default();
    sandbox.vxlan.segments.insert(vni, segment);
    wanted.networks.insert(NetworkId::from_bytes([id; 16]), sandbox);
    wanted
}

#[test]
fn a_network_that_comes_or_goes_ends_no_flow_of_another() {
    let [mut one, _] = nodes();
    let (asks, answers) = (udp(end(1, 5_000), end(2, 80), b"?"), udp(end(2, 80), end(1, 5_000), b"!"));
    assert_eq!(send(&mut one, 1, &asks).0, Fate::Port(endpoint(2)));
    let wanted = guarded(1);
    for wanted in [beside(wanted.clone(), 1), wanted.clone(), beside(wanted.clone(), 200), wanted.clone()] {
        one.handle_tables(Arc::new(Tables::new(&wanted).unwrap()), NOW);
        assert_eq!(send(&mut one, 2, &answers).0, Fate::Port(endpoint(1)));
        assert_eq!(one.flows(), 1);
    }
    // With the network its flows go.
    let mut other = beside(wanted.clone(), 1);
    other.networks.remove(&NetworkId::from_bytes([9; 16]));
    one.handle_tables(Arc::new(Tables::new(&other).unwrap()), NOW);
    assert_eq!(one.flows(), 0);
    one.handle_tables(Arc::new(Tables::new(&wanted).unwrap()), NOW);
    assert_eq!(send(&mut one, 2, &answers).0, Fate::Drop(Reason::Policy));
}

#[test]
fn a_fragment_is_not_let_past_a_policy() {
    let [mut one, _] = nodes();
    let mut frame = udp(end(1, 5_000), end(2, 80), b"in parts");
    frame[20] |= 0x20; // more of them
    assert_eq!(send(&mut one, 1, &frame).0, Fate::Drop(Reason::Fragment));
}

/// An error that says that a port is not there, in answer to a packet, which it quotes.
fn unreachable(from: End, to: End, about: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    let about = &about[14..];
    match from.address.is_ipv4() {
        true => builder(from, to).icmpv4_raw(3, 3, [0; 4]).write(&mut frame, about).unwrap(),
        false => builder(from, to).icmpv6_raw(1, 4, [0; 4]).write(&mut frame, about).unwrap(),
    }
    frame
}

#[test]
fn an_error_passes_a_policy_to_who_sent_what_it_quotes_and_to_nobody_else() {
    for end in [end, end6] {
        let [mut one, mut two] = nodes();
        let (client, server) = (end(1, 5_000), end(3, 80));
        let asks = udp(client, server, b"?");
        let error = unreachable(server, client, &asks);
        assert_eq!(cross((&mut two, 3), &mut one, &error), Err(Reason::Policy), "nobody has asked yet");
        assert!(cross((&mut one, 1), &mut two, &asks).is_ok());
        assert!(cross((&mut two, 3), &mut one, &error).is_ok());
        // 1 may say nothing to 4, whatever flows it has; nor 2 to 1.
        assert_eq!(cross((&mut one, 1), &mut two, &unreachable(client, end(4, 9), &asks)), Err(Reason::Policy));
        let answers = udp(server, client, b"!");
        assert_eq!(cross((&mut one, 1), &mut two, &unreachable(client, end(4, 9), &answers)), Err(Reason::Policy));
        assert_eq!(send(&mut one, 2, &unreachable(end(2, 9), client, &answers)).0, Fate::Drop(Reason::Policy));
    }
}
