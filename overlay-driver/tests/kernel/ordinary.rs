//! A user who may do nothing.

use std::error::Error;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
use overlay_core::testing::{Kernel, kernel_test};
use overlay_core::{ErrorKind, MemoryStore, Prefix, Store};
use overlay_driver::testing::node;
use overlay_driver::{Driver, KernelPlaces, StartError};
use overlay_kernel::Namespace;
use overlay_node::{Control, Feed, Manager};

/// A second process of this test is told by this that it is to give its privileges up, and where its directory is.
const DIR: &str = "OVERLAY_DRIVER_TEST_ORDINARY";
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
