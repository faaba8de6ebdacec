//! The workspace as cargo sees it.

use std::path::Path;

use cargo_metadata::{CargoOpt, Metadata, MetadataCommand, Package};

use crate::step::{self, Failure, Outcome};

/// The workspace's root.
pub(crate) fn root() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here)
}

/// `cargo metadata` with all features, for every platform.
pub(crate) fn metadata() -> Outcome<Metadata> {
    query(&[])
}

/// `cargo metadata` with all features, for this machine: only what is ever built here.
pub(crate) fn metadata_for_host() -> Outcome<Metadata> {
    let version = step::output(step::cargo("version --verbose").env_remove("RUSTFLAGS"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    let host = host.ok_or_else(|| Failure::new("`cargo version --verbose` names no host"))?;
    query(&["--filter-platform", host])
}

/// Whether a member is a library that people may depend on.
pub(crate) fn is_library(package: &Package) -> bool {
    let published = package.publish.as_ref().is_none_or(|registries| !registries.is_empty());
    published && package.targets.iter().any(|target| target.is_lib())
}

fn query(options: &[&str]) -> Outcome<Metadata> {
    let options: Vec<String> = ["--locked"].iter().chain(options).map(ToString::to_string).collect();
    let mut command = MetadataCommand::new();
    command.current_dir(root()).features(CargoOpt::AllFeatures).other_options(options);
    command.exec().map_err(|error| Failure::new(format!("cargo metadata: {error}")))
}
