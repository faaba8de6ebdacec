//! What `overlay-node` says where it is no use: what was wrong, where, and what would be right. No node runs, and no privilege is needed.

#![expect(clippy::disallowed_methods, reason = "a node that is not refused would run on, and is waited for no longer")]
#![expect(clippy::unwrap_used, reason = "helpers of tests fail loudly too")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

const NODE: &str = env!("CARGO_BIN_EXE_overlay-node");

/// What it says as it fails. One that is not refused would run on: it is ended then.
#[track_caller]
fn refused(words: &[&str]) -> String {
    let mut node = Command::new(NODE);
    let mut node = node.args(words).stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let begun = Instant::now();
    while node.try_wait().unwrap().is_none() && begun.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_millis(5));
    }
    let _ = node.kill();
    let output = node.wait_with_output().unwrap();
    assert!(output.status.code().is_some_and(|code| code != 0), "{words:?}: {output:?}");
    String::from_utf8(output.stderr).unwrap()
}

/// A directory that goes with its test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("overlay-node-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn below(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn who_finds_no_node_is_told_to_run_one() {
    let folder = Folder::new("nobody");
    let socket = folder.below("control.sock");
    let said = refused(&["--socket", &socket, "network", "ls"]);
    assert!(said.contains(&format!("nobody answers at {socket}")), "{said}");
    assert!(said.contains("try this: see whether the node runs (overlay-node run)"), "{said}");
    let said: Value = serde_json::from_str(&refused(&["--json", "--socket", &socket, "network", "ls"])).unwrap();
    assert!(said["hint"].as_str().is_some_and(|hint| hint.contains("overlay-node run")), "{said}");
}

#[test]
fn a_directory_that_cannot_be_made_and_a_catalogue_that_is_none_are_named() {
    let folder = Folder::new("places");
    let file = folder.below("file");
    fs::write(&file, "a plain file").unwrap();
    let run = ["run", "--name", "a", "--address", "127.0.0.1", "--manager", "--dir"];
    let (inside, state) = (format!("{file}/run"), folder.below("state"));
    let said = refused(&[&run[..], &[&inside, "--state", &state]].concat());
    assert!(said.contains(&inside) && said.contains("name another by --dir or --state"), "{said}");
    fs::create_dir_all(&state).unwrap();
    fs::write(format!("{state}/catalogue.redb"), "no catalogue").unwrap();
    let said = refused(&[&run[..], &[&folder.below("run"), "--state", &state]].concat());
    assert!(said.contains(&format!("{state}/catalogue.redb")), "{said}");
}

#[test]
fn a_node_of_a_cluster_runs_as_such_and_no_cluster_is_founded_over_another_whose_keys_are_gone() {
    let folder = Folder::new("twice");
    let state = folder.below("state");
    let init = ["node", "init", "--address", "127.0.0.1", "--state", &state];
    let founded = Command::new(NODE).args(init).stdin(Stdio::null()).output().unwrap();
    assert!(founded.status.success(), "{founded:?}");
    assert!(refused(&init).contains("this node is in a cluster already: leave it first"));
    let (socket, key, dir) = (folder.below("control.sock"), folder.below("key"), folder.below("run"));
    fs::write(&key, "0a".repeat(32)).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    for (as_before, why) in [
        (&["--manager"][..], "this node is in a cluster: run it without --manager"),
        (&["--manager-socket", &socket], "this node is in a cluster: run it without --manager"),
        (&["--gossip-key", &key], "run it without --gossip-key"),
    ] {
        let run = ["run", "--name", "a", "--address", "127.0.0.1", "--dir", &dir, "--state", &state];
        let said = refused(&[&run[..], as_before].concat());
        assert!(said.contains(why), "{said}");
    }
    fs::remove_dir_all(format!("{state}/vault")).unwrap(); // as `node leave --force` of the last manager does
    let said = refused(&init);
    assert!(said.contains(&format!("{state}/catalogue.redb")) && said.contains("remove it"), "{said}");
    fs::remove_file(format!("{state}/catalogue.redb")).unwrap();
    let again = Command::new(NODE).args(init).stdin(Stdio::null()).output().unwrap();
    assert!(again.status.success(), "{again:?}");
}
