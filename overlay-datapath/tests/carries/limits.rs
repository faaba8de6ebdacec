//! What ends: flows, associations, and what fits.

use std::sync::Arc;
use std::time::Duration;

use overlay_core::{Instant, Mtu};
use overlay_crypto::{Direction, Limits, Usage};
use overlay_datapath::{Buffer, Config, Datapath, Fate, Reason, Tables, Wanted};
use overlay_firewall::{Action, BridgePort, PolicyRule, Selector};
use overlay_vxlan::{Peer, Segment, Vtep, names};

use crate::bytes::{End, builder, see, tcp, udp};
use crate::node::{NOW, VNI, cross, datapath, end, end6, endpoint, mac, send, take, vtep, wanted, with};
use crate::policy::guarded;
use crate::sealed::sealed;

fn after(seconds: u64) -> Instant {
    NOW + Duration::from_secs(seconds)
}

fn send_at(datapath: &mut Datapath, from: u8, frame: &[u8], now: Instant) -> Fate {
    let mut batch = [Buffer::new(2_000)];
    batch[0].fill(frame).unwrap();
    datapath.handle_frames(endpoint(from), &mut batch, now);
    batch[0].fate()
}

fn asks(port: u16) -> Vec<u8> {
    udp(end(1, port), end(2, 80), b"?")
}

fn answers(port: u16) -> Vec<u8> {
    udp(end(2, 80), end(1, port), b"!")
}

/// One that follows so many flows.
fn limited(flows: usize, wanted: &Wanted) -> Datapath {
    let mut one = Datapath::new(Config { flows, ..Config::default() }, [7; 32], NOW);
    one.handle_tables(Arc::new(Tables::new(wanted).unwrap()), NOW);
    one.handle_timeout(NOW);
    one
}

#[test]
fn flows_are_followed_up_to_a_limit_and_forgotten_when_they_are_idle() {
    let mut one = limited(3, &guarded(1));
    for port in 5_000..5_003 {
        assert_eq!(send_at(&mut one, 1, &asks(port), after(1)), Fate::Port(endpoint(2)));
        assert_eq!(send_at(&mut one, 2, &answers(port), after(1)), Fate::Port(endpoint(1)));
    }
    for _ in 0..2 {
        assert_eq!(send_at(&mut one, 1, &asks(5_003), after(2)), Fate::Drop(Reason::Full));
        assert_eq!(send_at(&mut one, 1, &asks(5_000), after(2)), Fate::Port(endpoint(2)), "those that are known go on");
    }
    assert_eq!((one.flows(), one.counts().dropped(Reason::Full), one.counts().displaced), (3, 2, 0));
    // One was heard of at 200 s: the others make room at 301 s.
    assert_eq!(send_at(&mut one, 1, &asks(5_001), after(200)), Fate::Port(endpoint(2)));
    assert_eq!(send_at(&mut one, 1, &asks(5_003), after(303)), Fate::Port(endpoint(2)));
    assert_eq!(one.flows(), 2);
    let at = one.poll_timeout().unwrap();
    assert!(at > after(303) && at < after(400));
    one.handle_timeout(after(1_000));
    assert_eq!((one.flows(), one.poll_timeout()), (0, None));
}

/// 2 may ask 3 too.
fn talkative() -> Wanted {
    with(guarded(1), |sandbox| {
        let of = |number: &str| Selector::labels([("is", number)]);
        sandbox.firewall.policy.rules.insert("two-asks-3".parse().unwrap(), PolicyRule::allow(of("2"), of("3")));
    })
}

#[test]
fn an_endpoint_that_begins_any_number_of_flows_takes_nobody_elses() {
    let (mut one, mut two) = (limited(8, &talkative()), datapath(&wanted(2)));
    let flood = |one: &mut Datapath, ports: std::ops::Range<u16>| {
        for port in ports {
            assert_eq!(send_at(one, 1, &asks(port), NOW), Fate::Port(endpoint(2)));
        }
    };
    flood(&mut one, 5_000..5_100);
    assert_eq!((one.flows(), one.counts().displaced), (8, 92));
    // Another has its flows and their answers, whatever goes on beside them.
    let (asks, answers) = (udp(end(2, 9), end(3, 80), b"?"), udp(end(3, 80), end(2, 9), b"!"));
    assert!(cross((&mut one, 2), &mut two, &asks).is_ok());
    for round in 0..3 {
        flood(&mut one, 6_000 + round * 100..6_100 + round * 100);
        assert_eq!(cross((&mut two, 3), &mut one, &answers).map(|(to, _)| to), Ok(endpoint(2)));
    }
    assert_eq!((one.flows(), one.counts().dropped(Reason::Full)), (8, 0));
}

#[test]
fn who_has_the_answers_to_all_its_flows_gives_up_some_for_who_has_few() {
    let mut one = limited(8, &talkative());
    for port in 5_000..5_008 {
        assert_eq!(send_at(&mut one, 1, &asks(port), NOW), Fate::Port(endpoint(2)));
        assert_eq!(send_at(&mut one, 2, &answers(port), NOW), Fate::Port(endpoint(1)));
    }
    for port in 5_000..5_006 {
        let fate = send_at(&mut one, 2, &udp(end(2, port), end(3, 80), b"?"), NOW);
        assert_eq!(fate, Fate::Underlay { from: vtep(1), to: vtep(2) });
    }
    assert_eq!((one.flows(), one.counts().displaced), (8, 6));
    // Each has four: of the first, those that were answered last.
    let kept = |one: &mut Datapath, port| send_at(one, 2, &answers(port), NOW) == Fate::Port(endpoint(1));
    let all: Vec<u16> = (5_000..5_008).filter(|port| kept(&mut one, *port)).collect();
    assert_eq!(all, [5_004, 5_005, 5_006, 5_007]);
}

/// All may ask all, and answers are told from questions.
fn open() -> Wanted {
    with(guarded(1), |sandbox| {
        sandbox.firewall.policy.otherwise = Action::Allow;
        let of = |number: &str| Selector::labels([("is", number)]);
        sandbox.firewall.policy.rules.insert("not-4".parse().unwrap(), PolicyRule::deny(of("4"), of("1")));
    })
}

/// The other node, which holds its endpoints to nothing.
fn taken_over() -> Wanted {
    with(wanted(2), |sandbox| {
        sandbox.firewall.ports.values_mut().for_each(|port| *port = BridgePort::Trunk);
    })
}

#[test]
fn who_sends_from_elsewhere_in_any_name_denies_nothing_to_who_is_here() {
    let (mut one, mut two) = (limited(2_048, &open()), datapath(&taken_over()));
    for number in 0..5_000_u16 {
        let [high, low] = number.to_be_bytes();
        let stranger = End { mac: mac(3), address: [10, 9, high, low].into(), port: 5_000 };
        let (fate, packet) = send(&mut two, 3, &udp(stranger, end(1, 80), b"?"));
        assert_eq!(fate, Fate::Underlay { from: vtep(2), to: vtep(1) });
        assert_eq!(take(&mut one, &packet).0, Fate::Port(endpoint(1)));
        if number % 250 == 0 {
            assert_eq!(send(&mut one, 2, &udp(end(2, number), end(1, 80), b"?")).0, Fate::Port(endpoint(1)));
        }
    }
    assert_eq!((one.flows(), one.counts().displaced), (2_048, 5_020 - 2_048));
    for number in (0..5_000).step_by(250) {
        assert_eq!(send(&mut one, 1, &udp(end(1, 80), end(2, number), b"!")).0, Fate::Port(endpoint(2)));
    }
    // Each was answered in a flow that was there, as none began.
    assert_eq!(one.counts().displaced, 5_020 - 2_048);
}

#[test]
fn a_connection_lasts_for_two_hours_and_one_that_was_closed_for_four_minutes() {
    let (client, server) = (end(1, 5_000), end(2, 80));
    for closes in [false, true] {
        let mut one = datapath(&guarded(1));
        assert_eq!(send_at(&mut one, 1, &tcp(client, server, true), NOW), Fate::Port(endpoint(2)));
        assert_eq!(send_at(&mut one, 2, &tcp(server, client, false), NOW), Fate::Port(endpoint(1)));
        if closes {
            let mut frame = Vec::new();
            builder(client, server).tcp(5_000, 80, 1, 1_000).ack(1).fin().write(&mut frame, b"bye").unwrap();
            assert_eq!(send_at(&mut one, 1, &frame, NOW), Fate::Port(endpoint(2)));
        }
        let late = tcp(server, client, false);
        assert_eq!(send_at(&mut one, 2, &late, after(239)), Fate::Port(endpoint(1)));
        let then = send_at(&mut one, 2, &late, after(239 + 241));
        assert_eq!(then, if closes { Fate::Drop(Reason::Policy) } else { Fate::Port(endpoint(1)) });
        one.handle_timeout(after(600));
        assert_eq!(one.flows(), usize::from(!closes));
        one.handle_timeout(after(480 + 7_440));
        assert_eq!(one.flows(), 0);
    }
}

/// The same associations, which end at this much.
fn ending(wanted: &Wanted, hard: Usage) -> Wanted {
    let mut changed = wanted.clone();
    let mut crypto = overlay_crypto::State { ports: wanted.crypto.ports.clone(), ..overlay_crypto::State::default() };
    for (id, sa) in &wanted.crypto.sas {
        let soft = Usage { bytes: hard.bytes - 1, packets: hard.packets - 1 };
        let limits = (sa.direction == Direction::Out).then_some(Limits { soft, hard });
        crypto.add(*id, overlay_crypto::Sa { limits, ..sa.clone() }).unwrap();
    }
    crypto.tunnels = wanted.crypto.tunnels.clone();
    changed.crypto = crypto;
    changed
}

#[test]
fn an_association_seals_up_to_its_hard_limit_and_tells_how_much_that_was() {
    let all = sealed(1, false);
    let frame = udp(end(1, 5_000), end(3, 53), b"hello");
    let most = |packets, bytes| ending(&all, Usage { packets, bytes });
    let mut one = datapath(&most(3, Usage::MOST.bytes));
    assert_eq!(one.usage().into_values().collect::<Vec<_>>(), [Usage { bytes: 0, packets: 0 }]);
    for _ in 0..3 {
        assert!(matches!(send(&mut one, 1, &frame).0, Fate::Underlay { .. }));
    }
    assert_eq!(send(&mut one, 1, &frame).0, Fate::Drop(Reason::NoAssociation));
    let used = one.usage().into_values().next().unwrap();
    assert_eq!((used.packets, one.counts().sealed), (3, 3));
    let payload = 8 + 8 + frame.len() as u64; // what it is of UDP and VXLAN
    assert!((3 * payload..3 * (payload + 8)).contains(&used.bytes), "{used:?}");
    // Of another limit, the same association goes on where it was.
    one.handle_tables(Arc::new(Tables::new(&most(Usage::MOST.packets, used.bytes + 1)).unwrap()), NOW);
    assert!(matches!(send(&mut one, 1, &frame).0, Fate::Underlay { .. }));
    assert_eq!(send(&mut one, 1, &frame).0, Fate::Drop(Reason::NoAssociation), "by bytes");
    assert_eq!(one.usage().into_values().next().unwrap().packets, 4);
    assert_eq!(one.lacking().count(), 0);
}

/// A network of two segments, of which the other takes shorter packets.
fn uneven() -> Wanted {
    with(wanted(1), |sandbox| {
        let mut other = Segment::new(Vtep::new(vtep(1)), Mtu::new(1_300).unwrap());
        other.gateways.extend(["10.0.8.254/24", "fd00:8::254/64"].map(|net| net.parse::<ipnet::IpNet>().unwrap()));
        let there = [[10, 0, 8, 11].into(), [0xfd00, 8, 0, 0, 0, 0, 0, 11].into()];
        other.peers.insert(mac(11), Peer { vtep: vtep(2), addresses: there.into() });
        sandbox.vxlan.segments.insert((VNI + 1).try_into().unwrap(), other);
        let own = sandbox.vxlan.segments.get_mut(&VNI.try_into().unwrap()).unwrap();
        own.gateways.insert("fd00:9::254/64".parse().unwrap());
    })
}

#[test]
fn what_is_routed_has_to_fit_both_segments_and_its_sender_is_told_what_does() {
    let mut one = datapath(&uneven());
    let gateway = names::gateway_mac(VNI.try_into().unwrap());
    let far = [[10, 0, 8, 11].into(), [0xfd00, 8, 0, 0, 0, 0, 0, 11].into()];
    for (from, to) in [end(1, 5_000), end6(1, 5_000)].into_iter().zip(far) {
        let to = End { mac: gateway, address: to, port: 53 };
        let near = if from.address.is_ipv4() { end(3, 53) } else { end6(3, 53) };
        let headers = if from.address.is_ipv4() { 28 } else { 48 };
        let sized = |to: End, size: usize| {
            let mut frame = udp(from, to, &vec![7; size - headers]);
            if from.address.is_ipv4() {
                let before = u32::from(u16::from_be_bytes([frame[24], frame[25]]));
                let already = frame[20] & 0x40 != 0;
                frame[20] |= 0x40; // DF
                let sum = if already { before } else { (before + 0xffff - 0x4000) % 0xffff };
                frame[24..26].copy_from_slice(&(sum as u16).to_be_bytes());
            }
            frame
        };
        let fate = send(&mut one, 1, &sized(to, 1_300)).0;
        assert_eq!(fate, Fate::Underlay { from: vtep(1), to: vtep(2) }, "{to:?}");
        assert!(matches!(send(&mut one, 1, &sized(near, 1_450)).0, Fate::Underlay { .. }));
        for (to, size, fits) in [(to, 1_301, 1_300_u16), (to, 1_450, 1_300), (near, 1_451, 1_450)] {
            let (fate, answer) = send(&mut one, 1, &sized(to, size));
            assert_eq!(fate, Fate::Port(endpoint(1)));
            see(&answer); // its checksums are right
            let told = if from.address.is_ipv4() { &answer[40..42] } else { &answer[60..62] };
            assert_eq!(told, fits.to_be_bytes(), "{size} to {}", to.address);
        }
    }
}

#[test]
fn no_more_errors_are_told_than_are_allowed() {
    let rate = overlay_datapath::Rate { per_second: 10, burst: 2 };
    let mut one = Datapath::new(Config { errors: rate, ..Config::default() }, [7; 32], NOW);
    one.handle_tables(Arc::new(Tables::new(&wanted(1)).unwrap()), NOW);
    let frame = udp(end6(1, 5_000), end6(3, 53), &[0; 1_450]);
    let mut tell = |now| send_at(&mut one, 1, &frame, now) == Fate::Port(endpoint(1));
    let told =
        [NOW, NOW, NOW, NOW + Duration::from_millis(100), NOW + Duration::from_millis(101), after(9)].map(&mut tell);
    assert_eq!(told, [true, true, false, true, false, true]);
    assert_eq!(one.counts().dropped(Reason::TooBig), 2);
}

#[test]
fn what_one_node_sends_in_a_larger_segment_than_the_others_is_not_handed_over() {
    let larger = with(wanted(1), |sandbox| {
        sandbox.vxlan.segments.values_mut().for_each(|segment| segment.mtu = Mtu::new(1_500).unwrap());
    });
    let (mut one, mut two) = (datapath(&larger), datapath(&wanted(2)));
    for (size, arrives) in [(1_450, true), (1_451, false), (1_500, false)] {
        let (fate, packet) = send(&mut one, 1, &udp(end(1, 5_000), end(3, 53), &vec![0; size - 28]));
        assert!(matches!(fate, Fate::Underlay { .. }));
        let fate = take(&mut two, &packet).0;
        assert_eq!(fate, if arrives { Fate::Port(endpoint(3)) } else { Fate::Drop(Reason::TooBig) }, "{size}");
    }
}
