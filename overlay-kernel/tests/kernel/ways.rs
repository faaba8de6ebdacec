//! Routes in a namespace of somebody else's.

use overlay_core::testing::{Kernel, kernel_test};
use overlay_core::{Applied, Backend as _};
use overlay_kernel::Namespace;
use overlay_kernel::link::{KernelWays, MarkedWay, Way, WayStep};
use overlay_kernel::testing::judge;

#[test]
fn a_step_of_several_requests_that_fails_half_way_does_not_say_that_nothing_was_changed() {
    kernel_test(Kernel::Host, "kernel::a_step_of_several_requests_that_fails_half_way", || {
        let home = Namespace::create().unwrap();
        let script = "ip link set lo up; ip link add d0 type dummy 2>/dev/null || ip link add d0 type bridge
             ip link set d0 addrgenmode none; ip link set d0 up
             ip addr add 10.0.9.5/24 dev d0; ip addr add fd00::5/64 dev d0 nodad";
        judge(&home, "sh", &["-ec", script]);
        let mut ways = KernelWays::open(home.try_clone().unwrap()).unwrap();
        let device = "d0".parse().unwrap();
        // Nobody is on the way to that router: of IPv4 all is done by then.
        let half = MarkedWay { device, v4: Some([10, 0, 9, 1].into()), v6: Some("fd99::1".parse().unwrap()) };
        let failed = ways.apply(&[WayStep::PutMarked(7, half)]).unwrap_err();
        assert_eq!((failed.at, failed.applied), (0, Applied::Unknown), "{failed:?}");
        let rules = judge(&home, "ip", &["rule"]);
        assert!(rules.contains("fwmark 0x7"), "{rules}");

        let nowhere = Way { device, gateway: Some([10, 1, 0, 1].into()) };
        let whole = Way { device, gateway: Some([10, 0, 9, 1].into()) };
        let put = |to: &str, way| WayStep::Put(to.parse().unwrap(), way);
        let failed = ways.apply(&[put("10.7.0.0/16", nowhere)]).unwrap_err();
        assert_eq!((failed.at, failed.applied), (0, Applied::Nothing), "{failed:?}");
        let failed = ways.apply(&[put("10.8.0.0/16", whole), put("10.7.0.0/16", nowhere)]).unwrap_err();
        assert_eq!((failed.at, failed.applied), (1, Applied::Before), "{failed:?}");
    });
}
