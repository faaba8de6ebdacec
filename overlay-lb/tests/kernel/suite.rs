//! What every backend does that says it can: one suite, on whatever ground.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use overlay_core::{EndpointId, IpFamily, Port, Protocol};
use overlay_lb::{Affinity, Capabilities, Condition, Ports, Replica, Scheduler, Service, State, Timeouts, Weight};

/// What came of asking: the replica that answered, and the client as it saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Answer {
    From(IpAddr, IpAddr),
    Refused,
    Silence,
}

/// A conversation that is held.
pub(crate) type Held = usize;

/// A client at 10.0.9.5 and fd00::5, and replicas at .2 to .4 and ::2 to ::4, that listen at port 8080 of TCP and UDP. The client listens
/// there too.
pub(crate) trait Ground {
    fn capabilities(&self) -> Capabilities;
    fn settle(&mut self, state: &State);
    /// Opens a conversation, of TCP or UDP, and says who answers.
    fn open(&mut self, protocol: Protocol, to: SocketAddr) -> (Held, Answer);
    /// Asks once more in one that is held.
    fn ask(&mut self, held: Held) -> Answer;
    /// Ends one.
    fn close(&mut self, held: Held);
    /// How many flows a replica has.
    fn flows(&mut self, replica: IpAddr) -> u64;
    /// An echo request.
    fn pings(&mut self, to: IpAddr) -> bool;
    /// Lets time pass, if it is its own to say.
    fn wait(&mut self, span: Duration) -> bool;
}

pub(crate) const HERE: [&str; 2] = ["10.0.9.5", "fd00::5"];

pub(crate) fn id(number: u8) -> EndpointId {
    EndpointId::from_bytes([number; 16])
}

pub(crate) fn vip(family: IpFamily) -> IpAddr {
    match family {
        IpFamily::V4 => [10, 0, 9, 100].into(),
        IpFamily::V6 => "fd00::100".parse().unwrap(),
    }
}

pub(crate) fn replica(number: u8) -> Replica {
    Replica::new([IpAddr::from([10, 0, 9, number]), format!("fd00::{number}").parse().unwrap()])
}

pub(crate) fn port(number: u16) -> Port {
    Port::new(number).unwrap()
}

/// Ports 80 of TCP and 53 of UDP, to 8080 of these.
pub(crate) fn service(replicas: &[u8]) -> Service {
    let mut service = Service::new([vip(IpFamily::V4), vip(IpFamily::V6)])
        .port(Protocol::Tcp, port(80), port(8080))
        .port(Protocol::Udp, port(53), port(8080));
    service.replicas = replicas.iter().map(|number| (id(*number), replica(*number))).collect();
    service
}

pub(crate) fn state(service: &Service) -> State {
    let own = HERE.map(|it| it.parse::<IpAddr>().unwrap());
    let source = |vip: &IpAddr| own.into_iter().find(|own| own.is_ipv4() == vip.is_ipv4());
    let sources = service.vips.iter().filter_map(|vip| Some((*vip, source(vip)?))).collect();
    State { services: [("web".parse().unwrap(), service.clone())].into_iter().collect(), sources, ..State::default() }
}

pub(crate) const KINDS: [(Protocol, IpFamily); 4] = [
    (Protocol::Tcp, IpFamily::V4),
    (Protocol::Tcp, IpFamily::V6),
    (Protocol::Udp, IpFamily::V4),
    (Protocol::Udp, IpFamily::V6),
];

pub(crate) fn at((protocol, family): (Protocol, IpFamily)) -> SocketAddr {
    SocketAddr::new(vip(family), if protocol == Protocol::Tcp { 80 } else { 53 })
}

fn last_of(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(address) => address.octets()[3],
        IpAddr::V6(address) => address.octets()[15],
    }
}

/// How often who answered, of so many conversations; each saw the client as it is.
fn spread(ground: &mut dyn Ground, kind: (Protocol, IpFamily), count: usize) -> BTreeMap<u8, usize> {
    let (mut spread, mut all) = (BTreeMap::new(), Vec::new());
    for _ in 0..count {
        let (held, answer) = ground.open(kind.0, at(kind));
        all.push(held);
        let Answer::From(replica, client) = answer else { panic!("{kind:?}: {answer:?}") };
        assert_eq!(client, HERE[usize::from(kind.1 == IpFamily::V6)].parse::<IpAddr>().unwrap());
        *spread.entry(last_of(replica)).or_default() += 1;
    }
    all.into_iter().for_each(|held| ground.close(held));
    spread
}

/// All that the backend says it can.
pub(crate) fn run(ground: &mut dyn Ground) {
    let can = ground.capabilities();
    let only = |it: &Scheduler| can.schedulers.contains(it);
    everybody_gets_a_share(ground, Scheduler::ALL.into_iter().filter(only));
    a_replica_that_drains_keeps_what_it_has(ground);
    what_is_cut_goes_to_another(ground);
    a_client_that_is_picked_itself_answers_itself(ground);
    if can.all_ports {
        all_ports_lead_to_the_same_ports(ground, &can);
    }
    nobody_else_answers(ground, &can);
    flows_are_counted_until_they_end(ground);
    if can.affinity {
        sources_come_back(ground);
        if can.all_ports {
            sources_come_back_at_all_ports(ground);
        }
        // IPVS remembers a source for as long as it has flows, besides.
        if can.backend != Capabilities::ipvs().backend {
            sources_are_forgotten(ground);
        }
    }
    if can.timeouts != overlay_lb::TimeoutScope::Nobody {
        idle_flows_are_forgotten(ground);
    }
    ground.settle(&State::default());
}

fn everybody_gets_a_share(ground: &mut dyn Ground, schedulers: impl Iterator<Item = Scheduler>) {
    for scheduler in schedulers {
        let mut service = service(&[2, 3, 4]);
        service.scheduler = scheduler;
        service.replicas.get_mut(&id(2)).unwrap().weight = Weight::new(2).unwrap();
        for kind in KINDS {
            ground.settle(&State::default()); // no flows are left to count
            ground.settle(&state(&service));
            let spread = spread(ground, kind, 24);
            match scheduler {
                Scheduler::RoundRobin | Scheduler::LeastConnection => {
                    assert_eq!(spread, BTreeMap::from([(2, 8), (3, 8), (4, 8)]), "{scheduler} {kind:?}");
                }
                Scheduler::WeightedRoundRobin | Scheduler::WeightedLeastConnection => {
                    assert_eq!(spread, BTreeMap::from([(2, 12), (3, 6), (4, 6)]), "{scheduler} {kind:?}");
                }
                Scheduler::SourceHash => assert_eq!(spread.len(), 1, "{spread:?} {kind:?}"),
                // That one of three gets none of 24 happens once in ten thousand times; kernels' ports are not drawn evenly either.
                Scheduler::Maglev => assert!(spread.len() > 1, "{spread:?} {kind:?}"),
            }
        }
    }
}

fn a_replica_that_drains_keeps_what_it_has(ground: &mut dyn Ground) {
    let mut service = service(&[2, 3]);
    ground.settle(&state(&service));
    let held: Vec<_> = KINDS.iter().flat_map(|kind| [*kind; 4]).map(|kind| ground.open(kind.0, at(kind))).collect();
    service.replicas.get_mut(&id(2)).unwrap().condition = Condition::Draining;
    ground.settle(&state(&service));
    for (held, answer) in &held {
        assert_eq!(ground.ask(*held), *answer);
    }
    for kind in KINDS {
        assert_eq!(spread(ground, kind, 6), BTreeMap::from([(3, 6)]), "{kind:?}");
    }
    held.into_iter().for_each(|(held, _)| ground.close(held));
}

/// UDP goes to another replica with its next datagram; TCP is reset, so that nobody waits.
fn what_is_cut_goes_to_another(ground: &mut dyn Ground) {
    for down in [true, false] {
        for drained in [true, false] {
            let mut service = service(&[2, 3]);
            ground.settle(&state(&service));
            let held: Vec<_> =
                KINDS.iter().flat_map(|kind| [*kind; 4]).map(|kind| (kind, ground.open(kind.0, at(kind)))).collect();
            if drained {
                service.replicas.get_mut(&id(2)).unwrap().condition = Condition::Draining;
                ground.settle(&state(&service));
            }
            match down {
                true => service.replicas.get_mut(&id(2)).unwrap().condition = Condition::Down,
                false => drop(service.replicas.remove(&id(2))),
            }
            ground.settle(&state(&service));
            for (kind, (held, before)) in held {
                let Answer::From(replica, client) = before else { panic!("{before:?}") };
                let expected = match (last_of(replica), kind.0) {
                    (2, Protocol::Tcp) => Answer::Refused,
                    (2, _) => Answer::From(self::replica(3).address(kind.1).unwrap(), client),
                    _ => before,
                };
                assert_eq!(ground.ask(held), expected, "{kind:?} of {replica}, down: {down}, drained: {drained}");
                ground.close(held);
            }
        }
    }
}

fn a_client_that_is_picked_itself_answers_itself(ground: &mut dyn Ground) {
    ground.settle(&state(&service(&[5])));
    for kind in KINDS {
        assert_eq!(spread(ground, kind, 3), BTreeMap::from([(5, 3)]), "{kind:?}");
    }
    assert!(ground.pings(vip(IpFamily::V4)) && ground.pings(vip(IpFamily::V6)));
}

fn all_ports_lead_to_the_same_ports(ground: &mut dyn Ground, can: &Capabilities) {
    let mut service = service(&[2, 3]);
    service.ports = Ports::All;
    ground.settle(&state(&service));
    for (protocol, family) in KINDS {
        let mut seen = [0; 5];
        for _ in 0..4 {
            let (held, answer) = ground.open(protocol, SocketAddr::new(vip(family), 8080));
            let Answer::From(replica, _) = answer else { panic!("{protocol} {family}: {answer:?}") };
            seen[usize::from(last_of(replica))] += 1;
            ground.close(held);
        }
        assert_eq!(seen, [0, 0, 2, 2, 0]);
        let (held, answer) = ground.open(protocol, SocketAddr::new(vip(family), 8081));
        // IPVS leaves a replica's ICMPv6 error as it came, about a flow that the client does not know.
        let untold = can.backend == "IPVS" && (protocol, family) == (Protocol::Udp, IpFamily::V6);
        let expected = if untold { Answer::Silence } else { Answer::Refused };
        assert_eq!(answer, expected, "{protocol} {family}: a replica has nobody at another port");
        ground.close(held);
    }
}

/// The client itself listens at port 8080 of all its addresses, and is not asked.
fn nobody_else_answers(ground: &mut dyn Ground, can: &Capabilities) {
    let mut nobody = service(&[2]);
    nobody.replicas.get_mut(&id(2)).unwrap().condition = Condition::Draining;
    for service in [service(&[2]), nobody, service(&[])] {
        ground.settle(&state(&service));
        for (protocol, family) in KINDS {
            let declared = !service.replicas.values().all(|it| it.condition != Condition::Active);
            let ports = [at((protocol, family)).port(), 8080, 8081];
            for port in ports.into_iter().skip(usize::from(declared)) {
                let (held, answer) = ground.open(protocol, SocketAddr::new(vip(family), port));
                if can.rejects {
                    assert_eq!(answer, Answer::Refused, "{protocol} {family} {port}");
                }
                ground.close(held);
            }
        }
    }
}

/// What whoever drains a replica waits for.
fn flows_are_counted_until_they_end(ground: &mut dyn Ground) {
    ground.settle(&state(&service(&[2])));
    for family in [IpFamily::V4, IpFamily::V6] {
        let replica = replica(2).address(family).unwrap();
        let before = ground.flows(replica);
        let open = |ground: &mut dyn Ground, protocol| {
            let (held, answer) = ground.open(protocol, at((protocol, family)));
            assert!(matches!(answer, Answer::From(..)), "{protocol}: {answer:?}");
            held
        };
        let held = [Protocol::Tcp, Protocol::Tcp, Protocol::Tcp].map(|protocol| open(ground, protocol));
        let kept = [Protocol::Udp, Protocol::Udp].map(|protocol| open(ground, protocol));
        let mut drained = service(&[2, 3]);
        drained.replicas.get_mut(&id(2)).unwrap().condition = Condition::Draining;
        ground.settle(&state(&drained));
        assert_eq!(ground.flows(replica) - before, 5, "{family}: those of one that drains count too");
        held.into_iter().for_each(|held| ground.close(held));
        let ended = (0..50).any(|_| ground.flows(replica) - before == 2 || !ground.wait(Duration::from_millis(100)));
        assert!(ended, "{family}: {} of {before} before", ground.flows(replica));
        kept.into_iter().for_each(|held| ground.close(held));
        ground.settle(&state(&service(&[2])));
    }
}

fn sources_come_back(ground: &mut dyn Ground) {
    let affinity = Some(Affinity { timeout: Duration::from_secs(60) });
    let like = |replicas: &[u8]| Service { affinity, ..service(replicas) };
    ground.settle(&state(&like(&[2, 3])));
    let had = KINDS.map(|kind| spread(ground, kind, 9));
    assert!(had.iter().all(|spread| spread.len() == 1), "{had:?}");
    let had = had.map(|spread| spread.into_keys().collect::<Vec<_>>());
    // Who comes in addition is not for sources that have been here; who drains is for none of them.
    ground.settle(&state(&like(&[2, 3, 4])));
    for (kind, had) in KINDS.into_iter().zip(&had) {
        assert_eq!(spread(ground, kind, 9).into_keys().collect::<Vec<_>>(), *had, "{kind:?}");
    }
    let mut drained = like(&[2, 3, 4]);
    let gone: BTreeSet<u8> = had.into_iter().flatten().collect();
    for number in &gone {
        drained.replicas.get_mut(&id(*number)).unwrap().condition = Condition::Draining;
    }
    ground.settle(&state(&drained));
    for kind in KINDS {
        let now = spread(ground, kind, 9);
        assert!(now.len() == 1 && now.keys().all(|it| !gone.contains(it)), "{kind:?}: {now:?} after {gone:?}");
    }
    ground.settle(&state(&service(&[2, 3, 4])));
    for kind in KINDS {
        assert_eq!(spread(ground, kind, 9).len(), 3, "{kind:?}: none is remembered any more");
    }
}

/// The time runs from a source's last flow on.
fn sources_are_forgotten(ground: &mut dyn Ground) {
    let mut service = service(&[2, 3, 4]);
    service.affinity = Some(Affinity { timeout: Duration::from_secs(2) });
    ground.settle(&state(&service));
    let udp = (Protocol::Udp, IpFamily::V4);
    let mut seen = BTreeSet::new();
    for _ in 0..6 {
        let first = spread(ground, udp, 2);
        assert_eq!(first.len(), 1, "{first:?}");
        seen.extend(first.into_keys());
        if seen.len() > 1 || !ground.wait(Duration::from_secs(4)) {
            return;
        }
    }
    panic!("round robin goes on: {seen:?}");
}

fn sources_come_back_at_all_ports(ground: &mut dyn Ground) {
    let affinity = Some(Affinity { timeout: Duration::from_secs(60) });
    let like = |replicas: &[u8]| Service { affinity, ports: Ports::All, ..service(replicas) };
    let asked = |ground: &mut dyn Ground| -> BTreeSet<IpAddr> {
        let all = [Protocol::Tcp, Protocol::Udp].map(|protocol| {
            let opened: Vec<_> =
                (0..4).map(|_| ground.open(protocol, SocketAddr::new(vip(IpFamily::V4), 8080))).collect();
            opened
                .into_iter()
                .map(|(held, answer)| {
                    ground.close(held);
                    let Answer::From(replica, _) = answer else { panic!("{protocol}: {answer:?}") };
                    replica
                })
                .collect::<Vec<_>>()
        });
        all.into_iter().flatten().collect()
    };
    ground.settle(&state(&like(&[2, 3, 4])));
    let first = asked(ground);
    assert_eq!(first.len(), 1, "TCP and UDP go to the same: {first:?}");
    let gone = last_of(*first.first().unwrap());
    let left: Vec<u8> = [2, 3, 4].into_iter().filter(|number| *number != gone).collect();
    ground.settle(&state(&like(&left)));
    let second = asked(ground);
    assert!(second.len() == 1 && second != first, "{first:?}, then {second:?}");
    ground.settle(&state(&like(&[2, 3, 4])));
    assert_eq!(asked(ground), second, "who comes back later finds others served");
}

fn idle_flows_are_forgotten(ground: &mut dyn Ground) {
    let mut service = service(&[2, 3]);
    let seconds = Duration::from_secs;
    service.timeouts = Some(Timeouts { established: seconds(6), transitory: seconds(4), datagram: seconds(2) });
    ground.settle(&state(&service));
    let udp = (Protocol::Udp, IpFamily::V4);
    let (held, first) = ground.open(udp.0, at(udp));
    let (kept, _) = ground.open(Protocol::Tcp, at((Protocol::Tcp, IpFamily::V4)));
    if !ground.wait(Duration::from_millis(1000)) {
        return;
    }
    assert_eq!(ground.ask(held), first);
    ground.wait(seconds(5));
    // Whoever comes after it in the order of replicas: a flow that is known would go where it went.
    let (between, _) = ground.open(udp.0, at(udp));
    let again = (0..3).map(|_| {
        ground.wait(seconds(5));
        ground.ask(held)
    });
    let again: Vec<_> = again.collect();
    assert!(again.iter().any(|answer| *answer != first), "{again:?}");
    ground.wait(seconds(8));
    assert_eq!(ground.ask(kept), Answer::Refused, "a connection that is forgotten is reset");
    [held, kept, between].into_iter().for_each(|held| ground.close(held));
}
