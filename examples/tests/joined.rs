//! `overlay-node`: a cluster of machines, formed from the command line by a join token.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail loudly too")]
#![expect(clippy::disallowed_methods, reason = "a test measures time and waits")]

use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use overlay_core::testing::{Kernel, kernel_test};
use overlay_driver::testing::{Container, Lab, ping, resolve};
use serde_json::Value;

const NODE: &str = env!("CARGO_BIN_EXE_overlay-node");
const SOON: Duration = Duration::from_secs(20);

struct World {
    lab: Lab,
    nodes: [Option<Child>; 2],
}

impl World {
    fn new() -> Self {
        let dir = format!("/run/overlay-joined-test-{}", std::process::id());
        Self { lab: Lab::new(2, dir).unwrap(), nodes: [None, None] }
    }

    /// A command of no node that runs, on a host.
    fn on(&self, host: usize, words: &[&str]) -> Output {
        let mut command = Command::new(NODE);
        command.args(words).arg("--state").arg(self.lab.dir(host).join("state")).stdin(Stdio::null());
        // A child is in the namespace of the thread that starts it.
        self.lab.host(host).run(|| command.output()).unwrap().unwrap()
    }

    fn start(&mut self, host: usize) {
        let mut node = Command::new(NODE);
        node.args(["run", "--name", &format!("host-{}", host + 1), "--address", &self.lab.address(host).to_string()]);
        node.arg("--dir").arg(self.lab.dir(host)).arg("--state").arg(self.lab.dir(host).join("state"));
        node.stdin(Stdio::null()).stdout(Stdio::null());
        self.nodes[host] = Some(self.lab.host(host).run(|| node.spawn()).unwrap().unwrap());
        until(|| self.told(host, &["status"]).status.success());
    }

    fn told(&self, host: usize, words: &[&str]) -> Output {
        let socket = self.lab.dir(host).join("control.sock");
        Command::new(NODE).arg("--socket").arg(socket).args(words).stdin(Stdio::null()).output().unwrap()
    }

    #[track_caller]
    fn tell(&self, host: usize, words: &[&str]) -> String {
        said(&self.told(host, words)).unwrap()
    }

    fn attach(&self, host: usize, name: &str) -> Container {
        let container = self.lab.container(name).unwrap();
        let path = container.source.path().unwrap();
        self.tell(host, &["attach", "front", "--name", name, "--netns", path.to_str().unwrap()]);
        container
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
fn until(holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < SOON, "it never came about");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn two_machines_form_a_cluster_from_the_command_line_and_one_leaves() {
    kernel_test(Kernel::Host, "examples::two_machines_form_a_cluster_from_the_command_line", || {
        let mut world = World::new();
        let manager = world.lab.address(0).to_string();
        said(&world.on(0, &["node", "init", "--address", &manager])).unwrap();
        let again = said(&world.on(0, &["node", "init", "--address", &manager])).unwrap_err();
        assert!(again.contains("in a cluster already"), "{again}");
        let seat = world.lab.dir(0).join("state/seat.json");
        assert_eq!(std::fs::metadata(seat).unwrap().permissions().mode() & 0o777, 0o600);
        world.start(0);

        let token = world.tell(0, &["node", "token"]).trim().to_owned();
        let wrong = format!("{}{}", &token[..token.len() - 4], "0000");
        let refused = said(&world.on(1, &["node", "join", "--token", &wrong, &manager])).unwrap_err();
        assert!(refused.contains("a valid join token is necessary"), "{refused}");
        assert!(said(&world.on(1, &["node", "join", "--token", &token, &manager])).unwrap().contains("worker"));
        world.start(1);

        world.tell(0, &["network", "create", "-d", "overlay", "--attachable", "front"]);
        let not = said(&world.told(1, &["network", "create", "--attachable", "back"])).unwrap_err();
        assert!(not.contains("only managers may create a network"), "{not}");
        let (web, _db) = (world.attach(0, "web"), world.attach(1, "db"));
        let found = || resolve(&web.namespace, "db", Duration::from_millis(500)).unwrap_or_default();
        until(|| !found().is_empty());
        let db = found()[0];
        until(|| matches!(ping(&web.namespace, db, Duration::from_millis(300)), Ok(Some(_))));
        let listed = world.tell(0, &["node", "ls"]);
        assert!(listed.contains("manager") && listed.contains("worker"), "{listed}");
        let status: Value = serde_json::from_str(&world.tell(1, &["--json", "status"])).unwrap();
        assert!(status["seal"].is_object(), "gossip is sealed by the key that it was told");

        world.tell(0, &["node", "token", "rotate"]);
        world.tell(1, &["node", "leave"]);
        assert!(world.nodes[1].take().unwrap().wait().unwrap().success());
        until(|| !world.tell(0, &["node", "ls"]).contains("worker"));
        let late = said(&world.on(1, &["node", "join", "--token", &token, &manager])).unwrap_err();
        assert!(late.contains("a valid join token is necessary"), "{late}");
        world.tell(0, &["teardown"]);
        assert!(world.nodes[0].take().unwrap().wait().unwrap().success());
    });
}
