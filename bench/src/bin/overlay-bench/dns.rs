//! `dns`: the resolver as a machine, and beside other servers over sockets.
//!
//! `machine-*-N` is one query from its bytes to the reply's, in a zone of N names, asked for at random; the
//! yardstick is hickory-proto, which reads the query, looks the name up in a hash map and writes the answer. `zone-update-100k-1` gives one
//! service another address, in a zone of 100,000 names, and swaps the zone; the yardstick builds it anew.

use std::collections::{BTreeSet, HashMap};
use std::hint::black_box;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use overlay_bench::{Bench, Pace};
use overlay_core::{Instant, Port, Protocol};
use overlay_dns::hickory_proto::op::{Message, MessageType, OpCode, Query};
use overlay_dns::hickory_proto::rr::rdata::A;
use overlay_dns::hickory_proto::rr::{LowerName, Name, RData, Record};
use overlay_dns::{
    Client, Config, DnsName, Handled, Mode, Policy, RecordType, Resolver, Service, Transport, View, Zone,
};

/// A name for each size, since figures have names that the program knows.
const HIT: [(usize, &str); 3] =
    [(10, "dns/machine-hit-10"), (10_000, "dns/machine-hit-10k"), (100_000, "dns/machine-hit-100k")];
const NODATA: [(usize, &str); 3] =
    [(10, "dns/machine-nodata-10"), (10_000, "dns/machine-nodata-10k"), (100_000, "dns/machine-nodata-100k")];
const PTR: [(usize, &str); 3] =
    [(10, "dns/machine-ptr-10"), (10_000, "dns/machine-ptr-10k"), (100_000, "dns/machine-ptr-100k")];
const SRV: [(usize, &str); 3] =
    [(10, "dns/machine-srv-10"), (10_000, "dns/machine-srv-10k"), (100_000, "dns/machine-srv-100k")];

pub(crate) fn run(bench: &mut Bench<'_>) -> io::Result<()> {
    for (kind, figures) in [(Kind::Hit, HIT), (Kind::NoData, NODATA), (Kind::Ptr, PTR), (Kind::Srv, SRV)] {
        for (size, name) in figures {
            machine(bench, kind, size, name)?;
        }
    }
    update(bench)?;
    crate::dns_sockets::run(bench)
}

/// What is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Hit,
    NoData,
    Ptr,
    Srv,
}

impl Kind {
    fn question(self, number: usize) -> (DnsName, RecordType) {
        let name = |text: String| must(text.parse());
        match self {
            Self::Hit => (name(format!("{}.net", label(number))), RecordType::A),
            Self::NoData => (name(format!("{}.net", label(number))), RecordType::AAAA),
            Self::Ptr => (DnsName::reverse(vip(number, 0)), RecordType::PTR),
            Self::Srv => (name(format!("_http._tcp.{}.net", label(number))), RecordType::SRV),
        }
    }
}

fn machine(bench: &mut Bench<'_>, kind: Kind, size: usize, figure: &'static str) -> io::Result<()> {
    let queries = queries(kind, size);
    let mut resolver = must(Resolver::new(View::from(zone(size)), Config::default(), [7; 32]));
    let client = Client { address: SocketAddr::from(([10, 0, 0, 1], 4711)), transport: Transport::Udp, token: 0 };
    let mut reply = Vec::new();
    let mut subject = |n: usize| {
        let handled = resolver.handle_query(client, &queries[n % queries.len()], &mut reply, Instant::ZERO);
        assert!(handled == Handled::Reply && reply[3] & 0x0f == 0, "{figure}");
        black_box(&reply);
    };
    subject(0);
    let hickory = Hickory::new(if kind == Kind::Hit { services(size) } else { 0 });
    bench
        .figure(figure, "ns")
        .each(subject)
        .yardstick("hickory-proto", |n| hickory.answer(&queries[n % queries.len()]))
        .report()
}

fn update(bench: &mut Bench<'_>) -> io::Result<()> {
    let size = if bench.pace() == Pace::Quick { 10_000 } else { 100_000 };
    let mut published = zone(size);
    let order = order(services(size));
    let change = |n: usize| {
        let mut changed = published.clone();
        changed.put_service(service(order[n % order.len()], 1 + n % 200));
        published = changed; // the old one is dropped here
    };
    bench
        .figure("dns/zone-update-100k-1", "us")
        .each(change)
        .yardstick_once("full rebuild", || (), |()| zone(size))
        .report()
}

/// The same by hickory-proto. What it does not know it answers without records, as most do here.
struct Hickory(HashMap<LowerName, Ipv4Addr>);

impl Hickory {
    fn new(size: usize) -> Self {
        let entry = |number| {
            let name = must(Name::from_ascii(format!("{}.net.", label(number))));
            let IpAddr::V4(vip) = vip(number, 0) else { unreachable!("the bench's VIPs are IPv4") };
            (LowerName::from(&name), vip)
        };
        Self((0..size).map(entry).collect())
    }

    fn answer(&self, query: &[u8]) {
        let query = must(Message::from_vec(query));
        let mut reply = Message::new(query.metadata.id, MessageType::Response, OpCode::Query);
        let question = &query.queries[0];
        reply.add_query(question.clone());
        if let Some(vip) = self.0.get(&LowerName::from(&question.name)) {
            reply.add_answer(Record::from_rdata(question.name.clone(), 5, RData::A(A(*vip))));
        }
        black_box(must(reply.to_vec()));
    }
}

/// Some thousand queries for names all over the zone.
fn queries(kind: Kind, names: usize) -> Vec<Vec<u8>> {
    let query = |number| {
        let (name, record_type) = kind.question(number);
        let mut message = Message::new(0x1234, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(must(Name::from_ascii(name.to_string())), record_type));
        must(message.to_vec())
    };
    let size = services(names);
    order(size).into_iter().cycle().take(size.max(1024)).map(query).collect()
}

/// All numbers below `size` in an order that no prefetcher guesses: a linear congruence of full period, cut.
fn order(size: usize) -> Vec<usize> {
    let period = size.next_power_of_two();
    let mut state = 1_usize;
    let mut step = || {
        state = (state * 2_862_933_555_777_941_757 % period + 3_037) % period;
        state
    };
    let all: Vec<usize> = (0..period).map(|_| step()).filter(|number| *number < size).collect();
    let different: BTreeSet<_> = all.iter().collect();
    assert_eq!(different.len(), size);
    all
}

/// A zone of so many names: four for each service.
fn zone(names: usize) -> Zone {
    let size = services(names);
    let mut zone = Zone::new(must("net".parse()), Policy::default());
    (0..size).for_each(|number| zone.put_service(service(number, 0)));
    zone
}

/// A service with a VIP and a named port; four names in all.
fn service(number: usize, turn: usize) -> Service {
    let mut service = Service::new(must(label(number).parse()), Mode::Vip([vip(number, turn)].into()));
    service.ports.insert((must("http".parse()), Protocol::Tcp), must(Port::new(80)));
    service
}

const fn services(names: usize) -> usize {
    if names < 4 { 1 } else { names / 4 }
}

fn label(number: usize) -> String {
    format!("svc{number:06}")
}

fn vip(number: usize, turn: usize) -> IpAddr {
    let [_, high, middle, low] = (number as u32).to_be_bytes();
    [10 + turn as u8, high, middle, low].into()
}

/// A figure of something that failed is none.
pub(crate) fn must<T, E: std::fmt::Display>(result: Result<T, E>) -> T {
    result.unwrap_or_else(|error| panic!("{error}"))
}
