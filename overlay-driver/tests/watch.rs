//! The endpoints of a service, followed from within the process and from another.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail loudly too")]

use std::collections::BTreeSet;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use overlay_core::{EndpointId, MemoryStore, NetworkId, NodeId, Prefix, ServiceId, Store, UnixTime};
use overlay_dns::Health;
use overlay_driver::control::{ControlClient, ControlServer, RemoteError, Serving};
use overlay_driver::{Attach, Driver, MemoryGround, Source, Stopped};
use overlay_lb::Weight;
use overlay_node::{
    Control, EndpointChange, Feed, Manager, NetworkSpec, Service, ServiceEndpoints, ServiceEvent, ServiceSpec,
};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

const NOW: UnixTime = UnixTime::EPOCH;
const PATIENCE: Duration = Duration::from_secs(20);

/// A node whose places are in memory, with a network and the means to serve its socket.
struct World {
    dir: PathBuf,
    manager: Arc<Manager>,
    driver: Driver,
}

impl World {
    async fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("overlay-watch-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
        let root = Prefix::new("test/").unwrap();
        let node = NodeId::from_bytes([1; 16]);
        let manager = Arc::new(Manager::new(Arc::clone(&store), &root, node, [7; 32]).unwrap());
        let front = NetworkSpec { attachable: true, ..NetworkSpec::overlay("front".parse().unwrap()) };
        manager.create_network(NetworkId::from_bytes([9; 16]), front, NOW).await.unwrap();
        let feed = Feed::new(store, &root).unwrap();
        let builder = Driver::builder(node, MemoryGround::default(), manager.clone(), feed);
        let builder = builder.name("host-1".parse().unwrap()).gossip("127.0.0.1:0".parse().unwrap()).dir(&dir);
        let driver = builder.start().await.unwrap();
        Self { dir, manager, driver }
    }

    async fn service(&self) -> Service {
        let spec = ServiceSpec::new("web".parse().unwrap(), [NetworkId::from_bytes([9; 16])]);
        self.manager.create_service(ServiceId::from_bytes([7; 16]), spec, NOW).await.unwrap()
    }

    async fn replica(&self, number: u8, service: &Service) -> EndpointId {
        let source = Source::Path(format!("/run/netns/web-{number}").into());
        let attach = Attach {
            service: Some(service.id),
            weight: Weight::new(number.into()).unwrap(),
            ..Attach::new(format!("web-{number}").parse().unwrap(), source, "front")
        };
        self.driver.attach(attach).await.unwrap().endpoint.id
    }

    fn socket(&self) -> PathBuf {
        self.dir.join("control.sock")
    }

    async fn serve(&self) -> Serving {
        let server = ControlServer::new(self.manager.clone()).with_driver(self.driver.clone());
        server.bind(self.socket()).await.unwrap()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.unwrap()
}

fn healthy(all: Option<&Arc<ServiceEndpoints>>) -> BTreeSet<EndpointId> {
    let endpoints = all.into_iter().flat_map(|all| &all.endpoints);
    endpoints.filter(|(_, endpoint)| endpoint.health == Health::Healthy).map(|(id, _)| *id).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn here_and_over_the_socket_the_same_is_told_of_what_comes_drains_and_goes() {
    let world = World::new("same").await;
    let serving = world.serve().await;
    let client = ControlClient::new(world.socket());
    let (mut here, mut there) = (world.driver.watch("web").await.unwrap(), client.watch("web"));
    assert_eq!(soon(here.next()).await, Ok(ServiceEvent::All(None)));
    assert_eq!(soon(there.next()).await.unwrap(), ServiceEvent::All(None));

    let service = world.service().await;
    let first = world.replica(3, &service).await;
    let mut known = [None, None];
    while healthy(known[0].as_ref()).is_empty() {
        soon(here.next()).await.unwrap().heed(&mut known[0]);
    }
    while known[1] != known[0] {
        soon(there.next()).await.unwrap().heed(&mut known[1]);
    }
    let endpoint = &known[1].as_ref().unwrap().endpoints[&first];
    assert_eq!((endpoint.weight.get(), endpoint.health, endpoint.addresses.len()), (3, Health::Healthy, 1));
    assert_eq!(endpoint.container.as_str(), "web-3");

    world.driver.set_health(first, Health::Draining).await.unwrap();
    let drains = ServiceEvent::Changes(vec![EndpointChange::Health(first, Health::Draining)]);
    assert_eq!(soon(here.next()).await.as_ref(), Ok(&drains));
    assert_eq!(soon(there.next()).await.unwrap(), drains);
    world.driver.detach(first).await.unwrap();
    let goes = ServiceEvent::Changes(vec![EndpointChange::Removed(first)]);
    assert_eq!(soon(here.next()).await.as_ref(), Ok(&goes));
    assert_eq!(soon(there.next()).await.unwrap(), goes);

    world.driver.clone().stop().await;
    assert_eq!(soon(here.next()).await, Err(Stopped));
    assert!(matches!(soon(there.next()).await, Err(RemoteError::Lost)), "who serves has nothing to tell any more");
    serving.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_server_was_away_only_what_differs_is_told() {
    let world = World::new("away").await;
    let service = world.service().await;
    let first = world.replica(1, &service).await;
    let serving = world.serve().await;
    let mut there = ControlClient::new(world.socket()).watch(service.id);
    let mut known = None;
    while healthy(known.as_ref()) != [first].into() {
        soon(there.next()).await.unwrap().heed(&mut known);
    }
    drop(serving);
    assert!(soon(there.next()).await.is_err());
    let second = world.replica(2, &service).await;
    assert!(matches!(soon(there.next()).await, Err(RemoteError::Connect { .. })), "nobody serves");
    let _serving = world.serve().await;
    let told = soon(there.next()).await.unwrap();
    assert!(
        matches!(&told, ServiceEvent::Changes(changes)
        if matches!(&changes[..], [EndpointChange::Added(id, _)] if *id == second)),
        "{told:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_a_driver_says_that_it_does_not_serve_that() {
    let world = World::new("unserved").await;
    let _serving = ControlServer::new(world.manager.clone()).bind(world.socket()).await.unwrap();
    let told = soon(ControlClient::new(world.socket()).watch("web").next()).await;
    assert!(matches!(told, Err(RemoteError::Unserved { .. })), "{told:?}");
}

/// Somebody who speaks the protocol by hand.
async fn raw(world: &World, hello: &str) -> (Lines<BufReader<OwnedReadHalf>>, OwnedWriteHalf) {
    let (read, mut write) = UnixStream::connect(world.socket()).await.unwrap().into_split();
    write.write_all(format!("{hello}\n").as_bytes()).await.unwrap();
    (BufReader::new(read).lines(), write)
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_read_is_told_the_last_and_not_all_that_was_meanwhile() {
    let world = World::new("slow").await;
    let service = world.service().await;
    let endpoint = world.replica(1, &service).await;
    let _serving = world.serve().await;
    let (mut lines, _write) = raw(&world, r#"{"hello":{"version":1,"purpose":{"watch":"web"}}}"#).await;
    let mut here = world.driver.watch("web").await.unwrap();
    let times = 1200;
    for round in 0..times {
        // Each is in effect before the next.
        let health = if round % 2 == 0 { Health::Draining } else { Health::Suspect };
        world.driver.set_health(endpoint, health).await.unwrap();
        loop {
            let told = soon(here.next()).await.unwrap();
            let is_it =
                matches!(&told, ServiceEvent::Changes(all) if all[..] == [EndpointChange::Health(endpoint, health)]);
            let has_it = matches!(&told, ServiceEvent::All(Some(all)) if all.endpoints.get(&endpoint).is_some_and(|it| it.health == health));
            if is_it || has_it {
                break;
            }
        }
    }
    world.driver.detach(endpoint).await.unwrap();
    let mut count = 0;
    loop {
        let line = soon(lines.next_line()).await.unwrap().unwrap();
        count += 1;
        if line.contains("removed") {
            break;
        }
    }
    assert!(count < times, "{count} lines were kept for it");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_reference_and_what_says_more_than_hello_ends_the_connection() {
    let world = World::new("hostile").await;
    let _serving = world.serve().await;
    for hello in [r#"{"hello":{"version":1,"purpose":{"watch":7}}}"#, r#"{"hello":{"version":1,"purpose":"watch"}}"#] {
        let (mut lines, _write) = raw(&world, hello).await;
        assert!(soon(lines.next_line()).await.unwrap().unwrap().contains("malformed"));
        assert_eq!(soon(lines.next_line()).await.unwrap(), None);
    }
    let (mut lines, mut write) = raw(&world, r#"{"hello":{"version":1,"purpose":{"watch":"../../etc"}}}"#).await;
    assert!(soon(lines.next_line()).await.unwrap().unwrap().contains("welcome"));
    assert!(soon(lines.next_line()).await.unwrap().unwrap().contains(r#"{"all":null}"#), "nothing is called so");
    write.write_all(b"anything\n").await.unwrap();
    assert_eq!(soon(lines.next_line()).await.unwrap(), None);
}
