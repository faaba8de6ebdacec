use overlay_core::testing::{Kernel, kernel_test};
use overlay_kernel::{Feature, probe};

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
