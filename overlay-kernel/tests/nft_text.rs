//! Tables as people read them. That `nft` reads them so too is tried in the tests on a kernel.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::Ipv4Addr;

use overlay_core::{Owner, Refusal};
use overlay_kernel::nft::{
    Base, Chain, CtState, EtherType, Family, Hook, IpProtocol, NatFlags, Rule, Set, State, Table, TableKey, Verdict,
    arp, ether, ip, meta, th,
};

#[test]
fn a_table_is_written_as_people_know_it() {
    let state = State { tables: [(TableKey::new(Family::Inet, "fw".parse().unwrap()), host().unwrap())].into() };
    let owner = Owner::new("prod".parse().unwrap(), "node-1".parse().unwrap());
    let expected = [
        "table inet ov-TAG-fw {",
        "\tcomment \"prod/node-1\"",
        "\tchain web {",
        "\t}",
        "\tmap published {",
        "\t\ttype inet_proto . inet_service : ipv4_addr . inet_service",
        "\t\telements = { tcp . 8080 : 10.0.9.2 . 80,",
        "\t\t\t     udp . 53 : 10.0.9.3 . 53 }",
        "\t}",
        "\tmap services {",
        "\t\ttype ipv4_addr : verdict",
        "\t\tflags interval",
        "\t\telements = { 10.0.9.2-10.0.9.9 : jump web,",
        "\t\t\t     10.0.9.10 : drop }",
        "\t}",
        "\tchain forward {",
        "\t\ttype filter hook forward priority 0; policy drop;",
        "\t\tct state established,related accept comment \"replies\"",
        "\t\tmeta nfproto ipv4 ip daddr vmap @services comment \"services\"",
        "\t\toifname \"p-*\" drop comment \"ours\"",
        "\t}",
        "\tchain post {",
        "\t\ttype nat hook postrouting priority 100; policy accept;",
        "\t\tmeta nfproto ipv4 ip saddr 10.0.9.0/24 ip daddr != 10.0.0.0/9 masquerade fully-random comment \"egress\"",
        "\t}",
        "\tchain pre {",
        "\t\ttype nat hook prerouting priority -100; policy accept;",
        "\t\tmeta nfproto ipv4 dnat ip addr . port to meta l4proto . th dport map @published comment \"published\"",
        "\t}",
        "\tchain web {",
        "\t\tmeta l4proto tcp th dport 80-90 counter accept comment \"web\"",
        "\t}",
        "}",
        "",
    ];
    assert_eq!(state.to_nft(&owner), expected.join("\n").replace("TAG", &format!("{:016x}", owner.tag())));
}

fn host() -> Result<Table, Refusal> {
    let v4 = |last| Ipv4Addr::new(10, 0, 9, last);
    let [web, services, published] = ["web", "services", "published"].map(|name| name.parse().unwrap());
    let mut table = Table::default();
    let pairs = [((IpProtocol::TCP, 8080_u16), (v4(2), 80_u16)), ((IpProtocol::UDP, 53), (v4(3), 53))];
    table.sets.insert("published".parse().unwrap(), Set::map(pairs));
    let verdicts = [(v4(2)..=v4(9), Verdict::Jump("web".parse().unwrap())), (v4(10)..=v4(10), Verdict::Drop)];
    table.sets.insert(services, Set::range_verdicts(verdicts));
    let ports = Rule::new("web")?.eq(&meta::L4PROTO, IpProtocol::TCP).within(&th::DPORT, 80, 90).counter().accept();
    table.chains.insert(web, Chain::regular(vec![ports]));
    let ipv4 = |id: &str| Rule::new(id).map(|rule| rule.family(overlay_core::IpFamily::V4));
    let rules = vec![
        Rule::new("replies")?.ct_state(CtState::ESTABLISHED | CtState::RELATED).accept(),
        ipv4("services")?.verdict_by(&ip::DADDR, &"services".parse().unwrap()),
        Rule::new("ours")?.begins(&meta::OIFNAME, "p-".parse().unwrap()).drop(),
    ];
    table.chains.insert("forward".parse().unwrap(), Chain::base(Base::filter(Hook::Forward, 0).or_drop(), rules));
    let key = (meta::L4PROTO, th::DPORT);
    let rules = vec![ipv4("published")?.dnat_by::<(Ipv4Addr, u16), _>(&key, &published)];
    table.chains.insert("pre".parse().unwrap(), Chain::base(Base::nat(Hook::Prerouting, Base::DSTNAT), rules));
    let random = NatFlags { fully_random: true, ..NatFlags::default() };
    let egress = ipv4("egress")?.from("10.0.9.0/24".parse().unwrap()).not_to("10.0.0.0/9".parse().unwrap());
    let post = Chain::base(Base::nat(Hook::Postrouting, Base::SRCNAT), vec![egress.masquerade(random)]);
    table.chains.insert("post".parse().unwrap(), post);
    Ok(table)
}

#[test]
fn a_field_is_named_only_where_the_rule_has_said_which_header_it_is_in() {
    let mut table = Table::default();
    let said = Rule::new("said").unwrap().eq(&meta::PROTOCOL, EtherType::ARP).eq(&arp::SADDR_IP, [10, 0, 9, 2].into());
    let silent = Rule::new("silent").unwrap().eq(&arp::SADDR_IP, [10, 0, 9, 2].into());
    let mac = overlay_core::Mac::new([2, 0x42, 0, 0, 0, 1]);
    let link = Rule::new("link").unwrap().ne(&ether::SADDR, mac).drop();
    table.chains.insert("c".parse().unwrap(), Chain::regular(vec![said.drop(), silent.drop(), link]));
    let state = State { tables: [(TableKey::new(Family::Bridge, "fw".parse().unwrap()), table)].into() };
    let text = state.to_nft(&Owner::new("a".parse().unwrap(), "b".parse().unwrap()));
    assert!(text.contains("\t\tmeta protocol arp arp saddr ip 10.0.9.2 drop comment \"said\"\n"), "{text}");
    assert!(text.contains("\t\t@nh,112,32 0xa000902 drop comment \"silent\"\n"), "{text}");
    assert!(text.contains("\t\tether saddr != 02:42:00:00:00:01 drop comment \"link\"\n"), "{text}");
}
