//! Made-up workspaces for the tests of the verbs that read `cargo metadata`.

use cargo_metadata::{Metadata, MetadataCommand};
use serde_json::{Map, Value, json};

/// A member of a made-up workspace.
#[derive(Clone)]
pub(crate) struct Crate {
    name: &'static str,
    licence: Option<&'static str>,
    rust_version: Option<&'static str>,
    dependencies: Vec<Value>,
    features: Map<String, Value>,
}

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Kind {
    Normal,
    Optional,
    Build,
    /// A dev-dependency with feature `testing`.
    Testing,
    /// A normal dependency with feature `testing`.
    NormalTesting,
}

impl Crate {
    pub(crate) fn new(name: &'static str) -> Self {
        Self { name, licence: Some("MIT"), rust_version: None, dependencies: Vec::new(), features: Map::new() }
    }

    pub(crate) fn licence(self, licence: Option<&'static str>) -> Self {
        Self { licence, ..self }
    }

    pub(crate) fn rust_version(self, rust_version: Option<&'static str>) -> Self {
        Self { rust_version, ..self }
    }

    pub(crate) fn feature(mut self, name: &str, turns_on: &[&str]) -> Self {
        self.features.insert(name.to_owned(), json!(turns_on));
        self
    }

    pub(crate) fn needs(mut self, name: &str, kind: Kind) -> Self {
        let word = match kind {
            Kind::Normal | Kind::Optional | Kind::NormalTesting => Value::Null,
            Kind::Build => json!("build"),
            Kind::Testing => json!("dev"),
        };
        let features = if matches!(kind, Kind::Testing | Kind::NormalTesting) { json!(["testing"]) } else { json!([]) };
        self.dependencies.push(json!({
            "name": name, "source": null, "req": "*", "kind": word, "rename": null, "optional": kind == Kind::Optional,
            "uses_default_features": true, "features": features, "target": null, "registry": null, "path": null,
        }));
        self
    }

    fn package(&self) -> Value {
        json!({
            "name": self.name, "version": "1.0.0", "id": self.name, "license": self.licence, "license_file": null,
            "description": null, "source": null, "dependencies": self.dependencies, "targets": [],
            "features": self.features, "manifest_path": "/Cargo.toml", "metadata": null, "publish": null, "authors": [],
            "categories": [], "keywords": [], "readme": null, "repository": null, "homepage": null,
            "documentation": null, "edition": "2024", "links": null, "default_run": null,
            "rust_version": self.rust_version,
        })
    }
}

/// What `cargo metadata` would say of a workspace with these members.
pub(crate) fn metadata(crates: &[Crate]) -> Metadata {
    let text = json!({
        "packages": crates.iter().map(Crate::package).collect::<Vec<_>>(),
        "workspace_members": crates.iter().map(|member| member.name).collect::<Vec<_>>(),
        "workspace_default_members": [], "resolve": null, "target_directory": "/target", "version": 1,
        "workspace_root": "/", "metadata": null,
    });
    MetadataCommand::parse(text.to_string()).unwrap()
}
