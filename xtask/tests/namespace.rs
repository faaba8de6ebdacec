//! The one kernel test that needs none of our crates: whether this machine lets kernel tests do what they do.

use std::process::Command;

use overlay_core::testing::{Kernel, kernel_test};

#[test]
fn a_new_network_namespace_has_loopback_and_nothing_that_is_up() {
    kernel_test(Kernel::Host, "xtask::a_new_network_namespace_has_loopback_and_nothing_that_is_up", || {
        let output = Command::new("unshare").args(["--net", "ip", "-oneline", "link"]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let links = String::from_utf8(output.stdout).unwrap();
        // Tunnel modules that are loaded add devices of their own (tunl0, sit0, …), all of them down.
        assert!(links.contains(" lo: <LOOPBACK>"), "{links}");
        assert!(!links.contains("UP"), "{links}");
    });
}
