//! A node in user space and one whose kernel does it all: each takes what the other sends, in the clear and in ESP. `ping` is the judge.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail loudly too")]

mod world;

use overlay_core::testing::{Kernel, kernel_test};

use crate::world::World;

#[test]
fn the_kernels_vxlan_and_ours_are_one_network() {
    kernel_test(Kernel::Host, "datapath::the_kernels_vxlan_and_ours_are_one_network", || {
        let counts = World::new(false).converse();
        assert!(counts.underlay >= 20 && counts.sealed == 0, "{counts:?}");
    });
}

#[test]
fn the_kernels_esp_and_ours_are_one_network() {
    kernel_test(Kernel::Lab, "datapath::the_kernels_esp_and_ours_are_one_network", || {
        let counts = World::new(true).converse();
        assert!(counts.underlay >= 20 && counts.sealed == counts.underlay, "{counts:?}");
    });
}
