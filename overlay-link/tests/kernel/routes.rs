//! The laws of a backend for the routes of a container, on a real kernel.

use std::cell::RefCell;
use std::process::Command;

use overlay_core::testing::{Dice, Kernel, kernel_test, laws};
use overlay_core::{Backend, Lower, Shadow, reconcile};
use overlay_kernel::Namespace;
use overlay_kernel::link::Ways;
use overlay_kernel::testing::judge;
use overlay_link::testing::routes;
use overlay_link::{ContainerRoutes, Route, Routes};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{TestError, TestRunner};

use crate::lab::{carries, name, whole};

/// A container on two networks, and what opens its routes.
struct World<T> {
    container: Namespace,
    open: fn(ContainerRoutes) -> T,
}

fn container() -> Namespace {
    let container = Namespace::create().unwrap();
    let lay = "set -e; for n in 1 2; do ip link add lan$n type veth peer name far$n; \
               for d in lan far; do ip link set $d$n addrgenmode none up; done; \
               ip addr add 172.30.$n.10/24 dev lan$n; ip addr add fd00:0:0:$n::a/64 dev lan$n nodad; done; \
               ip route add 10.9.0.0/16 dev lan1; ip rule add from 10.9.0.1 priority 500 table 77";
    judge(&container, "sh", &["-c", lay]);
    carries(&container, "lan2");
    container
}

impl<T> World<T> {
    fn routes(&self) -> ContainerRoutes {
        ContainerRoutes::open(self.container.try_clone().unwrap()).unwrap()
    }
}

impl<T> laws::World<Routes> for World<T>
where
    T: Lower<Routes, Native = Ways> + Backend<State = Ways>,
{
    type Native = Ways;
    type Table = T;
    type Foreign = String;

    fn open(&mut self) -> T {
        (self.open)(self.routes())
    }

    fn foreign(&mut self) -> String {
        whole(&self.container)
    }

    fn meddle(&mut self, dice: &mut Dice) -> bool {
        let before = self.routes().observe().unwrap();
        let source = before.from.keys().nth(dice.below(before.from.len().max(1))).copied();
        let table = source.map_or(0, Ways::table);
        let family = if source.is_some_and(|source| source.is_ipv6()) { "-6" } else { "-4" };
        let mark = before.marked.keys().next().copied().unwrap_or_default();
        let damage = match (dice.below(8), source) {
            (0, Some(source)) => format!("ip {family} rule del from {source} priority {}", Ways::PRIORITY),
            (1, Some(source)) => format!("ip {family} rule del from {source} priority {}", Ways::PRIORITY + 1),
            (2, Some(_)) => format!("ip {family} route flush table {table}"),
            (3, _) => "ip route flush proto 112".to_owned(),
            (4, _) => format!("ip rule del fwmark {mark} priority {}", Ways::MARKED_PRIORITY),
            (5, _) => "echo 0 > /proc/sys/net/ipv4/conf/all/src_valid_mark".to_owned(),
            (6, _) => "echo 0 > /proc/sys/net/ipv4/tcp_fwmark_accept".to_owned(),
            _ => "ip -6 route flush proto 112".to_owned(),
        };
        let _ = self.container.run(|| Command::new("sh").args(["-c", &damage]).output()).unwrap().unwrap();
        self.routes().observe().unwrap() != before
    }
}

fn conform<T>(open: fn(ContainerRoutes) -> T)
where
    T: Lower<Routes, Native = Ways> + Backend<State = Ways>,
{
    let cases = (ProptestConfig::default().cases / 8).max(1);
    let config = ProptestConfig { cases, failure_persistence: None, max_shrink_iters: 48, ..ProptestConfig::default() };
    let world = RefCell::new(World { container: container(), open });
    let steps = RefCell::new(0);
    let result = TestRunner::new(config).run(&(vec(routes(), 1..3), any::<[u8; 32]>()), |(desired, seed)| {
        let mut world = world.borrow_mut();
        reconcile(&mut world.routes(), &Routes::default()).unwrap(); // what a failed case left
        *steps.borrow_mut() += laws::backend(&mut *world, &desired, seed)?.steps;
        Ok(())
    });
    if let Err(TestError::Fail(reason, input)) = &result {
        panic!("{reason}\n{input:#?}");
    }
    result.unwrap();
    assert!(*steps.borrow() > 4 * cases as usize);
}

#[test]
fn routes_of_a_container_keep_the_laws_of_a_backend() {
    kernel_test(Kernel::Host, "link::routes_of_a_container_keep_the_laws", || {
        conform(|routes| routes);
        conform(Shadow::new);
    });
}

#[test]
fn packets_of_each_source_leave_by_its_own_way_and_of_half_a_way_nothing_stays() {
    kernel_test(Kernel::Host, "link::packets_of_each_source_leave_by_its_own_way", || {
        let container = container();
        let before = whole(&container);
        let open = || ContainerRoutes::open(container.try_clone().unwrap()).unwrap();
        let by = |lan: u8| Route { interface: name(&format!("lan{lan}")), via: Some([172, 30, lan, 1].into()) };
        let mut wanted = Routes::default();
        wanted.to.insert("0.0.0.0/0".parse().unwrap(), by(1));
        wanted.from.insert([172, 30, 2, 10].into(), by(2));
        reconcile(&mut open(), &wanted).unwrap();
        let way = |from: &str, to: &str| judge(&container, "ip", &["route", "get", to, "from", from]);
        for (from, to, dev) in [
            ("172.30.1.10", "198.51.100.1", "via 172.30.1.1 dev lan1"),
            ("172.30.2.10", "198.51.100.1", "via 172.30.2.1 dev lan2"),
            ("172.30.2.10", "172.30.1.77", "dev lan1"), // on the link, whoever asks
            ("172.30.2.10", "10.9.0.1", "dev lan1"),    // the container's own route
        ] {
            assert!(way(from, to).contains(dev), "{from} to {to}: {}", way(from, to));
        }
        judge(&container, "ip", &["route", "flush", "table", &Ways::table([172, 30, 2, 10].into()).to_string()]);
        assert_eq!(open().observe().unwrap().half.len(), 1);
        reconcile(&mut open(), &Routes::default()).unwrap();
        assert_eq!(whole(&container), before);
    });
}
