//! Sockets of the underlay.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use overlay_datapath::Buffer;
use overlay_kernel::{EspSocket, take_unsummed};
use quinn_udp::{RecvMeta, Transmit, UdpSocketState};
use socket2::SockRef;

use super::counts::CarrierCounts;
use super::train::Train;

/// The sockets by which a node speaks with others, and what waits to be sent.
pub(super) struct Underlay {
    links: Vec<Link>,
    /// By address, sockets that only send: each has the flows of some source ports.
    sources: Vec<(IpAddr, Vec<Link>)>,
    /// By which ESP leaves that is in no UDP.
    esp: Vec<EspSocket>,
}

/// A socket, bound to a VTEP's address.
struct Link {
    socket: UdpSocket,
    /// Whether this queue reads what comes there; it sends in any case.
    reads: bool,
    state: UdpSocketState,
    local: SocketAddr,
    train: Train,
}

/// A train that came, and where its datagrams begin in the room.
#[derive(Debug, Clone, Copy)]
pub(super) struct Came {
    at: usize,
    meta: RecvMeta,
    local: SocketAddr,
}

/// Trains read at once.
pub(super) const TRAINS: usize = 8;
/// Bytes of the longest.
const LONGEST: usize = 1 << 16;
/// Bytes that all of them take.
pub(super) const ROOM: usize = TRAINS * LONGEST;
/// Bytes that wait for a socket that only sends: what comes there nobody reads.
const ROOM_OF_SOURCE: usize = 1 << 20;
/// How long a send waits for room before its datagrams are given up: a queue's length, not an outage's.
const PATIENCE: Duration = Duration::from_millis(20);

impl Underlay {
    /// That of each queue. Of sockets that are bound alike each queue has one; a queue for which there is none sends by another's.
    pub(super) fn of_queues(sockets: Vec<UdpSocket>, queues: usize, room: usize) -> io::Result<Vec<Self>> {
        let mut alike: Vec<(SocketAddr, Vec<UdpSocket>)> = Vec::new();
        for socket in sockets {
            let local = socket.local_addr()?;
            match alike.iter_mut().find(|(of, _)| *of == local) {
                Some((_, sockets)) => sockets.push(socket),
                None => alike.push((local, vec![socket])),
            }
        }
        let mut all: Vec<Self> =
            (0..queues).map(|_| Self { links: Vec::new(), sources: Vec::new(), esp: Vec::new() }).collect();
        for (local, sockets) in alike {
            let count = sockets.len();
            if count > queues {
                let what = format!("{count} sockets at {local}, and {queues} queues that read one each");
                return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
            }
            let clones = (count..queues).zip(sockets.iter().cycle()).map(|(_, socket)| socket.try_clone());
            let clones = clones.collect::<io::Result<Vec<_>>>()?;
            let each = sockets.into_iter().map(|socket| (socket, true)).chain(clones.into_iter().map(|it| (it, false)));
            for (underlay, socket) in all.iter_mut().zip(each) {
                underlay.links.push(Link::new(socket, room)?);
            }
        }
        Ok(all)
    }

    /// Has each queue send by sources of its own, or share them where there are fewer.
    pub(super) fn spread(all: &mut [Self], sources: Vec<UdpSocket>) -> io::Result<()> {
        let mut by_address: Vec<(IpAddr, Vec<UdpSocket>)> = Vec::new();
        for socket in sources {
            let local = socket.local_addr()?.ip();
            match by_address.iter_mut().find(|(of, _)| *of == local) {
                Some((_, sockets)) => sockets.push(socket),
                None => by_address.push((local, vec![socket])),
            }
        }
        for (local, sockets) in by_address {
            let (count, queues) = (sockets.len(), all.len());
            for (number, underlay) in all.iter_mut().enumerate() {
                let own = (number % count..count).step_by(queues).filter_map(|at| sockets.get(at));
                let own = own.map(|socket| Link::new((socket.try_clone()?, false), ROOM_OF_SOURCE));
                underlay.sources.push((local, own.collect::<io::Result<_>>()?));
            }
        }
        Ok(())
    }

    /// The sockets that are read by this queue, by their numbers.
    pub(super) fn read_here(&self) -> impl Iterator<Item = (usize, BorrowedFd<'_>)> {
        let links = self.links.iter().enumerate();
        links.filter(|(_, link)| link.reads).map(|(number, link)| (number, link.socket.as_fd()))
    }

    /// Sends ESP by this socket from now on, in place of one of its address. Gives what it takes the place of.
    pub(super) fn add_esp(&mut self, socket: EspSocket) -> Option<EspSocket> {
        let before = self.esp.iter().position(|other| other.local() == socket.local());
        let before = before.map(|at| self.esp.swap_remove(at));
        self.esp.push(socket);
        before
    }

    /// The socket of ESP of an address.
    pub(super) fn esp(&self, local: IpAddr) -> Option<&EspSocket> {
        self.esp.iter().find(|socket| socket.local() == local)
    }

    /// Puts an IP packet that carries UDP behind those that wait to be sent; one of ESP leaves at once, as no kernel takes several.
    pub(super) fn push(&mut self, packet: &[u8], counts: &mut CarrierCounts) {
        let Some(head) = Head::read(packet) else {
            counts.unsent += 1;
            return;
        };
        match head.protocol {
            ESP => self.send_esp(head.from, packet, counts),
            _ => self.push_datagram(&head, packet, counts),
        }
    }

    fn send_esp(&self, from: IpAddr, packet: &[u8], counts: &mut CarrierCounts) {
        counts.sends += 1;
        let send = |socket: &EspSocket| patiently(socket.as_fd(), || socket.send(packet));
        if self.esp(from).is_none_or(|socket| send(socket).is_err()) {
            counts.unsent += 1;
        }
    }

    fn push_datagram(&mut self, head: &Head, packet: &[u8], counts: &mut CarrierCounts) {
        let Some(Datagram { source_port, to, payload }) = head.datagram(packet) else {
            counts.unsent += 1;
            return;
        };
        let (congestion, way) = (head.congestion, (source_port, to.port()));
        let Some(link) = self.link(head.from, way) else {
            counts.unsent += 1;
            return;
        };
        let most = link.state.max_gso_segments();
        if !link.train.append((to, congestion), payload, most) {
            link.flush(counts);
            if !link.train.append((to, congestion), payload, most) {
                counts.unsent += 1; // it has no payload, or more than a datagram takes
            }
        }
    }

    /// The socket by which a datagram leaves: of a flow's source port, one of those that only send; else the one that is bound to the port that it is for,
    /// as nodes' are, or to another of the address.
    fn link(&mut self, from: IpAddr, (source_port, to_port): (u16, u16)) -> Option<&mut Link> {
        let is_from = |link: &&mut Link| link.local.ip() == from;
        let at = self.links.iter().position(|link| link.local == SocketAddr::new(from, to_port));
        let is_bound = |link: &Link| link.local == SocketAddr::new(from, source_port);
        if let Some((_, sources)) = self.sources.iter_mut().find(|(of, _)| *of == from)
            && !self.links.iter().any(is_bound)
        {
            let count = sources.len().max(1);
            return sources.get_mut(usize::from(source_port) % count);
        }
        match at {
            Some(at) => self.links.get_mut(at),
            None => self.links.iter_mut().find(is_from),
        }
    }

    /// Sends all that waits.
    pub(super) fn flush(&mut self, counts: &mut CarrierCounts) {
        let sources = self.sources.iter_mut().flat_map(|(_, sources)| sources);
        self.links.iter_mut().chain(sources).for_each(|link| link.flush(counts));
    }

    /// Reads what came at a socket into `room`, of [`ROOM`] bytes; up to [`TRAINS`] trains, and none, where there is nothing more.
    pub(super) fn receive(&self, at: usize, room: &mut [u8]) -> [Option<Came>; TRAINS] {
        let mut came = [None; TRAINS];
        let Some(link) = self.links.get(at) else { return came };
        let mut metas = [RecvMeta::default(); TRAINS];
        let mut chunks = room.chunks_exact_mut(LONGEST);
        let mut rooms: [_; TRAINS] = std::array::from_fn(|_| IoSliceMut::new(chunks.next().unwrap_or_default()));
        let Ok(read) = link.state.recv((&link.socket).into(), &mut rooms, &mut metas) else { return came };
        for (number, (came, meta)) in came.iter_mut().zip(metas).enumerate().take(read) {
            *came = Some(Came { at: number * LONGEST, meta, local: link.local });
        }
        came
    }
}

impl Link {
    fn new((socket, reads): (UdpSocket, bool), room: usize) -> io::Result<Self> {
        let local = socket.local_addr()?;
        if local.ip().is_unspecified() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{local} is no VTEP's address: bind it to one"),
            ));
        }
        socket.set_nonblocking(true)?;
        if local.is_ipv6() {
            take_unsummed(&socket)?;
        }
        let state = UdpSocketState::new((&socket).into())?;
        let options = SockRef::from(&socket);
        // As much as is allowed: less costs datagrams in bursts, no more.
        let _ = options.set_send_buffer_size(room);
        let _ = options.set_recv_buffer_size(room);
        let _ = nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::RcvBufForce, &room);
        let _ = nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::SndBufForce, &room);
        Ok(Self { socket, reads, state, local, train: Train::new() })
    }

    fn flush(&mut self, counts: &mut CarrierCounts) {
        let Some(transmit) = self.train.transmit() else { return };
        if self.send(&transmit).is_err() {
            counts.unsent += self.train.count() as u64;
        }
        counts.sends += 1;
        self.train.clear();
    }

    fn send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        patiently(self.socket.as_fd(), || self.state.try_send((&self.socket).into(), transmit))
    }
}

/// Sends, once more where there is room a little later, or where what was told is of a packet before it.
fn patiently(socket: BorrowedFd<'_>, send: impl Fn() -> io::Result<()>) -> io::Result<()> {
    match send() {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            let mut room = [PollFd::new(socket, PollFlags::POLLOUT)];
            poll(&mut room, PollTimeout::try_from(PATIENCE).unwrap_or(PollTimeout::ZERO))?;
            send()
        }
        // Which ICMP has told of: this one was not sent.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => send(),
        sent => sent,
    }
}

/// What of an IP packet a socket is asked to send.
struct Head {
    from: IpAddr,
    to: IpAddr,
    /// ECN's two bits.
    congestion: u8,
    protocol: u8,
    /// Bytes of it.
    len: usize,
}

impl Head {
    fn read(packet: &[u8]) -> Option<Self> {
        Some(match packet.first()? >> 4 {
            4 => {
                let head: &[u8; 20] = packet.first_chunk()?;
                let address = |at: usize| head[at..].first_chunk::<4>().map(|octets| IpAddr::from(*octets));
                let (from, to) = (address(12)?, address(16)?);
                Self { from, to, congestion: head[1] & 3, protocol: head[9], len: usize::from(head[0] & 15) * 4 }
            }
            _ => {
                let head: &[u8; 40] = packet.first_chunk()?;
                let address = |at: usize| head[at..].first_chunk::<16>().map(|octets| IpAddr::from(*octets));
                let (from, to) = (address(8)?, address(24)?);
                Self { from, to, congestion: head[1] >> 4 & 3, protocol: head[6], len: 40 }
            }
        })
    }

    /// The datagram that it carries.
    fn datagram<'p>(&self, packet: &'p [u8]) -> Option<Datagram<'p>> {
        let (udp, payload) = packet.get(self.len..)?.split_first_chunk::<8>()?;
        let [source_port, port] = [[udp[0], udp[1]], [udp[2], udp[3]]].map(u16::from_be_bytes);
        (self.protocol == UDP).then_some(Datagram { source_port, to: (self.to, port).into(), payload })
    }
}

/// A datagram that is to be sent.
struct Datagram<'p> {
    source_port: u16,
    to: SocketAddr,
    payload: &'p [u8],
}

impl Came {
    /// Its datagrams, in order, in the room that it was read into.
    pub(super) fn datagrams<'r>(&self, room: &'r [u8]) -> impl Iterator<Item = &'r [u8]> {
        let bytes = room.get(self.at..self.at + self.meta.len).unwrap_or_default();
        let empty = bytes.is_empty().then_some(bytes); // which is one as well, to be refused and counted
        bytes.chunks(self.meta.stride.max(1)).chain(empty)
    }

    /// Writes one of its datagrams as the IP packet that it came in; `false` if that is too long for the buffer.
    pub(super) fn write(&self, payload: &[u8], buffer: &mut Buffer) -> bool {
        let congestion = self.meta.ecn.map_or(0, |ecn| ecn as u8);
        let ends = (self.meta.addr.ip().to_canonical(), self.local.ip());
        let [from_port, to_port] = [self.meta.addr.port(), self.local.port()].map(u16::to_be_bytes);
        let room = buffer.room();
        let header_len = match ends {
            (IpAddr::V4(_), IpAddr::V4(_)) => 20,
            _ => 40,
        };
        let len = header_len + 8 + payload.len();
        let (Ok(all), Ok(udp_len)) = (u16::try_from(len), u16::try_from(8 + payload.len())) else { return false };
        let Some((header, udp)) = room.get_mut(..len).map(|room| room.split_at_mut(header_len)) else { return false };
        match ends {
            (IpAddr::V4(from), IpAddr::V4(to)) => write_v4(header, all, congestion, [from.octets(), to.octets()]),
            (from, to) => write_v6(header, udp_len, congestion, [wide(from), wide(to)]),
        }
        let (head, body) = udp.split_at_mut(8);
        head[..2].copy_from_slice(&from_port);
        head[2..4].copy_from_slice(&to_port);
        head[4..6].copy_from_slice(&udp_len.to_be_bytes());
        head[6..].fill(0); // the kernel has verified it
        body.copy_from_slice(payload);
        buffer.filled(len).is_ok()
    }
}

fn write_v4(header: &mut [u8], len: u16, congestion: u8, [from, to]: [[u8; 4]; 2]) {
    header.copy_from_slice(&[0x45, congestion, 0, 0, 0, 0, 0x40, 0, 64, UDP, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    header[2..4].copy_from_slice(&len.to_be_bytes());
    header[12..16].copy_from_slice(&from);
    header[16..].copy_from_slice(&to);
    let sum: u32 = header.as_chunks::<2>().0.iter().map(|word| u32::from(u16::from_be_bytes(*word))).sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    header[10..12].copy_from_slice(&sum.to_be_bytes());
}

fn write_v6(header: &mut [u8], len: u16, congestion: u8, [from, to]: [[u8; 16]; 2]) {
    header[..8].copy_from_slice(&[0x60, congestion << 4, 0, 0, 0, 0, UDP, 64]);
    header[4..6].copy_from_slice(&len.to_be_bytes());
    header[8..24].copy_from_slice(&from);
    header[24..].copy_from_slice(&to);
}

fn wide(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(it) => it.to_ipv6_mapped().octets(),
        IpAddr::V6(it) => it.octets(),
    }
}

const UDP: u8 = 17;
const ESP: u8 = 50;
