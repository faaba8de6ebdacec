//! Sockets that the kernel has (`linux/sock_diag.h`, `linux/inet_diag.h`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use overlay_core::BackendError;

use crate::Namespace;
use crate::netlink::{Family, Flags, Malformed, Message, Requests, Socket};

/// The TCP sockets of one namespace, whoever's process has them: to see who listens, and which connections stand.
///
/// It needs no privilege but to enter the namespace.
///
/// ```no_run
/// use overlay_kernel::Namespace;
/// use overlay_kernel::sock_diag::SockDiag;
///
/// let mut sockets = SockDiag::open(&Namespace::create()?)?;
/// let standing = sockets.tcp()?.into_iter().filter(|socket| socket.is_standing());
/// println!("{} connections", standing.count());
/// # Ok::<(), overlay_core::BackendError>(())
/// ```
#[derive(Debug)]
pub struct SockDiag {
    socket: Socket,
}

impl SockDiag {
    /// Looks at `namespace`.
    ///
    /// # Errors
    /// [`ErrorKind::Permission`](overlay_core::ErrorKind::Permission) if it may not be entered,
    /// [`Unsupported`](overlay_core::ErrorKind::Unsupported) if this kernel has no `sock_diag`.
    pub fn open(namespace: &Namespace) -> Result<Self, BackendError> {
        Ok(Self { socket: namespace.netlink(Family::SockDiag)? })
    }

    /// All TCP sockets of both families. O(sockets of the whole machine), some 0.1 µs each of another namespace, 1 µs of this one;
    /// those that come or go meanwhile may be missing. Of a socket for both families an IPv4 peer has its IPv4 address.
    ///
    /// # Errors
    /// [`ErrorKind::Gone`](overlay_core::ErrorKind::Gone) or
    /// [`Invalid`](overlay_core::ErrorKind::Invalid) if this kernel cannot list TCP sockets.
    pub fn tcp(&mut self) -> Result<Vec<TcpSocket>, BackendError> {
        let mut all = Vec::new();
        for family in [AF_INET, AF_INET6] {
            let found = self.socket.dump(&dump(family), parse);
            all.extend(found.map_err(|error| error.during("list TCP sockets"))?);
        }
        Ok(all)
    }
}

/// A TCP socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct TcpSocket {
    /// Its own end.
    pub local: SocketAddr,
    /// The other end; an address of zeros and port 0 of one that listens.
    pub remote: SocketAddr,
    /// How far it is (`include/net/tcp_states.h`): 1 is established, 10 listens.
    pub stage: u8,
}

impl TcpSocket {
    /// Whether it waits for connections.
    pub const fn is_listening(&self) -> bool {
        self.stage == TCP_LISTEN
    }

    /// Whether it is a connection on which something may come still: not one that is only kept in mind, nor one that is begun here and not
    /// answered yet.
    pub const fn is_standing(&self) -> bool {
        !matches!(self.stage, TCP_LISTEN | TCP_SYN_SENT | TCP_TIME_WAIT | TCP_CLOSE)
    }
}

fn dump(family: u8) -> Requests {
    Requests::one(SOCK_DIAG_BY_FAMILY, Flags::NONE, |body| {
        body.raw(&[family, IPPROTO_TCP, 0, 0]).raw(&u32::MAX.to_ne_bytes()).raw(&[0; ID]);
    })
}

/// `struct inet_diag_msg`.
fn parse(message: &Message<'_>) -> Result<Option<TcpSocket>, Malformed> {
    if message.kind != SOCK_DIAG_BY_FAMILY {
        return Ok(None);
    }
    let head = message.head::<HEAD>()?;
    let [family, stage, _, _, l0, l1, r0, r1, addresses @ ..] = head;
    let (local, remote) = addresses.split_at(16);
    let [local, remote] = [local, remote].map(|bytes| address(family, bytes));
    let (Some(local), Some(remote)) = (local, remote) else { return Ok(None) };
    let port = |high, low| u16::from_be_bytes([high, low]);
    Ok(Some(TcpSocket { local: (local, port(l0, l1)).into(), remote: (remote, port(r0, r1)).into(), stage }))
}

fn address(family: u8, bytes: &[u8]) -> Option<IpAddr> {
    match family {
        AF_INET => bytes.first_chunk::<4>().map(|bytes| Ipv4Addr::from(*bytes).into()),
        AF_INET6 => bytes.first_chunk::<16>().map(|bytes| Ipv6Addr::from(*bytes).to_canonical()),
        _ => None,
    }
}

const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// `struct inet_diag_sockid`.
const ID: usize = 48;
/// Up to its two addresses.
const HEAD: usize = 4 + 2 + 2 + 16 + 16;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const IPPROTO_TCP: u8 = 6;
const TCP_SYN_SENT: u8 = 2;
const TCP_TIME_WAIT: u8 = 6;
const TCP_CLOSE: u8 = 7;
const TCP_LISTEN: u8 = 10;
