//! A device that loses its last IPv4 address: the kernel takes its IPv4 routes and neighbours along.

use overlay_core::testing::{Kernel, kernel_test};
use overlay_kernel::Namespace;

use crate::links_faults::open;
use crate::links_mtu::{reach, wanted};

#[test]
fn what_a_device_keeps_without_an_ipv4_address_is_as_wanted_at_once() {
    kernel_test(Kernel::Host, "kernel::what_a_device_keeps_without_an_ipv4_address", || {
        let home = Namespace::create().unwrap();
        let mut links = open("bared", &home);
        let dressed = wanted(1400);
        for (neighbours, routes) in [(true, false), (false, true), (true, true), (false, false)] {
            reach(&mut links, &dressed);
            let mut bare = dressed.clone();
            bare.addresses.retain(|(_, address), _| address.is_ipv6());
            bare.neighbours.retain(|(_, address), _| neighbours || address.is_ipv6());
            bare.routes.retain(|key, _| routes || !key.destination.addr().is_ipv4());
            reach(&mut links, &bare);
        }
    });
}
