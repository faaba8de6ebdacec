//! Names that are not ours: forwarding on a virtual clock, with servers that die, lie, cut and dawdle.

#![allow(clippy::unwrap_used, reason = "tests, whose helpers clippy does not take for such")]

mod world;

use std::time::Duration;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use overlay_core::Instant;
use overlay_dns::{Config, Path, Policy, Resolver, Transport, Upstreams, View, Zone};

use world::{Manner, World, address, client, question};

const MS: Duration = Duration::from_millis(1);
const A: RecordType = RecordType::A;

/// The mission's rule, as a test: who asks for a name on its own network is answered by the internal server, and the
/// external one hears nothing of it; who asks for anything else is answered by the external server.
#[test]
fn same_subnet_internal_server_otherwise_external_server() {
    let mut world = World::new(Config::default(), &[Manner::Answers(20)]);
    for (name, record_type, addresses) in [
        ("web.net.", A, "10.0.9.2"),
        ("web.", A, "10.0.9.2"),
        ("web.", RecordType::AAAA, ""),
        ("web.", RecordType::MX, ""),
    ] {
        let reply = world.ask(name, record_type);
        assert_eq!((reply.code, reply.data.join(" ").as_str()), (ResponseCode::NoError, addresses), "{name}");
        assert_eq!(reply.took, Duration::ZERO);
    }
    assert_eq!(world.ask("7.9.0.10.in-addr.arpa.", RecordType::PTR).code, ResponseCode::NXDomain);
    assert_eq!(world.servers[0].heard.len(), 0, "nothing of ours leaves");

    let reply = world.ask("www.example.org.", A);
    assert_eq!((reply.code, reply.data.join(" ").as_str()), (ResponseCode::NoError, "203.0.113.1"));
    assert_eq!(world.servers[0].heard, ["www.example.org. A"]);
}

#[test]
fn a_single_label_never_leaves_unless_it_is_allowed_to() {
    let mut world = World::new(Config::default(), &[Manner::Answers(20)]);
    assert_eq!(world.ask("db.", A).code, ResponseCode::NXDomain);
    assert_eq!(world.ask("db.", RecordType::TXT).code, ResponseCode::NXDomain);
    assert!(world.servers[0].heard.is_empty());
    assert_eq!(world.ask("org.", RecordType::DS).code, ResponseCode::NoError, "validators walk down from the root");

    let mut world = World::new(Config { forward_single_labels: true, ..Config::default() }, &[Manner::Answers(20)]);
    assert_eq!(world.ask("db.", A).data, ["203.0.113.1"]);
}

#[test]
fn an_internal_network_forwards_nothing() {
    let mut world = World::new(Config::default(), &[Manner::Answers(20)]);
    let policy = Policy { internal: true, ..Policy::default() };
    world.resolver.set_source(View::from(Zone::new("closed".parse().unwrap(), policy)));
    assert_eq!(world.ask("www.example.org.", A).code, ResponseCode::Refused);
    assert!(world.servers[0].heard.is_empty());
}

#[test]
fn an_upstream_server_that_is_ourselves_is_never_asked() {
    let mut world = World::new(Config::default(), &[Manner::Answers(20)]);
    let mapped = "[::ffff:192.0.2.1]:53".parse().unwrap();
    let ourselves = vec![address(0)];
    world.resolver.set_upstreams(&Upstreams { servers: vec![address(0), mapped], ourselves });
    assert_eq!(world.ask("www.example.org.", A).code, ResponseCode::Refused);
    assert!(world.servers[0].heard.is_empty());
}

#[test]
fn a_question_that_comes_back_to_us_by_another_server_ends() {
    let mut world = World::new(Config::default(), &[Manner::SendsBack]);
    let reply = world.ask("www.example.org.", A);
    assert_eq!((reply.code, reply.took), (ResponseCode::ServFail, Config::default().deadline));
    let sent = world.resolver.metrics().forwards.sent;
    assert!(sent <= 9, "{sent} queries: what comes back joins the one under way");
}

#[test]
fn when_the_first_server_is_dead_the_second_answers_long_before_the_client_gives_up() {
    let mut world = World::new(Config::default(), &[Manner::Dead, Manner::Answers(20)]);
    let first = world.ask("a.example.org.", A);
    assert_eq!(first.data, ["203.0.113.1"]);
    assert!(first.took <= 420 * MS, "{:?}", first.took);
    for number in 0..4 {
        world.ask(&format!("b{number}.example.org."), A);
    }
    let later = world.ask("c.example.org.", A);
    assert!(later.took <= 20 * MS, "{:?}: the dead one is asked last by now", later.took);
}

#[test]
fn the_server_that_answers_soonest_is_asked_first() {
    let mut world = World::new(Config::default(), &[Manner::Answers(300), Manner::Answers(10)]);
    for number in 0..20 {
        world.ask(&format!("a{number}.example.org."), A);
    }
    let before = world.servers[0].heard.len();
    let quick = (0..60).filter(|number| world.ask(&format!("b{number}.example.org."), A).took == 10 * MS).count();
    assert_eq!(quick, 60);
    let probes = world.servers[0].heard.len() - before;
    assert!(probes < 10, "{probes} of 60 went to the slow one as well, to see how it is");
}

#[test]
fn a_server_that_refuses_or_fails_is_passed_over_at_once() {
    for manner in [Manner::Says(ResponseCode::ServFail), Manner::Says(ResponseCode::Refused), Manner::Refers] {
        let mut world = World::new(Config::default(), &[manner, Manner::Answers(20)]);
        let reply = world.ask("www.example.org.", A);
        assert_eq!((reply.code, reply.took), (ResponseCode::NoError, 21 * MS), "{manner:?}");
    }
    let mut world = World::new(Config::default(), &[Manner::Says(ResponseCode::ServFail)]);
    let reply = world.ask("www.example.org.", A);
    assert_eq!(reply.code, ResponseCode::ServFail);
    assert!(reply.took < 20 * MS, "{:?}", reply.took);
}

#[test]
fn what_a_lying_server_says_is_not_believed() {
    for manner in [Manner::WrongId, Manner::WrongQuestion, Manner::WrongSource, Manner::WrongPath, Manner::OtherNames] {
        let mut world = World::new(Config::default(), &[manner, Manner::Answers(20)]);
        let reply = world.ask("www.example.org.", A);
        assert_eq!(reply.data, ["203.0.113.1"], "{manner:?}");
        let forwards = world.resolver.metrics().forwards;
        assert!(forwards.lies + forwards.unexpected > 0, "{manner:?}");
        let mut alone = World::new(Config::default(), &[manner]);
        assert_eq!(alone.ask("www.example.org.", A).code, ResponseCode::ServFail, "{manner:?}");
    }
}

#[test]
fn who_guesses_ids_makes_the_question_go_by_tcp() {
    let mut world = World::new(Config::default(), &[Manner::Answers(15)]);
    assert!(world.give(client(1, Transport::Udp), &question(1, "www.example.org.", A)).is_none());
    let (path, id) = world.sent[0];
    let mut forged = question(0, "WWW.example.org.", A);
    forged[2] |= 0x80;
    for guess in (1..=8).chain([0]) {
        forged[..2].copy_from_slice(&(id ^ guess).to_be_bytes());
        world.resolver.handle_upstream(path, address(0), &forged, world.now); // the right one comes too late
    }
    let replies = world.run_until(Instant::ZERO + 100 * MS);
    let reply = Message::from_vec(&replies[0].1).unwrap();
    assert_eq!((replies.len(), reply.answers[0].data.to_string().as_str()), (1, "203.0.113.1"));
    assert!(world.sent.len() > 1 && world.sent[1..].iter().all(|(path, _)| matches!(path, Path::Tcp(_))));
}

#[test]
fn a_guess_is_no_sign_of_life() {
    let mut world = World::new(Config::default(), &[Manner::Dead]);
    assert!(world.give(client(1, Transport::Udp), &question(1, "www.example.org.", A)).is_none());
    let (path, id) = world.sent[0];
    let mut forged = question(0, "www.example.org.", A);
    forged[2] |= 0x80;
    for guess in 1..=8 {
        forged[..2].copy_from_slice(&(id ^ guess).to_be_bytes());
        world.resolver.handle_upstream(path, address(0), &forged, world.now + MS);
    }
    let upstream = &world.resolver.metrics().upstreams[0];
    assert_eq!((upstream.sent, upstream.answered, upstream.rtt), (2, 0, None));
}

#[test]
fn an_answer_to_another_type_is_no_answer_though_the_types_are_like_letters() {
    let mut world = World::new(Config::default(), &[Manner::Dead]);
    let (asked, other) = (RecordType::from(65), RecordType::from(97)); // `A` and `a`
    assert!(world.give(client(1, Transport::Udp), &question(1, "www.example.org.", asked)).is_none());
    let (path, id) = world.sent[0];
    let mut forged = question(id, "www.example.org.", other);
    forged[2] |= 0x80;
    world.resolver.handle_upstream(path, address(0), &forged, world.now);
    assert_eq!((world.resolver.waiting(), world.resolver.metrics().forwards.lies), (1, 1));
}

#[test]
fn an_answer_with_proofs_brings_no_servers_of_other_zones() {
    for (zone, authorities) in [("example.org.", 1), ("org.", 1), ("bank.example.", 0), ("x.www.example.org.", 0)] {
        let mut world = World::new(Config::default(), &[Manner::Dead]);
        let mut query = Message::from_vec(&question(1, "www.example.org.", A)).unwrap();
        query.set_edns(hickory_proto::op::Edns::new().set_dnssec_ok(true).clone());
        assert!(world.give(client(1, Transport::Tcp), &query.to_vec().unwrap()).is_none());
        let (path, id) = world.sent[0];
        let mut reply = Message::from_vec(&question(id, "www.example.org.", A)).unwrap();
        reply.metadata.message_type = hickory_proto::op::MessageType::Response;
        let record = |of: &str, data| Record::from_rdata(Name::from_ascii(of).unwrap(), 60, data);
        let ip = hickory_proto::rr::rdata::A::new(203, 0, 113, 1);
        reply.add_answer(record("www.example.org.", RData::A(ip)));
        let server = Name::from_ascii("ns.thief.example.").unwrap();
        reply.add_authority(record(zone, RData::NS(hickory_proto::rr::rdata::NS(server))));
        world.resolver.handle_upstream(path, address(0), &reply.to_vec().unwrap(), world.now);
        let given = Message::from_vec(&world.resolver.poll_reply().unwrap().message).unwrap();
        assert_eq!((given.answers.len(), given.authorities.len()), (1, authorities), "{zone}");
    }
}

#[test]
fn with_mixed_case_an_answer_in_other_letters_is_a_lie() {
    let config = Config { mixed_case: true, ..Config::default() };
    let mut world = World::new(config.clone(), &[Manner::Answers(20)]);
    assert_eq!(world.ask("www.a-rather-long-name.example.org.", A).data, ["203.0.113.1"]);
    assert!(world.servers[0].heard[0].bytes().any(|byte| byte.is_ascii_uppercase()));
    let mut world = World::new(config, &[Manner::FoldsCase]);
    assert_eq!(world.ask("www.a-rather-long-name.example.org.", A).code, ResponseCode::ServFail);
}

#[test]
fn what_is_cut_by_udp_is_fetched_by_tcp_and_the_client_gets_what_it_takes() {
    let mut world = World::new(Config::default(), &[Manner::Cuts(200)]);
    let by_udp = world.ask("big.example.org.", A);
    assert!(by_udp.is_cut && by_udp.data.is_empty());
    let by_tcp = world.ask_by(Transport::Tcp, "big.example.org.", A);
    assert_eq!((by_tcp.data.len(), by_tcp.is_cut, by_tcp.took), (200, false, Duration::ZERO));
    assert_eq!(world.resolver.metrics().forwards.by_tcp, 1);
}

#[test]
fn what_ends_in_the_middle_of_a_record_is_fetched_by_tcp_too() {
    let mut world = World::new(Config::default(), &[Manner::CutsShort]);
    assert_eq!(world.ask_by(Transport::Tcp, "big.example.org.", A).data.len(), 40);
    assert_eq!(world.resolver.metrics().forwards.by_tcp, 1);
}

#[test]
fn a_connection_that_is_refused_lets_the_next_server_answer() {
    let mut world = World::new(Config::default(), &[Manner::CutsAndRefuses, Manner::Answers(20)]);
    let reply = world.ask("www.example.org.", A);
    assert_eq!((reply.data.len(), reply.code), (1, ResponseCode::NoError));
}

#[test]
fn a_server_without_edns_is_asked_without() {
    let mut world = World::new(Config::default(), &[Manner::NoEdns]);
    assert_eq!(world.ask("a.example.org.", A).data, ["203.0.113.1"]);
    assert_eq!(world.ask("b.example.org.", A).data, ["203.0.113.1"]);
    assert_eq!(world.servers[0].heard.len(), 3, "it is remembered");
}

#[test]
fn a_server_that_says_so_in_a_header_alone_is_asked_without_edns() {
    let mut world = World::new(Config::default(), &[Manner::NoEdnsInAHeader]);
    assert_eq!(world.ask("a.example.org.", A).data, ["203.0.113.1"]);
}

#[test]
fn a_question_that_a_server_cannot_read_costs_no_other_question_its_edns() {
    let mut world = World::new(Config::default(), &[Manner::Says(ResponseCode::NotImp)]);
    assert_eq!(world.ask("a.example.org.", RecordType::ANY).code, ResponseCode::ServFail);
    world.servers[0].manner = Manner::NeedsEdns;
    assert_eq!(world.ask("b.example.org.", A).data, ["203.0.113.1"]);
}

#[test]
fn one_question_by_many_clients_is_asked_once_and_each_gets_its_own_id_and_letters() {
    let mut world = World::new(Config::default(), &[Manner::Answers(20)]);
    for number in 0..50_u8 {
        let name = if number % 2 == 0 { "www.example.org." } else { "WWW.Example.ORG." };
        let query = question(u16::from(number), name, A);
        assert!(world.give(client(number, Transport::Udp), &query).is_none());
    }
    let replies = world.run_until(Instant::ZERO + 100 * MS);
    assert_eq!(world.servers[0].heard.len(), 1);
    assert_eq!(replies.len(), 50);
    for (client, reply) in replies {
        let [_, _, _, number] = client_octets(client.address);
        assert_eq!((reply[0], reply[1]), (0, number));
        assert_eq!(&reply[13..16], if number % 2 == 0 { b"www" } else { b"WWW" });
    }
    assert_eq!(world.resolver.metrics().forwards.coalesced, 49);
}

#[test]
fn a_query_that_is_sent_again_waits_once() {
    let mut world = World::new(Config::default(), &[Manner::Answers(20)]);
    let query = question(7, "www.example.org.", A);
    for _ in 0..3 {
        assert!(world.give(client(1, Transport::Udp), &query).is_none());
    }
    assert_eq!(world.run_until(Instant::ZERO + 100 * MS).len(), 1);
    assert_eq!(world.resolver.metrics().results.repeated, 2);
}

#[test]
fn what_was_answered_is_kept_for_its_time_and_counts_down() {
    let mut world = World::new(Config::default(), &[Manner::Answers(20)]);
    assert_eq!(world.ask("www.example.org.", A).ttl, Some(60));
    world.now += Duration::from_secs(50);
    let kept = world.ask("WWW.example.org.", A);
    assert_eq!((kept.ttl, kept.took), (Some(10), Duration::ZERO));
    world.now += Duration::from_secs(11);
    assert_eq!(world.ask("www.example.org.", A).ttl, Some(60));
    assert_eq!(world.servers[0].heard.len(), 2);
}

#[test]
fn that_a_name_is_not_there_is_kept_as_long_as_its_zone_says() {
    for (manner, code) in [(Manner::NoName, ResponseCode::NXDomain), (Manner::NoRecords, ResponseCode::NoError)] {
        let mut world = World::new(Config::default(), &[manner]);
        let reply = world.ask("nobody.example.org.", A);
        assert_eq!((reply.code, reply.data.len(), reply.authorities), (code, 0, 1));
        world.now += Duration::from_secs(29);
        assert_eq!(world.ask("nobody.example.org.", A).took, Duration::ZERO, "the SOA's minimum is 30 s");
        world.now += Duration::from_secs(2);
        world.ask("nobody.example.org.", A);
        assert_eq!(world.servers[0].heard.len(), 2, "{manner:?}");
    }
}

#[test]
fn a_failure_is_remembered_for_a_moment() {
    let mut world = World::new(Config::default(), &[Manner::Dead]);
    let reply = world.ask("www.example.org.", A);
    assert_eq!((reply.code, reply.took), (ResponseCode::ServFail, 4000 * MS));
    assert_eq!(world.ask("www.example.org.", A).took, Duration::ZERO);
    world.now += Duration::from_secs(2);
    assert_eq!(world.ask("www.example.org.", A).took, 4000 * MS);
}

#[test]
fn what_is_past_its_time_is_given_when_nobody_answers_if_that_is_wished() {
    let day = Duration::from_secs(86_400);
    let mut world = World::new(Config { stale: Some(day), ..Config::default() }, &[Manner::Answers(20)]);
    world.ask("www.example.org.", A);
    world.servers[0].manner = Manner::Dead;
    world.now += Duration::from_secs(3600);
    let stale = world.ask("www.example.org.", A);
    assert_eq!((stale.data.len(), stale.ttl, stale.took), (1, Some(30), 1800 * MS));
    world.run_until(world.now + Duration::from_secs(3));
    let again = world.ask("www.example.org.", A);
    assert_eq!((again.data.len(), again.took), (1, Duration::ZERO), "nobody was there a moment ago");
    world.servers[0].manner = Manner::Answers(20);
    world.now += Duration::from_secs(5);
    assert_eq!(world.ask("www.example.org.", A).ttl, Some(60));

    let mut without = World::new(Config::default(), &[Manner::Answers(20)]);
    without.ask("www.example.org.", A);
    without.servers[0].manner = Manner::Dead;
    without.now += Duration::from_secs(3600);
    assert_eq!(without.ask("www.example.org.", A).code, ResponseCode::ServFail);
}

#[test]
fn the_cache_stays_within_its_bytes_and_other_servers_make_it_empty() {
    let mut world = World::new(Config { cache_bytes: 100_000, ..Config::default() }, &[Manner::Answers(1)]);
    for number in 0..2_000 {
        world.ask(&format!("a{number}.example.org."), A);
        assert!(world.resolver.metrics().cache.bytes <= 100_000);
    }
    let cache = world.resolver.metrics().cache;
    assert!(cache.entries > 100 && cache.evicted > 1_000, "{cache:?}");
    world.resolver.set_upstreams(&Upstreams { servers: vec![address(5)], ourselves: Vec::new() });
    assert_eq!(world.resolver.metrics().cache.entries, 0);
}

#[test]
fn when_the_upstream_servers_change_the_new_ones_are_asked_what_waits_and_the_old_ones_are_not_believed() {
    let mut world = World::new(Config::default(), &[Manner::Answers(300), Manner::Answers(20)]);
    let only = |server| Upstreams { servers: vec![address(server)], ourselves: Vec::new() };
    world.resolver.set_upstreams(&only(0));
    assert!(world.give(client(1, Transport::Udp), &question(1, "www.example.org.", A)).is_none());
    world.resolver.set_upstreams(&only(1));
    let replies = world.run_until(Instant::ZERO + 100 * MS);
    assert_eq!((replies.len(), world.servers[1].heard.len()), (1, 1), "the new one was asked, and answered");
    world.run_until(Instant::ZERO + 400 * MS);
    assert_eq!(world.resolver.metrics().forwards.unexpected, 1, "the old one came too late");

    assert!(world.give(client(1, Transport::Udp), &question(2, "b.example.org.", A)).is_none());
    world.resolver.set_upstreams(&Upstreams::default());
    let replies = world.run_until(world.now + MS);
    assert_eq!(replies.len(), 1, "where nobody is left to be asked, nobody waits");
    assert_eq!((world.resolver.waiting(), world.resolver.poll_timeout()), (0, None));
}

/// 10⁵ queries a second for three seconds of the world's clock, all of them for names that nobody answers.
#[test]
fn a_flood_for_names_that_time_out_leaves_memory_bounded_and_our_names_answered() {
    let config = Config { max_waiting: 512, deadline: 400 * MS, hedge: (20 * MS, 100 * MS), ..Config::default() };
    let mut world = World::new(config, &[Manner::Dead, Manner::Dead]);
    let (mut refused, mut ours) = (0, 0);
    let template = question(0, "x0000000.flood.example.", A);
    for number in 0..300_000_u32 {
        let mut query = template.clone();
        query[14..21].copy_from_slice(format!("{number:07}").as_bytes());
        query[..2].copy_from_slice(&(number as u16).to_be_bytes());
        let reply = world.give(client(1, Transport::Udp), &query);
        refused += u32::from(reply.is_some());
        if number % 1_000 == 0 {
            assert!(world.resolver.waiting() <= 512);
            let cache = world.resolver.metrics().cache;
            assert!(cache.bytes <= Config::default().cache_bytes, "{cache:?}");
            let reply = world.ask_by(Transport::Udp, "web.", A);
            assert_eq!((reply.took, reply.data.len()), (Duration::ZERO, 1));
            ours += 1;
            world.run_until(world.now + 10 * MS);
        }
    }
    assert_eq!((ours, world.now - Instant::ZERO), (300, Duration::from_secs(3)));
    assert!(refused > 250_000, "{refused}");
    let metrics = world.resolver.metrics();
    assert!(metrics.results.overloaded > 250_000 && metrics.results.failed > 1_000, "{:?}", metrics.results);
    world.run_until(world.now + Duration::from_secs(10));
    assert_eq!(world.resolver.waiting(), 0);
    assert_eq!(world.resolver.poll_timeout(), None, "nothing is left behind");
    assert_eq!(world.resolver.metrics().results.total(), world.resolver.metrics().queries.total());
}

#[test]
fn one_client_that_floods_does_not_keep_another_from_being_served() {
    let mut world = World::new(Config { max_waiting: 512, ..Config::default() }, &[Manner::Answers(20)]);
    for number in 0..5_000_u16 {
        let _ = world.give(client(1, Transport::Udp), &question(number, &format!("x{number}.example.org."), A));
    }
    let reply = world.ask_by(Transport::Udp, "www.example.org.", A);
    assert_eq!(reply.data, ["203.0.113.1"]);
}

#[test]
fn ids_and_sockets_are_hard_to_guess() {
    let mut world = World::new(Config::default(), &[Manner::Answers(1)]);
    let mut seen = std::collections::BTreeSet::new();
    let mut sockets = std::collections::BTreeSet::new();
    for number in 0..10_000 {
        world.ask(&format!("a{number}.example.org."), A);
        for (path, id) in world.sent.drain(..) {
            seen.insert(id);
            if let Path::Udp(socket) = path {
                sockets.insert(socket);
            }
        }
    }
    assert!(seen.len() > 9_000, "{} ids among 10,000", seen.len());
    assert!(sockets.len() > 120, "{} sockets: none is used for long", sockets.len());
    let numbers: std::collections::BTreeSet<u16> = sockets.iter().map(|socket| socket.number).collect();
    assert_eq!(numbers.len(), 64);
}

#[test]
fn a_run_is_a_function_of_its_seed() {
    let run = |seed| {
        let mut world = World::seeded([seed; 32], Config::default(), &[Manner::Answers(30), Manner::Dead]);
        (0..50).for_each(|number| drop(world.ask(&format!("a{number}.example.org."), A)));
        world.sent
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}

#[test]
fn a_config_that_makes_no_sense_is_refused() {
    let of = |config| Resolver::new(View::default(), config, [0; 32]).err().map(|error| error.to_string());
    assert!(of(Config::default()).is_none());
    let config = Config::default;
    assert!(of(Config { max_udp: 511, ..config() }).is_some_and(|text| text.contains("511")));
    assert!(of(Config { max_waiting: 0, ..config() }).is_some());
    assert!(of(Config { sockets: 0, ..config() }).is_some());
    assert!(of(Config { hedge: (20 * MS, 5000 * MS), ..config() }).is_some());
}

fn client_octets(address: std::net::SocketAddr) -> [u8; 4] {
    match address.ip() {
        std::net::IpAddr::V4(v4) => v4.octets(),
        std::net::IpAddr::V6(_) => [0; 4],
    }
}
