//! Tables in the kernel keep the laws of a backend.

use std::cell::RefCell;
use std::process::Command;

use overlay_core::testing::{Dice, Kernel, kernel_test, laws};
use overlay_core::{Backend, Lower, Shadow};
use overlay_kernel::Namespace;
use overlay_kernel::netlink::Buffers;
use overlay_kernel::nft::testing::state;
use overlay_kernel::nft::{Nft, State, Step, TableKey};
use overlay_kernel::testing::judge;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{TestError, TestRunner};

use crate::nft::owner;

/// A namespace with somebody else's table in it.
struct World<T> {
    home: Namespace,
    buffers: Buffers,
    open: fn(Nft) -> T,
    in_the_way: Vec<String>,
}

impl<T> World<T> {
    fn new(open: fn(Nft) -> T, buffers: Buffers) -> Self {
        let home = Namespace::create().unwrap();
        judge(&home, "nft", &[FOREIGN]);
        Self { home, buffers, open, in_the_way: Vec::new() }
    }

    fn nft(&self) -> Nft {
        Nft::with_buffers(&owner("laws"), &self.home, self.buffers).unwrap()
    }

    /// Runs `nft`; says whether it could do it.
    fn try_nft(&self, text: &str) -> bool {
        self.home.run(|| Command::new("nft").arg(text).output()).unwrap().unwrap().status.success()
    }
}

const FOREIGN: &str = "add table inet foreign; add chain inet foreign c { type filter hook forward priority 3; }; \
                       add rule inet foreign c ip saddr 192.0.2.1 counter drop; \
                       add set inet foreign s { type ipv4_addr; elements = { 192.0.2.7 }; }";

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
        self.in_the_way = vec!["delete table ip way".to_owned()];
        self.try_nft("add table ip way")
    }

    fn clear(&mut self) {
        for command in std::mem::take(&mut self.in_the_way) {
            judge(&self.home, "nft", &[&command]);
        }
    }
}

/// How often each thing happened, in all cases together.
#[derive(Debug, Default)]
struct Total {
    seen: laws::Seen,
}

fn laws_hold<T>(open: fn(Nft) -> T, buffers: Buffers, cases: u32)
where
    T: Lower<State, Native = State> + Backend<State = State>,
{
    let total = RefCell::new(Total::default());
    let mut config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = cases;
    }
    let strategy = (vec(state(), 1..4), any::<[u8; 32]>());
    let outcome = TestRunner::new(config).run(&strategy, |(desired, seed)| {
        let seen = laws::backend(&mut World::new(open, buffers), &desired, seed);
        let seen = seen.map_err(|broken| TestCaseError::fail(broken.to_string()))?;
        let mut total = total.borrow_mut();
        total.seen.reached += seen.reached;
        total.seen.refused += seen.refused;
        total.seen.steps += seen.steps;
        total.seen.faults += seen.faults;
        total.seen.kills += seen.kills;
        total.seen.repairs += seen.repairs;
        total.seen.obstructions += seen.obstructions;
        Ok(())
    });
    match outcome {
        Ok(()) => {}
        Err(TestError::Fail(reason, (desired, seed))) => panic!("{reason}\nseed {seed:?}\nof {desired:?}"),
        Err(TestError::Abort(reason)) => panic!("{reason}"),
    }
    let seen = total.into_inner().seen;
    println!("{seen:?}");
    for count in [seen.reached, seen.steps, seen.faults, seen.kills, seen.repairs, seen.obstructions] {
        assert!(count > 0, "{seen:?}");
    }
}

#[test]
fn tables_keep_the_laws_of_a_backend() {
    kernel_test(Kernel::Host, "kernel::nft_tables_keep_the_laws_of_a_backend", || {
        laws_hold(|nft| nft, Buffers::default(), if crate::is_thorough() { 96 } else { 24 });
    });
}

#[test]
fn a_shadow_of_tables_keeps_the_laws() {
    kernel_test(Kernel::Host, "kernel::nft_a_shadow_of_tables_keeps_the_laws", || {
        laws_hold(Shadow::new, Buffers::default(), if crate::is_thorough() { 64 } else { 16 });
    });
}

#[allow(dead_code, reason = "used by other tests of tables")]
pub(crate) fn kernel_name(nft: &Nft, key: &TableKey) -> String {
    format!("{} {}", key.family, nft.kernel_name(key))
}
