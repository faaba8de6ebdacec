//! What is plugged in again as it was, where its interface is there still: a container's devices are told by a ground of its own.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail loudly too")]

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use overlay_core::{
    BackendError, ErrorKind, IfName, MemoryStore, Name, NetworkId, NodeId, NsKey, Prefix, ServiceId, Store, UnixTime,
};
use overlay_dns::Listen;
use overlay_driver::{Attach, Driver, FlowMeter, Ground, MemoryGround, Source};
use overlay_kernel::Namespace;
use overlay_kernel::netlink::Notices;
use overlay_node::{Control, Feed, Manager, NetworkSpec, Place, PlaceTables, Places, PublishedPort, ServiceSpec};

const NOW: UnixTime = UnixTime::EPOCH;
const FRONT: NetworkId = NetworkId::from_bytes([9; 16]);

/// Places in memory; what devices containers have, and after how many entries one fails, are said by the test.
#[derive(Clone, Default)]
struct Told {
    places: MemoryGround,
    there: Arc<Mutex<BTreeSet<IfName>>>,
    until_it_fails: Arc<AtomicUsize>,
}

impl Places for Told {
    fn open(&mut self, place: &Place) -> Result<PlaceTables, BackendError> {
        self.places.open(place)
    }

    fn close(&mut self, place: &Place) -> Result<(), BackendError> {
        self.places.close(place)
    }

    fn list(&mut self) -> Result<Vec<Place>, BackendError> {
        self.places.list()
    }
}

impl Ground for Told {
    fn host(&self) -> Option<Arc<Namespace>> {
        self.places.host()
    }

    fn enter(&mut self, container: &Name, source: &Source) -> Result<Option<NsKey>, BackendError> {
        if self.until_it_fails.fetch_sub(1, Ordering::Relaxed) == 1 {
            return Err(BackendError::new(ErrorKind::Other, "enter it once"));
        }
        self.places.enter(container, source)
    }

    fn leave(&mut self, container: &Name) {
        self.places.leave(container);
    }

    fn is_there(&self, source: &Source, key: &NsKey) -> bool {
        self.places.is_there(source, key)
    }

    fn interfaces(&mut self, _: &Name) -> Result<BTreeSet<IfName>, BackendError> {
        Ok(self.there.lock().unwrap().clone())
    }

    fn flows(&mut self, container: &Name, at: BTreeSet<IpAddr>) -> Result<Option<FlowMeter>, BackendError> {
        self.places.flows(container, at)
    }

    fn listen(&mut self, place: &Place, at: &[SocketAddr]) -> Result<Listen, BackendError> {
        self.places.listen(place, at)
    }

    fn hints(&mut self, place: &Place) -> Result<Vec<Notices>, BackendError> {
        self.places.hints(place)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_plugged_in_otherwise_in_vain_has_the_interface_that_it_had_and_that_is_still_there() {
    let (store, ground): (Arc<dyn Store>, _) = (Arc::new(MemoryStore::default()), Told::default());
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
    let builder = Driver::builder(node, ground.clone(), manager.clone(), feed).name("host".parse().unwrap());
    let driver = builder.gossip("127.0.0.1:0".parse().unwrap()).dir(&dir).start().await.unwrap();

    let (container, source): (Name, _) = ("web".parse().unwrap(), Source::Path("/run/netns/web".into()));
    let attach = Attach { service: Some(service), ..Attach::new(container.clone(), source.clone(), "front") };
    let id = driver.attach(attach).await.unwrap().endpoint.id;
    let before = driver.status().await.unwrap().plugged;
    assert_eq!(before.len(), 2, "that of the ingress network with it");
    *ground.there.lock().unwrap() = before.iter().map(|it| it.interface).collect();
    // The first is the endpoint itself, the second what it has on the ingress network.
    for fails_at in [1, 2] {
        ground.until_it_fails.store(fails_at, Ordering::Relaxed);
        let eth7 = Some("eth7".parse().unwrap());
        driver.plug(id, container.clone(), source.clone(), eth7).await.unwrap_err();
        assert_eq!(driver.status().await.unwrap().plugged, before, "where entry {fails_at} failed");
    }
    driver.stop().await;
    std::fs::remove_dir_all(dir).unwrap();
}
