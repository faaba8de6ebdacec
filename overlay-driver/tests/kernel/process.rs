//! A node in a process of its own, which can be killed.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::thread;

use overlay_core::{EndpointId, Name};
use overlay_crypto::gossip::GossipKey;
use overlay_driver::control::{ControlClient, ControlServer, Serving};
use overlay_driver::testing::{Carried, Container, node};
use overlay_driver::{Attach, Driver, Ground, KernelPlaces, Source, UserspacePlaces};
use overlay_kernel::NamespaceDir;
use serde::{Deserialize, Serialize};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;

use crate::world::World;

/// A second process of this test is told by this what it is to run.
const AGENT: &str = "OVERLAY_DRIVER_TEST_AGENT";

/// A node that a process is to run.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Asked {
    /// The host's namespace has its name in this directory.
    pub(crate) hosts: PathBuf,
    address: SocketAddr,
    seed: SocketAddr,
    key: [u8; 32],
    dir: PathBuf,
    control: PathBuf,
    in_user_space: bool,
}

/// What it is told, a line each.
#[derive(Debug, Clone, Serialize, Deserialize)]
enum Order {
    Attach(EndpointId, Name, Source),
    RotateKeys,
    TearDown,
}

/// Run as a child by the test.
#[test]
#[expect(clippy::disallowed_methods, reason = "the second process is told by the environment that it is that")]
fn agent() {
    let Ok(asked) = std::env::var(AGENT) else { return };
    let asked: Asked = serde_json::from_str(&asked).unwrap();
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(asked.run(orders()));
}

fn orders() -> mpsc::UnboundedReceiver<Order> {
    let (ordered, orders) = mpsc::unbounded_channel();
    thread::spawn(move || {
        for line in std::io::stdin().lines() {
            ordered.send(serde_json::from_str(&line.unwrap()).unwrap()).unwrap();
        }
    });
    orders
}

impl Asked {
    async fn run(self, orders: mpsc::UnboundedReceiver<Order>) {
        let host = NamespaceDir::new(&self.hosts).open(&"host".parse().unwrap()).unwrap();
        let cluster = "lab".parse().unwrap();
        if self.in_user_space {
            let places = UserspacePlaces::new(cluster, node(0), host, &self.dir).unwrap();
            return self.run_on(places, orders).await;
        }
        let places = KernelPlaces::new(cluster, node(0), host, &self.dir).unwrap();
        self.run_on(places, orders).await;
    }

    async fn run_on(self, places: impl Ground, mut orders: mpsc::UnboundedReceiver<Order>) {
        let client = ControlClient::new(&self.control);
        let feed = client.follow();
        let builder = Driver::builder(node(0), places, Arc::new(client), feed).name("host-1".parse().unwrap());
        let builder = builder.gossip(self.address).gossip_keys([GossipKey::from_bytes(self.key)]);
        let driver = builder.dir(&self.dir).start().await.unwrap();
        driver.join([self.seed]).await.unwrap();
        while let Some(order) = orders.recv().await {
            match order {
                Order::Attach(id, name, source) => {
                    let driver = driver.clone();
                    let attach = Attach { id: Some(id), ..Attach::new(name.clone(), source, "front") };
                    tokio::spawn(async move {
                        match driver.attach(attach).await {
                            Ok(_) => say(&format!("attached {name}.")),
                            Err(error) => say(&format!("refused {name}: {error}: {error:?}")),
                        }
                    });
                }
                Order::RotateKeys => driver.rotate_keys().await.unwrap(),
                Order::TearDown => {
                    driver.tear_down().await.unwrap();
                    return say("torn down");
                }
            }
        }
    }
}

/// A process that runs a node.
pub(crate) struct Process {
    child: Child,
    orders: ChildStdin,
    said: BufReader<ChildStdout>,
}

impl Process {
    pub(crate) fn start(asked: &Asked) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "process::agent", "--nocapture"]).env(AGENT, serde_json::to_string(asked).unwrap());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (orders, said) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Self { child, orders, said }
    }

    fn order(&mut self, order: &Order) {
        let line = serde_json::to_string(order).unwrap() + "\n";
        self.orders.write_all(line.as_bytes()).unwrap();
    }

    pub(crate) fn attach(&mut self, residents: &[Resident]) {
        for Resident { id, container, .. } in residents {
            self.order(&Order::Attach(*id, container.name.clone(), container.source.clone()));
        }
    }

    pub(crate) fn rotate_keys(&mut self) {
        self.order(&Order::RotateKeys);
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it has said so, and gives the lines until then.
    pub(crate) fn await_said(&mut self, words: &str) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            let read = self.said.read_line(&mut line).unwrap();
            assert!(read > 0 && !line.contains("refused "), "{line} after {lines:?}");
            let is_it = line.contains(words);
            lines.push(line);
            if is_it {
                return lines;
            }
        }
    }

    /// Waits until a container is attached, whatever is said of others: one that is detached before it was attached is refused.
    pub(crate) fn await_attached(&mut self, name: &Name) {
        let (attached, refused) = (format!("attached {name}."), format!("refused {name}:"));
        let mut line = String::new();
        while !line.contains(&attached) {
            line.clear();
            let read = self.said.read_line(&mut line).unwrap();
            assert!(read > 0 && !line.contains(&refused), "{line}");
        }
    }

    /// In whatever order.
    pub(crate) fn await_all<'n>(&mut self, names: impl Iterator<Item = &'n Name>) {
        let mut left: Vec<String> = names.map(|name| format!("attached {name}.")).collect();
        let mut line = String::new();
        while !left.is_empty() {
            line.clear();
            assert!(self.said.read_line(&mut line).unwrap() > 0 && !line.contains("refused "), "{line}");
            left.retain(|attached| !line.contains(attached));
        }
    }

    /// With SIGKILL.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn tear_down(mut self) {
        self.order(&Order::TearDown);
        self.await_said("torn down");
        assert!(self.child.wait().unwrap().success());
    }
}

/// A container on the host whose node is killed.
pub(crate) struct Resident {
    pub(crate) id: EndpointId,
    pub(crate) container: Container,
}

impl Resident {
    pub(crate) fn new(world: &World, number: usize) -> Self {
        let container = world.hosts().lab.container(&format!("c{number}")).unwrap();
        Self { id: EndpointId::from_bytes([number as u8 + 1; 16]), container }
    }
}

/// What a killed node is run by, its catalogue served by this process.
pub(crate) fn prepare(world: &mut World) -> (Asked, Serving, Runtime) {
    let stopped = world.hosts_mut().take(0).unwrap();
    world.wait(stopped.stop());
    let lab = &world.hosts().lab;
    let hosts = lab.path().join("hosts");
    NamespaceDir::new(&hosts).keep(&"host".parse().unwrap(), lab.host(0)).unwrap();
    let asked = Asked {
        hosts,
        address: (lab.address(0), 7946).into(),
        seed: (lab.address(1), 7946).into(),
        key: *world.hosts().gossip_key().secret_bytes(),
        dir: lab.dir(0),
        control: lab.path().join("control.sock"),
        in_user_space: world.hosts().carried() == Carried::InUserSpace,
    };
    let (store, root) = world.hosts().catalogue().unwrap();
    let server = ControlServer::new(world.hosts().manager.clone()).with_feed(store, &root).unwrap();
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let serving = runtime.block_on(server.bind(&asked.control)).unwrap();
    (asked, serving, runtime)
}

/// Answers who started this process.
#[expect(clippy::print_stdout, reason = "a child speaks with its parent")]
fn say(line: &str) {
    println!("{line}");
}
