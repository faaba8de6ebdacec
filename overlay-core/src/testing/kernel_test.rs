//! The gate to tests on a real kernel.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::panic;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

/// The kernel a test needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kernel {
    /// The one of this machine, with `CAP_NET_ADMIN` and `CAP_SYS_ADMIN`.
    Host,
    /// The kernel lab's (`KERNEL_LAB` is set there): it has IPVS and ESP.
    Lab,
}

/// Runs `body` if this is the kernel it needs, the process may change networks, and the tools are there that judge what it
/// does (`ip` and `bridge` of iproute2, `nft`, `ping`); otherwise says loudly that it did not.
///
/// `OVERLAY_REQUIRE_KERNEL=1` makes a missing privilege or tool a failure. `OVERLAY_KERNEL_LOG=FILE` gets a line
/// `host NAME` or `lab NAME` for each test that ran to its end; CI compares them with a committed list, so that
/// no kernel test can vanish. `name` is the crate's and the test's: `vxlan::the_kernel_takes_our_header`.
///
/// # Panics
/// If a privilege or tool is missing and required, and as `body` does.
pub fn kernel_test(kernel: Kernel, name: &str, body: impl FnOnce() + panic::UnwindSafe) {
    kernel_test_judged_by(&[], kernel, name, body);
}

/// The same for a test that needs more `judges`: programs, by their names.
///
/// # Panics
/// As [`kernel_test`].
#[expect(clippy::disallowed_methods, reason = "a test gate is told by the environment")]
pub fn kernel_test_judged_by(judges: &[&str], kernel: Kernel, name: &str, body: impl FnOnce() + panic::UnwindSafe) {
    let here = if std::env::var_os("KERNEL_LAB").is_some() { Kernel::Lab } else { Kernel::Host };
    if kernel != here {
        return skipped(name, &format!("needs the {kernel:?} kernel, this is the {here:?} kernel"));
    }
    if let Some(missing) = missing(judges) {
        let required = std::env::var("OVERLAY_REQUIRE_KERNEL").is_ok_and(|value| value == "1");
        assert!(!required, "{name} needs {missing}, and OVERLAY_REQUIRE_KERNEL forbids to skip it");
        return skipped(name, &format!("needs {missing}"));
    }
    within(PATIENCE, name, body);
    if let Some(log) = std::env::var_os("OVERLAY_KERNEL_LOG") {
        let line = format!("{} {name}\n", if here == Kernel::Lab { "lab" } else { "host" });
        let written = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .and_then(|mut file| file.write_all(line.as_bytes()));
        assert!(written.is_ok(), "OVERLAY_KERNEL_LOG: {written:?}");
    }
}

/// How long a test may take, which takes a minute at most on a slow machine.
const PATIENCE: Duration = Duration::from_secs(600);

/// Ends the process, and says which test it was, if `body` does not end: who waits for all tests would learn it hours later, and not from which.
#[expect(clippy::disallowed_methods, reason = "it watches from beside")]
fn within(patience: Duration, name: &str, body: impl FnOnce()) {
    let (ended, ends) = std::sync::mpsc::channel::<()>();
    let named = name.to_owned();
    let watch = std::thread::Builder::new().spawn(move || {
        if ends.recv_timeout(patience) == Err(RecvTimeoutError::Timeout) {
            let _ = writeln!(io::stderr(), "{named} did not end within {patience:?}");
            std::process::abort();
        }
    });
    body();
    drop(ended); // as when it panics
    let _ = watch.map(std::thread::JoinHandle::join);
}

/// Says so on stderr itself: what `eprintln!` prints in a test that passes, the test harness keeps to itself.
fn skipped(name: &str, why: &str) {
    let _ = writeln!(io::stderr(), "SKIPPED {name}: {why}");
}

/// What of this process and machine is missing for tests on a kernel.
#[expect(clippy::disallowed_methods, reason = "where programs are is told by the environment")]
fn missing<'j>(judges: &[&'j str]) -> Option<&'j str> {
    if !privileged() {
        return Some("CAP_NET_ADMIN and CAP_SYS_ADMIN");
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there = |tool: &&str| std::env::split_paths(&path).any(|folder| folder.join(tool).is_file());
    ["ip", "bridge", "nft", "ping"].into_iter().chain(judges.iter().copied()).find(|tool| !is_there(tool))
}

/// Whether the effective capabilities have `CAP_NET_ADMIN` (12) and `CAP_SYS_ADMIN` (21).
fn privileged() -> bool {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0);
    let wanted = 1 << 12 | 1 << 21;
    effective & wanted == wanted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_that_ends_or_panics_ends_its_watch() {
        within(PATIENCE, "ends", || {});
        panic::catch_unwind(|| within(PATIENCE, "panics", || panic!("as it should"))).unwrap_err();
    }
}
