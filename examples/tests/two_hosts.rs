//! `two_hosts` does what its page says, and its capture is what it says to Wireshark too.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail loudly too")]

use std::collections::BTreeSet;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use overlay_core::testing::{Kernel, kernel_test, kernel_test_judged_by};

const TWO_HOSTS: &str = env!("CARGO_BIN_EXE_two_hosts");
const NOBODY: u32 = 65_534;

/// A file's name that goes with its file.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("overlay-{}-{name}", std::process::id())))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn good(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

#[test]
fn two_hosts_keeps_every_check_and_tshark_reads_its_capture() {
    kernel_test_judged_by(&["tshark"], Kernel::Host, "examples::two_hosts_keeps_every_check", || {
        let file = Scratch::new("two-hosts.pcap");
        let said = good(&Command::new(TWO_HOSTS).arg("--pcap").arg(&file.0).output().unwrap());
        assert!(said.contains("VXLAN 4096") && said.matches("\nok ").count() == 10, "{said}");

        let fields = ["vxlan.vni", "udp.dstport", "ip.src", "ipv6.src", "ip.flags.mf", "ip.frag_offset"];
        let rows = tshark(&file.0, "udp.port == 4789", &fields);
        assert!(rows.len() > 400, "{} datagrams", rows.len());
        let mut sources = BTreeSet::new();
        for row in &rows {
            assert!(row[0] == "4096" && row[1].split(',').next() == Some("4789"), "{row:?}");
            sources.extend(row[2].split(',').chain(row[3].split(',')).map(str::to_owned));
            // Each layer's flags and offset: that of the outer header and of the packet in it.
            assert!(row[4].split(',').all(|more| matches!(more, "" | "0" | "False")), "{row:?}");
            assert!(row[5].split(',').all(|offset| matches!(offset, "" | "0")), "{row:?}");
        }
        for source in ["192.0.2.1", "2001:db8::2", "10.0.9.2", "fd00:9::3"] {
            assert!(sources.contains(source), "{source}: {sources:?}");
        }
        for wrong in ["ipv6.fraghdr", "_ws.malformed", "vxlan.flag_i == 0", "icmp.type == 3"] {
            assert_eq!(tshark(&file.0, wrong, &["frame.number"]), Vec::<Vec<String>>::new(), "{wrong}");
        }
    });
}

#[test]
fn two_hosts_runs_for_an_ordinary_user() {
    kernel_test(Kernel::Host, "examples::two_hosts_runs_for_an_ordinary_user", || {
        if !is_root_outside() {
            return; // only root can become another user; what runs this is one itself
        }
        let run = Command::new(TWO_HOSTS).current_dir("/").uid(NOBODY).gid(NOBODY).output();
        let said = good(&run.unwrap());
        assert!(said.starts_with("not root: in a private user namespace"), "{said}");
        assert_eq!(said.matches("\nok ").count(), 10, "{said}");
    });
}

#[test]
fn arguments_that_two_hosts_does_not_know_are_refused_before_anything_is_done() {
    for arguments in [&["--pcap"][..], &["--help"], &["--pcap", "a", "b"]] {
        let output = Command::new(TWO_HOSTS).args(arguments).output().unwrap();
        assert!(!output.status.success() && output.stdout.is_empty(), "{arguments:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("usage: two_hosts [--pcap FILE]"));
    }
}

/// The fields of all packets that a filter takes.
fn tshark(file: &Path, filter: &str, fields: &[&str]) -> Vec<Vec<String>> {
    let mut tshark = Command::new("tshark");
    tshark.args(["-n", "-T", "fields", "-r"]).arg(file).args(["-Y", filter]);
    for field in fields {
        tshark.args(["-e", field]);
    }
    let text = good(&tshark.output().unwrap());
    text.lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect()
}

/// Whether this is root in the first user namespace.
fn is_root_outside() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.split_whitespace().eq(["0", "0", "4294967295"])
}
