//! How much a socket holds.

use std::io;
use std::os::fd::AsFd;

use nix::sys::socket::sockopt::{RcvBuf, RcvBufForce, SndBuf, SndBufForce};
use nix::sys::socket::{getsockopt, setsockopt};

use super::NetlinkError;

/// Sizes of a socket's buffers in bytes, as the kernel counts them: with its own overhead, which is most of a small
/// message. Memory is used only while messages wait.
///
/// Sizes beyond `net.core.wmem_max` and `net.core.rmem_max` need `CAP_NET_ADMIN` in the first user namespace; without
/// it the socket gets twice that limit and its users split what they send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
pub struct Buffers {
    /// The longest that can be sent at once.
    pub send: usize,
    /// All that can wait to be read.
    pub receive: usize,
}

impl Default for Buffers {
    /// 1 MiB to send and 4 MiB to receive: batches of some thousand requests.
    fn default() -> Self {
        Self { send: 1 << 20, receive: 4 << 20 }
    }
}

impl Buffers {
    /// Gives a socket these sizes, or as much as it may have. Says what it has.
    pub(super) fn give(self, socket: &impl AsFd) -> Result<Self, NetlinkError> {
        let (send, receive) = (self.send.div_ceil(2), self.receive.div_ceil(2)); // the kernel doubles what it is told
        if setsockopt(socket, SndBufForce, &send).is_err() {
            setsockopt(socket, SndBuf, &send).map_err(failed("setsockopt(SO_SNDBUF)"))?;
        }
        if setsockopt(socket, RcvBufForce, &receive).is_err() {
            setsockopt(socket, RcvBuf, &receive).map_err(failed("setsockopt(SO_RCVBUF)"))?;
        }
        Self::of(socket)
    }

    /// What a socket has.
    fn of(socket: &impl AsFd) -> Result<Self, NetlinkError> {
        let send = getsockopt(socket, SndBuf).map_err(failed("getsockopt(SO_SNDBUF)"))?;
        let receive = getsockopt(socket, RcvBuf).map_err(failed("getsockopt(SO_RCVBUF)"))?;
        Ok(Self { send, receive })
    }

    /// Whether a socket may have larger buffers than the limits say; leaves it as it is.
    pub(super) fn force(self, socket: &impl AsFd) -> Result<(), NetlinkError> {
        setsockopt(socket, SndBufForce, &self.send.div_ceil(2)).map_err(failed("setsockopt(SO_SNDBUFFORCE)"))
    }

    /// The longest datagram that can be sent.
    pub(super) const fn datagram(self) -> usize {
        self.send.saturating_sub(SEND_OVERHEAD)
    }

    /// How many answers fit, at least.
    pub(super) const fn answers(self) -> usize {
        self.receive / ANSWER
    }
}

fn failed(call: &'static str) -> impl FnOnce(nix::Error) -> NetlinkError {
    move |error| NetlinkError::socket(call)(io::Error::from(error))
}

const SEND_OVERHEAD: usize = 32; // net/netlink/af_netlink.c, netlink_sendmsg
const ANSWER: usize = 1280; // a refusal with text, as the kernel accounts for it: 768 to 1,200 seen
