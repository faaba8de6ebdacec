//! Requests as they are written.

use std::fmt;
use std::net::IpAddr;
use std::ops::BitOr;

use super::NetlinkError;
use super::message::HEADER;

/// How a request is meant (`NLM_F_…`). That it is a request, and where an answer is wanted, the socket adds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Flags(pub u16);

impl Flags {
    /// Change or delete what is there.
    pub const NONE: Self = Self(0);
    /// Tell me what comes of it, too.
    pub(crate) const ECHO: Self = Self(0x8);
    /// Want an answer to this message of a [transaction](super::Socket::transaction).
    pub const ACK: Self = Self(0x4);
    /// Replace what is there.
    pub const REPLACE: Self = Self(0x100);
    /// Fail if it is there.
    pub const EXCLUSIVE: Self = Self(0x200);
    /// Make it if it is not there.
    pub const CREATE: Self = Self(0x400);
    /// Add at the end of what is there.
    pub const APPEND: Self = Self(0x800);
}

impl BitOr for Flags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Requests, encoded one after the other, in the order in which the kernel shall see them.
///
/// ```
/// use overlay_kernel::netlink::{Flags, Requests};
///
/// let mut requests = Requests::default();
/// for index in [7_u32, 8] {
///     requests.add(16, Flags::NONE, |body| { // RTM_NEWLINK: up
///         body.raw(&[0; 4]).raw(&index.to_ne_bytes()).raw(&1_u32.to_ne_bytes()).raw(&1_u32.to_ne_bytes());
///     });
/// }
/// assert_eq!(requests.len(), 2);
/// ```
#[derive(Clone, Default)]
pub struct Requests {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    too_large: Option<usize>,
}

impl Requests {
    /// A single one; see [`add`](Self::add).
    pub fn one(kind: u16, flags: Flags, body: impl FnOnce(&mut Body<'_>)) -> Self {
        let mut requests = Self::default();
        requests.add(kind, flags, body);
        requests
    }

    /// Appends a request of `kind` (`RTM_NEWLINK` and so on) whose payload `body` writes.
    pub fn add(&mut self, kind: u16, flags: Flags, body: impl FnOnce(&mut Body<'_>)) -> &mut Self {
        let start = self.bytes.len();
        self.bytes.extend([0; 4]);
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend((flags.0 | NLM_F_REQUEST).to_ne_bytes());
        self.bytes.extend([0; 8]);
        body(&mut Body { bytes: &mut self.bytes, too_large: &mut self.too_large });
        let length = u32::try_from(self.bytes.len() - start).unwrap_or(u32::MAX);
        self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
        pad(&mut self.bytes);
        self.ends.push(self.bytes.len());
        self
    }

    /// How many they are.
    pub const fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Their length in bytes.
    pub const fn size(&self) -> usize {
        self.bytes.len()
    }

    /// Adds flags to one of them.
    pub(crate) fn flag(&mut self, at: usize, more: Flags) {
        if at < self.len() {
            let start = self.start(at);
            stamp_flags(&mut self.bytes[start..], more);
        }
    }

    /// Says in each whose it is: XFRM repeats that in its notices, where other families know it of the socket.
    pub(crate) fn with_port(mut self, port: u32) -> Self {
        for at in 0..self.len() {
            let start = self.start(at);
            if let Some(said) = self.bytes.get_mut(start + 12..start + 16) {
                said.copy_from_slice(&port.to_ne_bytes());
            }
        }
        self
    }

    /// How many bytes the first `count` of them have.
    pub(crate) fn size_of_first(&self, count: usize) -> usize {
        self.start(count)
    }

    /// Appends the requests `from..to` of others.
    pub(crate) fn add_part(&mut self, others: &Self, from: usize, to: usize) {
        let (start, end) = (others.start(from), others.start(to));
        let base = self.bytes.len();
        self.bytes.extend_from_slice(&others.bytes[start..end]);
        self.ends.extend(others.ends[from..to].iter().map(|at| at - start + base));
        self.too_large = self.too_large.or(others.too_large);
    }

    /// Removes all and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
        self.too_large = None;
    }

    /// Whether every attribute fits its 16-bit length.
    pub(crate) const fn check(&self) -> Result<(), NetlinkError> {
        match self.too_large {
            Some(size) => Err(NetlinkError::TooLarge { what: "an attribute", size, limit: ATTRIBUTE_LIMIT }),
            None => Ok(()),
        }
    }

    /// Appends requests from `first` on to `out`, numbered from `sequence`: as many as fit `bytes` and `count`, but
    /// one at least. Says how many.
    pub(super) fn copy_chunk(&self, first: usize, room: Room, out: &mut Vec<u8>) -> usize {
        let start = self.start(first);
        let fits = |end: &&usize| **end - start <= room.bytes;
        let taken = self.ends[first..].iter().take(room.count).take_while(fits).count().max(1);
        out.extend_from_slice(&self.bytes[start..self.start(first + taken)]);
        taken
    }

    /// Appends all of them to `out`.
    pub(crate) fn copy_all(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.bytes);
    }

    /// Where each of the requests of a chunk begins within it.
    pub(super) fn starts(&self, first: usize, taken: usize) -> impl Iterator<Item = usize> {
        let base = self.start(first);
        (first..first + taken).map(move |at| self.start(at) - base)
    }

    fn start(&self, at: usize) -> usize {
        at.checked_sub(1).map_or(0, |before| self.ends[before])
    }
}

impl fmt::Debug for Requests {
    /// Without what is in them: it can be a key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Requests").field("len", &self.len()).field("size", &self.size()).finish_non_exhaustive()
    }
}

/// How much may be sent at once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    pub(super) bytes: usize,
    pub(super) count: usize,
}

/// The payload of a request while it is written. Every method writes on, nothing is taken back.
pub struct Body<'a> {
    bytes: &'a mut Vec<u8>,
    too_large: &'a mut Option<usize>,
}

impl Body<'_> {
    /// Bytes as they are: the struct that messages of this kind begin with.
    pub fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    /// An attribute with these bytes as its value.
    pub fn attribute(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        let start = self.open(kind);
        self.bytes.extend_from_slice(value);
        self.close(start)
    }

    /// An attribute that is there, no more.
    pub fn flag(&mut self, kind: u16) -> &mut Self {
        self.attribute(kind, &[])
    }

    /// One byte.
    pub fn u8(&mut self, kind: u16, value: u8) -> &mut Self {
        self.attribute(kind, &[value])
    }

    /// Two bytes in this machine's order.
    pub fn u16(&mut self, kind: u16, value: u16) -> &mut Self {
        self.attribute(kind, &value.to_ne_bytes())
    }

    /// Four bytes in this machine's order.
    pub fn u32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.attribute(kind, &value.to_ne_bytes())
    }

    /// Eight bytes in this machine's order.
    pub fn u64(&mut self, kind: u16, value: u64) -> &mut Self {
        self.attribute(kind, &value.to_ne_bytes())
    }

    /// Two bytes in network order.
    pub fn be16(&mut self, kind: u16, value: u16) -> &mut Self {
        self.attribute(kind, &value.to_be_bytes())
    }

    /// Four bytes in network order.
    pub fn be32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.attribute(kind, &value.to_be_bytes())
    }

    /// Eight bytes in network order.
    pub fn be64(&mut self, kind: u16, value: u64) -> &mut Self {
        self.attribute(kind, &value.to_be_bytes())
    }

    /// A text and a closing zero.
    pub fn text(&mut self, kind: u16, value: &str) -> &mut Self {
        let start = self.open(kind);
        self.bytes.extend_from_slice(value.as_bytes());
        self.bytes.push(0);
        self.close(start)
    }

    /// An address: 4 or 16 bytes.
    pub fn ip(&mut self, kind: u16, value: IpAddr) -> &mut Self {
        match value {
            IpAddr::V4(ip) => self.attribute(kind, &ip.octets()),
            IpAddr::V6(ip) => self.attribute(kind, &ip.octets()),
        }
    }

    /// An attribute of attributes, which `inside` writes. It holds 65,531 bytes; a longer one is reported when the
    /// requests are sent, and none of them is.
    pub fn nest(&mut self, kind: u16, inside: impl FnOnce(&mut Body<'_>)) -> &mut Self {
        let start = self.open(kind | NLA_F_NESTED);
        inside(&mut Body { bytes: self.bytes, too_large: self.too_large });
        self.close(start)
    }

    fn open(&mut self, kind: u16) -> usize {
        let start = self.bytes.len();
        self.bytes.extend([0; 2]);
        self.bytes.extend(kind.to_ne_bytes());
        start
    }

    fn close(&mut self, start: usize) -> &mut Self {
        let size = self.bytes.len() - start;
        match u16::try_from(size) {
            Ok(length) => self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes()),
            Err(_) => *self.too_large = Some(size),
        }
        pad(self.bytes);
        self
    }
}

impl fmt::Debug for Body<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body").finish_non_exhaustive()
    }
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

/// Numbers the message at the head of `message` and adds flags to it.
pub(super) fn stamp(message: &mut [u8], sequence: u32, more: Flags) {
    stamp_flags(message, more);
    let Some(header) = message.first_chunk_mut::<HEADER>() else { return };
    header[8..12].copy_from_slice(&sequence.to_ne_bytes());
}

fn stamp_flags(message: &mut [u8], more: Flags) {
    let Some(header) = message.first_chunk_mut::<HEADER>() else { return };
    let flags = u16::from_ne_bytes([header[6], header[7]]) | more.0;
    header[6..8].copy_from_slice(&flags.to_ne_bytes());
}

/// Whether the message at the head of `bytes` asks for an answer.
pub(super) fn wants_ack(message: &[u8]) -> bool {
    message.get(6..8).is_some_and(|flags| u16::from_ne_bytes([flags[0], flags[1]]) & Flags::ACK.0 != 0)
}

const NLM_F_REQUEST: u16 = 1;
pub(super) const NLM_F_DUMP: Flags = Flags(0x300);
const NLA_F_NESTED: u16 = 0x8000;
const ATTRIBUTE_LIMIT: usize = 65_535;
