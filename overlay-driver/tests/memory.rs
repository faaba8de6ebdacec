//! A driver whose places are in memory: needs no privilege.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail loudly too")]

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use overlay_core::{EndpointId, MemoryStore, NetworkId, NodeId, Prefix, ServiceId, Store, UnixTime};
use overlay_dns::Health;
use overlay_driver::control::{ControlClient, ControlServer, Follow};
use overlay_driver::{Attach, AttachError, Builder, DrainError, Driver, DriverEvent, MemoryGround, Source, StartError};
use overlay_node::{
    Condition, Control, Drain, Feed, Manager, NetworkSpec, Place, PublishedPort, ServiceEvent, ServiceSpec,
    UpkeepConfig, mesh_replica,
};
use tokio::sync::Semaphore;

const NOW: UnixTime = UnixTime::EPOCH;

/// A directory of its own, gone with this.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("overlay-driver-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn id(number: u8) -> NodeId {
    NodeId::from_bytes([number; 16])
}

fn root() -> Prefix {
    Prefix::new("test/").unwrap()
}

fn store() -> Arc<dyn Store> {
    Arc::new(MemoryStore::default())
}

fn manager(store: &Arc<dyn Store>) -> Arc<Manager> {
    Arc::new(Manager::new(Arc::clone(store), &root(), id(1), [7; 32]).unwrap())
}

async fn start(
    number: u8,
    ground: &MemoryGround,
    dir: &Dir,
    control: Arc<dyn Control>,
    catalogue: impl Follow + 'static,
) -> Result<Driver, StartError> {
    builder(number, ground, dir, control, catalogue).start().await
}

fn builder(
    number: u8,
    ground: &MemoryGround,
    dir: &Dir,
    control: Arc<dyn Control>,
    catalogue: impl Follow + 'static,
) -> Builder<MemoryGround> {
    let name = format!("host-{number}").parse().unwrap();
    let builder = Driver::builder(id(number), ground.clone(), control, catalogue);
    builder.name(name).gossip("127.0.0.1:0".parse().unwrap()).dir(&dir.0)
}

async fn create(control: &dyn Control) {
    let front = NetworkSpec { attachable: true, ..NetworkSpec::overlay("front".parse().unwrap()) };
    control.create_network(NetworkId::from_bytes([9; 16]), front, NOW).await.unwrap();
}

fn web() -> Attach {
    Attach::new("web".parse().unwrap(), Source::Path("/run/netns/web".into()), "front")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_attached_is_held_and_reported_and_gone_when_it_is_detached() {
    let (store, ground, dir) = (store(), MemoryGround::default(), Dir::new("attach"));
    let manager = manager(&store);
    let feed = Feed::new(store, &root()).unwrap();
    let driver = start(1, &ground, &dir, manager.clone(), feed).await.unwrap();
    create(&*manager).await;
    let attached = driver.attach(web()).await.unwrap();
    let held = ground.0.places().into_iter().map(|(place, _)| place.to_string()).collect::<Vec<_>>();
    assert_eq!(held.len(), 3, "the host, the network, the container: {held:?}");
    let endpoint = manager.endpoint(attached.endpoint.id).await.unwrap().unwrap();
    assert!(matches!(endpoint.condition, Condition::Allocated | Condition::Ready), "{:?}", endpoint.condition);

    let again = driver.attach(web()).await.unwrap_err();
    assert!(matches!(again, AttachError::Control(_)), "{again}");
    assert!(driver.detach(attached.endpoint.id).await.unwrap().is_some());
    assert!(driver.detach(attached.endpoint.id).await.unwrap().is_none());
    driver.tear_down().await.unwrap();
    assert!(ground.0.places().is_empty());
    assert!(manager.nodes().await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_serves_a_published_port_is_on_the_ingress_network_without_being_told_to() {
    let (store, ground, dir) = (store(), MemoryGround::default(), Dir::new("ingress"));
    let manager = manager(&store);
    let ingress = NetworkId::from_bytes([8; 16]);
    manager.found_cluster(ingress, NOW).await.unwrap();
    let driver = start(1, &ground, &dir, manager.clone(), Feed::new(store, &root()).unwrap()).await.unwrap();
    create(&*manager).await;
    let port = PublishedPort::read("80:8080").unwrap();
    let spec =
        ServiceSpec { ports: port, ..ServiceSpec::new("web".parse().unwrap(), [NetworkId::from_bytes([9; 16])]) };
    let service = manager.create_service(ServiceId::from_bytes([5; 16]), spec, NOW).await.unwrap().id;
    let web = || Attach { service: Some(service), ..web() };
    let attached = driver.attach(web()).await.unwrap();
    let replica = mesh_replica(service, id(1), &"web".parse().unwrap());
    let plugged = async || driver.status().await.unwrap().plugged.iter().map(|it| it.endpoint).collect::<BTreeSet<_>>();
    assert_eq!(plugged().await, [attached.endpoint.id, replica].into());
    assert_eq!(driver.in_effect(replica).await.unwrap(), Ok(()));
    // Who attaches it there all the same is given what there is.
    let there = driver.attach(Attach { network: "ingress".into(), ..web() }).await.unwrap();
    assert_eq!(there.endpoint.id, replica);
    driver.detach(attached.endpoint.id).await.unwrap().unwrap();
    let attached = driver.attach(web()).await.unwrap();
    assert_eq!(plugged().await, [attached.endpoint.id, replica].into(), "again");
    // Who takes its work away takes away what comes by the mesh, too.
    assert!(driver.drain(attached.endpoint.id, Duration::from_secs(20)).await.unwrap().is_complete());
    let health = async || match driver.watch("web").await.unwrap().next().await.unwrap() {
        ServiceEvent::All(all) => all.unwrap().endpoints.values().map(|it| it.health).collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    assert_eq!(health().await, [Health::Draining; 2]);
    driver.set_health(attached.endpoint.id, Health::Healthy).await.unwrap();
    while health().await != [Health::Healthy; 2] {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    driver.detach(attached.endpoint.id).await.unwrap().unwrap();
    assert_eq!((plugged().await, manager.endpoint(replica).await.unwrap()), (BTreeSet::new(), None));
    driver.tear_down().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_drains_alone_is_done_when_nobody_comes_and_a_virtual_machine_at_its_deadline() {
    let (store, ground, dir) = (store(), MemoryGround::default(), Dir::new("drain"));
    let manager = manager(&store);
    let driver = start(1, &ground, &dir, manager.clone(), Feed::new(store, &root()).unwrap()).await.unwrap();
    create(&*manager).await;
    let web = driver.attach(web()).await.unwrap().endpoint.id;
    let drained = driver.drain(web, Duration::from_secs(20)).await.unwrap();
    assert!(drained.is_complete() && drained.took >= Drain::QUIET, "{drained:?}");
    let machine = Attach::new("vm".parse().unwrap(), Source::Tap, "front");
    let machine = driver.attach(machine).await.unwrap().endpoint.id;
    let drained = driver.drain(machine, Duration::from_millis(300)).await.unwrap();
    assert!(drained.uncounted.is_some_and(|why| why.contains("virtual machine")));
    driver.detach(web).await.unwrap();
    let gone = driver.drain(web, Duration::ZERO).await;
    assert_eq!(gone, Err(DrainError::NotHere { endpoint: web }));
    driver.tear_down().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_just_started_does_not_take_knowing_nobody_for_having_told_everybody() {
    let (store, ground, dir) = (store(), MemoryGround::default(), Dir::new("fresh"));
    let manager = manager(&store);
    let feed = || Feed::new(Arc::clone(&store), &root()).unwrap();
    let (other, silent) = (Dir::new("silent"), MemoryGround::default());
    start(2, &silent, &other, manager.clone(), feed()).await.unwrap().stop().await; // it is in the catalogue, and does not answer
    let driver = start(1, &ground, &dir, manager.clone(), feed()).await.unwrap();
    create(&*manager).await;
    let web = driver.attach(web()).await.unwrap().endpoint.id;
    let drained = driver.drain(web, Duration::from_millis(500)).await.unwrap();
    assert!(!drained.is_complete() && drained.behind == [id(1)].into(), "{drained:?}");
    let drained = driver.drain(web, Duration::from_secs(20)).await.unwrap();
    assert!(drained.is_complete(), "nobody is there: {drained:?}");
    driver.tear_down().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_driver_that_starts_again_has_what_was_plugged_in_and_two_of_a_directory_do_not_run() {
    let (store, ground, dir) = (store(), MemoryGround::default(), Dir::new("again"));
    let manager = manager(&store);
    let feed = || Feed::new(Arc::clone(&store), &root()).unwrap();
    let driver = start(1, &ground, &dir, manager.clone(), feed()).await.unwrap();
    create(&*manager).await;
    let attached = driver.attach(web()).await.unwrap();
    let second = start(1, &ground, &dir, manager.clone(), feed()).await.unwrap_err();
    assert!(matches!(second, StartError::Running { .. }), "{second}");
    driver.stop().await;

    let driver = start(1, &ground, &dir, manager.clone(), feed()).await.unwrap();
    let plugged = driver.status().await.unwrap().plugged;
    assert_eq!(plugged.iter().map(|it| it.endpoint).collect::<Vec<_>>(), [attached.endpoint.id]);
    assert_eq!(driver.in_effect(attached.endpoint.id).await.unwrap(), Ok(()));
    let container = Place::Container("web".parse().unwrap());
    assert!(ground.0.place(&container).is_some());
}

/// Whoever restarts a service waits for the old one's end and no longer.
#[tokio::test(flavor = "multi_thread")]
async fn the_address_of_a_driver_that_has_stopped_is_free() {
    let (store, ground, dir) = (store(), MemoryGround::default(), Dir::new("free"));
    let manager = manager(&store);
    let feed = || Feed::new(Arc::clone(&store), &root()).unwrap();
    let mut address = "127.0.0.1:0".parse().unwrap();
    for _ in 0..200 {
        let builder = builder(1, &ground, &dir, manager.clone(), feed()).gossip(address);
        let driver = builder.start().await.unwrap();
        address = driver.address();
        driver.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_of_the_machine_is_a_node_by_the_managers_socket() {
    let (store, dir, other) = (store(), Dir::new("socket"), Dir::new("other"));
    let manager = manager(&store);
    let socket = dir.0.join("control.sock");
    let server = ControlServer::new(manager.clone()).with_feed(Arc::clone(&store), &root()).unwrap();
    let serving = server.bind(&socket).await.unwrap();
    create(&*manager).await;

    let (client, ground) = (ControlClient::new(&socket), MemoryGround::default());
    let follow = client.follow();
    let driver = start(2, &ground, &other, Arc::new(client), follow).await.unwrap();
    let attached = driver.attach(web()).await.unwrap();
    let endpoint = manager.endpoint(attached.endpoint.id).await.unwrap().unwrap();
    assert_eq!(endpoint.spec.node, id(2));
    driver.tear_down().await.unwrap();
    assert_eq!(manager.endpoint(attached.endpoint.id).await.unwrap(), None);
    serving.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_endpoint_that_is_plugged_in_twice_at_once_is_plugged_in() {
    let (store, ground, dir) = (store(), MemoryGround::default(), Dir::new("twice"));
    let manager = manager(&store);
    let driver = start(1, &ground, &dir, manager.clone(), Feed::new(store, &root()).unwrap()).await.unwrap();
    create(&*manager).await;
    for number in 0..20 {
        let id = EndpointId::from_bytes([100 + number; 16]);
        let attach = || driver.attach(Attach { id: Some(id), ..web() });
        let (one, other) = tokio::join!(attach(), attach());
        assert_eq!(one.unwrap().endpoint.id, other.unwrap().endpoint.id, "{number}");
        assert!(driver.detach(id).await.unwrap().is_some());
    }
    driver.tear_down().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plug_that_cannot_be_read_is_told_of_and_nothing_is_taken_away_before_the_catalogue_was_heard() {
    let (store, ground, dir) = (store(), MemoryGround::default(), Dir::new("unread"));
    let manager = manager(&store);
    let driver =
        start(1, &ground, &dir, manager.clone(), Feed::new(Arc::clone(&store), &root()).unwrap()).await.unwrap();
    create(&*manager).await;
    let attached = driver.attach(web()).await.unwrap();
    driver.stop().await;
    let held = || ground.0.places().into_iter().map(|(place, _)| place).collect::<Vec<_>>();
    let (before, file) = (held(), dir.0.join(format!("plugs/{}.json", attached.endpoint.id)));
    let whole = std::fs::read_to_string(&file).unwrap();

    // Of another release: it does not start, and all stays.
    std::fs::write(&file, whole.replace("\"version\":1", "\"version\":2")).unwrap();
    let feed = || Feed::new(Arc::clone(&store), &root()).unwrap();
    let refused = start(1, &ground, &dir, manager.clone(), feed()).await.unwrap_err();
    assert!(matches!(&refused, StartError::Plug { .. }) && refused.to_string().contains("version 2"), "{refused}");
    assert_eq!(held(), before);

    // Damaged: it starts, says so, and takes nothing away while it hears nothing of the catalogue.
    std::fs::write(&file, &whole[..20]).unwrap();
    let upkeep = UpkeepConfig { adopt_after: Duration::ZERO, ..UpkeepConfig::default() };
    let deaf = builder(1, &ground, &dir, manager.clone(), Silent).upkeep(upkeep).start().await.unwrap();
    let status = deaf.status().await.unwrap();
    assert!(matches!(&*status.unreadable, [told] if told.contains(file.to_str().unwrap())), "{:?}", status.unreadable);
    assert_eq!(deaf.metrics().await.unwrap().places.unreadable, 1);
    let told = manager.endpoint(attached.endpoint.id).await.unwrap().unwrap().condition;
    assert!(
        matches!(&told, Condition::Failed { reason } if reason.contains("detach it, and attach its container again")),
        "{told:?}"
    );
    for _ in 0..50 {
        assert_eq!(deaf.metrics().await.unwrap().places.rounds, 0);
    }
    assert_eq!(held(), before);
    deaf.stop().await;

    // Attached again, all is as before.
    let driver = start(1, &ground, &dir, manager.clone(), feed()).await.unwrap();
    driver.detach(attached.endpoint.id).await.unwrap();
    driver.attach(web()).await.unwrap();
    assert!(driver.status().await.unwrap().unreadable.is_empty());
    driver.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_plug_goes_once_the_catalogue_says_that_its_endpoint_is_gone_and_not_before() {
    let (store, ground, dir, other) =
        (store(), MemoryGround::default(), Dir::new("doubted"), Dir::new("doubted-socket"));
    let (manager, feed) = (manager(&store), || Feed::new(Arc::clone(&store), &root()).unwrap());
    let driver = start(1, &ground, &dir, manager.clone(), feed()).await.unwrap();
    create(&*manager).await;
    let (mut ids, socket) = (Vec::new(), other.0.join("control.sock"));
    for name in ["one", "other", "third"] {
        let attach = Attach::new(name.parse().unwrap(), Source::Path(format!("/run/netns/{name}").into()), "front");
        ids.push(driver.attach(attach).await.unwrap().endpoint.id);
    }
    driver.stop().await;
    let file = |id: EndpointId| dir.0.join(format!("plugs/{id}.json"));
    ids.iter().for_each(|id| std::fs::write(file(*id), "{").unwrap());
    manager.detach(ids[0], NOW).await.unwrap();

    // It hears the catalogue, and can ask nobody: all stay.
    let serve = || ControlServer::new(manager.clone()).bind(&socket);
    let (serving, gate) = (serve().await.unwrap(), Arc::new(Semaphore::new(0)));
    let catalogue = Gated(Arc::clone(&gate), feed());
    let driver = start(1, &ground, &dir, Arc::new(ControlClient::new(&socket)), catalogue).await.unwrap();
    let mut events = driver.events();
    serving.stop().await;
    gate.add_permits(1);
    manager.detach(ids[1], NOW).await.unwrap();
    create_one(&*manager, "heard").await;
    driver.attach(web()).await.unwrap_err();
    assert_eq!(driver.status().await.unwrap().unreadable.len(), 3);
    assert!(ids.iter().all(|id| file(*id).exists()));

    // Once it can, those go that were gone before it began or since, at the next that it hears; each is told of once.
    let serving = serve().await.unwrap();
    let (mut gone, mut number) = (BTreeSet::new(), 0);
    while gone.len() < 2 {
        match tokio::time::timeout(Duration::from_millis(100), events.recv()).await {
            Ok(Ok(DriverEvent::Withdrawn(id))) => assert!(gone.insert(id), "{id} is told of twice"),
            Ok(told) => drop(told.unwrap()),
            Err(_) => {
                number += 1;
                assert!(number < 200, "{gone:?}");
                create_one(&*manager, &format!("again-{number}")).await;
            }
        }
    }
    assert_eq!(gone, ids[..2].iter().copied().collect());
    assert_eq!(ids.iter().map(|id| file(*id).exists()).collect::<Vec<_>>(), [false, false, true]);
    assert_eq!(driver.metrics().await.unwrap().places.unreadable, 1);
    manager.detach(ids[2], NOW).await.unwrap();
    while !matches!(events.recv().await.unwrap(), DriverEvent::Withdrawn(id) if id == ids[2]) {}
    assert!(driver.status().await.unwrap().unreadable.is_empty() && !file(ids[2]).exists());
    driver.stop().await;
    serving.stop().await;
}

async fn create_one(control: &dyn Control, name: &str) {
    let id = NetworkId::from_bytes(std::array::from_fn(|at| name.as_bytes()[name.len() - 1 - at % name.len()]));
    control.create_network(id, NetworkSpec::overlay(name.parse().unwrap()), NOW).await.unwrap();
}

/// A catalogue that nobody hears before it is let through.
#[derive(Debug)]
struct Gated(Arc<Semaphore>, Feed);

#[async_trait::async_trait]
impl Follow for Gated {
    async fn next(&mut self) -> Result<Vec<overlay_node::CatalogueChange>, overlay_driver::control::FollowError> {
        let _through = self.0.acquire().await.unwrap();
        Follow::next(&mut self.1).await
    }

    fn unreadable(&self) -> std::collections::BTreeMap<String, String> {
        Follow::unreadable(&self.1)
    }
}

/// A catalogue that nobody can hear.
#[derive(Debug)]
struct Silent;

#[async_trait::async_trait]
impl Follow for Silent {
    async fn next(&mut self) -> Result<Vec<overlay_node::CatalogueChange>, overlay_driver::control::FollowError> {
        std::future::pending().await
    }

    fn unreadable(&self) -> std::collections::BTreeMap<String, String> {
        std::collections::BTreeMap::new()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_again_for_what_is_attached_and_is_refused_has_what_stood() {
    let (store, ground, dir) = (store(), MemoryGround::default(), Dir::new("stood"));
    let manager = manager(&store);
    let driver = start(1, &ground, &dir, manager.clone(), Feed::new(store, &root()).unwrap()).await.unwrap();
    create(&*manager).await;
    let back = NetworkSpec { attachable: true, ..NetworkSpec::overlay("back".parse().unwrap()) };
    manager.create_network(NetworkId::from_bytes([10; 16]), back, NOW).await.unwrap();
    let id = EndpointId::from_bytes([100; 16]);
    let again = |interface: &str| Attach { id: Some(id), interface: Some(interface.parse().unwrap()), ..web() };
    driver.attach(again("eth0")).await.unwrap();
    driver.attach(Attach { network: "back".into(), ..web() }).await.unwrap();
    let before = driver.status().await.unwrap().plugged;
    assert_eq!(before.iter().map(|it| it.interface.as_str()).collect::<BTreeSet<_>>(), ["eth0", "eth1"].into());
    // One that is taken is refused before it is written down, one that is reserved after.
    for interface in ["eth1", "gw0"] {
        let refused = driver.attach(again(interface)).await.unwrap_err();
        assert!(matches!(refused, AttachError::Plug(_)), "{refused}");
        assert_eq!(driver.status().await.unwrap().plugged, before, "{interface}");
        assert!(manager.endpoint(id).await.unwrap().is_some_and(|it| it.condition != Condition::Removing));
        assert_eq!(driver.in_effect(id).await.unwrap(), Ok(()));
        let plug = driver.plug(id, "web".parse().unwrap(), web().source, Some(interface.parse().unwrap())).await;
        assert!(plug.is_err());
        assert_eq!(driver.status().await.unwrap().plugged, before, "{interface}");
    }
    // It may be called otherwise.
    assert_eq!(driver.attach(again("eth7")).await.unwrap().interface.as_str(), "eth7");
    driver.stop().await;
}
