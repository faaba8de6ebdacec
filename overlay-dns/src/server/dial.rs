//! Sockets to upstream servers.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// Opens sockets to upstream servers: in whatever namespace these are to be reached from.
///
/// It is called on the runtime, so it must not take long; a namespace that has to be entered is entered on another thread,
/// which keeps a few sockets ready.
pub trait Dial: Send + Sync + 'static {
    /// A UDP socket for servers of the family that `to` has, bound to a port that the kernel chose, and not connected.
    ///
    /// # Errors
    /// As the system says; the next server is asked then.
    fn udp(&self, to: SocketAddr) -> io::Result<UdpSocket>;

    /// A TCP socket for servers of that family, not connected.
    ///
    /// # Errors
    /// As [`udp`](Self::udp).
    fn tcp(&self, to: SocketAddr) -> io::Result<OwnedFd>;
}

/// Sockets in this thread's own namespace.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Here;

impl Dial for Here {
    fn udp(&self, to: SocketAddr) -> io::Result<UdpSocket> {
        match to {
            SocketAddr::V4(_) => UdpSocket::bind("0.0.0.0:0"),
            SocketAddr::V6(_) => UdpSocket::bind("[::]:0"),
        }
    }

    fn tcp(&self, to: SocketAddr) -> io::Result<OwnedFd> {
        let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        Ok(socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)?)
    }
}
