//! The small examples, one per crate, run and say what they are there to show.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail loudly too")]

use std::process::Command;

use overlay_core::testing::{Kernel, kernel_test};

fn said(program: &str) -> String {
    let output = Command::new(program).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

#[test]
fn hosts_file_repairs_and_leaves_what_is_not_its_own() {
    let text = said(env!("CARGO_BIN_EXE_hosts_file"));
    assert!(text.contains("once more: 0 steps") && text.contains("build      put db at 10.0.9.3\nrefused"), "{text}");
    assert!(text.ends_with("what is left is not ours: 127.0.0.1 localhost\n"), "{text}");
}

#[test]
fn packet_reads_what_it_wrote_and_names_what_is_wrong() {
    let text = said(env!("CARGO_BIN_EXE_packet"));
    assert!(text.contains("read back: VNI 4096, from 192.0.2.1 to 192.0.2.2") && text.contains("\"hello\""), "{text}");
    assert!(text.contains("cut short: outer IP header: 83 bytes are needed, 75 are there"), "{text}");
}

#[test]
fn bridge_connects_and_repairs() {
    kernel_test(Kernel::Host, "examples::bridge_connects_and_repairs", || {
        let text = said(env!("CARGO_BIN_EXE_bridge"));
        assert!(text.contains("connected from the bridge to 10.0.9.2:80"), "{text}");
        assert!(
            text.contains("repair:\nbuild      add link p-web") && text.ends_with("once more: 0 steps\n"),
            "{text}"
        );
    });
}
