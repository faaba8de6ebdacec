//! Addresses that are a namespace's own without being on a device.

use std::net::{IpAddr, TcpListener, TcpStream};
use std::process::Command;

use overlay_core::testing::{Dice, Kernel, kernel_test, laws};
use overlay_core::{Backend as _, ErrorKind, ReconcileError, Shadow, State as _, reconcile};
use overlay_kernel::Namespace;
use overlay_kernel::link::{KernelLocals, LocalStep, Locals};
use overlay_kernel::testing::judge;

struct World(Namespace);

impl World {
    fn new() -> Self {
        let home = Namespace::create().unwrap();
        let script = "ip link set lo up; ip link add d0 type dummy 2>/dev/null || ip link add d0 type bridge
             ip link set d0 addrgenmode none; ip link set d0 up
             for n in 5 6; do ip addr add 10.0.9.$n/24 dev d0; ip addr add fd00::$n/64 dev d0 nodad; done
             ip route add local 10.0.9.200 dev lo; ip -6 route add local fd00::200 dev lo
             for n in 5 6; do until ip -6 route show table local | grep -q fd00::$n; do sleep 0.01; done; done"; // later than the address
        judge(&home, "sh", &["-ec", script]);
        Self(home)
    }

    fn locals(&self) -> KernelLocals {
        KernelLocals::open(self.0.try_clone().unwrap()).unwrap()
    }
}

impl laws::World<Locals> for World {
    type Native = Locals;
    type Table = Shadow<KernelLocals>;
    type Foreign = String;

    fn open(&mut self) -> Self::Table {
        Shadow::new(self.locals())
    }

    fn foreign(&mut self) -> String {
        judge(&self.0, "sh", &["-c", "ip route show table all; ip -6 route show table all; ip -o addr"])
    }

    fn meddle(&mut self, dice: &mut Dice) -> bool {
        let before = self.locals().observe().unwrap();
        let Some((address, _)) = before.0.iter().nth(dice.below(3)) else { return false };
        let damage = match dice.below(2) {
            0 => format!("ip route del table local local {address} metric 1024"),
            _ => format!("ip route replace table local local {address} dev lo metric 1024 proto 113"),
        };
        let _ = self.0.run(|| Command::new("sh").args(["-c", &damage]).output()).unwrap().unwrap();
        self.locals().observe().unwrap() != before
    }
}

fn wanted(draw: u8) -> Locals {
    let of = |text: &str| text.parse::<IpAddr>().unwrap();
    let all =
        [("10.0.9.100", "10.0.9.5"), ("10.0.9.101", "10.0.9.6"), ("fd00::100", "fd00::5"), ("fd00::100", "fd00::6")];
    let chosen = all.iter().enumerate().filter(|(bit, _)| draw >> bit & 1 == 1);
    Locals(chosen.map(|(_, (address, source))| (of(address), of(source))).collect())
}

#[test]
fn local_addresses_keep_the_laws_of_a_backend() {
    kernel_test(Kernel::Host, "kernel::local_addresses_keep_the_laws_of_a_backend", || {
        let mut repairs = 0;
        for seed in 0..8 {
            let values: Vec<Locals> = [seed * 7 + 1, 15, seed, 6].into_iter().map(wanted).collect();
            for (a, b) in values.iter().zip(values.iter().skip(1)) {
                laws::state(a, b).unwrap();
            }
            repairs += laws::backend(&mut World::new(), &values, [seed; 32]).unwrap().repairs;
        }
        assert!(repairs > 0);
    });
}

#[test]
fn a_local_address_is_answered_here_and_reached_from_the_other_one() {
    kernel_test(Kernel::Host, "kernel::a_local_address_is_reached_from_the_other_one", || {
        let world = World::new();
        reconcile(&mut world.locals(), &wanted(5)).unwrap();
        for (address, source) in wanted(5).0 {
            let any: IpAddr = if address.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
            let listener = world.0.run(|| TcpListener::bind((any, 80))).unwrap().unwrap();
            let stream = world.0.run(|| TcpStream::connect((address, 80))).unwrap().unwrap();
            assert_eq!(stream.local_addr().unwrap().ip(), source);
            drop(listener);
            judge(&world.0, "ping", &["-c1", "-W1", &address.to_string()]);
        }
    });
}

#[test]
fn a_local_address_of_somebody_elses_is_a_conflict_and_stays() {
    kernel_test(Kernel::Host, "kernel::a_local_address_of_somebody_elses_is_a_conflict", || {
        let world = World::new();
        judge(&world.0, "sh", &["-c", "ip route add local 10.0.9.100 dev lo metric 1024"]);
        let failed = reconcile(&mut world.locals(), &wanted(1)).unwrap_err();
        let ReconcileError::Apply { error, .. } = failed else { panic!("{failed}") };
        assert_eq!(error.source.kind(), ErrorKind::Conflict);
        world.locals().apply(&[LocalStep::Remove("10.0.9.100".parse().unwrap())]).unwrap();
        assert!(judge(&world.0, "ip", &["route", "show", "table", "local"]).contains("10.0.9.100"));
        let loopback = Locals([("10.0.9.100".parse().unwrap(), "fd00::1".parse().unwrap())].into());
        assert!(loopback.check().is_err());
    });
}
