//! `lb`, third part: `lb/drain-idle`, from the drain of an endpoint of a service in mode dnsrr, which has nothing to do, until it is done, on three
//! hosts of namespaces. The yardstick is what can be seen without waiting for anybody's word: from its being told to be draining until
//! the resolver of a container on another host does not name it any more. Needs root; without, no figure.

#![expect(clippy::disallowed_methods, reason = "a benchmark measures time, and waits")]

use std::io;
use std::time::{Duration, Instant};

use overlay_bench::Bench;
use overlay_core::{EndpointId, ErrorKind, ServiceId};
use overlay_dns::Health;
use overlay_driver::testing::{Container, Hosts, date, resolve};
use overlay_driver::{Attach, Driver};
use overlay_kernel::Namespace;
use overlay_node::{Control as _, EndpointMode, ServiceSpec};
use tokio::runtime::{Builder, Runtime};

use crate::firewall::{Outcome, must};

const HOSTS: usize = 3;
const PATIENCE: Duration = Duration::from_millis(500);
const LIMIT: Duration = Duration::from_secs(30);

pub(crate) fn run(bench: &mut Bench<'_>) -> io::Result<()> {
    if !bench.wants("lb/drain-idle") {
        return Ok(());
    }
    match Namespace::create() {
        Err(error) if error.kind() == ErrorKind::Permission => {
            eprintln!("lb: no figure of hosts without root: {error}");
            return Ok(());
        }
        other => drop(other.map_err(io::Error::other)?),
    }
    let town = must(Town::new());
    bench
        .figure("lb/drain-idle", "ms")
        .reading(|| must(town.drain()))
        .yardstick_reading("not named elsewhere", || must(town.unnamed()))
        .report()?;
    must(town.end());
    Ok(())
}

/// Hosts, a container that asks on the first, and one that serves on the second.
struct Town {
    hosts: Hosts,
    runtime: Runtime,
    asking: Container,
    serving: EndpointId,
    driver: Driver,
}

impl Town {
    fn new() -> Outcome<Self> {
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let dir = format!("/run/overlay-bench-drain-{}", std::process::id());
        let hosts = runtime.block_on(Hosts::start(HOSTS, dir))?;
        let network = runtime.block_on(hosts.network("front"))?;
        let spec = ServiceSpec { mode: EndpointMode::RoundRobin, ..ServiceSpec::new("web".parse()?, [network.id]) };
        let service = runtime.block_on(hosts.manager.create_service(ServiceId::from_bytes([7; 16]), spec, date()))?;
        let (asking, _) = runtime.block_on(hosts.run(0, "asking", "front"))?;
        runtime.block_on(hosts.run(2, "third", "front"))?;
        let container = hosts.lab.container("serving")?;
        let attach = Attach::new(container.name, container.source, "front");
        let driver = hosts.driver(1)?;
        let attached = runtime.block_on(driver.attach(Attach { service: Some(service.id), ..attach }))?;
        let town = Self { serving: attached.endpoint.id, hosts, runtime, asking, driver };
        town.until_named(true)?;
        Ok(town)
    }

    /// In milliseconds.
    fn drain(&self) -> Outcome<f64> {
        let begun = Instant::now();
        let drained = self.runtime.block_on(self.driver.drain(self.serving, LIMIT))?;
        let took = begun.elapsed();
        if !drained.is_complete() {
            return Err(drained.to_string().into());
        }
        self.resume()?;
        Ok(took.as_secs_f64() * 1e3)
    }

    /// In milliseconds.
    fn unnamed(&self) -> Outcome<f64> {
        let begun = Instant::now();
        self.runtime.block_on(self.driver.set_health(self.serving, Health::Draining))?;
        self.until_named(false)?;
        let took = begun.elapsed();
        self.resume()?;
        Ok(took.as_secs_f64() * 1e3)
    }

    /// And lets all come to rest.
    fn resume(&self) -> Outcome<()> {
        self.runtime.block_on(self.driver.set_health(self.serving, Health::Healthy))?;
        self.until_named(true)?;
        std::thread::sleep(PATIENCE);
        Ok(())
    }

    fn until_named(&self, named: bool) -> Outcome<()> {
        let begun = Instant::now();
        while resolve(&self.asking.namespace, "web", PATIENCE)?.is_empty() == named {
            if begun.elapsed() > LIMIT {
                return Err("it never came about".into());
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        Ok(())
    }

    fn end(self) -> Outcome<()> {
        Ok(self.runtime.block_on(self.hosts.tear_down())?)
    }
}
