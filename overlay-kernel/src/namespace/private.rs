//! A world of one's own for a process without privileges.

use std::fs;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getegid, geteuid};
use overlay_core::{BackendError, ErrorKind};

use crate::failed;

/// Moves the process into user, network and mount namespaces of its own, where it is root and may make namespaces,
/// devices and rules; outside it may do no more than before. `/run` is empty there.
///
/// So an ordinary user runs the examples and tests. Call it first in `main`: the kernel moves only a process that has
/// one thread. There is no way back; what it makes goes when the process ends.
///
/// ```no_run
/// overlay_kernel::enter_private()?;
/// let namespace = overlay_kernel::Namespace::create()?; // no sudo needed
/// # Ok::<(), overlay_core::BackendError>(())
/// ```
///
/// # Errors
/// [`ErrorKind::Invalid`] if the process has several threads: nothing was changed. [`ErrorKind::Permission`] or
/// [`ErrorKind::Limit`] where user namespaces are switched off (`/proc/sys/user/max_user_namespaces`, a security
/// module). Errors after the move name the file or mount; end the process then.
pub fn enter_private() -> Result<(), BackendError> {
    const DOING: &str = "enter a private user namespace";
    let threads = fs::read_dir("/proc/self/task").map_err(|error| failed(DOING, error))?.count();
    if threads != 1 {
        let cause = format!("the process has {threads} threads; it must be called before the second starts");
        return Err(BackendError::new(ErrorKind::Invalid, DOING).caused_by(cause));
    }
    let (user, group) = (geteuid(), getegid());
    let all = CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS;
    unshare(all).map_err(|error| failed(DOING, error))?;
    write("/proc/self/setgroups", "deny")?; // user_namespaces(7): needed before an ordinary user maps its group
    write("/proc/self/uid_map", &format!("0 {user} 1"))?;
    write("/proc/self/gid_map", &format!("0 {group} 1"))?;
    let slave = MsFlags::MS_SLAVE | MsFlags::MS_REC;
    mount(None::<&str>, "/", None::<&str>, slave, None::<&str>)
        .map_err(|error| failed("keep mounts to ourselves", error))?;
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), None::<&str>)
        .map_err(|error| failed("mount an empty /run", error))
}

fn write(path: &'static str, text: &str) -> Result<(), BackendError> {
    fs::write(path, text).map_err(|error| failed(format!("write {text:?} to {path}"), error))
}
