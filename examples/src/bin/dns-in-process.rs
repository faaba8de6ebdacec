//! The resolver without any socket: an embedder asks it in bytes, and moves what it says to upstream servers itself.
//!
//! Here the upstream server is a closure. A user-space network stack would put the same bytes into its own packets.

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;
use std::net::SocketAddr;

use overlay_core::{EndpointId, Instant};
use overlay_dns::hickory_proto::op::{Message, MessageType, OpCode, Query};
use overlay_dns::hickory_proto::rr::rdata::A;
use overlay_dns::hickory_proto::rr::{Name, RData, Record};
use overlay_dns::{
    Client, Config, Endpoint, Handled, Mode, Policy, RecordType, Resolver, Service, Transport, Upstreams, View, Zone,
};

fn main() -> Result<(), Box<dyn Error>> {
    let mut zone = Zone::new("customoverlay".parse()?, Policy::default());
    zone.put_service(Service::new("web".parse()?, Mode::RoundRobin));
    for number in 1..=3 {
        let mut task = Endpoint::new(EndpointId::from_bytes([number; 16]), [[10, 0, 9, number].into()]);
        task.service = Some("web".parse()?);
        zone.put_endpoint(task);
    }
    let mut resolver = Resolver::new(View::from(zone), Config::default(), [7; 32])?;
    resolver.set_upstreams(&Upstreams::at([[192, 0, 2, 53].into()]));

    for name in ["web.", "tasks.web.customoverlay.", "nobody.", "www.example.org."] {
        let answers = ask(&mut resolver, name)?;
        println!("{name:<26} {answers}");
    }
    Ok(())
}

/// Asks for a name's IPv4 addresses.
fn ask(resolver: &mut Resolver, name: &str) -> Result<String, Box<dyn Error>> {
    let mut query = Message::new(1, MessageType::Query, OpCode::Query);
    query.metadata.recursion_desired = true;
    query.add_query(Query::query(Name::from_ascii(name)?, RecordType::A));
    let client = Client { address: SocketAddr::from(([10, 0, 9, 1], 4711)), transport: Transport::Udp, token: 0 };
    let now = Instant::ZERO; // of a clock, in earnest
    let mut reply = Vec::new();
    match resolver.handle_query(client, &query.to_vec()?, &mut reply, now) {
        Handled::Reply => {}
        Handled::Drop => return Ok("no query".to_owned()),
        Handled::Waits => {
            while let Some(transmit) = resolver.poll_transmit() {
                let answer = upstream(&transmit.message)?;
                resolver.handle_upstream(transmit.path, transmit.to, &answer, now);
            }
            reply = resolver.poll_reply().ok_or("the answer is there")?.message;
        }
    }
    let reply = Message::from_vec(&reply)?;
    let addresses: Vec<String> = reply.answers.iter().map(|record| record.data.to_string()).collect();
    Ok(format!("{} {}", reply.metadata.response_code, addresses.join(" ")))
}

/// A server that has one address for every name.
fn upstream(query: &[u8]) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut message = Message::from_vec(query)?;
    message.metadata.message_type = MessageType::Response;
    let name = message.queries.first().ok_or("a question")?.name.clone();
    message.add_answer(Record::from_rdata(name, 60, RData::A(A::new(203, 0, 113, 80))));
    Ok(message.to_vec()?)
}
