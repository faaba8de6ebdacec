//! Local networks on a real kernel, through the gate of `overlay_core::testing`; `ping` and `ip` are the judges.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail loudly too")]

mod conformance;
mod lab;
mod routes;

use overlay_core::testing::{Kernel, kernel_test};
use overlay_core::{EndpointId, ErrorKind, Mtu, ReconcileError, Shadow, Table as _, reconcile};
use overlay_kernel::testing::judge;
use overlay_link::{Bridge, MacvlanMode, State};

use crate::lab::{Lab, host_switches, mac, name, reaches};

#[test]
fn containers_on_a_bridge_reach_each_other_and_leave_nothing() {
    kernel_test(Kernel::Host, "link::containers_on_a_bridge_reach_each_other", || {
        let lab = Lab::new(2);
        let before = lab.whole();
        lab.settle(&lab.bridge(|bridge| bridge));
        for to in ["172.30.1.1", "172.30.1.11", "fd00:1::1", "fd00:1::11"] {
            assert!(reaches(&lab.containers[0], to), "{to}");
        }
        judge(&lab.containers[0].namespace, "ping", &["-c1", "-W1", "-s", "1472", "-M", "do", "172.30.1.11"]);
        lab.settle(&State::default());
        assert_eq!(lab.whole(), before);
    });
}

#[test]
fn isolated_ports_reach_the_gateway_and_not_each_other() {
    kernel_test(Kernel::Host, "link::isolated_ports_reach_the_gateway_alone", || {
        let lab = Lab::new(2);
        lab.settle(&lab.bridge(Bridge::isolated));
        for (to, reached) in [("172.30.1.1", true), ("fd00:1::1", true), ("172.30.1.11", false), ("fd00:1::11", false)]
        {
            assert_eq!(reaches(&lab.containers[0], to), reached, "{to}");
        }
        lab.settle(&lab.bridge(|bridge| bridge));
        assert!(reaches(&lab.containers[0], "172.30.1.11"), "they are not isolated any more");
    });
}

#[test]
fn a_hosts_own_switches_stay_as_they_are() {
    kernel_test(Kernel::Host, "link::a_hosts_own_switches_stay_as_they_are", || {
        for on in ["0", "1"] {
            let lab = Lab::new(1);
            let host = &lab.host;
            let set = format!(
                "echo {on} > /proc/sys/net/ipv6/conf/all/forwarding; echo {on} > /proc/sys/net/ipv4/conf/u0/forwarding"
            );
            judge(host, "sh", &["-c", &set]);
            let before = host_switches(host);
            lab.settle(&lab.bridge(Bridge::routed));
            assert_eq!(judge(host, "cat", &["/proc/sys/net/ipv4/conf/lb1/forwarding"]).trim(), "1");
            assert_eq!(host_switches(host), before);
            lab.settle(&State::default());
            assert_eq!(host_switches(host), before);
        }
    });
}

/// The first packet of a conversation goes out whatever the uplink's switches say; what comes back needs them.
#[test]
fn what_a_host_does_not_forward_is_told_with_its_remedy() {
    kernel_test(Kernel::Host, "link::what_a_host_does_not_forward_is_told", || {
        let lab = Lab::new(1);
        judge(
            &lab.host,
            "sh",
            &["-c", "ip route add default via 192.0.2.254; ip -6 route add default via 2001:db8::254"],
        );
        lab.route_back();
        let wanted = lab.bridge(Bridge::routed);
        lab.settle(&wanted);
        lab.default_routes();
        let told = lab.open().obstacles(&wanted).unwrap();
        assert_eq!(
            told.iter().map(ToString::to_string).collect::<Vec<_>>(),
            [
                "the host does not forward IPv4 packets that come in by u0: echo 1 > '/proc/sys/net/ipv4/conf/u0/forwarding'",
                "the host does not forward IPv6 packets: echo 2 > '/proc/sys/net/ipv6/conf/u0/accept_ra'; echo 1 > '/proc/sys/net/ipv6/conf/all/forwarding'",
            ]
        );
        let outside = ["192.0.2.254", "2001:db8::254"];
        assert!(outside.iter().all(|to| !reaches(&lab.containers[0], to)));
        told.iter().for_each(|obstacle| drop(judge(&lab.host, "sh", &["-c", &obstacle.remedy()])));
        assert_eq!(lab.open().obstacles(&wanted).unwrap(), []);
        for to in outside {
            assert!(reaches(&lab.containers[0], to), "{to}");
        }
    });
}

#[test]
fn a_macvlan_is_a_station_of_the_physical_network() {
    kernel_test(Kernel::Host, "link::a_macvlan_is_a_station_of_the_physical_network", || {
        let lab = Lab::new(2);
        let before = lab.whole();
        for (mode, each_other) in
            [(MacvlanMode::Bridge, true), (MacvlanMode::Private, false), (MacvlanMode::Vepa, false)]
        {
            lab.settle(&lab.macvlans(mode, 2));
            for container in &lab.containers {
                assert!(reaches(container, "192.0.2.254") && reaches(container, "2001:db8::254"), "{mode}");
            }
            assert_eq!(reaches(&lab.containers[0], "192.0.2.11"), each_other, "{mode}");
            assert_eq!(reaches(&lab.containers[0], "2001:db8::11"), each_other, "{mode}");
        }
        lab.settle(&State::default());
        assert_eq!(lab.whole(), before);
    });
}

#[test]
fn in_mode_passthru_a_macvlan_takes_its_parent_over_and_gives_it_back() {
    kernel_test(Kernel::Host, "link::in_mode_passthru_a_macvlan_takes_its_parent_over", || {
        let lab = Lab::new(1);
        let before = lab.whole();
        lab.settle(&lab.macvlans(MacvlanMode::Passthru, 1));
        assert!(reaches(&lab.containers[0], "192.0.2.254"));
        lab.settle(&State::default());
        assert_eq!(lab.whole(), before);
    });
}

#[test]
fn what_other_tools_break_is_repaired() {
    kernel_test(Kernel::Host, "link::what_other_tools_break_is_repaired", || {
        let lab = Lab::new(2);
        let mut wanted = lab.bridge(Bridge::routed);
        wanted.macvlans = lab.macvlans(MacvlanMode::Bridge, 2).macvlans;
        let mut table = Shadow::new(lab.open());
        reconcile(&mut table, &wanted).unwrap();
        for (inside, damage) in [
            (false, "ip link del lb1"),
            (false, "ip link del lp10"),
            (false, "ip link set lp10 down"),
            (false, "ip link set lp10 nomaster"),
            (false, "ip addr flush dev lb1"),
            (false, "bridge fdb flush dev lb1"),
            (false, "echo 0 > /proc/sys/net/ipv4/conf/lb1/forwarding"),
            (true, "ip link del eth0"),
            (true, "ip link del lan0"),
            (true, "ip addr flush dev lan0"),
            (true, "ip link set lan0 down"),
        ] {
            let at = if inside { &lab.containers[0].namespace } else { &lab.host };
            judge(at, "sh", &["-c", damage]);
            assert!(!reconcile(&mut table, &wanted).unwrap().is_empty(), "{damage}");
            assert!(Shadow::new(lab.open()).plan(&wanted).unwrap().is_empty(), "{damage}");
            // A bridge's port that is up again forwards a moment later.
            let soon = |to| (0..10).any(|_| reaches(&lab.containers[0], to));
            assert!(soon("172.30.1.11") && soon("192.0.2.11"), "{damage}");
        }
    });
}

#[test]
fn what_another_program_holds_is_a_conflict_and_stays() {
    kernel_test(Kernel::Host, "link::what_another_program_holds_is_a_conflict", || {
        let lab = Lab::new(1);
        judge(&lab.host, "ip", &["link", "add", "lb1", "type", "bridge"]);
        let before = lab.whole();
        let failed = reconcile(&mut lab.open(), &lab.bridge(|bridge| bridge)).unwrap_err();
        let ReconcileError::Apply { error, .. } = failed else { panic!("{failed}") };
        assert_eq!(error.source.kind(), ErrorKind::Conflict, "{error}");
        assert_eq!(lab.whole(), before);

        let mut wanted = lab.macvlans(MacvlanMode::Bridge, 1);
        let macvlan = wanted.macvlans.get_mut(&EndpointId::from_bytes([10; 16])).unwrap();
        macvlan.parent = name("nowhere");
        let failed = reconcile(&mut lab.open(), &wanted).unwrap_err().to_string();
        assert!(failed.contains("nowhere"), "{failed}");
        let macvlan = wanted.macvlans.values_mut().next().unwrap();
        (macvlan.parent, macvlan.mtu, macvlan.mac) = (name("u0"), Mtu::new(9000).unwrap(), mac(9, 10));
        let failed = reconcile(&mut lab.open(), &wanted).unwrap_err();
        assert!(matches!(failed, ReconcileError::Apply { .. }), "{failed}");
        lab.settle(&State::default());
        assert_eq!(lab.whole(), before);
    });
}
