//! What of a node's is left at its host, when all else has gone.

use overlay_core::testing::{Kernel, kernel_test};
use overlay_core::{Name, NodeId, Owner, Port, reconcile};
use overlay_crypto::State;
use overlay_crypto::kernel::{Esp, Xfrm};
use overlay_driver::KernelPlaces;
use overlay_kernel::Namespace;
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
