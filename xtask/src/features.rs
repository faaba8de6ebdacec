//! `cargo xtask features`: each library builds without a warning with every combination of its features.

use std::collections::BTreeSet;

use cargo_metadata::Package;

use crate::step::{Outcome, cargo, no_arguments, run as execute, verdict};
use crate::workspace::{is_library, metadata};

/// Larger combinations are left out, but for all features at once: faults need one, two or three features to show.
const DEPTH: usize = 3;

pub(crate) fn run(arguments: &[String]) -> Outcome {
    no_arguments(arguments)?;
    let metadata = metadata()?;
    let libraries: Vec<&Package> =
        metadata.workspace_packages().into_iter().filter(|package| is_library(package)).collect();
    verdict(&defaults(&libraries))?;
    for library in libraries {
        for features in combinations(&own(library)) {
            // `rustc --profile check` is `check` with flags for the last crate alone, so dependencies are kept.
            let command = "rustc --locked --quiet --lib --profile check --no-default-features --package";
            let mut command = cargo(command);
            command.args([library.name.as_str(), "--features", &features.join(","), "--", "-D", "warnings"]);
            execute(&mut command)?;
        }
    }
    Ok(())
}

/// Libraries whose set of default features is not empty.
fn defaults(libraries: &[&Package]) -> Vec<String> {
    let on = |library: &&&Package| library.features.get("default").is_some_and(|features| !features.is_empty());
    let complaint =
        |library: &&Package| format!("{} has default features; a library's are all off by default", library.name);
    libraries.iter().filter(on).map(complaint).collect()
}

fn own(library: &Package) -> Vec<&str> {
    library.features.keys().map(String::as_str).filter(|name| *name != "default").collect()
}

/// All subsets of up to [`DEPTH`] features, and the whole.
fn combinations<'a>(features: &[&'a str]) -> BTreeSet<Vec<&'a str>> {
    let mut found = BTreeSet::from([Vec::new(), features.to_vec()]);
    for _ in 0..DEPTH {
        let larger = found.iter().flat_map(|set| features.iter().map(move |feature| with(set, feature)));
        found = found.iter().cloned().chain(larger).collect();
    }
    found
}

fn with<'a>(set: &[&'a str], feature: &'a str) -> Vec<&'a str> {
    let mut larger = set.to_vec();
    larger.push(feature);
    larger.sort_unstable();
    larger.dedup();
    larger
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{Crate, metadata};

    #[test]
    fn few_features_are_tried_in_every_combination_and_many_in_threes_and_all_at_once() {
        assert_eq!(combinations(&[]).len(), 1);
        assert_eq!(combinations(&["a", "b"]).len(), 4);
        assert_eq!(combinations(&["a", "b", "c", "d"]).len(), 16);
        assert_eq!(combinations(&["a", "b", "c", "d", "e"]).len(), 1 + 5 + 10 + 10 + 1);
    }

    #[test]
    fn a_default_feature_is_complained_of() {
        let of = |features: &[&str]| {
            let metadata = metadata(&[Crate::new("overlay-x").feature("kernel", &[]).feature("default", features)]);
            defaults(&metadata.workspace_packages())
        };
        assert_eq!(of(&["kernel"]), ["overlay-x has default features; a library's are all off by default"]);
        assert!(of(&[]).is_empty());
    }
}
