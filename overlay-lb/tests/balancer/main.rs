//! A balancer on packets that somebody else makes and reads.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail loudly too")]

mod made;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use etherparse::{SlicedPacket, TransportSlice};
use overlay_core::{EndpointId, Instant, Port, Protocol};
use overlay_lb::testing::{Wants, state_of};
use overlay_lb::{
    Affinity, Balancer, ChoiceKey, Condition, Config, Reason, Replica, Scheduler, Service, State, TableSize, Timeouts,
    Verdict, Weight,
};
use proptest::collection::vec;
use proptest::prelude::*;

use made::{ACK, FIN, RST, SYN, at, ends, step, tcp, udp};

fn id(number: u8) -> EndpointId {
    EndpointId::from_bytes([number; 16])
}

fn port(number: u16) -> Port {
    Port::new(number).unwrap()
}

/// VIPs 10.0.9.100 and fd00::100, ports 80 and 53 to 8080 and 5353, replicas 10.0.9.2 and fd00::2 up.
fn service(replicas: u8) -> Service {
    let mut service = Service::new(["10.0.9.100".parse().unwrap(), "fd00::100".parse().unwrap()])
        .port(Protocol::Tcp, port(80), port(8080))
        .port(Protocol::Udp, port(53), port(5353));
    for number in 2..2 + replicas {
        let v6 = std::net::Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, number.into());
        service.replicas.insert(id(number), Replica::new([[10, 0, 9, number].into(), v6.into()]));
    }
    service
}

struct Scene {
    balancer: Balancer,
    service: Service,
    now: Instant,
}

impl Scene {
    fn new(service: Service) -> Self {
        let config = Config { flows: 1000, sources: 100, table: TableSize::SMALL, ..Config::default() };
        let balancer = Balancer::new(config, [9; 32], Instant::ZERO);
        let mut scene = Self { balancer, service, now: Instant::ZERO };
        scene.change(|_| {});
        scene
    }

    fn change(&mut self, change: impl FnOnce(&mut Service)) {
        change(&mut self.service);
        let state = State {
            services: [("web".parse().unwrap(), self.service.clone())].into_iter().collect(),
            ..State::default()
        };
        self.balancer.handle_state(Arc::new(state), self.now).unwrap();
    }

    /// Sends a packet; the replica it went to and the packet as it went.
    fn forth(&mut self, mut packet: Vec<u8>) -> Option<SocketAddr> {
        match self.balancer.handle_packet(&mut packet, self.now) {
            Verdict::Forth { replica } => {
                assert_eq!(ends(&packet).1, replica);
                Some(replica)
            }
            _ => None,
        }
    }

    fn back(&mut self, mut packet: Vec<u8>) -> Option<(SocketAddr, SocketAddr)> {
        (self.balancer.handle_packet(&mut packet, self.now) == Verdict::Back).then(|| ends(&packet))
    }

    fn answer(&mut self, mut packet: Vec<u8>) -> Option<Vec<u8>> {
        match self.balancer.handle_packet(&mut packet, self.now) {
            Verdict::Answer(answer) => Some(answer.to_vec()),
            _ => None,
        }
    }

    /// Opens a connection from this port, and says whose it is.
    fn connect(&mut self, from: u16) -> SocketAddr {
        let (client, vip) = (SocketAddr::from(([10, 0, 9, 50], from)), at("10.0.9.100:80"));
        let replica = self.forth(tcp(client, vip, SYN, &[])).unwrap();
        assert_eq!(self.back(tcp(replica, client, SYN | ACK, &[])), Some((vip, client)));
        assert_eq!(self.forth(tcp(client, vip, ACK, b"hello")), Some(replica));
        replica
    }

    fn spread(&mut self, count: u16) -> BTreeMap<IpAddr, usize> {
        let mut spread = BTreeMap::new();
        for from in 0..count {
            *spread.entry(self.connect(2000 + from).ip()).or_default() += 1;
        }
        spread
    }
}

#[test]
fn a_flow_goes_to_one_replica_and_its_replies_come_from_the_vip() {
    for (client, vip) in [("10.0.9.50:4000", "10.0.9.100:80"), ("[fd00::50]:4000", "[fd00::100]:80")] {
        let (client, vip) = (at(client), at(vip));
        let mut scene = Scene::new(service(3));
        let replica = scene.forth(tcp(client, vip, SYN, &[])).unwrap();
        assert_eq!(replica.port(), 8080);
        for _ in 0..10 {
            assert_eq!(scene.forth(tcp(client, vip, ACK, b"question")), Some(replica));
            assert_eq!(scene.back(tcp(replica, client, ACK, b"answer")), Some((vip, client)));
        }
        let (asked, dns) = (SocketAddr::new(client.ip(), 5000), SocketAddr::new(vip.ip(), 53));
        let replica = scene.forth(udp(asked, dns, b"a?")).unwrap();
        assert_eq!(replica.port(), 5353);
        assert_eq!(scene.back(udp(replica, asked, b"a")), Some((dns, asked)));
    }
}

#[test]
fn balancers_of_one_choice_key_choose_alike_whatever_their_seeds_and_those_of_another_do_not() {
    let choices = |scheduler, key: u8, seed: u8| -> Vec<SocketAddr> {
        let config = Config { table: TableSize::SMALL, choice: ChoiceKey::new([key; 32]), ..Config::default() };
        let balancer = Balancer::new(config, [seed; 32], Instant::ZERO);
        let mut scene = Scene { balancer, service: service(5), now: Instant::ZERO };
        scene.change(|service| service.scheduler = scheduler);
        let clients = (0..100).map(|number| SocketAddr::from(([10, 0, 9, 50 + number], 4000 + u16::from(number))));
        clients.filter_map(|client| scene.forth(tcp(client, at("10.0.9.100:80"), SYN, &[]))).collect()
    };
    for scheduler in [Scheduler::Maglev, Scheduler::SourceHash] {
        let first = choices(scheduler, 1, 1);
        assert_eq!((first.len(), first.iter().collect::<BTreeSet<_>>().len()), (100, 5), "{scheduler}");
        assert_eq!(first, choices(scheduler, 1, 2), "{scheduler}");
        let moved = first.iter().zip(choices(scheduler, 2, 1)).filter(|(one, other)| *one != other).count();
        assert!(moved > 50, "{scheduler}: {moved} of 100"); // four of five
    }
    assert!(!format!("{:?}", ChoiceKey::new([0x61; 32])).contains("97"), "the key is in no log");
}

#[test]
fn what_is_no_services_passes_unchanged() {
    let mut scene = Scene::new(service(2));
    for packet in [
        tcp(at("10.0.9.50:1"), at("10.0.9.3:8080"), SYN, &[]),
        tcp(at("10.0.9.2:8080"), at("10.0.9.50:4000"), ACK, &[]),
        udp(at("[fd00::50]:1"), at("[fd00::2]:53"), b"x"),
    ] {
        let mut seen = packet.clone();
        assert_eq!(scene.balancer.handle_packet(&mut seen, scene.now), Verdict::Pass);
        assert_eq!(seen, packet);
    }
    let mut arp = [[0xff; 6], [2, 0, 0, 0, 0, 1]].concat();
    arp.extend([0x08, 0x06, 0, 1]);
    assert_eq!(scene.balancer.handle_frame(&mut arp, scene.now), Verdict::Pass);
}

#[test]
fn flows_are_spread_by_scheduler_and_weight() {
    let mut scene = Scene::new(service(4));
    assert_eq!(scene.spread(100).into_values().collect::<Vec<_>>(), [25; 4]);
    let mut weighted = service(2);
    weighted.replicas.values_mut().next().unwrap().weight = Weight::new(3).unwrap();
    for scheduler in [Scheduler::WeightedRoundRobin, Scheduler::WeightedLeastConnection] {
        weighted.scheduler = scheduler;
        assert_eq!(Scene::new(weighted.clone()).spread(100).into_values().collect::<Vec<_>>(), [75, 25], "{scheduler}");
    }
    weighted.scheduler = Scheduler::LeastConnection;
    assert_eq!(Scene::new(weighted.clone()).spread(100).into_values().collect::<Vec<_>>(), [50, 50]);
    weighted.scheduler = Scheduler::Maglev;
    let spread: Vec<_> = Scene::new(weighted.clone()).spread(800).into_values().collect();
    assert!((520..=680).contains(&spread[0]), "{spread:?}"); // 600, give or take six and a half deviations
    weighted.scheduler = Scheduler::SourceHash;
    assert_eq!(Scene::new(weighted).spread(100).len(), 1);
}

#[test]
fn a_replica_that_drains_keeps_its_flows_and_gets_no_new_ones() {
    let mut scene = Scene::new(service(2));
    let flows: Vec<_> = (100..120).map(|from| (from, scene.connect(from))).collect();
    scene.change(|it| it.replicas.get_mut(&id(2)).unwrap().condition = Condition::Draining);
    for (from, replica) in &flows {
        let client = SocketAddr::from(([10, 0, 9, 50], *from));
        assert_eq!(scene.forth(tcp(client, at("10.0.9.100:80"), ACK, b"more")), Some(*replica));
    }
    assert_eq!(scene.balancer.flows_of(&"web".parse().unwrap(), id(2)), 10);
    assert_eq!(scene.spread(30).into_keys().collect::<Vec<_>>(), [IpAddr::from([10, 0, 9, 3])]);
    for (from, replica) in flows {
        let client = SocketAddr::from(([10, 0, 9, 50], from));
        scene.forth(tcp(client, at("10.0.9.100:80"), FIN | ACK, &[]));
        scene.back(tcp(replica, client, FIN | ACK, &[]));
    }
    assert_eq!(scene.balancer.flows_of(&"web".parse().unwrap(), id(2)), 0);
    assert_eq!(scene.balancer.poll_transmit(), None, "nothing is cut");
}

/// What stirs an end is answered as RFC 9293 §3.10.7.4 has it, and that is answered with a reset that RFC 5961 §3.2 believes.
#[test]
fn both_ends_of_a_tcp_flow_whose_replica_is_gone_are_reset() {
    for condition in [None, Some(Condition::Down)] {
        let mut scene = Scene::new(service(2));
        let replica = scene.connect(4000);
        let gone = id(replica.to_string().strip_prefix("10.0.9.").unwrap()[..1].parse().unwrap());
        scene.change(|it| match condition {
            None => drop(it.replicas.remove(&gone)),
            Some(condition) => it.replicas.get_mut(&gone).unwrap().condition = condition,
        });
        let (client, vip) = (at("10.0.9.50:4000"), at("10.0.9.100:80"));
        let stirred = scene.balancer.poll_transmit().unwrap();
        assert_eq!(ends(&stirred), (vip, client));
        assert_eq!(ends(&scene.balancer.poll_transmit().unwrap()), (client, replica));
        assert_eq!(scene.balancer.poll_transmit(), None);
        let reset = scene.answer(tcp(client, vip, ACK, &[])).unwrap();
        assert_eq!(ends(&reset), (vip, client));
        let Some(TransportSlice::Tcp(tcp)) = SlicedPacket::from_ip(&reset).unwrap().transport else { panic!() };
        assert_eq!((tcp.rst(), tcp.ack(), tcp.sequence_number()), (true, false, 2000));
        assert_eq!(scene.balancer.counts().cut, 1);
    }
}

#[test]
fn flows_of_a_service_that_went_are_cut_even_where_another_took_its_place_in_the_same_state() {
    for (before, after) in [("a", "b"), ("b", "a")] {
        let mut balancer =
            Balancer::new(Config { table: TableSize::SMALL, ..Config::default() }, [9; 32], Instant::ZERO);
        let (web, client) = (service(1), at("10.0.9.50:4000"));
        let other = Service { vips: ["10.0.9.101".parse().unwrap()].into_iter().collect(), ..web.clone() };
        let state = |services: &[(&str, &Service)]| {
            let services = services.iter().map(|(name, service)| (name.parse().unwrap(), (*service).clone()));
            Arc::new(State { services: services.collect(), ..State::default() })
        };
        balancer.handle_state(state(&[(before, &web)]), Instant::ZERO).unwrap();
        let mut syn = tcp(client, at("10.0.9.100:80"), SYN, &[]);
        assert!(matches!(balancer.handle_packet(&mut syn, Instant::ZERO), Verdict::Forth { .. }));
        balancer.handle_state(state(&[(after, &web)]), Instant::ZERO).unwrap();
        assert_eq!((balancer.counts().cut, balancer.flows().len()), (1, 0), "{before} to {after}");
        balancer.handle_state(state(&[(after, &web), ("c", &other)]), Instant::ZERO).unwrap();
        assert!(["c", after].iter().all(|name| balancer.flows_of(&name.parse().unwrap(), id(2)) == 0));
    }
}

#[test]
fn a_udp_flow_whose_replica_is_gone_goes_to_another_at_once() {
    let mut scene = Scene::new(service(2));
    let (client, vip) = (at("10.0.9.50:4000"), at("10.0.9.100:53"));
    let first = scene.forth(udp(client, vip, b"1")).unwrap();
    assert_eq!(scene.forth(udp(client, vip, b"2")), Some(first));
    scene.change(|it| it.replicas.retain(|_, replica| !replica.addresses.contains(&first.ip())));
    let second = scene.forth(udp(client, vip, b"3")).unwrap();
    assert_ne!(first, second);
    assert_eq!(scene.back(udp(first, client, b"late")), None);
    assert_eq!(scene.balancer.poll_transmit(), None);
}

#[test]
fn flows_are_forgotten_when_they_were_idle_for_as_long_as_the_service_says() {
    let seconds = Duration::from_secs;
    let mut service = service(1);
    service.timeouts = Some(Timeouts { established: seconds(100), transitory: seconds(10), datagram: seconds(30) });
    let mut scene = Scene::new(service);
    scene.connect(4000);
    let (client, dns) = (at("10.0.9.50:4001"), at("10.0.9.100:53"));
    scene.forth(udp(client, dns, b"?")).unwrap();
    scene.forth(tcp(at("10.0.9.50:4002"), at("10.0.9.100:80"), SYN, &[])).unwrap();
    let mut left = Vec::new();
    for _ in 0..110 {
        scene.now += seconds(1);
        while let Some(due) = scene.balancer.poll_timeout().filter(|due| *due <= scene.now) {
            scene.balancer.handle_timeout(due);
        }
        left.push(scene.balancer.flows().len());
    }
    let change = |from: usize| left.iter().position(|left| *left < from).unwrap();
    assert!((10..=13).contains(&change(3)) && (30..=33).contains(&change(2)), "{left:?}");
    assert!((100..=103).contains(&change(1)), "{left:?}");
    assert_eq!(ends(&scene.balancer.poll_transmit().unwrap()), (at("10.0.9.100:80"), at("10.0.9.50:4000")));
    assert!(scene.balancer.poll_transmit().is_some());
    assert!(scene.answer(tcp(at("10.0.9.50:4000"), at("10.0.9.100:80"), ACK, &[])).is_some());
    assert_eq!((scene.balancer.poll_transmit(), scene.balancer.poll_timeout()), (None, None));
}

#[test]
fn a_source_comes_back_to_its_replica_until_that_is_over() {
    let mut with = service(3);
    with.affinity = Some(Affinity { timeout: Duration::from_secs(60) });
    let mut scene = Scene::new(with);
    assert_eq!(scene.spread(30).len(), 1);
    scene.now += Duration::from_secs(61);
    let replica = scene.connect(1000);
    assert_eq!(scene.connect(1001), replica);
    let gone = scene.service.replicas.iter().find(|(_, it)| it.addresses.contains(&replica.ip())).map(|(id, _)| *id);
    scene.change(|it| it.replicas.get_mut(&gone.unwrap()).unwrap().condition = Condition::Draining);
    let other = scene.connect(1002);
    assert_ne!(other, replica);
    assert_eq!(scene.connect(1003), other);
}

#[test]
fn what_nobody_takes_is_refused() {
    let mut scene = Scene::new(service(0));
    for (client, vip) in [("10.0.9.50:4000", "10.0.9.100:80"), ("[fd00::50]:4000", "[fd00::100]:81")] {
        let (client, vip) = (at(client), at(vip));
        let reset = scene.answer(tcp(client, vip, SYN, &[])).unwrap();
        assert_eq!(ends(&reset), (vip, client));
        let Some(TransportSlice::Tcp(tcp)) = SlicedPacket::from_ip(&reset).unwrap().transport else { panic!() };
        assert_eq!((tcp.rst(), tcp.ack(), tcp.acknowledgment_number()), (true, true, 1001));
        let error = scene.answer(udp(client, vip, b"data")).unwrap();
        let sliced = SlicedPacket::from_ip(&error).unwrap();
        match sliced.transport.unwrap() {
            TransportSlice::Icmpv4(icmp) => {
                assert_eq!((icmp.type_u8(), icmp.code_u8()), (3, 3));
                assert_eq!(icmp.icmp_type().calc_checksum(icmp.payload()), icmp.checksum());
            }
            TransportSlice::Icmpv6(icmp) => {
                assert_eq!((icmp.type_u8(), icmp.code_u8()), (1, 4));
                let (IpAddr::V6(from), IpAddr::V6(to)) = (vip.ip(), client.ip()) else { panic!() };
                assert!(icmp.is_checksum_valid(from.octets(), to.octets()));
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(scene.answer(tcp(at("10.0.9.50:1"), at("10.0.9.100:80"), RST, &[])).is_none());
    let errors = (0..100).filter(|_| scene.answer(udp(at("10.0.9.50:1"), at("10.0.9.100:1"), b"")).is_some()).count();
    assert!(errors < 60, "errors are limited: {errors}");
}

/// Nobody is answered who is not one (RFC 1122 §3.2.1.3), and no flow begins for him.
#[test]
fn what_comes_from_no_single_host_is_dropped() {
    let mut scene = Scene::new(service(1));
    for from in ["224.0.0.1", "255.255.255.255", "0.0.0.0"] {
        let mut echo = Vec::new();
        step(from.parse().unwrap(), "10.0.9.100".parse().unwrap())
            .icmpv4_echo_request(1, 2)
            .write(&mut echo, b"ping")
            .unwrap();
        let asks = udp(SocketAddr::new(from.parse().unwrap(), 53), at("10.0.9.100:53"), b"?");
        let begins = tcp(SocketAddr::new(from.parse().unwrap(), 7), at("10.0.9.100:80"), SYN, &[]);
        for mut packet in [echo, asks, begins] {
            let verdict = scene.balancer.handle_packet(&mut packet, scene.now);
            assert_eq!(verdict, Verdict::Drop(Reason::Silent), "{from}");
        }
    }
    let mut echo = Vec::new();
    step("ff02::1".parse().unwrap(), "fd00::100".parse().unwrap())
        .icmpv6_echo_request(1, 2)
        .write(&mut echo, b"ping")
        .unwrap();
    assert_eq!(scene.balancer.handle_packet(&mut echo, scene.now), Verdict::Drop(Reason::Silent));
    assert!(scene.balancer.flows().is_empty());
}

#[test]
fn an_echo_request_to_the_vip_is_answered() {
    let mut scene = Scene::new(service(0));
    let mut v4 = Vec::new();
    step("10.0.9.50".parse().unwrap(), "10.0.9.100".parse().unwrap())
        .icmpv4_echo_request(1, 2)
        .write(&mut v4, b"ping")
        .unwrap();
    let mut v6 = Vec::new();
    step("fd00::50".parse().unwrap(), "fd00::100".parse().unwrap())
        .icmpv6_echo_request(1, 2)
        .write(&mut v6, b"ping")
        .unwrap();
    for request in [v4, v6] {
        let mut frame = [
            vec![2, 0, 0, 0, 0, 1],
            vec![2, 0, 0, 0, 0, 2],
            if request[0] >> 4 == 4 { vec![8, 0] } else { vec![0x86, 0xdd] },
        ]
        .concat();
        frame.extend(&request);
        let Verdict::Answer(reply) = scene.balancer.handle_frame(&mut frame, scene.now) else { panic!() };
        assert_eq!((&reply[..6], &reply[6..12]), (&[2, 0, 0, 0, 0, 2][..], &[2, 0, 0, 0, 0, 1][..]));
        let sliced = SlicedPacket::from_ethernet(reply).unwrap();
        match sliced.transport.unwrap() {
            TransportSlice::Icmpv4(icmp) => {
                assert_eq!((icmp.type_u8(), icmp.payload()), (0, &b"ping"[..]));
                assert_eq!(icmp.icmp_type().calc_checksum(icmp.payload()), icmp.checksum());
            }
            TransportSlice::Icmpv6(icmp) => {
                assert_eq!((icmp.type_u8(), icmp.payload()), (129, &b"ping"[..]));
                let [from, to] = ["fd00::100", "fd00::50"].map(|it| it.parse::<std::net::Ipv6Addr>().unwrap().octets());
                assert!(icmp.is_checksum_valid(from, to));
            }
            other => panic!("{other:?}"),
        }
    }
}

/// An error about a packet of a flow, from a router on the way or from the other end, as that saw it.
#[test]
fn icmp_errors_are_about_the_flow_as_their_receiver_knows_it() {
    for v6 in [false, true] {
        let [client, vip, router] = if v6 {
            ["[fd00::50]:4000", "[fd00::100]:80", "[fd00::1]:0"]
        } else {
            ["10.0.9.50:4000", "10.0.9.100:80", "10.0.9.1:0"]
        }
        .map(at);
        let mut scene = Scene::new(service(1));
        let mut sent = tcp(client, vip, SYN, b"");
        let Verdict::Forth { replica } = scene.balancer.handle_packet(&mut sent, scene.now) else { panic!() };
        for from in [router.ip(), replica.ip()] {
            let mut error = icmp_error(from, client.ip(), &sent);
            assert_eq!(scene.balancer.handle_packet(&mut error, scene.now), Verdict::Back);
            let from = if from == replica.ip() { vip.ip() } else { from };
            assert_eq!(error, icmp_error(from, client.ip(), &tcp(client, vip, SYN, b"")));
            // Only eight bytes of what is behind the header are sure to be quoted (RFC 792).
            let header = if v6 { 40 } else { 20 };
            let mut short = icmp_error(from, client.ip(), &sent[..header + 8]);
            assert_eq!(scene.balancer.handle_packet(&mut short, scene.now), Verdict::Back);
            assert_eq!(short, icmp_error(from, client.ip(), &tcp(client, vip, SYN, b"")[..header + 8]));
        }
        let mut reply = tcp(replica, client, SYN | ACK, b"");
        assert_eq!(scene.balancer.handle_packet(&mut reply, scene.now), Verdict::Back);
        let mut error = icmp_error(client.ip(), vip.ip(), &reply);
        assert_eq!(scene.balancer.handle_packet(&mut error, scene.now), Verdict::Forth { replica });
        assert_eq!(error, icmp_error(client.ip(), replica.ip(), &tcp(replica, client, SYN | ACK, b"")));
        let mut stranger = icmp_error(router.ip(), client.ip(), &tcp(client, router, SYN, b""));
        assert_eq!(scene.balancer.handle_packet(&mut stranger, scene.now), Verdict::Pass);
    }
}

fn icmp_error(from: IpAddr, to: IpAddr, quoted: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    match from {
        IpAddr::V4(_) => step(from, to).icmpv4_raw(3, 1, [0; 4]).write(&mut bytes, quoted).unwrap(),
        IpAddr::V6(_) => step(from, to).icmpv6_raw(1, 3, [0; 4]).write(&mut bytes, quoted).unwrap(),
    }
    bytes
}

/// One port of a client can speak to two services that have the same replica: their replies must be told apart.
#[test]
fn two_flows_that_a_replica_could_not_tell_apart_get_ports_of_their_own() {
    let mut state = State::default();
    for (name, vip) in [("a", "10.0.9.100"), ("b", "10.0.9.101")] {
        let mut service = Service::new([vip.parse().unwrap()]).port(Protocol::Tcp, port(80), port(8080));
        service.replicas.insert(id(2), Replica::new(["10.0.9.2".parse().unwrap()]));
        state.services.insert(name.parse().unwrap(), service);
    }
    let mut balancer = Balancer::new(Config::default(), [1; 32], Instant::ZERO);
    balancer.handle_state(Arc::new(state), Instant::ZERO).unwrap();
    let client = at("10.0.9.50:4000");
    let mut seen = Vec::new();
    for vip in ["10.0.9.100:80", "10.0.9.101:80"].map(at) {
        let mut packet = tcp(client, vip, SYN, &[]);
        assert!(matches!(balancer.handle_packet(&mut packet, Instant::ZERO), Verdict::Forth { .. }));
        let (from, to) = ends(&packet);
        seen.push(from.port());
        let mut reply = tcp(to, from, SYN | ACK, &[]);
        assert_eq!(balancer.handle_packet(&mut reply, Instant::ZERO), Verdict::Back);
        assert_eq!(ends(&reply), (vip, client));
    }
    assert!(seen[0] == 4000 && seen[1] != 4000, "{seen:?}");
}

#[test]
fn a_port_that_is_used_again_gets_a_replica_anew() {
    let mut scene = Scene::new(service(2));
    let (client, vip) = (at("10.0.9.50:4000"), at("10.0.9.100:80"));
    let first = scene.connect(4000);
    assert_eq!(scene.forth(tcp(client, vip, SYN, &[])), Some(first), "a connection that stands is not moved");
    scene.forth(tcp(client, vip, FIN | ACK, &[])).unwrap();
    scene.back(tcp(first, client, FIN | ACK, &[])).unwrap();
    assert_eq!(scene.forth(tcp(client, vip, ACK, &[])), Some(first), "the last word goes where the flow went");
    assert_ne!(scene.connect(4000), first);
}

#[test]
fn a_full_table_makes_room_of_those_that_only_began() {
    let config = Config { flows: 16, ..Config::default() };
    let mut scene =
        Scene { balancer: Balancer::new(config, [2; 32], Instant::ZERO), service: service(1), now: Instant::ZERO };
    scene.change(|_| {});
    for from in 0..8 {
        scene.connect(3000 + from);
    }
    for from in 0..1000 {
        let flood = tcp(SocketAddr::from(([10, 0, 9, 51], from)), at("10.0.9.100:80"), SYN, &[]);
        assert!(scene.forth(flood).is_some());
    }
    assert_eq!(scene.balancer.flows().len(), 16);
    assert_eq!(scene.balancer.flows_of(&"web".parse().unwrap(), id(2)), 16);
    for from in 0..8 {
        let client = SocketAddr::from(([10, 0, 9, 50], 3000 + from));
        assert!(scene.forth(tcp(client, at("10.0.9.100:80"), ACK, b"still here")).is_some());
    }
    for from in 8..16 {
        scene.connect(3000 + from);
    }
    let mut more = tcp(at("10.0.9.52:1"), at("10.0.9.100:80"), SYN, &[]);
    assert_eq!(scene.balancer.handle_packet(&mut more, scene.now), Verdict::Drop(Reason::Full));
}

proptest! {
    /// Whatever the states, every flow's replica stands in the last one, and the numbers of flows agree with the table.
    #[test]
    fn flows_are_only_with_replicas_that_stand(states in vec(state_of(Wants { published: false, ..Wants::default() }), 1..5), seed: [u8; 32]) {
        let config = Config { flows: 300, sources: 50, table: TableSize::new(251).unwrap(), ..Config::default() };
        let mut balancer = Balancer::new(config, seed, Instant::ZERO);
        let mut now = Instant::ZERO;
        for state in states {
            balancer.handle_state(Arc::new(state.clone()), now).unwrap();
            while balancer.poll_transmit().is_some() {}
            for service in state.services.values() {
                for vip in &service.vips {
                    for from in 1000..1010 {
                        let client = if vip.is_ipv4() { IpAddr::from([10, 0, 10, 77]) } else { "fd00::77".parse().unwrap() };
                        let to = match &service.ports {
                            overlay_lb::Ports::All => 7,
                            overlay_lb::Ports::Named(named) => named.iter().next().unwrap().port.get(),
                        };
                        let (from, to) = (SocketAddr::new(client, from), SocketAddr::new(*vip, to));
                        let _ = balancer.handle_packet(&mut tcp(from, to, SYN, &[]), now);
                        let _ = balancer.handle_packet(&mut udp(from, to, b"x"), now);
                    }
                }
            }
            let mut counted = BTreeMap::new();
            for (_, flow) in balancer.flows().flows() {
                let services = state.services.iter().filter(|(_, it)| it.vips.contains(&flow.vip.ip()));
                let stands = services.flat_map(|(name, it)| it.replicas.iter().map(move |(id, replica)| (name, id, replica)));
                let mut stands = stands.filter(|(_, _, it)| it.addresses.contains(&flow.replica.ip()) && it.condition != Condition::Down);
                prop_assert!(stands.next().is_some(), "{flow:?}");
                *counted.entry(flow.owner).or_insert(0_u32) += 1;
            }
            let told: u32 = state.services.iter().flat_map(|(name, it)| it.replicas.keys().map(move |id| (name, *id))).map(|(name, id)| balancer.flows_of(name, id)).sum();
            prop_assert_eq!(told, counted.values().sum::<u32>());
            now += Duration::from_secs(70);
        }
    }

    #[test]
    fn no_bytes_make_a_balancer_panic(packets in vec((vec(any::<u8>(), 0..120), any::<bool>(), 0_usize..4), 1..20)) {
        let mut scene = Scene::new(service(2));
        scene.connect(4000);
        let (client, vip) = (at("10.0.9.50:4000"), at("10.0.9.100:80"));
        for (bytes, v6, kind) in packets {
            let mut packet = match kind {
                0 => bytes,
                1 => tcp(client, vip, ACK, &bytes),
                2 => icmp_error(client.ip(), vip.ip(), &bytes),
                _ => icmp_error("10.0.9.2".parse().unwrap(), client.ip(), &tcp(client, at("10.0.9.2:8080"), ACK, &bytes)),
            };
            if let Some(first) = packet.first_mut().filter(|_| v6 && kind == 0) {
                *first = 0x60 | *first & 15;
            }
            if kind == 1 && v6 {
                packet.truncate(packet.len() / 2);
            }
            let _ = scene.balancer.handle_packet(&mut packet, scene.now);
            let _ = scene.balancer.handle_frame(&mut packet, scene.now);
        }
    }
}
