//! The quickstart shows what it says, and refuses what it does not know.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail loudly too")]

use std::os::unix::process::CommandExt as _;
use std::process::{Command, Output};

use overlay_core::testing::{CopiedProgram, Kernel, kernel_test};

const QUICKSTART: &str = env!("CARGO_BIN_EXE_quickstart");
const NOBODY: u32 = 65_534;

fn quickstart(arguments: &[&str]) -> Output {
    Command::new(QUICKSTART).args(arguments).output().unwrap()
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
fn in_memory_it_writes_what_goes_over_the_wire_and_nothing_of_the_encrypted_network_in_the_clear() {
    let file = std::env::temp_dir().join(format!("overlay-quickstart-memory-{}.pcapng", std::process::id()));
    let output = quickstart(&["--backend", "memory", "--pcap", file.to_str().unwrap()]);
    let said = text(&output.stdout);
    assert!(output.status.success(), "{said}{}", text(&output.stderr));
    let captured = std::fs::read(&file).unwrap();
    std::fs::remove_file(file).unwrap();
    let contains = |bytes: &[u8]| captured.windows(bytes.len()).any(|window| window == bytes);
    assert!(contains(b"hello from next door") && !contains(b"the combination is"));
    assert!(said.contains("key at 10.0.") && said.contains("sends back \"the combination is 4-8-15\""), "{said}");
}

#[test]
fn listings_have_the_known_columns_and_ids_of_12_characters() {
    let said = text(&quickstart(&["--backend", "memory"]).stdout);
    let head = said.lines().find(|line| line.starts_with("NETWORK ID")).unwrap();
    assert_eq!(head.split_whitespace().collect::<Vec<_>>(), ["NETWORK", "ID", "NAME", "DRIVER", "SCOPE"]);
    let row = said.lines().find(|line| line.contains("   customoverlay   overlay   swarm")).unwrap();
    let id = row.split_whitespace().next().unwrap();
    assert!(id.len() == 12 && id.chars().all(|it| it.is_ascii_digit() || it.is_ascii_lowercase()), "{row}");
    assert_eq!(head.find("NAME"), row.find("customoverlay"), "columns are aligned");
}

#[test]
fn two_runs_are_the_same() {
    let memory = ["--backend=memory"];
    assert_eq!(quickstart(&memory).stdout, quickstart(&memory).stdout);
}

#[test]
fn flags_that_are_not_known_are_refused() {
    let unknown = quickstart(&["--fast"]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(
        text(&unknown.stderr)
            .contains("unknown argument \"--fast\"\nusage: quickstart [--backend kernel|userspace|memory]")
    );
}

fn keeps_every_check(output: &Output) {
    let said = text(&output.stdout);
    assert!(output.status.success(), "{said}{}", text(&output.stderr));
    for line in [
        "host-1 $ network create -d overlay --attachable customoverlay",
        "host-1 $ exec web ping -c 1 db\ndb (10.0.1.",
        "host-1 $ systemctl start overlay-node",
        "network create -d overlay --ingress --subnet=172.16.0.0/16 --gateway=172.16.0.1 my-ingress",
    ] {
        assert!(said.contains(line), "{line} is not in\n{said}");
    }
    let checks = said.split_once("\nchecks\n").unwrap().1;
    assert!(checks.lines().filter(|line| line.starts_with("ok ")).count() >= 17, "{checks}");
    assert!(!checks.contains("FAILED"), "{checks}");
}

#[test]
fn in_the_kernel_it_keeps_every_check_and_captures_what_goes_over_the_wire() {
    kernel_test(Kernel::Host, "examples::quickstart_walks_through_the_kernel", || {
        let file = std::env::temp_dir().join(format!("overlay-quickstart-{}.pcap", std::process::id()));
        keeps_every_check(&quickstart(&["--backend", "kernel", "--pcap", file.to_str().unwrap()]));
        assert!(std::fs::metadata(&file).unwrap().len() > 10_000);
        std::fs::remove_file(file).unwrap();
    });
}

#[test]
fn in_user_space_it_keeps_every_check_and_an_encrypted_network_works_on_any_kernel() {
    kernel_test(Kernel::Host, "examples::quickstart_walks_through_user_space", || {
        let output = quickstart(&["--backend", "userspace"]);
        keeps_every_check(&output);
        let said = text(&output.stdout);
        assert!(
            said.contains("ok   containers of an encrypted network reach each other by ESP in user space"),
            "{said}"
        );
    });
}

#[test]
fn an_ordinary_user_gets_the_kernel_too() {
    kernel_test(Kernel::Host, "examples::quickstart_walks_for_an_ordinary_user", || {
        let copy = CopiedProgram::of(QUICKSTART.as_ref()).unwrap();
        let ordinary = |command: &mut Command| command.uid(NOBODY).gid(NOBODY).output().unwrap();
        keeps_every_check(&ordinary(Command::new(copy.path()).args(["--backend", "kernel"])));
    });
}
