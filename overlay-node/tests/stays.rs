//! An endpoint's stays at nodes, to which it comes back.

#![allow(clippy::unwrap_used, reason = "tests, whose helpers clippy does not take for such")]

mod cluster;

use std::sync::Arc;

use cluster::{NOW, endpoint, manager, network, node, node_spec};
use overlay_core::MemoryStore;
use overlay_core::testing::block_on;
use overlay_node::{Condition, Control, EndpointSpec, NetworkSpec, Stay};

#[test]
fn a_late_report_of_an_earlier_stay_at_the_same_node_counts_no_more() {
    let manager = manager(Arc::new(MemoryStore::default()), 1);
    let stay = |moves| Stay { node: node(1), moves };
    block_on(async {
        let spec = NetworkSpec { attachable: true, ..NetworkSpec::overlay("front".parse().unwrap()) };
        manager.create_network(network(1), spec, NOW).await.unwrap();
        manager.add_node(node(1), node_spec("a"), NOW).await.unwrap();
        manager.add_node(node(2), node_spec("b"), NOW).await.unwrap();
        let spec = EndpointSpec::new(network(1), "c".parse().unwrap(), node(1));
        assert_eq!(manager.attach(endpoint(1), spec, NOW).await.unwrap().stay(), stay(0));
        manager.relocate(endpoint(1), node(2), NOW).await.unwrap();
        let back = manager.relocate(endpoint(1), node(1), NOW).await.unwrap();
        assert_eq!(back.stay(), stay(2));
        for late in [Ok(()), Err("its container has ended".to_owned())] {
            manager.report(endpoint(1), stay(0), late).await.unwrap();
            assert_eq!(manager.endpoint(endpoint(1)).await.unwrap().unwrap(), back);
        }
        manager.report(endpoint(1), stay(2), Ok(())).await.unwrap();
        assert_eq!(manager.endpoint(endpoint(1)).await.unwrap().unwrap().condition, Condition::Ready);
    });
}
