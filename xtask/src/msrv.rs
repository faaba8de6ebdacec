//! `cargo xtask msrv`: one rust-version, which every dependency that is built here supports.

use cargo_metadata::Metadata;
use semver::Version;
use toml::{Table, Value};

use crate::step::{Failure, Outcome, no_arguments, read, verdict};
use crate::workspace::metadata_for_host;

pub(crate) fn run(arguments: &[String]) -> Outcome {
    no_arguments(arguments)?;
    let ours = stated(&read("Cargo.toml")?)?;
    let metadata = metadata_for_host()?;
    let mut complaints = too_new(&metadata, &ours);
    for member in metadata.workspace_packages() {
        let manifest = std::fs::read_to_string(&member.manifest_path);
        let manifest = manifest.map_err(|error| Failure::new(format!("{}: {error}", member.manifest_path)))?;
        complaints.extend(not_inherited(&member.name, &manifest));
    }
    complaints.extend(said_otherwise(&read("README.md")?, &ours));
    verdict(&complaints)
}

/// The workspace's rust-version.
fn stated(manifest: &str) -> Outcome<Version> {
    let table: Table = manifest.parse().map_err(|error| Failure::new(format!("Cargo.toml: {error}")))?;
    let text = table.get("workspace").and_then(|it| it.get("package")?.get("rust-version")?.as_str());
    text.and_then(version)
        .ok_or_else(|| Failure::new("Cargo.toml: [workspace.package] states no rust-version like 1.91"))
}

/// Packages that need a newer Rust than ours; cargo lets a user build us with an older one than they can take.
fn too_new(metadata: &Metadata, ours: &Version) -> Vec<String> {
    let newer = |needed: &&Version| *needed > ours;
    let complaint = |needed, name, version| format!("{name} {version} needs Rust {needed}, the workspace says {ours}");
    let packages = metadata.packages.iter();
    packages.filter_map(|it| Some(complaint(it.rust_version.as_ref().filter(newer)?, &it.name, &it.version))).collect()
}

fn not_inherited(name: &str, manifest: &str) -> Option<String> {
    let table = manifest.parse::<Table>().ok();
    let field = table.as_ref().and_then(|table| table.get("package")?.get("rust-version"));
    let inherited = field.and_then(|field| field.get("workspace")).and_then(Value::as_bool) == Some(true);
    (!inherited)
        .then(|| format!("{name} has a rust-version of its own or none; it says `rust-version.workspace = true`"))
}

/// Versions that a text claims, as in "Rust 1.91" or "MSRV **1.91**", if they are not ours.
fn said_otherwise(text: &str, ours: &Version) -> Vec<String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let claims = words.windows(2).filter(|pair| pair[0].ends_with("Rust") || pair[0].ends_with("MSRV"));
    let versions = claims.filter_map(|pair| version(pair[1].trim_matches(|c: char| !c.is_ascii_digit())));
    versions
        .filter(|said| said != ours)
        .map(|said| format!("README.md says Rust {said}, the workspace {ours}"))
        .collect()
}

/// Reads `1.91` or `1.91.0`.
fn version(text: &str) -> Option<Version> {
    let parts: Vec<u64> = text.split('.').map(|part| part.parse().ok()).collect::<Option<_>>()?;
    match parts[..] {
        [major, minor] => Some(Version::new(major, minor, 0)),
        [major, minor, patch] => Some(Version::new(major, minor, patch)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{Crate, metadata};

    const OURS: Version = Version::new(1, 91, 0);

    #[test]
    fn a_dependency_that_needs_a_newer_rust_is_caught() {
        let of = |rust_version| too_new(&metadata(&[Crate::new("dep").rust_version(rust_version)]), &OURS);
        assert_eq!(of(Some("1.92")), ["dep 1.0.0 needs Rust 1.92.0, the workspace says 1.91.0"]);
        assert_eq!(of(Some("1.91.1")).len(), 1);
        assert!(of(Some("1.91")).is_empty() && of(Some("1.56.0")).is_empty() && of(None).is_empty());
    }

    #[test]
    fn a_member_with_a_version_of_its_own_is_caught() {
        assert_eq!(not_inherited("a", "[package]\nrust-version.workspace = true"), None);
        for manifest in
            ["[package]", "[package]\nrust-version = \"1.91\"", "[package]\nrust-version = { workspace = false }", "["]
        {
            assert!(not_inherited("a", manifest).is_some(), "{manifest}");
        }
    }

    #[test]
    fn a_readme_that_claims_another_version_is_caught() {
        assert!(said_otherwise("Needs Rust 1.91 or newer. MSRV: **1.80**. In Rust 2024", &OURS).is_empty());
        assert_eq!(said_otherwise("Needs Rust **1.80**.", &OURS), ["README.md says Rust 1.80.0, the workspace 1.91.0"]);
        assert_eq!(said_otherwise("Our MSRV `1.92.1`,", &OURS).len(), 1);
    }

    #[test]
    fn the_version_is_read_from_the_manifest_and_its_absence_is_a_failure() {
        assert_eq!(stated("[workspace.package]\nrust-version = \"1.91\"").unwrap(), OURS);
        assert!(stated("[workspace]").is_err());
    }
}
