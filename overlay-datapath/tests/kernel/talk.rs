//! What the two say to each other, each by its kernel's own stack.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::time::Duration;

use overlay_kernel::Namespace;
use overlay_kernel::testing::judge;

use crate::world::{Ends, addresses};

const PATIENCE: Duration = Duration::from_secs(20);
const SERVED: u16 = 8_080;
/// What one sends the other by TCP, and has back.
const LONG: usize = 100_000;

/// All that is to be said.
pub(crate) fn converse(ends: &Ends) {
    pings(ends);
    asks_and_is_told_what_fits(ends);
    for ((from, to), number) in [((&ends.container, &ends.there), 1), ((&ends.there, &ends.container), 2)] {
        for (own, address) in addresses(3 - number).into_iter().zip(addresses(number)) {
            datagrams(from, to, (own, address), ends.mtu);
            stream(from, to, (own, address));
        }
    }
}

/// Both ping each other, with packets that are short and with such as just fit.
pub(crate) fn pings(ends: &Ends) {
    // A kernel's interfaces need a moment once they have a carrier.
    for (from, number) in [(&ends.container, 1), (&ends.there, 2)] {
        for to in addresses(number) {
            assert!((0..20).any(|_| ping(from, to, 8, 1).contains(" 1 received")), "{to} is not heard");
        }
    }
    for (from, number) in [(&ends.container, 1), (&ends.there, 2)] {
        for to in addresses(number) {
            for size in [8, ends.mtu - headers(to) - 8] {
                let said = ping(from, to, size, 5);
                assert!(said.contains(" 5 received, 0% packet loss"), "{said}");
            }
        }
    }
}

/// Whether the other node is heard by our container.
pub(crate) fn pings_once(ends: &Ends) -> bool {
    ping(&ends.there, addresses(2)[0], 8, 1).contains(" 1 received")
}

/// A packet of the container's that is one byte longer than fits is answered with what does: its interface would take it.
fn asks_and_is_told_what_fits(ends: &Ends) {
    for to in addresses(1) {
        let said = ping(&ends.container, to, ends.mtu - headers(to) - 7, 1);
        assert!(said.contains(" 0 received"), "{said}");
        let known = judge(&ends.container, "ip", &["route", "get", &to.to_string()]);
        assert!(known.contains(&format!("mtu {}", ends.mtu)), "{said}{known}");
    }
}

const fn headers(to: IpAddr) -> u32 {
    if to.is_ipv4() { 20 } else { 40 }
}

fn ping(from: &Namespace, to: IpAddr, size: u32, count: u8) -> String {
    let [to, size, count] = [to.to_string(), size.to_string(), count.to_string()];
    let arguments = ["-c", &count, "-i", "0.02", "-M", "do", "-s", &size];
    // With a deadline, ping sends more than it was asked for while answers are slow: only where one must come at all.
    let wait = if count == "1" { ["-w", "2"] } else { ["-W", "5"] };
    let ping = || Command::new("ping").args(arguments).args(wait).arg(&to).output();
    let said = from.run(ping).unwrap().unwrap();
    String::from_utf8_lossy(&said.stdout).into_owned()
}

/// Datagrams there and back, up to the longest that fits; who is asked sees who asks.
fn datagrams(from: &Namespace, to: &Namespace, (own, address): (IpAddr, IpAddr), mtu: u32) {
    let bind = |at: &Namespace, address: IpAddr, port: u16| {
        let socket = at.run(|| UdpSocket::bind((address, port))).unwrap().unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    };
    let (asks, answers) = (bind(from, own, 0), bind(to, address, SERVED));
    let mut room = [0; 2_000];
    for length in [0, 1, 100, (mtu - headers(address) - 8) as usize] {
        let said: Vec<u8> = (0..length).map(|at| at as u8).collect();
        asks.send_to(&said, (address, SERVED)).unwrap();
        let (heard, who) = answers.recv_from(&mut room).unwrap();
        assert_eq!((&room[..heard], who), (&said[..], asks.local_addr().unwrap()));
        answers.send_to(&said, who).unwrap();
        let (heard, who) = asks.recv_from(&mut room).unwrap();
        assert_eq!((&room[..heard], who), (&said[..], SocketAddr::new(address, SERVED)));
    }
}

/// A connection by which a lot is sent, and comes back as it was.
fn stream(from: &Namespace, to: &Namespace, (own, address): (IpAddr, IpAddr)) {
    let listener = to.run(|| TcpListener::bind((address, SERVED))).unwrap().unwrap();
    let said: Vec<u8> = (0..LONG).map(|at| (at % 251) as u8).collect();
    let connect = || TcpStream::connect_timeout(&(address, SERVED).into(), PATIENCE);
    let mut stream = from.run(connect).unwrap().unwrap();
    std::thread::scope(|scope| {
        let repeats = scope.spawn(|| {
            let (mut stream, who) = listener.accept().unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut heard = Vec::new();
            stream.read_to_end(&mut heard).unwrap();
            stream.write_all(&heard).unwrap();
            who
        });
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(&said).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).unwrap();
        assert!(heard == said, "{} bytes came back", heard.len());
        let who = repeats.join().unwrap();
        assert_eq!((who, who.ip()), (stream.local_addr().unwrap(), own));
    });
}
