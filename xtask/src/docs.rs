//! `cargo xtask docs`

use crate::step::{Outcome, cargo, no_arguments, run as execute};

const DOC: &str = "doc --locked --workspace --no-deps --all-features";

/// Twice, because a public page that links to a private item is only wrong where the private one has no page.
pub(crate) fn run(arguments: &[String]) -> Outcome {
    no_arguments(arguments)?;
    execute(cargo(DOC).env("RUSTDOCFLAGS", "-D warnings"))?;
    execute(cargo(DOC).arg("--document-private-items").env("RUSTDOCFLAGS", "-D warnings"))
}
