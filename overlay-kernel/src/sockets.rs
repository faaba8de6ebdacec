//! Sockets born in a namespace.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use nix::{libc, setsockopt_impl, sockopt_impl};
use overlay_core::{BackendError, ErrorKind};
use socket2::{Domain, Socket as Socket2, Type};

use crate::netlink::{Family, NetlinkError, Notices, Socket};
use crate::rtnl::route;
use crate::{Namespace, failed};

/// Sockets that speak with the kernel about this namespace.
impl Namespace {
    /// A netlink socket for requests.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] if this kernel does not have the family.
    pub fn netlink(&self, family: Family) -> Result<Socket, BackendError> {
        let opened = self.run(|| Socket::open(family))?;
        opened.map_err(|error| error.during(format!("open a {family:?} netlink socket in {}", self.id())))
    }

    /// A netlink socket that hears of changes; see [`Notices::open`].
    ///
    /// # Errors
    /// As [`netlink`](Self::netlink), and for groups that are not there.
    pub fn notices(&self, family: Family, groups: &[u32], buffer: usize) -> Result<Notices, BackendError> {
        let opened = self.run(|| Notices::open(family, groups, buffer))?;
        opened.map_err(|error| error.during(format!("hear of {family:?} changes in {}", self.id())))
    }
}

/// Notices of whatever may touch what is ours.
impl Namespace {
    /// Sockets that become readable when devices, addresses, routes, rules or tables change here, whoever changes them; with
    /// `entries` also when neighbours and forwarding entries do, of which a namespace with traffic of its own has changes all the
    /// time. They say that something is to be looked at, not what: drain them and do that.
    ///
    /// # Errors
    /// As [`notices`](Self::notices); a kernel without nf_tables has no tables to tell of.
    pub fn hints(&self, entries: bool) -> Result<Vec<Notices>, BackendError> {
        let groups = if entries { &ROUTED[..] } else { &ROUTED[1..] };
        let mut hints = vec![self.notices(Family::Route, groups, HINTS)?];
        match self.notices(Family::Netfilter, &[NFNLGRP_NFTABLES], HINTS) {
            Ok(tables) => hints.push(tables),
            Err(error) if matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::Invalid) => {}
            Err(error) => return Err(error),
        }
        Ok(hints)
    }

    /// As [`hints`](Self::hints), of associations and policies of IPsec: when one comes, changes, goes or expires. `None` where the kernel has none.
    ///
    /// # Errors
    /// As [`notices`](Self::notices).
    pub fn xfrm_hints(&self) -> Result<Option<Notices>, BackendError> {
        match self.notices(Family::Xfrm, &PROTECTED, HINTS) {
            Ok(hints) => Ok(Some(hints)),
            Err(error) if matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::Invalid) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// `RTNLGRP_NEIGH`, then link, address, route and rule of both families.
const ROUTED: [u32; 8] = [3, 1, 5, 7, 8, 9, 11, 19];
const NFNLGRP_NFTABLES: u32 = 7;
/// `XFRMNLGRP_EXPIRE`, `_SA`, `_POLICY`.
const PROTECTED: [u32; 3] = [2, 3, 4];
/// An overrun is a hint too.
const HINTS: usize = 1 << 16;

/// Standard sockets that stay in this namespace wherever they are used. They are blocking: for a runtime, call their
/// `set_nonblocking(true)` first.
impl Namespace {
    /// A UDP socket bound to `local`; port 0 for any.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] if the port is taken,
    /// [`ErrorKind::Gone`] if the namespace has no such address, also where Linux would not mind: a namespace that never had one
    /// of IPv4 lets any be bound, as a broadcast address, and whoever asks there is answered from another for good.
    pub fn udp(&self, local: SocketAddr) -> Result<UdpSocket, BackendError> {
        let doing = || format!("bind udp {local} in {}", self.id());
        self.expect_route(local.ip(), doing)?;
        self.run(|| UdpSocket::bind(local)).and_then(|socket| socket.map_err(|error| failed(doing(), error)))
    }

    /// As many UDP sockets as there are queues, at least one, all bound to `local`: the kernel hands what comes there to one of them, by its sender
    /// (`SO_REUSEPORT`), so what one sender sends stays in order. The port is not 0.
    ///
    /// # Errors
    /// As [`udp`](Self::udp), of which a port is taken also by one alone; [`ErrorKind::Invalid`] for port 0, which were another for each.
    pub fn udp_queues(&self, local: SocketAddr, queues: usize) -> Result<Vec<UdpSocket>, BackendError> {
        let doing = || format!("bind {queues} times udp {local} in {}", self.id());
        if local.port() == 0 {
            return Err(BackendError::new(ErrorKind::Invalid, doing()));
        }
        self.expect_route(local.ip(), doing)?;
        self.run(|| (0..queues.max(1)).map(|_| bind_beside(local)).collect::<io::Result<_>>())
            .and_then(|sockets| sockets.map_err(|error| failed(doing(), error)))
    }

    /// A TCP listener at `local`; port 0 for any.
    ///
    /// # Errors
    /// As [`udp`](Self::udp).
    pub fn listen(&self, local: SocketAddr) -> Result<TcpListener, BackendError> {
        let doing = || format!("listen on tcp {local} in {}", self.id());
        self.expect_route(local.ip(), doing)?;
        self.run(|| TcpListener::bind(local)).and_then(|socket| socket.map_err(|error| failed(doing(), error)))
    }

    /// Refuses an address of IPv4 to which no route leads, as one does to each of the namespace's own.
    fn expect_route(&self, local: IpAddr, doing: impl Fn() -> String) -> Result<(), BackendError> {
        if local.is_ipv6() || local.is_unspecified() {
            return Ok(());
        }
        match self.netlink(Family::Route)?.request(&route::lookup(local)) {
            Err(NetlinkError::Refused { errno: libc::ENETUNREACH | libc::EHOSTUNREACH, .. }) => {
                Err(failed(doing(), io::Error::from_raw_os_error(libc::EADDRNOTAVAIL)))
            }
            Err(NetlinkError::Refused { .. }) | Ok(()) => Ok(()), // what binding says counts
            Err(error) => Err(error.during(doing())),
        }
    }

    /// A TCP connection to `remote`, made within `deadline`.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] after `deadline`, others as the network says.
    pub fn connect(&self, remote: SocketAddr, deadline: Duration) -> Result<TcpStream, BackendError> {
        let doing = || format!("connect to tcp {remote} from {}", self.id());
        self.run(|| TcpStream::connect_timeout(&remote, deadline))
            .and_then(|stream| stream.map_err(|error| failed(doing(), error)))
    }
}

/// A UDP socket that lets others of the same user be bound alike, as they do.
fn bind_beside(local: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket2::new(Domain::for_address(local), Type::DGRAM, None)?;
    socket.set_reuse_port(true)?;
    socket.bind(&local.into())?;
    Ok(socket.into())
}

/// Has a UDP socket of IPv6 take datagrams without a checksum too, as tunnels may send them (RFC 6935 §5): kernels do, of VXLAN, unless told otherwise.
///
/// # Errors
/// Those of setsockopt(2).
pub fn take_unsummed(socket: &UdpSocket) -> io::Result<()> {
    Ok(nix::sys::socket::setsockopt(socket, TakeUnsummed, &true)?)
}

sockopt_impl!(
    #[doc = "`UDP_NO_CHECK6_RX`"]
    TakeUnsummed,
    SetOnly,
    libc::IPPROTO_UDP,
    libc::UDP_NO_CHECK6_RX,
    bool
);
