//! Answers, byte for byte judged by hickory-proto.

#![allow(clippy::unwrap_used, reason = "tests, whose helpers clippy does not take for such")]

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, PTR, SRV, TXT};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use overlay_core::testing::any::ip;
use overlay_core::{EndpointId, Instant, IpFamily};
use overlay_dns::testing::{change, few_names};
use overlay_dns::{
    Asked, Client, Config, Data, DnsName, Endpoint, Given, Handled, Lookup, Mode, Policy, RecordSource as _, Resolver,
    Service, Transport, View, Zone,
};
use proptest::prelude::*;

const NOW: Instant = Instant::ZERO;

fn client(transport: Transport) -> Client {
    Client { address: SocketAddr::from(([10, 0, 9, 3], 4711)), transport, token: 0 }
}

fn resolver(view: View) -> Resolver {
    Resolver::new(view, Config::default(), [7; 32]).unwrap()
}

fn ask(resolver: &mut Resolver, bytes: &[u8], transport: Transport) -> Option<Message> {
    let mut reply = Vec::new();
    match resolver.handle_query(client(transport), bytes, &mut reply, NOW) {
        Handled::Reply => Some(Message::from_vec(&reply).unwrap()),
        Handled::Waits => panic!("nothing can be forwarded here"),
        Handled::Drop => None,
    }
}

fn query(name: &str, record_type: RecordType) -> Message {
    let mut message = Message::new(0x1234, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), record_type));
    message
}

fn with_edns(mut message: Message, payload: u16) -> Message {
    let mut edns = Edns::new();
    edns.set_max_payload(payload).set_version(0);
    message.set_edns(edns);
    message
}

fn web(count: u16) -> View {
    let mut zone = Zone::new("net".parse().unwrap(), Policy::default());
    zone.put_service(Service::new("web".parse().unwrap(), Mode::RoundRobin));
    zone.put_service(Service::new("one".parse().unwrap(), Mode::Vip([[10, 0, 9, 2].into()].into())));
    for number in 0..count {
        let [high, low] = number.to_be_bytes();
        let mut bytes = [7; 16];
        bytes[..2].copy_from_slice(&[high, low]);
        let mut task = Endpoint::new(EndpointId::from_bytes(bytes), [IpAddr::from([10, 1, high, low])]);
        task.service = Some("web".parse().unwrap());
        zone.put_endpoint(task);
    }
    View::from(zone)
}

/// What hickory-proto would make of a look-up: the code, and the answers in any order.
fn expected(view: &View, asked: &Query) -> (ResponseCode, Vec<Record>) {
    let labels = asked.name.iter();
    let name = DnsName::from_labels(labels).unwrap();
    let record = |ttl, data| Record::from_rdata(asked.name.clone(), ttl, data);
    let wire = |name: &DnsName| {
        let mut name = Name::from_labels(name.labels().map(<[u8]>::to_vec)).unwrap();
        name.set_fqdn(true);
        name
    };
    match view.lookup(&Asked::new(&name, asked.query_type).question()) {
        Lookup::NotOurs if name.labels().count() == 1 => (ResponseCode::NXDomain, Vec::new()),
        Lookup::NotOurs => (ResponseCode::Refused, Vec::new()),
        Lookup::NoName { .. } => (ResponseCode::NXDomain, Vec::new()),
        Lookup::NoData { .. } => (ResponseCode::NoError, Vec::new()),
        Lookup::Records(records) => {
            let data: Vec<RData> = match records.data {
                Data::A(all) => all.iter().map(|it| RData::A(A(*it))).collect(),
                Data::Aaaa(all) => all.iter().map(|it| RData::AAAA(AAAA(*it))).collect(),
                Data::Ptr(all) => all.iter().map(|it| RData::PTR(PTR(wire(it)))).collect(),
                Data::Srv(all) => {
                    let srv = |it: &overlay_dns::Srv| SRV::new(it.priority, it.weight, it.port.get(), wire(&it.target));
                    all.iter().map(|it| RData::SRV(srv(it))).collect()
                }
                Data::Txt(all) => all.iter().map(|it| RData::TXT(TXT::from_bytes(it.strings().collect()))).collect(),
            };
            (ResponseCode::NoError, data.into_iter().map(|data| record(records.ttl.as_secs(), data)).collect())
        }
    }
}

fn sorted(mut records: Vec<Record>) -> Vec<String> {
    records.sort();
    records.iter().map(ToString::to_string).collect()
}

fn asked_names() -> impl Strategy<Value = String> {
    let reverse = prop_oneof![ip(IpFamily::V4), ip(IpFamily::V6), overlay_dns::testing::few_addresses()];
    prop_oneof![
        4 => few_names().prop_map(|name| format!("{name}.")),
        2 => few_names().prop_map(|name| format!("{name}.net.")),
        2 => few_names().prop_map(|name| format!("tasks.{name}.")),
        2 => (few_names(), few_names()).prop_map(|(port, name)| format!("_{port}._tcp.{name}.")),
        2 => reverse.prop_map(|address| DnsName::reverse(address).to_string()),
        1 => few_names().prop_map(|name| format!("{name}.suffix.test.")),
        1 => few_names().prop_map(|name| format!("{name}.example.org.")),
    ]
}

proptest! {
    /// The reply of the fast path is the one that hickory-proto would write, whatever is asked of whatever zone.
    #[test]
    fn what_is_written_fast_is_what_hickory_reads_and_would_write(
        changes in proptest::collection::vec(change(), 1..30),
        asked in proptest::collection::vec((asked_names(), 0_usize..7, proptest::option::of(any::<u16>())), 1..20),
    ) {
        let mut zone = Zone::new("net".parse().unwrap(), Policy::default());
        changes.into_iter().for_each(|change| change.apply(&mut zone));
        let view = View { networks: vec![zone], suffixes: vec!["suffix.test".parse().unwrap()] };
        let mut resolver = resolver(view.clone());
        for (name, record_type, payload) in asked {
            use RecordType::{A, AAAA, HTTPS, MX, PTR, SRV, TXT};
            let mut message = query(&name, [A, AAAA, PTR, SRV, TXT, MX, HTTPS][record_type]);
            if let Some(payload) = payload {
                message = with_edns(message, payload);
            }
            let reply = ask(&mut resolver, &message.to_vec().unwrap(), Transport::Tcp).unwrap();
            let (code, answers) = expected(&view, &message.queries[0]);
            prop_assert_eq!(&reply.queries, &message.queries);
            prop_assert_eq!(reply.metadata.id, message.metadata.id);
            prop_assert_eq!(reply.metadata.response_code, code, "{}", name);
            prop_assert_eq!(reply.metadata.authoritative, code != ResponseCode::Refused);
            prop_assert!(reply.metadata.recursion_available && reply.metadata.recursion_desired);
            prop_assert!(!reply.metadata.truncation && reply.additionals.is_empty());
            prop_assert_eq!(reply.edns.as_ref().map(Edns::max_payload), payload.map(|_| 1232));
            let negative = answers.is_empty() && code != ResponseCode::Refused;
            prop_assert_eq!(sorted(reply.answers), sorted(answers));
            prop_assert_eq!(reply.authorities.len(), usize::from(negative));
            if negative {
                prop_assert!(reply.authorities[0].name.zone_of(&message.queries[0].name), "{}", reply.authorities[0]);
                prop_assert_eq!(reply.authorities[0].record_type(), RecordType::SOA);
            }
        }
    }

    /// Every byte string is answered or dropped, and what is answered is a response with the same id.
    #[test]
    fn any_bytes_are_answered_or_dropped(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
        let mut resolver = resolver(web(3));
        let before = resolver.metrics();
        if let Some(reply) = ask(&mut resolver, &bytes, Transport::Udp) {
            prop_assert_eq!(reply.metadata.id.to_be_bytes(), [bytes[0], bytes[1]]);
            prop_assert_eq!(reply.metadata.message_type, MessageType::Response);
        }
        let after = resolver.metrics();
        prop_assert_eq!(after.queries.total(), before.queries.total() + 1);
        prop_assert_eq!(after.results.total(), after.queries.total());
    }
}

#[test]
fn the_clients_letters_come_back() {
    let mut resolver = resolver(web(1));
    let bytes = query("OnE.nEt.", RecordType::A).to_vec().unwrap();
    let mut reply = Vec::new();
    assert_eq!(resolver.handle_query(client(Transport::Udp), &bytes, &mut reply, NOW), Handled::Reply);
    assert_eq!(reply[12..12 + 9], *b"\x03OnE\x03nEt\0");
}

#[test]
fn a_large_answer_is_cut_to_what_the_client_takes_and_whole_by_tcp() {
    let mut resolver = resolver(web(300));
    for (payload, most) in [(None, 512), (Some(100), 512), (Some(800), 800), (Some(65_535), 1232)] {
        let mut message = query("tasks.web.", RecordType::A);
        if let Some(payload) = payload {
            message = with_edns(message, payload);
        }
        let bytes = message.to_vec().unwrap();
        let mut reply = Vec::new();
        assert_eq!(resolver.handle_query(client(Transport::Udp), &bytes, &mut reply, NOW), Handled::Reply);
        assert!(reply.len() <= most && reply.len() > most - 16, "{} for {payload:?}", reply.len());
        let reply = Message::from_vec(&reply).unwrap();
        assert!(reply.metadata.truncation && !reply.answers.is_empty());
    }
    let whole = ask(&mut resolver, &query("tasks.web.", RecordType::A).to_vec().unwrap(), Transport::Tcp).unwrap();
    assert_eq!((whole.answers.len(), whole.metadata.truncation), (300, false));
}

#[test]
fn no_answer_by_udp_is_larger_than_a_datagram_can_be() {
    let mut zone = Zone::new("net".parse().unwrap(), Policy::default());
    let addresses = (0..5_000_u16).map(|number| IpAddr::from([10, 1, (number >> 8) as u8, number as u8]));
    zone.put_records(&"web".parse().unwrap(), Given { addresses: addresses.collect(), ..Given::default() });
    let config = Config { max_udp: 65_535, ..Config::default() };
    let mut resolver = Resolver::new(View::from(zone), config, [7; 32]).unwrap();
    let mut reply = Vec::new();
    let bytes = with_edns(query("web.", RecordType::A), 65_535).to_vec().unwrap();
    assert_eq!(resolver.handle_query(client(Transport::Udp), &bytes, &mut reply, NOW), Handled::Reply);
    assert!(reply.len() <= 65_507 && reply.len() > 65_507 - 16, "{}", reply.len());
}

#[test]
fn each_endpoint_is_first_as_often_as_any_other() {
    let mut resolver = resolver(web(8));
    let bytes = query("web.", RecordType::A).to_vec().unwrap();
    let mut first: BTreeMap<String, u32> = BTreeMap::new();
    for _ in 0..8_000 {
        let reply = ask(&mut resolver, &bytes, Transport::Udp).unwrap();
        assert_eq!(reply.answers.len(), 8);
        *first.entry(reply.answers[0].data.to_string()).or_default() += 1;
    }
    assert_eq!(first.len(), 8);
    assert!(first.values().all(|count| (850..1150).contains(count)), "{first:?}");
}

#[test]
fn the_order_of_answers_is_a_function_of_the_seed() {
    let replies = |seed| {
        let mut resolver = Resolver::new(web(8), Config::default(), [seed; 32]).unwrap();
        let bytes = query("web.", RecordType::A).to_vec().unwrap();
        (0..10).map(|_| ask(&mut resolver, &bytes, Transport::Udp).unwrap().answers).collect::<Vec<_>>()
    };
    assert_eq!(replies(1), replies(1));
    assert_ne!(replies(1), replies(2));
}

#[test]
fn what_cannot_be_answered_is_refused_as_the_rfcs_say() {
    let mut resolver = resolver(web(1));
    let mut code = |message: &Message| {
        ask(&mut resolver, &message.to_vec().unwrap(), Transport::Tcp).unwrap().metadata.response_code
    };
    let one = || query("one.", RecordType::A);

    let mut two_questions = one();
    two_questions.add_query(Query::query(Name::from_ascii("web.").unwrap(), RecordType::A));
    assert_eq!(code(&two_questions), ResponseCode::FormErr);
    let mut none = one();
    none.queries.clear();
    assert_eq!(code(&none), ResponseCode::FormErr);
    let mut chaos = one();
    chaos.queries[0].set_query_class(DNSClass::CH);
    assert_eq!(code(&chaos), ResponseCode::Refused);
    assert_eq!(code(&query("one.", RecordType::AXFR)), ResponseCode::Refused);
    assert_eq!(code(&query("one.", RecordType::IXFR)), ResponseCode::Refused);
    let mut update = one();
    update.metadata.op_code = OpCode::Update;
    assert_eq!(code(&update), ResponseCode::NotImp);
    let mut not_recursive = query("example.org.", RecordType::A);
    not_recursive.metadata.recursion_desired = false;
    assert_eq!(code(&not_recursive), ResponseCode::Refused);
    assert_eq!(code(&query("example.org.", RecordType::A)), ResponseCode::Refused, "there are no upstream servers");
    assert_eq!(code(&query("nobody.", RecordType::A)), ResponseCode::NXDomain, "a single label does not leave");

    let mut response = one();
    response.metadata.message_type = MessageType::Response;
    assert_eq!(ask(&mut resolver, &response.to_vec().unwrap(), Transport::Udp), None);
    assert_eq!(ask(&mut resolver, b"short", Transport::Udp), None);
    let mut cut = one().to_vec().unwrap();
    cut.pop();
    let reply = ask(&mut resolver, &cut, Transport::Udp).unwrap();
    assert_eq!((reply.metadata.response_code, reply.metadata.id), (ResponseCode::FormErr, 0x1234));
}

#[test]
fn a_version_of_edns_that_is_not_ours_is_told_so() {
    let mut resolver = resolver(web(1));
    let mut message = with_edns(query("one.", RecordType::A), 1232);
    message.edns.as_mut().unwrap().set_version(1);
    let reply = ask(&mut resolver, &message.to_vec().unwrap(), Transport::Udp).unwrap();
    assert_eq!(u16::from(reply.metadata.response_code), 16); // BADVERS, and BADSIG by another RFC
    assert_eq!(reply.edns.unwrap().version(), 0);
}

#[test]
fn any_is_answered_with_one_small_record() {
    let mut resolver = resolver(web(300));
    let reply = ask(&mut resolver, &query("tasks.web.", RecordType::ANY).to_vec().unwrap(), Transport::Udp).unwrap();
    assert_eq!(reply.answers.len(), 1);
    assert_eq!(reply.answers[0].record_type(), RecordType::HINFO);
    let unknown = ask(&mut resolver, &query("nobody.", RecordType::ANY).to_vec().unwrap(), Transport::Udp).unwrap();
    assert_eq!(unknown.metadata.response_code, ResponseCode::NXDomain);
}

#[test]
fn a_compressed_or_padded_question_is_answered_too() {
    let mut resolver = resolver(web(1));
    let mut padded = query("one.", RecordType::A).to_vec().unwrap();
    padded.extend([0; 5]);
    assert_eq!(ask(&mut resolver, &padded, Transport::Udp).unwrap().answers.len(), 1);
    let mut signed = query("one.", RecordType::A);
    signed.add_additional(Record::from_rdata(Name::root(), 0, RData::A(A::new(1, 2, 3, 4))));
    assert_eq!(ask(&mut resolver, &signed.to_vec().unwrap(), Transport::Udp).unwrap().answers.len(), 1);
}

#[test]
fn a_query_that_is_longer_than_any_sensible_one_is_not_read() {
    let mut resolver = resolver(web(1));
    let mut code = |records: u16| {
        let mut long = query("one.", RecordType::A).to_vec().unwrap();
        long[10..12].copy_from_slice(&records.to_be_bytes());
        (0..records).for_each(|_| long.extend(b"\xc0\x0c\0\x01\0\x01\0\0\0\0\0\x04\x7f\0\0\x01"));
        (long.len(), ask(&mut resolver, &long, Transport::Tcp).unwrap().metadata.response_code)
    };
    assert_eq!(code(254), (21 + 254 * 16, ResponseCode::NoError));
    assert_eq!(code(255), (21 + 255 * 16, ResponseCode::FormErr));
    assert_eq!(code(4_000), (21 + 4_000 * 16, ResponseCode::FormErr));
}
