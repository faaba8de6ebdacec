//! From a question of ours to the bytes of its answer.

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::Rng;
use smallvec::SmallVec;

use crate::wire::{AA, CD, MAX_MESSAGE, PLAIN_UDP, Posed, Query, RA, RD, RECORD_LEN, Reply, TC, edns};
use crate::{Data, DnsName, Lookup, Records, Srv};

/// How large an answer to this client may be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// By TCP, anything goes.
    pub(crate) tcp: bool,
    /// What we send by UDP at most, and say so by EDNS.
    pub(crate) max_udp: u16,
}

impl Limits {
    /// Bytes that this client takes: by UDP what it says by EDNS, but no more than we send.
    #[inline]
    pub(crate) fn of(self, query: &Query) -> usize {
        if self.tcp {
            return MAX_MESSAGE;
        }
        let asked = query.edns.map_or(PLAIN_UDP, |edns| edns.payload.max(PLAIN_UDP));
        usize::from(asked.min(self.max_udp.max(PLAIN_UDP)))
    }
}

/// How a question was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answered {
    Records,
    NoData,
    NoName,
}

pub(crate) const NO_ERROR: u16 = 0;
pub(crate) const SERV_FAIL: u16 = 2;
pub(crate) const NX_DOMAIN: u16 = 3;
pub(crate) const REFUSED: u16 = 5;

/// How long clients may keep that a name has no records of a type, or is none (RFC 2308 §3), in seconds. As short as
/// what services have: a name may be given any moment.
const NEGATIVE_TTL: u32 = 5;
/// Where a question's name is in every message.
const QNAME: u16 = 12;

/// Writes what a source says; `None` for what is not ours.
#[inline]
pub(crate) fn write(
    posed: Posed<'_>,
    lookup: Lookup<'_>,
    limits: Limits,
    out: &mut Vec<u8>,
    rng: &mut ChaCha12Rng,
) -> Option<Answered> {
    match lookup {
        Lookup::NotOurs => None,
        Lookup::NoName { apex } => {
            negative(posed, (NX_DOMAIN, apex), limits, out);
            Some(Answered::NoName)
        }
        Lookup::NoData { apex } => {
            negative(posed, (NO_ERROR, apex), limits, out);
            Some(Answered::NoData)
        }
        Lookup::Records(records) => {
            positive(posed, &records, limits, out, rng);
            Some(Answered::Records)
        }
    }
}

/// What is in the header of all that we answer ourselves; AD is never ours to set.
#[inline]
pub(crate) const fn flags(query: &Query) -> u16 {
    query.flags & (RD | CD) | RA
}

/// A reply without records.
pub(crate) fn empty(posed: Posed<'_>, rcode: u16, max_udp: u16, out: &mut Vec<u8>) {
    let Posed { query, question } = posed;
    Reply::begin(out, query.id, flags(query) | rcode, question).finish(0, 0, query.edns, max_udp);
}

fn negative(posed: Posed<'_>, (rcode, apex): (u16, usize), limits: Limits, out: &mut Vec<u8>) {
    let Posed { query, question } = posed;
    let mut reply = Reply::begin(out, query.id, flags(query) | AA | rcode, question);
    let owner = owner(query, apex);
    let [high, low] = (0xc000 | owner).to_be_bytes();
    let mut data = [0; 2 + 1 + 20];
    data[..2].copy_from_slice(&[high, low]); // MNAME is the zone itself, RNAME the root
    for (field, value) in data[3..].as_chunks_mut::<4>().0.iter_mut().zip([1, 3600, 600, 86_400, NEGATIVE_TTL]) {
        *field = u32::to_be_bytes(value);
    }
    reply.record(owner, TYPE_SOA, NEGATIVE_TTL, &data);
    reply.finish(0, 1, query.edns, limits.max_udp);
}

const TYPE_SOA: u16 = 6;

/// Where in the message the last `apex` labels of the question's name begin.
fn owner(query: &Query, apex: usize) -> u16 {
    let name = query.name.as_wire();
    let question = query.question();
    if apex == 1 {
        return QNAME + question.last as u16;
    }
    let skipped = crate::name::labels(name).take(question.labels.saturating_sub(apex));
    QNAME + skipped.map(|label| label.len() as u16 + 1).sum::<u16>()
}

/// Records in a random order, as many as fit: a client that does not come back by TCP has a fair share of them.
#[inline]
fn positive(posed: Posed<'_>, records: &Records<'_>, limits: Limits, out: &mut Vec<u8>, rng: &mut ChaCha12Rng) {
    let Posed { query, question } = posed;
    let mut reply = Reply::begin(out, query.id, flags(query) | AA, question);
    let room = reply.room(limits.of(query), query.edns);
    let ttl = records.ttl.as_secs();
    let mut count = 0;
    let mut left = room;
    let mut put = |data: &[u8], reply: &mut Reply<'_>| {
        let fits = left.checked_sub(RECORD_LEN + data.len());
        if let Some(rest) = fits {
            left = rest;
            count += 1;
            reply.record(QNAME, query.record_type, ttl, data);
        }
        fits.is_some()
    };
    let whole = match &records.data {
        Data::A(all) => in_random_order(all, rng, |ip| put(&ip.octets(), &mut reply)),
        Data::Aaaa(all) => in_random_order(all, rng, |ip| put(&ip.octets(), &mut reply)),
        Data::Ptr(all) => in_random_order(all, rng, |name| put(&ptr(name), &mut reply)),
        Data::Srv(all) => in_random_order(all, rng, |srv| put(&srv_data(srv), &mut reply)),
        Data::Txt(all) => in_random_order(all, rng, |txt| put(txt.as_wire(), &mut reply)),
    };
    reply.finish(count, 0, query.edns, limits.max_udp);
    if !whole {
        truncated(out);
    }
}

/// Sets TC.
pub(crate) fn truncated(reply: &mut [u8]) {
    if let Some(flags) = reply.get_mut(2) {
        *flags |= (TC >> 8) as u8;
    }
}

/// Gives all to `put`, each order as likely, until it takes no more; whether it took all.
#[inline]
fn in_random_order<T>(all: &[T], rng: &mut ChaCha12Rng, mut put: impl FnMut(&T) -> bool) -> bool {
    if let [only] = all {
        return put(only);
    }
    let mut order: SmallVec<[u32; 64]> = (0..all.len() as u32).collect();
    for at in 0..order.len() {
        let left = (order.len() - at) as u64;
        let other = at + ((u64::from(rng.next_u32()) * left) >> 32) as usize;
        order.swap(at, other);
        let chosen = order.get(at).and_then(|chosen| all.get(*chosen as usize));
        if !chosen.is_some_and(&mut put) {
            return false;
        }
    }
    true
}

fn ptr(name: &DnsName) -> SmallVec<[u8; 64]> {
    let mut data = SmallVec::from_slice(name.as_wire());
    data.push(0);
    data
}

/// RFC 2782; the target is not compressed.
fn srv_data(srv: &Srv) -> SmallVec<[u8; 64]> {
    let mut data = SmallVec::new();
    for field in [srv.priority, srv.weight, srv.port.get()] {
        data.extend_from_slice(&field.to_be_bytes());
    }
    data.extend_from_slice(srv.target.as_wire());
    data.push(0);
    data
}

/// Cuts a reply that came from elsewhere down to what a client takes: the question stays, TC says that there is more.
pub(crate) fn cut(out: &mut Vec<u8>, query: &Query, limits: Limits) {
    out.truncate(crate::wire::HEADER_LEN + query.question_len());
    if let Some(counts) = out.get_mut(6..crate::wire::HEADER_LEN) {
        counts.copy_from_slice(&[0, 0, 0, 0, 0, u8::from(query.edns.is_some())]);
    }
    if let Some(client) = query.edns {
        edns(out, limits.max_udp, client.dnssec_ok);
    }
    truncated(out);
}
