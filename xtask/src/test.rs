//! `cargo xtask test`: the command that the README gives, so that it is the one that works.

use crate::readme::documented;
use crate::step::{Outcome, no_arguments, run as execute};

pub(crate) fn run(arguments: &[String]) -> Outcome {
    no_arguments(arguments)?;
    execute(documented("cargo test --workspace")?.env("OVERLAY_IPAM_OPERATIONS", OPERATIONS))
}

/// Operations of overlay-ipam's simulation: more than a plain run of the tests has patience for.
const OPERATIONS: &str = "1000000";

/// The same with `cases` cases for each property test that does not fix their number.
pub(crate) fn run_with_cases(cases: u32) -> Outcome {
    let mut command = documented("cargo test --workspace")?;
    for package in OPTIMISED {
        command.arg("--config").arg(format!("profile.dev.package.{package}.opt-level=2"));
    }
    execute(command.env("PROPTEST_CASES", cases.to_string()))
}

/// Packages whose simulations take longer than optimising them does, once there are many cases: six to eight times as long
/// without. All checks stay.
const OPTIMISED: &[&str] = &["overlay-gossip"];
