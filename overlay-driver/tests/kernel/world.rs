//! Hosts with a driver each, and a runtime to wait on.

use std::future::Future;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use overlay_core::NetworkId;
use overlay_crypto::pki::JoinToken;
use overlay_driver::testing::{Carried, Container, Hosts, HostsError, date, ping, resolve};
use overlay_driver::{Attached, Driver, Status};
use overlay_kernel::Namespace;
use overlay_node::{Control, Network, NetworkSpec};
use tokio::runtime::{Builder, Runtime};

pub(crate) struct World {
    hosts: Option<Hosts>,
    runtime: Runtime,
    count: usize,
}

/// How long a name may take.
const PATIENCE: Duration = Duration::from_secs(1);

impl World {
    /// So many hosts that have found one another.
    pub(crate) fn new(count: usize) -> Self {
        Self::carried(count, Carried::InKernel)
    }

    /// So many hosts, whose packets are carried so.
    pub(crate) fn carried(count: usize, carried: Carried) -> Self {
        let (dir, runtime) = prepared();
        let hosts = runtime.block_on(Hosts::start_with(count, dir, carried)).unwrap();
        let world = Self { hosts: Some(hosts), runtime, count };
        world.until(Duration::from_secs(15), |world| {
            (0..count).all(|number| world.status(number).members.len() == count)
        });
        world
    }

    /// So many hosts, of which the first has founded a cluster; the others join it by tokens.
    pub(crate) fn founded(count: usize) -> Self {
        let (dir, runtime) = prepared();
        let hosts = runtime.block_on(Hosts::found(count, dir)).unwrap();
        Self { hosts: Some(hosts), runtime, count }
    }

    /// Has a host join, and start.
    pub(crate) fn join(&mut self, host: usize, token: &JoinToken) -> Result<(), HostsError> {
        self.runtime.block_on(self.hosts.as_mut().unwrap().join(host, token))
    }

    pub(crate) fn hosts(&self) -> &Hosts {
        self.hosts.as_ref().unwrap()
    }

    pub(crate) fn hosts_mut(&mut self) -> &mut Hosts {
        self.hosts.as_mut().unwrap()
    }

    pub(crate) fn start(&mut self, number: usize) {
        self.runtime.block_on(self.hosts.as_mut().unwrap().start_host(number)).unwrap();
    }

    pub(crate) fn driver(&self, number: usize) -> Driver {
        self.hosts().driver(number).unwrap()
    }

    pub(crate) fn status(&self, number: usize) -> Status {
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

    fn states(&self) -> Vec<Status> {
        let running = (0..self.count).filter_map(|number| self.hosts().driver(number).ok());
        running.map(|driver| self.wait(driver.status()).unwrap()).collect()
    }

    pub(crate) fn manager(&self) -> &dyn Control {
        &*self.hosts().manager
    }

    pub(crate) fn network(&self, spec: NetworkSpec) -> Network {
        self.wait(self.manager().create_network(NetworkId::generate(random), spec, date())).unwrap()
    }

    /// A container that is attached to a network, on a host.
    pub(crate) fn run(&self, host: usize, name: &str, network: &str) -> (Container, Attached) {
        self.wait(self.hosts().run(host, name, network)).unwrap()
    }

    pub(crate) fn attach(&self, host: usize, container: &Container, network: &str) -> Attached {
        self.wait(self.hosts().attach(host, container, network)).unwrap()
    }

    /// A network's sandbox on a host.
    pub(crate) fn sandbox(&self, host: usize, network: NetworkId) -> Namespace {
        Namespace::open(self.hosts().places(host).unwrap().sandbox(network).unwrap()).unwrap()
    }

    pub(crate) fn reaches(&self, from: &Container, to: &str) -> bool {
        let Ok(addresses) = resolve(&from.namespace, to, PATIENCE) else { return false };
        addresses.first().is_some_and(|address| pings(from, *address))
    }
}

fn prepared() -> (String, Runtime) {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let dir = format!("/run/overlay-driver-test-{}-{number}", std::process::id());
    (dir, Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap())
}

pub(crate) fn pings(from: &Container, to: IpAddr) -> bool {
    matches!(ping(&from.namespace, to, Duration::from_millis(300)), Ok(Some(_)))
}

pub(crate) fn attachable(name: &str) -> NetworkSpec {
    NetworkSpec { attachable: true, ..NetworkSpec::overlay(name.parse().unwrap()) }
}

fn random(bytes: &mut [u8]) {
    use std::io::Read;
    std::fs::File::open("/dev/urandom").unwrap().read_exact(bytes).unwrap();
}

impl Drop for World {
    fn drop(&mut self) {
        let Some(hosts) = self.hosts.take() else { return };
        let torn = self.runtime.block_on(hosts.tear_down());
        assert!(std::thread::panicking() || torn.is_ok(), "{torn:?}");
    }
}
