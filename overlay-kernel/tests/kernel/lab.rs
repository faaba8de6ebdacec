use std::process::Command;

use overlay_core::testing::{Kernel, kernel_test};
use overlay_kernel::{Feature, probe};

use crate::killed;

#[test]
fn the_lab_has_what_hosts_may_lack() {
    kernel_test(Kernel::Lab, "kernel::the_lab_has_what_hosts_may_lack", || {
        let report = probe();
        for finding in &report.findings {
            println!("{finding}");
        }
        for needed in [Feature::Ipvs, Feature::Esp, Feature::XfrmPolicy, Feature::Vxlan, Feature::NftBridge] {
            assert!(report.of(needed).unwrap().is_available(), "{needed}: {:?}", report.of(needed));
        }
    });
}

#[test]
fn the_hosts_tests_pass_on_the_labs_kernel_too() {
    kernel_test(Kernel::Lab, "kernel::the_hosts_tests_pass_on_the_labs_kernel_too", || {
        let mut suite = Command::new(std::env::current_exe().unwrap());
        let suite = suite.env_remove("KERNEL_LAB").env_remove("OVERLAY_KERNEL_LOG").env("OVERLAY_REQUIRE_KERNEL", "1");
        // System calls and new processes are slow there: fewer deaths and cases, and as root only.
        let suite = suite.env(killed::STRIDE, "23").env("PROPTEST_CASES", "8").args(["--skip", "an_ordinary_user"]);
        // It has tables in bridges only: they have a test of their own.
        let suite = suite.args(["--skip", "nft", "--skip", "conntrack", "--skip", "tables_whose_writer"]);
        crate::ordinary::passed(&suite.output().unwrap());
    });
}
