//! `node/agent-rss`: resident memory of a process that runs a node which has joined a cluster and holds nothing;
//! `node/agent-rss-10k`: of one with a container on each of ten networks, who knows of 10,000 endpoints of the [town](crate::node_town) on
//! another node. The process is this program again: a whole driver, with its sockets, its resolvers, its places in the kernel, and the
//! catalogue over a control socket. The other node is a driver in this process, on the same wire, which tells of its endpoints by gossip.
//! Without root both have their places in memory, and the figures' names say so.

#![expect(clippy::disallowed_methods, reason = "a benchmark waits, and tells itself by the environment what to be")]

use std::fs;
use std::io::{self, BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use overlay_bench::{Bench, Pace};
use overlay_core::{MemoryStore, Name, Prefix, Store};
use overlay_driver::control::{ControlClient, ControlServer, Serving};
use overlay_driver::testing::{Altered, Lab, date};
use overlay_driver::{Attach, Driver, Ground, KernelPlaces, MemoryGround, Source};
use overlay_ipam::SubnetRequest;
use overlay_kernel::Namespace;
use overlay_node::{Control, Feed, Manager, NetworkSpec, ServiceSpec};
use serde::{Deserialize, Serialize};
use tokio::runtime::{Builder, Runtime};

use crate::firewall::{Outcome, must};
use crate::node_town::{self, ENDPOINTS, NETWORKS, SERVICES, node_id};

const ASKED: &str = "OVERLAY_BENCH_NODE_AGENT";
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) fn run(bench: &mut Bench<'_>) -> io::Result<()> {
    if !bench.wants("node/agent-rss") {
        return Ok(());
    }
    let (of_each, known) = if bench.pace() == Pace::Full { (ENDPOINTS, "10k") } else { (ENDPOINTS / 10, "1k") };
    let town = must(Town::new());
    let ground = if town.lab.is_some() { "" } else { "-in-memory" };
    let idle = must(town.measure(0, 0));
    must(town.populate(of_each));
    let full = must(town.measure(NETWORKS, of_each));
    bench.figure(format!("node/agent-rss{ground}"), "MB").value(idle).report()?;
    bench.figure(format!("node/agent-rss-{known}{ground}"), "MB").value(full).report()?;
    must(town.end());
    Ok(())
}

/// The other node, and the catalogue.
struct Town {
    lab: Option<Lab>,
    dir: PathBuf,
    runtime: Runtime,
    manager: Arc<Manager>,
    serving: Serving,
    driver: Driver,
}

impl Town {
    fn new() -> Outcome<Self> {
        let memory = Path::new("/dev/shm"); // each plug is written down to the disk, where there is one
        let dir = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let dir = dir.join(format!("overlay-bench-agent-{}", std::process::id()));
        fs::create_dir_all(&dir)?;
        let lab = Lab::new(2, dir.join("lab")).inspect_err(|error| eprintln!("node: places in memory: {error}")).ok();
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let (manager, serving, driver) = runtime.block_on(start(&dir, lab.as_ref()))?;
        Ok(Self { lab, dir, runtime, manager, serving, driver })
    }

    /// So many endpoints in each network, all of them on the other node.
    fn populate(&self, of_each: u16) -> Outcome<()> {
        self.runtime.block_on(async {
            for network in 0..NETWORKS {
                self.populate_network(network, of_each).await?;
            }
            Ok(())
        })
    }

    async fn populate_network(&self, number: u16, of_each: u16) -> Outcome<()> {
        let network = node_town::network(number)?;
        let subnets = network.subnets.iter().map(|subnet| SubnetRequest::this(subnet.net())).collect();
        let spec = NetworkSpec { attachable: true, subnets, ..network.spec };
        self.manager.create_network(network.id, spec, date()).await?;
        for of in 0..SERVICES {
            let service = node_town::service(number, of)?;
            let name = format!("service-{number}-{of}").parse()?; // one of a name in a cluster
            self.manager.create_service(service.id, ServiceSpec { name, ..service.spec }, date()).await?;
        }
        for of in 0..of_each {
            let mut endpoint = node_town::endpoint(number, of)?;
            endpoint.spec.node = node_id(1);
            let container = endpoint.spec.container.clone();
            self.manager.attach(endpoint.id, endpoint.spec, date()).await?;
            self.driver.plug(endpoint.id, container, Source::Tap, None).await?;
        }
        Ok(())
    }

    /// The memory of a process, in MB, whose node has a container on so many networks and knows of so many endpoints in each.
    fn measure(&self, networks: u16, of_each: u16) -> Outcome<f64> {
        let host = self.lab.as_ref().map(|lab| {
            let host = lab.host(1).as_fd().as_raw_fd();
            (format!("/proc/{}/fd/{host}", std::process::id()).into(), lab.address(1))
        });
        let containers = (0..networks).map(|number| self.container(number)).collect::<Outcome<_>>()?;
        let asked = Asked {
            host,
            seed: self.driver.address(),
            dir: self.dir.join(format!("agent-{networks}")),
            control: self.serving.path().to_owned(),
            containers,
            known: usize::from(networks) * usize::from(of_each),
        };
        let mut child = Command::new(std::env::current_exe()?)
            .env(ASKED, serde_json::to_string(&asked)?)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let measured = await_settled(&mut child).and_then(|()| settled_memory(child.id()));
        drop(child.stdin.take()); // it tears its node down
        let ended = child.wait()?;
        if !ended.success() {
            return Err(format!("the agent ended with {ended}").into());
        }
        measured
    }

    fn container(&self, number: u16) -> Outcome<(Name, Source, String)> {
        let (name, network) = (format!("here-{number}"), node_town::network(number)?.spec.name.to_string());
        match &self.lab {
            Some(lab) => lab.container(&name).map(|made| (made.name, made.source, network)).map_err(Into::into),
            None => Ok((name.parse()?, Source::Path(self.dir.join(name)), network)),
        }
    }

    fn end(self) -> Outcome<()> {
        self.runtime.block_on(async {
            self.driver.tear_down().await?;
            self.serving.stop().await;
            Outcome::Ok(())
        })?;
        drop(self.lab);
        Ok(fs::remove_dir_all(&self.dir)?)
    }
}

async fn start(dir: &Path, lab: Option<&Lab>) -> Outcome<(Arc<Manager>, Serving, Driver)> {
    let (store, root): (Arc<dyn Store>, _) = (Arc::new(MemoryStore::default()), Prefix::new("bench/")?);
    let manager = Arc::new(Manager::new(Arc::clone(&store), &root, node_id(1), [7; 32])?);
    let feed = Feed::new(Arc::clone(&store), &root)?;
    let server = ControlServer::new(manager.clone()).with_feed(store, &root)?;
    let serving = server.bind(dir.join("control.sock")).await?;
    let host = lab.map(|lab| lab.host(0).try_clone().map(Arc::new)).transpose()?;
    let address = lab.map_or_else(|| "127.0.0.1:0".parse(), |lab| Ok((lab.address(0), 7946).into()))?;
    let ground = Altered::new(MemoryGround::default()).with_host(host);
    let builder = Driver::builder(node_id(1), ground, manager.clone(), feed).name("elsewhere".parse()?);
    let driver = builder.gossip(address).dir(dir.join("elsewhere")).start().await?;
    Ok((manager, serving, driver))
}

/// Until the process says that its node knows and holds all that it should.
fn await_settled(child: &mut Child) -> Outcome<()> {
    let stdout = child.stdout.take().ok_or("the agent has no output")?;
    let mut said = String::new();
    BufReader::new(stdout).read_line(&mut said)?;
    if said.trim() == SETTLED { Ok(()) } else { Err("the agent ended before it had settled".into()) }
}

const SETTLED: &str = "settled";

/// In MB, once it has not changed for three seconds.
fn settled_memory(process: u32) -> Outcome<f64> {
    let begun = Instant::now();
    let mut last = Vec::new();
    while begun.elapsed() < PATIENCE {
        last.push(memory(process, "VmRSS:")?);
        let [.., one, two, three, four] = last[..] else {
            std::thread::sleep(Duration::from_secs(1));
            continue;
        };
        if one.max(two).max(three).max(four) < 1.01 * one.min(two).min(three).min(four) {
            eprintln!("node: {four} MB resident, {} MB at most before", memory(process, "VmHWM:")?);
            return Ok(four);
        }
        std::thread::sleep(Duration::from_secs(1));
    }
    Err("the agent's memory changes on and on".into())
}

fn memory(process: u32, what: &str) -> Outcome<f64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(what)).ok_or("no memory is told")?;
    let kib: f64 = line.split_whitespace().next().ok_or("no memory is told")?.parse()?;
    Ok(kib * 1024.0 / 1e6)
}

/// What the process is to be.
#[derive(Debug, Serialize, Deserialize)]
struct Asked {
    /// The namespace that plays its host, and its address there; in memory if `None`.
    host: Option<(PathBuf, std::net::IpAddr)>,
    seed: SocketAddr,
    dir: PathBuf,
    control: PathBuf,
    /// Each with its network.
    containers: Vec<(Name, Source, String)>,
    known: usize,
}

/// Is that process, if the environment says so.
pub(crate) fn be_if_asked() -> Option<ExitCode> {
    let asked: Asked = must(serde_json::from_str(&std::env::var(ASKED).ok()?).map_err(Into::into));
    let runtime = must(Builder::new_multi_thread().enable_all().build().map_err(Into::into));
    must(runtime.block_on(asked.be()));
    Some(ExitCode::SUCCESS)
}

impl Asked {
    #[expect(clippy::print_stdout, reason = "one word, for the parent")]
    async fn be(&self) -> Outcome<()> {
        let driver = match &self.host {
            Some((host, address)) => {
                let host = Namespace::open(host)?;
                let places = KernelPlaces::new("bench".parse()?, node_id(0), host, &self.dir)?;
                self.start(places, (*address, 7946).into()).await?
            }
            None => self.start(MemoryGround::default(), "127.0.0.1:0".parse()?).await?,
        };
        driver.join([self.seed]).await?;
        for (name, source, network) in &self.containers {
            driver.attach(Attach::new(name.clone(), source.clone(), network.as_str())).await?;
        }
        let begun = Instant::now();
        while !self.has_settled(&driver).await? {
            if begun.elapsed() > PATIENCE {
                return Err(format!("never settled: {:#?}", driver.status().await?).into());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        println!("{SETTLED}");
        tokio::task::spawn_blocking(|| io::stdin().read_to_end(&mut Vec::new())).await??;
        Ok(driver.tear_down().await?)
    }

    async fn start<G: Ground>(&self, ground: G, address: SocketAddr) -> Outcome<Driver> {
        let client = ControlClient::new(&self.control);
        let feed = client.follow();
        let builder = Driver::builder(node_id(0), ground, Arc::new(client), feed).name("agent".parse()?);
        Ok(builder.gossip(address).dir(&self.dir).start().await?)
    }

    async fn has_settled(&self, driver: &Driver) -> Outcome<bool> {
        let status = driver.status().await?;
        let holds = status.places.iter().all(|place| place.holds);
        Ok(holds && status.members.len() == 2 && status.known >= self.known)
    }
}
