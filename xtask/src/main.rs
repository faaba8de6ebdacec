//! What CI does, one verb per step: `cargo xtask VERB`. Without a verb it prints them all.
//!
//! A step that only runs cargo is a line; a step that judges is a pure function from what it read to complaints,
//! with a test that shows it complain.

#![forbid(unsafe_code)]
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program at a terminal: it prints, times its steps and reads its environment"
)]

mod api;
mod bench;
mod ci;
mod clippy;
mod deps;
mod docs;
mod features;
#[cfg(test)]
mod fixture;
mod fmt;
mod fuzz;
mod kernel;
mod lab;
mod licences;
mod mission;
mod msrv;
mod package;
mod page;
mod programs;
mod readme;
mod rooms;
mod step;
mod style;
mod test;
mod workspace;

use std::process::ExitCode;

use step::{Failure, Outcome};

/// A word after `cargo xtask`.
struct Verb {
    name: &'static str,
    does: &'static str,
    run: fn(&[String]) -> Outcome,
}

const VERBS: &[Verb] = &[
    Verb { name: "test", does: "the README's test command", run: test::run },
    Verb { name: "fmt", does: "formatting, as rustfmt.toml has it", run: fmt::run },
    Verb {
        name: "style",
        does: "what the compiler does not see: long files, ignored tests, shelling out",
        run: style::run,
    },
    Verb { name: "deps", does: "who depends on whom, as ARCHITECTURE.md has it", run: deps::run },
    Verb { name: "msrv", does: "the one rust-version, against every dependency's own", run: msrv::run },
    Verb { name: "licences", does: "every dependency's licence, against deny.toml", run: licences::run },
    Verb { name: "package", does: "each library packed, as crates.io would have it", run: package::run },
    Verb { name: "clippy", does: "lints of all targets and features", run: clippy::run },
    Verb {
        name: "docs",
        does: "documentation without a warning, and what it shows as the committed lists have it [--bless]",
        run: docs::run,
    },
    Verb { name: "features", does: "each library with every combination of its features", run: features::run },
    Verb { name: "kernel", does: "kernel tests as root, against testing/kernel-tests.txt [--bless]", run: kernel::run },
    Verb { name: "lab", does: "tests that need the kernel lab, in it, against the same [--bless]", run: kernel::lab },
    Verb { name: "fuzz", does: "fuzz bodies over their corpora and mutations of them [SECONDS]", run: fuzz::run },
    Verb {
        name: "bench",
        does: "every benchmark once, quickly: does it still print figures? [--all-features: those on etcd, too] [--page FILE: docs/PERFORMANCE.md of them]",
        run: bench::run,
    },
    Verb { name: "readme", does: "the README's program", run: readme::run },
    Verb { name: "mission", does: "docs/MISSION.md, row by row, as root", run: mission::run },
    Verb { name: "ci", does: "all of these in this order, `mission` only in full [quick|full]", run: ci::run },
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match dispatch(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("xtask: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(arguments: &[String]) -> Outcome {
    let Some((name, rest)) = arguments.split_first() else {
        println!("cargo xtask VERB\n");
        VERBS.iter().for_each(|verb| println!("  {:<9} {}", verb.name, verb.does));
        return Ok(());
    };
    let Some(verb) = VERBS.iter().find(|verb| verb.name == name) else {
        let names: Vec<_> = VERBS.iter().map(|verb| verb.name).collect();
        return Err(Failure::new(format!("no verb {name:?}; there are: {}", names.join(" "))));
    };
    (verb.run)(rest)
}
