//! Changes of the catalogue that a later release tells, and this one does not understand.

use std::collections::BTreeMap;

use overlay_core::EndpointId;
use overlay_node::CatalogueChange;
use serde::Deserialize;
use serde_json::Value;

use super::frame::Told;

/// What a line tells of which not all is understood: those changes that are, and of the others what they are of, and what is wrong. `None` if that is not what is in
/// the way.
pub(super) fn told(line: &[u8]) -> Option<Told> {
    let Line { told: Loose { all, part, more, at, changes, unreadable } } = serde_json::from_slice(line).ok()?;
    let mut told = Told { all, part, more, at, changes: Vec::new(), unreadable, misread: BTreeMap::new() };
    for change in changes {
        match CatalogueChange::deserialize(&change) {
            Ok(change) => told.changes.push(change),
            Err(flaw) => drop(told.misread.insert(named(&change)?, flaw.to_string())),
        }
    }
    Some(told)
}

/// A line of changes, whatever these are.
#[derive(Deserialize)]
struct Line {
    told: Loose,
}

#[derive(Deserialize)]
struct Loose {
    all: bool,
    #[serde(default)]
    part: bool,
    more: bool,
    #[serde(default)]
    at: u64,
    changes: Vec<Value>,
    unreadable: Option<BTreeMap<String, String>>,
}

/// What a change is of: its kind, and of the kinds that we know, the object's id, as a record's key ends with it.
fn named(change: &Value) -> Option<String> {
    let (kind, object) = match change {
        Value::String(kind) => return Some(kind.clone()),
        Value::Object(of) => of.iter().next().filter(|_| of.len() == 1)?,
        _ => return None,
    };
    let id = object.get("id").and_then(Value::as_str).filter(|_| KINDS.contains(&kind.as_str()));
    Some(match id.filter(|id| id.parse::<EndpointId>().is_ok()) {
        Some(id) => format!("{kind}/{id}"),
        None => kind.clone(),
    })
}

/// Those of objects that are there: see [`CatalogueChange`].
const KINDS: [&str; 4] = ["node", "network", "service", "endpoint"];

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_understood_of_a_line_is_taken_and_what_the_rest_is_of_is_said() {
        let id = "0250za67mbtgh1tvq6ktn8q2p";
        let line = json!({"told": {"all": true, "more": false, "at": 7, "later": 1, "unreadable": {}, "changes": [
            {"node_gone": id}, {"secret": {"id": id}}, {"node": {"id": id, "spec": {"name": "n", "role": "observer"}}}, "all_gone",
            {"node": {"id": "../..", "spec": 1}},
        ]}});
        let told = told(line.to_string().as_bytes()).unwrap();
        assert_eq!((told.all, told.at, told.changes.len()), (true, 7, 1));
        let kinds: Vec<&String> = told.misread.keys().collect();
        assert_eq!(kinds, ["all_gone", "node", &format!("node/{id}"), "secret"]);
        for line in [
            "what?",
            "\"beat\"",
            "{\"told\":7}",
            "{\"told\":{\"all\":true,\"more\":false,\"changes\":[7],\"unreadable\":{}}}",
        ] {
            assert!(super::told(line.as_bytes()).is_none(), "{line}");
        }
    }
}
