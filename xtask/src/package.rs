//! `cargo xtask package`: each library as crates.io would have it. It is packed, not built: that is done to its sources.

use cargo_metadata::Package;

use crate::step::{Outcome, cargo, no_arguments, run as execute, verdict};
use crate::workspace::{is_library, metadata};

pub(crate) fn run(arguments: &[String]) -> Outcome {
    no_arguments(arguments)?;
    let metadata = metadata()?;
    let libraries: Vec<&Package> = metadata.workspace_packages().into_iter().filter(|it| is_library(it)).collect();
    verdict(&libraries.iter().flat_map(|library| lacking(library)).collect::<Vec<_>>())?;
    // A tree with changes is packed as it is.
    let mut command = cargo("package --quiet --no-verify --allow-dirty");
    command.args(libraries.iter().flat_map(|library| ["--package", library.name.as_str()]));
    execute(&mut command)
}

/// What goes with a package and is not beside its manifest.
fn lacking(library: &Package) -> Vec<String> {
    let has = |file: &str| library.manifest_path.with_file_name(file).is_file();
    let lacks = FILES.iter().filter(|file| !has(file));
    lacks.map(|file| format!("{}: no {file}, which goes with its package", library.name)).collect()
}

const FILES: [&str; 3] = ["LICENSE-MIT", "LICENSE-APACHE", "README.md"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_has_what_goes_with_it_and_who_lacks_it_is_told() {
        let metadata = metadata().unwrap();
        let packages = metadata.workspace_packages();
        let one = |library: bool| *packages.iter().find(|it| is_library(it) == library).unwrap();
        assert_eq!(lacking(one(true)), [""; 0]);
        let lacks = lacking(one(false)).join("\n");
        assert!(lacks.contains("no LICENSE-MIT") && lacks.contains("no LICENSE-APACHE"), "{lacks}");
    }
}
