//! `overlay-node`: a cluster of machines, formed from the command line by a join token.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail loudly too")]
#![expect(clippy::disallowed_methods, reason = "a test measures time and waits")]

use std::io::Write as _;
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
    fn new(name: &str) -> Self {
        let dir = format!("/run/overlay-joined-test-{}-{name}", std::process::id());
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
        self.spawn(host);
        until(|| self.told(host, &["status"]).status.success());
    }

    fn spawn(&mut self, host: usize) {
        let mut node = Command::new(NODE);
        node.args(["run", "--name", &format!("host-{}", host + 1), "--address", &self.lab.address(host).to_string()]);
        node.arg("--dir").arg(self.lab.dir(host)).arg("--state").arg(self.lab.dir(host).join("state"));
        node.stdin(Stdio::null()).stdout(Stdio::null());
        self.nodes[host] = Some(self.lab.host(host).run(|| node.spawn()).unwrap().unwrap());
    }

    /// As when the machine loses its power.
    fn kill(&mut self, host: usize) {
        let mut node = self.nodes[host].take().unwrap();
        node.kill().unwrap();
        node.wait().unwrap();
    }

    fn told(&self, host: usize, words: &[&str]) -> Output {
        self.told_and(host, words, "")
    }

    /// With that to read.
    fn told_and(&self, host: usize, words: &[&str], input: &str) -> Output {
        let mut command = Command::new(NODE);
        command.arg("--socket").arg(self.lab.dir(host).join("control.sock")).args(words);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes()); // it may read nothing
        child.wait_with_output().unwrap()
    }

    #[track_caller]
    fn tell(&self, host: usize, words: &[&str]) -> String {
        said(&self.told(host, words)).unwrap()
    }

    /// How its gossip is sealed.
    fn seal(&self, host: usize) -> Value {
        serde_json::from_str::<Value>(&self.tell(host, &["--json", "status"])).unwrap()["seal"].clone()
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
fn a_node_whose_keys_are_locked_waits_for_its_unlock_key_at_its_start() {
    kernel_test(Kernel::Host, "examples::a_node_whose_keys_are_locked_waits_for_its_unlock_key", || {
        let mut world = World::new("locked");
        let manager = world.lab.address(0).to_string();
        said(&world.on(0, &["node", "init", "--address", &manager])).unwrap();
        world.start(0);
        let not = said(&world.told(0, &["node", "unlock-key"])).unwrap_err();
        assert!(not.contains("the node's keys are not locked"), "{not}");
        let first = world.tell(0, &["node", "lock"]).lines().next().unwrap().to_owned();
        let key = world.tell(0, &["node", "unlock-key", "rotate"]).lines().next().unwrap().to_owned();
        assert!(key.starts_with("SWMKEY-1-") && key != first);
        assert_eq!(world.tell(0, &["node", "unlock-key"]).trim(), key);
        world.tell(0, &["gossip-key", "rotate"]); // what is written meanwhile is locked too
        world.tell(0, &["network", "create", "--attachable", "front"]);
        until(|| world.seal(0)["number"] == 2);
        let key_of_gossip = world.seal(0)["primary"].clone(); // which was written down before it was sealed with
        world.kill(0);

        world.spawn(0);
        let refused = |words: &[&str]| said(&world.told(0, words)).unwrap_err();
        until(|| refused(&["status"]).contains("locked"));
        for words in [&["network", "ls"][..], &["node", "ls"], &["node", "token"], &["node", "lock"], &["teardown"]] {
            assert!(refused(words).contains("locked"), "{words:?}");
        }
        let again = said(&world.on(0, &["node", "init", "--address", &manager])).unwrap_err();
        assert!(again.contains("in a cluster already"), "{again}");
        for wrong in [first.as_str(), "SWMKEY-1-", ""] {
            let refused = said(&world.told_and(0, &["node", "unlock"], wrong)).unwrap_err();
            assert!(refused.contains("unlock key") || refused.contains("invalid key"), "{refused}");
        }
        said(&world.told_and(0, &["node", "unlock"], &key)).unwrap();
        until(|| world.told(0, &["status"]).status.success());
        assert!(world.tell(0, &["network", "ls"]).contains("front"));
        assert!(world.seal(0)["keys"].as_array().unwrap().contains(&key_of_gossip), "it has the next key of gossip");
        let late = said(&world.told_and(0, &["node", "unlock"], &key)).unwrap_err();
        assert!(late.contains("not waiting"), "{late}");
        world.tell(0, &["node", "lock", "off"]);
        world.kill(0);
        world.start(0);
        for words in [&["node", "leave"][..], &["teardown"]] {
            let refused = said(&world.told(0, words)).unwrap_err();
            assert!(refused.contains("is the last manager"), "{refused}");
        }
        world.tell(0, &["node", "leave", "--force"]);
        assert!(world.nodes[0].take().unwrap().wait().unwrap().success());
    });
}

#[test]
fn two_machines_form_a_cluster_from_the_command_line_and_one_leaves() {
    kernel_test(Kernel::Host, "examples::two_machines_form_a_cluster_from_the_command_line", || {
        let mut world = World::new("formed");
        let manager = world.lab.address(0).to_string();
        said(&world.on(0, &["node", "init", "--address", &manager])).unwrap();
        let again = said(&world.on(0, &["node", "init", "--address", &manager])).unwrap_err();
        assert!(again.contains("in a cluster already"), "{again}");
        let seat = world.lab.dir(0).join("state/vault/identity");
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
        // One that joins and never runs is removed all the same, and what it knew is changed.
        let present = world.tell(0, &["node", "token"]).trim().to_owned();
        std::fs::remove_file(world.lab.dir(1).join("state/node-id")).unwrap();
        said(&world.on(1, &["node", "join", "--token", &present, &manager])).unwrap();
        let idle = std::fs::read_to_string(world.lab.dir(1).join("state/node-id")).unwrap().trim().to_owned();
        let removed = world.tell(0, &["node", "rm", "--rotate", &idle]);
        assert!(removed.contains("the key of gossip") && !removed.contains("join tokens"), "{removed}");
        assert_ne!(world.tell(0, &["node", "token"]).trim(), present);
        let again = said(&world.on(1, &["node", "join", "--token", &present, &manager])).unwrap_err();
        assert!(again.contains("in a cluster already"), "{again}");
        std::fs::remove_dir_all(world.lab.dir(1).join("state/vault")).unwrap();
        let late = said(&world.on(1, &["node", "join", "--token", &token, &manager])).unwrap_err();
        assert!(late.contains("a valid join token is necessary"), "{late}");
        for words in [&["node", "leave"][..], &["teardown"]] {
            let refused = said(&world.told(0, words)).unwrap_err();
            assert!(refused.contains("is the last manager"), "{refused}");
        }
        world.tell(0, &["node", "leave", "--force"]);
        assert!(world.nodes[0].take().unwrap().wait().unwrap().success());
    });
}
