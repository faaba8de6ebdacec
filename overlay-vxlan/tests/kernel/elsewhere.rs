//! The same suite on the lab's kernel, and as an ordinary user.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, Output};

use overlay_core::testing::{Kernel, kernel_test};

/// Set where the suite is a child of a test.
const CHILD: &str = "OVERLAY_VXLAN_TEST_CHILD";
const NOBODY: u32 = 65_534;

#[test]
fn the_hosts_tests_pass_on_the_labs_kernel_too() {
    kernel_test(Kernel::Lab, "vxlan::the_hosts_tests_pass_on_the_labs_kernel_too", || {
        let mut suite = Command::new(std::env::current_exe().unwrap());
        // System calls and new processes are slow there: fewer cases, one death, no thousand ports, and none of the tests
        // that build a network for each of many cases.
        suite.env_remove("KERNEL_LAB").env("PROPTEST_CASES", "32").args(SLOW);
        passed(&mut suite);
    });
}

const SLOW: [&str; 12] = [
    "--skip",
    "killed_anywhere",
    "--skip",
    "a_bridge_holds",
    "--skip",
    "what_has_our_names",
    "--skip",
    "a_device_that_goes",
    "--skip",
    "a_container_that_goes",
    "--skip",
    "a_tunnel_out_of_sight",
];

#[test]
fn an_ordinary_user_passes_the_same_tests_in_a_private_world() {
    kernel_test(Kernel::Host, "vxlan::an_ordinary_user_passes_the_same_tests", || {
        if std::env::var_os(CHILD).is_some() || !is_root_outside() {
            return; // this is the ordinary user, or the lab
        }
        let mut suite = Command::new("unshare");
        suite.args(["--user", "--map-root-user", "--net", "--mount"]).arg(std::env::current_exe().unwrap());
        suite.args(["--test-threads", "2"]).args(SLOW).env("PROPTEST_CASES", "32");
        passed(suite.current_dir("/").uid(NOBODY).gid(NOBODY));
    });
}

/// Runs the suite, which must be one, and pass.
fn passed(suite: &mut Command) {
    suite.env(CHILD, "1").env("OVERLAY_REQUIRE_KERNEL", "1").env_remove("OVERLAY_KERNEL_LOG");
    let Output { status, stdout, stderr } = suite.output().unwrap();
    let text = String::from_utf8_lossy(&stdout);
    assert!(status.success(), "{text}{}", String::from_utf8_lossy(&stderr));
    assert!(text.contains("test result: ok") && !text.contains(" 0 passed"), "{text}");
}

/// Whether this is root in the first user namespace.
pub(crate) fn is_root_outside() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.split_whitespace().eq(["0", "0", "4294967295"])
}
