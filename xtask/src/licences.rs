//! `cargo xtask licences`: every dependency may be used under a licence that deny.toml allows.

use std::collections::BTreeMap;

use cargo_metadata::{Metadata, Package};
use spdx::{Expression, Licensee, ParseMode};
use toml::{Table, Value};

use crate::step::{Failure, Outcome, cargo, no_arguments, read, run as execute, verdict};
use crate::workspace::metadata;

/// Judges by itself, and by cargo-deny too where that is installed.
pub(crate) fn run(arguments: &[String]) -> Outcome {
    no_arguments(arguments)?;
    let allowed = Allowed::parse(&read("deny.toml")?)?;
    verdict(&complaints(&metadata()?, &allowed))?;
    if cargo("deny --version").output().is_ok_and(|output| output.status.success()) {
        return execute(&mut cargo("deny --locked check licenses bans sources"));
    }
    println!("cargo-deny is not installed: bans and sources are not checked");
    Ok(())
}

/// The lists of deny.toml, which is where they are written.
#[derive(Debug, Default)]
struct Allowed {
    everywhere: Vec<Licensee>,
    of_crate: BTreeMap<String, Vec<Licensee>>,
}

impl Allowed {
    fn parse(text: &str) -> Outcome<Self> {
        let table: Table = text.parse().map_err(|error| Failure::new(format!("deny.toml: {error}")))?;
        let licenses = table.get("licenses").ok_or_else(|| Failure::new("deny.toml has no [licenses]"))?;
        let mut of_crate = BTreeMap::new();
        for exception in licenses.get("exceptions").and_then(Value::as_array).into_iter().flatten() {
            let name = exception.get("crate").and_then(Value::as_str);
            let name = name.ok_or_else(|| Failure::new("an exception in deny.toml names no `crate`"))?;
            of_crate.insert(name.to_owned(), licensees(exception)?);
        }
        Ok(Self { everywhere: licensees(licenses)?, of_crate })
    }

    fn permits(&self, name: &str, expression: &Expression) -> bool {
        let own = self.of_crate.get(name).into_iter().flatten();
        let allowed: Vec<_> = self.everywhere.iter().chain(own).collect();
        expression.evaluate(|requirement| allowed.iter().any(|licensee| licensee.satisfies(requirement)))
    }
}

/// The `allow` list of a table.
fn licensees(table: &Value) -> Outcome<Vec<Licensee>> {
    let names = table.get("allow").and_then(Value::as_array).into_iter().flatten();
    names.map(licensee).collect()
}

fn licensee(name: &Value) -> Outcome<Licensee> {
    let parsed = name.as_str().and_then(|name| Licensee::parse(name).ok());
    parsed.ok_or_else(|| Failure::new(format!("deny.toml allows {name:?}, which is no SPDX licence")))
}

fn complaints(metadata: &Metadata, allowed: &Allowed) -> Vec<String> {
    metadata.packages.iter().filter_map(|package| complaint(package, allowed)).collect()
}

fn complaint(package: &Package, allowed: &Allowed) -> Option<String> {
    let (name, version) = (&package.name, &package.version);
    let Some(text) = &package.license else {
        return Some(format!("{name} {version} names no licence; an SPDX expression is expected in its manifest"));
    };
    match Expression::parse_mode(text, ParseMode::LAX) {
        Ok(expression) if allowed.permits(name, &expression) => None,
        Ok(_) => Some(format!("{name} {version} is under {text}, which deny.toml does not allow")),
        Err(error) => {
            Some(format!("{name} {version} is under {text:?}, which is no SPDX expression: {}", error.reason))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{Crate, metadata};

    fn of(name: &'static str, licence: Option<&'static str>) -> Option<String> {
        let allowed = Allowed::parse(&read("deny.toml").unwrap()).unwrap();
        complaints(&metadata(&[Crate::new(name).licence(licence)]), &allowed).pop()
    }

    #[test]
    fn what_the_list_satisfies_passes_alone_by_choice_and_together() {
        for licence in ["MIT", "MIT/Apache-2.0", "GPL-3.0-only OR MIT", "(MIT OR Apache-2.0) AND Unicode-3.0", "0BSD"] {
            assert_eq!(of("a", Some(licence)), None, "{licence}");
        }
    }

    #[test]
    fn what_it_does_not_is_caught() {
        for licence in ["GPL-3.0-only", "MIT AND GPL-3.0-only", "AGPL-3.0-or-later", "Apache-2.0 WITH LLVM-exception"] {
            assert!(of("a", Some(licence)).is_some_and(|complaint| complaint.contains(licence)), "{licence}");
        }
        assert!(of("a", None).is_some_and(|complaint| complaint.contains("names no licence")));
        assert!(of("a", Some("ask me")).is_some_and(|complaint| complaint.contains("no SPDX expression")));
    }

    #[test]
    fn an_exception_is_for_its_crate_alone() {
        assert_eq!(of("foca", Some("MPL-2.0")), None);
        assert!(of("other", Some("MPL-2.0")).is_some());
    }

    #[test]
    fn a_list_that_cannot_be_read_is_not_an_empty_one() {
        assert!(Allowed::parse("[bans]").is_err());
        assert!(Allowed::parse("[licenses]\nallow = [\"MIT\", \"Mine\"]").is_err());
        assert!(Allowed::parse("[licenses]\nexceptions = [{ allow = [\"MIT\"] }]").is_err());
    }
}
