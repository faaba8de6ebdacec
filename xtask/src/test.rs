//! `cargo xtask test`: the command that the README gives, so that it is the one that works.

use std::process::Command;

use crate::readme::documented;
use crate::step::{Outcome, cargo, no_arguments, run as execute, through};

pub(crate) fn run(arguments: &[String]) -> Outcome {
    no_arguments(arguments)?;
    execute(unprivileged(documented("cargo test --workspace")?).env("OVERLAY_IPAM_OPERATIONS", OPERATIONS))
}

/// As most who try it are: without what it takes to change networks. The tests that need more are run by the verb `kernel`, once.
fn unprivileged(command: Command) -> Command {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    if may_give_up(&status) { through("setpriv --bounding-set -net_admin,-sys_admin --", &command) } else { command }
}

/// Whether a process with this status may give up capabilities for good (`CAP_SETPCAP`, 8), as root may: who may not has hardly more.
fn may_give_up(status: &str) -> bool {
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).is_some_and(|effective| effective & 1 << 8 != 0)
}

/// Operations of overlay-ipam's simulation: more than a plain run of the tests has patience for.
const OPERATIONS: &str = "1000000";

/// The same with `cases` cases for each property test that does not fix their number.
pub(crate) fn run_with_cases(cases: u32) -> Outcome {
    let mut command = unprivileged(documented("cargo test --workspace")?);
    for package in OPTIMISED {
        command.arg("--config").arg(format!("profile.dev.package.{package}.opt-level=2"));
    }
    execute(command.env("PROPTEST_CASES", cases.to_string()))
}

/// A cluster of as many nodes as we say that one can have forms, carries packets and loses a tenth of them: in the profile that users build, since each
/// node's work is done here by one process.
pub(crate) fn run_with_nodes(nodes: u32) -> Outcome {
    let mut command =
        cargo("test --locked --release --package overlay-fabric --all-features --test many -- --nocapture");
    execute(command.env("OVERLAY_FABRIC_NODES", nodes.to_string()))
}

/// So many hours of everything that can happen to a cluster: in the profile that users build, for the same reason.
pub(crate) fn run_for_hours(hours: u32) -> Outcome {
    let mut command =
        cargo("test --locked --release --package overlay-fabric --all-features --test day -- --nocapture");
    execute(command.env("OVERLAY_FABRIC_HOURS", hours.to_string()))
}

/// Packages whose simulations take longer than optimising them does, once there are many cases: six to eight times as long
/// without. All checks stay.
const OPTIMISED: &[&str] = &["overlay-gossip"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_gives_up_what_others_have_not() {
        assert!(may_give_up("Name:\tcargo\nCapEff:\t000001ffffffffff\n"));
        assert!(!may_give_up("Name:\tcargo\nCapEff:\t0000000000000000\n"));
        assert!(!may_give_up(""));
    }
}
