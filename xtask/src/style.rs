//! `cargo xtask style`: what this house has rules about and the compiler does not see.

use std::fs;
use std::path::{Path, PathBuf};

use crate::step::{Failure, Outcome, no_arguments, verdict};
use crate::workspace::root;

/// Lines a source file may have, without its tests.
const LINES: usize = 600;
/// Folders that hold no text of ours.
const SKIPPED: &[&str] = &["target", ".git", "corpus", "artifacts"];
/// This file, which has to name what it looks for.
const SELF: &str = "xtask/src/style.rs";
/// Programs whose work our crates do by netlink themselves.
const TOOLS: &[&str] = &[
    "ip",
    "nft",
    "tc",
    "bridge",
    "ipvsadm",
    "iptables",
    "ip6tables",
    "ebtables",
    "conntrack",
    "sysctl",
    "ethtool",
    "ss",
    "wg",
    "brctl",
    "modprobe",
    "unshare",
    "nsenter",
];
/// Words that put work off.
const LATER: &[&str] = &["TODO", "FIXME", "XXX", "todo!", "unimplemented!"];
/// Folders of somebody's machine.
const MACHINES: &[&str] = &["/work/", "/home/", "/root/", "/Users/"];

pub(crate) fn run(arguments: &[String]) -> Outcome {
    no_arguments(arguments)?;
    let mut files = Vec::new();
    walk(root(), &mut files)?;
    let complaints: Vec<String> = files.iter().flat_map(|path| of_file(path)).collect();
    println!("{} files", files.len());
    verdict(&complaints)
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) -> Outcome {
    let failed = |error| Failure::new(format!("{}: {error}", folder.display()));
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let skipped = SKIPPED.iter().any(|name| entry.file_name() == *name);
        match entry.file_type().map_err(failed)? {
            _ if skipped => {}
            kind if kind.is_dir() => walk(&entry.path(), files)?,
            kind if kind.is_file() => files.push(entry.path()),
            _ => {}
        }
    }
    Ok(())
}

fn of_file(path: &Path) -> Vec<String> {
    let name = path.strip_prefix(root()).unwrap_or(path).display().to_string();
    match fs::read_to_string(path) {
        Ok(text) if name != SELF => complaints(&name, &text),
        _ => Vec::new(), // no text, so not ours to read
    }
}

/// What is wrong with the file `name`, each with its line.
fn complaints(name: &str, text: &str) -> Vec<String> {
    let rust = name.ends_with(".rs");
    let library = rust && name.starts_with("overlay-") && name.contains("/src/") && !name.contains("/testing");
    let code = text.split("\n#[cfg(test)]\nmod ").next().unwrap_or_default();
    let mut found = Vec::new();
    if rust && code.lines().count() > LINES {
        found.push(format!(
            "{name}: {} lines without tests; {LINES} is the most: split it by nouns",
            code.lines().count()
        ));
    }
    for (at, line) in text.lines().enumerate() {
        let checks = [
            machine(line),
            if rust { postponed(line).or_else(|| ignored(line)).or_else(|| unreasoned(text, at)) } else { None },
            if library && at < code.lines().count() { shelled(line) } else { None },
        ];
        found.extend(checks.into_iter().flatten().map(|wrong| format!("{name}:{}: {wrong}", at + 1)));
    }
    found
}

fn machine(line: &str) -> Option<String> {
    let path = MACHINES.iter().find(|path| {
        let mut places = line.match_indices(**path);
        places.any(|(at, _)| !line[..at].ends_with(|c: char| c.is_alphanumeric() || "./-_}".contains(c)))
    })?;
    Some(format!("a path of one machine ({path}…); name it by what it is"))
}

fn postponed(line: &str) -> Option<String> {
    let word = LATER.iter().find(|word| line.contains(**word))?;
    Some(format!("{word}: do it now, or leave it out"))
}

fn ignored(line: &str) -> Option<String> {
    let is = line.trim_start().starts_with("#[ignore");
    is.then(|| "an ignored test: let it run, gate it by `kernel_test`, or delete it".to_owned())
}

/// An `allow` or `expect` that begins in line `at` and gives no reason.
fn unreasoned(text: &str, at: usize) -> Option<String> {
    let first = text.lines().nth(at)?.trim_start();
    if !["#[allow(", "#![allow(", "#[expect(", "#![expect("].iter().any(|attribute| first.starts_with(attribute)) {
        return None;
    }
    let attribute: String = text.lines().skip(at).scan(false, until_closed).collect();
    (!attribute.contains("reason = ")).then(|| "a lint is let off without `reason = \"…\"`".to_owned())
}

/// Lines up to and with the one that ends an attribute.
fn until_closed<'a>(closed: &mut bool, line: &'a str) -> Option<&'a str> {
    (!std::mem::replace(closed, *closed || line.contains(")]"))).then_some(line)
}

fn shelled(line: &str) -> Option<String> {
    let tool = TOOLS.iter().find(|tool| line.contains(&format!("Command::new(\"{tool}\")")))?;
    Some(format!("a library runs `{tool}`: speak netlink; tests, examples and benchmarks may run it"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str, text: &str) -> String {
        complaints(name, text).join("\n")
    }

    #[test]
    fn a_long_file_is_caught_and_its_tests_do_not_count() {
        let code = "fn f() {}\n".repeat(LINES);
        assert_eq!(of("a/src/a.rs", &format!("{code}\n#[cfg(test)]\nmod tests {{\n{code}}}\n")), "");
        assert!(of("a/src/a.rs", &format!("{code}fn g() {{}}\n")).contains("601 lines without tests"));
        assert_eq!(of("a/list.txt", &code.repeat(2)), "");
    }

    #[test]
    fn ignored_tests_and_work_put_off_are_caught_where_they_stand() {
        assert!(of("a/src/a.rs", "\n    #[ignore]\n").starts_with("a/src/a.rs:2: an ignored test"));
        assert!(of("a/src/a.rs", "#[ignore = \"slow\"]").contains("ignored"));
        for line in ["// TODO: later", "todo!()", "unimplemented!(\"x\")", "/// FIXME"] {
            assert!(of("a/src/a.rs", line).contains("do it now"), "{line}");
        }
    }

    #[test]
    fn a_lint_let_off_without_a_reason_is_caught_on_one_line_and_on_many() {
        assert!(
            of("a/src/a.rs", "#[allow(dead_code)]\nfn f() {}\n// reason = \"too late\"").contains("without `reason")
        );
        assert!(of("a/src/a.rs", "#![expect(\n    dead_code,\n)]\n").contains("without `reason"));
        assert_eq!(of("a/src/a.rs", "#[allow(\n    dead_code,\n    reason = \"b\"\n)]\n"), "");
    }

    #[test]
    fn a_library_that_shells_out_is_caught_and_its_tests_are_free() {
        let line = "Command::new(\"ip\").args([])";
        assert!(of("overlay-link/src/kernel.rs", line).contains("runs `ip`"));
        for name in
            ["overlay-link/tests/a.rs", "overlay-core/src/testing/mod.rs", "bench/src/main.rs", "examples/src/bin/a.rs"]
        {
            assert_eq!(of(name, line), "", "{name}");
        }
        assert_eq!(of("overlay-link/src/a.rs", &format!("\n#[cfg(test)]\nmod tests {{\n{line}\n}}")), "");
    }

    #[test]
    fn a_path_of_one_machine_is_caught_in_any_text() {
        let late = "https://example.org/home/page was fetched to /home/ada";
        for line in ["cd /work/main", "\"/home/ada/x\"", "see (/root/.cargo)", "path=/Users/ada/", late] {
            assert!(of("docs/a.md", line).contains("one machine"), "{line}");
        }
        assert_eq!(of("docs/a.md", "https://example.org/home/page and net/work/a and /workspace"), "");
    }
}
