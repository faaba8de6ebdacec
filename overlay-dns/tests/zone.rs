//! Zones as values: what they answer, and that only what is left counts.

#![allow(clippy::unwrap_used, reason = "tests, whose helpers clippy does not take for such")]

use std::net::IpAddr;

use overlay_core::{EndpointId, Name, Protocol};
use overlay_dns::testing::{Left, change};
use overlay_dns::{
    Asked, Data, DnsName, Endpoint, Given, Health, Lookup, Mode, Policy, RecordSource as _, RecordTtl, RecordType,
    Service, Srv, Txt, View, Zone,
};
use proptest::prelude::*;

fn label(text: &str) -> Name {
    text.parse().unwrap()
}

fn name(text: &str) -> DnsName {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn zone(network: &str) -> Zone {
    Zone::new(label(network), Policy { subnets: vec!["10.0.9.0/24".parse().unwrap()], ..Policy::default() })
}

fn id(number: u8) -> EndpointId {
    EndpointId::from_bytes([number; 16])
}

fn task(number: u8, service: &str, health: Health) -> Endpoint {
    let mut task = Endpoint::new(id(number), [IpAddr::from([10, 0, 9, number])]);
    task.names.push(name(&format!("{service}.{number}")));
    task.service = Some(label(service));
    task.health = health;
    task
}

/// Where it leads, and its weight if that is not 1.
fn srv(srv: &Srv) -> String {
    let weight = if srv.weight == 1 { String::new() } else { format!(" of {}", srv.weight) };
    format!("{}:{}{weight}", srv.target, srv.port)
}

/// What a view says, as text: the TTL, then the data, sorted.
fn said(view: &View, asked: &str, record_type: RecordType) -> String {
    match view.lookup(&Asked::new(&name(asked), record_type).question()) {
        Lookup::NotOurs => "not ours".into(),
        Lookup::NoName { .. } => "no name".into(),
        Lookup::NoData { .. } => "no data".into(),
        Lookup::Records(records) => {
            let mut data: Vec<String> = match records.data {
                Data::A(all) => all.iter().map(ToString::to_string).collect(),
                Data::Aaaa(all) => all.iter().map(ToString::to_string).collect(),
                Data::Ptr(all) => all.iter().map(ToString::to_string).collect(),
                Data::Srv(all) => all.iter().map(srv).collect(),
                Data::Txt(all) => all.iter().flat_map(Txt::strings).map(|it| it.escape_ascii().to_string()).collect(),
            };
            data.sort();
            format!("{} s: {}", records.ttl.as_secs(), data.join(" "))
        }
    }
}

#[test]
fn a_vip_service_has_its_vips_and_its_tasks_have_their_own() {
    let mut zone = zone("net");
    let mut service = Service::new(label("web"), Mode::Vip([ip("10.0.9.100"), ip("fd00::100")].into()));
    service.aliases.insert(label("www"));
    service.ports.insert((label("http"), Protocol::Tcp), overlay_core::Port::new(8080).unwrap());
    service.texts.insert(Txt::new(["version=7"]).unwrap());
    zone.put_service(service);
    zone.put_endpoint(task(1, "web", Health::Healthy));
    zone.put_endpoint(task(2, "web", Health::Healthy));
    let view = View::from(zone);
    for (asked, record_type, expected) in [
        ("web", RecordType::A, "5 s: 10.0.9.100"),
        ("WWW.Net", RecordType::A, "5 s: 10.0.9.100"),
        ("web", RecordType::AAAA, "5 s: fd00::100"),
        ("web", RecordType::TXT, "5 s: version=7"),
        ("web", RecordType::MX, "no data"),
        ("tasks.web", RecordType::A, "0 s: 10.0.9.1 10.0.9.2"),
        ("tasks.www.net", RecordType::A, "0 s: 10.0.9.1 10.0.9.2"),
        ("tasks.web", RecordType::AAAA, "no data"),
        ("_http._tcp.web", RecordType::SRV, "5 s: web.net.:8080"),
        ("_HTTP._tcp.www", RecordType::SRV, "5 s: web.net.:8080"),
        ("_http._udp.web", RecordType::SRV, "not ours"),
        ("_http._tcp.tasks.www", RecordType::SRV, &format!("0 s: {} {}", target(1, 8080, 256), target(2, 8080, 256))),
        ("web.1", RecordType::A, "5 s: 10.0.9.1"),
        ("1.9.0.10.in-addr.arpa", RecordType::PTR, "5 s: web.1.net."),
        ("100.9.0.10.in-addr.arpa", RecordType::PTR, "5 s: web.net."),
        ("7.9.0.10.in-addr.arpa", RecordType::PTR, "no name"),
        ("7.8.0.10.in-addr.arpa", RecordType::PTR, "not ours"),
        ("web.other", RecordType::A, "not ours"),
        ("net", RecordType::A, "not ours"),
        (".", RecordType::A, "not ours"),
    ] {
        assert_eq!(said(&view, asked, record_type), expected, "{asked} {record_type}");
    }
    let short = id(1).short().to_string();
    assert_eq!(said(&view, &short, RecordType::A), "5 s: 10.0.9.1");
}

/// What SRV says of an endpoint.
fn target(number: u8, port: u16, weight: u16) -> String {
    let weight = if weight == 1 { String::new() } else { format!(" of {weight}") };
    format!("{}.net.:{port}{weight}", id(number).short())
}

#[test]
fn srv_tells_endpoints_apart_that_have_a_containers_or_the_services_name_in_common() {
    let mut zone = zone("net");
    let mut service = Service::new(label("web"), Mode::RoundRobin);
    service.ports.insert((label("http"), Protocol::Tcp), overlay_core::Port::new(80).unwrap());
    zone.put_service(service);
    for number in [1, 2] {
        zone.put_endpoint(Endpoint { names: vec![name("web")], ..task(number, "web", Health::Healthy) });
    }
    let view = View::from(zone);
    let both = format!("0 s: {} {}", target(1, 80, 256), target(2, 80, 256));
    assert_eq!(said(&view, "_http._tcp.web", RecordType::SRV), both);
    for number in [1, 2] {
        let target = format!("{}.net", id(number).short());
        assert_eq!(said(&view, &target, RecordType::A), format!("5 s: 10.0.9.{number}"));
    }
}

#[test]
fn a_round_robin_service_has_the_healthy_else_the_suspect_and_never_the_draining() {
    let mut zone = zone("net");
    let mut service = Service::new(label("web"), Mode::RoundRobin);
    service.ports.insert((label("http"), Protocol::Tcp), overlay_core::Port::new(80).unwrap());
    zone.put_service(service);
    let of = |zone: &Zone, name| said(&View::from(zone.clone()), name, RecordType::A);
    assert_eq!(of(&zone, "web"), "no data");
    zone.put_endpoint(task(1, "web", Health::Draining));
    assert_eq!((of(&zone, "web"), of(&zone, "web.1")), ("no data".into(), "no data".into()));
    zone.put_endpoint(task(2, "web", Health::Suspect));
    assert_eq!(of(&zone, "web"), "0 s: 10.0.9.2");
    zone.put_endpoint(task(3, "web", Health::Healthy));
    zone.put_endpoint(task(4, "web", Health::Healthy));
    assert_eq!(
        (of(&zone, "web"), of(&zone, "tasks.web")),
        ("0 s: 10.0.9.3 10.0.9.4".into(), "0 s: 10.0.9.3 10.0.9.4".into())
    );
    let view = View::from(zone.clone());
    let both = |weights: [u16; 2]| format!("0 s: {} {}", target(3, 80, weights[0]), target(4, 80, weights[1]));
    for name in ["_http._tcp.web", "_http._tcp.tasks.web"] {
        assert_eq!(said(&view, name, RecordType::SRV), both([256, 256]));
    }
    zone.put_endpoint(Endpoint { weight: 7, ..task(4, "web", Health::Healthy) });
    let view = View::from(zone.clone());
    assert_eq!(said(&view, "_http._tcp.web", RecordType::SRV), both([256, 1792]));
    zone.put_endpoint(Endpoint { weight: 256, ..task(4, "web", Health::Healthy) });
    let view = View::from(zone.clone());
    assert_eq!(said(&view, "_http._tcp.web", RecordType::SRV), both([1, 256]), "more than fits is as it is");
    zone.remove_endpoint(id(3));
    zone.remove_endpoint(id(4));
    assert_eq!(of(&zone, "web"), "0 s: 10.0.9.2");
    zone.remove_service(&label("WEB"));
    assert_eq!((of(&zone, "web"), of(&zone, "web.2")), ("not ours".into(), "5 s: 10.0.9.2".into()));
}

#[test]
fn nobody_captures_a_services_traffic_with_a_container_of_its_name() {
    let mut zone = zone("net");
    let mut endpoint = Endpoint::new(id(1), [ip("10.0.9.66")]);
    endpoint.names.push(name("web"));
    zone.put_endpoint(endpoint);
    zone.put_records(&name("web"), Given { addresses: [ip("10.0.9.77")].into(), ..Given::default() });
    assert_eq!(said(&View::from(zone.clone()), "web", RecordType::A), "5 s: 10.0.9.66");
    zone.put_service(Service::new(label("web"), Mode::Vip([ip("10.0.9.100")].into())));
    assert_eq!(said(&View::from(zone.clone()), "web", RecordType::A), "5 s: 10.0.9.100");
    zone.put_service(Service::new(label("web"), Mode::RoundRobin));
    assert_eq!(said(&View::from(zone.clone()), "web", RecordType::A), "no data");
    zone.remove_service(&label("web"));
    zone.remove_endpoint(id(1));
    assert_eq!(said(&View::from(zone), "web", RecordType::A), "5 s: 10.0.9.77");
}

#[test]
fn two_services_that_share_an_alias_are_both_given() {
    let mut zone = zone("net");
    for (service, vip) in [("a", "10.0.9.100"), ("b", "10.0.9.101")] {
        let mut service = Service::new(label(service), Mode::Vip([ip(vip)].into()));
        service.aliases.insert(label("shared"));
        zone.put_service(service);
    }
    let view = View::from(zone.clone());
    assert_eq!(said(&view, "shared", RecordType::A), "5 s: 10.0.9.100 10.0.9.101");
    zone.remove_service(&label("a"));
    assert_eq!(said(&View::from(zone), "shared", RecordType::A), "5 s: 10.0.9.101");
}

#[test]
fn of_two_networks_the_first_has_the_name_wholly_and_each_can_be_named() {
    let [front, back] = ["front", "back"].map(|network| {
        let mut zone = zone(network);
        let vip = if network == "front" { "10.0.9.1" } else { "fd00::2" };
        zone.put_service(Service::new(label("db"), Mode::Vip([ip(vip)].into())));
        zone
    });
    let view = View { networks: vec![front.clone(), back.clone()], suffixes: Vec::new() };
    assert_eq!(said(&view, "db", RecordType::A), "5 s: 10.0.9.1");
    assert_eq!(said(&view, "db", RecordType::AAAA), "no data");
    assert_eq!(said(&view, "db.back", RecordType::AAAA), "5 s: fd00::2");
    assert_eq!(said(&view, "db.front", RecordType::A), "5 s: 10.0.9.1");
    let view = View { networks: vec![back, front], suffixes: Vec::new() };
    assert_eq!(said(&view, "db", RecordType::AAAA), "5 s: fd00::2");
}

#[test]
fn a_name_that_is_an_ids_or_an_addresss_too_stands_for_what_all_give_who_have_it() {
    let mut zone = zone("net");
    let view = |zone: &Zone| View::from(zone.clone());
    let (short, reverse) = (id(1).short().to_string(), "1.9.0.10.in-addr.arpa");
    zone.put_endpoint(task(1, "web", Health::Healthy));
    assert_eq!(said(&view(&zone), &short, RecordType::A), "5 s: 10.0.9.1");
    let alone = zone.clone();
    let mut namesake = task(2, "web", Health::Healthy);
    namesake.names.push(name(&short));
    namesake.addresses.insert(ip("10.0.9.1"));
    zone.put_endpoint(namesake);
    assert_eq!(said(&view(&zone), &short, RecordType::A), "5 s: 10.0.9.1 10.0.9.2");
    assert_eq!(said(&view(&zone), reverse, RecordType::PTR), "5 s: web.1.net. web.2.net.");
    zone.put_service(Service::new(label("db"), Mode::Vip([ip("10.0.9.1")].into())));
    assert_eq!(said(&view(&zone), reverse, RecordType::PTR), "5 s: db.net. web.1.net. web.2.net.");
    assert_eq!(zone.len(), 8, "two each: of tasks, of ids, of the service, of addresses");
    // What an endpoint has by itself changes what the name stands for that others give.
    let mut renamed = task(1, "web", Health::Draining);
    renamed.names = vec![name("other")];
    zone.put_endpoint(renamed);
    assert_eq!(said(&view(&zone), &short, RecordType::A), "5 s: 10.0.9.1 10.0.9.2", "the namesake has both");
    assert_eq!(said(&view(&zone), reverse, RecordType::PTR), "5 s: db.net. other.net. web.2.net.");
    zone.remove_endpoint(id(2));
    assert_eq!(said(&view(&zone), &short, RecordType::A), "no data", "it is known, and ends");
    zone.remove_service(&label("db"));
    assert_eq!(said(&view(&zone), reverse, RecordType::PTR), "5 s: other.net.");
    zone.put_endpoint(task(1, "web", Health::Healthy));
    assert!(zone == alone, "as if nothing else had been there");
}

#[test]
fn a_name_that_ends_as_the_network_does_is_found_as_it_is() {
    let mut zone = zone("net");
    let endpoint = |number, text| {
        let mut endpoint = Endpoint::new(id(number), [IpAddr::from([10, 0, 9, number])]);
        endpoint.names.push(name(text));
        endpoint
    };
    zone.put_endpoint(endpoint(1, "a.NET"));
    zone.put_endpoint(endpoint(2, "a"));
    let of = |zone: &Zone, name| said(&View::from(zone.clone()), name, RecordType::A);
    assert_eq!(
        [of(&zone, "a.net"), of(&zone, "a.net.net"), of(&zone, "a")],
        ["5 s: 10.0.9.1", "5 s: 10.0.9.1", "5 s: 10.0.9.2"]
    );
    zone.remove_endpoint(id(1));
    assert_eq!([of(&zone, "a.net"), of(&zone, "a.net.net")], ["5 s: 10.0.9.2", "not ours"]);
}

#[test]
fn reverse_names_are_found_whatever_the_network_is_called_and_whoever_gives_them() {
    let mut named_so = zone("arpa");
    named_so.put_endpoint(task(1, "web", Health::Healthy));
    let view = View::from(named_so.clone());
    assert_eq!(said(&view, "1.9.0.10.in-addr.arpa", RecordType::PTR), "5 s: web.1.arpa.");
    assert_eq!(said(&view, "web.1.arpa", RecordType::A), "5 s: 10.0.9.1");
    named_so.remove_endpoint(id(1));
    assert_eq!(named_so, zone("arpa"), "nothing of it is left");

    let mut zone = zone("net");
    let mut endpoint = Endpoint::new(id(1), [ip("10.0.9.1"), ip("fd00::ab")]);
    endpoint.names = vec![name("web"), name("9.9.0.10.In-Addr.arpa")];
    zone.put_endpoint(endpoint);
    zone.put_records(&name("8.9.0.10.IN-ADDR.arpa"), Given { ptr: [name("db.net")].into(), ..Given::default() });
    zone.put_records(&name("1.9.0.10.in-addr.arpa"), Given { ptr: [name("db.net")].into(), ..Given::default() });
    let v6 = DnsName::reverse(ip("fd00::ab")).to_string();
    let view = View::from(zone);
    for (asked, record_type, expected) in [
        ("9.9.0.10.in-addr.arpa", RecordType::A, "5 s: 10.0.9.1"),
        ("9.9.0.10.in-addr.arpa", RecordType::PTR, "no data"),
        ("8.9.0.10.in-addr.arpa", RecordType::PTR, "5 s: db.net."),
        ("1.9.0.10.in-addr.ARPA", RecordType::PTR, "5 s: db.net. web.net."),
        ("1.9.0.10.in-addr.arpa.net", RecordType::PTR, "5 s: db.net. web.net."),
        ("01.9.0.10.in-addr.arpa", RecordType::PTR, "not ours"),
        (&v6.to_uppercase(), RecordType::PTR, "5 s: web.net."),
    ] {
        assert_eq!(said(&view, asked, record_type), expected, "{asked} {record_type}");
    }
}

#[test]
fn below_a_suffix_every_name_is_ours() {
    let mut zone = zone("net");
    zone.put_service(Service::new(label("web"), Mode::Vip([ip("10.0.9.1")].into())));
    let view = View { networks: vec![zone], suffixes: vec![name("Swarm.internal")] };
    for (asked, expected) in [
        ("web.swarm.internal", "5 s: 10.0.9.1"),
        ("web.net.SWARM.internal", "5 s: 10.0.9.1"),
        ("nobody.swarm.internal", "no name"),
        ("swarm.internal", "no data"),
        ("net.swarm.internal", "no data"),
        ("other.swarm.internal", "no name"),
        ("web.internal", "not ours"),
        ("web.xswarm.internal", "not ours"),
    ] {
        assert_eq!(said(&view, asked, RecordType::A), expected, "{asked}");
    }
}

#[test]
fn a_name_below_several_suffixes_is_found_below_whichever_leads_to_it() {
    let mut zone = zone("net");
    zone.put_service(Service::new(label("web"), Mode::Vip([ip("10.0.9.1")].into())));
    let both = [name("internal"), name("swarm.internal")];
    for suffixes in [both.to_vec(), both.iter().rev().cloned().collect()] {
        let view = View { networks: vec![zone.clone()], suffixes };
        for (asked, expected) in [
            ("web.swarm.internal", "5 s: 10.0.9.1"),
            ("web.net.swarm.internal", "5 s: 10.0.9.1"),
            ("web.internal", "5 s: 10.0.9.1"),
            ("nobody.swarm.internal", "no name"),
            ("swarm.internal", "no data"),
            ("internal", "no data"),
        ] {
            assert_eq!(said(&view, asked, RecordType::A), expected, "{asked} by {:?}", view.suffixes);
        }
    }
}

#[test]
fn an_internal_network_forwards_nothing_and_one_that_is_not_does() {
    let of = |internal: &[bool]| {
        let zone = |internal| Zone::new(label("n"), Policy { internal, ..Policy::default() });
        View { networks: internal.iter().copied().map(zone).collect(), suffixes: Vec::new() }.forwards()
    };
    assert!(!of(&[true]) && !of(&[true, true]) && of(&[true, false]) && of(&[]));
}

#[test]
fn ttls_are_the_policys_and_the_lowest_counts() {
    let ttl = RecordTtl::from_secs;
    let policy = Policy { service_ttl: ttl(60), members_ttl: ttl(2), endpoint_ttl: ttl(30), ..Policy::default() };
    let mut zone = Zone::new(label("net"), policy);
    zone.put_service(Service::new(label("web"), Mode::Vip([ip("10.0.9.100")].into())));
    zone.put_endpoint(task(1, "web", Health::Healthy));
    let mut other = Service::new(label("other"), Mode::RoundRobin);
    other.aliases.insert(label("web"));
    let of = |zone: &Zone, name| said(&View::from(zone.clone()), name, RecordType::A);
    assert_eq!(of(&zone, "web"), "60 s: 10.0.9.100");
    assert_eq!(of(&zone, "tasks.web"), "2 s: 10.0.9.1");
    assert_eq!(of(&zone, "web.1"), "30 s: 10.0.9.1");
    zone.put_service(other);
    assert_eq!(of(&zone, "web"), "2 s: 10.0.9.100");
}

proptest! {
    #[test]
    fn a_zone_is_what_is_left_however_it_came_about(changes in proptest::collection::vec(change(), 0..40)) {
        let (mut zone, mut left) = (zone("net"), Left::default());
        let mut copies = Vec::new();
        for change in changes {
            left.note(change.clone());
            change.apply(&mut zone);
            copies.push((zone.clone(), left.clone()));
        }
        for (zone, left) in copies.into_iter().rev().step_by(7) {
            let mut whole = self::zone("net");
            left.clone().fill(&mut whole);
            prop_assert_eq!(&zone, &whole);
            prop_assert_eq!(left.zone(label("net"), whole.policy().clone()), whole);
        }
    }
}
