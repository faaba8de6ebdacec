//! One interface of a container: addresses, routes, and who answers and asks there.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;
use overlay_core::{Instant, Name};
use smoltcp::iface::{Config, Interface, Route, SocketHandle, SocketSet};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::socket::{icmp, tcp, udp};
use smoltcp::time::{Duration as Span, Instant as Time};
use smoltcp::wire::{EthernetAddress, Icmpv4Packet, Icmpv4Repr, Icmpv6Packet, Icmpv6Repr, IpAddress, IpCidr};

use super::attached::Attached;
use super::own;
use super::wire::Wire;
use super::{DISCARD, SERVED};

/// The protocols of one endpoint.
pub(crate) struct Stack {
    pub(crate) container: Name,
    attached: Attached,
    pub(crate) wire: Wire,
    interface: Interface,
    sockets: SocketSet<'static>,
    answering: SocketHandle,
    discarding: SocketHandle,
    /// Those that were greeted, among what serves TCP.
    serving: Vec<(SocketHandle, bool)>,
    asking: Vec<(u64, Asking)>,
    closing: Vec<SocketHandle>,
    /// Datagrams that came to be counted and thrown away.
    pub(crate) discarded: u64,
    port: u16,
    pub(crate) wake: Option<Instant>,
}

/// A question under way.
struct Asking {
    socket: SocketHandle,
    kind: Kind,
    /// When it was asked, the last time.
    sent: Instant,
    read: Vec<u8>,
    end: Option<(Duration, End)>,
}

#[derive(Debug, Clone)]
enum Kind {
    Ping(Ping),
    Udp,
    Tcp { payload: Vec<u8>, written: usize, was_open: bool },
}

/// An echo request, which is sent again each second: a stack that has to ask first where to send its answer drops it.
#[derive(Debug, Clone, Copy)]
struct Ping {
    to: IpAddress,
    source: IpAddress,
    size: usize,
    ident: u16,
}

/// How a question ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    Read(Vec<u8>),
    Refused,
}

/// What is asked of somebody.
#[derive(Debug, Clone)]
pub(crate) enum Question {
    Ping(usize),
    Udp(Vec<u8>),
    Tcp(Vec<u8>),
}

/// TCP connections that are waited for at once.
const LISTENING: usize = 2;
const BUFFER: usize = 16 << 10;
/// How long a connection that nothing is heard of lasts.
const DEAF: Span = Span::from_secs(20);
const ETHERNET: usize = 14;
const AGAIN: Duration = Duration::from_secs(1);

impl Stack {
    pub(crate) fn new(attached: &Attached, seed: u64, now: Instant) -> Self {
        let mut wire = Wire::new(attached.mtu as usize + ETHERNET);
        let mut config = Config::new(EthernetAddress(attached.mac.octets()).into());
        config.random_seed = seed;
        let interface = Interface::new(config, &mut wire, time(now));
        let mut sockets = SocketSet::new(Vec::new());
        let (answering, discarding) = (sockets.add(datagrams(64)), sockets.add(datagrams(2048)));
        for (socket, port) in [(answering, SERVED), (discarding, DISCARD)] {
            let _ = sockets.get_mut::<udp::Socket<'_>>(socket).bind(port); // a new socket, and a port that is not 0
        }
        let mut stack = Self {
            container: attached.container.clone(),
            attached: attached.clone(),
            wire,
            interface,
            sockets,
            answering,
            discarding,
            serving: Vec::new(),
            asking: Vec::new(),
            closing: Vec::new(),
            discarded: 0,
            port: 40_000 + (seed % 10_000) as u16,
            wake: None,
        };
        stack.configure();
        stack
    }

    /// Takes the addresses and routes that there are now.
    pub(crate) fn follow(&mut self, attached: &Attached) {
        if self.attached != *attached {
            self.attached = attached.clone();
            self.configure();
        }
    }

    fn configure(&mut self) {
        let attached = &self.attached;
        let mac = attached.mac;
        let link_local = attached.addresses.iter().any(|net| net.addr().is_ipv6());
        self.interface.update_ip_addrs(|held| {
            let own = attached.addresses.iter().map(|net| cidr(*net));
            let own = own.chain(link_local.then(|| IpCidr::new(IpAddress::from(IpAddr::from(mac.link_local())), 64)));
            *held = own.take(held.capacity()).collect();
        });
        self.interface.routes_mut().update(|held| {
            let routes = attached.routes.iter().take(held.capacity());
            let route = |(net, via): &(IpNet, IpAddr)| Route {
                cidr: cidr(*net),
                via_router: (*via).into(),
                preferred_until: None,
                expires_at: None,
            };
            *held = routes.map(route).collect();
        });
    }

    pub(crate) const fn attached(&self) -> &Attached {
        &self.attached
    }

    /// Begins to ask; `None` if the interface has no address to ask from.
    pub(crate) fn ask(&mut self, number: u64, to: IpAddr, question: Question, now: Instant) -> Option<()> {
        let family = self.interface.ip_addrs().iter().find(|own| IpAddr::from(own.address()).is_ipv4() == to.is_ipv4());
        let source = family?.address();
        self.port = self.port.checked_add(1).filter(|port| *port < 60_000).unwrap_or(40_000);
        let (socket, kind) = match question {
            Question::Ping(size) => {
                let ping = Ping { to: to.into(), source, size, ident: self.port };
                (self.ping(&ping)?, Kind::Ping(ping))
            }
            Question::Udp(payload) => {
                let mut socket = datagrams(4);
                socket.bind(self.port).ok()?;
                socket.send_slice(&payload, (IpAddress::from(to), SERVED)).ok()?;
                (self.sockets.add(socket), Kind::Udp)
            }
            Question::Tcp(payload) => {
                let mut socket = stream();
                socket.connect(self.interface.context(), (IpAddress::from(to), SERVED), self.port).ok()?;
                (self.sockets.add(socket), Kind::Tcp { payload, written: 0, was_open: false })
            }
        };
        self.asking.push((number, Asking { socket, kind, sent: now, read: Vec::new(), end: None }));
        Some(())
    }

    fn ping(&mut self, ping: &Ping) -> Option<SocketHandle> {
        let buffer = || icmp::PacketBuffer::new(vec![icmp::PacketMetadata::EMPTY; 4], vec![0; ping.size + 1024]);
        let mut socket = icmp::Socket::new(buffer(), buffer());
        socket.bind(icmp::Endpoint::Ident(ping.ident)).ok()?;
        ping.send(&mut socket)?;
        Some(self.sockets.add(socket))
    }

    /// How a question ended, and how long that took; it is forgotten then.
    pub(crate) fn ended(&mut self, number: u64) -> Option<(Duration, End)> {
        let at = self.asking.iter().position(|(of, asking)| *of == number && asking.end.is_some())?;
        let (_, asking) = self.asking.swap_remove(at);
        self.let_go(&asking);
        asking.end
    }

    /// Asks no longer.
    pub(crate) fn give_up(&mut self, number: u64) {
        if let Some(at) = self.asking.iter().position(|(of, _)| *of == number) {
            let (_, asking) = self.asking.swap_remove(at);
            self.let_go(&asking);
        }
    }

    fn let_go(&mut self, asking: &Asking) {
        if matches!(asking.kind, Kind::Tcp { .. }) {
            self.sockets.get_mut::<tcp::Socket<'_>>(asking.socket).close();
            self.closing.push(asking.socket);
        } else {
            drop(self.sockets.remove(asking.socket));
        }
    }

    /// As many datagrams of so many bytes as there is room for are on their way to be thrown away there.
    pub(crate) fn pour(&mut self, to: IpAddr, size: usize, count: usize) -> usize {
        let (socket, payload) = (self.sockets.get_mut::<udp::Socket<'_>>(self.discarding), vec![b'd'; size]);
        let to = (IpAddress::from(to), DISCARD);
        (0..count).take_while(|_| socket.send_slice(&payload, to).is_ok()).count()
    }

    /// Does all that can be done now.
    pub(crate) fn poll(&mut self, now: Instant) {
        loop {
            let _ = self.interface.poll(time(now), &mut self.wire, &mut self.sockets);
            // What was answered has to be sent.
            if !(self.serve() | self.read(now) | self.find_itself()) {
                break;
            }
        }
    }

    /// Answers itself where it asks for an address of its own. Whether it did.
    fn find_itself(&mut self) -> bool {
        let (mac, addresses) = (EthernetAddress(self.attached.mac.octets()), self.interface.ip_addrs());
        let has = |address| addresses.iter().any(|net| IpAddr::from(net.address()) == address);
        let before = self.wire.received.len();
        let Wire { sent, received, .. } = &mut self.wire;
        sent.retain(|frame| {
            let to_many = frame.first().is_some_and(|octet| octet & 1 == 1);
            let answer = if to_many { own::answer(frame, mac, has) } else { None };
            let is_answered = answer.is_some();
            received.extend(answer);
            !is_answered
        });
        self.wire.received.len() > before
    }

    /// When it has something to do by itself.
    pub(crate) fn poll_timeout(&mut self, now: Instant) -> Option<Instant> {
        let at = self.interface.poll_at(time(now), &self.sockets);
        let micros = |at: Time| u64::try_from(at.total_micros()).unwrap_or_default();
        let own = at.map(|at| Instant::from_nanos(micros(at).saturating_mul(1_000)));
        let pings = self.asking.iter().filter(|(_, it)| it.end.is_none() && matches!(it.kind, Kind::Ping(_)));
        let next = pings.map(|(_, asking)| asking.sent + AGAIN).chain(own).min()?;
        Some(next.max(now + Duration::from_micros(1)))
    }

    /// Answers each who asks with how it looks from here, and what it sent. Whether there is something to send.
    fn serve(&mut self) -> bool {
        let mut did = false;
        let discarding = self.sockets.get_mut::<udp::Socket<'_>>(self.discarding);
        while discarding.recv().is_ok() {
            self.discarded += 1;
        }
        let answering = self.sockets.get_mut::<udp::Socket<'_>>(self.answering);
        while let Ok((payload, from)) = answering.recv() {
            let answer = [greeting(&self.container, from.endpoint.into()).as_bytes(), payload].concat();
            let _ = answering.send_slice(&answer, from); // it is lost where there is no room
            did = true;
        }
        for (socket, greeted) in &mut self.serving {
            let socket = self.sockets.get_mut::<tcp::Socket<'_>>(*socket);
            did |= serve(&self.container, socket, greeted);
        }
        let sockets = &mut self.sockets;
        let (serving, closing) = (&mut self.serving, &mut self.closing);
        serving.retain(|(socket, _)| !forget(sockets, *socket));
        closing.retain(|socket| !forget(sockets, *socket));
        let listens = |(socket, _): &&(SocketHandle, bool)| sockets.get::<tcp::Socket<'_>>(*socket).is_listening();
        let lacking = LISTENING.saturating_sub(serving.iter().filter(listens).count());
        (0..lacking).for_each(|_| self.listen());
        did
    }

    /// One more waits for connections, behind all that there are: a SYN that comes twice is the same connection's, and the first socket
    /// that takes it has it.
    fn listen(&mut self) {
        let mut socket = stream();
        let _ = socket.listen(SERVED); // a new socket, and a port that is not 0
        let new = self.sockets.add(socket);
        self.serving.push((new, false));
        let is_busy = |it: &SocketHandle| !self.sockets.get::<tcp::Socket<'_>>(*it).is_listening();
        let behind = self.serving.iter().map(|(socket, _)| *socket).filter(|it| *it > new && is_busy(it)).max();
        let Some(last) = behind else { return };
        let nothing = || tcp::Socket::new(tcp::SocketBuffer::new(Vec::new()), tcp::SocketBuffer::new(Vec::new()));
        let busy = std::mem::replace(self.sockets.get_mut(last), nothing());
        let waiting = std::mem::replace(self.sockets.get_mut(new), busy);
        *self.sockets.get_mut(last) = waiting;
        for (socket, _) in &mut self.serving {
            *socket = if *socket == new {
                last
            } else if *socket == last {
                new
            } else {
                *socket
            };
        }
    }

    /// Looks what has come for who asks. Whether there is something to send.
    fn read(&mut self, now: Instant) -> bool {
        let mut did = false;
        for (_, asking) in self.asking.iter_mut().filter(|(_, asking)| asking.end.is_none()) {
            let (end, sends) = match &mut asking.kind {
                Kind::Ping(ping) => {
                    let socket = self.sockets.get_mut(asking.socket);
                    let end = pong(socket, matches!(ping.to, IpAddress::Ipv6(_)));
                    let again = end.is_none() && asking.sent + AGAIN <= now;
                    if again {
                        asking.sent = now;
                        let _ = ping.send(socket); // it is not sent where there is no room
                    }
                    (end, again)
                }
                Kind::Udp => {
                    let socket = self.sockets.get_mut::<udp::Socket<'_>>(asking.socket);
                    (socket.recv().ok().map(|(bytes, _)| End::Read(bytes.to_vec())), false)
                }
                Kind::Tcp { payload, written, was_open } => {
                    let socket = self.sockets.get_mut::<tcp::Socket<'_>>(asking.socket);
                    exchange(socket, (payload, written, was_open), &mut asking.read)
                }
            };
            did |= sends;
            asking.end = end.map(|end| (now - asking.sent, end));
        }
        did
    }
}

/// Removes a connection that is over, and says whether it was.
fn forget(sockets: &mut SocketSet<'_>, socket: SocketHandle) -> bool {
    let is_over = !sockets.get::<tcp::Socket<'_>>(socket).is_open();
    if is_over {
        drop(sockets.remove(socket));
    }
    is_over
}

/// The line by which a container answers: its name, and who asks as it sees it.
fn greeting(name: &Name, from: SocketAddr) -> String {
    format!("{name} {from}\n")
}

fn serve(name: &Name, socket: &mut tcp::Socket<'_>, greeted: &mut bool) -> bool {
    let mut did = false;
    if let (false, true, Some(from)) = (*greeted, socket.may_send(), socket.remote_endpoint()) {
        let _ = socket.send_slice(greeting(name, from.into()).as_bytes()); // nothing was sent before, so there is room
        (*greeted, did) = (true, true);
    }
    while socket.can_recv() && socket.can_send() {
        let room = socket.send_capacity() - socket.send_queue();
        let Ok(bytes) = socket.recv(|bytes| (bytes.len().min(room), bytes[..bytes.len().min(room)].to_vec())) else {
            break;
        };
        let _ = socket.send_slice(&bytes); // there is room
        did = true;
    }
    if *greeted && !socket.may_recv() && socket.recv_queue() == 0 && socket.may_send() {
        socket.close();
        did = true;
    }
    did
}

/// One who asks by TCP: how it ended if it has, and whether there is something to send.
fn exchange(
    socket: &mut tcp::Socket<'_>,
    (payload, written, was_open): (&[u8], &mut usize, &mut bool),
    read: &mut Vec<u8>,
) -> (Option<End>, bool) {
    let mut did = false;
    *was_open |= socket.may_send();
    if *written < payload.len() && socket.can_send() {
        *written += socket.send_slice(&payload[*written..]).unwrap_or_default();
        did = true;
    }
    while socket.can_recv() {
        let taken = socket.recv(|bytes| {
            read.extend_from_slice(bytes);
            (bytes.len(), ())
        });
        did |= taken.is_ok(); // the window has opened
    }
    let line = read.iter().position(|byte| *byte == b'\n');
    if line.is_some_and(|line| read.len() > line + payload.len()) {
        return (Some(End::Read(std::mem::take(read))), did);
    }
    let refused = !socket.is_open();
    (refused.then_some(End::Refused), did)
}

impl Ping {
    fn send(&self, socket: &mut icmp::Socket<'_>) -> Option<()> {
        let (data, checksum) = (vec![b'p'; self.size], ChecksumCapabilities::default());
        match (self.to, self.source) {
            (to @ IpAddress::Ipv4(_), _) => {
                let echo = Icmpv4Repr::EchoRequest { ident: self.ident, seq_no: 1, data: &data };
                let bytes = socket.send(echo.buffer_len(), to).ok()?;
                echo.emit(&mut Icmpv4Packet::new_unchecked(bytes), &checksum);
            }
            (IpAddress::Ipv6(to), IpAddress::Ipv6(source)) => {
                let echo = Icmpv6Repr::EchoRequest { ident: self.ident, seq_no: 1, data: &data };
                let bytes = socket.send(echo.buffer_len(), to.into()).ok()?;
                echo.emit(&source, &to, &mut Icmpv6Packet::new_unchecked(bytes), &checksum);
            }
            _ => return None,
        }
        Some(())
    }
}

fn pong(socket: &mut icmp::Socket<'_>, v6: bool) -> Option<End> {
    let (bytes, from) = socket.recv().ok()?;
    let is_reply = bytes.first() == Some(if v6 { &129 } else { &0 });
    is_reply.then(|| End::Read(format!("- {}\n", SocketAddr::new(from.into(), 0)).into_bytes()))
}

fn datagrams(packets: usize) -> udp::Socket<'static> {
    let buffer =
        || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; packets], vec![0; (packets * 256).max(64 << 10)]);
    udp::Socket::new(buffer(), buffer())
}

fn stream() -> tcp::Socket<'static> {
    let buffer = || tcp::SocketBuffer::new(vec![0; BUFFER]);
    let mut socket = tcp::Socket::new(buffer(), buffer());
    socket.set_timeout(Some(DEAF));
    socket
}

fn cidr(net: IpNet) -> IpCidr {
    IpCidr::new(net.addr().into(), net.prefix_len())
}

fn time(at: Instant) -> Time {
    Time::from_micros(i64::try_from(at.as_nanos() / 1_000).unwrap_or(i64::MAX))
}
