//! Asking the kernel and hearing its answer.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use netlink_sys::SocketAddr;
use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, poll};

use super::deadline::Deadline;
use super::encode::{self, NLM_F_DUMP};
use super::message::Verdict;
use super::{Buffers, Family, Flags, Malformed, Message, Messages, NetlinkError, Requests};

/// A socket that asks the kernel and waits for the answer, for [`DEADLINE`](Self::DEADLINE) at most.
///
/// It lives in the namespace of the thread that opened it, whatever thread uses it. Errors carry the kernel's own
/// words where it has some. Answers to requests that were given up are skipped. The deadline bounds the wait for an
/// answer; the kernel works while it is sent to, and that cannot be cut short.
///
/// ```no_run
/// use overlay_kernel::netlink::{Family, Flags, Requests, Socket};
///
/// let mut socket = Socket::open(Family::Route)?;
/// let lo_up = Requests::one(16, Flags::NONE, |body| { // RTM_NEWLINK
///     body.raw(&[0; 4]).raw(&1_u32.to_ne_bytes()).raw(&1_u32.to_ne_bytes()).raw(&1_u32.to_ne_bytes());
/// });
/// socket.request(&lo_up).map_err(|error| error.during("set lo up"))?;
/// # Ok::<(), overlay_core::BackendError>(())
/// ```
pub struct Socket {
    socket: netlink_sys::Socket,
    port: u32,
    sequence: u32,
    deadline: Duration,
    pub(super) buffers: Buffers,
    /// What is on its way, at work only: of the many sockets of a process hardly any is.
    pub(super) outgoing: Vec<u8>,
    incoming: Vec<u8>,
}

impl Socket {
    /// How long an answer is waited for if nothing else is said: 5 s. The kernel answers within milliseconds; a
    /// machine that is short of memory, or another process that holds the network's lock, can take seconds.
    pub const DEADLINE: Duration = Duration::from_secs(5);

    /// A socket in the calling thread's network namespace.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`](overlay_core::ErrorKind::Unsupported) if this kernel does not have the family.
    pub fn open(family: Family) -> Result<Self, NetlinkError> {
        Self::with_buffers(family, Buffers::default())
    }

    /// The same with buffers of a chosen size, if it may have them.
    pub fn with_buffers(family: Family, buffers: Buffers) -> Result<Self, NetlinkError> {
        let mut socket = netlink_sys::Socket::new(family.protocol()).map_err(NetlinkError::socket("socket"))?;
        let port = socket.bind_auto().map_err(NetlinkError::socket("bind"))?.port_number();
        socket.set_ext_ack(true).map_err(NetlinkError::socket("setsockopt(NETLINK_EXT_ACK)"))?;
        socket.set_cap_ack(true).map_err(NetlinkError::socket("setsockopt(NETLINK_CAP_ACK)"))?;
        if family == Family::Route {
            socket.set_netlink_get_strict_chk(true).map_err(NetlinkError::socket("setsockopt(STRICT_CHK)"))?;
        }
        Ok(Self {
            port,
            sequence: 0,
            deadline: Self::DEADLINE,
            buffers: buffers.give(&socket)?,
            outgoing: Vec::new(),
            incoming: Vec::new(),
            socket,
        })
    }

    /// The same with another deadline for each request, dump, and part of a batch.
    #[must_use]
    pub fn deadline(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }

    /// The port by which the kernel knows this socket: what [`Message::port`] says in notifications of its changes.
    pub const fn port(&self) -> u32 {
        self.port
    }

    /// The buffers it got.
    pub const fn buffers(&self) -> Buffers {
        self.buffers
    }

    /// Sends one request and waits until it is in effect.
    ///
    /// # Errors
    /// [`NetlinkError::Refused`] with the kernel's reason; others as its variants say.
    pub fn request(&mut self, request: &Requests) -> Result<(), NetlinkError> {
        self.ask::<()>(request, |_| Ok(None)).map(drop)
    }

    /// Sends one request and collects what `parse` makes of the messages that answer it.
    ///
    /// # Errors
    /// As [`request`](Self::request), and [`NetlinkError::Malformed`] as `parse` says.
    pub fn ask<T>(
        &mut self,
        request: &Requests,
        parse: impl FnMut(&Message<'_>) -> Result<Option<T>, Malformed>,
    ) -> Result<Vec<T>, NetlinkError> {
        Ok(self.at_work(|socket| socket.exchange(request, Flags::ACK, parse))?.found)
    }

    /// Sends one request for all objects of a kind and collects what `parse` makes of them. If they change meanwhile
    /// it asks again, some times, and what the earlier tries had found is forgotten.
    ///
    /// # Errors
    /// As [`ask`](Self::ask), and [`NetlinkError::Changing`].
    pub fn dump<T>(
        &mut self,
        request: &Requests,
        mut parse: impl FnMut(&Message<'_>) -> Result<Option<T>, Malformed>,
    ) -> Result<Vec<T>, NetlinkError> {
        for _ in 0..DUMP_TRIES {
            let heard = self.at_work(|socket| socket.exchange(request, NLM_F_DUMP, &mut parse))?;
            if !heard.interrupted {
                return Ok(heard.found);
            }
        }
        Err(NetlinkError::Changing { tries: DUMP_TRIES })
    }

    /// Does this, and keeps no memory for what comes after.
    pub(super) fn at_work<T>(&mut self, work: impl FnOnce(&mut Self) -> T) -> T {
        let done = work(self);
        (self.outgoing, self.incoming) = Default::default();
        done
    }

    /// Sends one request and hears the answer to its end, also when `parse` has failed: the kernel takes no other
    /// dump before.
    fn exchange<T>(
        &mut self,
        request: &Requests,
        flags: Flags,
        mut parse: impl FnMut(&Message<'_>) -> Result<Option<T>, Malformed>,
    ) -> Result<Heard<T>, NetlinkError> {
        let sequence = self.write_one(request, flags)?;
        let mut heard = Heard { found: Vec::new(), interrupted: false };
        let mut fault = None;
        let mut verdict = None;
        self.send()?;
        let deadline = self.start();
        while verdict.is_none() {
            let datagram = self.receive(&deadline)?;
            for message in Messages::new(datagram) {
                let message = message?;
                if message.sequence != sequence {
                    continue;
                }
                heard.interrupted |= message.is_dump_interrupted();
                match message.verdict() {
                    Some(found) => verdict = Some(found?),
                    None if message.is_control() => {}
                    None => match parse(&message) {
                        Ok(found) => heard.found.extend(found),
                        Err(error) => fault = fault.or(Some(error)),
                    },
                }
            }
        }
        verdict.map_or(Ok(()), Verdict::into_result)?;
        fault.map_or(Ok(heard), |fault| Err(fault.into()))
    }

    fn write_one(&mut self, request: &Requests, flags: Flags) -> Result<u32, NetlinkError> {
        request.check()?;
        if request.len() != 1 {
            return Err(NetlinkError::refused(libc::EINVAL));
        }
        let sequence = self.number(1);
        self.outgoing.clear();
        request.copy_all(&mut self.outgoing);
        encode::stamp(&mut self.outgoing, sequence, flags);
        Ok(sequence)
    }

    /// The first of `count` numbers for requests, never used before and not 0, which is what notifications have.
    pub(super) fn number(&mut self, count: usize) -> u32 {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        if self.sequence.checked_add(count).is_none() {
            self.sequence = 0;
        }
        let first = self.sequence + 1;
        self.sequence += count;
        first
    }

    /// The moment by which an answer must be there.
    pub(super) fn start(&self) -> Deadline {
        Deadline::within(self.deadline)
    }

    /// Sends what was written.
    pub(super) fn send(&mut self) -> Result<(), NetlinkError> {
        let (size, limit) = (self.outgoing.len(), self.buffers.datagram());
        if size > limit {
            return Err(NetlinkError::TooLarge { what: "a request", size, limit });
        }
        loop {
            return match self.socket.send_to(&self.outgoing, &SocketAddr::new(0, 0), 0) {
                Ok(_) => Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => {
                    Err(NetlinkError::TooLarge { what: "a request", size, limit })
                }
                Err(error) => Err(NetlinkError::socket("sendto")(error)),
            };
        }
    }

    /// The next datagram from the kernel.
    pub(super) fn receive(&mut self, deadline: &Deadline) -> Result<&[u8], NetlinkError> {
        loop {
            match read(&self.socket, &mut self.incoming)? {
                Read::Datagram(size) => return Ok(&self.incoming[..size]),
                Read::Nothing => self.wait(deadline)?,
                Read::Overrun => return Err(self.overrun()),
            }
        }
    }

    /// Looks what is there already.
    pub(super) fn read(&mut self) -> Result<Read, NetlinkError> {
        read(&self.socket, &mut self.incoming)
    }

    /// The datagram that was read last.
    pub(super) fn datagram(&self, size: usize) -> &[u8] {
        self.incoming.get(..size).unwrap_or_default()
    }

    /// Makes room for the answers to come.
    pub(super) fn overrun(&mut self) -> NetlinkError {
        while matches!(read(&self.socket, &mut self.incoming), Ok(Read::Datagram(_) | Read::Overrun)) {}
        NetlinkError::Overrun { limit: self.buffers.receive }
    }

    pub(super) fn wait(&self, deadline: &Deadline) -> Result<(), NetlinkError> {
        let lost = NetlinkError::NoAnswer { deadline: deadline.span() };
        let Some(left) = deadline.left() else { return Err(lost) };
        match poll(&mut [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)], left) {
            Ok(0) => Err(lost),
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(error) => Err(NetlinkError::socket("poll")(error.into())),
        }
    }

    /// Whether buffers beyond `net.core.wmem_max` and `rmem_max` are to be had.
    pub(crate) fn force_buffers(&self) -> Result<(), NetlinkError> {
        self.buffers.force(&self.socket)
    }

    /// Makes the send buffer hold `size` bytes, as far as it may.
    pub(super) fn make_room(&mut self, size: usize) -> Result<(), NetlinkError> {
        if size > self.buffers.datagram() {
            let wanted = Buffers { send: size.saturating_add(4096), ..self.buffers };
            self.buffers = wanted.give(&self.socket)?;
        }
        Ok(())
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl fmt::Debug for Socket {
    /// Without its buffers: they can hold keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket").field("port", &self.port).field("buffers", &self.buffers).finish_non_exhaustive()
    }
}

struct Heard<T> {
    found: Vec<T>,
    interrupted: bool,
}

pub(super) enum Read {
    Datagram(usize),
    Nothing,
    Overrun,
}

/// Reads a datagram of the kernel's without waiting, in place of what is in the buffer, which is given room for it; what other processes
/// send is thrown away.
pub(super) fn read(socket: &netlink_sys::Socket, buffer: &mut Vec<u8>) -> Result<Read, NetlinkError> {
    loop {
        buffer.clear();
        buffer.reserve(DATAGRAM);
        match socket.recv_from(buffer, libc::MSG_DONTWAIT | libc::MSG_TRUNC) {
            Ok((_, from)) if from.port_number() != 0 => {}
            Ok((size, _)) if size > buffer.len() => {
                return Err(NetlinkError::TooLarge { what: "an answer", size, limit: buffer.len() });
            }
            Ok((size, _)) => return Ok(Read::Datagram(size)),
            Err(error) => match error.raw_os_error() {
                Some(libc::EINTR) => {}
                Some(libc::EAGAIN) => return Ok(Read::Nothing),
                Some(libc::ENOBUFS) => return Ok(Read::Overrun),
                _ => return Err(NetlinkError::socket("recvfrom")(error)),
            },
        }
    }
}

const DATAGRAM: usize = 64 << 10; // the kernel fills a dump's datagrams up to 32 KiB
const DUMP_TRIES: usize = 16;
