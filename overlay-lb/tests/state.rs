//! The laws of states, and what a state must be to make sense.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail loudly too")]

use std::time::Duration;

use overlay_core::testing::laws::{self, InMemory};
use overlay_core::{EndpointId, Mac, Memory, Phase, Port, Protocol, State as _, reconcile};
use overlay_lb::testing::state;
use overlay_lb::{
    Affinity, Arrivals, Bind, Capabilities, Condition, Ports, Replica, Scheduler, Service, State, TimeoutScope,
    Timeouts, Weight,
};
use proptest::prelude::*;

proptest! {
    #[test]
    fn a_state_keeps_the_laws_of_states(a in state(), b in state()) {
        prop_assert_eq!((a.check(), b.check()), (Ok(()), Ok(())));
        laws::state(&a, &b)?;
    }

    #[test]
    fn memory_keeps_the_laws_of_backends(desired in proptest::collection::vec(state(), 1..4), seed: [u8; 32]) {
        let mut world = InMemory::new(|state: &mut State, _| state.services.clear());
        let seen = laws::backend(&mut world, &desired, seed)?;
        prop_assert_eq!(seen.reached, desired.len());
    }

    #[test]
    fn a_state_is_the_same_after_a_way_through_text(state in state()) {
        let text = serde_json::to_string(&state).unwrap();
        prop_assert_eq!(serde_json::from_str::<State>(&text).unwrap(), state);
    }
}

fn port(number: u16) -> Port {
    Port::new(number).unwrap()
}

fn id(number: u8) -> EndpointId {
    EndpointId::from_bytes([number; 16])
}

fn web() -> Service {
    let mut web = Service::new(["10.0.9.100".parse().unwrap()]).port(Protocol::Tcp, port(80), port(8080));
    web.replicas.insert(id(2), Replica::new(["10.0.9.2".parse().unwrap()]));
    web
}

fn with(service: Service) -> State {
    State { services: [("web".parse().unwrap(), service)].into_iter().collect(), ..State::default() }
}

#[test]
fn replicas_come_before_others_go_and_leave_the_rest_alone() {
    let mut then = web();
    then.replicas.insert(id(3), Replica::new(["10.0.9.3".parse().unwrap()]));
    then.replicas.get_mut(&id(2)).unwrap().condition = Condition::Draining;
    let steps = with(web()).plan(&with(then.clone()));
    assert_eq!(steps.iter().map(State::phase).collect::<Vec<_>>(), [Phase::Open, Phase::Close]);
    assert!(steps[1].to_string().ends_with("of web: 10.0.9.2 weight 1, draining"), "{}", steps[1]);
    then.scheduler = Scheduler::Maglev;
    assert_eq!(with(web()).plan(&with(then)).len(), 1);
}

/// What the refusal of a service that was changed so says.
fn refusal(change: impl FnOnce(&mut Service)) -> String {
    let mut service = web();
    change(&mut service);
    refused(&with(service))
}

fn refused(state: &State) -> String {
    let refused = state.check().unwrap_err().to_string();
    assert_eq!(reconcile(&mut Memory::<State>::default(), state).unwrap_err().to_string(), refused);
    refused
}

#[test]
fn places_and_sources_that_make_no_sense_are_refused_by_name() {
    let published = |change: &dyn Fn(&mut Service)| {
        refusal(|web| {
            web.vips = [].into();
            change(web);
        })
    };
    let at = |bind: Bind| published(&|web| web.bind = bind.clone());
    assert!(at(Bind::Addresses([].into())).ends_with("no address: it is published at one at least, or at any"));
    assert!(at(Bind::Interfaces([].into())).ends_with("no interface: it is published at one at least, or at any"));
    for address in ["127.0.0.1", "::1", "fe80::1", "0.0.0.0", "224.0.0.1", "::ffff:192.0.2.1"] {
        let said = at(Bind::Addresses([address.parse().unwrap()].into()));
        assert!(said.contains("nothing is published there"), "{said}");
    }
    for net in ["10.0.0.1/24", "::ffff:192.0.2.0/120"] {
        let said = published(&|web| _ = web.sources.insert(net.parse().unwrap()));
        assert!(said.ends_with("a source is a network without bits behind its prefix, IPv4 as IPv4"), "{said}");
    }
    let of_published = "where it is found and by whom is said of a published service only";
    assert!(refusal(|web| web.bind = Bind::Interfaces(["eth0".parse().unwrap()].into())).ends_with(of_published));
    assert!(refusal(|web| _ = web.sources.insert("10.0.0.0/8".parse().unwrap())).ends_with(of_published));
    let said = refusal(|web| web.masquerade = true);
    assert!(said.ends_with("whom its replicas see is said of a published service only"), "{said}");
    assert!(with(Service { vips: [].into(), ..web() }.masqueraded()).check().is_ok());
}

#[test]
fn published_ports_and_arrivals_that_make_no_sense_are_refused_by_name() {
    let mut twice = with(Service { vips: [].into(), ..web() });
    twice.services.insert("z".parse().unwrap(), Service::published().port(Protocol::Tcp, port(80), port(1)));
    assert_eq!(refused(&twice), "service z: the machine's tcp 80: service web is there already");
    let arrivals = |marks: &[(Mac, u32)], answers: &[[&str; 2]]| {
        let answers = answers.iter().map(|pair| pair.map(|it| it.parse().unwrap()).into());
        let marks = marks.iter().copied().collect();
        let arrivals =
            Arrivals { interface: "eth1".parse().unwrap(), marks, answers: answers.collect(), inside: [].into() };
        refused(&State { arrivals: Some(arrivals), ..State::default() })
    };
    for inside in ["10.0.0.1/24", "0.0.0.0/0", "::/0"] {
        let inside = [inside.parse().unwrap()].into();
        let (interface, marks, answers) = ("eth1".parse().unwrap(), [].into(), [].into());
        let arrivals = Some(Arrivals { interface, marks, answers, inside });
        let said = arrivals.as_ref().unwrap().to_string();
        assert!(said.starts_with("what comes by eth1 from 0 balancers, nobody of "), "{said}");
        let reason = "what is inside is a network without bits behind its prefix, and not everything";
        assert!(refused(&State { arrivals, ..State::default() }).ends_with(reason));
    }
    let station = Mac::from_ipv4([10, 0, 0, 2].into());
    for marks in [[(station, 0)], [(Mac::BROADCAST, 1)]] {
        assert!(arrivals(&marks, &[]).ends_with("a station has one, and it is not 0"));
    }
    for answers in [["10.0.0.9", "fd00::1"], ["10.0.0.9", "127.0.0.1"], ["10.0.0.9", "10.0.0.9"]] {
        assert!(arrivals(&[(station, 1)], &[answers]).ends_with("these are two addresses of the place, of one family"));
    }
}

#[test]
fn what_makes_no_sense_is_refused_by_name() {
    let nowhere = refusal(|it| (it.vips, it.ports) = ([].into(), Ports::All));
    assert_eq!(
        nowhere,
        "service web: no VIP: it needs one, or one of each family, or ports of the machine's own by name"
    );
    assert_eq!(
        refusal(|it| it.vips.extend([std::net::IpAddr::from([10, 0, 9, 101])])),
        "service web: 2 VIPs: there is one of each family at most"
    );
    for none in ["127.0.0.1", "0.0.0.0", "224.0.0.1", "::ffff:10.0.9.1"] {
        let said = refusal(|it| it.vips = [none.parse().unwrap()].into());
        assert_eq!(said, format!("service web: {none}: that is no address that one host has on a network"));
    }
    assert_eq!(
        refusal(|it| it.ports = Ports::Named([].into())),
        "service web: no port: then nothing is served: name one, or serve all"
    );
    assert_eq!(
        refusal(|it| *it = it.clone().port(Protocol::Tcp, port(80), port(9090))),
        "service web: tcp 80 to 9090: a port leads to one port of the replicas"
    );
    for timeout in [Duration::ZERO, Duration::from_millis(1500), Duration::from_secs(30 * 86_400 + 1)] {
        let said = refusal(|it| it.affinity = Some(Affinity { timeout }));
        assert!(said.ends_with("it is 1 s to 30 days, in whole seconds"), "{said}");
        let said = refusal(|it| it.timeouts = Some(Timeouts { datagram: timeout, ..Timeouts::default() }));
        assert!(said.ends_with("it is 1 s to 30 days, in whole seconds"), "{said}");
    }
    assert!(
        refusal(|it| drop(it.replicas.insert(id(3), Replica::new(["fd00::3".parse().unwrap()]))))
            .ends_with("family of a VIP")
    );
    assert_eq!(
        refusal(|it| drop(it.replicas.insert(id(3), Replica::new(["10.0.9.2".parse().unwrap()])))),
        "service web: 10.0.9.2: two replicas cannot have one address"
    );
    assert_eq!(
        refusal(|it| drop(it.replicas.insert(id(3), Replica::new(["10.0.9.100".parse().unwrap()])))),
        "service web: 10.0.9.100: it is a VIP, and whoever is behind one is somewhere else"
    );
    let reached = |vip: &str, source: &str| {
        let mut state = with(web());
        state.sources.insert(vip.parse().unwrap(), source.parse().unwrap());
        state.check().unwrap_err().to_string()
    };
    assert_eq!(reached("10.0.9.77", "10.0.9.5"), "VIP 10.0.9.77: source 10.0.9.5: no service has this VIP");
    assert_eq!(reached("10.0.9.100", "10.0.9.100"), "VIP 10.0.9.100: source 10.0.9.100: it is a VIP itself");
    for wrong in ["fd00::5", "127.0.0.1", "224.0.0.1"] {
        assert!(reached("10.0.9.100", wrong).ends_with("of the client's, of the VIP's family"), "{wrong}");
    }
    let many = (0..=4096_u32).map(|at| {
        let mut bytes = [9; 16];
        bytes[..4].copy_from_slice(&at.to_be_bytes());
        (EndpointId::from_bytes(bytes), Replica::new([std::net::Ipv4Addr::from(0x0b00_0001 + at).into()]))
    });
    assert_eq!(refusal(|it| it.replicas = many.collect()), "service web: 4097 replicas: a service has 4,096 at most");
    assert!(Weight::new(0).is_err());
}

#[test]
fn two_services_share_an_address_but_no_port() {
    let mut state = with(web());
    state.services.insert("two".parse().unwrap(), web().port(Protocol::Udp, port(80), port(53)));
    assert_eq!(refused(&state), "service web: 10.0.9.100 tcp 80: service two is there already");
    let mut other = web();
    other.ports = Ports::All;
    for (first, second) in [("a", "web"), ("web", "z")] {
        let mut state = with(web());
        state.services.insert(if first == "web" { second } else { first }.parse().unwrap(), other.clone());
        assert!(refused(&state).ends_with(&format!("service {first} is there already")));
    }
    let elsewhere = Service::new(other.vips).port(Protocol::Udp, port(80), port(53));
    state.services.insert("two".parse().unwrap(), elsewhere);
    assert_eq!(state.check(), Ok(()));
}

#[test]
fn what_a_backend_lacks_is_refused_by_name() {
    let can = Capabilities {
        backend: "the abacus",
        schedulers: [Scheduler::RoundRobin].into(),
        replicas: 1,
        affinity: false,
        timeouts: TimeoutScope::Nobody,
        all_ports: false,
        rejects: true,
        published: false,
        protocols: [Protocol::Tcp].into(),
    };
    let said = |change: fn(&mut Service)| {
        let mut service = web();
        change(&mut service);
        can.permit(&with(service)).map_err(|refusal| refusal.to_string())
    };
    assert_eq!(said(|_| {}), Ok(()));
    let no = |text: &str| Err(format!("service web: {text}"));
    assert_eq!(
        said(|it| it.scheduler = Scheduler::LeastConnection),
        no("least connection: the abacus has no such scheduler")
    );
    assert_eq!(
        said(|it| drop(it.replicas.insert(id(3), Replica::new(["10.0.9.3".parse().unwrap()])))),
        no("2 replicas: the abacus has 1 at most")
    );
    assert!(said(|it| it.affinity = Some(Affinity { timeout: Duration::from_secs(1) })).is_err());
    assert_eq!(
        said(|it| it.timeouts = Some(Timeouts::default())),
        no("timeouts: the abacus leaves them to the namespace")
    );
    assert_eq!(
        said(|it| *it = it.clone().port(Protocol::Sctp, port(80), port(80))),
        no("sctp 80: the abacus knows no sctp")
    );
    assert_eq!(said(|it| it.ports = Ports::All), no("all ports: the abacus serves ports by name"));
    let mut two = with(web());
    let mut other = Service::new(["10.0.9.101".parse().unwrap()]).port(Protocol::Tcp, port(80), port(80));
    other.timeouts = Some(Timeouts { datagram: Duration::from_secs(9), ..Timeouts::default() });
    two.services.get_mut("web").unwrap().timeouts = Some(Timeouts::default());
    two.services.insert("two".parse().unwrap(), other);
    let together = Capabilities { timeouts: TimeoutScope::Together, ..can };
    assert!(together.permit(&two).unwrap_err().to_string().ends_with("the abacus has the same for all services"));
}
