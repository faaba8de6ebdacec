//! SCTP through the routing mesh, packet by packet: the kernels here track its flows, and have no sockets of it.

use std::cell::Cell;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, UdpSocket};

use overlay_core::Protocol;
use overlay_core::testing::{Kernel, kernel_test};
use overlay_driver::testing::Lab;
use overlay_kernel::Namespace;
use overlay_node::PublishMode;
use socket2::{Domain, Socket, Type};

use crate::mesh::{SOON, addresses, service, world};
use crate::replica::{PATIENCE, Replica, TARGET, publishes};

/// A packet with one chunk (RFC 9260 §3).
#[derive(Debug, Clone, PartialEq, Eq)]
struct Packet {
    ports: (u16, u16),
    tag: u32,
    chunk: u8,
    value: Vec<u8>,
}

const INIT: u8 = 1;
const INIT_ACK: u8 = 2;
const COOKIE_ECHO: u8 = 10;
const COOKIE_ACK: u8 = 11;
const COOKIE: [u8; 4] = *b"cook";

impl Packet {
    /// INIT and INIT ACK (§3.3.2, §3.3.3): a tag, a window, streams, the first number; and a cookie in the second.
    fn init(ports: (u16, u16), (tag, own): (u32, u32), chunk: u8) -> Self {
        let mut value = own.to_be_bytes().to_vec();
        value.extend([0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1]);
        if chunk == INIT_ACK {
            value.extend([0, 7, 0, 8]);
            value.extend(COOKIE);
        }
        Self { ports, tag, chunk, value }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = [self.ports.0.to_be_bytes(), self.ports.1.to_be_bytes()].concat();
        bytes.extend(self.tag.to_be_bytes());
        bytes.extend([0; 4]);
        bytes.extend([self.chunk, 0]);
        bytes.extend((4 + self.value.len() as u16).to_be_bytes());
        bytes.extend(&self.value);
        let sum = crc32c(&bytes);
        bytes[8..12].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// One whose checksum is wrong is none (§6.8).
    fn parse(bytes: &[u8]) -> Option<Self> {
        let mut unsummed = bytes.to_vec();
        unsummed.get_mut(8..12)?.fill(0);
        (crc32c(&unsummed).to_le_bytes() == bytes[8..12]).then_some(())?;
        let number = |at| Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?));
        let tag = u32::from_be_bytes(*bytes.get(4..)?.first_chunk()?);
        let value = bytes.get(16..12 + usize::from(number(14)?))?.to_vec();
        Some(Self { ports: (number(0)?, number(2)?), tag, chunk: *bytes.get(12)?, value })
    }

    /// The tag that answers to an INIT or INIT ACK carry.
    fn own_tag(&self) -> u32 {
        u32::from_be_bytes(*self.value.first_chunk().unwrap())
    }
}

/// CRC32c, bit by bit (RFC 9260, appendix A).
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes
        .iter()
        .fold(!0, |sum, byte| (0..8).fold(sum ^ u32::from(*byte), |sum: u32, _| (sum >> 1) ^ (0x82f6_3b78 * (sum & 1))))
}

/// All of a namespace's SCTP of one family.
struct Raw(UdpSocket);

impl Raw {
    fn new(namespace: &Namespace, ipv6: bool) -> Self {
        let domain = if ipv6 { Domain::IPV6 } else { Domain::IPV4 };
        let socket = namespace.run(|| Socket::new(domain, Type::RAW, Some(socket2::Protocol::from(132))));
        let socket = UdpSocket::from(socket.unwrap().unwrap()); // its calls are those of any socket of datagrams
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(socket)
    }

    fn send(&self, to: IpAddr, packet: &Packet) -> io::Result<()> {
        self.0.send_to(&packet.bytes(), SocketAddr::new(to, 0)).map(drop)
    }

    /// The next, and who sent it.
    fn receive(&self) -> io::Result<(IpAddr, Packet)> {
        let mut buffer = [0; 256];
        let (length, from) = self.0.recv_from(&mut buffer)?;
        let header = if from.is_ipv4() { usize::from(buffer[0] & 15) * 4 } else { 0 };
        let packet = Packet::parse(&buffer[header..length]).ok_or(ErrorKind::InvalidData)?;
        Ok((from.ip(), packet))
    }
}

const PUBLISHED: u16 = 3868;

#[test]
fn an_sctp_association_begins_through_a_node_without_a_replica_and_who_serves_sees_who_asks() {
    kernel_test(Kernel::Host, "driver::an_sctp_association_begins_through_a_node", || {
        let world = world();
        let web = service(&world, "web", publishes(PublishMode::Ingress, &[(Protocol::Sctp, PUBLISHED)]));
        let replica = Replica::new(&world, 0, "web-0", &web, &["front", "ingress"]);
        let outside = world.hosts().lab.outside();
        for (family, (node, client)) in addresses(2).into_iter().zip(Lab::outside_addresses()).enumerate() {
            let (near, far) = (Raw::new(outside, family == 1), Raw::new(&replica.container.namespace, family == 1));
            // Until the port is published, and from a port of its own each time.
            let (port, came) = (Cell::new(5_000), Cell::new(None));
            world.until(SOON, |_| {
                port.set(port.get() + 1);
                let _ = near.send(node, &Packet::init((port.get(), PUBLISHED), (0, 7), INIT));
                let heard = far.receive().ok();
                let is_heard = heard.is_some();
                came.set(heard);
                is_heard
            });
            let (port, (from, init)) = (port.get(), came.take().unwrap());
            assert_eq!((from, init), (client, Packet::init((port, TARGET), (0, 7), INIT)));
            far.send(client, &Packet::init((TARGET, port), (7, 9), INIT_ACK)).unwrap();
            let (from, accepted) = near.receive().unwrap();
            assert_eq!((from, &accepted), (node, &Packet::init((PUBLISHED, port), (7, 9), INIT_ACK)));
            // The handshake goes on, by the same way.
            let echo = |ports| Packet { ports, tag: 9, chunk: COOKIE_ECHO, value: COOKIE.into() };
            assert_eq!(accepted.own_tag(), 9);
            near.send(node, &echo((port, PUBLISHED))).unwrap();
            assert_eq!(far.receive().unwrap(), (client, echo((port, TARGET))));
            let done = |ports| Packet { ports, tag: 7, chunk: COOKIE_ACK, value: Vec::new() };
            far.send(client, &done((TARGET, port))).unwrap();
            assert_eq!(near.receive().unwrap(), (node, done((PUBLISHED, port))));
        }
        // With the last replica, who asks is refused at once.
        for endpoint in &replica.endpoints {
            world.wait(world.driver(0).detach(*endpoint)).unwrap();
        }
        for (family, node) in addresses(2).into_iter().enumerate() {
            let near = Raw::new(outside, family == 1);
            near.0.connect(SocketAddr::new(node, 0)).unwrap(); // so it is told of errors
            world.until(SOON, |_| {
                let init = Packet::init((6_000, PUBLISHED), (0, 7), INIT).bytes();
                let answer = near.0.send(&init).and_then(|_| near.0.recv(&mut [0; 64]));
                answer.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
            });
        }
    });
}

#[test]
fn checksums_are_those_of_the_rfc() {
    assert_eq!(crc32c(b"123456789"), 0xe306_9283); // the check value of CRC-32C
    let packet = Packet::init((1, 2), (3, 4), INIT_ACK);
    assert_eq!(Packet::parse(&packet.bytes()), Some(packet));
}
