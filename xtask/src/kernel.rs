//! `cargo xtask kernel [--bless]`, `cargo xtask lab [--bless]`: the tests on this machine's kernel and on the kernel
//! lab's, none of which may vanish.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use cargo_metadata::{Metadata, Target, TargetKind};

use crate::lab;
use crate::step::{Failure, Outcome, cargo, read, run_beside, verdict};
use crate::workspace::{metadata, root};

const LIST: &str = "testing/kernel-tests.txt";

/// Runs where they may change networks the tests that the verb `test` left out: those that need a kernel, which write their names to a log, or a feature.
pub(crate) fn run(arguments: &[String]) -> Outcome {
    Runner::Host.run(arguments)
}

/// Runs the tests that need the lab's kernel in it. Without its packages: a failure in CI, a word elsewhere.
pub(crate) fn lab(arguments: &[String]) -> Outcome {
    if lab::is_there()? {
        return Runner::Lab.run(arguments);
    }
    println!("SKIPPED: the kernel lab is not installed, so the tests that need it did not run");
    Ok(())
}

/// The kernel under the tests: each line of the log and of the list begins with one.
#[derive(Clone, Copy)]
enum Runner {
    Host,
    Lab,
}

impl Runner {
    fn prefix(self) -> &'static str {
        match self {
            Self::Host => "host ",
            Self::Lab => "lab ",
        }
    }

    const fn verb(self) -> &'static str {
        match self {
            Self::Host => "kernel",
            Self::Lab => "lab",
        }
    }

    fn run(self, arguments: &[String]) -> Outcome {
        let verb = self.verb();
        let bless = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            [] => false,
            ["--bless"] => true,
            _ => return Err(Failure::new(format!("{verb} takes `--bless` or nothing, not {arguments:?}"))),
        };
        let ran = match self {
            Self::Host => log_of_tests()?,
            Self::Lab => lab::log_of_tests()?,
        };
        let list = read(LIST)?;
        if bless {
            return fs::write(root().join(LIST), blessed(self, &list, &ran))
                .map_err(|error| Failure::new(format!("{LIST}: {error}")));
        }
        println!("{verb}: {} kernel tests ran", lines(self, &ran).len());
        verdict(&difference(self, &list, &ran))
    }
}

/// Runs them on this machine's kernel: each crate's own tests and programs, the test targets that the verb `test` did not run
/// whole, and what documentation shows, all with every feature. The tests wait more than they work, so there are more
/// at once than cores, and what documentation shows, and the soak, which has a process to itself, run beside them.
fn log_of_tests() -> Outcome<String> {
    let metadata = metadata()?;
    let log = metadata.target_directory.join("kernel-tests.log");
    fs::write(&log, "").map_err(|error| Failure::new(format!("{log}: {error}")))?;
    const TESTS: &str = "test --locked --quiet --workspace --all-features";
    let mut tests = cargo(TESTS);
    tests.args(["--lib", "--bins"]);
    let needing = needing(&metadata, &asks_for_a_kernel);
    tests.args(needing.iter().filter(|target| *target != SOAK).flat_map(|target| ["--test", target]));
    let mut commands = [tests, cargo(&format!("{TESTS} --test {SOAK}")), cargo(&format!("{TESTS} --doc"))];
    for command in &mut commands {
        command
            .env("RUST_TEST_THREADS", AT_ONCE)
            .env("OVERLAY_REQUIRE_KERNEL", "1")
            .env("OVERLAY_KERNEL_LOG", &log)
            .env_remove("KERNEL_LAB");
    }
    run_beside(&mut commands)?;
    fs::read_to_string(&log).map_err(|error| Failure::new(format!("{log}: {error}")))
}

/// The test targets that need a feature, or of which `asks` says that they need a kernel.
fn needing(metadata: &Metadata, asks: &dyn Fn(&Target) -> bool) -> BTreeSet<String> {
    let targets = metadata.workspace_packages().into_iter().flat_map(|package| &package.targets);
    let tests = targets.filter(|target| target.kind.contains(&TargetKind::Test));
    let needing = tests.filter(|target| !target.required_features.is_empty() || asks(target));
    needing.map(|target| target.name.clone()).collect()
}

/// Whether a file of a test has the word of the gate that all kernel tests go through.
fn asks_for_a_kernel(target: &Target) -> bool {
    let root = target.src_path.as_std_path();
    let is_folder = root.file_name().is_some_and(|name| name == "main.rs");
    let has_word = |path: &Path| fs::read_to_string(path).is_ok_and(|text| text.contains(GATE));
    let beside = || root.parent().and_then(|folder| fs::read_dir(folder).ok()).into_iter().flatten().flatten();
    has_word(root) || (is_folder && beside().any(|entry| has_word(&entry.path())))
}

const GATE: &str = "kernel_test";
const SOAK: &str = "soak";
/// Tests at once in a process, whatever the cores: they wait for the kernel and for timers. With eight, those that load the machine by themselves run into time limits of others.
const AT_ONCE: &str = "4";

/// What ran but is not listed, and what is listed but did not run.
fn difference(runner: Runner, list: &str, ran: &str) -> Vec<String> {
    let (listed, ran) = (lines(runner, list), lines(runner, ran));
    let missing = listed.difference(&ran).map(|line| format!("- {line}   (in {LIST}, but it did not run)"));
    let extra = ran.difference(&listed).map(|line| format!("+ {line}   (ran, but is not in {LIST})"));
    let mut lines: Vec<String> = missing.chain(extra).collect();
    if !lines.is_empty() {
        let verb = runner.verb();
        lines.push(format!("if that is as it should be: `cargo xtask {verb} --bless`, and commit the list"));
    }
    lines
}

/// The list with this runner's lines replaced by what ran; comments stay at the top.
fn blessed(runner: Runner, list: &str, ran: &str) -> String {
    let comments = list.lines().filter(|line| line.starts_with('#'));
    let others = list.lines().filter(|line| !line.starts_with('#') && !line.starts_with(runner.prefix()));
    let tests: BTreeSet<&str> = others.filter(|line| !line.is_empty()).chain(lines(runner, ran)).collect();
    comments.chain(tests).map(|line| format!("{line}\n")).collect()
}

fn lines(runner: Runner, text: &str) -> BTreeSet<&str> {
    text.lines().map(str::trim).filter(|line| line.starts_with(runner.prefix())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_needs_a_feature_or_a_kernel_is_run_again_and_nothing_else() {
        let metadata = metadata().unwrap();
        let needing = needing(&metadata, &asks_for_a_kernel);
        for target in ["kernel", "kernel_state", "packets", "dig", "quickstart", "managers", "etcd", "soak"] {
            assert!(needing.contains(target), "{target} is not in {needing:?}");
        }
        for target in ["rotation", "packets_chaos", "simulation"] {
            assert!(!needing.contains(target), "{target} is in {needing:?}");
        }
    }

    const LISTED: &str = "# why\nhost a::one\nhost a::two\nlab a::esp\n";

    #[test]
    fn the_same_tests_in_any_order_and_number_pass() {
        assert_eq!(difference(Runner::Host, LISTED, "host a::two\nhost a::one\nhost a::two\n"), [""; 0]);
    }

    #[test]
    fn a_test_that_vanished_and_one_that_is_new_are_caught() {
        let difference = difference(Runner::Host, LISTED, "host a::one\nhost a::three\n");
        assert_eq!(difference.len(), 3);
        assert!(difference[0].starts_with("- host a::two "), "{difference:?}");
        assert!(difference[1].starts_with("+ host a::three "), "{difference:?}");
        assert!(difference[2].contains("cargo xtask kernel --bless"), "{difference:?}");
    }

    #[test]
    fn each_kernel_is_held_to_its_own_lines() {
        assert_eq!(difference(Runner::Lab, LISTED, "lab a::esp\n"), [""; 0]);
        let difference = difference(Runner::Lab, LISTED, "");
        assert!(difference[0].starts_with("- lab a::esp "), "{difference:?}");
        assert!(difference[1].contains("cargo xtask lab --bless"), "{difference:?}");
    }

    #[test]
    fn blessing_replaces_the_lines_of_one_kernel_and_makes_the_difference_empty() {
        let ran = "host b::new\nhost a::one\n";
        let list = blessed(Runner::Host, LISTED, ran);
        assert_eq!(list, "# why\nhost a::one\nhost b::new\nlab a::esp\n");
        assert!(difference(Runner::Host, &list, ran).is_empty());
    }
}
