//! Hosts with a driver each, and one manager's catalogue.

use std::future::Future;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use overlay_core::{MemoryStore, NetworkId, NodeId, Prefix, Store, UnixTime};
use overlay_driver::testing::{Container, Lab, ping, resolve};
use overlay_driver::{Attach, Attached, Driver, KernelPlaces};
use overlay_kernel::Namespace;
use overlay_node::{Control, Feed, Manager, Network, NetworkSpec};
use tokio::runtime::Runtime;

pub(crate) struct World {
    pub(crate) lab: Lab,
    pub(crate) drivers: Vec<Option<Driver>>,
    pub(crate) manager: Arc<Manager>,
    store: Arc<dyn Store>,
    pub(crate) runtime: Runtime,
}

pub(crate) const PATIENCE: Duration = Duration::from_secs(1);

impl World {
    /// So many hosts that have found one another.
    pub(crate) fn new(hosts: usize) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = PathBuf::from(format!("/run/overlay-driver-test-{}-{number}", std::process::id()));
        let lab = Lab::new(hosts, &dir).unwrap();
        let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
        let manager = Manager::new(Arc::clone(&store), &root(), id(0), [9; 32]).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let drivers = (0..hosts).map(|_| None).collect();
        let mut world = Self { lab, drivers, manager: Arc::new(manager), store, runtime };
        (0..hosts).for_each(|number| world.start(number));
        world.until(Duration::from_secs(10), |world| {
            (0..hosts).all(|number| world.status(number).members.len() == hosts)
        });
        world
    }

    pub(crate) fn start(&mut self, number: usize) {
        let places = self.places(number);
        let feed = Feed::new(Arc::clone(&self.store), &root()).unwrap();
        let control: Arc<dyn Control> = self.manager.clone();
        let mut builder = Driver::builder(id(number), places, control, feed)
            .name(format!("host-{}", number + 1).parse().unwrap())
            .gossip((self.lab.address(number), 7946).into())
            .dir(self.lab.dir(number));
        if number == 0 {
            builder = builder.manager(Arc::clone(&self.manager));
        }
        let driver = self.runtime.block_on(builder.start()).unwrap();
        let others: Vec<_> = self.drivers.iter().flatten().map(Driver::address).collect();
        self.runtime.block_on(driver.join(others)).unwrap();
        self.drivers[number] = Some(driver);
    }

    pub(crate) fn driver(&self, number: usize) -> Driver {
        self.drivers[number].clone().unwrap()
    }

    pub(crate) fn status(&self, number: usize) -> overlay_driver::Status {
        self.wait(self.driver(number).status()).unwrap()
    }

    pub(crate) fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// Waits until something holds, and gives how long that took.
    #[track_caller]
    pub(crate) fn until(&self, patience: Duration, holds: impl Fn(&Self) -> bool) -> Duration {
        let begun = Instant::now();
        while !holds(self) {
            assert!(begun.elapsed() < patience, "not within {patience:?}: {:#?}", self.states());
            std::thread::sleep(Duration::from_millis(2));
        }
        begun.elapsed()
    }

    pub(crate) fn states(&self) -> Vec<overlay_driver::Status> {
        let running = (0..self.drivers.len()).filter(|number| self.drivers[*number].is_some());
        running.map(|number| self.status(number)).collect()
    }

    pub(crate) fn network(&self, spec: NetworkSpec) -> Network {
        self.wait(self.manager.create_network(NetworkId::generate(random), spec, now())).unwrap()
    }

    /// A container that is attached to a network, on a host.
    pub(crate) fn run(&self, host: usize, name: &str, network: &str) -> (Container, Attached) {
        let container = self.lab.container(name).unwrap();
        let attached = self.attach(host, &container, network);
        (container, attached)
    }

    pub(crate) fn attach(&self, host: usize, container: &Container, network: &str) -> Attached {
        let attach = Attach::new(container.name.clone(), container.source.clone(), network);
        self.wait(self.driver(host).attach(attach)).unwrap()
    }

    /// A network's sandbox on a host.
    pub(crate) fn sandbox(&self, host: usize, network: NetworkId) -> Namespace {
        Namespace::open(self.places(host).sandbox(network).unwrap()).unwrap()
    }

    fn places(&self, number: usize) -> KernelPlaces {
        let host = self.lab.host(number).try_clone().unwrap();
        KernelPlaces::new("test".parse().unwrap(), id(number), host, &self.lab.dir(number)).unwrap()
    }

    pub(crate) fn reaches(&self, from: &Container, to: &str) -> bool {
        let Ok(addresses) = resolve(&from.namespace, to, PATIENCE) else { return false };
        addresses.first().is_some_and(|address| pings(from, *address))
    }
}

pub(crate) fn pings(from: &Container, to: IpAddr) -> bool {
    matches!(ping(&from.namespace, to, Duration::from_millis(300)), Ok(Some(_)))
}

pub(crate) fn attachable(name: &str) -> NetworkSpec {
    NetworkSpec { attachable: true, ..NetworkSpec::overlay(name.parse().unwrap()) }
}

pub(crate) fn id(number: usize) -> NodeId {
    NodeId::from_bytes([number as u8 + 1; 16])
}

fn root() -> Prefix {
    Prefix::new("test/").unwrap()
}

pub(crate) fn now() -> UnixTime {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    UnixTime::from_millis(since.as_millis() as u64)
}

pub(crate) fn random(bytes: &mut [u8]) {
    use std::io::Read;
    std::fs::File::open("/dev/urandom").unwrap().read_exact(bytes).unwrap();
}

impl Drop for World {
    fn drop(&mut self) {
        for driver in self.drivers.iter_mut().filter_map(Option::take) {
            let torn = self.runtime.block_on(driver.tear_down());
            assert!(std::thread::panicking() || torn.is_ok(), "{torn:?}");
        }
    }
}
