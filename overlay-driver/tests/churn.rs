//! Drains where something else changes all the time, and a node is slow. Places are in memory; two nodes need two addresses, and a namespace
//! that has them.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail loudly too")]

use std::panic::UnwindSafe;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use overlay_core::testing::{Kernel, kernel_test};
use overlay_core::{
    EndpointId, MemoryStore, NetworkId, NodeId, Phase, Plan, Prefix, ReconcileError, ServiceId, Store, Table, UnixTime,
};
use overlay_dns::Health;
use overlay_driver::testing::Altered;
use overlay_driver::{Attach, DrainError, Driver, MemoryGround, Source};
use overlay_kernel::Namespace;
use overlay_kernel::testing::judge;
use overlay_lb::Condition;
use overlay_node::{Control, Feed, Manager, NetworkSpec, Place, PlaceTables, ServiceSpec};

const NOW: UnixTime = UnixTime::EPOCH;
const NETWORK: NetworkId = NetworkId::from_bytes([9; 16]);
const SERVICE: ServiceId = ServiceId::from_bytes([7; 16]);
const TICK: Duration = Duration::from_millis(50);
const PATIENCE: Duration = Duration::from_secs(20);

/// How long it takes whoever carries something out at the places of a node's containers.
#[derive(Clone, Default)]
struct Gate(Arc<(Mutex<Pass>, Condvar)>);

#[derive(Clone, Copy, Default)]
enum Pass {
    #[default]
    AtOnce,
    After(Duration),
    Never,
}

impl Gate {
    fn set(&self, pass: Pass) {
        *self.0.0.lock().unwrap() = pass;
        self.0.1.notify_all();
    }

    fn pass(&self) {
        let mut pass = self.0.0.lock().unwrap();
        loop {
            match *pass {
                Pass::AtOnce => return,
                Pass::After(pause) => {
                    let (next, waited) = self.0.1.wait_timeout(pass, pause).unwrap();
                    if waited.timed_out() {
                        return;
                    }
                    pass = next;
                }
                Pass::Never => pass = self.0.1.wait(pass).unwrap(),
            }
        }
    }
}

/// A table behind a gate.
struct Gated<D>(Box<dyn Table<D>>, Gate);

impl<D> Table<D> for Gated<D> {
    fn plan(&mut self, desired: &D) -> Result<Plan, ReconcileError> {
        self.0.plan(desired)
    }

    fn run(&mut self, plan: &Plan, phase: Phase) -> Result<(), ReconcileError> {
        if plan.steps().any(|(of, _)| of == phase) {
            self.1.pass();
        }
        self.0.run(plan, phase)
    }
}

/// Places in memory whose balancers are behind a gate. It is noted which are opened.
fn gated(places: MemoryGround, gate: Gate, opened: Arc<Mutex<Vec<Place>>>) -> Altered<MemoryGround> {
    Altered::new(places).with_tables(move |place, tables| {
        opened.lock().unwrap().push(place.clone());
        PlaceTables { lb: Box::new(Gated(tables.lb, gate.clone())), ..tables }
    })
}

/// A node that serves by two replicas, of which one is healthy now and suspect then, and one with a client, which is slow.
struct World {
    dir: PathBuf,
    server: Driver,
    client: Driver,
    slow: Altered<MemoryGround>,
    gate: Gate,
    opened: Arc<Mutex<Vec<Place>>>,
    replicas: [EndpointId; 2],
    asks: EndpointId,
}

fn in_a_namespace<T: Future<Output = ()>>(name: &'static str, test: impl FnOnce() -> T + Send + UnwindSafe) {
    kernel_test(Kernel::Host, name, || {
        let home = Namespace::create().unwrap();
        judge(&home, "ip", &["link", "set", "lo", "up"]);
        judge(&home, "ip", &["address", "add", "127.0.0.2/8", "dev", "lo"]);
        let runs = || tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(test());
        home.run(runs).unwrap();
    });
}

fn id(number: u8) -> NodeId {
    NodeId::from_bytes([number; 16])
}

fn container(name: &str) -> Attach {
    Attach::new(name.parse().unwrap(), Source::Path(format!("/run/netns/{name}").into()), "front")
}

fn replica(name: &str) -> Attach {
    Attach { service: Some(SERVICE), ..container(name) }
}

impl World {
    async fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("overlay-churn-{}-{name}", std::process::id()));
        let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
        let root = Prefix::new("test/").unwrap();
        let manager = Arc::new(Manager::new(Arc::clone(&store), &root, id(1), [7; 32]).unwrap());
        let front = NetworkSpec { attachable: true, ..NetworkSpec::overlay("front".parse().unwrap()) };
        manager.create_network(NETWORK, front, NOW).await.unwrap();
        let spec = ServiceSpec::new("web".parse().unwrap(), [NETWORK]);
        manager.create_service(SERVICE, spec, NOW).await.unwrap();
        let (gate, opened) = (Gate::default(), Arc::default());
        let slow = gated(MemoryGround::default(), gate.clone(), Arc::clone(&opened));
        let feed = || Feed::new(Arc::clone(&store), &root).unwrap();
        let builder = Driver::builder(id(1), MemoryGround::default(), manager.clone(), feed());
        let builder = builder.name("server".parse().unwrap()).gossip("127.0.0.1:0".parse().unwrap());
        let server = builder.dir(dir.join("server")).start().await.unwrap();
        let builder = Driver::builder(id(2), slow.clone(), manager.clone(), feed());
        let builder = builder.name("client".parse().unwrap()).gossip("127.0.0.2:0".parse().unwrap());
        let client = builder.dir(dir.join("client")).start().await.unwrap();
        client.join(vec![server.address()]).await.unwrap();
        let mut replicas = [EndpointId::from_bytes([0; 16]); 2];
        for (id, name) in replicas.iter_mut().zip(["web-1", "web-2"]) {
            *id = server.attach(replica(name)).await.unwrap().endpoint.id;
        }
        let asks = client.attach(container("client")).await.unwrap().endpoint.id;
        let world = Self { dir, server, client, slow, gate, opened, replicas, asks };
        world.until(|world| replicas.iter().all(|replica| world.leads_to(*replica))).await;
        world
    }

    fn conditions(&self) -> Vec<(EndpointId, Condition)> {
        let place = self.slow.ground().0.place(&Place::Container("client".parse().unwrap()));
        let services = place.map(|place| place.lb.state().services).unwrap_or_default();
        let replicas = services.values().flat_map(|service| &service.replicas);
        replicas.map(|(id, replica)| (*id, replica.condition)).collect()
    }

    async fn until(&self, is: impl Fn(&Self) -> bool) {
        let waits = async {
            while !is(self) {
                tokio::time::sleep(TICK).await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, waits).await;
        assert!(waited.is_ok(), "{:?}", self.conditions());
    }

    /// How often the client's place was opened.
    fn opened(&self) -> usize {
        let client = Place::Container("client".parse().unwrap());
        self.opened.lock().unwrap().iter().filter(|place| **place == client).count()
    }

    /// Whether the client is led to a replica.
    fn leads_to(&self, replica: EndpointId) -> bool {
        self.conditions().contains(&(replica, Condition::Active))
    }

    /// Whether it is still led to the first.
    fn leads_there(&self) -> bool {
        self.leads_to(self.replicas[0])
    }

    /// The second replica is suspect, and healthy again, for as long as something else takes.
    async fn while_it_changes<T>(&self, other: impl Future<Output = T>) -> T {
        let changes = async {
            for health in [Health::Suspect, Health::Healthy].into_iter().cycle() {
                self.server.set_health(self.replicas[1], health).await.unwrap();
                tokio::time::sleep(TICK).await;
            }
        };
        tokio::select! {
            done = other => done,
            () = changes => unreachable!("it never ends"),
        }
    }

    async fn end(&self) {
        self.gate.set(Pass::AtOnce);
        self.client.clone().stop().await;
        self.server.clone().stop().await;
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.gate.set(Pass::AtOnce); // or a thread waits for ever
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

#[test]
fn a_node_that_is_at_something_else_for_long_does_not_say_that_it_has_heard_of_a_drain_because_of_that() {
    in_a_namespace("driver::a_node_that_is_at_something_else_for_long", || async {
        let world = World::new("never").await;
        let patience = Driver::ACTED_WITHIN - Duration::from_millis(500);
        world.gate.set(Pass::Never);
        let drained = world.while_it_changes(async {
            tokio::time::sleep(patience).await;
            world.server.drain(world.replicas[0], patience).await.unwrap()
        });
        let drained = drained.await;
        assert!(world.leads_there());
        assert_eq!(drained.behind, [id(2)].into(), "{drained}");
        // And whoever never comes to it keeps nobody waiting for ever.
        let drained = world.while_it_changes(world.server.drain(world.replicas[0], PATIENCE)).await.unwrap();
        assert!(drained.is_complete() && world.leads_there(), "{drained}");
        world.end().await;
    });
}

#[test]
fn a_slow_node_is_drained_from_while_something_changes_all_the_time_and_leads_nobody_there_when_that_is_done() {
    in_a_namespace("driver::a_slow_node_is_drained_from", || async {
        let world = World::new("slow").await;
        world.gate.set(Pass::After(4 * TICK));
        for _ in 0..3 {
            let drained = world.while_it_changes(world.server.drain(world.replicas[0], PATIENCE)).await.unwrap();
            assert!(drained.is_complete() && !world.leads_there(), "{drained}");
            world.server.set_health(world.replicas[0], Health::Healthy).await.unwrap();
            world.until(World::leads_there).await;
        }
        world.end().await;
    });
}

#[test]
fn who_waits_for_a_drain_is_told_that_the_driver_stops_also_where_its_places_have_not_come_to_an_end() {
    in_a_namespace("driver::who_waits_for_a_drain_is_told", || async {
        let world = World::new("stop").await;
        let here = world.client.attach(replica("web-3")).await.unwrap().endpoint.id;
        world.until(|world| world.leads_to(here)).await;
        world.gate.set(Pass::Never);
        let driver = world.client.clone();
        let drain = tokio::spawn(async move { driver.drain(here, PATIENCE).await });
        tokio::time::sleep(4 * TICK).await;
        let stopped = tokio::spawn(world.client.clone().stop());
        let ended = drain.await.unwrap();
        assert!(matches!(ended, Err(DrainError::Stopped(_))), "{ended:?}");
        assert!(!stopped.is_finished(), "what is at work has not ended yet");
        world.gate.set(Pass::AtOnce);
        stopped.await.unwrap();
        world.end().await;
    });
}

#[test]
fn a_container_that_is_started_anew_while_something_is_done_in_its_former_namespace_is_in_effect_in_the_new_one_alone()
{
    in_a_namespace("driver::a_container_that_is_started_anew_while_something_is_done", || async {
        let world = World::new("anew").await;
        world.gate.set(Pass::Never);
        world.server.set_health(world.replicas[1], Health::Draining).await.unwrap();
        tokio::time::sleep(4 * TICK).await;
        let opened = world.opened();
        let source = Source::Path("/run/netns/client-again".into());
        world.client.plug(world.asks, "client".parse().unwrap(), source, None).await.unwrap();
        let in_effect = tokio::spawn({
            let driver = world.client.clone();
            async move { driver.in_effect(world.asks).await }
        });
        tokio::time::sleep(TICK).await;
        assert!(!in_effect.is_finished() && world.opened() == opened, "the round goes on");
        world.gate.set(Pass::AtOnce);
        assert_eq!(in_effect.await.unwrap(), Ok(Ok(())));
        assert_eq!(world.opened(), opened + 1);
        assert!(world.leads_there());
        world.end().await;
    });
}
