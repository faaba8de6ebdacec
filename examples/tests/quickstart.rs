//! The quickstart shows what it says, and refuses what it does not know.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail loudly too")]

use std::process::{Command, Output};

fn quickstart(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_quickstart")).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn the_walk_through_shows_the_missions_commands_and_all_its_checks_hold() {
    let output = quickstart(&["--backend", "memory"]);
    let said = text(&output.stdout);
    assert!(output.status.success(), "{said}{}", text(&output.stderr));
    for line in [
        "host-1 $ network create -d overlay --attachable customoverlay",
        "host-1 $ exec web ping db",
        "-> db is 10.0.1.",
        "host-3 $ network ls --local",
        "host-1 $ network rm ingress",
        "Are you sure you want to continue? [y/N] y",
        "network create -d overlay --ingress --subnet=172.16.0.0/16 --gateway=172.16.0.1 my-ingress",
        "\"Subnet\": \"172.16.0.0/16\"",
        "\"Gateway\": \"172.16.0.1\"",
    ] {
        assert!(said.contains(line), "{line} is not in\n{said}");
    }
    let checks = said.split_once("\nchecks\n").unwrap().1;
    assert!(checks.lines().filter(|line| line.starts_with("ok ")).count() >= 20, "{checks}");
    assert!(!checks.contains("FAILED"), "{checks}");
}

#[test]
fn listings_have_the_known_columns_and_ids_of_12_characters() {
    let said = text(&quickstart(&[]).stdout);
    let head = said.lines().find(|line| line.starts_with("NETWORK ID")).unwrap();
    assert_eq!(head.split_whitespace().collect::<Vec<_>>(), ["NETWORK", "ID", "NAME", "DRIVER", "SCOPE"]);
    let row = said.lines().find(|line| line.contains("   customoverlay   overlay   swarm")).unwrap();
    let id = row.split_whitespace().next().unwrap();
    assert!(id.len() == 12 && id.chars().all(|it| it.is_ascii_digit() || it.is_ascii_lowercase()), "{row}");
    assert_eq!(head.find("NAME"), row.find("customoverlay"), "columns are aligned");
}

#[test]
fn two_runs_are_the_same() {
    assert_eq!(quickstart(&[]).stdout, quickstart(&["--backend=memory"]).stdout);
}

#[test]
fn the_kernel_is_said_not_to_be_there_yet_and_flags_that_are_not_known_are_refused() {
    let kernel = quickstart(&["--backend", "kernel"]);
    assert_eq!(kernel.status.code(), Some(1));
    assert!(text(&kernel.stderr).contains("not there yet") && kernel.stdout.is_empty());
    let unknown = quickstart(&["--fast"]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(text(&unknown.stderr).contains("unknown argument \"--fast\"\nusage: quickstart [--backend memory|kernel]"));
}
