//! Tables in the kernel keep the laws of a backend.

use std::cell::RefCell;
use std::process::Command;

use overlay_core::testing::{Dice, Kernel, kernel_test, laws};
use overlay_core::{Backend, Lower, Shadow};
use overlay_kernel::Namespace;
use overlay_kernel::nft::testing::state;
use overlay_kernel::nft::{Family, Nft, State, Step};
use overlay_kernel::testing::judge;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{TestError, TestRunner};

use crate::nft::owner;

/// A namespace with somebody else's table in it.
struct World<T> {
    home: Namespace,
    open: fn(Nft) -> T,
    in_the_way: Vec<String>,
}

impl<T> World<T> {
    fn new(open: fn(Nft) -> T) -> Self {
        let home = Namespace::create().unwrap();
        judge(&home, "nft", &[FOREIGN]);
        Self { home, open, in_the_way: Vec::new() }
    }

    fn nft(&self) -> Nft {
        Nft::open(&owner("laws"), &self.home).unwrap()
    }

    /// Runs `nft`; says whether it could do it.
    fn try_nft(&self, text: &str) -> bool {
        self.home.run(|| Command::new("nft").arg(text).output()).unwrap().unwrap().status.success()
    }
}

/// In the one family that every kernel we try has.
const FOREIGN: &str = "add table bridge foreign; add chain bridge foreign c { type filter hook forward priority 3; }; \
                       add rule bridge foreign c ether saddr 02:00:00:00:00:01 counter drop; \
                       add set bridge foreign s { type ether_addr; elements = { 02:00:00:00:00:02 }; }";

impl<T> laws::World<State> for World<T>
where
    T: Lower<State, Native = State> + Backend<State = State>,
{
    type Native = State;
    type Table = T;
    type Foreign = String;

    fn open(&mut self) -> T {
        (self.open)(self.nft())
    }

    fn foreign(&mut self) -> String {
        judge(&self.home, "nft", &["list", "ruleset"])
    }

    /// Breaks something with another tool.
    fn meddle(&mut self, dice: &mut Dice) -> bool {
        let mut nft = self.nft();
        let state = nft.observe().unwrap();
        let Some((key, table)) = state.tables.iter().nth(dice.below(state.tables.len())) else { return false };
        let at = format!("{} {}", key.family, nft.kernel_name(key));
        let chain = table.chains.keys().nth(dice.below(table.chains.len()));
        let set = table.sets.keys().nth(dice.below(table.sets.len()));
        let damage = match (dice.below(10), chain, set) {
            (0, ..) => format!("delete table {at}"),
            (1, ..) => format!("flush table {at}"),
            (2, ..) => format!("add table {at} {{ flags dormant; }}"),
            (3, ..) => format!("add chain {at} stranger"),
            (4, ..) => format!("add set {at} stranger {{ type ipv4_addr; flags timeout; }}"),
            (5, ..) => format!("add set {at} _s {{ type ipv4_addr; }}"),
            (6, Some(chain), _) => format!("insert rule {at} {chain} counter accept"),
            (7, Some(chain), _) => format!("add rule {at} {chain} meta mark {{ 1, 2 }} drop"),
            (8, Some(chain), _) => format!("chain {at} {chain} {{ policy drop; }}"),
            (9, _, Some(set)) => format!("flush set {at} {set}"),
            _ => return false,
        };
        self.try_nft(&damage);
        self.nft().observe().unwrap() != state
    }

    /// Another writer comes in between, who has nothing to do with us.
    fn obstruct(&mut self, _: &[Step], _: &mut Dice) -> bool {
        self.in_the_way = vec!["delete table bridge way".to_owned()];
        self.try_nft("add table bridge way")
    }

    fn clear(&mut self) {
        for command in std::mem::take(&mut self.in_the_way) {
            judge(&self.home, "nft", &[&command]);
        }
    }
}

/// From so many cases on, every kind of trouble must have been met: of fewer, one kind is missed now and then by chance.
const ENOUGH: u32 = 24;

fn laws_hold<T>(open: fn(Nft) -> T, states: impl Strategy<Value = State>, cases: u32)
where
    T: Lower<State, Native = State> + Backend<State = State>,
{
    let total = RefCell::new(laws::Seen::default());
    let cases = (cases * ProptestConfig::default().cases / 256).max(1); // of as many as were asked for
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    let strategy = (vec(states, 1..4), any::<[u8; 32]>());
    let outcome = TestRunner::new(config).run(&strategy, |(desired, seed)| {
        let seen = laws::backend(&mut World::new(open), &desired, seed);
        let seen = seen.map_err(|broken| TestCaseError::fail(broken.to_string()))?;
        let mut total = total.borrow_mut();
        total.reached += seen.reached;
        total.refused += seen.refused;
        total.steps += seen.steps;
        total.faults += seen.faults;
        total.kills += seen.kills;
        total.repairs += seen.repairs;
        total.obstructions += seen.obstructions;
        Ok(())
    });
    match outcome {
        Ok(()) => {}
        Err(TestError::Fail(reason, (desired, seed))) => panic!("{reason}\nseed {seed:?}\nof {desired:?}"),
        Err(TestError::Abort(reason)) => panic!("{reason}"),
    }
    let seen = total.into_inner();
    println!("{seen:?}");
    for count in [seen.reached, seen.steps, seen.faults, seen.kills, seen.repairs, seen.obstructions] {
        assert!(count > 0 || cases < ENOUGH, "{seen:?}");
    }
}

#[test]
fn tables_keep_the_laws_of_a_backend() {
    kernel_test(Kernel::Host, "kernel::nft_tables_keep_the_laws_of_a_backend", || {
        laws_hold(|nft| nft, state(), if crate::is_thorough() { 96 } else { 24 });
    });
}

#[test]
fn a_shadow_of_tables_keeps_the_laws() {
    kernel_test(Kernel::Host, "kernel::nft_a_shadow_of_tables_keeps_the_laws", || {
        laws_hold(Shadow::new, state(), if crate::is_thorough() { 64 } else { 16 });
    });
}

/// What the lab's older kernel can hold.
#[test]
fn bridge_tables_keep_the_laws_on_an_older_kernel() {
    kernel_test(Kernel::Lab, "kernel::nft_bridge_tables_keep_the_laws", || {
        let states = state().prop_map(|mut state| {
            state.tables.retain(|key, _| key.family == Family::Bridge);
            state
        });
        laws_hold(Shadow::new, states, 64);
    });
}
