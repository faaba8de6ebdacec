//! Messages as they are read (`linux/netlink.h`, `struct nlmsghdr`).

use std::iter::FusedIterator;

use super::{Attributes, Malformed, NetlinkError};

/// A message's header and what follows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message<'a> {
    /// What it is: `RTM_NEWLINK` and so on.
    pub kind: u16,
    /// `NLM_F_…`.
    pub flags: u16,
    /// The number of the request it answers; of a notification, that of the request that caused it, or 0.
    pub sequence: u32,
    /// The port of the socket that asked; of a notification, the one that caused it, where the kernel says so, or 0.
    pub port: u32,
    /// What follows the header: for most kinds a struct of their own, then attributes.
    pub payload: &'a [u8],
}

impl<'a> Message<'a> {
    /// The first `N` bytes of the payload: the struct that messages of this kind begin with.
    pub fn head<const N: usize>(&self) -> Result<[u8; N], Malformed> {
        self.payload.first_chunk().copied().ok_or(Malformed::new("a cut head"))
    }

    /// The attributes after a head of `skip` bytes.
    pub fn attributes(&self, skip: usize) -> Result<Attributes<'a>, Malformed> {
        self.payload.get(skip..).map(Attributes::new).ok_or(Malformed::new("a cut head"))
    }

    /// What an end-of-dump or error message says of the request; nothing for other kinds.
    pub(super) fn verdict(&self) -> Option<Result<Verdict, Malformed>> {
        matches!(self.kind, NLMSG_ERROR | NLMSG_DONE).then(|| self.outcome())
    }

    fn outcome(&self) -> Result<Verdict, Malformed> {
        let Some(code) = self.payload.first_chunk().map(|bytes| i32::from_ne_bytes(*bytes)) else {
            return match self.kind {
                NLMSG_DONE => Ok(Verdict { errno: 0, text: None }), // old kernels end a dump without a code
                _ => Err(Malformed::new("an answer without a code")),
            };
        };
        let errno = code.checked_neg().filter(|errno| *errno >= 0).unwrap_or(0); // dumps may end with a length
        let text = if self.flags & NLM_F_ACK_TLVS == 0 { None } else { self.explanation() };
        Ok(Verdict { errno, text })
    }

    /// The text of an extended acknowledgement. One that cannot be read is as good as none: the code is what counts.
    fn explanation(&self) -> Option<Box<str>> {
        let skip = match self.kind {
            NLMSG_DONE => 4,
            _ if self.flags & NLM_F_CAPPED != 0 => 4 + HEADER,
            _ => {
                let request = self.payload.get(4..8)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))?;
                4 + usize::try_from(request).ok()?.checked_next_multiple_of(4)?
            }
        };
        let text = self.attributes(skip).ok()?.find(NLMSGERR_ATTR_MSG).ok()??;
        text.text().ok().map(Into::into)
    }

    pub(super) const fn is_dump_interrupted(&self) -> bool {
        self.flags & NLM_F_DUMP_INTR != 0
    }

    pub(super) const fn is_control(&self) -> bool {
        self.kind < NLMSG_MIN_TYPE
    }
}

/// The kernel's answer to one request.
#[derive(Debug)]
pub(super) struct Verdict {
    pub(super) errno: i32,
    pub(super) text: Option<Box<str>>,
}

impl Verdict {
    pub(super) fn into_result(self) -> Result<(), NetlinkError> {
        match self.errno {
            0 => Ok(()),
            errno => Err(NetlinkError::Refused { errno, text: self.text }),
        }
    }
}

/// The messages of one datagram; ends after the first that is cut.
#[derive(Debug, Clone)]
pub struct Messages<'a>(&'a [u8]);

impl<'a> Messages<'a> {
    /// The messages in `bytes`, as one read from a socket gives them.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = Result<Message<'a>, Malformed>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let Some(header) = self.0.first_chunk::<HEADER>() else {
            let cut = !std::mem::take(&mut self.0).is_empty();
            return cut.then_some(Err(Malformed::new("a cut header")));
        };
        let word = |at: usize| u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let half = |at: usize| u16::from_ne_bytes([header[at], header[at + 1]]);
        let (kind, flags, sequence, port) = (half(4), half(6), word(8), word(12));
        let length = usize::try_from(word(0)).unwrap_or(usize::MAX);
        let Some(payload) = self.0.get(HEADER..length) else {
            self.0 = &[];
            return Some(Err(Malformed::new("a cut message")));
        };
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Ok(Message { kind, flags, sequence, port, payload }))
    }
}

impl FusedIterator for Messages<'_> {}

pub(super) const HEADER: usize = 16;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLMSG_MIN_TYPE: u16 = 0x10;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLM_F_CAPPED: u16 = 0x100; // on answers
const NLM_F_ACK_TLVS: u16 = 0x200; // on answers
const NLMSGERR_ATTR_MSG: u16 = 1;
