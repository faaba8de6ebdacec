//! Messages as they are read (`linux/netlink.h`, `struct nlmsghdr`).

use std::fmt;
use std::iter::FusedIterator;

use super::{Attributes, Malformed, NetlinkError};

/// A message's header and what follows it.
#[derive(Clone, Copy, PartialEq, Eq)]
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

impl fmt::Debug for Message<'_> {
    /// Without the payload: a dump of security associations holds their keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("kind", &self.kind)
            .field("flags", &self.flags)
            .field("sequence", &self.sequence)
            .field("port", &self.port)
            .field("size", &self.payload.len())
            .finish_non_exhaustive()
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
#[derive(Clone)]
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

impl fmt::Debug for Messages<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.clone()).finish()
    }
}

pub(super) const HEADER: usize = 16;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLMSG_MIN_TYPE: u16 = 0x10;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLM_F_CAPPED: u16 = 0x100; // on answers
const NLM_F_ACK_TLVS: u16 = 0x200; // on answers
const NLMSGERR_ATTR_MSG: u16 = 1;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::netlink::{Flags, Requests};

    #[test]
    fn a_refusal_is_heard_with_its_words_whether_or_not_the_request_comes_back_with_it() {
        for capped in [true, false] {
            let request = Requests::one(16, Flags::NONE, |body| {
                body.raw(&[1, 2, 3]);
            });
            let mut echoed = Vec::new();
            request.copy_all(&mut echoed);
            let flags = NLM_F_ACK_TLVS | if capped { NLM_F_CAPPED } else { 0 };
            let answer = Requests::one(NLMSG_ERROR, Flags(flags), |body| {
                body.raw(&(-17_i32).to_ne_bytes()).raw(if capped { &echoed[..HEADER] } else { &echoed });
                body.text(NLMSGERR_ATTR_MSG, "it is there");
            });
            let mut bytes = Vec::new();
            answer.copy_all(&mut bytes);
            let verdict = Messages::new(&bytes).next().unwrap().unwrap().verdict().unwrap().unwrap();
            assert_eq!((verdict.errno, verdict.text.as_deref()), (17, Some("it is there")), "capped: {capped}");
        }
    }

    #[test]
    fn no_debug_output_shows_what_may_be_a_key() {
        let requests = Requests::one(16, Flags::NONE, |body| {
            body.attribute(1, &[222; 8]);
        });
        let mut bytes = Vec::new();
        requests.copy_all(&mut bytes);
        let message = Messages::new(&bytes).next().unwrap().unwrap();
        let attributes = message.attributes(0).unwrap();
        let attribute = attributes.clone().next().unwrap().unwrap();
        let shown = format!("{requests:?} {message:?} {:?} {attributes:?} {attribute:?}", Messages::new(&bytes));
        assert!(!shown.contains("222"), "{shown}");
    }

    #[test]
    fn the_end_of_a_dump_needs_no_code() {
        let end = Message { kind: NLMSG_DONE, flags: 0, sequence: 1, port: 0, payload: &[] };
        assert_eq!(end.verdict().unwrap().unwrap().errno, 0);
        let error = Message { kind: NLMSG_ERROR, ..end };
        assert!(error.verdict().unwrap().is_err());
    }

    proptest! {
        #[test]
        fn what_is_written_is_what_is_read(
            messages in proptest::collection::vec((16_u16.., any::<u16>(), attributes()), 0..8)
        ) {
            let mut requests = Requests::default();
            for (kind, flags, attributes) in &messages {
                requests.add(*kind, Flags(*flags), |body| {
                    for (kind, value) in attributes {
                        body.attribute(*kind, value);
                    }
                });
            }
            let mut bytes = Vec::new();
            requests.copy_all(&mut bytes);
            let mut read = Vec::new();
            for message in Messages::new(&bytes) {
                let message = message.unwrap();
                let attributes = message.attributes(0).unwrap().map(|a| a.map(|a| (a.kind, a.value.to_vec())));
                read.push((message.kind, message.flags & !1, attributes.collect::<Result<Vec<_>, _>>().unwrap()));
            }
            let written: Vec<_> = messages.into_iter().map(|(kind, flags, a)| (kind, flags & !1, a)).collect();
            prop_assert_eq!(read, written);
        }

        #[test]
        fn no_bytes_make_a_reader_panic_or_read_for_ever(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            for message in Messages::new(&bytes).flatten() {
                let _ = message.verdict();
                let _ = message.head::<12>();
                for attribute in message.attributes(4).into_iter().flatten().flatten() {
                    let _ = (attribute.u32(), attribute.be64(), attribute.text(), attribute.ip());
                    let _ = attribute.nested().count();
                }
            }
        }

        #[test]
        fn nor_do_bytes_that_begin_well(
            length in 0_u32..80, kind in 0_u16..20, flags in any::<u16>(), rest in proptest::collection::vec(any::<u8>(), 0..80)
        ) {
            let mut bytes = length.to_ne_bytes().to_vec();
            bytes.extend(kind.to_ne_bytes());
            bytes.extend(flags.to_ne_bytes());
            bytes.extend([0; 8]);
            bytes.extend(rest);
            for message in Messages::new(&bytes).flatten() {
                let _ = message.verdict();
            }
        }
    }

    fn attributes() -> impl Strategy<Value = Vec<(u16, Vec<u8>)>> {
        proptest::collection::vec((0_u16..=0x3fff, proptest::collection::vec(any::<u8>(), 0..20)), 0..5)
    }
}
