//! `cargo xtask docs [--bless]`

use std::fs;

use crate::api;
use crate::step::{Failure, Outcome, cargo, run as execute, verdict};
use crate::workspace::{is_library, metadata};

const DOC: &str = "doc --locked --workspace --no-deps --all-features";

/// Twice, because a public page that links to a private item is only wrong where the private one has no page. What the public
/// pages show is held to the committed lists.
pub(crate) fn run(arguments: &[String]) -> Outcome {
    let bless = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => false,
        ["--bless"] => true,
        _ => return Err(Failure::new(format!("docs takes `--bless` or nothing, not {arguments:?}"))),
    };
    execute(cargo(DOC).arg("--document-private-items").env("RUSTDOCFLAGS", "-D warnings"))?;
    let metadata = metadata()?;
    let pages = metadata.target_directory.join("doc").into_std_path_buf();
    fs::remove_dir_all(&pages).map_err(|error| Failure::new(format!("{}: {error}", pages.display())))?;
    execute(cargo(DOC).env("RUSTDOCFLAGS", "-D warnings"))?;
    let packages = metadata.workspace_packages();
    let libraries: Vec<_> = packages.into_iter().filter(|package| is_library(package)).collect();
    verdict(&api::compare(&libraries, &pages, bless)?)
}
