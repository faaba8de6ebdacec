//! IPVS in the kernel lab: the suite, and the laws.

use std::cell::RefCell;
use std::net::SocketAddr;

use overlay_core::testing::{Dice, Kernel, kernel_test, laws};
use overlay_core::{Backend as _, Memory, Meter as _, Protocol, State as _, reconcile};
use overlay_kernel::Namespace;
use overlay_kernel::testing::judge;
use overlay_lb::kernel::{Ipvs, IpvsNative};
use overlay_lb::testing::{Wants, state_of};
use overlay_lb::{Capabilities, Ports, State};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{TestError, TestRunner};

use crate::suite::{self, Answer, Ground as _, KINDS, at, service, state};
use crate::town::{Place, Town, script};

fn show(namespace: &Namespace) -> String {
    // The kernel adds routes of its own a moment after a device is up.
    const SHOW: &str = "cat /proc/net/ip_vs; grep . /proc/sys/net/ipv4/vs/*
        (ip route show table all; ip -6 route show table all) | grep -v 'proto kernel'; true";
    judge(namespace, "sh", &["-c", SHOW])
}

#[test]
fn ipvs_does_what_it_says_it_can() {
    kernel_test(Kernel::Lab, "lb::ipvs_does_what_it_says_it_can", || {
        let town = Town::new(3);
        let before = show(&town.client);
        let table = Ipvs::open(town.client.try_clone().unwrap()).unwrap().marked_by_senders();
        let can = table.capabilities();
        assert!(can.all_ports);
        suite::run(&mut Place::new(&town, table, can).marking());
        assert_eq!(show(&town.client), before);
    });
}

#[test]
fn ipvs_counts_what_replicas_have() {
    kernel_test(Kernel::Lab, "lb::ipvs_counts_what_replicas_have", || {
        let town = Town::new(1);
        let table = Ipvs::open(town.client.try_clone().unwrap()).unwrap();
        let can = table.capabilities();
        let mut place = Place::new(&town, table.marked_by_senders(), can).marking();
        let mut all = service(&[2]);
        all.ports = Ports::All;
        for (service, port) in [(service(&[2]), at(KINDS[0]).port()), (all, 8080)] {
            place.settle(&State::default());
            place.settle(&state(&service));
            for (kind, replica) in [(KINDS[0], "10.0.9.2"), (KINDS[1], "fd00::2")] {
                let to = SocketAddr::new(at(kind).ip(), port);
                let held: Vec<_> = (0..3).map(|_| place.open(Protocol::Tcp, to)).collect();
                assert!(held.iter().all(|(_, answer)| matches!(answer, Answer::From(..))), "{to}");
                let readings = place.table.read().unwrap();
                assert_eq!(readings.of_replica(replica.parse().unwrap()), 3, "{to}: {readings:?}");
                assert!(readings.iter().all(|(vip, ..)| at(KINDS[0]).ip() == vip || at(KINDS[1]).ip() == vip));
                held.into_iter().for_each(|(held, _)| place.close(held));
            }
        }
    });
}

#[test]
fn ipvs_serves_at_all_ports_what_is_marked_and_nothing_else() {
    kernel_test(Kernel::Lab, "lb::ipvs_serves_at_all_ports_what_is_marked", || {
        let town = Town::new(1);
        let table = Ipvs::open(town.client.try_clone().unwrap()).unwrap().marked_by_senders();
        let can = table.capabilities();
        let mut place = Place::new(&town, table, can);
        let mut all = service(&[2]);
        all.ports = Ports::All;
        place.settle(&state(&all));
        for kind in [KINDS[0], KINDS[1]] {
            let (held, answer) = place.open(kind.0, SocketAddr::new(at(kind).ip(), 8080));
            // The client listens there itself.
            let Answer::From(who, _) = answer else { panic!("{kind:?}: {answer:?}") };
            assert_eq!(who, suite::replica(5).address(kind.1).unwrap(), "{kind:?}");
            place.close(held);
        }
        place = place.marking();
        place.settle(&state(&all));
        for kind in KINDS {
            let (held, answer) = place.open(kind.0, SocketAddr::new(at(kind).ip(), 8080));
            let Answer::From(who, _) = answer else { panic!("{kind:?}: {answer:?}") };
            assert_eq!(who, suite::replica(2).address(kind.1).unwrap(), "{kind:?}");
            place.close(held);
        }
    });
}

struct World(Namespace);

impl World {
    fn ipvs(&self) -> Ipvs {
        Ipvs::open(self.0.try_clone().unwrap()).unwrap().marked_by_senders()
    }
}

impl laws::World<State> for World {
    type Native = IpvsNative;
    type Table = Ipvs;
    type Foreign = String;

    fn open(&mut self) -> Ipvs {
        self.ipvs()
    }

    fn foreign(&mut self) -> String {
        show(&self.0)
    }

    fn meddle(&mut self, dice: &mut Dice) -> bool {
        let mut other = self.ipvs();
        let before = other.observe().unwrap();
        let mut after = before.clone();
        let key = before.ipvs.services.keys().nth(dice.below(before.ipvs.services.len())).copied();
        match (dice.below(3), key) {
            (0, Some(key)) => drop(after.ipvs.services.remove(&key)),
            (1, Some(key)) => after.ipvs.services.get_mut(&key).unwrap().destinations.clear(),
            _ => after.locals.0.clear(),
        }
        other.apply(&before.plan(&after)).unwrap();
        other.observe().unwrap() != before
    }
}

#[test]
fn ipvs_keeps_the_laws_of_a_backend() {
    kernel_test(Kernel::Lab, "lb::ipvs_keeps_the_laws_of_a_backend", || {
        let total = RefCell::new([0; 4]);
        let cases = (ProptestConfig::default().cases / 4).max(1);
        let config =
            ProptestConfig { cases, failure_persistence: None, max_shrink_iters: 16, ..ProptestConfig::default() };
        let wants = Wants { published: false, timeouts: false, ..Wants::default() };
        let strategy = (vec(state_of(wants), 1..3), any::<[u8; 32]>());
        let outcome = TestRunner::new(config).run(&strategy, |(desired, seed)| {
            let home = Namespace::create().unwrap();
            script(
                &home,
                "ip link set lo up; ip link add eth0 type veth peer name eth1
                 for d in eth0 eth1; do ip link set $d addrgenmode none up; done
                 ip addr add 10.0.10.1/24 dev eth0; ip addr add fd00:0:0:a::1/64 dev eth0 nodad",
            );
            let seen = laws::backend(&mut World(home), &desired, seed)?;
            let seen = [seen.steps, seen.faults, seen.kills, seen.repairs];
            total.borrow_mut().iter_mut().zip(seen).for_each(|(total, seen)| *total += seen);
            Ok(())
        });
        match outcome {
            Ok(()) => {}
            Err(TestError::Fail(reason, input)) => panic!("{reason}\n{input:#?}"),
            Err(TestError::Abort(reason)) => panic!("{reason}"),
        }
        assert!(total.borrow().iter().all(|count| *count > 0), "{total:?}");
    });
}

#[test]
fn what_ipvs_lacks_is_refused_by_name() {
    let can = Capabilities::ipvs();
    let mut all = service(&[2]);
    all.ports = Ports::All;
    let said = "service web: all ports: IPVS serves ports by name";
    assert_eq!(can.permit(&state(&all)).unwrap_err().to_string(), said);
    reconcile(&mut Memory::<State>::default(), &state(&all)).unwrap();
}
