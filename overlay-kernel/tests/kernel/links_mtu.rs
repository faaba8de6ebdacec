//! A device below the MTU of IPv6 has no IPv6.

use overlay_core::testing::{Kernel, kernel_test};
use overlay_core::{Applied, Backend, ErrorKind, Mac, Mtu, State as _, reconcile};
use overlay_kernel::Namespace;
use overlay_kernel::link::{Dev, Kind, Link, Links, MAIN_TABLE, Route, RouteKey, Site, State};
use overlay_kernel::testing::judge;

use crate::links_faults::{self, BRIDGE, dev, fault, open, vxlan};

/// A bridge and a tunnel of this MTU, with IPv4 on them, and IPv6 where there can be.
pub(crate) fn wanted(mtu: u32) -> State {
    let mut state = State::default();
    let v6 = mtu >= 1280;
    for (number, (name, kind)) in (1..).zip([("br0", BRIDGE), ("vx0", vxlan(7))]) {
        let link = Link::new(kind, Mtu::new(mtu).unwrap(), Mac::new([2, 0x42, 0, 0, 9, number]));
        state.links.insert(dev(name), Link { accept_ra: v6 && number == 2, ..link });
        dress(&mut state, &dev(name), number, v6);
    }
    state
}

fn dress(state: &mut State, dev: &Dev, number: u8, v6: bool) {
    let mut texts = vec![(format!("10.0.{number}."), 24, format!("198.51.{number}.0/24"))];
    if v6 {
        texts.push((format!("fd00:{number}::"), 64, format!("2001:db8:{number}::/48")));
    }
    for (subnet, len, destination) in texts {
        let [address, neighbour] = [1, 2].map(|host| format!("{subnet}{host}").parse().unwrap());
        state.addresses.insert((dev.clone(), address), len);
        state.neighbours.insert((dev.clone(), neighbour), Mac::new([2, 0, 0, 0, 0, 9]));
        let key =
            RouteKey { site: Site::Home, table: MAIN_TABLE, destination: destination.parse().unwrap(), metric: 5 };
        state.routes.insert(key, Route::Via { device: dev.name, gateway: None, source: None, onlink: false });
    }
}

/// Reaches `wanted` once, and all is as wanted.
pub(crate) fn reach(links: &mut Links, wanted: &State) {
    let plan = reconcile(links, wanted).unwrap();
    let left: Vec<_> = links.observe().unwrap().plan(wanted).iter().map(ToString::to_string).collect();
    assert_eq!(left, [""; 0], "after\n{plan}");
}

#[test]
fn a_device_below_the_mtu_of_ipv6_loses_it_and_gets_it_back_as_wanted() {
    kernel_test(Kernel::Host, "kernel::a_device_below_the_mtu_of_ipv6_loses_it", || {
        for first in [1200, 1279, 1280, 1281, 68, 65_535] {
            let home = Namespace::create().unwrap();
            let mut links = open("mtu", &home);
            reach(&mut links, &wanted(first));
            for mtu in [1300, 1200, 1280, 1279, 1280] {
                reach(&mut links, &wanted(mtu));
            }
            let shown = judge(&home, "ip", &["-6", "addr", "show", "dev", "br0"]);
            assert!(shown.contains("fd00:1::1/64") && !shown.contains("fe80"), "{shown}");
        }
    });
}

#[test]
fn what_another_tool_took_with_the_mtu_comes_back() {
    kernel_test(Kernel::Host, "kernel::what_another_tool_took_with_the_mtu_comes_back", || {
        let home = Namespace::create().unwrap();
        let mut links = open("mtu", &home);
        let wanted = wanted(1400);
        reach(&mut links, &wanted);
        for damage in ["mtu 1200", "mtu 1279 down", "mtu 68 up"] {
            for name in ["br0", "vx0"] {
                judge(&home, "sh", &["-c", &format!("ip link set {name} {damage}")]);
            }
            reach(&mut links, &wanted);
        }
        judge(&home, "sh", &["-c", "ip link set vx0 mtu 1200; ip link set vx0 mtu 1400"]);
        assert!(judge(&home, "ip", &["-6", "addr", "show", "dev", "vx0"]).contains("fe80"));
        reach(&mut links, &wanted);
        let shown = judge(&home, "ip", &["-6", "addr", "show", "dev", "vx0"]);
        assert!(!shown.contains("fe80"), "the kernel's own address stayed: {shown}");
    });
}

#[test]
fn a_tunnel_larger_than_its_interface_carries_is_refused_with_what_would_fit() {
    kernel_test(Kernel::Host, "kernel::a_tunnel_larger_than_its_interface_carries_is_refused", || {
        let home = Namespace::create().unwrap();
        judge(&home, "ip", &["link", "add", "eth0", "mtu", "1400", "type", "bridge"]);
        let mut links = open("mtu", &home);
        let on_eth0 = |mtu| {
            let mut state = links_faults::with([("vx0", vxlan(7))]);
            for link in state.links.values_mut() {
                link.mtu = Mtu::new(mtu).unwrap();
                let Kind::Vxlan(vxlan) = &mut link.kind else { continue };
                vxlan.device = Some("eth0".parse().unwrap());
            }
            state
        };
        for first in [true, false] {
            let (step, applied, kind, text) = fault(&mut links, &on_eth0(1351));
            assert!(step.starts_with(if first { "add link vx0" } else { "set link vx0" }), "{step}");
            let claim = if first { Applied::Nothing } else { Applied::Unknown };
            assert_eq!((applied, kind), (claim, ErrorKind::Invalid), "{text}");
            assert!(text.contains("eth0 has MTU 1400, which leaves 1350 inside"), "{text}");
            reach(&mut links, &on_eth0(1350));
        }
        let mut both = on_eth0(1350);
        both.links.insert(dev("eth0"), Link::new(BRIDGE, Mtu::new(1399).unwrap(), Mac::new([2, 0, 0, 0, 0, 7])));
        assert!(both.check().unwrap_err().to_string().contains("eth0 has MTU 1399, which leaves 1349 inside"));
    });
}

#[test]
fn ipv6_on_a_device_below_its_mtu_is_refused() {
    let mut good = wanted(1279);
    assert_eq!(good.check(), Ok(()));
    good.links.values_mut().for_each(|link| link.mtu = Mtu::IPV6_MIN);
    dress(&mut good, &dev("br0"), 1, true);
    assert_eq!(good.check(), Ok(()));

    let mut all = good;
    let small = |state: &mut State| {
        state.links.values_mut().for_each(|link| link.mtu = Mtu::new(1279).unwrap());
    };
    small(&mut all);
    let v4 = wanted(1279);
    let addressed = State { addresses: all.addresses, ..v4.clone() };
    let routed = State { routes: all.routes, ..v4.clone() };
    let known = State { neighbours: all.neighbours, ..v4.clone() };
    let mut believing = v4;
    believing.links.values_mut().for_each(|link| link.accept_ra = true);
    for bad in [addressed, routed, known, believing] {
        let text = bad.check().unwrap_err().to_string();
        assert!(text.contains("1279") && text.contains("IPv6 needs 1280"), "{text}");
    }
}
