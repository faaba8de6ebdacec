//! Tables in the kernel.

use std::net::{Ipv4Addr, Ipv6Addr};

use overlay_core::testing::{Kernel, kernel_test};
use overlay_core::{Backend, ErrorKind, IpFamily, Name, Owner, Shadow, reconcile};
use overlay_kernel::Namespace;
use overlay_kernel::nft::{
    Base, Chain, CtDirection, CtState, Family, Field, Hook, IpProtocol, Limit, Log, LogTo, Mark, NatFlags, Nft, Reject,
    Rule, Set, State, Table, TableKey, Unreachable, Verdict, ct, fib, ip, ip6, jhash, meta, numgen_increment,
    numgen_random, symhash, th,
};
use overlay_kernel::testing::judge;

pub(crate) fn open(instance: &str, home: &Namespace) -> Nft {
    Nft::open(&owner(instance), home).unwrap()
}

pub(crate) fn owner(instance: &str) -> Owner {
    Owner::new("nft-test".parse().unwrap(), instance.parse().unwrap())
}

pub(crate) fn name(text: &str) -> Name {
    text.parse().unwrap()
}

pub(crate) fn rule(id: &str) -> Rule {
    Rule::new(id).unwrap()
}

pub(crate) fn v4(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 9, last)
}

pub(crate) fn v6(last: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last)
}

pub(crate) fn one(family: Family, table: Table) -> State {
    State { tables: [(TableKey::new(family, name("fw")), table)].into() }
}

/// A table with one of everything that an `inet` table can hold.
pub(crate) fn everything() -> Table {
    let mut table = Table::default();
    table.sets.insert(name("members"), Set::of([v4(2), v4(3)]));
    table.sets.insert(name("members6"), Set::of([v6(2)]));
    table.sets.insert(
        name("nets"),
        Set::ranges([
            v4(8)..=v4(15),
            v4(16)..=v4(31),
            v4(40)..=v4(40),
            Ipv4Addr::new(255, 255, 0, 0)..=Ipv4Addr::BROADCAST,
        ]),
    );
    table.sets.insert(
        name("ports"),
        Set::range_verdicts([(80_u16..=90, Verdict::Jump(name("web"))), (100..=100, Verdict::Drop)]),
    );
    table.sets.insert(name("pairs"), Set::ranges([(v4(1), 80_u16)..=(v4(9), 90), (v4(20), 1)..=(v4(20), 65535)]));
    table.sets.insert(
        name("lb"),
        Set::map([
            ((v4(100), IpProtocol::TCP, 80_u16, Mark(0)), (v4(2), 8080_u16)),
            ((v4(100), IpProtocol::TCP, 80, Mark(1)), (v4(3), 8080)),
        ]),
    );
    table.sets.insert(name("lb6"), Set::map([((v6(100), 80_u16), (v6(2), 8080_u16))]));
    table.sets.insert(
        name("nics"),
        Set::verdicts([
            ("eth0".parse::<overlay_core::IfName>().unwrap(), Verdict::Accept),
            ("br-0".parse().unwrap(), Verdict::Goto(name("web"))),
        ]),
    );
    table.sets.insert(name("marks"), Set::map([(80_u16, Mark(7))]));
    table.sets.insert(name("stays"), Set::filled::<(Ipv4Addr, Ipv4Addr), Ipv4Addr>());
    table.sets.insert(name("stays6"), Set::filled::<(Ipv6Addr, Ipv6Addr, IpProtocol, u16), (Ipv6Addr, u16)>());
    let web = vec![rule("web").counter().verdict(Verdict::Return)];
    table.chains.insert(name("web"), Chain::regular(web));
    table.chains.insert(name("forward"), Chain::base(Base::filter(Hook::Forward, 0).or_drop(), filters()));
    table.chains.insert(name("pre"), Chain::base(Base::nat(Hook::Prerouting, Base::DSTNAT), translations()));
    let post = vec![
        rule("snat").eq(&meta::MARK, Mark(1)).snat(
            v6(1).into(),
            None,
            NatFlags { persistent: true, ..NatFlags::default() },
        ),
        rule("masquerade").masquerade(NatFlags { fully_random: true, ..NatFlags::default() }),
    ];
    table.chains.insert(name("post"), Chain::base(Base::nat(Hook::Postrouting, Base::SRCNAT), post));
    let raw = vec![rule("untracked").eq(&meta::IIFNAME, "lo".parse().unwrap()).untracked()];
    table.chains.insert(name("raw"), Chain::base(Base::filter(Hook::Prerouting, Base::RAW), raw));
    table
}

fn filters() -> Vec<Rule> {
    vec![
        rule("replies").ct_state(CtState::ESTABLISHED | CtState::RELATED).accept(),
        rule("invalid").none(&ct::STATE, CtState::NEW).drop(),
        rule("members").family(IpFamily::V4).is_in(&ip::SADDR, &name("members")).counter().accept(),
        rule("members6").family(IpFamily::V6).not_in(&ip6::SADDR, &name("members6")).drop(),
        rule("nets").family(IpFamily::V4).is_in(&ip::DADDR, &name("nets")).accept(),
        rule("pairs").family(IpFamily::V4).is_in(&(ip::DADDR, th::DPORT), &name("pairs")).accept(),
        rule("ports").eq(&meta::L4PROTO, IpProtocol::UDP).verdict_by(&th::DPORT, &name("ports")),
        rule("devices").verdict_by(&meta::IIFNAME, &name("nics")),
        rule("subnet")
            .family(IpFamily::V4)
            .from("10.0.0.0/8".parse().unwrap())
            .not_to("10.0.9.0/28".parse().unwrap())
            .jump(&name("web")),
        rule("subnet6")
            .family(IpFamily::V6)
            .to("fd00::/64".parse().unwrap())
            .not_from("fd00::/62".parse().unwrap())
            .goto(&name("web")),
        rule("range")
            .eq(&meta::L4PROTO, IpProtocol::TCP)
            .within(&th::DPORT, 10, 20)
            .outside(&th::SPORT, 30, 40)
            .accept(),
        rule("mark").within(&meta::MARK, Mark(5), Mark(500)).eq(&meta::MARK.masked(Mark(0xff)), Mark(6)).accept(),
        rule("limit")
            .limit(Limit::packets(10, 20))
            .log(Log { prefix: "fw: ".into(), to: LogTo::Group { group: 3, bytes: 64 } })
            .drop(),
        rule("set-mark").eq(&meta::L4PROTO, IpProtocol::TCP).set_mark_by(&th::DPORT, &name("marks")),
        rule("set-zone").eq(&meta::L4PROTO, IpProtocol::TCP).set_zone_by(&th::DPORT, &name("marks")),
        rule("set-mark-2").set_mark(&Field::value(Mark(9))),
        rule("stays").family(IpFamily::V4).update((&(ip::SADDR, ip::DADDR), &ip::DADDR), &name("stays"), 90),
        rule("stays6").family(IpFamily::V6).update(
            (&(ip6::SADDR, ip6::DADDR, meta::L4PROTO, th::SPORT), &(ip6::DADDR, th::DPORT)),
            &name("stays6"),
            3600,
        ),
        rule("set-ct-mark").set_ct_mark(&meta::MARK),
        rule("ports-of-ours").begins(&meta::OIFNAME, "p-".parse().unwrap()).drop(),
        rule("random").eq(&numgen_random(4), Mark(1)).ne(&symhash(8), Mark(2)).counter(),
        rule("local")
            .eq(&fib::DADDR_TYPE, overlay_kernel::nft::AddressType::LOCAL)
            .eq(&ct::proto_dst(CtDirection::Original), 80)
            .accept(),
        rule("reset").eq(&meta::L4PROTO, IpProtocol::TCP).reject(Reject::TcpReset),
        rule("told").reject(Reject::Unreachable(Unreachable::Prohibited)),
    ]
}

fn translations() -> Vec<Rule> {
    vec![
        rule("lb").family(IpFamily::V4).dnat_by::<(Ipv4Addr, u16), _>(
            &(ip::DADDR, meta::L4PROTO, th::DPORT, jhash(&(ip::SADDR, th::SPORT), 2, 7)),
            &name("lb"),
        ),
        rule("lb-rr")
            .family(IpFamily::V4)
            .dnat_by::<(Ipv4Addr, u16), _>(&(ip::DADDR, meta::L4PROTO, th::DPORT, numgen_increment(2)), &name("lb")),
        rule("lb6")
            .family(IpFamily::V6)
            .eq(&meta::L4PROTO, IpProtocol::TCP)
            .dnat_by::<(Ipv6Addr, u16), _>(&(ip6::DADDR, th::DPORT), &name("lb6")),
        rule("dnat").eq(&meta::L4PROTO, IpProtocol::TCP).dnat(v4(7).into(), Some(80)),
        rule("redirect").eq(&meta::L4PROTO, IpProtocol::UDP).redirect(Some(53)),
    ]
}

#[test]
fn what_is_wanted_of_every_kind_is_what_is_read_back() {
    kernel_test(Kernel::Host, "kernel::nft_what_is_wanted_is_read_back", || {
        let home = Namespace::create().unwrap();
        let before = judge(&home, "nft", &["list", "ruleset"]);
        let mut nft = Shadow::new(open("a", &home));
        let wanted = one(Family::Inet, everything());
        reconcile(&mut nft, &wanted).unwrap();
        let found = open("a", &home).observe().unwrap();
        assert_eq!(found, wanted);
        assert!(reconcile(&mut nft, &wanted).unwrap().is_empty());
        reconcile(&mut nft, &State::default()).unwrap();
        assert_eq!(judge(&home, "nft", &["list", "ruleset"]), before);
    });
}

/// What is in it is no part of the state, and what another set does not vouch for goes.
#[test]
fn a_map_that_rules_fill_is_held_to_a_set_and_otherwise_left_alone() {
    kernel_test(Kernel::Host, "kernel::nft_a_map_that_rules_fill_is_held_to_a_set", || {
        let home = Namespace::create().unwrap();
        judge(&home, "ip", &["link", "set", "lo", "up"]);
        let stays = [1, 3].map(|last| Ipv4Addr::new(127, 0, 0, last)).map(|to| (to, to));
        let (map, vouching) = (name("clients"), name("stays"));
        let mut table = Table::default();
        table.sets.insert(map.clone(), Set::filled::<(Ipv4Addr, Ipv4Addr), Ipv4Addr>());
        table.sets.insert(vouching.clone(), Set::of(stays));
        let fills = rule("fills").family(IpFamily::V4).eq(&meta::L4PROTO, IpProtocol::UDP);
        let fills = fills.update((&(ip::SADDR, ip::DADDR), &ip::DADDR), &map, 60);
        table.chains.insert(name("out"), Chain::base(Base::filter(Hook::Output, 0), vec![fills]));
        let wanted = one(Family::Inet, table);
        let mut nft = Shadow::new(open("a", &home));
        reconcile(&mut nft, &wanted).unwrap();
        let socket = home.run(|| std::net::UdpSocket::bind("127.0.0.1:0")).unwrap().unwrap();
        for last in 1..=4 {
            // Nobody listens, and some of it is told at the next.
            let _ = socket.send_to(b"?", (Ipv4Addr::new(127, 0, 0, last), 9));
            let _ = socket.send_to(b"?", (Ipv4Addr::new(127, 0, 0, last), 9));
        }
        let has = || {
            let listed = judge(&home, "nft", &["list", "ruleset"]);
            (1..=4).filter(|last| listed.contains(&format!("127.0.0.1 . 127.0.0.{last} timeout"))).collect::<Vec<_>>()
        };
        assert_eq!(has(), [1, 2, 3, 4]);
        assert!(reconcile(&mut nft, &wanted).unwrap().is_empty(), "what rules fill is no drift");
        let mut other = open("a", &home);
        assert_eq!(other.observe().unwrap(), wanted);
        let key = TableKey::new(Family::Inet, name("fw"));
        assert_eq!(other.prune(&key, &map, &vouching).unwrap(), 2);
        assert_eq!(has(), [1, 3]);
        assert_eq!(other.prune(&key, &map, &vouching).unwrap(), 0);
        assert_eq!(other.set(&key, &vouching).unwrap(), Some(Set::of(stays)));
        assert_eq!(other.set(&key, &name("nothing")).unwrap(), None);
        assert_eq!(other.set(&TableKey::new(Family::Inet, name("none")), &vouching).unwrap(), None);
        let gone = other.prune(&key, &name("nothing"), &vouching).unwrap_err();
        assert_eq!(gone.kind(), ErrorKind::Gone);
        assert!(reconcile(&mut nft, &wanted).unwrap().is_empty());
        reconcile(&mut nft, &State::default()).unwrap();
    });
}
