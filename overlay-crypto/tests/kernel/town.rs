//! Hosts on one cable: `a` and `b`, and `c`, whose kernel protects and guards nothing.

use std::io::{self, Read as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use overlay_core::{IpFamily, Port};
use overlay_crypto::kernel::Xfrm;
use overlay_crypto::{
    Cipher, Direction, Epoch, Epochs, Numbers, Sa, SaId, SaKey, Sealer, Spi, State, Tunnel, WindowSize,
};
use overlay_kernel::Namespace;
use overlay_kernel::testing::judge;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::laws::owner;

pub(crate) const UDP: u8 = 17;
pub(crate) const ESP: u8 = 50;
const MARK: u16 = 7; // a port that nobody guards
const RAW: i32 = 255;

/// Hosts, and the namespace that their cable is in.
pub(crate) struct Town {
    pub(crate) a: Host,
    pub(crate) b: Host,
    pub(crate) c: Host,
    _cable: Namespace,
}

pub(crate) struct Host {
    pub(crate) home: Namespace,
    last: u8,
    /// Hear what arrives by the cable, in IPv4 and in IPv6.
    taps: [Socket; 2],
}

/// An IP packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Packet {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) protocol: u8,
    pub(crate) payload: Vec<u8>,
}

impl Town {
    pub(crate) fn new() -> Self {
        let cable = Namespace::create().unwrap();
        let make = "ip link add br0 type bridge mcast_snooping 0; ip link set br0 up";
        judge(&cable, "sh", &["-ec", &format!("sysctl -qw net.ipv6.conf.all.disable_ipv6=1; {make}")]);
        let [a, b, c] = [1, 2, 3].map(|last| Host::plugged(&cable, last));
        let town = Self { a, b, c, _cable: cable };
        for (from, to) in [(&town.a, &town.b), (&town.b, &town.a), (&town.a, &town.c), (&town.c, &town.a)] {
            for family in [IpFamily::V4, IpFamily::V6] {
                from.say_mark(to, family); // so that nobody has to ask for addresses later
                to.heard_until_mark(family);
            }
        }
        town
    }
}

pub(crate) fn address(last: u8, family: IpFamily) -> IpAddr {
    match family {
        IpFamily::V4 => Ipv4Addr::new(192, 0, 2, last).into(),
        IpFamily::V6 => Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last.into()).into(),
    }
}

impl Host {
    fn plugged(cable: &Namespace, last: u8) -> Self {
        let home = Namespace::create().unwrap();
        let fd = std::os::fd::AsRawFd::as_raw_fd(&std::os::fd::AsFd::as_fd(&home));
        let far = format!("/proc/{}/fd/{fd}", std::process::id());
        let plug = format!(
            "ip link add p{last} type veth peer name u0 netns {far}; ip link set p{last} master br0; ip link set p{last} up"
        );
        judge(cable, "sh", &["-ec", &plug]);
        let up = format!(
            "ip link set lo up; ip link set u0 up; ip addr add {}/24 dev u0; ip addr add {}/64 dev u0 nodad",
            address(last, IpFamily::V4),
            address(last, IpFamily::V6)
        );
        judge(&home, "sh", &["-ec", &up]);
        let taps = [0x0800_u16, 0x86dd].map(|kind| {
            let kind = Protocol::from(i32::from(kind.to_be()));
            let tap = home.run(|| Socket::new(Domain::PACKET, Type::DGRAM, Some(kind))).unwrap().unwrap();
            tap.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            tap
        });
        Self { home, last, taps }
    }

    pub(crate) fn address(&self, family: IpFamily) -> IpAddr {
        address(self.last, family)
    }

    pub(crate) fn xfrm(&self) -> Xfrm {
        Xfrm::open(&owner(), self.home.try_clone().unwrap()).unwrap()
    }

    pub(crate) fn socket(&self, family: IpFamily, port: u16) -> UdpSocket {
        self.home.run(|| UdpSocket::bind((self.address(family), port))).unwrap().unwrap()
    }

    /// What `to` hears of a datagram that this host sends.
    pub(crate) fn tells(&self, to: &Self, family: IpFamily, ports: (u16, u16), said: &[u8]) -> Vec<Packet> {
        let sent = self.socket(family, ports.0).send_to(said, SocketAddr::new(to.address(family), ports.1));
        self.say_mark(to, family);
        let heard = to.heard_until_mark(family);
        assert!(sent.is_ok() || heard.is_empty(), "{sent:?}, but {heard:?}");
        heard
    }

    /// What came at a port of this host when that was put on the cable as it is, by `by`.
    pub(crate) fn hears(&self, port: u16, by: &Self, packet: &Packet) -> Option<Vec<u8>> {
        let family = IpFamily::of(packet.destination);
        let [socket, mark] = [port, MARK].map(|port| self.socket(family, port));
        by.inject(packet);
        by.say_mark(self, family);
        mark.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut buffer = [0; 2048];
        mark.recv(&mut buffer).unwrap();
        // What is decrypted may come a moment after what need not be.
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        socket.recv(&mut buffer).ok().map(|size| buffer[..size].to_vec())
    }

    /// Puts a packet on the cable, whoever it says it is from.
    pub(crate) fn inject(&self, packet: &Packet) {
        let Packet { source, destination, protocol, payload } = packet;
        let domain = Domain::for_address(SocketAddr::new(*destination, 0));
        let raw = || Socket::new(domain, Type::RAW, Some(Protocol::from(RAW)));
        let raw = self.home.run(raw).unwrap().unwrap();
        let length = payload.len() as u16;
        let bytes = match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let [high, low] = (length + 20).to_be_bytes();
                let head = [0x45, 0, high, low, 0, 0, 0, 0, 64, *protocol, 0, 0];
                [&head[..], &source.octets(), &destination.octets(), payload].concat()
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let [high, low] = length.to_be_bytes();
                let head = [0x60, 0, 0, 0, high, low, *protocol, 64];
                [&head[..], &source.octets(), &destination.octets(), payload].concat()
            }
            _ => panic!("{packet:?}"),
        };
        let to = SockAddr::from(SocketAddr::new(*destination, 0));
        assert_eq!(raw.send_to(&bytes, &to).unwrap(), bytes.len());
    }

    /// How often XFRM of this host did that.
    pub(crate) fn counted(&self, what: &str) -> u64 {
        let counts = judge(&self.home, "cat", &["/proc/net/xfrm_stat"]);
        let line = counts.lines().find(|line| line.split_whitespace().next() == Some(what));
        line.and_then(|line| line.split_whitespace().nth(1)).unwrap().parse().unwrap()
    }

    pub(crate) fn say_mark(&self, to: &Self, family: IpFamily) {
        let said = self.socket(family, 0).send_to(b"mark", SocketAddr::new(to.address(family), MARK));
        said.unwrap();
    }

    /// UDP and ESP of this town that came by the cable before a mark.
    pub(crate) fn heard_until_mark(&self, family: IpFamily) -> Vec<Packet> {
        let mut heard = Vec::new();
        loop {
            let packet = self.next(family).unwrap();
            if packet.protocol == UDP && packet.payload[2..4] == MARK.to_be_bytes() {
                return heard;
            }
            if [UDP, ESP].contains(&packet.protocol) && packet.destination == self.address(family) {
                heard.push(packet);
            }
        }
    }

    fn next(&self, family: IpFamily) -> io::Result<Packet> {
        let mut bytes = [0; 2048];
        let tap = &self.taps[usize::from(family == IpFamily::V6)];
        let size = (&*tap).read(&mut bytes)?;
        let bytes = &bytes[..size];
        let v4 = |at: usize| IpAddr::from(*bytes[at..].first_chunk::<4>().unwrap());
        let v6 = |at: usize| IpAddr::from(*bytes[at..].first_chunk::<16>().unwrap());
        let half = |at: usize| usize::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]));
        Ok(match family {
            IpFamily::V4 => {
                let payload = bytes[20..half(2)].to_vec();
                Packet { source: v4(12), destination: v4(16), protocol: bytes[9], payload }
            }
            IpFamily::V6 => {
                let payload = bytes[40..40 + half(4)].to_vec();
                Packet { source: v6(8), destination: v6(24), protocol: bytes[6], payload }
            }
        })
    }
}

/// A UDP datagram from one address to another, with its checksum (RFC 768).
pub(crate) fn datagram(source: IpAddr, destination: IpAddr, ports: (u16, u16), said: &[u8]) -> Packet {
    let length = said.len() as u16 + 8;
    let mut payload = [ports.0, ports.1, length, 0].map(u16::to_be_bytes).concat();
    payload.extend(said);
    let octets = |address| match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let summed = [&octets(source)[..], &octets(destination), &[0, UDP], &length.to_be_bytes(), &payload].concat();
    let sum: u32 = summed.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    payload[6..8].copy_from_slice(&(!folded as u16).to_be_bytes());
    Packet { source, destination, protocol: UDP, payload }
}

/// That datagram in ESP.
pub(crate) fn sealed(sealer: &mut Sealer, datagram: &Packet) -> Packet {
    let size = datagram.payload.len();
    let mut buffer = vec![0; Sealer::HEADROOM + size + Sealer::TAILROOM];
    buffer[Sealer::HEADROOM..][..size].copy_from_slice(&datagram.payload);
    let packet = sealer.seal(&mut buffer, Sealer::HEADROOM..Sealer::HEADROOM + size, UDP).unwrap();
    Packet { protocol: ESP, payload: buffer[packet].to_vec(), ..datagram.clone() }
}

pub(crate) fn port(number: u16) -> Port {
    Port::new(number).unwrap()
}

pub(crate) fn spi(number: u32) -> Spi {
    Spi::new(number).unwrap()
}

/// How associations of a test are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Look {
    pub(crate) cipher: Cipher,
    pub(crate) numbers: Numbers,
}

pub(crate) const LOOK: Look = Look { cipher: Cipher::Aes256Gcm, numbers: Numbers::Extended };

impl Look {
    /// A key that follows from the SPI, so that both ends make the same.
    pub(crate) fn key(self, spi: Spi) -> SaKey {
        let mut material = vec![0x5a; self.cipher.material_len()];
        material[..4].copy_from_slice(&spi.get().to_be_bytes());
        SaKey::new(self.cipher, &material).unwrap()
    }

    /// A tunnel's state at its local end: it takes by the first SPI, and sends by the others.
    pub(crate) fn tunnel(self, tunnel: Tunnel, takes: u32, sends: &[u32]) -> State {
        let mut state = State { ports: [tunnel.port].into(), ..State::default() };
        state.tunnels.insert(tunnel, sends.iter().map(|number| spi(*number)).collect());
        let Tunnel { port, local, peer } = tunnel;
        let ins = std::iter::once((Direction::In, takes, peer, local));
        let outs = sends.iter().map(|number| (Direction::Out, *number, local, peer));
        for (direction, number, source, destination) in ins.chain(outs) {
            let epochs = Epochs { sender: Epoch::FIRST, receiver: Epoch::FIRST };
            let (spi, window) = (spi(number), WindowSize::MIN);
            let key = self.key(spi);
            let sa =
                Sa { direction, source, port, numbers: self.numbers, window, limits: None, udp: None, epochs, key };
            state.add(SaId { destination, spi }, sa).unwrap();
        }
        state
    }
}

/// Two states in one.
pub(crate) fn both(mut one: State, other: State) -> State {
    one.ports.extend(other.ports);
    one.sas.extend(other.sas);
    one.tunnels.extend(other.tunnels);
    one
}
