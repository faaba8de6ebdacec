//! DNS messages in place: the shapes that nearly all have. What is not of these shapes, hickory-proto reads.

mod message;
mod query;
mod reply;

pub(crate) use self::message::{Message, Name, Record, Section};
pub(crate) use self::query::{Edns, Folded, Posed, Query};
pub(crate) use self::reply::{RECORD_LEN, Reply, edns};

/// Bytes of the header (RFC 1035 §4.1.1).
pub(crate) const HEADER_LEN: usize = 12;
/// What a client without EDNS takes by UDP (RFC 1035 §2.3.4).
pub(crate) const PLAIN_UDP: u16 = 512;
/// What a TCP message may have (RFC 1035 §4.2.2).
pub(crate) const MAX_MESSAGE: usize = 65_535;

/// The class of the Internet (RFC 1035 §3.2.4).
pub(crate) const CLASS_IN: u16 = 1;
/// The type of EDNS's pseudo-record (RFC 6891 §6.1.2).
pub(crate) const TYPE_OPT: u16 = 41;
/// EDNS's DO flag (RFC 3225 §3).
pub(crate) const DO: u16 = 0x8000;

// Flags of the header's second word (RFC 1035 §4.1.1, RFC 4035 §3).
pub(crate) const QR: u16 = 0x8000;
pub(crate) const OPCODE: u16 = 0x7800;
pub(crate) const AA: u16 = 0x0400;
pub(crate) const TC: u16 = 0x0200;
pub(crate) const RD: u16 = 0x0100;
pub(crate) const RA: u16 = 0x0080;
pub(crate) const AD: u16 = 0x0020;
pub(crate) const CD: u16 = 0x0010;
pub(crate) const RCODE: u16 = 0x000f;

/// Two bytes at `at`.
#[inline]
pub(crate) fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Four bytes at `at`.
pub(crate) fn long(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}
