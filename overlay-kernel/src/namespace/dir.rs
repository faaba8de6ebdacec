//! Namespaces that have names: files in a directory.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use overlay_core::{BackendError, ErrorKind, Name};

use super::{Namespace, on_a_thread};
use crate::failed;

/// A directory of named network namespaces, each mounted on a file, as `ip netns` keeps them in `/run/netns`.
///
/// A named namespace outlives the process that made it, until it is removed by name or the machine restarts. Mounts
/// propagate to other mount namespaces as those of the directory's file system do.
///
/// ```no_run
/// use overlay_kernel::NamespaceDir;
///
/// let names = NamespaceDir::new("/run/netns");
/// let blue = names.create(&"blue".parse()?)?;
/// assert_eq!(names.open(&"blue".parse()?)?.id(), blue.id());
/// names.remove(&"blue".parse()?)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamespaceDir(PathBuf);

impl NamespaceDir {
    /// The directory at `path`. It is made when the first namespace is.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The file of the namespace `name`.
    pub fn path(&self, name: &Name) -> PathBuf {
        self.0.join(name.as_str())
    }

    /// Makes a namespace with this name. A stale file of that name, with no namespace on it, is used.
    /// Waits while another process gives a name in this directory.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] if a namespace has the name: nothing was changed. [`ErrorKind::Permission`] without
    /// `CAP_SYS_ADMIN`; the file may remain then, as a stale one.
    pub fn create(&self, name: &Name) -> Result<Namespace, BackendError> {
        let path = self.path(name);
        let doing = || format!("create network namespace {}", path.display());
        let _alone = self.claim(&path, doing)?;
        on_a_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET).map_err(|error| failed(doing(), error))?;
            bind("/proc/thread-self/ns/net", &path).map_err(|error| failed(doing(), error))?;
            Namespace::current()
        })
    }

    /// Gives a namespace that exists a name here, so that it outlives this process.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn keep(&self, name: &Name, namespace: &Namespace) -> Result<(), BackendError> {
        let path = self.path(name);
        let doing = || format!("name {} {}", namespace.id(), path.display());
        let _alone = self.claim(&path, doing)?;
        namespace.run(|| bind("/proc/thread-self/ns/net", &path).map_err(|error| failed(doing(), error))).flatten()
    }

    /// Sees that no namespace has the name, and to it that there is a file to mount one on. While the value it returns
    /// lives, nobody else does the same in this directory.
    fn claim(&self, path: &Path, doing: impl Fn() -> String) -> Result<File, BackendError> {
        fs::create_dir_all(&self.0).map_err(|error| failed(doing(), error))?;
        let dir = File::open(&self.0).map_err(|error| failed(doing(), error))?;
        dir.lock().map_err(|error| failed(doing(), error))?;
        match Namespace::open(path) {
            Ok(_) => return Err(BackendError::new(ErrorKind::Conflict, doing())),
            Err(error) if error.kind() == ErrorKind::Gone => {}
            Err(error) => return Err(error),
        }
        let made = OpenOptions::new().create(true).write(true).truncate(false).open(path);
        made.map_err(|error| failed(doing(), error))?;
        Ok(dir)
    }

    /// The namespace with this name.
    ///
    /// # Errors
    /// [`ErrorKind::Gone`] if there is none.
    pub fn open(&self, name: &Name) -> Result<Namespace, BackendError> {
        Namespace::open(self.path(name))
    }

    /// Takes the name away; the namespace goes once nothing else holds it. A name that is not there counts as removed.
    pub fn remove(&self, name: &Name) -> Result<(), BackendError> {
        let path = self.path(name);
        let doing = || format!("remove network namespace {}", path.display());
        loop {
            match umount2(&path, MntFlags::MNT_DETACH) {
                Ok(()) => {} // once more: mounts can lie on each other
                Err(Errno::EINVAL | Errno::ENOENT) => break,
                Err(error) => return Err(failed(doing(), error)),
            }
        }
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(doing(), error)),
            _ => Ok(()),
        }
    }

    /// The names of the namespaces here, sorted; stale files and names that are no [`Name`] left out. None if there is
    /// no such directory.
    pub fn names(&self) -> Result<Vec<Name>, BackendError> {
        let doing = || format!("list network namespaces in {}", self.0.display());
        let entries = match fs::read_dir(&self.0) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(doing(), error)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let name = entry.map_err(|error| failed(doing(), error))?.file_name();
            let Some(name) = name.to_str().and_then(|text| Name::new(text).ok()) else { continue };
            if self.open(&name).is_ok() {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }
}

fn bind(from: &str, to: &Path) -> Result<(), Errno> {
    mount(Some(from), to, None::<&str>, MsFlags::MS_BIND, None::<&str>)
}
