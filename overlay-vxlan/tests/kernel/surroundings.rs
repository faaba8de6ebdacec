//! What others have done, or do meanwhile, to the namespaces that a network is built in.

use overlay_core::testing::{Kernel, kernel_test};
use overlay_core::{ErrorKind, IpFamily, Phase, ReconcileError, Shadow, Table as _, reconcile};
use overlay_kernel::Namespace;
use overlay_kernel::testing::judge;

use crate::lab::{Lab, whole};
use crate::{HERE, NONE_LOST, THERE, conflict};

/// The port of container 0.
const PORT: &str = "p-0250za67mbtg";

fn sh(namespace: &Namespace, script: &str) -> String {
    judge(namespace, "sh", &["-ec", script])
}

/// Container runtimes switch IPv6 off where they give out no addresses of it.
#[test]
fn where_ipv6_is_off_it_is_switched_on_for_our_devices_alone() {
    kernel_test(Kernel::Host, "vxlan::where_ipv6_is_off_it_is_switched_on_for_ours", || {
        const OFF: &str = "for all in all default; do echo 1 >/proc/sys/net/ipv6/conf/$all/disable_ipv6; done
                           ip link add theirs type bridge";
        let lab = Lab::new(IpFamily::V4, 2);
        let (home, container) = (&lab.homes[0], &lab.containers[0].namespace);
        sh(home, OFF);
        sh(container, OFF);
        let placed = [HERE, THERE];
        lab.settle(&placed);
        assert_eq!(lab.lost(0, 1, 9), NONE_LOST);
        for namespace in [home, container] {
            let off =
                sh(namespace, "cd /proc/sys/net/ipv6/conf; cat all/disable_ipv6 lo/disable_ipv6 theirs/disable_ipv6");
            assert_eq!(off, "1\n1\n1\n");
        }
        // And again while it is used.
        let (mut table, wanted) = (Shadow::new(lab.open(0)), lab.wanted(0, &placed));
        assert!(reconcile(&mut table, &wanted).unwrap().is_empty());
        for (namespace, device) in [(home, "vx-4105"), (home, "br-4105"), (container, "eth1")] {
            sh(namespace, &format!("echo 1 >/proc/sys/net/ipv6/conf/{device}/disable_ipv6"));
            assert!(!reconcile(&mut table, &wanted).unwrap().is_empty(), "{device}");
            assert!(lab.open(0).plan(&wanted).unwrap().is_empty(), "{device}");
            assert_eq!(lab.lost(0, 1, 9), NONE_LOST, "{device}");
        }
    });
}

#[test]
fn what_has_our_names_stays_and_is_named() {
    kernel_test(Kernel::Host, "vxlan::what_has_our_names_stays_and_is_named", || {
        for (inside, name) in [(false, "br-4105"), (false, "vx-4105"), (false, PORT), (true, "eth1")] {
            let altname = format!("ip link add other type bridge; ip link property add dev other altname {name}");
            for add in [format!("ip link add {name} type bridge"), altname] {
                let lab = Lab::new(IpFamily::V4, 1);
                sh(if inside { &lab.containers[0].namespace } else { &lab.homes[0] }, &add);
                let before = lab.whole();
                let text = conflict(&lab);
                assert!(text.contains(&format!("make link {name}")), "{add}: {text}");
                lab.clear();
                assert_eq!(lab.whole(), before, "{add}");
            }
        }
    });
}

/// Docker makes its tunnels in the host's namespace and moves them into its networks': no tool shows them in the host's.
#[test]
fn a_tunnel_out_of_sight_is_named_and_once_it_is_gone_what_was_begun_is_finished() {
    kernel_test(Kernel::Host, "vxlan::a_tunnel_out_of_sight_is_named", || {
        for (options, named) in [
            ("id 4105 proxy l2miss l3miss", "vxlan 4105 from 192.0.2.1 port 4789"),
            ("id 9 gbp", "which listens at UDP port 4789"),
            ("external", "which listens at UDP port 4789"),
        ] {
            let lab = Lab::new(IpFamily::V4, 2);
            let host = &lab.hosts[0].namespace;
            let foreign = Namespace::create().unwrap();
            let held = std::os::fd::AsRawFd::as_raw_fd(&std::os::fd::AsFd::as_fd(&foreign));
            let moved = format!("netns /proc/{}/fd/{held}", std::process::id());
            sh(host, &format!("ip link add vx-001 type vxlan dstport 4789 {options}; ip link set vx-001 {moved}"));
            sh(&foreign, "ip link set vx-001 up");
            let before = [whole(host), whole(&foreign)];
            let text = conflict(&lab);
            assert!(text.contains(named), "{options}: {text}");
            assert_eq!([whole(host), whole(&foreign)], before, "{options}");
            sh(&foreign, "ip link del vx-001");
            lab.settle(&[HERE, THERE]);
            assert_eq!(lab.lost(0, 1, 9), NONE_LOST, "{options}");
        }
    });
}

#[test]
fn a_device_that_goes_before_it_is_raised_is_missed_and_a_foreign_one_in_its_place_is_not_touched() {
    kernel_test(Kernel::Host, "vxlan::a_device_that_goes_before_it_is_raised_is_missed", || {
        for (inside, name) in [(false, "br-4105"), (false, "vx-4105"), (false, PORT), (true, "eth1")] {
            for foreign in [false, true] {
                let lab = Lab::new(IpFamily::V4, 2);
                let (mut table, wanted) = (Shadow::new(lab.open(0)), lab.wanted(0, &[HERE, THERE]));
                let plan = table.plan(&wanted).unwrap();
                table.run(&plan, Phase::Guard).unwrap();
                table.run(&plan, Phase::Build).unwrap();
                let namespace = if inside { &lab.containers[0].namespace } else { &lab.homes[0] };
                sh(namespace, &format!("ip link del {name}"));
                let shown = foreign.then(|| {
                    sh(namespace, &format!("ip link add {name} address 02:00:00:00:00:99 type bridge"));
                    judge(namespace, "ip", &["-d", "link", "show", name])
                });
                let Err(ReconcileError::Apply { error, .. }) = table.run(&plan, Phase::Open) else {
                    panic!("{name} is not missed");
                };
                assert_eq!(error.source.kind(), ErrorKind::Gone, "{name}: {error:?}");
                if let Some(shown) = shown {
                    assert_eq!(judge(namespace, "ip", &["-d", "link", "show", name]), shown);
                    reconcile(&mut table, &wanted).unwrap_err();
                    assert_eq!(judge(namespace, "ip", &["-d", "link", "show", name]), shown);
                    sh(namespace, &format!("ip link del {name}"));
                }
                reconcile(&mut table, &wanted).unwrap();
                reconcile(&mut lab.open(1), &lab.wanted(1, &[HERE, THERE])).unwrap();
                assert_eq!(lab.lost(0, 1, 9), NONE_LOST, "{name}");
            }
        }
    });
}

/// A namespace goes when its last process and its last holder have gone.
#[test]
fn a_container_that_goes_at_any_time_leaves_nothing_and_the_others_whole() {
    kernel_test(Kernel::Host, "vxlan::a_container_that_goes_leaves_the_others_whole", || {
        for gone_before in Phase::ALL {
            let mut lab = Lab::new(IpFamily::V4, 3);
            let (mut table, all) = (Shadow::new(lab.open(0)), lab.wanted(0, &[HERE, THERE, HERE]));
            let plan = table.plan(&all).unwrap();
            let mut outcome = Ok(());
            for phase in Phase::ALL {
                if phase == gone_before {
                    let dying = lab.containers.pop().unwrap();
                    table.inner_mut().leave(&dying.key);
                }
                outcome = outcome.and_then(|()| table.run(&plan, phase));
            }
            if let Err(error) = outcome {
                let ReconcileError::Apply { error, .. } = error else { panic!("{error}") };
                assert_eq!(error.source.kind(), ErrorKind::Gone, "before {gone_before}: {error:?}");
            }
            let error = reconcile(&mut table, &all).unwrap_err();
            assert!(matches!(&error, ReconcileError::Apply { error, .. } if error.source.kind() == ErrorKind::Gone));
            assert!(error.to_string().contains("eth1 in c2"), "{error}");
            lab.settle(&[HERE, THERE]);
            assert_eq!(lab.lost(0, 1, 9), NONE_LOST, "before {gone_before}");
            let ports = judge(&lab.homes[0], "ip", &["-o", "link"]);
            assert_eq!(ports.matches(": p-").count(), 1, "before {gone_before}: {ports}");
        }
    });
}
