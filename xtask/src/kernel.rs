//! `cargo xtask kernel [--bless]`, `cargo xtask lab [--bless]`: the tests on this machine's kernel and on the kernel
//! lab's, none of which may vanish.

use std::collections::BTreeSet;
use std::fs;

use std::process::Command;

use cargo_metadata::camino::Utf8Path;

use crate::step::{Failure, Outcome, cargo, read, run as execute, verdict};
use crate::workspace::{metadata, root};

const LIST: &str = "testing/kernel-tests.txt";

const LAB: &str = "testing/kernel-lab/run";
/// How long a kernel of the lab may live, in seconds.
const LAB_SECONDS: &str = "900";
/// Cases of each property test there, where all takes several times as long.
const LAB_CASES: &str = "32";
/// The lab's exit status where something is not installed.
const NOT_INSTALLED: i32 = 69;

/// Runs all tests where they may change networks; those that need this kernel write their names to a log.
pub(crate) fn run(arguments: &[String]) -> Outcome {
    Runner::Host.run(arguments)
}

/// Runs the tests that need the lab's kernel in it. Without its packages: a failure in CI, a word elsewhere.
pub(crate) fn lab(arguments: &[String]) -> Outcome {
    let status = Command::new(root().join(LAB)).arg("true").status();
    match status.map_err(|error| Failure::new(format!("{LAB}: {error}")))?.code() {
        Some(0) => Runner::Lab.run(arguments),
        Some(NOT_INSTALLED) if std::env::var_os("CI").is_none() => {
            println!("SKIPPED: the kernel lab is not installed, so the tests that need it did not run");
            Ok(())
        }
        code => Err(Failure::new(format!("{LAB} true: exit status {code:?}"))),
    }
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
        let ran = self.log_of_tests()?;
        let list = read(LIST)?;
        if bless {
            return fs::write(root().join(LIST), blessed(self, &list, &ran))
                .map_err(|error| Failure::new(format!("{LIST}: {error}")));
        }
        println!("{verb}: {} kernel tests ran", lines(self, &ran).len());
        verdict(&difference(self, &list, &ran))
    }

    fn log_of_tests(self) -> Outcome<String> {
        let log = metadata()?.target_directory.join(format!("{}-tests.log", self.verb()));
        fs::write(&log, "").map_err(|error| Failure::new(format!("{log}: {error}")))?;
        execute(&mut self.tests(&log))?;
        fs::read_to_string(&log).map_err(|error| Failure::new(format!("{log}: {error}")))
    }

    /// In the lab only the test targets that are called `kernel`: it starts anew for each.
    fn tests(self, log: &Utf8Path) -> Command {
        let mut tests = cargo("test --locked --quiet --workspace --all-features");
        tests.env("OVERLAY_REQUIRE_KERNEL", "1").env("OVERLAY_KERNEL_LOG", log).env_remove("KERNEL_LAB");
        if let Self::Lab = self {
            let runner = format!("target.'cfg(all())'.runner = {:?}", root().join(LAB));
            tests.args(["--test", "kernel", "--config", &runner]);
            tests.env("LAB_SECONDS", LAB_SECONDS).env("PROPTEST_CASES", LAB_CASES);
        }
        tests
    }
}

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
