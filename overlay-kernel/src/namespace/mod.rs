//! Network namespaces: made, opened, entered.

mod dir;
mod private;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::panic::resume_unwind;
use std::path::Path;
use std::thread;

use nix::fcntl::OFlag;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::statfs::{NSFS_MAGIC, fstatfs};
use overlay_core::{BackendError, ErrorKind, Name, NsId, NsKey};

pub use self::dir::NamespaceDir;
pub use self::private::enter_private;
use crate::failed;

/// A network namespace, held open: it lives at least as long as this value.
///
/// What the kernel ties to a namespace it ties to the *thread* that asks: a socket belongs for life to the
/// namespace of the thread that opened it, and `/proc/sys/net` shows that of the thread that looks.
/// [`run`](Self::run) is how to ask: on a thread made for it, which is thrown away after.
///
/// Making and entering one needs `CAP_SYS_ADMIN`; an ordinary user has it after [`enter_private`].
///
/// ```no_run
/// use overlay_kernel::Namespace;
///
/// let namespace = Namespace::create()?;
/// let links = namespace.run(|| std::fs::read_to_string("/proc/thread-self/net/dev"))?;
/// println!("{} holds {links:?}", namespace.id());
/// # Ok::<(), overlay_core::BackendError>(())
/// ```
#[derive(Debug)]
pub struct Namespace {
    file: OwnedFd,
    id: NsId,
}

impl Namespace {
    /// A new one without a name, empty but for a loopback device that is down. It goes with the last value, process
    /// and socket that holds it.
    ///
    /// # Errors
    /// [`ErrorKind::Permission`] without `CAP_SYS_ADMIN`; [`ErrorKind::Limit`] beyond
    /// `/proc/sys/user/max_net_namespaces`.
    pub fn create() -> Result<Self, BackendError> {
        on_a_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET).map_err(|error| failed("create a network namespace", error))?;
            Self::current()
        })
    }

    /// The calling thread's.
    pub fn current() -> Result<Self, BackendError> {
        Self::open("/proc/thread-self/ns/net")
    }

    /// The one a process is in.
    ///
    /// # Errors
    /// [`ErrorKind::Gone`] if there is no such process.
    pub fn of_process(pid: u32) -> Result<Self, BackendError> {
        Self::open(format!("/proc/{pid}/ns/net"))
    }

    /// The one that is mounted at `path`, as container runtimes and `ip netns` do, or that a `/proc/…/ns/net` leads to.
    ///
    /// # Errors
    /// [`ErrorKind::Gone`] if nothing is at `path`, or a plain file is: the place where a namespace was mounted once.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, BackendError> {
        let path = path.as_ref();
        let doing = || format!("open network namespace {}", path.display());
        // A FIFO would have us wait for somebody who writes to it.
        let flags = OFlag::O_NONBLOCK.bits();
        let file = File::options().read(true).custom_flags(flags).open(path).map_err(|error| failed(doing(), error))?;
        Self::checked(file.into(), doing)
    }

    /// The one an open file is, such as a runtime hands over.
    ///
    /// # Errors
    /// [`ErrorKind::Gone`] if it is no namespace's file.
    pub fn from_fd(file: OwnedFd) -> Result<Self, BackendError> {
        Self::checked(file, || "take a network namespace's file".to_owned())
    }

    fn checked(file: OwnedFd, doing: impl Fn() -> String) -> Result<Self, BackendError> {
        let kind = fstatfs(&file).map_err(|error| failed(doing(), error))?.filesystem_type();
        if kind != NSFS_MAGIC {
            return Err(BackendError::new(ErrorKind::Gone, doing()).caused_by("a plain file, no namespace's"));
        }
        let file = File::from(file);
        let meta = file.metadata().map_err(|error| failed(doing(), error))?;
        Ok(Self { file: file.into(), id: NsId { device: meta.dev(), inode: meta.ino() } })
    }

    /// Which one it is. Two values with one id are one namespace.
    pub const fn id(&self) -> NsId {
        self.id
    }

    /// What area values call it.
    pub fn key(&self, name: Name) -> NsKey {
        NsKey { name, id: self.id }
    }

    /// Another value for the same namespace.
    pub fn try_clone(&self) -> Result<Self, BackendError> {
        let file = self.file.try_clone().map_err(|error| failed(format!("hold {} twice", self.id), error))?;
        Ok(Self { file, id: self.id })
    }

    /// Runs `job` in this namespace, on a thread made for it, and waits for it. Sockets that it opens stay there.
    ///
    /// It takes about as long as starting a thread (tens of microseconds), so do several things in one job. A job
    /// that returns a `Result` is flattened: `namespace.run(job).flatten()`.
    ///
    /// # Errors
    /// Before `job` ran: [`ErrorKind::Permission`] without `CAP_SYS_ADMIN` over the namespace, [`ErrorKind::Limit`]
    /// if there can be no more threads, [`ErrorKind::Invalid`] if the file is another kind of namespace's.
    ///
    /// # Panics
    /// As `job` does, with its payload.
    pub fn run<T: Send>(&self, job: impl FnOnce() -> T + Send) -> Result<T, BackendError> {
        on_a_thread(|| {
            setns(&self.file, CloneFlags::CLONE_NEWNET).map_err(|error| failed(format!("enter {}", self.id), error))?;
            Ok(job())
        })
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Runs `job` on a thread of its own: whatever it does to its namespaces dies with it.
fn on_a_thread<T: Send>(job: impl FnOnce() -> Result<T, BackendError> + Send) -> Result<T, BackendError> {
    thread::scope(|scope| {
        let started = thread::Builder::new().name("namespace".to_owned()).spawn_scoped(scope, job);
        let thread = started.map_err(|error: io::Error| failed("start a thread for a namespace", error))?;
        thread.join().unwrap_or_else(|panic| resume_unwind(panic))
    })
}
