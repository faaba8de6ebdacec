//! ICMP echo from within a namespace, without a program that does it.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use overlay_kernel::Namespace;
use socket2::{Domain, Protocol, Socket, Type};

/// Sends one echo request (RFC 792, RFC 4443) and waits for its answer. Gives how long it took; `None` if there was none in time.
///
/// # Errors
/// If the namespace may not be entered, has no way there, or has no raw sockets for us.
pub fn ping(from: &Namespace, to: IpAddr, patience: Duration) -> io::Result<Option<Duration>> {
    let answered = from.run(|| echo(&[to], patience)).map_err(io::Error::other)??;
    Ok(answered.into_iter().next().map(|(_, took)| took))
}

/// Sends an echo request to each, all at once, and gives those that have not answered in time. All are of one family.
///
/// # Errors
/// As [`ping`].
pub fn ping_all(from: &Namespace, to: &[IpAddr], patience: Duration) -> io::Result<Vec<IpAddr>> {
    let answered = from.run(|| echo(to, patience)).map_err(io::Error::other)??;
    Ok(to.iter().copied().filter(|address| !answered.contains_key(address)).collect())
}

/// Who answered, and after how long.
#[expect(clippy::disallowed_methods, reason = "a test measures time")]
fn echo(to: &[IpAddr], patience: Duration) -> io::Result<BTreeMap<IpAddr, Duration>> {
    let mut answered = BTreeMap::new();
    let Some(first) = to.first() else { return Ok(answered) };
    let (domain, protocol) = match first {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
    };
    // A raw socket speaks like one for datagrams.
    let socket = UdpSocket::from(Socket::new(domain, Type::RAW, Some(protocol))?);
    let begun = Instant::now();
    // An id that no other has now: of the thread, which lives as long as this.
    let [.., high, low] = nix::unistd::gettid().as_raw().to_be_bytes();
    let sent = request(first.is_ipv4(), [high, low]);
    for address in to {
        socket.send_to(&sent, SocketAddr::new(*address, 0))?;
    }
    let mut buffer = [0; 1500];
    while answered.len() < to.len() {
        let Some(left) = patience.checked_sub(begun.elapsed()).filter(|left| !left.is_zero()) else { break };
        socket.set_read_timeout(Some(left))?;
        let (length, who) = match socket.recv_from(&mut buffer) {
            Ok(received) => received,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => break,
            Err(error) => return Err(error),
        };
        if to.contains(&who.ip()) && is_reply(buffer.get(..length).unwrap_or_default(), who.is_ipv4(), [high, low]) {
            answered.entry(who.ip()).or_insert_with(|| begun.elapsed());
        }
    }
    Ok(answered)
}

fn request(ipv4: bool, [high, low]: [u8; 2]) -> [u8; 10] {
    let kind = if ipv4 { 8 } else { 128 };
    let mut message = [kind, 0, 0, 0, high, low, 0, 1, b'o', b'v'];
    if ipv4 {
        let [first, second] = checksum(&message).to_be_bytes();
        (message[2], message[3]) = (first, second); // the kernel writes ICMPv6's
    }
    message
}

fn is_reply(received: &[u8], ipv4: bool, id: [u8; 2]) -> bool {
    // Of IPv4 the header comes along.
    let skipped = if ipv4 { received.first().map_or(0, |first| usize::from(first & 15) * 4) } else { 0 };
    let kind = if ipv4 { 0 } else { 129 };
    matches!(received.get(skipped..), Some([found, 0, _, _, high, low, ..]) if (*found, [*high, *low]) == (kind, id))
}

/// RFC 1071.
fn checksum(message: &[u8]) -> u16 {
    let words = message.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)])));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
