//! One manager: what is promised, one by one.

#![allow(clippy::unwrap_used, reason = "tests, whose helpers clippy does not take for such")]

use std::sync::Arc;

use overlay_core::testing::block_on;
use overlay_core::{EndpointId, MemoryStore, NetworkId, NodeId, Prefix, UnixTime};
use overlay_gossip::Role;
use overlay_node::{CatalogueChange, Condition, Control, EndpointSpec, Feed, Manager, NetworkSpec, NodeSpec};

const NOW: UnixTime = UnixTime::from_millis(1_767_225_600_000);

#[test]
fn a_network_is_made_used_and_removed_with_nothing_left() {
    let store = MemoryStore::default();
    let root = Prefix::new("cluster/").unwrap();
    let manager = Manager::new(Arc::new(store.clone()), &root, NodeId::from_bytes([1; 16]), [7; 32]).unwrap();
    let mut feed = Feed::new(Arc::new(store), &root).unwrap();
    let (network, node, endpoint) =
        (NetworkId::from_bytes([1; 16]), NodeId::from_bytes([2; 16]), EndpointId::from_bytes([3; 16]));
    block_on(async {
        manager.found_cluster(NetworkId::from_bytes([9; 16]), NOW).await.unwrap();
        let spec = NetworkSpec { attachable: true, ..NetworkSpec::overlay("front".parse().unwrap()) };
        let made = manager.create_network(network, spec, NOW).await.unwrap();
        assert_eq!(made.condition, Condition::Allocated);
        assert_eq!((made.subnets[0].to_string(), made.vni.unwrap().get()), ("10.0.1.0/24".to_owned(), 4097));
        manager.add_node(node, NodeSpec { name: "a".parse().unwrap(), role: Role::Worker }, NOW).await.unwrap();
        let spec = EndpointSpec::new(network, "web".parse().unwrap(), node);
        let attached = manager.attach(endpoint, spec, NOW).await.unwrap();
        assert_eq!(attached.addresses.first().unwrap().to_string(), "10.0.1.2/24");
        let refused = manager.remove_network(&"front".into(), NOW).await.unwrap_err();
        assert!(refused.to_string().contains("is in use by container web"), "{refused}");
        assert!(manager.detach(endpoint, NOW).await.unwrap().is_some());
        assert_eq!(manager.detach(endpoint, NOW).await.unwrap(), None);
        manager.remove_network(&"front".into(), NOW).await.unwrap();
        let told = feed.next().await.unwrap();
        assert!(matches!(&told[..], [CatalogueChange::Network(ingress)] if ingress.spec.ingress), "{told:?}");
    });
}
