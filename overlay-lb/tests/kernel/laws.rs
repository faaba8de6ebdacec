//! The laws of a backend, on a real kernel.

use std::cell::RefCell;
use std::process::Command;

use overlay_core::testing::{Dice, Kernel, kernel_test, laws};
use overlay_core::{Backend, Lower, Shadow};
use overlay_kernel::Namespace;
use overlay_kernel::testing::judge;
use overlay_lb::State;
use overlay_lb::kernel::{Native, NativeStep, Nftables};
use overlay_lb::testing::{Wants, state_of};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{TestError, TestRunner};

use crate::town::{owner, raised, script, whole};

/// A namespace with somebody else's table and local route in it.
struct World<T> {
    home: Namespace,
    open: fn(Nftables) -> T,
}

impl<T> World<T> {
    fn new(open: fn(Nftables) -> T) -> Self {
        let home = Namespace::create().unwrap();
        script(
            &home,
            "ip link set lo up; ip link add eth0 type veth peer name eth1
             for d in eth0 eth1; do ip link set $d addrgenmode none; ip link set $d up; done
             ip addr add 10.0.10.1/24 dev eth0; ip addr add fd00:0:0:a::1/64 dev eth0 nodad
             ip route add local 10.0.9.200 dev lo
             nft add table inet foreign; nft add chain inet foreign c '{ type filter hook output priority 3; }'
             nft add rule inet foreign c ip saddr 192.0.2.1 counter drop",
        );
        raised(&home, 3);
        Self { home, open }
    }

    fn nftables(&self) -> Nftables {
        Nftables::open(&owner(), self.home.try_clone().unwrap()).unwrap()
    }

    fn shell(&self, text: &str) -> bool {
        self.home.run(|| Command::new("sh").args(["-c", text]).output()).unwrap().unwrap().status.success()
    }
}

impl<T> laws::World<State> for World<T>
where
    T: Lower<State, Native = Native> + Backend<State = Native>,
{
    type Native = Native;
    type Table = T;
    type Foreign = String;

    fn open(&mut self) -> T {
        (self.open)(self.nftables())
    }

    fn foreign(&mut self) -> String {
        whole(&self.home)
    }

    fn meddle(&mut self, dice: &mut Dice) -> bool {
        let before = self.nftables().observe().unwrap();
        let listed = judge(&self.home, "nft", &["list", "tables"]);
        let ours: Vec<&str> = listed.lines().filter(|line| line.contains(" ov-")).collect();
        let Some(table) = ours.get(dice.below(ours.len())).and_then(|line| line.strip_prefix("table ")) else {
            return false;
        };
        let (family, name) = table.split_once(' ').unwrap();
        let listed = judge(&self.home, "nft", &["list", "table", family, name]);
        let of = |kind: &str| -> Vec<&str> {
            listed.lines().filter_map(|line| line.trim().strip_prefix(kind)?.strip_suffix(" {")).collect()
        };
        let (chains, maps) = (of("chain "), of("map "));
        let vip = before.locals.0.keys().next();
        let damage = match (dice.below(6), chains.get(dice.below(chains.len())), maps.get(dice.below(maps.len())), vip)
        {
            (0, ..) => format!("nft delete table {table}"),
            (1, Some(chain), ..) => format!("nft flush chain {table} {chain}"),
            (2, Some(chain), ..) => format!("nft insert rule {table} {chain} counter accept"),
            (3, _, Some(map), _) => format!("nft flush map {table} {map}"),
            (4, .., Some(vip)) => format!("ip route del table local local {vip} metric 1024"),
            _ => format!("nft add chain {table} stranger"),
        };
        self.shell(&damage);
        self.nftables().observe().unwrap() != before
    }

    /// Another writer comes in between, who has nothing to do with us.
    fn obstruct(&mut self, _: &[NativeStep], _: &mut Dice) -> bool {
        self.shell("nft add table ip way")
    }

    fn clear(&mut self) {
        judge(&self.home, "nft", &["delete table ip way"]);
    }
}

fn conform<T>(open: fn(Nftables) -> T, cases: u32)
where
    T: Lower<State, Native = Native> + Backend<State = Native>,
{
    let total = RefCell::new([0; 5]);
    let mut config = ProptestConfig { failure_persistence: None, max_shrink_iters: 64, ..ProptestConfig::default() };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = cases;
    }
    let schedulers = Nftables::capabilities().schedulers.into_iter().collect();
    let wants = Wants { schedulers, affinity: true, timeouts: false, all_ports: true, published: true };
    let outcome = TestRunner::new(config).run(&(vec(state_of(wants), 1..4), any::<[u8; 32]>()), |(desired, seed)| {
        let seen = laws::backend(&mut World::new(open), &desired, seed)?;
        let seen = [seen.steps, seen.faults, seen.kills, seen.repairs, seen.reached];
        total.borrow_mut().iter_mut().zip(seen).for_each(|(total, seen)| *total += seen);
        Ok(())
    });
    match outcome {
        Ok(()) => {}
        Err(TestError::Fail(reason, input)) => panic!("{reason}\n{input:#?}"),
        Err(TestError::Abort(reason)) => panic!("{reason}"),
    }
    let total = total.into_inner();
    assert!(total.iter().all(|count| *count > 0), "{total:?}");
}

#[test]
fn nftables_keeps_the_laws_of_a_backend() {
    kernel_test(Kernel::Host, "lb::nftables_keeps_the_laws_of_a_backend", || conform(|it| it, 24));
}

#[test]
fn a_shadow_of_nftables_keeps_the_laws_of_a_backend() {
    kernel_test(Kernel::Host, "lb::a_shadow_of_nftables_keeps_the_laws", || conform(Shadow::new, 24));
}
