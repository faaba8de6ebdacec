//! The laws of a backend, on a real kernel.

use std::cell::RefCell;
use std::process::Command;

use overlay_core::testing::{Dice, Kernel, kernel_test, laws};
use overlay_core::{Backend, Lower, Shadow, reconcile};
use overlay_kernel::link::{self, Site};
use overlay_kernel::{Feature, Found, probe};
use overlay_link::testing::state_among;
use overlay_link::{LocalNetworks, State};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{TestError, TestRunner};

use crate::lab::{Lab, name};

struct World<T> {
    lab: Lab,
    open: fn(LocalNetworks) -> T,
}

impl<T> laws::World<State> for World<T>
where
    T: Lower<State, Native = link::State> + Backend<State = link::State>,
{
    type Native = link::State;
    type Table = T;
    type Foreign = Vec<String>;

    fn open(&mut self) -> T {
        (self.open)(self.lab.open())
    }

    fn foreign(&mut self) -> Vec<String> {
        self.lab.whole()
    }

    fn meddle(&mut self, dice: &mut Dice) -> bool {
        let state = self.lab.open().observe().unwrap();
        let home: Vec<_> = state.links.keys().filter(|dev| dev.site == Site::Home).collect();
        let Some(dev) = home.get(dice.below(home.len())) else { return false };
        let dev = dev.name;
        let damage = match dice.below(5) {
            0 => format!("ip link del {dev}"),
            1 => format!("ip link set {dev} down"),
            2 => format!("ip link set {dev} nomaster"),
            3 => format!("ip addr flush dev {dev}"),
            _ => format!("bridge fdb flush dev {dev}"),
        };
        let _ = self.lab.host.run(|| Command::new("sh").args(["-c", &damage]).output()).unwrap().unwrap();
        self.lab.open().observe().unwrap() != state
    }
}

/// From so many cases on, chance alone does not leave them without steps.
const ENOUGH: u32 = 8;

fn conform<T>(open: fn(LocalNetworks) -> T)
where
    T: Lower<State, Native = link::State> + Backend<State = link::State>,
{
    let cases = (ProptestConfig::default().cases / 16).max(1);
    let config = ProptestConfig { cases, failure_persistence: None, max_shrink_iters: 48, ..ProptestConfig::default() };
    let lab = Lab::new(2);
    let containers = lab.containers.iter().map(|container| container.key.clone()).collect();
    let taps = probe().of(Feature::Tun).is_some_and(Found::is_available);
    let strategy = vec(state_among(containers, taps, name("u0")), 1..3);
    let world = RefCell::new(World { lab, open });
    let steps = RefCell::new(0);
    let result = TestRunner::new(config).run(&(strategy, any::<[u8; 32]>()), |(desired, seed)| {
        let mut world = world.borrow_mut();
        reconcile(&mut world.lab.open(), &State::default()).unwrap(); // what a failed case left
        *steps.borrow_mut() += laws::backend(&mut *world, &desired, seed)?.steps;
        Ok(())
    });
    if let Err(TestError::Fail(reason, input)) = &result {
        panic!("{reason}\n{input:#?}");
    }
    result.unwrap();
    assert!(cases < ENOUGH || *steps.borrow() > 4 * cases as usize);
}

#[test]
fn local_networks_keep_the_laws_of_a_backend() {
    kernel_test(Kernel::Host, "link::local_networks_keep_the_laws_of_a_backend", || conform(|networks| networks));
}

#[test]
fn a_shadow_of_local_networks_keeps_the_laws_of_a_backend() {
    kernel_test(Kernel::Host, "link::a_shadow_of_local_networks_keeps_the_laws", || conform(Shadow::new));
}
