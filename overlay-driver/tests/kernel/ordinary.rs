//! A user who may do nothing.

use std::error::Error;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
use overlay_core::testing::{Kernel, kernel_test};
use overlay_core::{ErrorKind, MemoryStore, Prefix, Store};
use overlay_driver::testing::{Carried, node};
use overlay_driver::{Driver, KernelPlaces, StartError, UserspacePlaces};
use overlay_kernel::Namespace;
use overlay_node::{Control, Encryption, Feed, Manager, NetworkSpec};

use crate::world::{World, attachable};

/// A second process of this test is told by this that it is to give its privileges up, and where its directory is.
const DIR: &str = "OVERLAY_DRIVER_TEST_ORDINARY";
/// A second process is told by this that it is an ordinary user in a private world, and what becomes of it.
const COMES: &str = "OVERLAY_DRIVER_TEST_COMES";
const NOBODY: u32 = 65_534;

/// All causes, as a person is told them.
fn causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

fn assert_says_what_is_missing(error: &(dyn Error + 'static)) {
    let text = causes(error);
    for word in ["CAP_SYS_ADMIN", "CAP_NET_ADMIN", "root"] {
        assert!(text.contains(word), "{text}");
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn who_lacks_the_privilege_is_told_which_and_nothing_is_changed() {
    kernel_test(Kernel::Host, "driver::who_lacks_the_privilege_is_told_which", || {
        let dir = std::env::temp_dir().join(format!("overlay-driver-ordinary-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        chown(&dir, Some(NOBODY), Some(NOBODY)).unwrap();
        fs::set_permissions(&dir, PermissionsExt::from_mode(0o700)).unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "ordinary::user", "--nocapture"]).env(DIR, &dir);
        let output = command.output().unwrap();
        let left = files(&dir);
        fs::remove_dir_all(&dir).unwrap();
        assert!(output.status.success(), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stdout).contains("the ordinary user was refused"), "{output:?}");
        assert!(left.is_empty(), "{left:?}");
    });
}

#[test]
fn an_ordinary_user_carries_in_user_space_where_taps_are_for_all_and_is_told_where_they_are_not() {
    kernel_test(Kernel::Host, "driver::an_ordinary_user_carries_in_user_space_where_taps_are_for_all", || {
        // A device of taps that is for all, or for root; then the ordinary user, who makes a private world.
        const DEVICE: &str = r#"mount -t tmpfs none /dev/net && mknod -m "$0" /dev/net/tun c 10 200 && exec "$@""#;
        const WORLD: &str = r#"mount -t tmpfs none /run && exec "$0" "$@""#;
        for (mode, comes) in [("666", "carried"), ("600", "refused")] {
            let mut command = Command::new("unshare");
            command.args(["--mount", "sh", "-c", DEVICE, mode]);
            command.args(["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]);
            command.args(["unshare", "--user", "--map-root-user", "--net", "--mount", "sh", "-c", WORLD]);
            command.arg(std::env::current_exe().unwrap()).args(["--exact", "ordinary::carrier", "--nocapture"]);
            let output = command.env(COMES, comes).current_dir("/").output().unwrap();
            assert!(output.status.success(), "{output:?}");
            let said = format!("the ordinary user was {comes}");
            assert!(String::from_utf8_lossy(&output.stdout).contains(&said), "{output:?}");
        }
    });
}

/// Run as a child by the test.
#[test]
fn carrier() {
    let Ok(comes) = std::env::var(COMES) else { return };
    if comes == "refused" {
        let (cluster, host) = ("lab".parse().unwrap(), Namespace::current().unwrap());
        let refused = UserspacePlaces::new(cluster, node(0), host, Path::new("/run/lab")).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Permission);
        assert!(causes(&refused).contains("/dev/net/tun: Permission denied"), "{}", causes(&refused));
    } else {
        let world = World::carried(2, Carried::InUserSpace);
        world.network(attachable("front"));
        world.network(NetworkSpec { encryption: Encryption::Shared, ..attachable("vault") });
        for network in ["front", "vault"] {
            let (a, _) = world.run(0, &format!("a-{network}"), network);
            let (_b, _) = world.run(1, &format!("b-{network}"), network);
            world.until(Duration::from_secs(15), |world| world.reaches(&a, &format!("b-{network}")));
        }
    }
    println!("the ordinary user was {comes}");
}

/// Run as a child by the test.
#[test]
fn user() {
    let Some(dir) = std::env::var_os(DIR).map(PathBuf::from) else { return };
    let places = |host| KernelPlaces::new("lab".parse().unwrap(), node(0), host, &dir);
    let privileged = places(Namespace::current().unwrap()).unwrap();
    setgroups(&[]).unwrap();
    setresgid(Gid::from_raw(NOBODY), Gid::from_raw(NOBODY), Gid::from_raw(NOBODY)).unwrap();
    setresuid(Uid::from_raw(NOBODY), Uid::from_raw(NOBODY), Uid::from_raw(NOBODY)).unwrap();

    let refused = places(Namespace::current().unwrap()).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Permission);
    assert_says_what_is_missing(&refused);

    let (store, root): (Arc<dyn Store>, _) = (Arc::new(MemoryStore::default()), Prefix::new("lab/").unwrap());
    let manager = Arc::new(Manager::new(Arc::clone(&store), &root, node(0), [7; 32]).unwrap());
    let feed = Feed::new(store, &root).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let builder = Driver::builder(node(0), privileged, manager.clone(), feed);
    let started = runtime.block_on(builder.gossip("127.0.0.1:0".parse().unwrap()).dir(&dir).start());
    let refused = started.unwrap_err();
    assert!(matches!(&refused, StartError::Places(error) if error.kind() == ErrorKind::Permission), "{refused:?}");
    assert_says_what_is_missing(&refused);
    assert_eq!(runtime.block_on(manager.nodes()).unwrap(), []);
    println!("the ordinary user was refused");
}
