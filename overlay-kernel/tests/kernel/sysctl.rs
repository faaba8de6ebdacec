use overlay_core::testing::{Kernel, kernel_test};
use overlay_core::{ErrorKind, IpFamily};
use overlay_kernel::{Namespace, Sysctl};

#[test]
fn a_setting_is_that_of_the_namespace_the_thread_is_in() {
    kernel_test(Kernel::Host, "kernel::a_setting_is_that_of_the_namespace", || {
        let (one, other) = (Namespace::create().unwrap(), Namespace::create().unwrap());
        let forwarding = Sysctl::of_interface(IpFamily::V4, &"lo".parse().unwrap(), "forwarding").unwrap();
        let read = |namespace: &Namespace| namespace.run(|| forwarding.read()).flatten().unwrap();
        let opposite = if read(&one) == "0" { "1" } else { "0" };
        let before = (read(&other), forwarding.read().unwrap());
        one.run(|| forwarding.set(opposite)).flatten().unwrap();
        assert_eq!(read(&one), opposite);
        assert_eq!((read(&other), forwarding.read().unwrap()), before, "and of no other");
    });
}

#[test]
fn a_setting_that_is_not_there_and_a_value_that_is_none_are_told_apart() {
    kernel_test(Kernel::Host, "kernel::a_setting_that_is_not_there", || {
        let namespace = Namespace::create().unwrap();
        let missing = Sysctl::new(["net", "ipv4", "conf", "no-such-device", "forwarding"]).unwrap();
        let error = namespace.run(|| missing.set("1")).flatten().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Gone);
        let forwarding = Sysctl::of_interface(IpFamily::V4, &"lo".parse().unwrap(), "forwarding").unwrap();
        let error = namespace.run(|| forwarding.set("perhaps")).flatten().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
    });
}

#[test]
fn a_value_that_the_kernel_changed_is_not_taken_for_set() {
    kernel_test(Kernel::Host, "kernel::a_value_that_the_kernel_changed", || {
        let namespace = Namespace::create().unwrap();
        let mtu = Sysctl::new(["net", "ipv6", "conf", "lo", "accept_ra"]).unwrap();
        let error = namespace.run(|| mtu.set("007")).flatten().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(std::error::Error::source(&error).unwrap().to_string().contains('7'));
    });
}
