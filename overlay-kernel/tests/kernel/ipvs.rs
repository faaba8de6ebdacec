//! IPVS on the lab's kernel.

use std::cell::RefCell;
use std::io::Read as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use overlay_core::testing::{Dice, Kernel, kernel_test, laws};
use overlay_core::{Backend as _, ErrorKind, IpFamily, Meter as _, Protocol, State as _, reconcile};
use overlay_kernel::Namespace;
use overlay_kernel::ipvs::testing::state;
use overlay_kernel::ipvs::{Destination, Forward, Ipvs, Key, Options, Scheduler, Service, State, Step};
use overlay_kernel::testing::judge;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{TestError, TestRunner};

struct World(Namespace);

impl World {
    fn new() -> Self {
        let home = Namespace::create().unwrap();
        judge(&home, "ip", &["link", "set", "lo", "up"]);
        Self(home)
    }

    fn ipvs(&self) -> Ipvs {
        Ipvs::open(self.0.try_clone().unwrap()).unwrap()
    }
}

impl laws::World<State> for World {
    type Native = State;
    type Table = Ipvs;
    type Foreign = String;

    fn open(&mut self) -> Ipvs {
        self.ipvs()
    }

    fn foreign(&mut self) -> String {
        judge(&self.0, "sh", &["-c", "cat /proc/net/ip_vs; grep . /proc/sys/net/ipv4/vs/*"])
    }

    fn meddle(&mut self, dice: &mut Dice) -> bool {
        let mut other = self.ipvs();
        let before = other.observe().unwrap();
        let mut after = before.clone();
        let key = before.services.keys().nth(dice.below(before.services.len())).copied();
        match (dice.below(3), key) {
            (0, Some(key)) => drop(after.services.remove(&key)),
            (1, Some(key)) => after.services.get_mut(&key).unwrap().destinations.clear(),
            _ => after.timeouts.udp = 299,
        }
        other.apply(&before.plan(&after)).unwrap();
        other.observe().unwrap() != before
    }
}

#[test]
fn ipvs_keeps_the_laws_of_a_backend() {
    kernel_test(Kernel::Lab, "kernel::ipvs_keeps_the_laws_of_a_backend", || {
        let total = RefCell::new([0; 4]);
        let cases = (ProptestConfig::default().cases / 2).max(1);
        let config =
            ProptestConfig { cases, failure_persistence: None, max_shrink_iters: 32, ..ProptestConfig::default() };
        let outcome = TestRunner::new(config).run(&(vec(state(), 1..3), any::<[u8; 32]>()), |(desired, seed)| {
            let seen = laws::backend(&mut World::new(), &desired, seed)?;
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

/// A socket's mark stands in for a rule's here, where nf_tables has bridges only.
#[test]
fn marked_packets_of_all_ports_are_one_service_and_are_counted() {
    kernel_test(Kernel::Lab, "kernel::marked_packets_of_all_ports_are_one_service", || {
        let world = World::new();
        judge(&world.0, "sh", &["-ec", "for n in 2 100; do ip addr add 10.0.9.$n/32 dev lo; done"]);
        let at = |port| SocketAddr::from(([10, 0, 9, 2], port));
        let mut ipvs = world.ipvs();
        let service = Service {
            options: Options { scheduler: Scheduler::RoundRobin, persistence: None },
            destinations: [(at(0), Destination { forward: Forward::Translate, weight: 1 })].into(),
        };
        let key = Key::Mark { mark: 7, family: IpFamily::V4 };
        let wanted = State { services: [(key, service)].into(), ..State::default() };
        reconcile(&mut ipvs, &wanted).unwrap();
        for port in [80, 81] {
            let listener = world.0.run(|| TcpListener::bind(at(port))).unwrap().unwrap();
            let marked = |to: SocketAddr| {
                let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
                socket.set_mark(7)?;
                socket.connect_timeout(&to.into(), Duration::from_secs(5))?;
                std::io::Result::Ok(TcpStream::from(socket))
            };
            let mut stream = world.0.run(|| marked(SocketAddr::from(([10, 0, 9, 100], port)))).unwrap().unwrap();
            drop(listener.accept().unwrap());
            assert_eq!(stream.read(&mut [0]).unwrap(), 0, "the server has closed");
        }
        let readings = ipvs.read().unwrap();
        let (_, destinations) = &readings[&key];
        let of_both = destinations[&at(0)];
        assert_eq!(of_both.active + of_both.inactive, 2, "{readings:?}");
        reconcile(&mut ipvs, &State::default()).unwrap();
    });
}

#[test]
fn what_is_there_already_or_gone_is_no_error_and_what_cannot_be_is_named() {
    kernel_test(Kernel::Lab, "kernel::what_ipvs_has_already_is_no_error", || {
        let mut ipvs = World::new().ipvs();
        let options = Options { scheduler: Scheduler::Maglev { by_port: true }, persistence: Some(60) };
        let key = Key::At { protocol: Protocol::Tcp, at: "[fd00::100]:80".parse().unwrap() };
        let at = "[fd00::2]:8080".parse().unwrap();
        let put = |weight| Step::PutDestination(key, at, Destination { forward: Forward::Translate, weight });
        ipvs.apply(&[Step::AddService(key, options), Step::AddService(key, options), put(1), put(2), put(2)]).unwrap();
        assert_eq!(ipvs.observe().unwrap().services[&key].destinations[&at].weight, 2);
        let go = [Step::RemoveDestination(key, at), Step::RemoveService(key)];
        ipvs.apply(&[go, go].concat()).unwrap();
        assert_eq!(ipvs.observe().unwrap(), State::default());
        let failed = ipvs.apply(&[put(1)]).unwrap_err();
        assert_eq!(failed.source.kind(), ErrorKind::Gone, "{}", overlay_core::told(&failed));
        assert!(failed.source.doing().contains("put destination"), "{failed}");
    });
}

#[test]
fn a_kernel_without_ipvs_is_told() {
    kernel_test(Kernel::Host, "kernel::a_kernel_without_ipvs_is_told", || {
        match Ipvs::open(Namespace::create().unwrap()) {
            Ok(mut ipvs) => assert_eq!(ipvs.observe().unwrap(), State::default()),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}"),
        }
    });
}
