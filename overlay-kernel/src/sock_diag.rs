//! Sockets that the kernel has (`linux/sock_diag.h`, `linux/inet_diag.h`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use overlay_core::{BackendError, Protocol};

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
        for family in FAMILIES {
            let found = self.socket.dump(&dump(Protocol::Tcp, family, u32::MAX), parse);
            all.extend(found.map_err(|error| error.during("list TCP sockets"))?.into_iter().map(TcpSocket::from));
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

impl From<Told> for TcpSocket {
    fn from(Told { stage, local, remote, .. }: Told) -> Self {
        let [local, remote] = [local, remote].map(|at| SocketAddr::new(at.ip().to_canonical(), at.port()));
        Self { local, remote, stage }
    }
}

/// What the kernel tells of a socket of TCP or UDP.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Told {
    pub(crate) stage: u8,
    /// Its ends, as the socket has them: IPv4's addresses may be mapped to IPv6's.
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
    /// The number of its file; 0 if nobody has it open any more.
    pub(crate) inode: u32,
}

/// Asks for the sockets at some stages, a bit for each: `struct inet_diag_req_v2`.
pub(crate) fn dump(protocol: Protocol, family: u8, stages: u32) -> Requests {
    Requests::one(SOCK_DIAG_BY_FAMILY, Flags::NONE, |body| {
        body.raw(&[family, protocol.number(), 0, 0]).raw(&stages.to_ne_bytes()).raw(&[0; ID]);
    })
}

/// `struct inet_diag_msg`.
pub(crate) fn parse(message: &Message<'_>) -> Result<Option<Told>, Malformed> {
    if message.kind != SOCK_DIAG_BY_FAMILY {
        return Ok(None);
    }
    let head = message.head::<HEAD>()?;
    let [family, stage, _, _, l0, l1, r0, r1, rest @ ..] = head;
    let (local, rest) = rest.split_at(16);
    let [local, remote] = [local, rest].map(|bytes| address(family, bytes));
    let inode = head.last_chunk().map(|bytes| u32::from_ne_bytes(*bytes));
    let (Some(local), Some(remote), Some(inode)) = (local, remote, inode) else { return Ok(None) };
    let port = |high, low| u16::from_be_bytes([high, low]);
    let [local, remote] = [(local, port(l0, l1)), (remote, port(r0, r1))].map(SocketAddr::from);
    Ok(Some(Told { stage, local, remote, inode }))
}

fn address(family: u8, bytes: &[u8]) -> Option<IpAddr> {
    match family {
        AF_INET => bytes.first_chunk::<4>().map(|bytes| Ipv4Addr::from(*bytes).into()),
        AF_INET6 => bytes.first_chunk::<16>().map(|bytes| Ipv6Addr::from(*bytes).into()),
        _ => None,
    }
}

const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// `struct inet_diag_sockid`.
const ID: usize = 48;
/// All of `struct inet_diag_msg`: its last field is the inode.
const HEAD: usize = 4 + ID + 5 * 4;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
pub(crate) const FAMILIES: [u8; 2] = [AF_INET, AF_INET6];
const TCP_SYN_SENT: u8 = 2;
const TCP_TIME_WAIT: u8 = 6;
/// Of UDP: connected to nobody.
pub(crate) const TCP_CLOSE: u8 = 7;
pub(crate) const TCP_LISTEN: u8 = 10;
