//! `overlay-node`: several managers whose catalogue is on one etcd, each a process on a machine of its own.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail loudly too")]
#![expect(clippy::disallowed_methods, reason = "a test measures time and waits")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use overlay_core::testing::{Kernel, kernel_test};
use overlay_core::{EndpointId, NodeId};
use overlay_driver::control::ControlClient;
use overlay_driver::testing::{Container, Lab, ping, resolve};
use overlay_kernel::testing::judge;
use overlay_node::{Control as _, Endpoint};
use overlay_store::testing::{EtcdServer, ServerCertificates};
use serde_json::Value;

const NODE: &str = env!("CARGO_BIN_EXE_overlay-node");
const SOON: Duration = Duration::from_secs(30);
/// A node that could not serve tries again after 15 s, then 30, then 60.
const AT_ITS_NEXT_TRY: Duration = Duration::from_secs(120);
/// The machines: two managers, three workers.
const HOSTS: usize = 5;
const LEADER: usize = 0;
const OTHER: usize = 1;
const WORKERS: [usize; 3] = [2, 3, 4];
/// What is attached while the manager that leads is killed, on each worker.
const BUSY: usize = 4;

struct World {
    lab: Lab,
    nodes: Vec<Option<Child>>,
    etcd: EtcdServer,
    /// How nodes are told of etcd.
    words: Vec<String>,
}

/// Signs the certificates of etcd and its clients.
struct Authority(rcgen::Issuer<'static, rcgen::KeyPair>, String);

impl Authority {
    fn new() -> Self {
        let mut about = rcgen::CertificateParams::new(Vec::new()).unwrap();
        about.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        let pem = about.self_signed(&key).unwrap().pem();
        Self(rcgen::Issuer::new(about, key), pem)
    }

    fn sign(&self, name: &str) -> (String, String) {
        let mut about = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        about.extended_key_usages =
            vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth, rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        let key = rcgen::KeyPair::generate().unwrap();
        (about.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }
}

impl World {
    /// None where there is no etcd.
    fn new(name: &str) -> Option<Self> {
        let dir = format!("/run/overlay-managers-test-{}", std::process::id());
        let lab = Lab::new(HOSTS, dir).unwrap();
        let [at, _] = Lab::outside_addresses();
        let authority = Authority::new();
        let file = |name: &str, content: &str| {
            let path = lab.dir(0).with_file_name(name);
            std::fs::write(&path, content).unwrap();
            path
        };
        let (server, client) = (authority.sign(&at.to_string()), authority.sign("a-manager"));
        let certificates = ServerCertificates {
            authority: file("etcd-ca.pem", &authority.1),
            certificate: file("etcd.pem", &server.0),
            key: file("etcd.key", &server.1),
        };
        // It is in the namespace of the thread that starts it.
        let etcd = lab.outside().run(|| EtcdServer::start_tls_at(name, at, &certificates)).unwrap()?;
        let words: [(&str, PathBuf); 3] = [
            ("--etcd-ca", certificates.authority),
            ("--etcd-cert", file("client.pem", &client.0)),
            ("--etcd-key", file("client.key", &client.1)),
        ];
        let words = words.iter().flat_map(|(flag, path)| [(*flag).to_owned(), path.to_str().unwrap().to_owned()]);
        let words = ["--etcd".to_owned(), etcd.endpoint()].into_iter().chain(words).collect();
        Some(Self { lab, nodes: (0..HOSTS).map(|_| None).collect(), etcd, words })
    }

    /// A command of no node that runs, on a host.
    fn on(&self, host: usize, words: &[&str]) -> Output {
        let mut command = Command::new(NODE);
        command.args(words).arg("--state").arg(self.lab.dir(host).join("state")).stdin(Stdio::null());
        self.lab.host(host).run(|| command.output()).unwrap().unwrap()
    }

    fn on_with_etcd(&self, host: usize, words: &[&str]) -> Output {
        let all: Vec<&str> = words.iter().copied().chain(self.words.iter().map(String::as_str)).collect();
        self.on(host, &all)
    }

    fn start(&mut self, host: usize) {
        let mut node = Command::new(NODE);
        node.args(["run", "--name", &format!("host-{}", host + 1), "--address", &self.address(host)]);
        node.arg("--dir").arg(self.lab.dir(host)).arg("--state").arg(self.lab.dir(host).join("state"));
        node.stdin(Stdio::null()).stdout(File::create(self.log(host)).unwrap());
        self.nodes[host] = Some(self.lab.host(host).run(|| node.spawn()).unwrap().unwrap());
        until("a node answers", || self.told(host, &["status"]).status.success());
    }

    /// Where the node on that host says what happens to it.
    fn log(&self, host: usize) -> PathBuf {
        self.lab.dir(host).join("said")
    }

    /// Packets from that host to etcd are lost, or not any more.
    fn cut_from_etcd(&self, host: usize, cut: bool) {
        let [at, _] = Lab::outside_addresses();
        let verb = if cut { "add" } else { "del" };
        judge(self.lab.host(host), "ip", &["route", verb, "blackhole", &at.to_string()]);
    }

    /// SIGKILL.
    fn kill(&mut self, host: usize) {
        let mut node = self.nodes[host].take().unwrap();
        node.kill().unwrap();
        node.wait().unwrap();
    }

    fn address(&self, host: usize) -> String {
        self.lab.address(host).to_string()
    }

    fn command(&self, host: usize, words: &[&str]) -> Command {
        let mut command = Command::new(NODE);
        command.arg("--socket").arg(self.lab.dir(host).join("control.sock")).args(words);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn told(&self, host: usize, words: &[&str]) -> Output {
        self.command(host, words).output().unwrap()
    }

    #[track_caller]
    fn tell(&self, host: usize, words: &[&str]) -> String {
        said(&self.told(host, words)).unwrap()
    }

    fn attaching(&self, host: usize, container: &Container) -> Command {
        let path = container.source.path().unwrap().to_str().unwrap().to_owned();
        self.command(host, &["attach", "front", "--name", container.name.as_str(), "--netns", &path])
    }

    fn attach(&self, host: usize, name: &str) -> Container {
        let container = self.lab.container(name).unwrap();
        said(&self.attaching(host, &container).output().unwrap()).unwrap();
        container
    }

    /// The network's endpoints, as the manager on that host has them.
    fn endpoints(&self, host: usize) -> Vec<Endpoint> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let client = ControlClient::new(self.lab.dir(host).join("control.sock"));
            let network = client.network(&"front".into()).await.unwrap();
            client.endpoints(network.id).await.unwrap()
        })
    }

    fn status(&self, host: usize) -> Value {
        serde_json::from_str(&self.tell(host, &["--json", "status"])).unwrap()
    }

    fn serves(&self, host: usize) -> bool {
        let to = SocketAddr::new(self.lab.address(host), 2377);
        let from = &self.lab.outside();
        from.run(|| TcpStream::connect_timeout(&to, Duration::from_millis(300)).is_ok()).unwrap()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for node in self.nodes.iter_mut().flatten() {
            let _ = node.kill();
            let _ = node.wait();
        }
    }
}

/// What it says, or why not.
fn said(output: &Output) -> Result<String, String> {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() { Ok(text) } else { Err(text + &String::from_utf8_lossy(&output.stderr)) }
}

#[track_caller]
fn until(what: &str, holds: impl FnMut() -> bool) {
    until_within(SOON, what, holds);
}

#[track_caller]
fn until_within(limit: Duration, what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < limit, "it never came about that {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn reaches(from: &Container, to: &str) -> bool {
    let found = resolve(&from.namespace, to, Duration::from_millis(500)).unwrap_or_default();
    found.first().is_some_and(|to| pings(from, *to))
}

fn pings(from: &Container, to: IpAddr) -> bool {
    matches!(ping(&from.namespace, to, Duration::from_millis(300)), Ok(Some(_)))
}

/// One endpoint for each of these containers, and one address for each endpoint.
fn is_exact(endpoints: &[Endpoint], containers: &BTreeSet<String>) {
    let mut of: BTreeMap<String, BTreeSet<EndpointId>> = BTreeMap::new();
    for endpoint in endpoints {
        of.entry(endpoint.spec.container.to_string()).or_default().insert(endpoint.id);
    }
    assert_eq!(of.keys().cloned().collect::<BTreeSet<_>>(), *containers, "none lost, none left behind");
    assert!(of.values().all(|ids| ids.len() == 1), "none doubled: {of:?}");
    let addresses: BTreeSet<IpAddr> =
        endpoints.iter().flat_map(|it| it.addresses.iter()).map(|net| net.addr()).collect();
    assert_eq!(addresses.len(), endpoints.len(), "no address twice");
}

/// The cluster of two managers and three workers, with a container on each worker.
fn form(world: &mut World) -> Vec<Container> {
    let leader = world.address(LEADER);
    said(&world.on_with_etcd(LEADER, &["node", "init", "--address", &leader])).unwrap();
    let second = said(&world.on_with_etcd(OTHER, &["node", "init", "--address", &world.address(OTHER)])).unwrap_err();
    assert!(second.contains("join"), "two do not found one cluster: {second}");
    world.start(LEADER);
    let token = world.tell(LEADER, &["node", "token", "--manager"]).trim().to_owned();
    said(&world.on_with_etcd(OTHER, &["node", "join", "--token", &token, &leader])).unwrap();
    world.start(OTHER);
    until("the second manager serves", || world.serves(OTHER));
    let token = world.tell(OTHER, &["node", "token"]).trim().to_owned();
    let other = world.address(OTHER);
    for worker in WORKERS {
        // By the manager that does not lead: it says who does. One is told of etcd, to be promoted later.
        let words = ["node", "join", "--token", &token, &other];
        until("a worker joins", || {
            let joined = match worker == WORKERS[0] {
                true => world.on_with_etcd(worker, &words),
                false => world.on(worker, &words),
            };
            let not = said(&joined).err().unwrap_or_default();
            assert!(not.is_empty() || not.contains("does not lead"), "{not}");
            not.is_empty()
        });
        world.start(worker);
    }
    until("all hear of all", || {
        (0..HOSTS).all(|host| world.status(host)["members"].as_array().is_some_and(|members| members.len() == HOSTS))
    });
    world.tell(OTHER, &["network", "create", "-d", "overlay", "--attachable", "front"]);
    WORKERS.iter().map(|worker| world.attach(*worker, &format!("web-{worker}"))).collect()
}

/// Containers are attached on all workers while the manager that leads is killed. Each command is done or refused; what was refused is asked again.
fn kill_the_leader(world: &mut World) -> Vec<Container> {
    let busy: Vec<(usize, Container)> = WORKERS
        .iter()
        .flat_map(|worker| (0..BUSY).map(move |number| (*worker, format!("busy-{worker}-{number}"))))
        .map(|(worker, name)| (worker, world.lab.container(&name).unwrap()))
        .collect();
    let mut asked: Vec<Child> =
        busy.iter().map(|(worker, container)| world.attaching(*worker, container).spawn().unwrap()).collect();
    // Some are done by now, some are under way.
    until("one is attached", || asked.iter_mut().any(|it| it.try_wait().unwrap().is_some()));
    world.kill(LEADER);
    for (child, (worker, container)) in asked.into_iter().zip(&busy) {
        let first = said(&child.wait_with_output().unwrap());
        let mut not = first.err().unwrap_or_default();
        let begun = Instant::now();
        while !not.is_empty() {
            assert!(begun.elapsed() < SOON, "{} is not attached by the other manager: {not}", container.name);
            std::thread::sleep(Duration::from_millis(50));
            not = said(&world.attaching(*worker, container).output().unwrap()).err().unwrap_or_default();
        }
    }
    busy.into_iter().map(|(_, container)| container).collect()
}

#[test]
fn two_managers_share_an_etcd_and_nothing_is_lost_or_doubled_when_the_one_that_leads_is_killed() {
    kernel_test(Kernel::Host, "examples::two_managers_share_an_etcd_and_nothing_is_lost", || {
        let Some(mut world) = World::new("examples::two_managers_share_an_etcd") else { return };
        let web = form(&mut world);
        until("the workers reach each other", || reaches(&web[0], "web-4") && reaches(&web[2], "web-2"));
        let mut all: BTreeSet<String> = web.iter().map(|it| it.name.to_string()).collect();

        let busy = kill_the_leader(&mut world);
        all.extend(busy.iter().map(|it| it.name.to_string()));
        is_exact(&world.endpoints(OTHER), &all);
        let last = busy.last().unwrap().name.to_string();
        until("what was attached meanwhile is reached", || reaches(&web[0], &last));

        until("the other manager leads", || world.told(OTHER, &["node", "token", "rotate"]).status.success());
        world.start(LEADER);
        is_exact(&world.endpoints(LEADER), &all);
        // It does not lead any more: what only the one that leads may do, that one does.
        until("it hears who leads", || world.told(LEADER, &["node", "token", "rotate"]).status.success());

        let id: NodeId = serde_json::from_value(world.status(WORKERS[0])["node"].clone()).unwrap();
        world.tell(WORKERS[0], &["node", "lock"]); // in another role it goes on without anybody to unlock it
        world.cut_from_etcd(WORKERS[0], true);
        world.tell(LEADER, &["node", "promote", &id.to_string()]);
        until("the promoted node hears of it", || {
            std::fs::read_to_string(world.log(WORKERS[0])).unwrap().contains("it serves nobody before it reaches")
        });
        assert!(!world.serves(WORKERS[0]) && world.told(WORKERS[0], &["status"]).status.success());
        until("it goes on as a worker", || reaches(&web[1], "web-2") && reaches(&web[0], "web-3"));
        let control = SocketAddr::new(world.lab.address(WORKERS[0]), 2377);
        let taken = world.lab.host(WORKERS[0]).run(|| TcpListener::bind(control)).unwrap().unwrap();
        world.cut_from_etcd(WORKERS[0], false);
        until("the promoted node cannot serve", || {
            std::fs::read_to_string(world.log(WORKERS[0]))
                .unwrap()
                .contains("it cannot serve as a manager: nodes cannot be served at")
        });
        until("it is there again", || world.told(WORKERS[0], &["status"]).status.success());
        until("it is a worker still", || reaches(&web[1], "web-2") && reaches(&web[0], "web-3"));
        drop(taken);
        until_within(AT_ITS_NEXT_TRY, "the promoted node serves", || world.serves(WORKERS[0]));
        until("it answers as a manager", || world.told(WORKERS[0], &["node", "token"]).status.success());
        until("what the promoted node has is reached", || reaches(&web[1], "web-2"));

        without_etcd(&mut world, &web);
        is_exact(&world.endpoints(OTHER), &all);
    });
}

/// Where etcd is down, what there is goes on, and no change is made; once it is back, changes are made again.
fn without_etcd(world: &mut World, web: &[Container]) {
    world.etcd.kill();
    let not = said(&world.told(OTHER, &["network", "create", "--attachable", "back"])).unwrap_err();
    assert!(not.contains("store"), "{not}");
    for (from, to) in [(1, "web-2"), (2, "web-3"), (0, "web-4")] {
        until(&format!("{to} is reached: names and ways are the nodes' own"), || reaches(&web[from], to));
    }
    let alive = |it: &Value| it["members"].as_array().unwrap().iter().filter(|it| it["standing"] == "alive").count();
    assert_eq!(alive(&world.status(WORKERS[1])), HOSTS);
    let World { lab, etcd, .. } = &mut *world;
    lab.outside().run(|| etcd.restart()).unwrap();
    until("changes are made again", || {
        let made = said(&world.told(OTHER, &["network", "create", "--attachable", "back"]));
        made.is_ok() || made.is_err_and(|error| error.contains("back"))
    });
    assert!(world.tell(WORKERS[0], &["network", "ls"]).contains("back"));
}
