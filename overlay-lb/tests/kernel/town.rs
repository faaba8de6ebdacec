//! A client and replicas on a bridge, and real conversations between them.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::process::Command;
use std::thread;
use std::time::Duration;

use overlay_core::{Meter, Owner, Protocol, Table, reconcile};
use overlay_kernel::Namespace;
use overlay_kernel::testing::judge;
use overlay_lb::kernel::Marks;
use overlay_lb::{Capabilities, Readings, State};
use socket2::{Domain, Type};

use crate::suite::{Answer, Ground, Held};

pub(crate) const PATIENCE: Duration = Duration::from_millis(2_000);

pub(crate) fn owner() -> Owner {
    Owner::new("lb-test".parse().unwrap(), "a".parse().unwrap())
}

/// A namespace with stations on a bridge, each in a namespace of its own.
pub(crate) struct Town {
    _bridge: Namespace,
    pub(crate) client: Namespace,
    pub(crate) replicas: Vec<Namespace>,
}

impl Town {
    /// The client at .5, and replicas from .2 on, which listen.
    pub(crate) fn new(replicas: u8) -> Self {
        let bridge = Namespace::create().unwrap();
        script(&bridge, "ip link add name br0 type bridge; ip link set br0 up");
        let station = |number: u8| {
            let station = Namespace::create().unwrap();
            let target = format!("/proc/{}/fd/{}", std::process::id(), bridge.as_fd().as_raw_fd());
            script(
                &station,
                &format!(
                    "ip link set lo up; ip link add eth0 type veth peer name p{number} netns {target}
                     ip link set eth0 addrgenmode none up; ip addr add 10.0.9.{number}/24 dev eth0
                     ip addr add fd00::{number}/64 dev eth0 nodad"
                ),
            );
            script(&bridge, &format!("ip link set p{number} addrgenmode none master br0 up"));
            raised(&station, 2);
            listen(&station, number);
            station
        };
        let client = station(5);
        let stations: Vec<_> = (2..2 + replicas).map(station).collect();
        for number in 2..2 + stations.len() {
            judge(&client, "ping", &["-c1", "-W5", &format!("10.0.9.{number}")]);
            judge(&client, "ping", &["-c1", "-W5", &format!("fd00::{number}")]);
        }
        Self { _bridge: bridge, client, replicas: stations }
    }
}

/// Waits until the kernel has added what it adds by itself, and later, for devices that are up: for each a route of multicast, and
/// one for each address of IPv6.
pub(crate) fn raised(namespace: &Namespace, routes: usize) {
    let is_own = |line: &&str| line.contains(" dev eth") && (line.contains("ff00::/8") || line.starts_with("local "));
    for _ in 0..1_000 {
        let listed = judge(namespace, "ip", &["-6", "route", "show", "table", "local"]);
        if listed.lines().filter(is_own).count() == routes {
            return;
        }
        thread::sleep(Duration::from_millis(20));
    }
    panic!("the kernel does not add its {routes} routes");
}

pub(crate) fn script(namespace: &Namespace, text: &str) {
    judge(namespace, "sh", &["-ec", text]);
}

/// Says its number and who asks, at port 8080 of TCP and UDP, for as long as the process lives.
fn listen(namespace: &Namespace, number: u8) {
    let tcp = namespace.run(|| TcpListener::bind("[::]:8080")).unwrap().unwrap();
    let udp = namespace.run(|| UdpSocket::bind("[::]:8080")).unwrap().unwrap();
    let says = move |peer: SocketAddr| format!("{number} {}", peer.ip().to_canonical());
    thread::spawn(move || {
        for stream in tcp.incoming() {
            let Ok(mut stream) = stream else { return };
            thread::spawn(move || {
                let Ok(peer) = stream.peer_addr() else { return };
                let mut word = [0; 64];
                while stream.read(&mut word).is_ok_and(|length| length > 0) {
                    let _ = stream.write_all(says(peer).as_bytes());
                }
            });
        }
    });
    thread::spawn(move || {
        let mut word = [0; 64];
        while let Ok((_, peer)) = udp.recv_from(&mut word) {
            let _ = udp.send_to(says(peer).as_bytes(), peer);
        }
    });
}

enum Socket {
    Tcp(TcpStream),
    Udp(UdpSocket),
    None,
}

/// A town's client, with a backend for its services.
pub(crate) struct Place<'t, T> {
    pub(crate) town: &'t Town,
    pub(crate) table: T,
    pub(crate) can: Capabilities,
    held: Vec<Socket>,
    /// Whether what is sent is marked by its sender.
    marks: bool,
}

impl<'t, T: Table<State>> Place<'t, T> {
    pub(crate) fn new(town: &'t Town, table: T, can: Capabilities) -> Self {
        Self { town, table, can, held: Vec::new(), marks: false }
    }

    /// Who sends marks what he sends from now on, as IPVS wants it.
    pub(crate) fn marking(self) -> Self {
        Self { marks: true, ..self }
    }
}

/// Opens a conversation, in this namespace.
fn connect(protocol: Protocol, to: SocketAddr, mark: Option<u32>) -> std::io::Result<Socket> {
    let kind = if protocol == Protocol::Tcp { Type::STREAM } else { Type::DGRAM };
    let socket = socket2::Socket::new(Domain::for_address(to), kind, None)?;
    mark.map_or(Ok(()), |mark| socket.set_mark(mark))?;
    socket.connect_timeout(&to.into(), PATIENCE)?;
    Ok(if protocol == Protocol::Tcp { Socket::Tcp(socket.into()) } else { Socket::Udp(socket.into()) })
}

fn answer(said: &[u8], v6: bool) -> Answer {
    let said = str::from_utf8(said).unwrap();
    let (number, client) = said.split_once(' ').unwrap();
    let replica = if v6 { format!("fd00::{number}") } else { format!("10.0.9.{number}") };
    Answer::From(replica.parse().unwrap(), client.parse().unwrap())
}

fn failed(error: &std::io::Error) -> Answer {
    match error.kind() {
        ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => Answer::Refused,
        // What IPVS drops on its way out is told so.
        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::PermissionDenied => Answer::Silence,
        _ => panic!("{error}"),
    }
}

impl Socket {
    fn ask(&mut self) -> Answer {
        let mut word = [0; 64];
        let (said, v6) = match self {
            Self::Tcp(stream) => (
                stream.write_all(b"?").and_then(|()| stream.read(&mut word)),
                stream.peer_addr().map(|it| it.is_ipv6()),
            ),
            Self::Udp(socket) => {
                (socket.send(b"?").and_then(|_| socket.recv(&mut word)), socket.peer_addr().map(|it| it.is_ipv6()))
            }
            Self::None => return Answer::Refused,
        };
        match said {
            Ok(0) => Answer::Refused,
            Ok(length) => answer(&word[..length], v6.unwrap()),
            Err(error) => failed(&error),
        }
    }
}

impl<T: Table<State> + Meter<Reading = Readings>> Ground for Place<'_, T> {
    fn capabilities(&self) -> Capabilities {
        self.can.clone()
    }

    fn settle(&mut self, state: &State) {
        reconcile(&mut self.table, state).unwrap_or_else(|error| panic!("{}", overlay_core::told(&error)));
        assert!(reconcile(&mut self.table, state).unwrap().is_empty());
    }

    fn open(&mut self, protocol: Protocol, to: SocketAddr) -> (Held, Answer) {
        let mark = self.marks.then(|| Marks::of(to.ip()));
        let opened = self.town.client.run(|| connect(protocol, to, mark)).unwrap();
        let (mut socket, failed) = match opened {
            Ok(socket) => (socket, None),
            Err(error) => (Socket::None, Some(failed(&error))),
        };
        match &socket {
            Socket::Tcp(stream) => stream.set_read_timeout(Some(PATIENCE)).unwrap(),
            Socket::Udp(socket) => socket.set_read_timeout(Some(PATIENCE)).unwrap(),
            Socket::None => {}
        }
        let answer = failed.unwrap_or_else(|| socket.ask());
        self.held.push(socket);
        (self.held.len() - 1, answer)
    }

    /// Of IPVS, the datagram that finds its replica gone is lost, and the next goes to another.
    fn ask(&mut self, held: Held) -> Answer {
        let lost = matches!(self.held[held], Socket::Udp(_)) && self.can.backend == "IPVS";
        match self.held[held].ask() {
            Answer::Silence if lost => self.held[held].ask(),
            answer => answer,
        }
    }

    fn close(&mut self, held: Held) {
        self.held[held] = Socket::None;
    }

    fn flows(&mut self, replica: IpAddr) -> u64 {
        self.table.read().unwrap().of_replica(replica)
    }

    fn pings(&mut self, to: IpAddr) -> bool {
        let ping = || Command::new("ping").args(["-c1", "-W2", "-n", &to.to_string()]).output().unwrap();
        self.town.client.run(ping).unwrap().status.success()
    }

    fn wait(&mut self, span: Duration) -> bool {
        thread::sleep(span);
        true
    }
}

/// All that a client's namespace shows but its flows. (Whether a link has a carrier is known a moment after it is up.)
pub(crate) fn whole(namespace: &Namespace) -> String {
    const SHOW: &str = "nft list ruleset; ip -o addr
        (ip route show table all; ip -6 route show table all) | sed 's/ linkdown//'";
    judge(namespace, "sh", &["-c", SHOW])
}
