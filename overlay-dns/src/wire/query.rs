//! Queries as stub resolvers send them.

use hickory_proto::rr::RecordType;

use super::{CLASS_IN, DO, HEADER_LEN, OPCODE, PLAIN_UDP, QR, TC, TYPE_OPT, long, word};
use crate::Question;

/// One question of class IN, with or without EDNS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Query {
    pub(crate) id: u16,
    /// RD, AD and CD as they were sent.
    pub(crate) flags: u16,
    pub(crate) name: Folded,
    pub(crate) record_type: u16,
    pub(crate) edns: Option<Edns>,
}

/// A query and its question's bytes as they belong behind a reply's header: in the client's letters, uncompressed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Posed<'q> {
    pub(crate) query: &'q Query,
    pub(crate) question: &'q [u8],
}

/// What a client says by EDNS (RFC 6891 §6.1.2). Options are for neighbours on the path only, and left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Edns {
    pub(crate) payload: u16,
    pub(crate) dnssec_ok: bool,
}

/// A question's name in small letters, and where its labels are.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Folded {
    bytes: [u8; 255],
    len: u8, // without the closing zero
    last: u8,
    labels: u8,
}

impl Query {
    /// Reads a query of the usual shape: QUERY, one question of class IN whose name is not compressed, no records but OPT of
    /// version 0, nothing behind. `None` says only that it is something else.
    #[inline]
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let header: &[u8; HEADER_LEN] = bytes.first_chunk()?;
        let [id_high, id_low, flags_high, flags_low, counts @ ..] = *header;
        let flags = u16::from_be_bytes([flags_high, flags_low]);
        let [0, 1, 0, 0, 0, 0, 0, additional @ (0 | 1)] = counts else { return None };
        if flags & (QR | OPCODE | TC) != 0 {
            return None;
        }
        let (name, rest) = Folded::parse(bytes.get(HEADER_LEN..)?)?;
        let (question, rest) = rest.split_first_chunk::<4>()?;
        let [type_high, type_low, class @ ..] = *question;
        let record_type = u16::from_be_bytes([type_high, type_low]);
        if u16::from_be_bytes(class) != CLASS_IN || is_odd(record_type) {
            return None;
        }
        let edns = match (additional, rest) {
            (0, []) => None,
            (1, rest) => Some(Edns::parse(rest)?),
            _ => return None,
        };
        let flags = flags & (super::RD | super::AD | super::CD);
        Some(Self { id: u16::from_be_bytes([id_high, id_low]), flags, name, record_type, edns })
    }

    #[inline]
    pub(crate) fn question(&self) -> Question<'_> {
        Question {
            folded: self.name.as_wire(),
            last: self.name.last.into(),
            labels: self.name.labels.into(),
            record_type: RecordType::from(self.record_type),
        }
    }

    /// Bytes of the question in the message that this was read from.
    #[inline]
    pub(crate) fn question_len(&self) -> usize {
        usize::from(self.name.len) + 1 + 4
    }

    pub(crate) fn dnssec_ok(&self) -> bool {
        self.edns.is_some_and(|edns| edns.dnssec_ok)
    }
}

/// Types that are no types of records: they ask for something special (RFC 6895 §3.1) and are answered apart.
pub(crate) const fn is_odd(record_type: u16) -> bool {
    matches!(record_type, 0 | TYPE_OPT | 128..=255)
}

impl Edns {
    /// An OPT record of version 0 that is all there is.
    fn parse(record: &[u8]) -> Option<Self> {
        let (fixed, options) = record.split_first_chunk::<11>()?;
        let [0, rest @ ..] = fixed else { return None };
        let (record_type, payload) = (word(rest, 0)?, word(rest, 2)?);
        let (ttl, length) = (long(rest, 4)?, word(rest, 8)?);
        if record_type != TYPE_OPT || ttl >> 16 != 0 || usize::from(length) != options.len() || !are_options(options) {
            return None;
        }
        Some(Self { payload: payload.max(PLAIN_UDP), dnssec_ok: ttl as u16 & DO != 0 }) // RFC 6891 §6.2.3
    }
}

/// Whether these bytes are options, each after its code and length.
fn are_options(mut options: &[u8]) -> bool {
    while let Some((head, rest)) = options.split_first_chunk::<4>() {
        let Some(rest) = rest.get(usize::from(u16::from_be_bytes([head[2], head[3]]))..) else { return false };
        options = rest;
    }
    options.is_empty()
}

impl Folded {
    /// Reads an uncompressed name, and gives what follows it.
    #[inline]
    fn parse(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let mut name = Self { bytes: [0; 255], len: 0, last: 0, labels: 0 };
        let mut at = 0;
        loop {
            let length = usize::from(*bytes.get(at)?);
            if length == 0 {
                break;
            }
            if length > 63 || at + 1 + length >= name.bytes.len() {
                return None;
            }
            name.last = at as u8;
            name.labels += 1;
            at += 1 + length;
        }
        name.len = at as u8;
        let (wire, rest) = bytes.split_at_checked(at)?;
        for (to, from) in name.bytes.iter_mut().zip(wire) {
            *to = from.to_ascii_lowercase();
        }
        Some((name, rest.get(1..)?))
    }

    /// A name that was read by hickory-proto; `None` for none that could be on the wire.
    pub(crate) fn new(wire: &[u8]) -> Option<Self> {
        let (name, rest) = Self::parse(wire)?;
        rest.is_empty().then_some(name)
    }

    /// The name without its closing zero.
    #[inline]
    pub(crate) fn as_wire(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl std::fmt::Debug for Folded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.as_wire().escape_ascii().to_string())
    }
}
