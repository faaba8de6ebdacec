//! The proxy does what it says, and refuses what it does not know.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail loudly too")]

use std::os::unix::process::CommandExt as _;
use std::process::{Command, Output};

use overlay_core::testing::{CopiedProgram, Kernel, kernel_test};

const L7: &str = env!("CARGO_BIN_EXE_l7");
const NOBODY: u32 = 65_534;

fn keeps_every_check(output: &Output) {
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let checks = said.split_once("\nchecks\n").unwrap().1;
    assert_eq!(checks.lines().filter(|line| line.starts_with("ok ")).count(), 10, "{checks}");
    assert!(!checks.contains("FAILED") && said.contains("l7: listens at 10."), "{said}");
}

#[test]
fn alone_it_shows_that_replicas_come_drain_fall_ill_and_die_and_no_request_fails() {
    kernel_test(Kernel::Host, "examples::l7_shows_that_no_request_fails", || {
        keeps_every_check(&Command::new(L7).output().unwrap());
    });
}

#[test]
fn it_shows_that_to_an_ordinary_user_too() {
    kernel_test(Kernel::Host, "examples::l7_shows_itself_to_an_ordinary_user", || {
        let copy = CopiedProgram::of(L7.as_ref()).unwrap();
        keeps_every_check(&Command::new(copy.path()).current_dir("/").uid(NOBODY).gid(NOBODY).output().unwrap());
    });
}

#[test]
fn what_it_does_not_know_and_a_node_that_is_not_there_are_told_before_anything_is_done() {
    for (arguments, code, expected) in [
        (&["--fast"][..], 2, "usage: l7"),
        (&["--control", "/nowhere"], 2, "--control, --listen and a --route are needed"),
        (
            &["--control", "/nowhere", "--listen", "127.0.0.1:0", "--route", "web:80"],
            2,
            "is no route: HOST/PATH=SERVICE:PORT",
        ),
        (&["--control", "/nowhere", "--listen", "127.0.0.1:0", "--route", "*=web:80"], 1, "because"),
    ] {
        let output = Command::new(L7).args(arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.code() == Some(code) && output.stdout.is_empty() && said.contains(expected),
            "{arguments:?}: {said}"
        );
    }
}
