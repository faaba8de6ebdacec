//! Sockets of ESP (IP protocol 50), for who seals and opens by itself.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};

use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrIn6, recv, recvmsg, setsockopt, sockopt};
use overlay_core::{BackendError, ErrorKind};
use socket2::{Domain, Protocol, Socket, Type};

use crate::{Namespace, failed};

/// A raw socket for the ESP packets of one address: whole IP packets go out and come in. It needs `CAP_NET_RAW`, and never waits.
///
/// It sees packets besides the kernel's own IPsec, if there is any, which counts those that it has no association for and drops them.
#[derive(Debug)]
pub struct EspSocket {
    socket: Socket,
    local: IpAddr,
}

impl Namespace {
    /// A socket for ESP at an address of this namespace.
    ///
    /// # Errors
    /// [`ErrorKind::Permission`] without `CAP_NET_RAW`, [`ErrorKind::Gone`] if the namespace has no such address,
    /// [`ErrorKind::Invalid`] for the address of nobody.
    pub fn esp(&self, local: IpAddr) -> Result<EspSocket, BackendError> {
        let doing = || format!("open a socket of ESP at {local} in {}", self.id());
        if local.is_unspecified() {
            return Err(BackendError::new(ErrorKind::Invalid, doing()));
        }
        self.run(|| EspSocket::open(local)).and_then(|socket| socket.map_err(|error| failed(doing(), error)))
    }
}

impl EspSocket {
    fn open(local: IpAddr) -> io::Result<Self> {
        let at = SocketAddr::new(local, 0);
        let socket = Socket::new(Domain::for_address(at), Type::RAW, Some(Protocol::from(i32::from(ESP))))?;
        match local {
            IpAddr::V4(_) => socket.set_header_included_v4(true)?,
            IpAddr::V6(_) => {
                socket.set_header_included_v6(true)?;
                setsockopt(&socket, sockopt::Ipv6RecvTClass, &true)?;
            }
        }
        socket.bind(&at.into())?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, local })
    }

    /// Its address.
    pub const fn local(&self) -> IpAddr {
        self.local
    }

    /// Another handle of it: what comes is read by one of them.
    ///
    /// # Errors
    /// If the process has as many files open as it may.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { socket: self.socket.try_clone()?, local: self.local })
    }

    /// How many bytes may wait in the kernel, in each direction; without `CAP_NET_ADMIN` as many as `net.core.rmem_max` and `wmem_max` let it be.
    pub fn set_room(&self, room: usize) {
        // As much as is allowed: less costs packets in bursts, no more.
        let _ = self.socket.set_send_buffer_size(room);
        let _ = self.socket.set_recv_buffer_size(room);
        let _ = setsockopt(&self.socket, sockopt::RcvBufForce, &room);
        let _ = setsockopt(&self.socket, sockopt::SndBufForce, &room);
    }

    /// Sends a whole IP packet of this address's, to whom it says.
    ///
    /// # Errors
    /// The kernel's; [`io::ErrorKind::WouldBlock`] where it has no room, [`io::ErrorKind::InvalidInput`] for what is no packet of this family.
    pub fn send(&self, packet: &[u8]) -> io::Result<()> {
        let to = destination(packet).filter(|to| to.is_ipv4() == self.local.is_ipv4());
        let to = SocketAddr::new(to.ok_or(io::ErrorKind::InvalidInput)?, 0);
        self.socket.send_to(packet, &to.into()).map(drop)
    }

    /// Reads the next packet into `room`, whole, and says how long it is; a longer one is cut.
    ///
    /// # Errors
    /// The kernel's; [`io::ErrorKind::WouldBlock`] where there is none.
    pub fn receive(&self, room: &mut [u8]) -> io::Result<usize> {
        match self.local {
            IpAddr::V4(_) => Ok(recv(self.socket.as_raw_fd(), room, MsgFlags::empty())?),
            IpAddr::V6(local) => self.receive_v6(room, local.octets()),
        }
    }

    /// Of IPv6 the kernel keeps the header to itself, and says what is to know of it.
    fn receive_v6(&self, room: &mut [u8], local: [u8; 16]) -> io::Result<usize> {
        let (header, body) = room.split_first_chunk_mut::<40>().ok_or(io::ErrorKind::InvalidInput)?;
        let mut pieces = [IoSliceMut::new(body)];
        let mut space = nix::cmsg_space!(i32);
        let fd = self.socket.as_raw_fd();
        let came = recvmsg::<SockaddrIn6>(fd, &mut pieces, Some(&mut space), MsgFlags::empty())?;
        let class = came.cmsgs()?.find_map(|said| match said {
            ControlMessageOwned::Ipv6TClass(class) => Some(class as u8),
            _ => None,
        });
        let from = came.address.ok_or(io::ErrorKind::InvalidData)?.ip().octets();
        let (class, len) = (class.unwrap_or(0), came.bytes);
        header[..8].copy_from_slice(&[0x60 | class >> 4, class << 4, 0, 0, 0, 0, ESP, 64]);
        header[4..6].copy_from_slice(&u16::try_from(len).map_err(|_| io::ErrorKind::InvalidData)?.to_be_bytes());
        header[8..24].copy_from_slice(&from);
        header[24..].copy_from_slice(&local);
        Ok(header.len() + len)
    }
}

impl AsFd for EspSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Where an IP packet goes.
fn destination(packet: &[u8]) -> Option<IpAddr> {
    match packet.first()? >> 4 {
        4 => packet.get(16..)?.first_chunk::<4>().map(|octets| IpAddr::from(*octets)),
        6 => packet.get(24..)?.first_chunk::<16>().map(|octets| IpAddr::from(*octets)),
        _ => None,
    }
}

const ESP: u8 = 50;
