//! `cargo xtask bench --page FILE`: docs/PERFORMANCE.md's tables, of the lines that `overlay-bench` printed.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::step::{Failure, Outcome, read};
use crate::workspace::root;

const PAGE: &str = "docs/PERFORMANCE.md";
/// What is below is written by this.
const FROM_HERE: &str = "<!-- tables -->";

pub(crate) fn write(file: &Path) -> Outcome {
    let lines = fs::read_to_string(file).map_err(|error| Failure::new(format!("{}: {error}", file.display())))?;
    let page = read(PAGE)?;
    let Some((head, _)) = page.split_once(FROM_HERE) else {
        return Err(Failure::new(format!("{PAGE} has no line {FROM_HERE}, below which its tables are")));
    };
    let tables = tables(&lines);
    if tables.is_empty() {
        return Err(Failure::new(format!("{} has no figures: {PAGE} stays as it is", file.display())));
    }
    let text = format!("{head}{FROM_HERE}\n{tables}");
    fs::write(root().join(PAGE), text).map_err(|error| Failure::new(format!("{PAGE}: {error}")))
}

/// A table for each group; lines that are no figures are left out.
fn tables(lines: &str) -> String {
    let mut groups: BTreeMap<String, String> = BTreeMap::new();
    for figure in lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        let Some((group, name)) = figure["bench"].as_str().and_then(|bench| bench.split_once('/')) else { continue };
        let table = groups.entry(group.to_owned()).or_default();
        table.push_str(&row(name, &figure));
    }
    let table = |(group, rows): (&String, &String)| {
        format!("\n## {group}\n\n| figure | value | yardstick of the same run | ratio |\n|---|---|---|---|\n{rows}")
    };
    groups.iter().map(table).collect()
}

fn row(name: &str, figure: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().replace('|', "/");
    let unit = text(&figure["unit"]);
    let number = |value: &Value| value.as_f64().map(short).unwrap_or_default();
    let yardstick = match &figure["yardstick"] {
        Value::Null => String::new(),
        it => format!("{}: {}", text(&it["name"]), number(&it["value"])),
    };
    let also = figure["also"].as_array().into_iter().flatten();
    let also: String = also
        .map(|it| format!("; {}: {} ({})", text(&it["name"]), number(&it["value"]), number(&it["ratio"])))
        .collect();
    format!("| {name} | {} {unit} | {yardstick}{also} | {} |\n", number(&figure["value"]), number(&figure["ratio"]))
}

/// Three digits that count, with commas for thousands.
fn short(value: f64) -> String {
    if value >= 1_000.0 {
        let digits = format!("{value:.0}");
        let commas = |(at, digit): (usize, char)| match (digits.len() - at) % 3 {
            0 if at > 0 => format!(",{digit}"),
            _ => digit.to_string(),
        };
        return digits.chars().enumerate().map(commas).collect();
    }
    let decimals = if value >= 100.0 {
        0
    } else if value >= 10.0 {
        1
    } else if value >= 1.0 {
        2
    } else {
        3
    };
    format!("{value:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_a_row_of_its_group() {
        let lines = "warming up\n\
            {\"bench\":\"codec/parse\",\"value\":11.93,\"unit\":\"ns\",\"yardstick\":{\"name\":\"a|b\",\"value\":18.59},\"ratio\":0.6416,\
            \"also\":[{\"name\":\"c\",\"value\":68.4,\"ratio\":0.174}]}\n\
            {\"bench\":\"node/join\",\"value\":4607.2,\"unit\":\"1/s\"}\n";
        let wanted = "\n## codec\n\n| figure | value | yardstick of the same run | ratio |\n|---|---|---|---|\n\
            | parse | 11.9 ns | a/b: 18.6; c: 68.4 (0.174) | 0.642 |\n\
            \n## node\n\n| figure | value | yardstick of the same run | ratio |\n|---|---|---|---|\n\
            | join | 4,607 1/s |  |  |\n";
        assert_eq!(tables(lines), wanted);
    }

    #[test]
    fn a_page_is_not_emptied_for_want_of_figures() {
        let (file, before) =
            (std::env::temp_dir().join(format!("xtask-page-{}", std::process::id())), read(PAGE).unwrap());
        fs::write(&file, "warming up\n").unwrap();
        let refused = write(&file);
        let after = read(PAGE).unwrap();
        fs::remove_file(file).unwrap();
        if after != before {
            fs::write(root().join(PAGE), &before).unwrap();
        }
        assert!(refused.is_err() && after == before);
    }

    #[test]
    fn numbers_are_short() {
        let all = [0.0416, 1.372, 16.83, 205.4, 924_113.0, 12_800_000.0];
        assert_eq!(all.map(short), ["0.042", "1.37", "16.8", "205", "924,113", "12,800,000"]);
    }
}
