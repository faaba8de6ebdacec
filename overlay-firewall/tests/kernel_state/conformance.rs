//! The laws of a backend, on a real kernel.

use std::cell::RefCell;
use std::process::Command;

use overlay_core::testing::{Dice, Kernel, kernel_test, laws};
use overlay_core::{Backend, Lower, Owner, Shadow};
use overlay_firewall::kernel::{Native, NativeStep};
use overlay_firewall::testing::{host, sandbox};
use overlay_firewall::{Firewall, State};
use overlay_kernel::Namespace;
use overlay_kernel::testing::judge;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{TestError, TestRunner};

pub(crate) fn owner() -> Owner {
    Owner::new("firewall-test".parse().unwrap(), "a".parse().unwrap())
}

/// All tables and what bridges do, as other tools see it.
pub(crate) fn whole(namespace: &Namespace) -> String {
    let settings = "cat /proc/sys/net/bridge/bridge-nf-call-* 2>/dev/null || true";
    judge(namespace, "sh", &["-c", &format!("nft list ruleset; {settings}")])
}

/// Opens what is put to the test.
type Open<T> = fn(Firewall) -> T;

/// A namespace with somebody else's table in it.
struct World<T> {
    home: Namespace,
    sandbox: bool,
    open: Open<T>,
}

impl<T> World<T> {
    fn new(sandbox: bool, open: Open<T>) -> Self {
        let home = Namespace::create().unwrap();
        judge(&home, "nft", &[FOREIGN]);
        Self { home, sandbox, open }
    }

    fn firewall(&self) -> Firewall {
        let home = self.home.try_clone().unwrap();
        let open = if self.sandbox { Firewall::of_sandbox } else { Firewall::of_host };
        open(&owner(), home).unwrap()
    }

    fn shell(&self, text: &str) -> bool {
        self.home.run(|| Command::new("sh").args(["-c", text]).output()).unwrap().unwrap().status.success()
    }
}

const FOREIGN: &str = "add table inet foreign; add chain inet foreign c { type filter hook forward priority 3; }; \
                       add rule inet foreign c ip saddr 192.0.2.1 counter drop; \
                       add set inet foreign s { type ipv4_addr; elements = { 192.0.2.7 }; }";

impl<T> laws::World<State> for World<T>
where
    T: Lower<State, Native = Native> + Backend<State = Native>,
{
    type Native = Native;
    type Table = T;
    type Foreign = String;

    fn open(&mut self) -> T {
        (self.open)(self.firewall())
    }

    fn foreign(&mut self) -> String {
        whole(&self.home)
    }

    fn meddle(&mut self, dice: &mut Dice) -> bool {
        let before = self.firewall().observe().unwrap();
        let listed = judge(&self.home, "nft", &["list", "tables"]);
        let ours: Vec<&str> = listed.lines().filter(|line| line.contains(" ov-")).collect();
        let Some(table) = ours.get(dice.below(ours.len())).and_then(|line| line.strip_prefix("table ")) else {
            return self.sandbox && self.shell("echo 0 > /proc/sys/net/bridge/bridge-nf-call-iptables");
        };
        let chains = judge(
            &self.home,
            "nft",
            &["list", "table", table.split(' ').next().unwrap(), table.split(' ').next_back().unwrap()],
        );
        let of = |kind: &str| -> Vec<String> {
            let names = chains.lines().filter_map(|line| line.trim().strip_prefix(kind)?.strip_suffix(" {"));
            names.map(str::to_owned).collect()
        };
        let (chains, sets) = (of("chain "), of("set "));
        let chain = chains.get(dice.below(chains.len()));
        let set = sets.get(dice.below(sets.len()));
        let damage = match (dice.below(6), chain, set) {
            (0, ..) => format!("nft delete table {table}"),
            (1, Some(chain), _) => format!("nft flush chain {table} {chain}"),
            (2, Some(chain), _) => format!("nft insert rule {table} {chain} counter accept"),
            (3, _, Some(set)) => format!("nft flush set {table} {set}"),
            (4, ..) if self.sandbox => "echo 1 > /proc/sys/net/bridge/bridge-nf-call-ip6tables".to_owned(),
            _ => format!("nft add chain {table} stranger"),
        };
        self.shell(&damage);
        self.firewall().observe().unwrap() != before
    }

    /// Another writer comes in between, who has nothing to do with us.
    fn obstruct(&mut self, _: &[NativeStep], _: &mut Dice) -> bool {
        self.shell("nft add table ip way")
    }

    fn clear(&mut self) {
        judge(&self.home, "nft", &["delete table ip way"]);
    }
}

fn conform<T>(sandboxed: bool, open: Open<T>, cases: u32)
where
    T: Lower<State, Native = Native> + Backend<State = Native>,
{
    let total = RefCell::new([0; 5]);
    let mut config = ProptestConfig { failure_persistence: None, max_shrink_iters: 64, ..ProptestConfig::default() };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = cases;
    }
    let state = if sandboxed { sandbox().boxed() } else { host().boxed() };
    let outcome = TestRunner::new(config).run(&(vec(state, 1..4), any::<[u8; 32]>()), |(desired, seed)| {
        let seen = laws::backend(&mut World::new(sandboxed, open), &desired, seed)?;
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
    println!("steps, faults, kills, repairs, values: {total:?}");
    assert!(total.iter().all(|count| *count > 0), "{total:?}");
}

#[test]
fn a_hosts_rules_keep_the_laws_of_a_backend() {
    kernel_test(Kernel::Host, "firewall::a_hosts_rules_keep_the_laws_of_a_backend", || conform(false, |it| it, 12));
}

#[test]
fn a_sandboxs_rules_keep_the_laws_of_a_backend() {
    kernel_test(Kernel::Host, "firewall::a_sandboxs_rules_keep_the_laws_of_a_backend", || conform(true, |it| it, 12));
}

#[test]
fn a_shadow_of_rules_keeps_the_laws() {
    kernel_test(Kernel::Host, "firewall::a_shadow_of_rules_keeps_the_laws", || {
        conform(false, Shadow::new, 8);
        conform(true, Shadow::new, 8);
    });
}
