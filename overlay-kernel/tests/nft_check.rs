//! Tables that no kernel could hold as they stand are refused by name, and by a word that helps.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::{Ipv4Addr, Ipv6Addr};

use overlay_core::{Name, State as _};
use overlay_kernel::nft::{
    Base, Chain, CtState, Family, Hook, IpProtocol, Limit, Log, LogTo, Mark, NatFlags, Reject, Rule, Set, State, Table,
    TableKey, Unreachable, Verdict, ct, fib, ip, ip6, jhash, meta, numgen_random, th,
};

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn rule() -> Rule {
    Rule::new("it").unwrap()
}

fn v4(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 9, last)
}

fn table(family: Family, table: Table) -> State {
    State { tables: [(TableKey::new(family, name("fw")), table)].into() }
}

fn chain(family: Family, base: Base, rule: Rule) -> State {
    table(family, Table { chains: [(name("c"), Chain::base(base, vec![rule]))].into(), ..Table::default() })
}

fn set(set: Set) -> State {
    table(Family::Inet, Table { sets: [(name("s"), set)].into(), ..Table::default() })
}

fn forward() -> Base {
    Base::filter(Hook::Forward, 0)
}

fn refusal(state: &State) -> String {
    state.check().unwrap_err().to_string()
}

#[test]
fn rules_fill_only_what_is_there_for_them_to_fill_and_for_a_time() {
    type Client = (Ipv4Addr, Ipv4Addr);
    let fills = |seconds, set: Set| {
        let rule = rule().update((&(ip::SADDR, ip::DADDR), &ip::DADDR), &name("s"), seconds);
        let chains = [(name("c"), Chain::base(forward(), vec![rule]))].into();
        table(Family::Ip, Table { chains, sets: [(name("s"), set)].into(), ..Table::default() })
    };
    assert_eq!(fills(60, Set::filled::<Client, Ipv4Addr>()).check(), Ok(()));
    for (seconds, set, word) in [
        (0, Set::filled::<Client, Ipv4Addr>(), "a time of 0 s"),
        (50 * 24 * 3600, Set::filled::<Client, Ipv4Addr>(), "up to 49 days"),
        (60, Set::filled::<Client, u16>(), "of other types"),
        (60, Set::map([((v4(1), v4(2)), v4(3))]), "of other types"),
    ] {
        let refused = refusal(&fills(seconds, set));
        assert!(refused.contains(word), "{refused}");
    }
    let wide = (ip6::SADDR, ip6::DADDR, ip6::SADDR);
    let rule = rule().update((&wide, &(ip6::DADDR, th::DPORT)), &name("s"), 60);
    let set = Set::filled::<(Ipv6Addr, Ipv6Addr, Ipv6Addr), (Ipv6Addr, u16)>();
    let chains = [(name("c"), Chain::base(forward(), vec![rule]))].into();
    let refused = refusal(&table(Family::Ip6, Table { chains, sets: [(name("s"), set)].into(), ..Table::default() }));
    assert!(refused.contains("64 bytes at most"), "{refused}");
}

#[test]
fn a_map_is_asked_for_what_it_gives_and_not_for_its_keys_alone() {
    let asks = |rule: Rule, set: Set| {
        let chains = [(name("c"), Chain::base(forward(), vec![rule]))].into();
        table(Family::Inet, Table { chains, sets: [(name("s"), set)].into(), ..Table::default() })
    };
    let marks = || Set::map([(80_u16, Mark(1))]);
    for map in [marks(), Set::verdicts([(80_u16, Verdict::Drop)])] {
        for rule in [rule().is_in(&th::DPORT, &name("s")), rule().not_in(&th::DPORT, &name("s"))] {
            let refused = refusal(&asks(rule, map.clone()));
            assert!(refused.contains("set s") && refused.contains("for its keys alone"), "{refused}");
        }
    }
    assert_eq!(asks(rule().is_in(&th::DPORT, &name("s")), Set::of([80_u16])).check(), Ok(()));
    assert_eq!(asks(rule().set_mark_by(&th::DPORT, &name("s")), marks()).check(), Ok(()));
}

#[test]
fn what_a_family_or_a_hook_cannot_do_is_refused() {
    let post = Base::nat(Hook::Postrouting, Base::SRCNAT);
    let pre = Base::nat(Hook::Prerouting, Base::DSTNAT);
    let ingress = Base::ingress(["eth0".parse().unwrap()].into(), 0);
    let refused = [
        chain(Family::Bridge, Base::nat(Hook::Prerouting, 0), rule()),
        chain(Family::Inet, Base::nat(Hook::Forward, 0), rule()),
        chain(Family::Inet, pre.clone().or_drop(), rule()),
        chain(Family::Inet, Base::nat(Hook::Prerouting, -300), rule()),
        chain(Family::Inet, Base::ingress(["eth0".parse().unwrap()].into(), 0), rule()),
        chain(Family::Netdev, forward(), rule()),
        chain(Family::Netdev, Base::ingress([].into(), 0), rule()),
        chain(Family::Inet, forward(), rule().masquerade(NatFlags::default())),
        chain(Family::Inet, pre.clone(), rule().masquerade(NatFlags::default())),
        chain(Family::Inet, post.clone(), rule().dnat(v4(1).into(), None)),
        chain(Family::Ip6, pre, rule().dnat(v4(1).into(), None)),
        chain(Family::Inet, post.clone(), rule().redirect(None)),
        chain(Family::Inet, post, rule().reject(Reject::TcpReset)),
        chain(Family::Ip, forward(), rule().reject(Reject::Unreachable(Unreachable::Port))),
        chain(Family::Inet, forward(), rule().reject(Reject::Icmp(3))),
        chain(Family::Ip, forward(), rule().reject(Reject::Icmp(4))),
        chain(Family::Bridge, forward(), rule().reject(Reject::TcpReset)),
        chain(Family::Netdev, ingress.clone(), rule().ct_state(CtState::NEW)),
        chain(Family::Netdev, ingress, rule().untracked()),
        chain(Family::Bridge, forward(), rule().eq(&fib::DADDR_TYPE, overlay_kernel::nft::AddressType::LOCAL)),
        chain(Family::Inet, forward(), rule().transparent_proxy(None, 80)),
        chain(Family::Ip, Base::filter(Hook::Prerouting, 0), rule().transparent_proxy(Some(ip6_one()), 80)),
    ];
    for state in &refused {
        assert!(state.check().is_err(), "{state:?}");
    }
}

fn ip6_one() -> std::net::IpAddr {
    Ipv6Addr::LOCALHOST.into()
}

#[test]
fn what_the_kernel_would_take_for_something_else_is_refused() {
    let note = |prefix: &str, to| rule().log(Log { prefix: prefix.into(), to });
    let refused = [
        rule().limit(Limit::packets(0, 5)),
        rule().limit(Limit::packets(5, 0)),
        rule().eq(&numgen_random(0), Mark(0)),
        rule().eq(&jhash(&ip::SADDR, 0, 1), Mark(0)),
        rule().eq(&jhash(&(ip6::SADDR, ip6::DADDR, ip6::SADDR, ip6::DADDR), 4, 1), Mark(0)),
        note("say \"it\"", LogTo::Kernel(4)),
        note(&"x".repeat(128), LogTo::Kernel(4)),
        note("x", LogTo::Kernel(8)),
        rule().accept().drop(),
        rule().reject(Reject::TcpReset).counter(),
    ];
    for one in refused {
        let state = chain(Family::Inet, forward(), one);
        assert!(refusal(&state).starts_with("rule \"it\" of chain inet fw c"), "{}", refusal(&state));
    }
    for id in ["", "say \"it\"", "back\\slash", "line\nbreak", "ünïcode", &"x".repeat(121)] {
        assert!(Rule::new(id).is_err(), "{id:?}");
    }
}

#[test]
fn a_rule_that_leads_nowhere_or_takes_a_set_for_another_is_refused() {
    let with = |set: Set, one: Rule| {
        let chains = [(name("c"), Chain::base(forward(), vec![one]))].into();
        table(Family::Inet, Table { chains, sets: [(name("s"), set)].into(), ..Table::default() })
    };
    let s = name("s");
    let addresses = || Set::of([v4(1)]);
    assert_eq!(with(addresses(), rule().is_in(&ip::SADDR, &s)).check(), Ok(()));
    let refused = [
        with(addresses(), rule().is_in(&ip::SADDR, &name("t"))),
        with(addresses(), rule().is_in(&th::DPORT, &s)),
        with(addresses(), rule().is_in(&meta::MARK, &s)), // as long, but no address
        with(addresses(), rule().is_in(&(ip::SADDR, th::DPORT), &s)),
        with(addresses(), rule().verdict_by(&ip::SADDR, &s)),
        with(addresses(), rule().set_mark_by(&ip::SADDR, &s)),
        with(Set::map([(v4(1), 80_u16)]), rule().set_mark_by(&ip::SADDR, &s)),
        with(Set::verdicts([(v4(1), Verdict::Jump(name("nowhere")))]), rule()),
        with(Set::verdicts([(v4(1), Verdict::Goto(name("c")))]), rule()), // a base chain
        with(addresses(), rule().jump(&name("nowhere"))),
    ];
    for state in &refused {
        assert!(state.check().is_err(), "{state:?}");
    }
}

#[test]
fn sets_that_overlap_or_go_backward_are_refused() {
    let refused = [
        Set::ranges([v4(9)..=v4(1)]),
        Set::ranges([v4(1)..=v4(9), v4(9)..=v4(20)]),
        Set::ranges([(v4(1), 80_u16)..=(v4(9), 79)]),
        Set::ranges([(v4(1), 80_u16)..=(v4(9), 90), (v4(5), 85)..=(v4(20), 85)]),
        Set::ranges([Mark(1)..=Mark(2)]),
    ];
    for one in refused {
        assert!(refusal(&set(one)).starts_with("set inet fw s: "));
    }
    let allowed = [
        Set::ranges([v4(1)..=v4(9), v4(10)..=v4(20)]),
        Set::ranges([(v4(1), 80_u16)..=(v4(9), 90), (v4(5), 91)..=(v4(20), 95)]),
        Set::ranges([Ipv4Addr::UNSPECIFIED..=Ipv4Addr::BROADCAST]),
    ];
    for one in allowed {
        assert_eq!(set(one).check(), Ok(()));
    }
}

#[test]
fn chains_that_lead_back_or_too_deep_are_refused_and_so_is_what_a_hook_forbids_behind_a_jump() {
    let deep = |count: usize, back: bool| {
        let mut table = Table::default();
        for number in 0..count {
            let next = if number + 1 < count { Some(number + 1) } else { back.then_some(0) };
            let rules = next.map(|next| rule().jump(&name(&format!("c{next}"))));
            table.chains.insert(name(&format!("c{number}")), Chain::regular(rules.into_iter().collect()));
        }
        self::table(Family::Inet, table)
    };
    assert_eq!(deep(16, false).check(), Ok(()));
    assert!(refusal(&deep(17, false)).contains("15 jumps"));
    assert!(refusal(&deep(3, true)).contains("leads back to itself"));

    let mut table = Table::default();
    let reset = rule().eq(&meta::L4PROTO, IpProtocol::TCP).reject(Reject::TcpReset);
    table.chains.insert(name("reset"), Chain::regular(vec![reset]));
    let jump = rule().any(&ct::STATE, CtState::INVALID).jump(&name("reset"));
    table.chains.insert(name("c"), Chain::base(Base::filter(Hook::Postrouting, 0), vec![jump]));
    let refused = refusal(&self::table(Family::Inet, table));
    assert!(refused.starts_with("rule \"it\" of chain inet fw reset, reached from c: a rejection"), "{refused}");
}

#[test]
fn names_that_nft_cannot_read_back_and_what_is_only_observed_are_refused() {
    let digit = State { tables: [(TableKey::new(Family::Ip, name("1st")), Table::default())].into() };
    assert_eq!(refusal(&digit), "table ip 1st: 1st: names in nf_tables begin with a letter");
    let strange = Table { strange: ["flags 0x1".into()].into(), ..Table::default() };
    assert!(refusal(&table(Family::Ip, strange)).contains("only observed"));
}
