//! Two hosts with a driver each, a proxy in a container of one, and a client in a container of the other.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::MetadataExt as _;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use overlay_core::{EndpointId, NetworkId, ServiceId};
use overlay_dns::Health;
use overlay_driver::control::{ControlServer, Serving};
use overlay_driver::testing::{Container, Hosts, date};
use overlay_driver::{Attach, Attached};
use overlay_kernel::Namespace;
use overlay_node::{Control as _, ServiceSpec};
use tokio::runtime::{Builder, Runtime};

use super::load::{Answers, Ask, ask};
use super::replica::{PORT, Replica};
use crate::Outcome;

const NETWORK: &str = "front";
/// Where the proxy listens.
const LISTEN: u16 = 80;
/// The longest that anything takes.
const LIMIT: Duration = Duration::from_secs(15);

pub(super) struct World {
    hosts: Option<Hosts>,
    runtime: Runtime,
    serving: Option<Serving>,
    proxy: Option<Child>,
    at: IpAddr,
    client: Container,
    services: BTreeMap<&'static str, ServiceId>,
    replicas: BTreeMap<String, Running>,
    checks: Vec<(String, bool)>,
}

/// A container of a service.
struct Running {
    host: usize,
    endpoint: EndpointId,
    replica: Option<Replica>,
}

impl World {
    pub(super) fn build() -> Outcome<Self> {
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let dir = format!("/run/overlay-l7-{}", std::process::id());
        let hosts = runtime.block_on(Hosts::start(2, dir))?;
        let network = runtime.block_on(hosts.network(NETWORK))?;
        println!("Two hosts of namespaces, and network {NETWORK} between their containers.\n");
        let services = [("web", 1), ("api", 2)].map(|(name, number)| {
            let spec = ServiceSpec::new(name.parse()?, [network.id] as [NetworkId; 1]);
            let created = hosts.manager.create_service(ServiceId::from_bytes([number; 16]), spec, date());
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>((name, runtime.block_on(created)?.id))
        });
        let services = services.into_iter().collect::<Outcome<BTreeMap<_, _>>>()?;
        let (edge, attached) = runtime.block_on(hosts.run(0, "edge", NETWORK))?;
        let (client, _) = runtime.block_on(hosts.run(1, "client", NETWORK))?;
        let at = address(&attached)?;
        let mut world = Self {
            hosts: Some(hosts),
            runtime,
            serving: None,
            proxy: None,
            at,
            client,
            services,
            replicas: BTreeMap::new(),
            checks: Vec::new(),
        };
        for (host, name, service) in [(0, "web-1", "web"), (1, "web-2", "web"), (1, "api-1", "api")] {
            world.replica(host, name, service)?;
        }
        world.start_proxy(&edge.namespace)?;
        Ok(world)
    }

    /// Serves the first host's socket, and starts the proxy as a process of its own in a container there.
    fn start_proxy(&mut self, edge: &Namespace) -> Outcome {
        let hosts = self.hosts()?;
        let socket = hosts.lab.dir(0).join("control.sock");
        let server = ControlServer::new(hosts.manager.clone()).with_driver(hosts.driver(0)?);
        let serving = self.runtime.block_on(server.bind(&socket))?;
        let listen = SocketAddr::new(self.at, LISTEN).to_string();
        let routes = ["--route", "shop.example=web:8080", "--route", "shop.example/api=api:8080"];
        println!("host-1 $ ip netns exec edge l7 --control {} --listen {listen} \\", socket.display());
        println!(
            "    --route shop.example=web:{PORT} --route shop.example/api=api:{PORT} --check /health --check-every 200\n"
        );
        let program = std::env::current_exe()?;
        let mut command = Command::new(program);
        command.arg("--control").arg(&socket).args(["--listen", &listen]).args(routes);
        command.args(["--check", "/health", "--check-every", "200"]);
        let spawned = edge.run(|| command.spawn())?;
        self.proxy = Some(spawned?);
        self.serving = Some(serving);
        Ok(())
    }

    fn hosts(&self) -> Outcome<&Hosts> {
        Ok(self.hosts.as_ref().ok_or("the hosts are gone")?)
    }

    /// Starts a container of a service on a host, numbered from 0.
    pub(super) fn replica(&mut self, host: usize, name: &str, service: &str) -> Outcome {
        let hosts = self.hosts()?;
        let container = hosts.lab.container(name)?;
        let entered = self.runtime.enter();
        let replica = Replica::start(&container)?;
        drop(entered);
        let service = self.services.get(service).copied();
        let attach = Attach { service, ..Attach::new(container.name, container.source, NETWORK) };
        let endpoint = self.runtime.block_on(hosts.driver(host)?.attach(attach))?.endpoint.id;
        self.replicas.insert(name.to_owned(), Running { host, endpoint, replica: Some(replica) });
        Ok(())
    }

    pub(super) fn running(&self, name: &str) -> Outcome<&Replica> {
        Ok(self.replicas.get(name).and_then(|it| it.replica.as_ref()).ok_or_else(|| format!("{name} does not run"))?)
    }

    pub(super) fn set_health(&self, name: &str, health: Health) -> Outcome {
        let Running { host, endpoint, .. } = self.replicas.get(name).ok_or("no such container")?;
        Ok(self.runtime.block_on(self.hosts()?.driver(*host)?.set_health(*endpoint, health))?)
    }

    /// Ends a container's server and nothing else.
    pub(super) fn kill(&mut self, name: &str) -> Outcome {
        let running = self.replicas.get_mut(name).ok_or("no such container")?;
        running.replica = None;
        Ok(())
    }

    /// Ends a container that nobody asks any more.
    pub(super) fn remove(&mut self, name: &str) -> Outcome {
        let Running { host, endpoint, replica } = self.replicas.remove(name).ok_or("no such container")?;
        self.runtime.block_on(self.hosts()?.driver(host)?.detach(endpoint))?;
        drop(replica);
        Ok(())
    }

    pub(super) const fn client(&self) -> &Namespace {
        &self.client.namespace
    }

    pub(super) const fn ask(&self, method: &'static str, host: &'static str, path: &'static str) -> Ask {
        Ask { at: SocketAddr::new(self.at, LISTEN), method, host, path }
    }

    pub(super) fn answers(&self, what: Ask, times: usize) -> Outcome<Answers> {
        Ok(ask(self.client(), what, times)?)
    }

    /// Waits until just these answer.
    pub(super) fn until(&self, what: Ask, names: &[&str]) -> Outcome {
        self.waits(what, &format!("{names:?} answer"), |all| {
            all.keys().map(Result::as_deref).eq(names.iter().map(|name| Ok(*name)))
        })
    }

    pub(super) fn until_one_is_there(&self, what: Ask, name: &str) -> Outcome {
        self.waits(what, &format!("{name} answers"), |all| all.contains_key(&Ok(name.to_owned())))
    }

    pub(super) fn until_none_is_there(&self, what: Ask, name: &str) -> Outcome {
        self.waits(what, &format!("{name} answers no more"), |all| !all.contains_key(&Ok(name.to_owned())))
    }

    #[expect(clippy::disallowed_methods, reason = "a program measures time")]
    fn waits(&self, what: Ask, awaited: &str, holds: impl Fn(&Answers) -> bool) -> Outcome {
        let begun = Instant::now();
        loop {
            let answers = self.answers(what, 12)?;
            if holds(&answers) {
                return Ok(());
            }
            if begun.elapsed() > LIMIT {
                return Err(format!("not within {LIMIT:?}: {awaited}; these did: {answers:?}").into());
            }
        }
    }

    #[expect(clippy::unused_self, reason = "it is the world that is talked of")]
    pub(super) fn said(&self, what: &str, answers: &Answers) {
        let said = answers.iter().map(|(who, times)| format!("{} {times}", who.as_ref().unwrap_or_else(|wrong| wrong)));
        println!("{what}: {}\n", said.collect::<Vec<_>>().join(", "));
    }

    pub(super) fn check(&mut self, what: &str, holds: bool) {
        self.checks.push((what.to_owned(), holds));
    }

    /// Takes all down, and shows the checks: whether all hold.
    pub(super) fn end(mut self) -> Outcome<bool> {
        if let Some(mut proxy) = self.proxy.take() {
            proxy.kill()?;
            proxy.wait()?;
        }
        if let Some(serving) = self.serving.take() {
            self.runtime.block_on(serving.stop());
        }
        self.replicas.clear();
        if let Some(hosts) = self.hosts.take() {
            self.runtime.block_on(hosts.tear_down())?;
        }
        println!("\nchecks");
        for (what, holds) in &self.checks {
            println!("{} {what}", if *holds { "ok    " } else { "FAILED" });
        }
        Ok(self.checks.iter().all(|(_, holds)| *holds))
    }
}

fn address(attached: &Attached) -> Outcome<IpAddr> {
    let mut all = attached.endpoint.addresses.iter().map(|net| net.addr());
    Ok(all.find(IpAddr::is_ipv4).ok_or("it has no address")?)
}

pub(super) fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() == 0)
}
