//! The same suite as an ordinary user, in a user namespace of its own.

use std::os::unix::process::CommandExt;
use std::process::{Command, Output};

use overlay_core::testing::{Kernel, kernel_test};

/// Set where a test runs as a child of another.
const CHILD: &str = "OVERLAY_KERNEL_TEST_CHILD";
/// Set where a test runs without any privilege.
pub(crate) const NOBODY_HERE: &str = "OVERLAY_KERNEL_TEST_NOBODY";
const NOBODY: u32 = 65_534;

#[test]
fn an_ordinary_user_passes_the_same_tests_in_a_private_world() {
    kernel_test(Kernel::Host, "kernel::an_ordinary_user_passes_the_same_tests", || {
        if std::env::var_os(CHILD).is_some() || !is_root_outside() {
            return; // this is the ordinary user
        }
        let output = Command::new(env!("CARGO_BIN_EXE_overlay-private"))
            .arg(std::env::current_exe().unwrap())
            .args(["--test-threads", "2"])
            .env(CHILD, "1")
            .env("OVERLAY_REQUIRE_KERNEL", "1")
            .env_remove("OVERLAY_KERNEL_LOG")
            .env(crate::killed::STRIDE, "16") // the deaths are the same for root, who dies them all
            .current_dir("/")
            .uid(NOBODY)
            .gid(NOBODY)
            .output();
        passed(&output.unwrap());
    });
}

/// Runs one test of this program as a user without any privilege.
pub(crate) fn as_nobody(test: &str) {
    if std::env::var_os(CHILD).is_some() || !is_root_outside() {
        return; // only root can become nobody
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test])
        .env(NOBODY_HERE, "1")
        .current_dir("/")
        .uid(NOBODY)
        .gid(NOBODY)
        .output();
    passed(&output.unwrap());
}

/// Checks that a run of tests was one, and passed.
pub(crate) fn passed(output: &Output) {
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("test result: ok") && !text.contains(" 0 passed"), "{text}");
}

/// Whether this is root in the first user namespace.
pub(crate) fn is_root_outside() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.split_whitespace().eq(["0", "0", "4294967295"])
}
