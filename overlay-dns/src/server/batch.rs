//! Datagrams by the batch: one system call takes many, one sends many.

use std::cell::RefCell;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, MultiHeaders, MultiResults, SockaddrStorage, recvmmsg, sendmmsg, sendto};

/// Datagrams in one batch.
const BATCH: usize = 64;
/// Bytes of the largest query that is taken: what is longer is cut, and so malformed.
const QUERY_LEN: usize = 2048;

/// What batches are made in; a task that serves may change threads, so each thread has its own.
struct Room {
    buffers: Box<[[u8; QUERY_LEN]; BATCH]>,
    /// For IPv4 and for IPv6: the system leaves in them how long the last addresses were, and takes that for the room there is.
    received: [MultiHeaders<SockaddrStorage>; 2],
    sent: MultiHeaders<SockaddrStorage>,
    replies: Replies,
}

/// Replies in the making, and where they go.
struct Replies {
    messages: [Vec<u8>; BATCH],
    count: usize,
    to: Vec<Option<SockaddrStorage>>,
}

thread_local! {
    static ROOM: RefCell<Room> = RefCell::new(Room {
        buffers: Box::new([[0; QUERY_LEN]; BATCH]),
        received: [MultiHeaders::preallocate(BATCH, None), MultiHeaders::preallocate(BATCH, None)],
        sent: MultiHeaders::preallocate(BATCH, None),
        replies: Replies { messages: [const { Vec::new() }; BATCH], count: 0, to: Vec::new() },
    });
}

/// The datagrams of a batch, to be answered.
pub(super) struct Datagrams<'d> {
    received: MultiResults<'d, SockaddrStorage>,
    replies: &'d mut Replies,
    count: usize,
}

impl Datagrams<'_> {
    /// Gives each to `answer`, which writes a reply into the buffer and says whether it is to be sent.
    pub(super) fn each(&mut self, mut answer: impl FnMut(SocketAddr, &[u8], &mut Vec<u8>) -> bool) {
        for datagram in self.received.by_ref() {
            self.count += 1;
            let Some(from) = datagram.address.as_ref().and_then(address) else { continue };
            let query = datagram.iovs().next().unwrap_or_default();
            let Some(reply) = self.replies.next() else { return };
            if answer(from, query, reply) {
                self.replies.keep(datagram.address);
            }
        }
    }
}

impl Replies {
    fn next(&mut self) -> Option<&mut Vec<u8>> {
        self.messages.get_mut(self.count)
    }

    fn keep(&mut self, to: Option<SockaddrStorage>) {
        self.to.push(to);
        self.count += 1;
    }
}

/// Receives up to a batch without waiting, has it answered, and sends the replies. Whether the batch was full.
///
/// # Errors
/// [`WouldBlock`](io::ErrorKind::WouldBlock) if there was nothing to receive; others as the socket says.
pub(super) fn exchange(fd: RawFd, is_ipv6: bool, answer: impl FnOnce(&mut Datagrams<'_>)) -> io::Result<bool> {
    ROOM.with_borrow_mut(|room| {
        room.replies.count = 0;
        room.replies.to.clear();
        let mut slices = room.buffers.each_mut().map(|buffer| [IoSliceMut::new(buffer)]);
        let [v4, v6] = &mut room.received;
        let headers = if is_ipv6 { v6 } else { v4 };
        let received = recvmmsg(fd, headers, slices.iter_mut(), MsgFlags::MSG_DONTWAIT, None)?;
        let mut datagrams = Datagrams { received, replies: &mut room.replies, count: 0 };
        answer(&mut datagrams);
        let count = datagrams.count;
        send(fd, &mut room.sent, &room.replies);
        Ok(count == BATCH)
    })
}

/// Sends replies. One that the system refuses is left out; when it has no room for more, the rest is lost, as datagrams may
/// be.
fn send(fd: RawFd, headers: &mut MultiHeaders<SockaddrStorage>, replies: &Replies) {
    let slices = replies.messages.each_ref().map(|message| [IoSlice::new(message)]);
    let mut at = 0;
    while let (Some(slices), Some(to)) = (slices.get(at..replies.count), replies.to.get(at..))
        && !slices.is_empty()
    {
        match sendmmsg(fd, headers, slices, to, [], MsgFlags::MSG_DONTWAIT).map(Iterator::count) {
            Ok(0) | Err(Errno::EAGAIN | Errno::ENOBUFS) => return,
            Ok(sent) => at += sent,
            Err(Errno::EINTR) => {}
            Err(_) => at += 1,
        }
    }
}

/// Sends one datagram at once. The runtime is not asked whether the socket has room: of a new one it does not know yet.
///
/// # Errors
/// [`WouldBlock`](io::ErrorKind::WouldBlock) if there is no room, others as the system says.
pub(super) fn send_one(socket: &impl AsRawFd, message: &[u8], to: SocketAddr) -> io::Result<()> {
    sendto(socket.as_raw_fd(), message, &SockaddrStorage::from(to), MsgFlags::MSG_DONTWAIT)?;
    Ok(())
}

fn address(storage: &SockaddrStorage) -> Option<SocketAddr> {
    if let Some(v4) = storage.as_sockaddr_in() {
        return Some(SocketAddr::V4((*v4).into()));
    }
    storage.as_sockaddr_in6().map(|v6| SocketAddr::V6((*v6).into()))
}
