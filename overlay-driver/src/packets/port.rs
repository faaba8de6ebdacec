//! A tap, and what is gathered for it.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::uio::writev;
use nix::unistd::read;
use overlay_datapath::offload::{Coalescer, Merging, VnetHeader};
use overlay_kernel::TapQueue;

use super::counts::CarrierCounts;

/// An endpoint's tap.
pub(super) struct Port {
    tap: TapQueue,
    gathered: Coalescer,
    waits: bool,
}

/// What a read of a tap gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Got {
    /// A frame, of so many bytes with what stands in front of it.
    Frame(usize),
    /// There is none now.
    Nothing,
    /// The tap was deleted, or the kernel reads it no more, and why. It would be ready to be read for ever.
    Gone(Errno),
}

impl Port {
    pub(super) const fn new(tap: TapQueue, merging: Merging) -> Self {
        Self { tap, gathered: Coalescer::new(merging), waits: false }
    }

    /// Reads a frame, with what stands in front of it.
    pub(super) fn read(&self, room: &mut [u8]) -> Got {
        match read(&self.tap, room) {
            Ok(0) => Got::Gone(Errno::EBADFD),
            Ok(len) => Got::Frame(len),
            Err(Errno::EAGAIN | Errno::EINTR) => Got::Nothing,
            Err(error) => Got::Gone(error),
        }
    }

    /// Gathers a frame on its way to the tap. Says whether it is the first since the last [`flush`](Self::flush).
    pub(super) fn push(&mut self, frame: &[u8], counts: &mut CarrierCounts) -> bool {
        let Self { tap, gathered, waits } = self;
        gathered.push(frame, |header, frame| write(tap, header, frame, counts));
        !std::mem::replace(waits, true)
    }

    /// Gives the tap what was gathered.
    pub(super) fn flush(&mut self, counts: &mut CarrierCounts) {
        let Self { tap, gathered, waits } = self;
        *waits = false;
        gathered.flush(|header, frame| write(tap, header, frame, counts));
    }
}

/// Has reads of a tap come back where there is nothing.
pub(super) fn never_wait(tap: &TapQueue) -> io::Result<()> {
    fcntl(tap, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map(drop).map_err(io::Error::from)
}

impl AsFd for Port {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.tap.as_fd()
    }
}

fn write(tap: &TapQueue, header: VnetHeader, frame: &[u8], counts: &mut CarrierCounts) {
    let mut head = [0; VnetHeader::LEN];
    header.write(&mut head);
    let pieces = [IoSlice::new(&head), IoSlice::new(frame)];
    let mut written = writev(tap, &pieces);
    while written == Err(Errno::EINTR) {
        written = writev(tap, &pieces);
    }
    match written {
        Ok(_) => counts.frames_written += 1,
        Err(_) => counts.unwritten += 1, // it is down, or its container does not read
    }
}
