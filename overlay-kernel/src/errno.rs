//! Whose fault an errno is.

use std::borrow::Cow;
use std::io;

use nix::libc;
use overlay_core::{BackendError, ErrorKind};

/// The kind of failure a Linux error number stands for, as rtnetlink, nf_tables, xfrm, IPVS and the file system use it.
///
/// ```
/// use overlay_core::ErrorKind;
/// use overlay_kernel::errno_kind;
///
/// assert_eq!(errno_kind(17), ErrorKind::Conflict); // EEXIST
/// assert_eq!(errno_kind(95), ErrorKind::Unsupported); // EOPNOTSUPP: "Unknown device type"
/// ```
pub const fn errno_kind(errno: i32) -> ErrorKind {
    match errno {
        libc::EPERM | libc::EACCES | libc::EROFS => ErrorKind::Permission,
        libc::EOPNOTSUPP | libc::EPROTONOSUPPORT | libc::EAFNOSUPPORT | libc::ENOSYS | libc::ENOPROTOOPT => {
            ErrorKind::Unsupported
        }
        libc::EPROTO => ErrorKind::Unsupported, // nf_tables: flows are not tracked in this family
        libc::EEXIST | libc::EBUSY | libc::EADDRINUSE | libc::ENOTUNIQ => ErrorKind::Conflict,
        libc::ENOENT | libc::ENODEV | libc::ESRCH | libc::ENXIO | libc::EADDRNOTAVAIL => ErrorKind::Gone,
        libc::EINVAL | libc::ERANGE | libc::EDOM | libc::ENAMETOOLONG | libc::EBADF | libc::ENOTDIR => {
            ErrorKind::Invalid
        }
        libc::EMSGSIZE
        | libc::ENOMEM
        | libc::ENOSPC
        | libc::EMFILE
        | libc::ENFILE
        | libc::E2BIG
        | libc::EXFULL
        | libc::ENOBUFS => ErrorKind::Limit,
        libc::ETIMEDOUT | libc::EAGAIN => ErrorKind::Timeout,
        libc::EINTR | libc::ERESTART => ErrorKind::Interrupted, // ERESTART: nf_tables' generation is another,
        _ => ErrorKind::Other,
    }
}

/// `error` as a backend's, of the kind its errno stands for, with `doing` as an imperative: "create bridge br0".
pub fn failed(doing: impl Into<Cow<'static, str>>, error: impl Into<io::Error>) -> BackendError {
    let error = error.into();
    let kind = error.raw_os_error().map_or(ErrorKind::Other, errno_kind);
    BackendError::new(kind, doing).caused_by(error)
}
