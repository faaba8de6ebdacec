//! What users wait for, on hosts of namespaces in this machine's kernel: `node/attach-warm` (until a container that is being attached on
//! another host has a name that resolves, and answers a ping), `node/attach-cold` (a network is created and two containers are attached,
//! until one answers the other), `node/detach-gone` (until a name is gone on the other host), `node/converge-40x3` (120 containers on
//! three hosts, from nothing until all answer all), `node/link-cut-gone` and `node/link-back` (until a name is gone whose host's cable was
//! cut; until it is back and answers after the cable was mended, a minute later). Needs root; without, no figure. The yardstick is what `ip netns` takes to make the
//! namespace of one container, which is no part of the figures.

#![expect(clippy::disallowed_methods, reason = "a benchmark measures time, and waits")]

use std::error::Error;
use std::io;
use std::net::IpAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use overlay_bench::{Bench, Pace};
use overlay_core::{ErrorKind, NetworkId};
use overlay_driver::testing::{Container, Hosts, date, ping, ping_all, resolve};
use overlay_driver::{Attach, Attached};
use overlay_kernel::Namespace;
use overlay_node::{Control as _, NetworkSpec};
use tokio::runtime::{Builder, Runtime};

use crate::firewall::{Outcome, must};

const PATIENCE: Duration = Duration::from_millis(500);
/// How long one ping is waited for: one that was lost is no measure of when the next would be answered.
const ANSWER: Duration = Duration::from_millis(20);
const LIMIT: Duration = Duration::from_secs(30);
const YARDSTICK: &str = "ip netns add, del";

pub(crate) fn run(bench: &mut Bench<'_>) -> io::Result<()> {
    if !["attach", "detach", "converge", "link"].iter().any(|what| bench.wants(&format!("node/{what}"))) {
        return Ok(());
    }
    match Namespace::create() {
        Err(error) if error.kind() == ErrorKind::Permission => {
            eprintln!("node: no figure of the kernel without root: {error}");
            return Ok(());
        }
        other => drop(other.map_err(io::Error::other)?),
    }
    let mut town = must(Town::new(2));
    must(town.settle_in());
    bench
        .figure("node/attach-warm", "ms")
        .reading(|| must(town.attach_warm()))
        .yardstick_reading(YARDSTICK, netns)
        .report()?;
    bench
        .figure("node/detach-gone", "ms")
        .reading(|| must(town.detach_gone()))
        .yardstick_reading(YARDSTICK, netns)
        .report()?;
    bench
        .figure("node/attach-cold", "ms")
        .reading(|| must(town.attach_cold()))
        .yardstick_reading(YARDSTICK, netns)
        .report()?;
    must(town.end());
    link(bench)?;
    if bench.wants("node/converge-40x3") {
        let each = if bench.pace() == Pace::Full { 40 } else { 4 };
        let name = if each == 40 { "node/converge-40x3" } else { "node/converge-40x3-of-4" };
        let took = must(converge(each));
        bench.figure(name, "s").value(took.as_secs_f64()).report()?;
    }
    Ok(())
}

/// A host's cable is cut, for a minute, and mended.
fn link(bench: &mut Bench<'_>) -> io::Result<()> {
    if !bench.wants("node/link") {
        return Ok(());
    }
    let cut = if bench.pace() == Pace::Full { Duration::from_secs(60) } else { Duration::from_secs(6) };
    let (gone, back) = must(Town::new(3).and_then(|town| town.cut(cut)));
    bench.figure("node/link-cut-gone", "s").value(gone.as_secs_f64()).report()?;
    bench.figure("node/link-back", "s").value(back.as_secs_f64()).report()
}

/// Hosts, and how many containers there were.
struct Town {
    hosts: Hosts,
    runtime: Runtime,
    asking: Option<Container>,
    count: usize,
}

impl Town {
    fn new(count: usize) -> Outcome<Self> {
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let hosts = runtime.block_on(Hosts::start(count, format!("/run/overlay-bench-{}", std::process::id())))?;
        let town = Self { hosts, runtime, asking: None, count: 0 };
        until(|| Ok((0..count).all(|host| town.members(host).is_ok_and(|members| members == count))))?;
        Ok(town)
    }

    fn members(&self, host: usize) -> Outcome<usize> {
        Ok(self.runtime.block_on(self.hosts.driver(host)?.status())?.members.len())
    }

    /// A network with a container on each host, so that what follows finds it there.
    fn settle_in(&mut self) -> Outcome<()> {
        self.runtime.block_on(self.hosts.network("warm"))?;
        let (asking, _) = self.runtime.block_on(self.hosts.run(0, "asking", "warm"))?;
        self.runtime.block_on(self.hosts.run(1, "asked", "warm"))?;
        until(|| reaches(&asking, "asked"))?;
        self.asking = Some(asking);
        Ok(())
    }

    fn container(&mut self) -> Outcome<Container> {
        self.count += 1;
        Ok(self.hosts.lab.container(&format!("c{}", self.count))?)
    }

    /// Attaches without waiting for more than that it is asked for: others see it when they do.
    fn attach(&self, host: usize, container: &Container, network: &str) -> Outcome<Attached> {
        let attach = Attach::new(container.name.clone(), container.source.clone(), network);
        Ok(self.runtime.block_on(self.hosts.driver(host)?.attach(attach))?)
    }

    fn leave(&self, host: usize, container: &Container, attached: &Attached) -> Outcome<()> {
        self.runtime.block_on(self.hosts.driver(host)?.detach(attached.endpoint.id))?;
        Ok(self.hosts.lab.end(&container.name)?)
    }

    fn attach_warm(&mut self) -> Outcome<f64> {
        let container = self.container()?;
        let asking = self.asking.as_ref().ok_or("nobody asks")?;
        let begun = Instant::now();
        let attached = self.attach(1, &container, "warm")?;
        until(|| reaches(asking, container.name.as_str()))?;
        let took = begun.elapsed();
        self.leave(1, &container, &attached)?;
        Ok(took.as_secs_f64() * 1e3)
    }

    fn detach_gone(&mut self) -> Outcome<f64> {
        let container = self.container()?;
        let attached = self.attach(1, &container, "warm")?;
        let asking = self.asking.as_ref().ok_or("nobody asks")?;
        until(|| reaches(asking, container.name.as_str()))?;
        let driver = self.hosts.driver(1)?;
        let id = attached.endpoint.id;
        let begun = Instant::now();
        let detached = self.runtime.spawn(async move { driver.detach(id).await });
        until(|| Ok(resolve(&asking.namespace, container.name.as_str(), PATIENCE)?.is_empty()))?;
        let took = begun.elapsed();
        self.runtime.block_on(detached)??;
        self.hosts.lab.end(&container.name)?;
        Ok(took.as_secs_f64() * 1e3)
    }

    fn attach_cold(&mut self) -> Outcome<f64> {
        let (here, there) = (self.container()?, self.container()?);
        let name = format!("cold-{}", self.count);
        let begun = Instant::now();
        self.runtime.block_on(self.hosts.network(&name))?;
        let at_once = |host: usize, container: &Container| {
            let attach = Attach::new(container.name.clone(), container.source.clone(), name.as_str());
            let driver = self.hosts.driver(host)?;
            Outcome::Ok(self.runtime.spawn(async move { driver.attach(attach).await }))
        };
        let (one, other) = (at_once(0, &here)?, at_once(1, &there)?);
        let (one, other) = (self.runtime.block_on(one)??, self.runtime.block_on(other)??);
        until(|| reaches(&here, there.name.as_str()))?;
        let took = begun.elapsed();
        self.leave(0, &here, &one)?;
        self.leave(1, &there, &other)?;
        self.runtime.block_on(self.hosts.manager.remove_network(&name.as_str().into(), date()))?;
        Ok(took.as_secs_f64() * 1e3)
    }

    /// How long it takes until a name is gone whose host's cable was cut, and until it is back and answers once the cable is mended.
    fn cut(mut self, long: Duration) -> Outcome<(Duration, Duration)> {
        self.settle_in()?;
        let asking = self.asking.take().ok_or("nobody asks")?;
        let begun = Instant::now();
        self.hosts.lab.cut(1)?;
        until(|| Ok(resolve(&asking.namespace, "asked", PATIENCE)?.is_empty()))?;
        let gone = begun.elapsed();
        std::thread::sleep(long.saturating_sub(gone));
        let begun = Instant::now();
        self.hosts.lab.mend(1)?;
        until(|| reaches(&asking, "asked"))?;
        let back = begun.elapsed();
        self.end()?;
        Ok((gone, back))
    }

    fn end(self) -> Outcome<()> {
        Ok(self.runtime.block_on(self.hosts.tear_down())?)
    }
}

/// So many containers on each of three hosts, attached as fast as three runtimes ask for it.
fn converge(each: usize) -> Outcome<Duration> {
    let _room = Neighbours::make_room();
    let town = Town::new(3)?;
    let containers: Vec<Vec<Container>> = (0..3)
        .map(|host| (0..each).map(|number| Ok(town.hosts.lab.container(&format!("c{host}-{number}"))?)).collect())
        .collect::<Outcome<_>>()?;
    let begun = Instant::now();
    let spec = NetworkSpec { attachable: true, ..NetworkSpec::overlay("all".parse()?) };
    let id = NetworkId::from_bytes([77; 16]);
    town.runtime.block_on(town.hosts.manager.create_network(id, spec, date()))?;
    let mut asked = Vec::new();
    for (host, containers) in containers.iter().enumerate() {
        for container in containers {
            let driver = town.hosts.driver(host)?;
            let attach = Attach::new(container.name.clone(), container.source.clone(), "all");
            asked.push(town.runtime.spawn(async move { driver.attach(attach).await }));
        }
    }
    let mut addresses = Vec::new();
    for attached in asked {
        let attached = town.runtime.block_on(attached)??;
        addresses.extend(attached.endpoint.addresses.iter().map(|net| net.addr()));
    }
    let attached = begun.elapsed();
    for container in containers.iter().flatten() {
        all_answer(container, &addresses)?;
    }
    let took = begun.elapsed();
    eprintln!("node: {} containers attached after {attached:?}, all answer all after {took:?}", 3 * each);
    town.end()?;
    Ok(took)
}

/// All namespaces of a machine share one table of neighbours, of 1,024 entries unless somebody says otherwise; all answers of 120 containers
/// to all make 14,280. Says otherwise for as long as it lives, where it may.
struct Neighbours(Option<String>);

const MOST_NEIGHBOURS: &str = "/proc/sys/net/ipv4/neigh/default/gc_thresh3";

impl Neighbours {
    fn make_room() -> Self {
        let before = std::fs::read_to_string(MOST_NEIGHBOURS).ok();
        let _ = std::fs::write(MOST_NEIGHBOURS, "65536");
        Self(before)
    }
}

impl Drop for Neighbours {
    fn drop(&mut self) {
        let _ = self.0.as_ref().map(|before| std::fs::write(MOST_NEIGHBOURS, before));
    }
}

/// Pings all at once, and again those that have not answered.
fn all_answer(from: &Container, addresses: &[IpAddr]) -> Outcome<()> {
    let mut left = addresses.to_vec();
    until(|| {
        left = ping_all(&from.namespace, &left, PATIENCE)?;
        Ok(left.is_empty())
    })
}

fn reaches(from: &Container, name: &str) -> Outcome<bool> {
    let Ok(addresses) = resolve(&from.namespace, name, PATIENCE) else { return Ok(false) };
    let Some(address) = addresses.first() else { return Ok(false) };
    Ok(ping(&from.namespace, *address, ANSWER)?.is_some())
}

fn until(mut holds: impl FnMut() -> Outcome<bool>) -> Outcome<()> {
    let begun = Instant::now();
    while !holds()? {
        if begun.elapsed() > LIMIT {
            return Err("it never came about".into());
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    Ok(())
}

/// In milliseconds.
fn netns() -> f64 {
    let begun = Instant::now();
    for verb in ["add", "del"] {
        let status = Command::new("ip").args(["netns", verb, "overlay-bench"]).status();
        must(status.map_err(Box::<dyn Error + Send + Sync>::from).map(drop));
    }
    begun.elapsed().as_secs_f64() * 1e3
}
