//! What the program does with its arguments.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::process::{Command, Output};

#[test]
fn no_group_shows_the_groups() {
    let output = run(&[]);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("usage: overlay-bench [--quick] GROUP[/FIGURE]...") && said.contains("codec"), "{said}");
}

#[test]
fn an_unknown_group_or_option_is_an_error_before_anything_is_measured() {
    for arguments in [["codec", "codecs"], ["codec", "--fast"]] {
        let output = run(&arguments);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{arguments:?}");
        assert!(String::from_utf8(output.stderr).unwrap().starts_with("unknown "));
    }
}

#[test]
fn a_quick_run_gives_a_line_of_json_per_figure() {
    let output = run(&["--quick", "codec"]);
    assert!(output.status.success());
    let lines: Vec<serde_json::Value> =
        String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let names: Vec<_> = lines.iter().map(|line| line["bench"].as_str().unwrap()).collect();
    let expected = ["vxlan-encode", "vxlan-parse", "parse-full", "inner-flow-hash", "encode-outer"];
    assert_eq!(names, expected.map(|name| format!("codec/{name}")));
    assert!(lines.iter().all(|line| line["value"].as_f64().unwrap() > 0.0 && line["unit"] == "ns"), "{lines:?}");
}

#[test]
fn a_figure_named_after_its_group_is_reported_alone() {
    let output = run(&["--quick", "codec/parse"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success());
    assert!(text.lines().count() == 1 && text.starts_with(r#"{"bench":"codec/parse-full""#), "{text}");
}

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_overlay-bench")).args(arguments).output().unwrap()
}
