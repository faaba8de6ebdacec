//! A node whose process is killed while it works.

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use overlay_core::testing::{Dice, Kernel, kernel_test};
use overlay_core::{EndpointId, Name};
use overlay_crypto::gossip::GossipKey;
use overlay_driver::control::{ControlClient, ControlServer};
use overlay_driver::testing::{Carried, Container, date, node, ping};
use overlay_driver::{Attach, Driver, Ground, KernelPlaces, Source, UserspacePlaces};
use overlay_kernel::link::devices;
use overlay_kernel::testing::judge;
use overlay_kernel::{Namespace, NamespaceDir};
use serde::{Deserialize, Serialize};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;

use crate::world::{World, attachable};

/// A second process of this test is told by this what it is to run.
const AGENT: &str = "OVERLAY_DRIVER_TEST_AGENT";
const SOON: Duration = Duration::from_secs(30);
const KILLS: usize = 20;

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
        command.args(["--exact", "killed::agent", "--nocapture"]).env(AGENT, serde_json::to_string(asked).unwrap());
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

/// Pings on and on, until it is told to stop; gives how many were sent, and how many lost.
fn ping_on(from: &Namespace, to: IpAddr) -> impl FnOnce() -> (usize, usize) + use<> {
    let (from, stop) = (from.try_clone().unwrap(), Arc::new(AtomicBool::new(false)));
    let stopped = Arc::clone(&stop);
    let pinging = thread::spawn(move || {
        let (mut sent, mut lost) = (0, 0);
        while !stopped.load(Ordering::Relaxed) {
            sent += 1;
            if ping(&from, to, Duration::from_secs(1)).unwrap().is_none() {
                lost += 1;
            }
            thread::sleep(Duration::from_millis(10));
        }
        (sent, lost)
    });
    move || {
        stop.store(true, Ordering::Relaxed);
        pinging.join().unwrap()
    }
}

/// What a killed node is run by, its catalogue served by this process.
pub(crate) fn prepare(world: &mut World) -> (Asked, overlay_driver::control::Serving, Runtime) {
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

/// Nothing of the first host is left: in its containers, on its disk, in the catalogue, among the members.
pub(crate) fn assert_bare<'c>(world: &World, containers: impl Iterator<Item = &'c Container>) {
    for container in containers {
        assert_eq!(devices(&container.namespace).unwrap().len(), 1, "{}", container.name);
        assert_eq!(judge(&container.namespace, "nft", &["list ruleset"]), "", "{}", container.name);
    }
    for dir in ["networks", "carried"] {
        let left: Vec<_> = std::fs::read_dir(world.hosts().lab.dir(0).join(dir)).into_iter().flatten().collect();
        assert!(left.is_empty(), "{left:?}");
    }
    let network = world.wait(world.manager().network(&"front".into())).unwrap();
    let endpoints = world.wait(world.manager().endpoints(network.id)).unwrap();
    assert!(endpoints.iter().all(|endpoint| endpoint.spec.node == node(1)), "{endpoints:?}");
    world.until(SOON, |world| world.status(1).members.len() == 1);
}

#[test]
fn a_node_killed_at_any_moment_of_its_work_goes_on_where_it_was_and_its_containers_hardly_notice() {
    kernel_test(Kernel::Host, "driver::a_node_killed_at_any_moment_goes_on", || {
        let seed = [10; 32];
        let (mut world, mut dice) = (World::new(2), Dice::new(seed));
        println!("seed {seed:?}");
        let (asked, serving, runtime) = prepare(&mut world);
        let bare = |world: &World| {
            let host = world.hosts().lab.host(0);
            (judge(host, "nft", &["list ruleset"]), judge(host, "ip", &["-o", "link"]).lines().count())
        };
        let before = bare(&world);
        world.network(attachable("front"));
        let (web, attached) = world.run(1, "web", "front");
        let mut residents = vec![Resident::new(&world, 0)];
        let mut process = Process::start(&asked);
        process.attach(&residents);
        process.await_said("attached c0.");
        let kept = &residents[0].container;
        world.until(SOON, |world| world.reaches(&web, "c0") && world.reaches(kept, "web"));
        let stop = ping_on(&kept.namespace, attached.endpoint.addresses.first().unwrap().addr());

        let (mut leaving, mut detached): (Option<Resident>, _) = (None, Vec::new());
        for kill in 1..=KILLS {
            residents.push(Resident::new(&world, kill));
            process.attach(&residents[residents.len() - 1..]);
            if let Some(Resident { id, container }) = leaving.take() {
                world.wait(world.manager().detach(id, date())).unwrap();
                detached.push(container);
            }
            thread::sleep(Duration::from_millis(dice.below(1200) as u64));
            process.kill();
            process = Process::start(&asked);
            if kill % 4 == 3 {
                leaving = Some(residents.remove(1 + dice.below(residents.len() - 2)));
            }
            process.attach(&residents);
        }
        let mut waited: Vec<String> = residents.iter().map(|it| format!("attached {}.", it.container.name)).collect();
        while let Some(words) = waited.pop() {
            let said = process.await_said(&words);
            waited.retain(|words| !said.iter().any(|line| line.contains(words)));
        }
        for Resident { container, .. } in &residents {
            world.until(SOON, |world| world.reaches(&web, container.name.as_str()) && world.reaches(container, "web"));
        }
        let (sent, lost) = stop();
        println!("{lost} of {sent} packets were lost, with {KILLS} kills");
        assert!(lost <= KILLS, "{lost} of {sent}");
        for container in &detached {
            world.until(SOON, |_| devices(&container.namespace).unwrap().len() == 1);
            assert!(!world.reaches(&web, container.name.as_str()), "{}", container.name);
        }

        process.tear_down();
        assert_eq!(bare(&world), before);
        assert_bare(&world, residents.iter().map(|it| &it.container).chain(&detached));
        NamespaceDir::new(&asked.hosts).remove(&"host".parse().unwrap()).unwrap();
        runtime.block_on(serving.stop());
    });
}
