use overlay_core::testing::{Kernel, kernel_test};
use overlay_kernel::{Feature, Namespace, probe};

use crate::route;

#[test]
fn the_probe_finds_what_this_kernel_does_and_leaves_nothing() {
    kernel_test(Kernel::Host, "kernel::the_probe_finds_what_this_kernel_does", || {
        let namespace = Namespace::create().unwrap();
        let report = namespace.run(probe).unwrap();
        for finding in &report.findings {
            println!("{finding}");
        }
        for needed in [Feature::Namespaces, Feature::Bridge, Feature::Veth, Feature::Vxlan, Feature::NftBridge] {
            assert!(report.of(needed).unwrap().is_available(), "{needed}");
        }
        assert_eq!(report.findings.len(), Feature::ALL.len() - 1);
        assert!(route::index(&mut route::socket(&namespace), "p-bridge").is_err());
        assert!(report.buffers.send > 0 && report.buffers.receive > 0);
    });
}
