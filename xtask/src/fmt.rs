//! `cargo xtask fmt`

use crate::step::{Outcome, cargo, no_arguments, run as execute};

pub(crate) fn run(arguments: &[String]) -> Outcome {
    no_arguments(arguments)?;
    execute(&mut cargo("fmt --all --check"))
}
