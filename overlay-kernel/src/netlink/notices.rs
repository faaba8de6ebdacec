//! Hearing what changes.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};

use nix::libc;
use socket2::{SockFilter, SockRef};

use super::socket::{Read, read};
use super::{Buffers, Family, Message, Messages, NetlinkError};

/// A socket that hears of changes in its namespace, whoever makes them. Opened before a dump, it is the witness that
/// what the dump read is still so: it is [`Quiet`](Drained::Quiet), or tells what changed, or that it missed something.
///
/// ```no_run
/// use overlay_kernel::netlink::{Drained, Family, Notices};
///
/// const RTNLGRP_LINK: u32 = 1;
///
/// let mut links = Notices::open(Family::Route, &[RTNLGRP_LINK], 1 << 20)?;
/// match links.drain(|notice| println!("kind {} from port {}", notice.kind, notice.port))? {
///     Drained::Quiet => println!("nothing changed"),
///     Drained::Changed => println!("that was all of it"),
///     Drained::Overrun => println!("and more was lost: read everything again"),
/// }
/// # Ok::<(), overlay_kernel::netlink::NetlinkError>(())
/// ```
pub struct Notices {
    socket: netlink_sys::Socket,
}

/// What [`Notices::drain`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Drained {
    /// Nothing: all is as it was at the last call.
    Quiet,
    /// Changes, every one of which was handed over.
    Changed,
    /// More changes than the buffer held: some were lost, and what is must be read anew.
    Overrun,
}

impl Notices {
    /// Hears of `groups` (`RTNLGRP_…`, `XFRMNLGRP_…`, `NFNLGRP_…` numbers) in the calling thread's namespace, from now
    /// on. `buffer` is the receive buffer in bytes; a notice takes about 1 KiB of it.
    ///
    /// # Errors
    /// [`NetlinkError::Socket`] with `EPERM` or `EINVAL` for a group that the caller may not hear or that is not there.
    pub fn open(family: Family, groups: &[u32], buffer: usize) -> Result<Self, NetlinkError> {
        let mut socket = netlink_sys::Socket::new(family.protocol()).map_err(NetlinkError::socket("socket"))?;
        Buffers { receive: buffer, ..Buffers::default() }.give(&socket)?;
        socket.bind_auto().map_err(NetlinkError::socket("bind"))?;
        for group in groups {
            socket.add_membership(*group).map_err(NetlinkError::socket("setsockopt(NETLINK_ADD_MEMBERSHIP)"))?;
        }
        Ok(Self { socket })
    }

    /// Hears no more of what the socket with this [port](super::Socket::port) does, where the kernel says whose
    /// change it was: KERNEL.md lists where it does not. The kernel drops these notices before they take up room.
    pub fn ignore(&self, port: u32) -> Result<(), NetlinkError> {
        let filter = [
            SockFilter::new(BPF_LOAD_WORD, 0, 0, PORT_OFFSET),
            SockFilter::new(BPF_JUMP_EQUAL, 0, 1, port.to_be()), // a load turns bytes around as from the network
            SockFilter::new(BPF_RETURN, 0, 0, 0),
            SockFilter::new(BPF_RETURN, 0, 0, u32::MAX),
        ];
        SockRef::from(&self.socket).attach_filter(&filter).map_err(NetlinkError::socket("setsockopt(SO_ATTACH_FILTER)"))
    }

    /// Hands over every notice that is there, in order, without waiting.
    pub fn drain(&mut self, mut each: impl FnMut(Message<'_>)) -> Result<Drained, NetlinkError> {
        let (mut found, mut buffer) = (Drained::Quiet, Vec::new());
        loop {
            match read(&self.socket, &mut buffer)? {
                Read::Nothing => return Ok(found),
                Read::Overrun => found = Drained::Overrun,
                Read::Datagram(size) => {
                    for notice in Messages::new(&buffer[..size]) {
                        each(notice?);
                        if found == Drained::Quiet {
                            found = Drained::Changed;
                        }
                    }
                }
            }
        }
    }
}

impl fmt::Debug for Notices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Notices").finish_non_exhaustive()
    }
}

impl AsFd for Notices {
    /// For a poll: readable when a notice is there.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

const PORT_OFFSET: u32 = 12; // nlmsg_pid in struct nlmsghdr
const BPF_LOAD_WORD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const BPF_JUMP_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const BPF_RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
