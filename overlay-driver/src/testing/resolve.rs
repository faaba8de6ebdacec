//! Asking for a name from within a namespace, as a program there would.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use overlay_dns::hickory_proto::op::{Message, Query};
use overlay_dns::hickory_proto::rr::{Name, RData, RecordType};
use overlay_dns::hickory_proto::serialize::binary::{BinDecodable, BinEncodable};
use overlay_kernel::Namespace;
use overlay_node::RESOLVER;

/// Asks the resolver at 127.0.0.11 for the addresses of a name, both families. None if there is no such name.
///
/// # Errors
/// If nobody answers in time, or what comes is no answer.
pub fn resolve(from: &Namespace, name: &str, patience: Duration) -> io::Result<Vec<IpAddr>> {
    from.run(|| {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.set_read_timeout(Some(patience))?;
        socket.connect(SocketAddr::new(RESOLVER.into(), 53))?;
        let mut all = ask(&socket, name, RecordType::A)?;
        all.extend(ask(&socket, name, RecordType::AAAA)?);
        Ok(all)
    })
    .map_err(io::Error::other)?
}

fn ask(socket: &UdpSocket, name: &str, record_type: RecordType) -> io::Result<Vec<IpAddr>> {
    let name = Name::from_ascii(name).map_err(io::Error::other)?;
    let mut message = Message::query();
    message.add_query(Query::query(name, record_type));
    message.metadata.recursion_desired = true;
    let id = message.metadata.id;
    socket.send(&message.to_bytes().map_err(io::Error::other)?)?;
    let mut buffer = [0; 1500];
    loop {
        let length = socket.recv(&mut buffer)?;
        let answer = Message::from_bytes(buffer.get(..length).unwrap_or_default()).map_err(io::Error::other)?;
        if answer.metadata.id == id {
            return Ok(answer.answers.iter().filter_map(|record| address(&record.data)).collect());
        }
    }
}

const fn address(data: &RData) -> Option<IpAddr> {
    match data {
        RData::A(address) => Some(IpAddr::V4(address.0)),
        RData::AAAA(address) => Some(IpAddr::V6(address.0)),
        _ => None,
    }
}
