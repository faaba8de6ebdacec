//! Bodies for overlay-dns: no bytes make the resolver panic or loop, and what it writes is what hickory-proto reads.

use std::net::{IpAddr, SocketAddr};
use std::sync::LazyLock;

use overlay_core::{EndpointId, Instant};
use overlay_dns::hickory_proto::op::{Message, MessageType};
use overlay_dns::{
    Client, Config, DnsName, Endpoint, Handled, Mode, Policy, ResolvConf, Resolver, Service, Transport, Upstreams,
    View, Zone,
};

use crate::Body;

pub(crate) const TARGETS: &[(&str, Body)] =
    &[("dns_query", query), ("dns_upstream", upstream), ("dns_name", name), ("dns_resolv_conf", resolv_conf)];

/// A message from a client: it is answered by a response with its id, forwarded or dropped, and counted once.
fn query(data: &[u8]) {
    let mut resolver = resolver();
    for transport in [Transport::Udp, Transport::Tcp] {
        let mut reply = Vec::new();
        let handled = resolver.handle_query(client(transport), data, &mut reply, Instant::ZERO);
        if handled == Handled::Reply {
            assert_response(&reply, data);
        }
    }
    while let Some(transmit) = resolver.poll_transmit() {
        let Ok(message) = Message::from_vec(&transmit.message) else { panic!("ours does not parse: {transmit:?}") };
        assert_eq!((message.queries.len(), message.metadata.message_type), (1, MessageType::Query));
    }
    drain(&mut resolver);
    let metrics = resolver.metrics();
    assert_eq!((metrics.queries.total(), metrics.results.total()), (2, 2));
}

/// A message from an upstream server with the id, question and path that are expected, the rest as `data` has it: those who
/// wait get a response, and what the cache gives is as sound as what came; with proofs, and without.
fn upstream(data: &[u8]) {
    answered(data, QUERY);
    answered(data, &[&QUERY[..11], b"\x01", &QUERY[12..], b"\0\0\x29\x04\xd0\0\0\x80\0\0\0"].concat());
}

fn answered(data: &[u8], query: &[u8]) {
    let mut resolver = resolver();
    let mut reply = Vec::new();
    let handled = resolver.handle_query(client(Transport::Tcp), query, &mut reply, Instant::ZERO);
    assert_eq!(handled, Handled::Waits);
    let Some(transmit) = resolver.poll_transmit() else { panic!("nothing was asked") };
    let mut message = transmit.message[..2].to_vec();
    message.extend(data.get(..10).unwrap_or_default());
    message.extend(&transmit.message[12..12 + QUERY.len() - 12]);
    message.extend(data.get(10..).unwrap_or_default());
    let is_sound = Message::from_vec(&message).is_ok();
    for bytes in [data, &message] {
        resolver.handle_upstream(transmit.path, transmit.to, bytes, Instant::ZERO);
    }
    drain(&mut resolver);
    if resolver.handle_query(client(Transport::Udp), query, &mut reply, Instant::ZERO) == Handled::Reply {
        assert!(Message::from_vec(&reply).is_ok() || !is_sound, "{} does not parse", reply.escape_ascii());
        assert!(reply[..2] == QUERY[..2] && reply[2] & 0x80 != 0);
    }
    drain(&mut resolver);
    assert_eq!((resolver.waiting(), resolver.poll_timeout()), (0, None));
}

/// A name's text: what parses is written so that it parses to the same, and an address's name is its own.
fn name(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let Ok(name) = text.parse::<DnsName>() else { return };
    let Ok(again) = name.to_string().parse::<DnsName>() else { panic!("{name} does not parse") };
    assert_eq!(again.as_wire(), name.as_wire());
    assert!(name.as_wire().len() < DnsName::MAX_LEN);
    if let Some(address) = name.to_address() {
        assert_eq!(DnsName::reverse(address), name);
    }
}

/// A resolv.conf: it is read, and what is written reads back.
fn resolv_conf(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let conf = ResolvConf::parse(text);
    assert_eq!(ResolvConf::parse(&conf.to_string()), conf);
    let container = conf.for_container(IpAddr::from([127, 0, 0, 11]));
    assert_eq!(container.nameservers().count(), 1);
    assert!(container.options().any(|option| option.starts_with("ndots:")));
}

/// Asks for the addresses of `www.example.org`.
const QUERY: &[u8] = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x03www\x07example\x03org\0\0\x01\0\x01";

fn client(transport: Transport) -> Client {
    Client { address: SocketAddr::from(([10, 0, 9, 3], 4711)), transport, token: transport as u64 }
}

fn resolver() -> Resolver {
    static VIEW: LazyLock<View> = LazyLock::new(view);
    let made = Resolver::new(VIEW.clone(), Config::default(), [7; 32]);
    let Ok(mut resolver) = made else { panic!("defaults: {made:?}") };
    resolver.set_upstreams(&Upstreams::at([IpAddr::from([192, 0, 2, 53])]));
    resolver
}

fn view() -> View {
    let (Ok(network), Ok(web)) = ("net".parse(), "web".parse()) else { panic!("names") };
    let mut zone = Zone::new(network, Policy::default());
    zone.put_service(Service::new(web, Mode::RoundRobin));
    for number in 0..40 {
        let mut task = Endpoint::new(EndpointId::from_bytes([number; 16]), [IpAddr::from([10, 0, 9, number])]);
        task.service = "web".parse().ok();
        zone.put_endpoint(task);
    }
    View::from(zone)
}

fn assert_response(reply: &[u8], query: &[u8]) {
    let Ok(message) = Message::from_vec(reply) else { panic!("{} does not parse", reply.escape_ascii()) };
    assert_eq!(message.metadata.message_type, MessageType::Response);
    assert_eq!(reply[..2], query[..2]);
}

/// Lets time pass until nothing is left to do.
fn drain(resolver: &mut Resolver) {
    for _ in 0..100 {
        while let Some(reply) = resolver.poll_reply() {
            assert!(reply.message.len() >= 12);
        }
        while resolver.poll_transmit().is_some() {}
        let Some((at, _)) = resolver.poll_timeout() else { return };
        resolver.handle_timeout(at);
    }
    panic!("there is no end");
}
