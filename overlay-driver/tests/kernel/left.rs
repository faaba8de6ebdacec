//! What protects tunnels at a host: found when all else has gone, and listened to.

use overlay_core::testing::{Kernel, kernel_test};
use overlay_core::{Name, NodeId, Owner, Port, reconcile};
use overlay_crypto::State;
use overlay_crypto::kernel::{Esp, Xfrm};
use overlay_driver::{Ground as _, KernelPlaces};
use overlay_kernel::Namespace;
use overlay_kernel::netlink::{Drained, Notices};
use overlay_kernel::testing::judge;
use overlay_node::{Place, PlaceState, Places as _};

#[test]
fn a_host_that_has_guards_of_ours_and_nothing_else_is_found_and_cleared() {
    kernel_test(Kernel::Host, "driver::a_host_that_has_guards_alone_is_found", || {
        let (cluster, node): (Name, _) = ("left".parse().unwrap(), NodeId::from_bytes([7; 16]));
        let host = Namespace::create().unwrap();
        let dir = std::env::temp_dir().join(format!("overlay-driver-left-{}", std::process::id()));
        let mut places = KernelPlaces::new(cluster.clone(), node, host.try_clone().unwrap(), &dir).unwrap();
        assert_eq!(places.list().unwrap(), []);

        let guards = State { ports: [Port::VXLAN_ENCRYPTED].into(), ..State::default() };
        for (instance, found) in [("another", vec![]), (&node.short().to_string(), vec![Place::Host])] {
            let owner = Owner::new(cluster.clone(), instance.parse().unwrap());
            let xfrm = Xfrm::open(&owner, host.try_clone().unwrap()).unwrap();
            reconcile(&mut xfrm.with_esp(Esp::default()), &guards).unwrap();
            assert_eq!(places.list().unwrap(), found, "{instance}");
            let xfrm = Xfrm::open(&owner, host.try_clone().unwrap()).unwrap();
            if found.is_empty() {
                reconcile(&mut xfrm.with_esp(Esp::default()), &State::default()).unwrap();
            }
        }
        let mut tables = places.open(&Place::Host).unwrap();
        let mut plan = tables.plan(&PlaceState::default()).unwrap();
        plan.phases().into_iter().for_each(|phase| tables.run(&mut plan, phase).unwrap());
        assert_eq!((places.list().unwrap(), judge(&host, "ip", &["xfrm", "policy"])), (vec![], String::new()));
    });
}

#[test]
fn what_somebody_takes_from_what_protects_tunnels_is_heard_of() {
    kernel_test(Kernel::Lab, "driver::what_is_taken_from_tunnels_is_heard_of", || {
        let (host, node) = (Namespace::create().unwrap(), NodeId::from_bytes([7; 16]));
        let dir = std::env::temp_dir().join(format!("overlay-driver-heard-{}", std::process::id()));
        let mut places = KernelPlaces::new("left".parse().unwrap(), node, host.try_clone().unwrap(), &dir).unwrap();
        let mut hints = places.hints(&Place::Host).unwrap();
        let mut heard = || {
            let changed = |notices: &mut Notices| notices.drain(|_| {}).unwrap() != Drained::Quiet;
            hints.iter_mut().map(changed).fold(false, |any, one| any | one)
        };
        assert!(!heard());
        let ends = "src 192.0.2.1 dst 192.0.2.2";
        let key = format!("0x{}", "07".repeat(20));
        for change in [
            format!("policy add dir out {ends} action block"),
            "policy flush".to_owned(),
            format!("state add {ends} proto esp spi 0x1000 mode transport aead rfc4106(gcm(aes)) {key} 128"),
            "state flush".to_owned(),
        ] {
            let words: Vec<&str> = ["xfrm"].into_iter().chain(change.split(' ')).collect();
            judge(&host, "ip", &words);
            assert!(heard() && !heard(), "{change}");
        }
    });
}
