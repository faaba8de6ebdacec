//! How much a node holds, and what comes later.

use overlay_core::testing::{Kernel, kernel_test};
use overlay_core::{ErrorKind, IpFamily, Mac, ReconcileError, Shadow, Table as _, reconcile};
use overlay_kernel::testing::judge;
use overlay_vxlan::{LocalPort, Sandbox, State};

use crate::lab::{At, Lab, Place, addresses, vni};
use crate::{HERE, NONE_LOST, THERE};

const MOST: u16 = 1022;

/// A segment with so many endpoints here, all in one container.
fn crowded(lab: &Lab, ports: u16) -> State {
    let mut state = lab.wanted(0, &[HERE]);
    let segment = state.segments.get_mut(&vni(9)).unwrap();
    segment.ports.clear();
    for number in 0..ports {
        let [high, low] = number.to_be_bytes();
        let end = lab.end_as(0, &format!("eth{number}"));
        let mut id = [7; 16];
        (id[0], id[1]) = (high, low);
        let port = LocalPort { mac: Mac::new([2, 0x42, 1, 0, high, low]), addresses: [].into(), end };
        segment.ports.insert(overlay_core::EndpointId::from_bytes(id), port);
    }
    state
}

#[test]
fn a_bridge_holds_as_many_ports_as_are_not_refused_and_not_one_more() {
    kernel_test(Kernel::Host, "vxlan::a_bridge_holds_as_many_ports_as_are_not_refused", || {
        let lab = Lab::new(IpFamily::V4, 1);
        let mut table = Shadow::new(lab.open(0));
        let error = reconcile(&mut table, &crowded(&lab, MOST + 1)).unwrap_err();
        assert!(matches!(&error, ReconcileError::Refused(_)), "{error:?}");
        assert!(error.to_string().contains("segment 4105: 1023 ports: a Linux bridge takes 1,022"), "{error}");
        assert!(!judge(&lab.homes[0], "ip", &["link"]).contains("br-4105"), "something was made");

        reconcile(&mut table, &crowded(&lab, MOST)).unwrap();
        assert!(lab.open(0).plan(&crowded(&lab, MOST)).unwrap().is_empty());
        let add = "ip link add one-more type veth peer name more-one; ip link set one-more master br-4105 2>&1; true";
        let said = judge(&lab.homes[0], "sh", &["-c", add]);
        assert!(said.contains("full"), "this kernel takes more: {said}");

        // A foreign port takes one of ours its place: the kernel's refusal has a kind too.
        reconcile(&mut table, &crowded(&lab, MOST - 1)).unwrap();
        judge(&lab.homes[0], "ip", &["link", "set", "one-more", "master", "br-4105"]);
        let Err(ReconcileError::Apply { error, .. }) = reconcile(&mut table, &crowded(&lab, MOST)) else {
            panic!("a bridge with {MOST} ports, the tunnel and a foreign port");
        };
        assert_eq!(error.source.kind(), ErrorKind::Limit, "{error:?}");
        judge(&lab.homes[0], "ip", &["link", "del", "one-more"]);
        reconcile(&mut table, &crowded(&lab, MOST)).unwrap();
        assert!(lab.open(0).plan(&crowded(&lab, MOST)).unwrap().is_empty());
    });
}

#[test]
fn a_container_that_comes_later_is_plugged_in_by_the_same_shadow() {
    kernel_test(Kernel::Host, "vxlan::a_container_that_comes_later_is_plugged_in", || {
        let mut lab = Lab::new(IpFamily::V4, 2);
        lab.settle(&[HERE, THERE]);
        let mut table: Shadow<Sandbox> = Shadow::new(lab.open(0));
        reconcile(&mut table, &lab.wanted(0, &[HERE, THERE])).unwrap();

        lab.containers.push(Place::new("late"));
        let late = lab.containers.last().unwrap();
        let all = [HERE, THERE, At { host: 0, segment: 9 }];
        let error = reconcile(&mut table, &lab.wanted(0, &all)).unwrap_err();
        assert!(error.to_string().contains("add link p-"), "{error}");
        let (key, namespace) = (late.key.clone(), late.namespace.try_clone().unwrap());
        table.inner_mut().reach(key.clone(), namespace).unwrap();
        reconcile(&mut table, &lab.wanted(0, &all)).unwrap();
        reconcile(&mut lab.open(1), &lab.wanted(1, &all)).unwrap();
        assert_eq!([lab.lost(2, 0, 9), lab.lost(2, 1, 9)], [NONE_LOST; 2]);

        // What is out of sight stays; what is unplugged first does not.
        reconcile(&mut table, &lab.wanted(0, &[HERE, THERE])).unwrap();
        table.inner_mut().leave(&key);
        assert!(reconcile(&mut table, &lab.wanted(0, &[HERE, THERE])).unwrap().is_empty());
        assert!(!judge(&lab.containers[2].namespace, "ip", &["link"]).contains("eth1"));
        assert_eq!(
            lab.ping(0, addresses(9, 11).pop_first().unwrap().addr(), &["-c", "1"]).matches("0% packet").count(),
            1
        );
    });
}
