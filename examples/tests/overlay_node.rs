//! `overlay-node`: nodes that are processes, the commands that speak with them, and a kill.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail loudly too")]
#![expect(clippy::disallowed_methods, reason = "a test measures time and waits")]

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use overlay_core::testing::{Kernel, kernel_test};
use overlay_driver::testing::{Container, Lab, ping, resolve};
use overlay_kernel::link::devices;
use serde_json::Value;

const NODE: &str = env!("CARGO_BIN_EXE_overlay-node");
const SOON: Duration = Duration::from_secs(15);

/// Two hosts, on each of which a node may run as a process of its own.
struct World {
    lab: Lab,
    nodes: [Option<Child>; 2],
}

impl World {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = format!("/run/overlay-node-test-{}-{number}", std::process::id());
        let mut world = Self { lab: Lab::new(2, dir).unwrap(), nodes: [None, None] };
        fs::write(world.key(), format!("{}\n", "0a".repeat(32))).unwrap();
        fs::set_permissions(world.key(), fs::Permissions::from_mode(0o600)).unwrap();
        (0..2).for_each(|host| world.start(host));
        world
    }

    fn key(&self) -> PathBuf {
        self.lab.path().join("gossip-key")
    }

    fn socket(&self, host: usize) -> PathBuf {
        self.lab.dir(host).join("control.sock")
    }

    fn start(&mut self, host: usize) {
        // As a shell or a service manager begins it, with few open files.
        let mut node = Command::new("sh");
        node.args(["-c", "ulimit -Sn 256; exec \"$@\"", "sh", NODE]);
        node.args(["run", "--name", &format!("host-{}", host + 1), "--address", &self.lab.address(host).to_string()]);
        node.arg("--gossip-key")
            .arg(self.key())
            .arg("--dir")
            .arg(self.lab.dir(host))
            .arg("--state")
            .arg(self.lab.dir(host).join("state"));
        match host {
            0 => node.arg("--manager"),
            _ => node.arg("--manager-socket").arg(self.socket(0)).args(["--join", &self.lab.address(0).to_string()]),
        };
        node.stdin(Stdio::null()).stdout(Stdio::null());
        // A child is in the namespace of the thread that starts it.
        self.nodes[host] = Some(self.lab.host(host).run(|| node.spawn()).unwrap().unwrap());
        until(|| self.told(host, &["status"]).status.success());
        let limits = format!("/proc/{}/limits", self.nodes[host].as_ref().unwrap().id());
        let limits = fs::read_to_string(limits).unwrap();
        let files: Vec<&str> =
            limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap().split_whitespace().collect();
        assert!(files[0] == files[1] && files[0] != "256", "it has as many as it may: {files:?}");
    }

    fn told(&self, host: usize, words: &[&str]) -> Output {
        Command::new(NODE).arg("--socket").arg(self.socket(host)).args(words).stdin(Stdio::null()).output().unwrap()
    }

    #[track_caller]
    fn tell(&self, host: usize, words: &[&str]) -> String {
        let output = self.told(host, words);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{words:?}: {said}{}", String::from_utf8_lossy(&output.stderr));
        said
    }

    fn attach(&self, host: usize, name: &str) -> Container {
        let container = self.lab.container(name).unwrap();
        let path = container.source.path().unwrap();
        self.tell(host, &["attach", "front", "--name", name, "--netns", path.to_str().unwrap()]);
        container
    }

    fn ends(&mut self, host: usize) {
        let status = self.nodes[host].take().unwrap().wait().unwrap();
        assert!(status.success(), "{status}");
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

#[track_caller]
fn until(holds: impl Fn() -> bool) -> Duration {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < SOON, "it never came about");
        std::thread::sleep(Duration::from_millis(5));
    }
    begun.elapsed()
}

fn finds(from: &Container, name: &str) -> bool {
    resolve(&from.namespace, name, Duration::from_millis(500)).is_ok_and(|found| !found.is_empty())
}

#[test]
fn a_node_that_is_killed_and_started_again_adopts_what_it_had_and_its_containers_hardly_notice() {
    kernel_test(Kernel::Host, "examples::a_node_that_is_killed_adopts_what_it_had", || {
        let mut world = World::new();
        world.tell(0, &["network", "create", "-d", "overlay", "--attachable", "front"]);
        let (web, db) = (world.attach(0, "web"), world.attach(1, "db"));
        until(|| finds(&web, "db"));
        let address = resolve(&web.namespace, "db", SOON).unwrap()[0];
        let pings = |patience| matches!(ping(&web.namespace, address, patience), Ok(Some(_)));
        until(|| pings(Duration::from_millis(300)));

        let mut killed = world.nodes[1].take().unwrap();
        killed.kill().unwrap();
        killed.wait().unwrap();
        let lost_while_down = (0..10).filter(|_| !pings(Duration::from_secs(1))).count();
        world.start(1);
        let begun = Instant::now();
        let (mut lost, mut named) = (0, None);
        while begun.elapsed() < Duration::from_secs(5) {
            lost += usize::from(!pings(Duration::from_secs(1)));
            if named.is_none() && finds(&db, "web") {
                named = Some(begun.elapsed());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        println!("lost {lost_while_down} and {lost} pings; names were answered {named:?} after the commands were");
        assert!(lost_while_down + lost <= 1 && named.is_some(), "{lost_while_down}, {lost}, {named:?}");

        for host in [1, 0] {
            world.tell(host, &["teardown"]);
            world.ends(host);
        }
        assert_eq!((devices(&web.namespace).unwrap().len(), devices(&db.namespace).unwrap().len()), (1, 1));
    });
}

#[test]
fn the_missions_commands_do_what_they_say() {
    kernel_test(Kernel::Host, "examples::the_missions_commands_do_what_they_say", || {
        let world = World::new();
        let sealed: Value = serde_json::from_str(&world.tell(0, &["--json", "status"])).unwrap();
        assert_eq!(sealed["seal"]["keys"].as_array().map(Vec::len), Some(1));
        let declined = world.told(0, &["network", "rm", "ingress"]);
        assert!(String::from_utf8_lossy(&declined.stdout).contains("Are you sure you want to continue? [y/N]"));
        assert!(!declined.status.success());
        world.tell(0, &["network", "rm", "--yes", "ingress"]);
        let create = ["network", "create", "--ingress", "--subnet=172.16.0.0/16", "--gateway=172.16.0.1", "my-ingress"];
        world.tell(0, &create);
        world.tell(1, &["network", "create", "-d", "overlay", "--attachable", "customoverlay"]);
        let listed = world.tell(0, &["network", "ls"]);
        assert!(listed.starts_with("NETWORK ID     NAME            DRIVER    SCOPE\n"), "{listed}");
        let networks: Value = serde_json::from_str(&world.tell(1, &["--json", "network", "ls"])).unwrap();
        let names: Vec<_> = networks.as_array().unwrap().iter().map(|network| &network["spec"]["name"]).collect();
        assert_eq!(names, ["bridge", "customoverlay", "host", "my-ingress", "none"]);
        let inspected: Value = serde_json::from_str(&world.tell(0, &["network", "inspect", "my-ingress"])).unwrap();
        assert_eq!(inspected[0]["IPAM"]["Config"][0]["Gateway"], "172.16.0.1");
        let twice = world.told(0, &create);
        assert!(String::from_utf8_lossy(&twice.stderr).contains("is already present: remove it first"), "{twice:?}");
        for (word, why) in
            [("resume", "is not plugged in here"), ("detach", "endpoint 1111111111111111111111111 not found")]
        {
            let stray = world.told(0, &[word, "1111111111111111111111111"]);
            let said = String::from_utf8_lossy(&stray.stderr);
            assert!(!stray.status.success() && said.contains(why), "{stray:?}");
        }
        for host in [1, 0] {
            world.tell(host, &["teardown"]);
        }
    });
}

#[test]
fn a_key_that_others_may_read_or_that_is_none_is_refused_before_anything_is_done() {
    let dir = std::env::temp_dir().join(format!("overlay-node-key-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    let file = dir.join("key");
    for (text, mode, why) in [
        ("0a".repeat(32), 0o640, "others may read or write it, chmod 600"),
        ("0a".repeat(31), 0o600, "a key of gossip is 64 hexadecimal digits"),
    ] {
        fs::write(&file, &text).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        let mut node = Command::new(NODE);
        node.args(["run", "--name", "a", "--address", "127.0.0.1", "--manager", "--gossip-key"]).arg(&file);
        node.arg("--dir").arg(dir.join("run")).arg("--state").arg(dir.join("state"));
        let refused = node.stdin(Stdio::null()).output().unwrap();
        let said = String::from_utf8_lossy(&refused.stderr);
        assert!(!refused.status.success() && said.contains(why) && !said.contains(&text), "{said}");
        assert!(!dir.join("state").exists() && !dir.join("run").exists());
    }
    fs::remove_dir_all(&dir).unwrap();
}

/// A command that goes on, and what it says.
struct Watching {
    command: Child,
    said: Receiver<String>,
}

impl Watching {
    fn begin(world: &World, words: &[&str]) -> Self {
        let mut command = Command::new(NODE);
        command.arg("--socket").arg(world.socket(1)).args(words).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut command = command.spawn().unwrap();
        let (lines, said) = (BufReader::new(command.stdout.take().unwrap()).lines(), channel());
        std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| said.0.send(line)));
        Self { command, said: said.1 }
    }

    #[track_caller]
    fn says(&self, what: &str) {
        let line = self.said.recv_timeout(SOON).unwrap();
        assert!(line.contains(what), "{line}");
    }

    /// What it says until a line has this.
    #[track_caller]
    fn until(&self, what: &str) -> Vec<String> {
        let mut said: Vec<String> = Vec::new();
        while !said.last().is_some_and(|line| line.contains(what)) {
            said.push(self.said.recv_timeout(SOON).unwrap());
        }
        said
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let _ = self.command.kill();
        let _ = self.command.wait();
    }
}

#[test]
fn whoever_watches_a_service_at_another_node_is_told_what_comes_and_goes() {
    kernel_test(Kernel::Host, "examples::whoever_watches_a_service_at_another_node", || {
        let world = World::new();
        world.tell(0, &["network", "create", "-d", "overlay", "--attachable", "front"]);
        let watching = Watching::begin(&world, &["service", "watch", "web"]);
        watching.says("there is no service web");
        world.tell(0, &["service", "create", "--name", "web", "--network", "front"]);
        watching.says("web, 0 endpoints");
        let container = world.lab.container("web-1").unwrap();
        let path = container.source.path().unwrap();
        let words = ["--json", "attach", "front", "--name", "web-1", "--service", "web", "--weight", "3", "--netns"];
        let attached = world.tell(0, &[&words[..], &[path.to_str().unwrap()]].concat());
        let attached: Value = serde_json::from_str(&attached).unwrap();
        let said = watching.until("healthy"); // suspect before, unless it was in effect before that was told
        assert!(said[0].contains("weight 3, ") && said[0].contains("added"), "{said:?}");
        world.tell(0, &["detach", attached["endpoint"]["id"].as_str().unwrap()]);
        watching.says("removed");
        for host in [1, 0] {
            world.tell(host, &["teardown"]);
        }
    });
}

/// A process that does not outlive its test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Says its name to whoever asks over HTTP, until the process ends.
fn responds(container: &Container, name: &'static str) {
    let listener = container.namespace.run(|| TcpListener::bind("0.0.0.0:8080")).unwrap().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 4096]);
            let length = name.len();
            let said = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{name}");
            let _ = stream.write_all(said.as_bytes());
        }
    });
}

/// What is said to a request, if anything is.
fn get(from: &Container, at: &str) -> Option<String> {
    let at = at.parse().unwrap();
    let mut stream = from.namespace.run(|| TcpStream::connect_timeout(&at, Duration::from_secs(1))).ok()?.ok()?;
    stream.set_read_timeout(Some(SOON)).ok()?;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: shop\r\nconnection: close\r\n\r\n").ok()?;
    let mut said = String::new();
    stream.read_to_string(&mut said).ok()?;
    said.starts_with("HTTP/1.1 200").then(|| said.rsplit("\r\n").next().unwrap_or_default().to_owned())
}

#[test]
fn l7_follows_the_services_of_a_node_that_runs_as_its_help_says() {
    kernel_test(Kernel::Host, "examples::l7_follows_the_services_of_a_node_that_runs", || {
        let world = World::new();
        world.tell(0, &["network", "create", "-d", "overlay", "--attachable", "front"]);
        world.tell(0, &["service", "create", "--name", "web", "--network", "front"]);
        let replicas = [(0, "web-1"), (1, "web-2")].map(|(host, name)| {
            let container = world.lab.container(name).unwrap();
            let path = container.source.path().unwrap().to_str().unwrap().to_owned();
            responds(&container, name);
            let words = ["--json", "attach", "front", "--name", name, "--service", "web", "--netns", &path];
            let attached: Value = serde_json::from_str(&world.tell(host, &words)).unwrap();
            (container, attached["endpoint"]["id"].as_str().unwrap().to_owned())
        });
        let edge = world.attach(0, "edge");
        let mut l7 = Command::new(env!("CARGO_BIN_EXE_l7"));
        l7.arg("--control").arg(world.socket(0)).args(["--listen", "0.0.0.0:8000", "--route", "*=web:8080"]);
        l7.stdin(Stdio::null()).stdout(Stdio::null());
        let proxy = Ended(edge.namespace.run(|| l7.spawn()).unwrap().unwrap());
        let answers = || (0..10).map(|_| get(&edge, "127.0.0.1:8000")).collect::<BTreeSet<_>>();
        let named = |names: &[&str]| names.iter().map(|name| Some((*name).to_owned())).collect::<BTreeSet<_>>();
        until(|| answers() == named(&["web-1", "web-2"]));
        world.tell(0, &["detach", &replicas[0].1]);
        until(|| answers() == named(&["web-2"]));
        drop(proxy);
        for host in [1, 0] {
            world.tell(host, &["teardown"]);
        }
    });
}
