//! Replies, written from front to back into the caller's buffer.

use super::{Edns, HEADER_LEN, QR, TYPE_OPT};

/// A reply under way: the header and the question are there, records follow.
#[derive(Debug)]
pub(crate) struct Reply<'o> {
    out: &'o mut Vec<u8>,
}

/// The header's second word but for QR and RCODE: RA, AA, and what is copied from the query.
type Flags = u16;

/// Bytes of an OPT record without options.
const OPT_LEN: usize = 11;
/// What a record has besides its data when its owner is the question's name: pointer, type, class, TTL, length.
pub(crate) const RECORD_LEN: usize = 12;

impl<'o> Reply<'o> {
    /// Begins a reply in `out`, in place of what was there, to the question that `query` has behind its header.
    #[inline]
    pub(crate) fn begin(out: &'o mut Vec<u8>, id: u16, flags: Flags, question: &[u8]) -> Self {
        out.clear();
        let mut header = [0; HEADER_LEN];
        let [a, b] = id.to_be_bytes();
        let [c, d] = (flags | QR).to_be_bytes();
        header[..6].copy_from_slice(&[a, b, c, d, 0, 1]);
        out.extend_from_slice(&header);
        out.extend_from_slice(question);
        Self { out }
    }

    /// How many records of `size` bytes each, the fixed part included, there is room for up to `limit`.
    #[inline]
    pub(crate) fn room(&self, limit: usize, edns: Option<Edns>) -> usize {
        limit.saturating_sub(self.out.len() + if edns.is_some() { OPT_LEN } else { 0 })
    }

    /// A record whose owner is the name at `owner` in this message.
    #[inline]
    pub(crate) fn record(&mut self, owner: u16, record_type: u16, ttl: u32, data: &[u8]) {
        let [a, b] = (0xc000 | owner).to_be_bytes();
        let [c, d] = record_type.to_be_bytes();
        let [e, f, g, h] = ttl.to_be_bytes();
        let [i, j] = (data.len() as u16).to_be_bytes();
        self.out.extend_from_slice(&[a, b, c, d, 0, 1, e, f, g, h, i, j]);
        self.out.extend_from_slice(data);
    }

    /// Says how many answers and authority records there are, adds OPT if the client had one, and gives the bytes.
    #[inline]
    pub(crate) fn finish(self, answers: usize, authorities: usize, edns: Option<Edns>, max_payload: u16) {
        let [a, b] = (answers as u16).to_be_bytes();
        let [c, d] = (authorities as u16).to_be_bytes();
        if let Some(counts) = self.out.get_mut(6..HEADER_LEN) {
            counts.copy_from_slice(&[a, b, c, d, 0, u8::from(edns.is_some())]);
        }
        if let Some(edns) = edns {
            self::edns(self.out, max_payload, edns.dnssec_ok);
        }
    }
}

/// An OPT record of version 0 without options (RFC 6891 §6.1.2).
#[inline]
pub(crate) fn edns(out: &mut Vec<u8>, max_payload: u16, dnssec_ok: bool) {
    let [a, b] = TYPE_OPT.to_be_bytes();
    let [c, d] = max_payload.to_be_bytes();
    out.extend_from_slice(&[0, a, b, c, d, 0, 0, u8::from(dnssec_ok) << 7, 0, 0, 0]);
}
