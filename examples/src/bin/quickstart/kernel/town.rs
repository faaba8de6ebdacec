//! Three hosts with a driver each, and what was found true of them.

use std::future::Future;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use overlay_core::{EndpointId, NetworkId};
use overlay_crypto::pki::JoinToken;
use overlay_driver::testing::{Carried, Container, Hosts, ping, resolve};
use overlay_driver::{Attached, Driver};
use overlay_node::{Control, Manager};
use tokio::runtime::{Builder, Runtime};

use overlay_examples::{listing, process};

use crate::Outcome;

pub(crate) const HOSTS: usize = 3;
/// The longest that anything takes.
const LIMIT: Duration = Duration::from_secs(5);

/// The hosts, and the checks so far.
pub(crate) struct Town {
    pub(crate) hosts: Hosts,
    pub(crate) manager: Arc<Manager>,
    runtime: Runtime,
    checks: Vec<(String, bool)>,
}

impl Town {
    pub(crate) fn build(carried: Carried) -> Outcome<Self> {
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let dir = format!("/run/overlay-quickstart-{}", std::process::id());
        let hosts = runtime.block_on(Hosts::found_with(HOSTS, dir, carried))?;
        let manager = Arc::clone(&hosts.manager);
        Ok(Self { hosts, manager, runtime, checks: Vec::new() })
    }

    /// Has a host join the cluster, and starts its agent.
    pub(crate) fn join(&mut self, host: usize, token: &JoinToken) -> Outcome {
        Ok(self.runtime.block_on(self.hosts.join(host, token))?)
    }

    /// Starts a host's agent again.
    pub(crate) fn start(&mut self, host: usize) -> Outcome {
        Ok(self.runtime.block_on(self.hosts.start_host(host))?)
    }

    pub(crate) fn driver(&self, host: usize) -> Outcome<Driver> {
        Ok(self.hosts.driver(host)?)
    }

    pub(crate) fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// Shows what is typed at a host, numbered from 0.
    pub(crate) fn typed(&self, host: usize, command: &str) {
        println!("host-{} $ {command}", host + 1);
    }

    pub(crate) fn shown(&self, text: &str) {
        println!("{}\n", text.trim_end());
    }

    pub(crate) fn check(&mut self, what: impl Into<String>, holds: bool) {
        self.checks.push((what.into(), holds));
    }

    /// Waits until something holds; how long that took, `None` if it never did.
    #[expect(clippy::disallowed_methods, reason = "a program measures and waits")]
    pub(crate) fn until(&self, holds: impl Fn(&Self) -> Outcome<bool>) -> Option<Duration> {
        let begun = Instant::now();
        while begun.elapsed() < LIMIT {
            if holds(self).unwrap_or(false) {
                return Some(begun.elapsed());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        None
    }

    pub(crate) fn run(&self, host: usize, name: &str, network: &str) -> Outcome<(Container, Attached)> {
        self.typed(host, &format!("run -d --name {name} --network {network}"));
        let (container, attached) = self.wait(self.hosts.run(host, name, network))?;
        let addresses: Vec<String> = attached.endpoint.addresses.iter().map(ToString::to_string).collect();
        self.shown(&format!("{}   {}   {}", attached.endpoint.id.short(), attached.interface, addresses.join(", ")));
        Ok((container, attached))
    }

    /// Pings a name from within a container, and shows what comes of it.
    pub(crate) fn ping(&self, host: usize, from: &Container, to: &str) -> Outcome<bool> {
        self.typed(host, &format!("exec {} ping -c 1 {to}", from.name));
        let reached = self.until(|_| Ok(self.echo(from, to)?.is_some())).is_some();
        let text = match self.echo(from, to) {
            Ok(Some((address, took))) => format!("{to} ({address}): {:.3} ms", took.as_secs_f64() * 1e3),
            Ok(None) => format!("{to}: no answer"),
            Err(error) => format!("{to}: {error}"),
        };
        self.shown(&text);
        Ok(reached)
    }

    /// Who a name is, and how long it took to hear from there.
    pub(crate) fn echo(&self, from: &Container, to: &str) -> Outcome<Option<(IpAddr, Duration)>> {
        let address = match to.parse() {
            Ok(address) => Some(address),
            Err(_) => resolve(&from.namespace, to, Duration::from_millis(300))?.into_iter().next(),
        };
        let Some(address) = address else { return Ok(None) };
        Ok(ping(&from.namespace, address, Duration::from_millis(200))?.map(|took| (address, took)))
    }

    pub(crate) fn list(&self) -> Outcome {
        self.typed(0, "network ls");
        self.shown(&listing::networks(&self.wait(self.manager.networks())?));
        Ok(())
    }

    /// How many networks are on a host.
    pub(crate) fn sandboxes(&self, host: usize) -> Outcome<usize> {
        let status = self.wait(self.driver(host)?.status())?;
        Ok(status.places.iter().filter(|place| place.place.starts_with("network")).count())
    }

    /// Whether the agents carry the packets, and not the kernel.
    pub(crate) fn is_in_user_space(&self) -> bool {
        self.hosts.carried() == Carried::InUserSpace
    }

    /// The file of a network's sandbox on a host.
    pub(crate) fn sandbox(&self, host: usize, network: NetworkId) -> Outcome<Option<PathBuf>> {
        Ok(self.hosts.places(host)?.sandbox(network))
    }

    pub(crate) fn wait_for_enter(&self) -> Outcome {
        println!("Hosts and containers stay until you press Enter. From another terminal:");
        println!(
            "  nsenter --user --mount --net --preserve-credentials --target {} ls {}/containers",
            std::process::id(),
            self.hosts.lab.path().display()
        );
        std::io::stdin().read_line(&mut String::new())?;
        Ok(())
    }

    /// Takes all down, and shows the table of checks; whether all hold.
    pub(crate) fn end(mut self) -> Outcome<bool> {
        let torn = self.runtime.block_on(self.hosts.tear_down()).map_err(|error| println!("{error}"));
        self.checks.push(("after it was torn down nothing of ours is left".to_owned(), torn.is_ok()));
        let row = |(what, holds): &(String, bool)| vec![if *holds { "ok" } else { "FAILED" }.to_owned(), what.clone()];
        println!("checks\n{}", listing::table(&self.checks.iter().map(row).collect::<Vec<_>>()));
        Ok(self.checks.iter().all(|(_, holds)| *holds))
    }

    pub(crate) fn detach(&self, host: usize, endpoint: EndpointId) -> Outcome {
        self.wait(self.driver(host)?.detach(endpoint))?;
        Ok(())
    }
}

/// Chance, of which keys are made: without it the walk ends.
#[expect(clippy::exit, reason = "nothing outlives the process")]
pub(crate) fn fill(bytes: &mut [u8]) {
    if let Err(error) = process::random(bytes) {
        eprintln!("quickstart: {error}; without chance there are no keys");
        std::process::exit(1);
    }
}
