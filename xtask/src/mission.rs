//! `cargo xtask mission`: docs/MISSION.md from top to bottom: what its programs print, and whether its tests pass.

use std::collections::BTreeMap;
use std::process::Command;

use crate::programs::{Program, built};
use crate::step::{Failure, Outcome, cargo, no_arguments, read, verdict};
use crate::workspace::root;

const PAGE: &str = "docs/MISSION.md";
const LAB: &str = "testing/kernel-lab/run";
const IN_LAB: &str = "(lab)";

pub(crate) fn run(arguments: &[String]) -> Outcome {
    no_arguments(arguments)?;
    let rows = rows(&read(PAGE)?)?;
    let programs = built(&mut cargo("test --locked --quiet --workspace --all-features --no-run"))?;
    let mut shown = Shown::default();
    let mut complaints = Vec::new();
    for row in &rows {
        let found = row.complaints(&programs, &mut shown);
        println!("{} {}", if found.is_empty() { "green" } else { "RED  " }, row.what);
        complaints.extend(found.into_iter().map(|why| format!("{}: {why}", row.what)));
    }
    println!("{PAGE}: {} rows", rows.len());
    verdict(&complaints)
}

/// What programs printed, each run once.
type Shown = BTreeMap<String, Result<String, String>>;

/// A row of the page.
#[derive(Debug, PartialEq, Eq)]
struct Row {
    what: String,
    /// A program of the examples, with its arguments.
    shows: String,
    /// What it must print.
    words: String,
    holds: Vec<Test>,
}

/// A test, by where it is.
#[derive(Debug, PartialEq, Eq)]
struct Test {
    package: String,
    target: String,
    name: String,
    in_lab: bool,
}

impl Row {
    fn complaints(&self, programs: &[Program], shown: &mut Shown) -> Vec<String> {
        let said = shown.entry(self.shows.clone()).or_insert_with(|| show(&self.shows, programs));
        let shows = match said {
            Ok(said) if said.contains(&self.words) => None,
            Ok(_) => Some(format!("`{}` does not print {:?}", self.shows, self.words)),
            Err(why) => Some(format!("`{}`: {why}", self.shows)),
        };
        shows.into_iter().chain(self.holds.iter().filter_map(|test| test.complaint(programs))).collect()
    }
}

impl Test {
    /// Of a program's own tests and those of a file that is called alike, one has it; cargo names them in any order.
    fn complaint(&self, programs: &[Program]) -> Option<String> {
        let Self { package, target, .. } = self;
        let folder = if package == "overlay-examples" { "examples" } else { package };
        let is = |it: &&Program| it.is_test && it.package == folder && it.target == *target;
        let mut complaints = Vec::new();
        for program in programs.iter().filter(is) {
            complaints.push(self.complaint_of(program)?);
        }
        let none = complaints.is_empty().then(|| format!("{package} has no test target {target}"));
        none.or_else(|| Some(complaints.concat()))
    }

    /// `None` if it passes there.
    fn complaint_of(&self, program: &Program) -> Option<String> {
        let Self { package, target, name, in_lab } = self;
        let mut command = program.command(in_lab.then(|| root().join(LAB)));
        command.args(["--exact", name]).env("OVERLAY_REQUIRE_KERNEL", "1");
        let said = match command.output() {
            Ok(output) => String::from_utf8_lossy(&output.stdout).into_owned(),
            Err(error) => return Some(format!("{package} {target}: {error}")),
        };
        (!said.contains("test result: ok. 1 passed")).then(|| format!("{package} {target} {name}:\n{said}"))
    }
}

fn show(line: &str, programs: &[Program]) -> Result<String, String> {
    let mut words = line.split_whitespace();
    let name = words.next().unwrap_or_default();
    let program = programs.iter().find(|it| !it.is_test && it.target == name).ok_or("there is no such program")?;
    let mut command: Command = program.command(None);
    let output = command.args(words).output().map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    match output.status.success() {
        true => Ok(said),
        false => Err(format!("{}: {said}{}", output.status, String::from_utf8_lossy(&output.stderr))),
    }
}

/// The rows of its tables.
fn rows(page: &str) -> Outcome<Vec<Row>> {
    let lines = page.lines().filter_map(|line| line.strip_prefix('|')?.strip_suffix('|'));
    lines.filter(|line| !line.starts_with("---") && !line.starts_with(" what | shows | ")).map(row).collect()
}

fn row(line: &str) -> Outcome<Row> {
    let wrong = |why: &str| Failure::new(format!("{PAGE}: {why}: {line}"));
    // A bar within backticks is none between cells.
    let cells: Vec<&str> = line.split(" | ").map(str::trim).collect();
    let [what, shows, holds] = cells[..] else { return Err(wrong("a row has three cells")) };
    let (program, words) = shows.split_once(" → ").ok_or_else(|| wrong("what shows it, an arrow, and its words"))?;
    let unquoted = |text: &str| text.trim().strip_prefix('`')?.strip_suffix('`').map(str::to_owned);
    let [Some(shows), Some(words)] = [unquoted(program), unquoted(words)] else {
        return Err(wrong("a program and its words are in backticks"));
    };
    let test = |text: &str| {
        let in_lab = text.ends_with(IN_LAB);
        let test = unquoted(text.trim_end_matches(IN_LAB))?;
        let [package, target, name] = test.split(' ').collect::<Vec<_>>()[..] else { return None };
        Some(Test { package: package.to_owned(), target: target.to_owned(), name: name.to_owned(), in_lab })
    };
    let holds: Option<Vec<Test>> = holds
        .split(", `")
        .enumerate()
        .map(|(at, text)| match at {
            0 => test(text),
            _ => test(&format!("`{text}")),
        })
        .collect();
    let holds = holds.ok_or_else(|| wrong("a test is its package, target and name in backticks"))?;
    Ok(Row { what: what.to_owned(), shows, words, holds })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};

    use super::*;

    #[test]
    fn a_row_is_what_a_program_prints_and_the_tests_that_hold_it() {
        let line =
            " it works | `quickstart --backend memory` → `ok   a, b` | `a kernel it::works`, `b esp is_sealed` (lab) ";
        let row = row(line).unwrap();
        assert_eq!((row.what.as_str(), row.shows.as_str()), ("it works", "quickstart --backend memory"));
        assert_eq!(row.words, "ok   a, b");
        let tests: Vec<_> = row.holds.iter().map(|it| (it.package.as_str(), it.name.as_str(), it.in_lab)).collect();
        assert_eq!(tests, [("a", "it::works", false), ("b", "is_sealed", true)]);
    }

    #[test]
    fn a_row_that_cannot_be_read_is_named() {
        for line in [" a | b ", " a | `b` | `c d e` ", " a | `b` → `c` | `d e` "] {
            assert!(row(line).unwrap_err().to_string().contains("docs/MISSION.md: "), "{line}");
        }
    }

    #[test]
    fn of_two_programs_that_are_called_alike_one_has_the_test() {
        let program = |executable: &str| Program {
            package: "a".to_owned(),
            target: "l7".to_owned(),
            is_test: true,
            executable: executable.into(),
            folder: "/".into(),
        };
        // What is called so is what `echo` prints of its arguments.
        let name = "test result: ok. 1 passed".to_owned();
        let test = Test { package: "a".to_owned(), target: "l7".to_owned(), name, in_lab: false };
        for both in [["/bin/true", "/bin/echo"], ["/bin/echo", "/bin/true"]] {
            assert_eq!(test.complaint(&both.map(program)), None);
        }
        assert!(test.complaint(&[program("/bin/true")]).is_some());
        assert!(test.complaint(&[]).unwrap().contains("no test target"));
    }

    #[test]
    fn every_test_of_the_page_is_in_the_sources() {
        let rows = rows(&read(PAGE).unwrap()).unwrap();
        assert!(rows.len() > 30, "{}", rows.len());
        for test in rows.iter().flat_map(|row| &row.holds) {
            let package = test.package.replace("overlay-examples", "examples");
            let tests = root().join(package).join("tests");
            let (function, file) = match test.name.rsplit_once("::") {
                Some((module, function)) => (function, of_module(&tests.join(&test.target), module)),
                None if tests.join(&test.target).is_dir() => (&*test.name, tests.join(&test.target).join("main.rs")),
                None => (&*test.name, tests.join(format!("{}.rs", test.target))),
            };
            assert!(has(&file, function), "{} has no fn {function}", file.display());
        }
    }

    fn of_module(target: &Path, module: &str) -> PathBuf {
        let file = target.join(format!("{module}.rs"));
        if file.exists() { file } else { target.join(module).join("mod.rs") }
    }

    fn has(file: &Path, function: &str) -> bool {
        fs::read_to_string(file).is_ok_and(|text| text.contains(&format!("fn {function}(")))
    }
}
