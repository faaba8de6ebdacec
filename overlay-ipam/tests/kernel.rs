//! What a host has in use, as the kernel says, judged by `ip`.

#![allow(clippy::unwrap_used, reason = "tests, whose helpers clippy does not take for such")]

use std::process::Command;

use overlay_core::testing::{Kernel, kernel_test};
use overlay_core::{IpFamily, NetworkId};
use overlay_ipam::{HostNetworks, Occupant, Occupied, Pool, SubnetRequest, Subnets};
use overlay_kernel::Namespace;

#[test]
fn subnets_are_put_where_the_host_has_no_routes_and_no_name_server() {
    kernel_test(Kernel::Host, "ipam::subnets_are_put_where_the_host_has_no_routes_and_no_name_server", || {
        let namespace = Namespace::create().unwrap();
        let commands = [
            "link set lo up",
            "link add lan type bridge",
            "link set lan up",
            "address add 10.0.0.7/24 dev lan",
            "address add fd00:1::7/64 dev lan nodad",
            "route add 10.0.2.0/23 via 10.0.0.1",
            "route add default via 10.0.0.1",
            "route add 10.0.4.0/24 dev lan table 77",
            "route add blackhole 10.0.5.0/24",
        ];
        for command in commands {
            let status = namespace.run(|| Command::new("ip").args(command.split(' ')).status()).unwrap().unwrap();
            assert!(status.success(), "ip {command}");
        }
        let file = std::env::temp_dir().join(format!("overlay-ipam-resolv-{}", std::process::id()));
        std::fs::write(&file, "nameserver 10.0.6.53\n").unwrap();
        let occupied = HostNetworks::new(namespace).with_resolv_conf(&file).occupied().unwrap();
        std::fs::remove_file(&file).unwrap();

        let nets =
            |by: Occupant| occupied.iter().filter(|of| of.by == by).map(|of| of.net.to_string()).collect::<Vec<_>>();
        assert_eq!(nets(Occupant::Route), ["10.0.0.0/24", "10.0.2.0/23", "10.0.4.0/24", "fd00:1::/64"]);
        assert_eq!(nets(Occupant::NameServer), ["10.0.6.53/32"]);

        let mut subnets = Subnets::new(Pool::global());
        subnets.set_occupied(occupied);
        let mut claim =
            |number: u8| subnets.claim(NetworkId::from_bytes([number; 16]), &SubnetRequest::any(IpFamily::V4));
        let claimed: Vec<String> = (0..4).map(|number| claim(number).unwrap().net().to_string()).collect();
        assert_eq!(claimed, ["10.0.1.0/24", "10.0.5.0/24", "10.0.7.0/24", "10.0.8.0/24"]);
    });
}
