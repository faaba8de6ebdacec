//! `cargo xtask kernel [--bless]`: the tests on this machine's kernel, none of which may vanish.

use std::collections::BTreeSet;
use std::fs;

use crate::step::{Failure, Outcome, cargo, read, run as execute, verdict};
use crate::workspace::{metadata, root};

const LIST: &str = "testing/kernel-tests.txt";

/// Runs all tests where they may change networks; those that need this kernel write their names to a log.
pub(crate) fn run(arguments: &[String]) -> Outcome {
    let bless = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => false,
        ["--bless"] => true,
        _ => return Err(Failure::new(format!("kernel takes `--bless` or nothing, not {arguments:?}"))),
    };
    let ran = log_of_tests()?;
    let list = read(LIST)?;
    if bless {
        return fs::write(root().join(LIST), blessed(Runner::Host, &list, &ran))
            .map_err(|error| Failure::new(format!("{LIST}: {error}")));
    }
    println!("kernel tests that ran on this machine's kernel: {}", lines(Runner::Host, &ran).len());
    verdict(&difference(Runner::Host, &list, &ran))
}

/// The kernel under the tests: each line of the log and of the list begins with one.
#[derive(Clone, Copy)]
enum Runner {
    Host,
}

impl Runner {
    fn prefix(self) -> &'static str {
        match self {
            Self::Host => "host ",
        }
    }
}

fn log_of_tests() -> Outcome<String> {
    let log = metadata()?.target_directory.join("kernel-tests.log");
    fs::write(&log, "").map_err(|error| Failure::new(format!("{log}: {error}")))?;
    let mut tests = cargo("test --locked --quiet --workspace --all-features");
    tests.env("OVERLAY_REQUIRE_KERNEL", "1").env("OVERLAY_KERNEL_LOG", &log).env_remove("KERNEL_LAB");
    execute(&mut tests)?;
    fs::read_to_string(&log).map_err(|error| Failure::new(format!("{log}: {error}")))
}

/// What ran but is not listed, and what is listed but did not run.
fn difference(runner: Runner, list: &str, ran: &str) -> Vec<String> {
    let (listed, ran) = (lines(runner, list), lines(runner, ran));
    let missing = listed.difference(&ran).map(|line| format!("- {line}   (in {LIST}, but it did not run)"));
    let extra = ran.difference(&listed).map(|line| format!("+ {line}   (ran, but is not in {LIST})"));
    let mut lines: Vec<String> = missing.chain(extra).collect();
    if !lines.is_empty() {
        lines.push("if that is as it should be: `cargo xtask kernel --bless`, and commit the list".to_owned());
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
    fn blessing_replaces_the_lines_of_one_kernel_and_makes_the_difference_empty() {
        let ran = "host b::new\nhost a::one\n";
        let list = blessed(Runner::Host, LISTED, ran);
        assert_eq!(list, "# why\nhost a::one\nhost b::new\nlab a::esp\n");
        assert!(difference(Runner::Host, &list, ran).is_empty());
    }
}
