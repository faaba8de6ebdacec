//! The one kernel test that needs none of our crates: whether this machine lets kernel tests do what they do.

use std::process::Command;

use overlay_core::testing::{Kernel, kernel_test};

#[test]
fn a_network_namespace_begins_with_loopback_alone() {
    kernel_test(Kernel::Host, "xtask::a_network_namespace_begins_with_loopback_alone", || {
        let output = Command::new("unshare").args(["--net", "ip", "-oneline", "link"]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let links = String::from_utf8(output.stdout).unwrap();
        let names: Vec<&str> = links.lines().filter_map(|line| line.split(": ").nth(1)).collect();
        // Tunnel modules that are loaded add their fallback devices (tunl0, sit0@NONE, …), all of them down.
        assert!(names.contains(&"lo"), "{links}");
        assert!(!names.iter().any(|name| name.starts_with("eth")), "{links}");
    });
}
