//! What lies between the two nodes, and how the one in user space holds its end.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

use etherparse::{IpHeaders, IpNumber, PacketBuilder};
use overlay_core::{IpFamily, Port};
use overlay_kernel::testing::judge;
use overlay_kernel::{Namespace, QueueFlags, TapQueue};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::world::node;

/// Bytes of an IP packet that the cable takes.
pub(crate) const MTU: usize = 1_500;
const STATIONS: [[u8; 6]; 2] = [[2, 0, 0, 0, 1, 1], [2, 0, 0, 0, 1, 2]];

/// Which kind of cable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cable {
    /// A tap of the other node's: what passes is as on a wire, all checksums and lengths are made.
    Wire,
    /// A pair of interfaces, whose other end is a namespace with a UDP socket at the tunnels' port.
    Sockets,
}

/// Our end.
pub(crate) enum Plug {
    Wire(File),
    Sockets { heard: UdpSocket, raw: Socket, _home: Namespace },
}

impl Plug {
    pub(crate) fn new(cable: Cable, there: &Namespace, (underlay, port): (IpFamily, Port)) -> Self {
        match cable {
            Cable::Wire => Self::wire(there),
            Cable::Sockets => Self::sockets(there, underlay, port),
        }
    }

    fn wire(there: &Namespace) -> Self {
        let [station, other] = STATIONS.map(overlay_core::Mac::new);
        let mut commands = format!(
            "ip tuntap add u0 mode tap; ip link set u0 address {station} mtu {MTU}; ip link set lo up; ip link set u0 up;"
        );
        for family in [IpFamily::V4, IpFamily::V6] {
            commands += &format!("{};", assign(1, family, "u0"));
            commands += &format!("ip neigh add {} lladdr {other} dev u0;", node(2, family));
        }
        sh(there, &commands);
        Self::Wire(OwnedFd::from(TapQueue::open(there, "u0".parse().unwrap(), QueueFlags::default()).unwrap()).into())
    }

    fn sockets(there: &Namespace, underlay: IpFamily, port: Port) -> Self {
        let home = Namespace::create().unwrap();
        let fd = home.as_fd().as_raw_fd();
        let far = format!("/proc/{}/fd/{fd}", std::process::id());
        let lay = format!("ip link add u0 type veth peer name u1 netns {far}; ip link set lo up; ip link set u0 up;");
        sh(there, &format!("{lay} {}", assign(1, underlay, "u0")));
        sh(&home, &format!("ip link set lo up; ip link set u1 up; {}", assign(2, underlay, "u1")));
        let bind = || UdpSocket::bind((node(2, underlay), port.get()));
        let heard = home.run(bind).unwrap().unwrap();
        let domain = if underlay == IpFamily::V4 { Domain::IPV4 } else { Domain::IPV6 };
        let raw = home.run(|| Socket::new(domain, Type::RAW, Some(Protocol::from(255)))).unwrap().unwrap();
        Self::Sockets { heard, raw, _home: home }
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Wire(tap) => tap.as_fd(),
            Self::Sockets { heard, .. } => heard.as_fd(),
        }
    }

    /// The IP packet that has come, if it is one: what nodes say of themselves to all is none.
    pub(crate) fn take(&mut self) -> Option<Vec<u8>> {
        let mut room = vec![0; 65_536];
        match self {
            Self::Wire(tap) => {
                let length = tap.read(&mut room).unwrap();
                let [head, packet] = [&room[..14], &room[14..length]];
                assert!(packet.len() <= MTU, "{} bytes", packet.len());
                let own = head[..6] == STATIONS[1] && matches!(head[12..], [8, 0] | [0x86, 0xdd]);
                own.then(|| packet.to_vec())
            }
            Self::Sockets { heard, .. } => {
                let (length, from) = heard.recv_from(&mut room).unwrap();
                let (own, said) = (heard.local_addr().unwrap(), &room[..length]);
                let mut packet = Vec::new();
                let step = match (from.ip(), own.ip()) {
                    (IpAddr::V4(from), IpAddr::V4(own)) => PacketBuilder::ipv4(from.octets(), own.octets(), 64),
                    (IpAddr::V6(from), IpAddr::V6(own)) => PacketBuilder::ipv6(from.octets(), own.octets(), 64),
                    other => panic!("{other:?}"),
                };
                step.udp(from.port(), own.port()).write(&mut packet, said).unwrap();
                Some(packet)
            }
        }
    }

    /// Sends a whole IP packet, which a stranger takes for one.
    pub(crate) fn send(&mut self, packet: &[u8], sealed: bool) {
        assert!(packet.len() <= MTU, "{} bytes", packet.len());
        let (read, _) = IpHeaders::from_slice(packet).unwrap();
        let protocol = if sealed { IpNumber::ENCAPSULATING_SECURITY_PAYLOAD } else { IpNumber::UDP };
        let (to, kind) = match &read {
            IpHeaders::Ipv4(ip, _) => {
                assert_eq!((ip.protocol, ip.header_checksum), (protocol, ip.calc_header_checksum()));
                (IpAddr::from(ip.destination), [8, 0])
            }
            IpHeaders::Ipv6(ip, _) => {
                assert_eq!(ip.next_header, protocol);
                (IpAddr::from(ip.destination), [0x86, 0xdd])
            }
        };
        match self {
            Self::Wire(tap) => {
                let frame = [&STATIONS[0][..], &STATIONS[1], &kind, packet].concat();
                assert_eq!(tap.write(&frame).unwrap(), frame.len());
            }
            Self::Sockets { raw, .. } => {
                let sent = raw.send_to(packet, &SockAddr::from(SocketAddr::new(to, 0)));
                assert_eq!(sent.unwrap(), packet.len());
            }
        }
    }
}

fn assign(number: u8, family: IpFamily, device: &str) -> String {
    let tail = if family == IpFamily::V4 { ("24", "") } else { ("64", "nodad") };
    format!("ip addr add {}/{} dev {device} {}", node(number, family), tail.0, tail.1)
}

pub(crate) fn sh(namespace: &Namespace, commands: &str) {
    judge(namespace, "sh", &["-ec", commands]);
}
