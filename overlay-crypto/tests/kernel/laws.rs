//! The laws of a backend, on a real kernel: of guards and tunnels on any with XFRM, of associations too on the lab's.

use std::cell::RefCell;

use overlay_core::testing::{Dice, Kernel, kernel_test, laws};
use overlay_core::{Backend as _, Owner, Shadow, State as _};
use overlay_crypto::State;
use overlay_crypto::kernel::{Esp, Xfrm};
use overlay_crypto::testing::{kernel_state, only_guards};
use overlay_kernel::Namespace;
use overlay_kernel::testing::judge;
use overlay_kernel::xfrm::{self, Action, Claim, Policy, PolicyKey, Step};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{TestError, TestRunner};

const ELSE: Claim = Claim { reqids: (1, 99), priorities: (70_001, 70_002) };

pub(crate) fn owner() -> Owner {
    Owner::new("crypto-test".parse().unwrap(), "a".parse().unwrap())
}

/// A namespace with somebody else's policy in it, and in the lab somebody else's association.
struct World {
    home: Namespace,
    with_sas: bool,
    in_the_way: Option<(PolicyKey, Policy)>,
}

impl World {
    fn new(with_sas: bool) -> Self {
        let home = Namespace::create().unwrap();
        let policy = "ip xfrm policy add dir out dst 198.51.100.0/24 priority 70001 action block";
        judge(&home, "sh", &["-ec", policy]);
        if with_sas {
            let sa = "ip xfrm state add src 10.0.0.1 dst 10.0.0.2 proto esp spi 0x999 reqid 9 mode transport \
                      aead 'rfc4106(gcm(aes))' 0x0102030405060708090a0b0c0d0e0f1011121314 128";
            judge(&home, "sh", &["-ec", sa]);
        }
        Self { home, with_sas, in_the_way: None }
    }

    fn ours(&self) -> Xfrm {
        let opened = Xfrm::open(&owner(), self.home.try_clone().unwrap()).unwrap();
        if self.with_sas { opened } else { opened.with_esp(Esp::default()) }
    }

    fn theirs(&self) -> xfrm::Xfrm {
        xfrm::Xfrm::open(self.home.try_clone().unwrap(), ELSE).unwrap()
    }
}

impl laws::World<State> for World {
    type Native = xfrm::State;
    type Table = Shadow<Xfrm>;
    type Foreign = (String, String);

    fn open(&mut self) -> Shadow<Xfrm> {
        Shadow::new(self.ours())
    }

    fn foreign(&mut self) -> (String, String) {
        let policies = judge(&self.home, "ip", &["xfrm", "policy", "list", "priority", "70001"]);
        let states = judge(&self.home, "ip", &["xfrm", "state", "list", "reqid", "9"]);
        assert!(policies.contains("198.51.100.0/24") && (!self.with_sas || states.contains("0x00000999")));
        (policies, states)
    }

    fn meddle(&mut self, dice: &mut Dice) -> bool {
        let mut ours = self.ours();
        let before = ours.observe().unwrap();
        let mut steps = before.plan(&xfrm::State::default());
        if steps.is_empty() {
            return false;
        }
        let step = steps.swap_remove(dice.below(steps.len()));
        ours.apply(&[step]).unwrap();
        true
    }

    fn obstruct(&mut self, steps: &[Step], _: &mut Dice) -> bool {
        let put = steps.iter().find_map(|step| if let Step::PutPolicy(key, _) = step { Some(*key) } else { None });
        let Some(key) = put else { return false };
        let policy = Policy { priority: 70_002, action: Action::Block };
        let put = self.theirs().apply(&[Step::PutPolicy(key, policy.clone())]).is_ok();
        self.in_the_way = put.then_some((key, policy));
        put
    }

    fn clear(&mut self) {
        let (key, policy) = self.in_the_way.take().unwrap();
        self.theirs().apply(&[Step::RemovePolicy(key, policy)]).unwrap();
    }
}

fn keeps_the_laws(with_sas: bool, cases: u32) {
    let total = RefCell::new([0; 5]);
    let mut config = ProptestConfig { failure_persistence: None, max_shrink_iters: 32, ..ProptestConfig::default() };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = cases;
    }
    let state = if with_sas { kernel_state().boxed() } else { only_guards().boxed() };
    let outcome = TestRunner::new(config).run(&(vec(state, 1..4), any::<[u8; 32]>()), |(desired, seed)| {
        let seen = laws::backend(&mut World::new(with_sas), &desired, seed)?;
        let seen = [seen.steps, seen.faults, seen.kills, seen.repairs, seen.obstructions];
        total.borrow_mut().iter_mut().zip(seen).for_each(|(total, seen)| *total += seen);
        Ok(())
    });
    match outcome {
        Ok(()) => {}
        Err(TestError::Fail(reason, input)) => panic!("{reason}\n{input:#?}"),
        Err(TestError::Abort(reason)) => panic!("{reason}"),
    }
    assert!(total.borrow().iter().all(|count| *count > 0), "{total:?}");
}

#[test]
fn guards_and_tunnels_keep_the_laws_of_a_backend() {
    kernel_test(Kernel::Host, "crypto::guards_and_tunnels_keep_the_laws_of_a_backend", || keeps_the_laws(false, 24));
}

#[test]
fn associations_keep_the_laws_of_a_backend() {
    kernel_test(Kernel::Lab, "crypto::associations_keep_the_laws_of_a_backend", || keeps_the_laws(true, 24));
}
