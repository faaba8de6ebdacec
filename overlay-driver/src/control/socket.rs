//! A Unix socket at a path.

use std::fs::{File, TryLockError};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::sleep;

use super::BindError;

/// The file of a socket that we bound. It goes when this is dropped, unless another has taken its place.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl SocketFile {
    /// Binds a socket there, of this mode and group, in place of what a dead process left. Nobody can connect before it has them.
    pub(super) async fn bind(path: &Path, mode: u32, group: Option<u32>) -> Result<(Self, UnixListener), BindError> {
        let path = std::path::absolute(path).map_err(system("find", path))?;
        let _lock = lock(&path).await?;
        clear(&path).await?;
        let listener = open(&path, mode, group);
        let listener = listener.inspect_err(|_| drop(std::fs::remove_file(&path)))?;
        let meta = std::fs::symlink_metadata(&path).map_err(system("look at", &path))?;
        Ok((Self { device: meta.dev(), inode: meta.ino(), path }, listener))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = |meta: std::fs::Metadata| (meta.dev(), meta.ino()) == (self.device, self.inode);
        if std::fs::symlink_metadata(&self.path).is_ok_and(ours) {
            drop(std::fs::remove_file(&self.path));
        }
    }
}

fn system(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BindError {
    let path = path.to_owned();
    move |source| BindError::System { doing, path, source }
}

/// Locks the directory: of several who find what a dead process left there, one after the other looks and binds. The lock goes with the
/// file, or with us.
async fn lock(path: &Path) -> Result<File, BindError> {
    let directory = path.parent().unwrap_or_else(|| Path::new("/"));
    let file = File::open(directory).map_err(system("open", directory))?;
    for _ in 0..LOCK_ATTEMPTS {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => sleep(LOCK_WAIT).await,
            Err(TryLockError::Error(error)) => return Err(system("lock", directory)(error)),
        }
    }
    Err(BindError::Locked { directory: directory.to_owned() })
}

/// Removes the socket of a dead process: the one that nobody listens on.
async fn clear(path: &Path) -> Result<(), BindError> {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(system("look at", path)(error)),
        Ok(meta) if !meta.file_type().is_socket() => return Err(BindError::NotASocket { path: path.to_owned() }),
        Ok(_) => {}
    }
    match UnixStream::connect(path).await.map(drop).map_err(|error| (error.kind(), error)) {
        Err((io::ErrorKind::ConnectionRefused, _)) => std::fs::remove_file(path).map_err(system("remove", path)),
        Err((io::ErrorKind::NotFound, _)) => Ok(()),
        // Somebody listens, and has more to do than it can.
        Ok(()) | Err((io::ErrorKind::WouldBlock, _)) => Err(BindError::Conflict { path: path.to_owned() }),
        Err((_, error)) => Err(system("ask who has", path)(error)),
    }
}

fn open(path: &Path, mode: u32, group: Option<u32>) -> Result<UnixListener, BindError> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let errno = |doing| move |errno: nix::Error| system(doing, path)(errno.into());
    let address = UnixAddr::new(path).map_err(errno("make an address of"))?;
    let fd = socket(AddressFamily::Unix, SockType::Stream, flags, None).map_err(errno("make a socket for"))?;
    bind(fd.as_raw_fd(), &address).map_err(errno("bind"))?;
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).map_err(system("set the mode of", path))?;
    if group.is_some() {
        chown(path, None, group).map_err(system("set the group of", path))?;
    }
    let backlog = Backlog::new(BACKLOG).map_err(errno("listen at"))?;
    listen(&fd, backlog).map_err(errno("listen at"))?;
    UnixListener::from_std(fd.into()).map_err(system("listen at", path))
}

const LOCK_ATTEMPTS: u32 = 200;
const LOCK_WAIT: Duration = Duration::from_millis(10);
/// Connections that wait to be accepted.
const BACKLOG: i32 = 128;
