//! Rules that mark for IPVS, on the host's kernel: `nft` counts what has which mark.

use std::net::{SocketAddr, UdpSocket};

use overlay_core::testing::{Dice, Kernel, kernel_test, laws};
use overlay_core::{Backend as _, State as _, reconcile};
use overlay_kernel::Namespace;
use overlay_kernel::nft;
use overlay_kernel::testing::judge;
use overlay_lb::kernel::Marks;
use overlay_lb::testing::{Wants, state_of};
use overlay_lb::{Ports, Service, State};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use crate::suite::{service, state, vip};
use crate::town::{Town, owner, script, whole};

fn at_all_ports() -> State {
    state(&Service { ports: Ports::All, ..service(&[2]) })
}

#[test]
fn what_goes_to_a_vip_at_all_ports_has_its_mark_and_nothing_else_has_one() {
    kernel_test(Kernel::Host, "lb::what_goes_to_a_vip_at_all_ports_has_its_mark", || {
        let town = Town::new(1);
        let before = whole(&town.client);
        let mut marks = Marks::open(&owner(), &town.client).unwrap();
        reconcile(&mut marks, &at_all_ports()).unwrap();
        assert!(reconcile(&mut marks, &at_all_ports()).unwrap().is_empty());
        let [v4, v6] = [overlay_core::IpFamily::V4, overlay_core::IpFamily::V6].map(vip);
        script(
            &town.client,
            &format!(
                "nft add table inet judge
                 nft add chain inet judge out '{{ type filter hook output priority 0; }}'
                 nft add rule inet judge out udp dport 7 meta mark {} counter comment v4
                 nft add rule inet judge out udp dport 7 meta mark {} counter comment v6
                 nft add rule inet judge out udp dport 7 meta mark 0 counter comment none",
                Marks::of(v4),
                Marks::of(v6),
            ),
        );
        let neighbours = ["10.0.9.2".parse().unwrap(), "fd00::2".parse().unwrap()];
        for (to, count) in [(v4, 3), (v6, 2), (neighbours[0], 1), (neighbours[1], 1)] {
            let any: SocketAddr = if to.is_ipv4() { ([0; 4], 0).into() } else { ([0; 16], 0).into() };
            let socket = town.client.run(|| UdpSocket::bind(any)).unwrap().unwrap();
            (0..count).for_each(|_| drop(socket.send_to(b"?", (to, 7))));
        }
        let listed = judge(&town.client, "nft", &["list", "table", "inet", "judge"]);
        let counted = |comment: &str| {
            let line = listed.lines().find(|line| line.contains(&format!("comment \"{comment}\""))).unwrap();
            line.split("packets ").nth(1).unwrap().split(' ').next().unwrap().parse::<u32>().unwrap()
        };
        assert_eq!(["v4", "v6", "none"].map(counted), [3, 2, 2], "{listed}");
        judge(&town.client, "nft", &["delete", "table", "inet", "judge"]);
        reconcile(&mut marks, &State::default()).unwrap();
        assert_eq!(whole(&town.client), before);
    });
}

struct World(Namespace);

impl World {
    fn marks(&self) -> Marks {
        Marks::open(&owner(), &self.0).unwrap()
    }
}

impl laws::World<State> for World {
    type Native = nft::State;
    type Table = Marks;
    type Foreign = String;

    fn open(&mut self) -> Marks {
        self.marks()
    }

    fn foreign(&mut self) -> String {
        whole(&self.0)
    }

    fn meddle(&mut self, dice: &mut Dice) -> bool {
        let mut other = self.marks();
        let before = other.observe().unwrap();
        let mut after = before.clone();
        let Some(table) = after.tables.values_mut().next() else { return false };
        match dice.below(2) {
            0 => after.tables.clear(),
            _ => table.chains.values_mut().for_each(|chain| chain.rules.truncate(1)),
        }
        other.apply(&before.plan(&after)).unwrap();
        other.observe().unwrap() != before
    }
}

#[test]
fn marks_keep_the_laws_of_a_backend() {
    kernel_test(Kernel::Host, "lb::marks_keep_the_laws_of_a_backend", || {
        let cases = (ProptestConfig::default().cases / 8).max(1);
        let config =
            ProptestConfig { cases, failure_persistence: None, max_shrink_iters: 16, ..ProptestConfig::default() };
        let strategy = (vec(state_of(Wants::default()), 1..3), any::<[u8; 32]>());
        let outcome = TestRunner::new(config).run(&strategy, |(desired, seed)| {
            laws::backend(&mut World(Namespace::create().unwrap()), &desired, seed)?;
            Ok(())
        });
        outcome.unwrap_or_else(|error| panic!("{error}"));
    });
}

#[test]
fn two_vips_of_one_mark_are_refused_by_name() {
    let (one, other) = colliding();
    let at = |vip: std::net::IpAddr| Service::new([vip]);
    let services = [("a".parse().unwrap(), at(one)), ("b".parse().unwrap(), at(other))];
    let both = State { services: services.into_iter().collect(), ..State::default() };
    kernel_test(Kernel::Host, "lb::two_vips_of_one_mark_are_refused", || {
        let mut marks = Marks::open(&owner(), &Namespace::create().unwrap()).unwrap();
        let error = reconcile(&mut marks, &both).unwrap_err();
        assert!(overlay_core::told(&error).contains("the same mark as"), "{}", overlay_core::told(&error));
        assert_eq!(marks.observe().unwrap(), nft::State::default());
    });
}

/// Two addresses of IPv6 with one mark: some 80,000 have a pair, by the birthday paradox.
fn colliding() -> (std::net::IpAddr, std::net::IpAddr) {
    let mut seen = std::collections::HashMap::new();
    for number in 0..1_000_000_u128 {
        let vip = std::net::Ipv6Addr::from((0xfd00_u128 << 112) | number).into();
        if let Some(other) = seen.insert(Marks::of(vip), vip) {
            return (other, vip);
        }
    }
    panic!("no two of a million are alike");
}
