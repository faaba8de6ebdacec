//! What is plugged in again as it was, where its interface is there still: a container's devices are told by a ground of its own.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail loudly too")]

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use overlay_core::{
    BackendError, ErrorKind, IfName, MemoryStore, Name, NetworkId, NodeId, Prefix, ServiceId, Store, UnixTime,
};
use overlay_driver::testing::Altered;
use overlay_driver::{Attach, Driver, MemoryGround, Source};
use overlay_node::{Control, Feed, Manager, NetworkSpec, PublishedPort, ServiceSpec};

const NOW: UnixTime = UnixTime::EPOCH;
const FRONT: NetworkId = NetworkId::from_bytes([9; 16]);

/// Places in memory; what devices containers have, and after how many entries one fails, are said by the test.
fn ground(there: Arc<Mutex<BTreeSet<IfName>>>, until_it_fails: Arc<AtomicUsize>) -> Altered<MemoryGround> {
    let enter = move |_: &Name| match until_it_fails.fetch_sub(1, Ordering::Relaxed) {
        1 => Err(BackendError::new(ErrorKind::Other, "enter it once")),
        _ => Ok(()),
    };
    let ground = Altered::new(MemoryGround::default()).with_entry(enter);
    ground.with_interfaces(move |_| there.lock().unwrap().clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_plugged_in_otherwise_in_vain_has_the_interface_that_it_had_and_that_is_still_there() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
    let there: Arc<Mutex<BTreeSet<IfName>>> = Arc::default();
    let until_it_fails: Arc<AtomicUsize> = Arc::default();
    let ground = ground(Arc::clone(&there), Arc::clone(&until_it_fails));
    let (root, node) = (Prefix::new("test/").unwrap(), NodeId::from_bytes([1; 16]));
    let manager = Arc::new(Manager::new(Arc::clone(&store), &root, node, [7; 32]).unwrap());
    manager.found_cluster(NetworkId::from_bytes([8; 16]), NOW).await.unwrap();
    let front = NetworkSpec { attachable: true, ..NetworkSpec::overlay("front".parse().unwrap()) };
    manager.create_network(FRONT, front, NOW).await.unwrap();
    let ports = PublishedPort::read("80:8080").unwrap();
    let spec = ServiceSpec { ports, ..ServiceSpec::new("web".parse().unwrap(), [FRONT]) };
    let service = manager.create_service(ServiceId::from_bytes([5; 16]), spec, NOW).await.unwrap().id;
    let dir = std::env::temp_dir().join(format!("overlay-driver-{}-restored", std::process::id()));
    let feed = Feed::new(store, &root).unwrap();
    let builder = Driver::builder(node, ground, manager.clone(), feed).name("host".parse().unwrap());
    let driver = builder.gossip("127.0.0.1:0".parse().unwrap()).dir(&dir).start().await.unwrap();

    let (container, source): (Name, _) = ("web".parse().unwrap(), Source::Path("/run/netns/web".into()));
    let attach = Attach { service: Some(service), ..Attach::new(container.clone(), source.clone(), "front") };
    let id = driver.attach(attach).await.unwrap().endpoint.id;
    let before = driver.status().await.unwrap().plugged;
    assert_eq!(before.len(), 2, "that of the ingress network with it");
    *there.lock().unwrap() = before.iter().map(|it| it.interface).collect();
    // The first is the endpoint itself, the second what it has on the ingress network.
    for fails_at in [1, 2] {
        until_it_fails.store(fails_at, Ordering::Relaxed);
        let eth7 = Some("eth7".parse().unwrap());
        driver.plug(id, container.clone(), source.clone(), eth7).await.unwrap_err();
        assert_eq!(driver.status().await.unwrap().plugged, before, "where entry {fails_at} failed");
    }
    driver.stop().await;
    std::fs::remove_dir_all(dir).unwrap();
}
