//! What is off the usual shape, read and answered by hickory-proto.

use hickory_proto::op::{Edns as HickoryEdns, Header, Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::rdata::HINFO;
use hickory_proto::rr::{DNSClass, Name, RData, Record};
use hickory_proto::serialize::binary::{BinDecodable as _, BinDecoder};

use crate::wire::{AD, CD, Edns, Folded, Query, RD};
use crate::{Lookup, RecordSource};

/// What came of a message.
#[derive(Debug)]
pub(crate) enum Odd {
    /// A usual question in an unusual form, and its bytes as they belong behind a reply's header.
    Query(Box<Query>, Vec<u8>),
    /// A question for all types (RFC 8482), which may be ours.
    Any(Box<Message>),
    /// This answers it.
    Refusal(Refusal, Vec<u8>),
    /// Nothing answers it: no header, or a response.
    Noise,
}

/// Why something is not answered as it was asked (RFC 1035 §4.1.1, RFC 6891 §6.1.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    Malformed,
    NotImplemented,
    Refused,
    Version,
}

/// The longest query that is read, in bytes: no sensible one comes near, and what is longer would cost more than a look-up may.
const MAX_QUERY: usize = 4096;

/// Reads any bytes at all.
pub(crate) fn read(bytes: &[u8], max_udp: u16) -> Odd {
    let Ok(header) = Header::read(&mut BinDecoder::new(bytes)) else { return Odd::Noise };
    if header.metadata.message_type == MessageType::Response {
        return Odd::Noise;
    }
    let bare = |refusal| {
        let mut reply = Message::response(header.metadata.id, header.metadata.op_code);
        reply.metadata.recursion_desired = header.metadata.recursion_desired;
        refuse(refusal, reply)
    };
    if header.metadata.op_code != OpCode::Query {
        return bare(Refusal::NotImplemented);
    }
    if bytes.len() > MAX_QUERY {
        return bare(Refusal::Malformed);
    }
    let Ok(message) = Message::from_vec(bytes) else { return bare(Refusal::Malformed) };
    let [asked] = &message.queries[..] else { return bare(Refusal::Malformed) };
    let refused = |refusal| refuse(refusal, begin(&message, max_udp));
    if message.edns.as_ref().is_some_and(|edns| edns.version() > 0) {
        return refused(Refusal::Version);
    }
    if asked.query_class != DNSClass::IN {
        return refused(Refusal::Refused);
    }
    match u16::from(asked.query_type) {
        0 | 41 => refused(Refusal::Malformed),
        249..=252 => refused(Refusal::Refused), // TKEY, TSIG, IXFR, AXFR
        255 => Odd::Any(Box::new(message)),
        128..=254 => refused(Refusal::NotImplemented),
        _ => question(&message).map_or_else(|| bare(Refusal::Malformed), |(query, bytes)| Odd::Query(query, bytes)),
    }
}

/// Answers a question for all types with one record that says so (RFC 8482 §4.2); what is not ours is a question like others.
pub(crate) fn any(message: &Message, source: &impl RecordSource, max_udp: u16) -> Odd {
    let Some((query, bytes)) = question(message) else { return Odd::Noise };
    let mut reply = begin(message, max_udp);
    reply.metadata.authoritative = true;
    match source.lookup(&query.question()) {
        Lookup::NotOurs => return Odd::Query(query, bytes),
        Lookup::NoName { .. } => reply.metadata.response_code = ResponseCode::NXDomain,
        Lookup::NoData { .. } | Lookup::Records(_) => {
            let name = message.queries.first().map(|asked| asked.name.clone()).unwrap_or_default();
            let data = RData::HINFO(HINFO::new("RFC8482".to_owned(), String::new()));
            reply.add_answer(Record::from_rdata(name, ANY_TTL, data));
        }
    }
    Odd::Refusal(Refusal::NotImplemented, reply.to_vec().unwrap_or_default())
}

/// How long it may be kept that we do not answer ANY, in seconds: that does not change.
const ANY_TTL: u32 = 3600;

fn begin(message: &Message, max_udp: u16) -> Message {
    let mut reply = Message::response(message.metadata.id, message.metadata.op_code);
    reply.metadata.recursion_desired = message.metadata.recursion_desired;
    reply.metadata.checking_disabled = message.metadata.checking_disabled;
    reply.metadata.recursion_available = true;
    reply.add_queries(message.queries.iter().cloned());
    if let Some(edns) = &message.edns {
        let mut ours = HickoryEdns::new();
        ours.set_max_payload(max_udp).set_version(0).set_dnssec_ok(edns.flags().dnssec_ok);
        reply.set_edns(ours);
    }
    reply
}

fn refuse(refusal: Refusal, mut reply: Message) -> Odd {
    reply.metadata.response_code = match refusal {
        Refusal::Malformed => ResponseCode::FormErr,
        Refusal::NotImplemented => ResponseCode::NotImp,
        Refusal::Refused => ResponseCode::Refused,
        Refusal::Version => ResponseCode::BADVERS,
    };
    if let (Refusal::Version, Some(edns)) = (refusal, &mut reply.edns) {
        edns.set_rcode_high(1); // BADVERS is 16: its upper bits are in the OPT record
    }
    match reply.to_vec() {
        Ok(bytes) => Odd::Refusal(refusal, bytes),
        Err(_) => Odd::Noise,
    }
}

/// The question as the usual path has it, and its bytes, uncompressed and in the client's letters.
fn question(message: &Message) -> Option<(Box<Query>, Vec<u8>)> {
    let asked = message.queries.first()?;
    let mut bytes = wire(&asked.name);
    let name = Folded::new(&bytes)?;
    let record_type = u16::from(asked.query_type);
    bytes.extend_from_slice(&record_type.to_be_bytes());
    bytes.extend_from_slice(&u16::from(DNSClass::IN).to_be_bytes());
    let metadata = &message.metadata;
    let flag = |is: bool, bit: u16| if is { bit } else { 0 };
    let flags =
        flag(metadata.recursion_desired, RD) | flag(metadata.authentic_data, AD) | flag(metadata.checking_disabled, CD);
    let edns = message.edns.as_ref();
    let edns = edns.map(|edns| Edns { payload: edns.max_payload(), dnssec_ok: edns.flags().dnssec_ok });
    Some((Box::new(Query { id: metadata.id, flags, name, record_type, edns }), bytes))
}

fn wire(name: &Name) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(name.len() + 1);
    for label in name.iter() {
        bytes.push(label.len() as u8); // 63 at most
        bytes.extend_from_slice(label);
    }
    bytes.push(0);
    bytes
}

#[cfg(test)]
mod tests {
    use hickory_proto::rr::RecordType;
    use proptest::prelude::*;
    use proptest::strategy::ValueTree as _;

    use super::{HickoryEdns, Message, MessageType, Name, Odd, OpCode, Query, read};
    use crate::testing::dns_name;

    /// A query as hickory-proto writes it, of the usual shape or nearly.
    fn query() -> impl Strategy<Value = Vec<u8>> {
        let edns = proptest::option::of((any::<u16>(), any::<bool>(), prop_oneof![9 => Just(0_u8), 1 => any::<u8>()]));
        let types = prop_oneof![Just(1), Just(28), Just(12), Just(33), Just(16), Just(255), Just(252), any::<u16>()];
        (dns_name(), types, any::<[u16; 2]>(), edns).prop_map(|(name, record_type, [id, flags], edns)| {
            let name = Name::from_labels(name.labels().map(<[u8]>::to_vec)).unwrap();
            let mut message = Message::new(id, MessageType::Query, OpCode::Query);
            message.metadata.recursion_desired = flags & 1 != 0;
            message.metadata.authentic_data = flags & 2 != 0;
            message.metadata.checking_disabled = flags & 4 != 0;
            message.add_query(hickory_proto::op::Query::query(name, RecordType::from(record_type)));
            if let Some((payload, dnssec_ok, version)) = edns {
                let mut ours = HickoryEdns::new();
                ours.set_max_payload(payload).set_dnssec_ok(dnssec_ok).set_version(version);
                message.set_edns(ours);
            }
            message.to_vec().unwrap()
        })
    }

    fn damaged() -> impl Strategy<Value = Vec<u8>> {
        let change = (any::<proptest::sample::Index>(), any::<u8>());
        (query(), proptest::collection::vec(change, 0..4), any::<proptest::sample::Index>(), any::<bool>()).prop_map(
            |(mut bytes, changes, cut, is_cut)| {
                for (at, byte) in changes {
                    let at = at.index(bytes.len());
                    bytes[at] = byte;
                }
                if is_cut {
                    bytes.truncate(cut.index(bytes.len()));
                }
                bytes
            },
        )
    }

    /// The fast reader and hickory-proto agree: what the first reads, the second reads as the same.
    fn agree(bytes: &[u8]) -> bool {
        let Some(fast) = Query::parse(bytes) else { return false };
        let question = &bytes[12..12 + fast.question_len()];
        match read(bytes, 1232) {
            Odd::Query(slow, slow_question) => assert_eq!((&*slow, &slow_question[..]), (&fast, question)),
            other => panic!("fast: {fast:?}, slow: {other:?}"),
        }
        true
    }

    proptest! {
        #[test]
        fn the_fast_reader_reads_what_hickory_reads_whatever_the_bytes(bytes in damaged()) {
            agree(&bytes);
        }
    }

    #[test]
    fn a_payload_below_the_least_there_is_is_read_as_that_by_both() {
        let root_a = b"\0\x01\0\0\0\x01\0\0\0\0\0\x01\0\0\x01\0\x01";
        for payload in [0_u16, 87, 511, 512, 513] {
            let query = [&root_a[..], b"\0\0\x29", &payload.to_be_bytes(), &[0; 6]].concat();
            assert!(agree(&query), "{payload}");
        }
    }

    #[test]
    fn the_fast_reader_reads_all_usual_queries() {
        let mut runner = proptest::test_runner::TestRunner::deterministic();
        let fast = (0..500).filter(|_| agree(&query().new_tree(&mut runner).unwrap().current())).count();
        assert!(fast > 200, "{fast} of 500");
    }
}
