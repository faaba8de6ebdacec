//! `cargo xtask bench [--all-features | --page FILE]`: every benchmark still runs and prints its figures; how good they are is for people to read.

use std::path::Path;

use serde_json::Value;

use crate::page;
use crate::step::{Failure, Outcome, cargo, output, verdict};

pub(crate) fn run(arguments: &[String]) -> Outcome {
    // With the features that the README's program has, of whose crates nothing is built again then; or with those on etcd, too.
    let features = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => "--bin overlay-bench",
        ["--all-features"] => "--package overlay-bench --all-features",
        ["--page", file] => return page::write(Path::new(file)),
        _ => {
            return Err(Failure::new(format!(
                "bench takes `--all-features`, `--page FILE` or nothing, not {arguments:?}"
            )));
        }
    };
    let printed = output(&mut cargo(&format!("run --locked --release {features} -- --quick all")))?;
    print!("{printed}");
    if printed.is_empty() {
        return Err(Failure::new("overlay-bench printed no figure; one JSON line for each is expected on stdout"));
    }
    verdict(&printed.lines().filter_map(complaint).collect::<Vec<_>>())
}

/// What is wrong with a line, if anything.
fn complaint(line: &str) -> Option<String> {
    let figure: Value = match serde_json::from_str(line) {
        Ok(figure) => figure,
        Err(error) => return Some(format!("not JSON ({error}): {line}")),
    };
    let yardstick = figure.get("yardstick");
    let shape = [
        (figure["bench"].is_string(), "`bench` is not a text"),
        (figure["value"].as_f64().is_some_and(|value| value >= 0.0), "`value` is not a number from 0 up"),
        (figure["unit"].is_string(), "`unit` is not a text"),
        (yardstick.is_none_or(|it| it["name"].is_string()), "`yardstick.name` is not a text"),
        (yardstick.is_none_or(|it| it["value"].is_number()), "`yardstick.value` is not a number"),
        (yardstick.is_some() == figure["ratio"].is_number(), "`ratio` goes with a yardstick and is a number"),
    ];
    let (_, wrong) = shape.iter().find(|(right, _)| !right)?;
    Some(format!("{wrong}: {line}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_pass_with_and_without_a_yardstick() {
        assert_eq!(complaint(r#"{"bench": "codec/x", "value": 4.5, "unit": "ns"}"#), None);
        let measured =
            r#"{"bench": "a", "value": 4, "unit": "ns", "yardstick": {"name": "memcpy", "value": 8.0}, "ratio": 0.5}"#;
        assert_eq!(complaint(measured), None);
    }

    #[test]
    fn other_lines_are_complained_of_by_what_they_lack() {
        for (line, wrong) in [
            ("warming up", "not JSON"),
            ("3", "`bench`"),
            (r#"{"bench": "a", "unit": "ns"}"#, "`value`"),
            (r#"{"bench": "a", "value": null, "unit": "ns"}"#, "`value`"),
            (r#"{"bench": "a", "value": -1.5, "unit": "ns"}"#, "`value`"),
            (r#"{"bench": "a", "value": 1}"#, "`unit`"),
            (r#"{"bench": "a", "value": 1, "unit": "ns", "yardstick": {"value": 2}, "ratio": 2}"#, "`yardstick.name`"),
            (
                r#"{"bench": "a", "value": 1, "unit": "ns", "yardstick": {"name": "b"}, "ratio": 2}"#,
                "`yardstick.value`",
            ),
            (r#"{"bench": "a", "value": 1, "unit": "ns", "yardstick": {"name": "b", "value": 2}}"#, "`ratio`"),
        ] {
            assert!(complaint(line).is_some_and(|complaint| complaint.contains(wrong)), "{line}");
        }
    }
}
