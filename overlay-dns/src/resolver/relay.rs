//! From a reply that was kept, or has just come, to the bytes one client gets.

use super::vet::Reply;
use crate::answer::{self, Limits, SERV_FAIL};
use crate::wire::{AD, CD, HEADER_LEN, Posed, RA, RCODE, RD, edns, long};

/// How long a client may keep what is past its time, in seconds (RFC 8767 §4).
pub(super) const STALE_TTL: u32 = 30;

/// How old a reply is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Age {
    /// So many seconds; TTLs are that much lower.
    Seconds(u32),
    /// Past its time.
    Stale,
}

/// Writes a reply for a client: its id, its letters, its flags, its EDNS, and no more than it takes.
pub(super) fn write(reply: &Reply, age: Age, posed: Posed<'_>, limits: Limits, out: &mut Vec<u8>) {
    let Posed { query, question } = posed;
    out.clear();
    out.extend_from_slice(&reply.bytes);
    for at in &reply.ttls {
        let at = usize::from(*at);
        let ttl = long(out, at).unwrap_or_default();
        let left = match age {
            Age::Seconds(age) => crate::RecordTtl::from_wire(ttl).as_secs().saturating_sub(age),
            Age::Stale => STALE_TTL,
        };
        put(out, at, &left.to_be_bytes());
    }
    let theirs = crate::wire::word(out, 2).unwrap_or_default();
    let verified = if query.dnssec_ok() || query.flags & AD != 0 { theirs & AD } else { 0 };
    let flags = crate::wire::QR | RA | query.flags & (RD | CD) | verified | theirs & RCODE;
    put(out, 0, &query.id.to_be_bytes());
    put(out, 2, &flags.to_be_bytes());
    put(out, 10, &u16::from(query.edns.is_some()).to_be_bytes());
    put(out, HEADER_LEN, question);
    let kept = reply.ttls.len();
    let answers = crate::wire::word(out, 6).unwrap_or_default();
    put(out, 8, &(kept as u16).saturating_sub(answers).to_be_bytes());
    if let Some(client) = query.edns {
        edns(out, limits.max_udp, client.dnssec_ok);
    }
    if out.len() > limits.of(query) {
        answer::cut(out, query, limits);
    }
}

/// Writes that no server answered.
pub(super) fn failure(posed: Posed<'_>, limits: Limits, out: &mut Vec<u8>) {
    answer::empty(posed, SERV_FAIL, limits.max_udp, out);
}

fn put(out: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(place) = out.get_mut(at..at + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}
