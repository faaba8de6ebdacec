//! Native associations and policies: policies on any kernel with XFRM, associations on the lab's.

use std::cell::RefCell;

use overlay_core::testing::{Dice, Kernel, kernel_test, laws};
use overlay_core::{Backend as _, ErrorKind, IpFamily, Shadow, State as _, Witness as _, reconcile};
use overlay_kernel::Namespace;
use overlay_kernel::testing::judge;
use overlay_kernel::xfrm::testing::{CLAIM, state};
use overlay_kernel::xfrm::{Action, Aead, Claim, Missing, Policy, PolicyKey, State, Step, Xfrm};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{TestError, TestRunner};

const ELSE: Claim = Claim { reqids: (1, 99), priorities: (50, 60) };

struct World {
    home: Namespace,
    with_sas: bool,
    in_the_way: Option<(PolicyKey, Policy)>,
}

impl World {
    fn new(with_sas: bool) -> Self {
        let home = Namespace::create().unwrap();
        judge(
            &home,
            "ip",
            &["xfrm", "policy", "add", "dir", "out", "dst", "198.51.100.0/24", "priority", "90", "action", "block"],
        );
        if with_sas {
            let sa = "ip xfrm state add src 10.0.0.1 dst 10.0.0.2 proto esp spi 0x999 reqid 9 mode transport \
                      aead 'rfc4106(gcm(aes))' 0x0102030405060708090a0b0c0d0e0f1011121314 128";
            judge(&home, "sh", &["-ec", sa]);
        }
        Self { home, with_sas, in_the_way: None }
    }

    fn holder(&self, claim: Claim) -> Xfrm {
        Xfrm::open(self.home.try_clone().unwrap(), claim).unwrap()
    }
}

impl laws::World<State> for World {
    type Native = State;
    type Table = Shadow<Xfrm>;
    type Foreign = String;

    fn open(&mut self) -> Shadow<Xfrm> {
        Shadow::new(self.holder(CLAIM))
    }

    fn foreign(&mut self) -> String {
        let policies = judge(&self.home, "ip", &["-o", "xfrm", "policy"]);
        let states = judge(&self.home, "ip", &["-o", "xfrm", "state"]);
        assert!(policies.contains("198.51.100.0/24") && (!self.with_sas || states.contains("reqid 9 ")));
        let lines = policies.lines().filter(|line| !line.contains("priority 100"));
        lines
            .chain(states.lines().filter(|line| !line.contains("reqid 10")))
            .fold(String::new(), |all, line| all + line + "\n")
    }

    fn meddle(&mut self, dice: &mut Dice) -> bool {
        let mut other = self.holder(CLAIM);
        let before = other.observe().unwrap();
        let mut steps = before.plan(&State::default());
        if steps.is_empty() {
            return false;
        }
        let step = steps.swap_remove(dice.below(steps.len()));
        other.apply(&[step]).unwrap();
        other.observe().unwrap() != before
    }

    fn obstruct(&mut self, steps: &[Step], _: &mut Dice) -> bool {
        let key = steps.iter().find_map(|step| if let Step::PutPolicy(key, _) = step { Some(*key) } else { None });
        let Some(key) = key else { return false };
        let policy = Policy { priority: 55, action: Action::Block };
        let put = self.holder(ELSE).apply(&[Step::PutPolicy(key, policy.clone())]).is_ok();
        self.in_the_way = put.then_some((key, policy));
        put
    }

    fn clear(&mut self) {
        let (key, policy) = self.in_the_way.take().unwrap();
        self.holder(ELSE).apply(&[Step::RemovePolicy(key, policy)]).unwrap();
    }
}

fn keeps_the_laws(with_sas: bool, cases: u32) {
    let total = RefCell::new([0; 5]);
    let config = ProptestConfig { cases, failure_persistence: None, max_shrink_iters: 32, ..ProptestConfig::default() };
    let outcome = TestRunner::new(config).run(&(vec(state(with_sas), 1..4), any::<[u8; 32]>()), |(desired, seed)| {
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
fn xfrm_policies_keep_the_laws_of_a_backend() {
    kernel_test(Kernel::Host, "kernel::xfrm_policies_keep_the_laws_of_a_backend", || keeps_the_laws(false, 24));
}

#[test]
fn xfrm_with_associations_keeps_the_laws_of_a_backend() {
    kernel_test(Kernel::Lab, "kernel::xfrm_with_associations_keeps_the_laws", || keeps_the_laws(true, 24));
}

fn one(with_sas: bool) -> State {
    let mut runner = TestRunner::deterministic();
    let whole = |state: &State| state.policies.len() > 2 && (!with_sas || state.sas.len() > 2);
    std::iter::repeat_with(|| state(with_sas).new_tree(&mut runner).unwrap().current()).find(whole).unwrap()
}

#[test]
fn others_changes_of_policies_disturb_and_own_ones_do_not() {
    kernel_test(Kernel::Host, "kernel::others_changes_of_policies_disturb", || {
        let world = World::new(false);
        let mut xfrm = world.holder(CLAIM);
        assert!(!xfrm.undisturbed().unwrap(), "nothing was watched");
        xfrm.watch().unwrap();
        reconcile(&mut xfrm, &one(false)).unwrap();
        reconcile(&mut xfrm, &State::default()).unwrap();
        reconcile(&mut xfrm, &one(false)).unwrap();
        assert!(xfrm.undisturbed().unwrap());
        let (key, policy) = one(false).policies.pop_first().unwrap();
        world.holder(CLAIM).apply(&[Step::RemovePolicy(key, policy)]).unwrap();
        assert!(!xfrm.undisturbed().unwrap());
    });
}

#[test]
fn what_is_not_claimed_is_refused_and_a_foreign_policy_stays() {
    kernel_test(Kernel::Host, "kernel::what_xfrm_has_not_claimed_stays", || {
        let world = World::new(false);
        let wanted = one(false);
        for claim in
            [Claim { reqids: (0, 9), ..ELSE }, Claim { priorities: (0, 9), ..ELSE }, Claim { reqids: (9, 8), ..ELSE }]
        {
            let refused = Xfrm::open(world.home.try_clone().unwrap(), claim).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Invalid, "what nobody marked would be ours");
        }
        let refused = reconcile(&mut world.holder(ELSE), &wanted).unwrap_err();
        assert!(refused.to_string().contains("not claimed"), "{refused}");
        let (key, policy) = wanted.policies.iter().next().unwrap();
        let foreign = Policy { priority: 55, action: Action::Block };
        world.holder(ELSE).apply(&[Step::PutPolicy(*key, foreign.clone())]).unwrap();
        let failed = world.holder(CLAIM).apply(&[Step::PutPolicy(*key, policy.clone())]).unwrap_err();
        assert_eq!(failed.source.kind(), ErrorKind::Conflict, "{failed}");
        world.holder(CLAIM).apply(&[Step::RemovePolicy(*key, policy.clone())]).unwrap();
        assert_eq!(world.holder(ELSE).observe().unwrap().policies[key], foreign);
    });
}

/// What it answers is what the kernel says to one who adds such an association, and nothing is left.
fn asks_truly() -> [Option<Missing>; 3] {
    let home = Namespace::create().unwrap();
    let mut xfrm = Xfrm::open(home.try_clone().unwrap(), CLAIM).unwrap();
    let tries = Aead::ALL.map(|aead| {
        let (name, key) = (aead.name(), "01".repeat(aead.material_len()));
        let sa = format!("src 10.0.0.1 dst 10.0.0.2 proto esp spi 0x{:x} mode transport", 0x1000 + aead as u8 as u32);
        let add = format!("ip xfrm state add {sa} aead '{name}' 0x{key} 128 2>&1 || true");
        (aead, judge(&home, "sh", &["-c", &add]))
    });
    let count = judge(&home, "ip", &["-o", "xfrm", "state"]).lines().count();
    let found = tries.map(|(aead, said)| {
        let missing = xfrm.missing(IpFamily::V4, aead).unwrap();
        assert_eq!(missing.is_none(), said.is_empty(), "{aead:?}: {missing:?}, but {said}");
        missing
    });
    assert_eq!(judge(&home, "ip", &["-o", "xfrm", "state"]).lines().count(), count);
    found
}

#[test]
fn what_esp_a_kernel_lacks_is_told_and_nothing_is_made() {
    kernel_test(Kernel::Host, "kernel::what_esp_a_kernel_lacks_is_told", || {
        asks_truly();
    });
}

#[test]
fn the_labs_kernel_has_esp() {
    kernel_test(Kernel::Lab, "kernel::the_labs_kernel_has_esp", || {
        assert_eq!(asks_truly()[..2], [None, None]);
        let mut xfrm = Xfrm::open(Namespace::create().unwrap(), CLAIM).unwrap();
        assert_eq!(xfrm.missing(IpFamily::V6, Aead::Aes256Gcm).unwrap(), None);
    });
}
