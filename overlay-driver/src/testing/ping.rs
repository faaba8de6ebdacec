//! ICMP echo from within a namespace, without a program that does it.

use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use overlay_kernel::Namespace;
use socket2::{Domain, Protocol, Socket, Type};

/// Sends one echo request (RFC 792, RFC 4443) and waits for its answer. Gives how long it took; `None` if there was none in time.
///
/// # Errors
/// If the namespace may not be entered, has no way there, or has no raw sockets for us.
pub fn ping(from: &Namespace, to: IpAddr, patience: Duration) -> io::Result<Option<Duration>> {
    from.run(|| echo(to, patience)).map_err(io::Error::other)?
}

#[expect(clippy::disallowed_methods, reason = "a test measures time")]
fn echo(to: IpAddr, patience: Duration) -> io::Result<Option<Duration>> {
    let (domain, protocol, request, reply) = match to {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4, 8, 0),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6, 128, 129),
    };
    let socket = Socket::new(domain, Type::RAW, Some(protocol))?;
    let begun = Instant::now();
    // An id that no other has now: of the thread, which lives as long as this.
    let [.., high, low] = nix::unistd::gettid().as_raw().to_be_bytes();
    let mut message = [request, 0, 0, 0, high, low, 0, 1, b'o', b'v'];
    if to.is_ipv4() {
        let [first, second] = checksum(&message).to_be_bytes();
        (message[2], message[3]) = (first, second); // the kernel writes ICMPv6's
    }
    socket.send_to(&message, &SocketAddr::new(to, 0).into())?;
    let mut buffer = [0; 1500];
    loop {
        let Some(left) = patience.checked_sub(begun.elapsed()).filter(|left| !left.is_zero()) else { return Ok(None) };
        socket.set_read_timeout(Some(left))?;
        let length = match (&socket).read(&mut buffer) {
            Ok(length) => length,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let received = buffer.get(..length).unwrap_or_default();
        // Of IPv4 the header comes along.
        let skipped = if to.is_ipv4() { received.first().map_or(0, |first| usize::from(first & 15) * 4) } else { 0 };
        if let Some([kind, 0, _, _, h, l, ..]) = received.get(skipped..)
            && (*kind, *h, *l) == (reply, high, low)
        {
            return Ok(Some(begun.elapsed()));
        }
    }
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
