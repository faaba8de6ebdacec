//! The judge against the list, on packets that are about the rules.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use overlay_core::EndpointId;
use overlay_core::testing::Dice;
use overlay_firewall::testing::{OUTSIDE, judge_by_list, packets, state};
use overlay_firewall::{
    Content, Flow, Frame, Ip, Judge, Member, Mode, Packet, PolicyRule, Rule, Ruling, Selector, State, Transport,
};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

/// A rule without the object that it is about.
fn kind(rule: Rule<'_>) -> String {
    let text = rule.to_string();
    let parts: Vec<&str> = text.split('/').collect();
    match parts[..] {
        ["port" | "gateway" | "tunnel", _, what] => format!("{}/{what}", parts[0]),
        ["published", _, what] => format!("published/{what}"),
        ["published", _] => "published".to_owned(),
        ["limit", _] => "limit".to_owned(),
        ["policy", "rule", _] => "policy/rule".to_owned(),
        _ => text,
    }
}

const KINDS: &[&str] = &[
    "esp/members",
    "flow/invalid",
    "flow/known",
    "gateway/between",
    "gateway/egress",
    "gateway/ingress",
    "gateway/internal",
    "gateway/loopback",
    "gateway/route",
    "gateway/source",
    "gateway/within",
    "limit",
    "otherwise",
    "policy/neighbours",
    "policy/otherwise",
    "policy/rule",
    "policy/unbegun",
    "port/arp",
    "port/dhcp",
    "port/ethertype",
    "port/fragment",
    "port/ipv4",
    "port/ipv6",
    "port/isolated",
    "port/mac",
    "port/neighbour",
    "port/router",
    "port/stranger",
    "published",
    "published/local",
    "published/sources",
    "tunnel/cleartext",
    "tunnel/endpoint",
    "tunnel/members",
];

#[test]
fn the_judge_says_what_the_list_says_about_packets_of_every_rule() {
    let counts = RefCell::new(BTreeMap::<String, usize>::new());
    let passed = RefCell::new((0, 0));
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    let result = TestRunner::new(config).run(&(state(), any::<[u8; 32]>()), |(state, seed)| {
        let judge = Judge::new(&state);
        for (packet, flow) in packets(&state, &mut Dice::new(seed)) {
            let verdict = judge.judge(&packet, flow);
            prop_assert_eq!(verdict, judge_by_list(&state, &packet, flow), "{:?} {:?}", packet, flow);
            *counts.borrow_mut().entry(kind(verdict.rule)).or_default() += 1;
            let (pass, all) = &mut *passed.borrow_mut();
            *pass += usize::from(verdict.ruling.passes());
            *all += 1;
        }
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
    let (counts, (pass, all)) = (counts.into_inner(), passed.into_inner());
    println!("{pass} of {all} packets pass: {counts:#?}");
    assert_eq!(counts.keys().map(String::as_str).collect::<BTreeSet<_>>(), KINDS.iter().copied().collect());
    assert!(counts.values().all(|count| *count >= 10), "{counts:#?}");
    assert!((30..=70).contains(&(100 * pass / all)), "{pass} of {all} packets pass");
}

#[test]
fn who_a_tunnels_gate_knows_passes_whatever_else_a_state_has() {
    let known = RefCell::new((0, 0));
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    let result = TestRunner::new(config).run(&(state(), any::<[u8; 32]>()), |(state, seed)| {
        let judge = Judge::new(&state);
        let members = state.tunnels.values().flat_map(|tunnel| tunnel.members.iter().copied());
        let behind = state.gateways.values().flat_map(|gateway| gateway.subnets.iter().map(|subnet| subnet.addr()));
        let sources: Vec<IpAddr> = members.chain(behind).chain(OUTSIDE).collect();
        for (packet, flow) in packets(&state, &mut Dice::new(seed)) {
            let gate = judge.tunnel_gate(&packet);
            let Content::Ip(ip) = packet.content else {
                prop_assert!(sources.iter().all(|source| !gate.knows(*source)));
                continue;
            };
            for source in &sources {
                let Some(ip) = Ip::between(*source, ip.destination(), ip.transport) else { continue };
                let packet = Packet { content: Content::Ip(ip), ..packet };
                let passes = judge.judge(&packet, flow).ruling == Ruling::Accept;
                prop_assert!(passes || !gate.knows(*source), "{:?} {:?}", packet, flow);
                let (knows, all) = &mut *known.borrow_mut();
                let is_members = matches!(judge.judge(&packet, Flow::New).rule, Rule::Otherwise | Rule::Limit(_));
                *knows += usize::from(gate.knows(*source));
                *all += usize::from(is_members && packet.to.is_none() && is_to_tunnel(&state, &ip));
            }
        }
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
    let (knows, all) = known.into_inner();
    println!("{knows} known of {all} that pass at tunnels");
    assert!(knows >= 1_000 && 2 * knows > all, "{knows} known of {all}");
}

fn is_to_tunnel(state: &State, ip: &Ip) -> bool {
    matches!(ip.transport, Transport::Udp { destination, .. } if state.tunnels.keys().any(|port| port.get() == destination))
}

#[test]
fn an_audited_rule_says_what_it_would_do_and_does_nothing() {
    let mut state = State::default();
    for number in 2..4 {
        let member = Member { addresses: [[10, 0, 0, number].into()].into(), ..Member::default() };
        state.policy.members.insert(EndpointId::from_bytes([number; 16]), member);
    }
    let deny = PolicyRule::deny(Selector::everyone(), Selector::everyone());
    let watched = PolicyRule { mode: Mode::Audit, ..deny.clone() };
    state.policy.rules.insert("watched".parse().unwrap(), watched);
    let frame =
        Frame { port: "vx-1".parse().unwrap(), out: Some("p-3".parse().unwrap()), source: overlay_core::Mac::ZERO };
    let ip = Ip::v4([10, 0, 0, 2].into(), [10, 0, 0, 3].into(), Transport::tcp(1, 80));
    let packet = Packet::bridged("br0".parse().unwrap(), frame, Content::Ip(ip));
    let audited = |state: &State, flow| -> (String, Vec<String>) {
        let judge = Judge::new(state);
        let names = judge.audited(&packet, flow).map(ToString::to_string).collect();
        (judge.judge(&packet, flow).to_string(), names)
    };
    let passes = "accept by policy/otherwise".to_owned();
    assert_eq!(audited(&state, Flow::New), (passes, vec!["watched".to_owned()]));
    assert_eq!(audited(&state, Flow::Established), ("accept by flow/known".to_owned(), Vec::new()));
    state.policy.rules.insert("meant".parse().unwrap(), deny);
    assert_eq!(audited(&state, Flow::New), ("drop by policy/rule/meant".to_owned(), Vec::new()), "it was asked before");
}
