//! Whether what an upstream server says is an answer to what it was asked.

use std::time::Duration;

use smallvec::SmallVec;

use crate::RecordTtl;
use crate::answer::{NO_ERROR, NX_DOMAIN};
use crate::wire::{Message, RCODE, Record, Section, TC, TYPE_OPT};

/// A reply that can be given on and kept: header, question and those records that belong to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) bytes: Box<[u8]>,
    pub(super) question_end: usize,
    /// Where its TTLs are.
    pub(super) ttls: SmallVec<[u16; 4]>,
    /// How long it may be kept; `None` if not at all.
    pub(super) ttl: Option<Duration>,
}

/// What a message is, if its question is the one that was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    Reply(Reply),
    /// There is more, by TCP.
    Cut,
    /// The server does not answer: SERVFAIL, REFUSED, a referral, or what it says cannot be.
    Useless {
        lie: bool,
    },
    /// It does not know EDNS (FORMERR or NOTIMP, and no OPT record).
    NoEdns,
}

const TYPE_NS: u16 = 2;
const TYPE_CNAME: u16 = 5;
const TYPE_SOA: u16 = 6;
const TYPE_PTR: u16 = 12;
const TYPE_MX: u16 = 15;
const TYPE_SRV: u16 = 33;
const TYPE_DNAME: u16 = 39;
const TYPE_RRSIG: u16 = 46;
const TYPE_NSEC: u16 = 47;
const TYPE_NSEC3: u16 = 50;
const TYPE_SVCB: u16 = 64;
const TYPE_HTTPS: u16 = 65;

/// Judges a message whose id, question, server and socket are right. `name` is what was asked, in small letters;
/// `with_dnssec` keeps the records that prove.
pub(super) fn judge(message: &Message<'_>, name: &[u8], record_type: u16, with_dnssec: bool) -> Verdict {
    let (flags, rcode) = (message.flags(), message.flags() & RCODE);
    let opt = message.section(Section::Additional).find(|record| record.record_type == TYPE_OPT);
    if flags & TC != 0 {
        return Verdict::Cut;
    }
    if matches!(rcode, 1 | 4) && opt.is_none() {
        return Verdict::NoEdns;
    }
    if !matches!(rcode, NO_ERROR | NX_DOMAIN) || opt.is_some_and(|opt| opt.ttl >> 24 != 0) {
        return Verdict::Useless { lie: false };
    }
    let Some(chain) = chain(message, name, record_type) else { return Verdict::Useless { lie: true } };
    let is_answered = message.section(Section::Answer).any(|it| it.record_type == record_type);
    let soa = if is_answered { None } else { soa(message, &chain) };
    if !is_answered && soa.is_none() && rcode == NO_ERROR && is_referral(message) {
        return Verdict::Useless { lie: false };
    }
    let proves = is_answered && with_dnssec && are_proofs(message, &chain) || soa.is_some();
    let end = message.end_of(if proves { Section::Authority } else { Section::Answer });
    let kept = || message.records.iter().filter(|record| record.end <= end);
    let lowest = kept().map(|record| RecordTtl::from_wire(record.ttl)).min();
    let ttl = if is_answered { lowest } else { soa.zip(lowest).map(|(soa, lowest)| soa.min(lowest)) };
    Verdict::Reply(Reply {
        bytes: message.bytes.get(..end).unwrap_or_default().into(),
        question_end: message.question_end,
        ttls: kept().filter_map(|record| u16::try_from(record.ttl_at()).ok()).collect(),
        ttl: ttl.map(Duration::from).filter(|ttl| !ttl.is_zero()),
    })
}

/// The longest chain of aliases that is followed; resolvers give up earlier.
const MAX_ALIASES: usize = 16;

type Names = SmallVec<[crate::wire::Name; 4]>;

/// The name asked for and those it is an alias of; `None` if there is an answer that belongs to none of them
/// (RFC 5452 §6). O(answers × aliases), in whatever order they stand.
fn chain(message: &Message<'_>, name: &[u8], record_type: u16) -> Option<Names> {
    let mut chain: Names = [crate::wire::Name::from_slice(name)].into_iter().collect();
    let mut left: SmallVec<[(&Record, crate::wire::Name); 8]> = SmallVec::new();
    for record in message.section(Section::Answer) {
        is_sound(message, record).then_some(())?;
        left.push((record, message.name(record.start)?));
    }
    let mut from = 0; // names before this one were held to all that is left
    while !left.is_empty() {
        let (before, known) = (left.len(), chain.len());
        let mut rest = SmallVec::new();
        for (record, owner) in left {
            if !is_of(record, &owner, chain.get(from..)?, record_type)? {
                rest.push((record, owner));
            } else if record.record_type == TYPE_CNAME {
                (chain.len() <= MAX_ALIASES).then_some(())?;
                chain.push(message.name(record.data())?);
            }
        }
        if rest.len() == before {
            return None;
        }
        (left, from) = (rest, known);
    }
    Some(chain)
}

/// Whether an answer belongs to one of these names; `None` if its type belongs in no answer to this question.
fn is_of(record: &Record, owner: &[u8], names: &[crate::wire::Name], record_type: u16) -> Option<bool> {
    match record.record_type {
        TYPE_DNAME | TYPE_RRSIG => Some(names.iter().any(|name| is_within(name, owner))),
        TYPE_CNAME => Some(names.iter().any(|name| name[..] == *owner)),
        other if other == record_type || record_type == 255 => Some(names.iter().any(|name| name[..] == *owner)),
        _ => None,
    }
}

/// Whether a record is of class IN, and its data are as those of its type are: of the length they have, and names in them names, which whoever
/// gets the reply can read as they are read here.
fn is_sound(message: &Message<'_>, record: &Record) -> bool {
    let length = record.end - record.data();
    // Names behind so many bytes, and whether so many bytes more are all there is, or the least.
    let names = |before: usize, count: usize, after: usize, is_all: bool| {
        let end = (0..count).try_fold(record.data() + before, |at, _| message.name_end(at));
        end.is_some_and(|end| if is_all { end + after == record.end } else { end + after <= record.end })
    };
    crate::wire::word(message.bytes, record.fixed + 2) == Some(crate::wire::CLASS_IN)
        && match record.record_type {
            1 => length == 4,
            28 => length == 16,
            TYPE_NS | TYPE_CNAME | TYPE_PTR | TYPE_DNAME => names(0, 1, 0, true),
            TYPE_SOA => names(0, 2, 20, true),
            TYPE_MX => names(2, 1, 0, true),
            TYPE_SRV => names(6, 1, 0, true),
            TYPE_SVCB | TYPE_HTTPS => names(2, 1, 0, false),
            TYPE_RRSIG => names(18, 1, 0, false),
            TYPE_NSEC => names(0, 1, 0, false),
            _ => true,
        }
}

/// How long a negative reply may be kept (RFC 2308 §5), if its authority section is that of a zone the name is in and says
/// nothing else.
fn soa(message: &Message<'_>, chain: &Names) -> Option<RecordTtl> {
    let soa = message.section(Section::Authority).find(|record| record.record_type == TYPE_SOA)?;
    let zone = message.name(soa.start)?;
    let belongs = |record: &Record| {
        matches!(record.record_type, TYPE_SOA | TYPE_RRSIG | TYPE_NSEC | TYPE_NSEC3)
            && is_sound(message, record)
            && message.name(record.start).is_some_and(|owner| is_within(&owner, &zone))
    };
    if !chain.iter().any(|name| is_within(name, &zone)) || !message.section(Section::Authority).all(belongs) {
        return None;
    }
    let minimum = crate::wire::long(message.bytes, soa.end.checked_sub(4).filter(|at| *at >= soa.data())?)?;
    Some(RecordTtl::from_wire(minimum).min(RecordTtl::from_wire(soa.ttl)))
}

/// Whether the authority section of an answer holds nothing but what proves, and zones that the names are in.
fn are_proofs(message: &Message<'_>, chain: &Names) -> bool {
    let is_of = |zone: crate::wire::Name| chain.iter().any(|name| is_within(name, &zone));
    message.section(Section::Authority).all(|record| {
        is_sound(message, record)
            && match record.record_type {
                TYPE_RRSIG | TYPE_NSEC | TYPE_NSEC3 => true,
                TYPE_NS | TYPE_SOA => message.name(record.start).is_some_and(is_of),
                _ => false,
            }
    })
}

/// Whether it names other servers instead of answering: what we ask is to answer, not to point.
fn is_referral(message: &Message<'_>) -> bool {
    message.section(Section::Answer).next().is_none()
        && message.section(Section::Authority).any(|record| record.record_type == TYPE_NS)
}

/// Whether `name` is `zone` or below it; both are in small letters.
fn is_within(name: &[u8], zone: &[u8]) -> bool {
    name.strip_suffix(zone).is_some_and(crate::name::are_whole)
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::{Message as HickoryMessage, MessageType, OpCode, Query};
    use hickory_proto::rr::rdata::{A, CNAME};
    use hickory_proto::rr::{Name, RData, Record, RecordType};

    use super::*;

    /// An answer behind so many aliases, the last one first.
    fn aliases(count: u32) -> Verdict {
        let name = |number: u32| Name::from_ascii(format!("a{number}.example.org.")).unwrap();
        let mut message = HickoryMessage::new(1, MessageType::Response, OpCode::Query);
        message.add_query(Query::query(name(0), RecordType::A));
        message.add_answer(Record::from_rdata(name(count), 60, RData::A(A::new(203, 0, 113, 1))));
        for number in (0..count).rev() {
            message.add_answer(Record::from_rdata(name(number), 60, RData::CNAME(CNAME(name(number + 1)))));
        }
        let bytes = message.to_vec().unwrap();
        judge(&Message::parse(&bytes).unwrap(), b"\x02a0\x07example\x03org", 1, false)
    }

    #[test]
    fn aliases_are_followed_in_any_order_and_not_for_ever() {
        for count in [0, 1, 8, 16] {
            assert!(matches!(aliases(count), Verdict::Reply(_)), "{count}");
        }
        for count in [18, 1_000] {
            assert_eq!(aliases(count), Verdict::Useless { lie: true }, "{count}");
        }
    }

    #[test]
    fn a_name_in_data_that_leads_into_the_header_or_out_of_the_record_is_in_no_reply() {
        // NXDOMAIN of a.org. The zone's SOA has its names at \x0c (a.org) and at the byte that is `name`.
        let judged = |name: u8, length: u8| {
            let head = b"\x12\x34\x81\x83\x00\x01\x00\x00\x00\x01\x00\x00\x01a\x03org\x00\x00\x01\x00\x01";
            let record = b"\xc0\x0e\x00\x06\x00\x01\x00\x00\x0e\x10\x00";
            let bytes = [&head[..], record, &[length, 0xc0, 0x0c, 0xc0, name], &[0; 20]].concat();
            match judge(&Message::parse(&bytes).unwrap(), b"\x01a\x03org", 1, false) {
                Verdict::Reply(reply) => reply.bytes.len() == bytes.len(),
                other => panic!("{other:?}"),
            }
        };
        assert!(judged(0x0e, 24), "org");
        assert!(!judged(0x0b, 24), "of the header");
        assert!(!judged(0x27, 24), "later in the message");
        assert!(!judged(0x0e, 23), "a byte short");
    }

    #[test]
    fn a_zone_is_not_taken_for_a_longer_label() {
        assert!(is_within(b"\x03www\x07example", b"\x07example") && is_within(b"\x07example", b"\x07example"));
        assert!(is_within(b"\x07example", b"") && !is_within(b"\x07example", b"\x03www\x07example"));
        assert!(!is_within(b"\x09\x07example", b"\x07example"));
    }
}
