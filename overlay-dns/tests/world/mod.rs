//! A resolver, servers of all manners, and a clock that moves from event to event.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, NS, SOA};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use overlay_core::Instant;
use overlay_dns::{
    Client, Config, Handled, Mode, Path, Policy, Resolver, Service, SocketId, Transmit, Transport, Upstreams, View,
    Zone,
};

/// How a server behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// With one address, after so many milliseconds; all others after one.
    Answers(u64),
    Dead,
    Says(ResponseCode),
    /// It names other servers.
    Refers,
    NoName,
    NoRecords,
    WrongId,
    WrongQuestion,
    WrongSource,
    WrongPath,
    /// It adds an answer for a name that nobody asked for.
    OtherNames,
    /// It repeats the question in small letters.
    FoldsCase,
    /// By UDP it says that there is more; by TCP it has so many addresses.
    Cuts(u8),
    CutsAndRefuses,
    /// It says FORMERR to EDNS.
    NoEdns,
    /// As above, in a header alone.
    NoEdnsInAHeader,
    /// It answers only who has EDNS.
    NeedsEdns,
    /// By UDP its message ends in the middle of a record, as the counts say; by TCP it is whole.
    CutsShort,
    /// It asks us what we asked it.
    SendsBack,
}

/// A server.
pub(crate) struct Server {
    pub(crate) manner: Manner,
    /// Names and types it was asked for.
    pub(crate) heard: Vec<String>,
}

/// What a client got.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) code: ResponseCode,
    pub(crate) data: Vec<String>,
    pub(crate) ttl: Option<u32>,
    pub(crate) authorities: usize,
    pub(crate) is_cut: bool,
    pub(crate) took: Duration,
}

/// All of it.
pub(crate) struct World {
    pub(crate) resolver: Resolver,
    pub(crate) servers: Vec<Server>,
    pub(crate) now: Instant,
    /// By what queries left, and with which ids.
    pub(crate) sent: Vec<(Path, u16)>,
    on_the_way: BTreeMap<(Instant, u64), Event>,
    events: u64,
    ids: u16,
}

enum Event {
    Answer { path: Path, from: SocketAddr, message: Vec<u8> },
    Refused { path: Path, from: SocketAddr },
    Query { client: Client, message: Vec<u8> },
}

pub(crate) fn address(server: u8) -> SocketAddr {
    ([192, 0, 2, server + 1], 53).into()
}

pub(crate) fn client(number: u8, transport: Transport) -> Client {
    Client { address: SocketAddr::from(([10, 0, 9, number], 4711)), transport, token: 3 }
}

pub(crate) fn question(id: u16, name: &str, record_type: RecordType) -> Vec<u8> {
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), record_type));
    message.to_vec().unwrap()
}

impl World {
    pub(crate) fn new(config: Config, manners: &[Manner]) -> Self {
        Self::seeded([7; 32], config, manners)
    }

    pub(crate) fn seeded(seed: [u8; 32], config: Config, manners: &[Manner]) -> Self {
        let policy = Policy { subnets: vec!["10.0.9.0/24".parse().unwrap()], ..Policy::default() };
        let mut zone = Zone::new("net".parse().unwrap(), policy);
        zone.put_service(Service::new("web".parse().unwrap(), Mode::Vip([[10, 0, 9, 2].into()].into())));
        let mut resolver = Resolver::new(View::from(zone), config, seed).unwrap();
        let servers = (0..manners.len() as u8).map(address).collect();
        resolver.set_upstreams(&Upstreams { servers, ourselves: Vec::new() });
        let servers = manners.iter().map(|manner| Server { manner: *manner, heard: Vec::new() }).collect();
        Self { resolver, servers, now: Instant::ZERO, sent: Vec::new(), on_the_way: BTreeMap::new(), events: 0, ids: 0 }
    }

    /// Asks by UDP, and waits for the reply.
    pub(crate) fn ask(&mut self, name: &str, record_type: RecordType) -> Reply {
        self.ask_by(Transport::Udp, name, record_type)
    }

    pub(crate) fn ask_by(&mut self, transport: Transport, name: &str, record_type: RecordType) -> Reply {
        self.ids += 1;
        let (asked, client) = (self.now, client(200, transport));
        let bytes = match self.give(client, &question(self.ids, name, record_type)) {
            Some(bytes) => bytes,
            None => self.await_reply(client),
        };
        assert_eq!(bytes[..2], self.ids.to_be_bytes());
        let message = Message::from_vec(&bytes).unwrap();
        assert_eq!(message.queries[0].name.to_string(), name);
        Reply {
            code: message.metadata.response_code,
            data: message.answers.iter().map(|record| record.data.to_string()).collect(),
            ttl: message.answers.first().map(|record| record.ttl),
            authorities: message.authorities.len(),
            is_cut: message.metadata.truncation,
            took: self.now - asked,
        }
    }

    /// Gives the resolver a query; its reply, if it comes at once.
    pub(crate) fn give(&mut self, client: Client, query: &[u8]) -> Option<Vec<u8>> {
        let mut reply = Vec::new();
        let handled = self.resolver.handle_query(client, query, &mut reply, self.now);
        self.send();
        (handled == Handled::Reply).then_some(reply)
    }

    /// Lets everything happen until then; the replies.
    pub(crate) fn run_until(&mut self, end: Instant) -> Vec<(Client, Vec<u8>)> {
        let mut replies = Vec::new();
        loop {
            while let Some(reply) = self.resolver.poll_reply() {
                replies.push((reply.client, reply.message));
            }
            if !self.step(end) {
                self.now = self.now.max(end);
                return replies;
            }
        }
    }

    fn await_reply(&mut self, client: Client) -> Vec<u8> {
        loop {
            while let Some(reply) = self.resolver.poll_reply() {
                if reply.client == client {
                    return reply.message;
                }
            }
            assert!(self.step(Instant::FAR_FUTURE), "there is no reply, and nothing will happen");
        }
    }

    /// Moves to what is next, if that is not after `end`.
    fn step(&mut self, end: Instant) -> bool {
        let timer = self.resolver.poll_timeout().map(|(at, _)| at);
        let event = self.on_the_way.first_key_value().map(|((at, _), _)| *at);
        let Some(next) = timer.into_iter().chain(event).min().filter(|next| *next <= end) else { return false };
        self.now = self.now.max(next);
        if event == Some(next) {
            match self.on_the_way.pop_first().unwrap().1 {
                Event::Answer { path, from, message } => self.resolver.handle_upstream(path, from, &message, self.now),
                Event::Refused { path, from } => self.resolver.handle_failure(path, from, self.now),
                Event::Query { client, message } => {
                    let _ = self.resolver.handle_query(client, &message, &mut Vec::new(), self.now);
                }
            }
        } else {
            self.resolver.handle_timeout(self.now);
        }
        self.send();
        true
    }

    fn send(&mut self) {
        while let Some(transmit) = self.resolver.poll_transmit() {
            self.sent.push((transmit.path, u16::from_be_bytes([transmit.message[0], transmit.message[1]])));
            let place = (0..self.servers.len()).find(|number| address(*number as u8) == transmit.to);
            if let Some(server) = place.map(|place| &mut self.servers[place]) {
                let delay = if let Manner::Answers(delay) = server.manner { delay } else { 1 };
                if let Some(event) = server.hear(&transmit) {
                    self.events += 1;
                    self.on_the_way.insert((self.now + Duration::from_millis(delay), self.events), event);
                }
            }
        }
    }
}

impl Server {
    fn hear(&mut self, transmit: &Transmit) -> Option<Event> {
        let query = Message::from_vec(&transmit.message).unwrap();
        let (name, record_type) = (query.queries[0].name.clone(), query.queries[0].query_type);
        assert!(query.metadata.recursion_desired);
        self.heard.push(format!("{name} {record_type}"));
        let (path, mut from, mut reply) = (transmit.path, transmit.to, answer(&query, 1));
        let zone = Name::from_ascii("example.org.").unwrap();
        match self.manner {
            Manner::Answers(_) => {}
            Manner::Dead => return None,
            Manner::Says(code) => reply = plain(&query, code),
            Manner::Refers => {
                reply = bare(&query, ResponseCode::NoError);
                reply.add_authority(Record::from_rdata(zone.clone(), 60, RData::NS(NS(zone))));
            }
            Manner::NoName | Manner::NoRecords => {
                let is_name = self.manner == Manner::NoRecords;
                reply = bare(&query, if is_name { ResponseCode::NoError } else { ResponseCode::NXDomain });
                let soa = SOA::new(zone.clone(), zone.clone(), 1, 3600, 600, 86_400, 30);
                reply.add_authority(Record::from_rdata(zone, 3600, RData::SOA(soa)));
            }
            Manner::WrongId => reply.metadata.id ^= 1,
            Manner::WrongQuestion => reply.queries[0].name = Name::from_ascii("www.example.net.").unwrap(),
            Manner::WrongSource => from = address(77),
            Manner::WrongPath => {
                let Path::Udp(SocketId { number, generation }) = path else { return None };
                let path = Path::Udp(SocketId { number: number ^ 1, generation });
                return Some(Event::Answer { path, from, message: reply.to_vec().unwrap() });
            }
            Manner::OtherNames => {
                let bank = Name::from_ascii("bank.example.").unwrap();
                reply.add_answer(Record::from_rdata(bank, 60, RData::A(A::new(198, 51, 100, 66))));
            }
            Manner::FoldsCase => reply.queries[0].name = name.to_lowercase(),
            Manner::Cuts(_) | Manner::CutsAndRefuses if matches!(path, Path::Udp(_)) => {
                reply = bare(&query, ResponseCode::NoError);
                reply.metadata.truncation = true;
            }
            Manner::Cuts(count) => reply = answer(&query, count),
            Manner::CutsAndRefuses => return Some(Event::Refused { path, from }),
            Manner::NoEdns | Manner::NoEdnsInAHeader if query.edns.is_some() => {
                reply = plain(&query, ResponseCode::FormErr);
                reply.queries.retain(|_| self.manner == Manner::NoEdns);
            }
            Manner::NeedsEdns if query.edns.is_none() => return None,
            Manner::NoEdns | Manner::NoEdnsInAHeader | Manner::NeedsEdns => {}
            Manner::CutsShort => return Some(Event::Answer { path, from, message: cut_short(&query, path) }),
            Manner::SendsBack => {
                let client = Client { address: transmit.to, transport: Transport::Udp, token: 3 };
                return Some(Event::Query { client, message: transmit.message.clone() });
            }
        }
        Some(Event::Answer { path, from, message: reply.to_vec().unwrap() })
    }
}

fn bare(query: &Message, code: ResponseCode) -> Message {
    let mut reply = Message::new(query.metadata.id, MessageType::Response, OpCode::Query);
    reply.metadata.response_code = code;
    reply.metadata.recursion_available = true;
    reply.add_queries(query.queries.iter().cloned());
    reply.edns = query.edns.clone();
    reply
}

/// As [`bare`], by a server that does not know EDNS.
fn plain(query: &Message, code: ResponseCode) -> Message {
    let mut reply = bare(query, code);
    reply.edns = None;
    reply
}

/// 40 addresses, of which a datagram has what fits, though the counts are of all.
fn cut_short(query: &Message, path: Path) -> Vec<u8> {
    let mut reply = answer(query, 40);
    reply.metadata.truncation = matches!(path, Path::Udp(_));
    let mut message = reply.to_vec().unwrap();
    message.truncate(if reply.metadata.truncation { 512 } else { message.len() });
    message
}

/// So many addresses, behind an alias if the name is an alias's.
fn answer(query: &Message, count: u8) -> Message {
    let mut reply = bare(query, ResponseCode::NoError);
    let name = query.queries[0].name.clone();
    for number in 1..=count {
        let data = RData::A(A(Ipv4Addr::new(203, 0, 113, number)));
        reply.add_answer(Record::from_rdata(name.clone(), 60, data));
    }
    if query.queries[0].query_type != RecordType::A {
        reply.answers.clear();
    }
    reply
}
