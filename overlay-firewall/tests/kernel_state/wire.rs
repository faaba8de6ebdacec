//! Packets as bytes on a wire.

use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, bind, socket};
use overlay_core::{IfName, Mac};
use overlay_firewall::{Content, Ends, Flow, Icmpv6, Ip, Transport};
use overlay_kernel::Namespace;

/// A device that frames are sent by.
pub(crate) struct Wire {
    socket: OwnedFd,
}

impl Wire {
    pub(crate) fn open(namespace: &Namespace, device: &str) -> Self {
        let socket = namespace.run(|| {
            let found = getifaddrs().unwrap().find(|it| it.interface_name == device && link(it).is_some());
            let address = found.as_ref().and_then(link).unwrap();
            let flags = SockFlag::SOCK_CLOEXEC;
            let socket = socket(AddressFamily::Packet, SockType::Raw, flags, SockProtocol::EthAll).unwrap();
            bind(socket.as_raw_fd(), &address).unwrap();
            socket
        });
        Self { socket: socket.unwrap() }
    }

    pub(crate) fn send(&self, frame: &[u8]) {
        assert_eq!(nix::unistd::write(&self.socket, frame).unwrap(), frame.len());
    }
}

fn link(of: &nix::ifaddrs::InterfaceAddress) -> Option<LinkAddr> {
    of.address.as_ref().and_then(|address| address.as_link_addr()).copied()
}

/// The Ethernet address of a device.
pub(crate) fn mac_of(namespace: &Namespace, device: &IfName) -> Mac {
    let path = format!("/sys/class/net/{device}/address");
    let text = overlay_kernel::testing::judge(
        namespace,
        "sh",
        &["-c", &format!("ip -br link show dev {device} | awk '{{ print $3 }}' || cat {path}")],
    );
    text.trim().parse().unwrap()
}

/// A frame whose content can be told from all others by `id`: in IPv4 its identification, in IPv6 its flow label, in ARP the
/// Ethernet address that is asked for, in others their first two bytes.
pub(crate) fn frame((to, from): (Mac, Mac), content: &Content, flow: Flow, id: u16) -> Vec<u8> {
    let mut bytes = [to.octets(), from.octets()].concat();
    match content {
        Content::Ip(ip) => {
            bytes.extend(if matches!(ip.ends, Ends::V4 { .. }) { [0x08, 0x00] } else { [0x86, 0xdd] });
            bytes.extend(packet(ip, flow, id));
        }
        Content::Arp { sender, address, target } => {
            bytes.extend([0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1]);
            bytes.extend(sender.octets());
            bytes.extend(address.octets());
            bytes.extend([0; 4]);
            bytes.extend(id.to_be_bytes());
            bytes.extend(target.octets());
        }
        Content::Other => {
            bytes.extend([0x88, 0xb5]);
            bytes.extend(id.to_be_bytes());
        }
    }
    bytes.resize(bytes.len().max(60), 0);
    bytes
}

/// An IP packet.
pub(crate) fn packet(ip: &Ip, flow: Flow, id: u16) -> Vec<u8> {
    match ip.ends {
        Ends::V4 { source, destination } => {
            let (protocol, body) = body(&ip.transport, flow, id, (source.into(), destination.into()));
            let mut bytes = vec![0x45, 0];
            bytes.extend((20 + body.len() as u16).to_be_bytes());
            bytes.extend(id.to_be_bytes());
            bytes.extend([0, 0, 64, protocol, 0, 0]);
            bytes.extend(source.octets());
            bytes.extend(destination.octets());
            let sum = checksum(0, &bytes);
            bytes[10..12].copy_from_slice(&sum.to_be_bytes());
            bytes.extend(body);
            bytes
        }
        Ends::V6 { source, destination } => {
            let (protocol, body) = body(&ip.transport, flow, id, (source.into(), destination.into()));
            let mut bytes = vec![0x60, 0];
            bytes.extend(id.to_be_bytes());
            bytes.extend((body.len() as u16).to_be_bytes());
            bytes.extend([protocol, 255]);
            bytes.extend(source.octets());
            bytes.extend(destination.octets());
            bytes.extend(body);
            bytes
        }
    }
}

/// The protocol's number, and what is behind the IP header.
fn body(transport: &Transport, flow: Flow, id: u16, ends: (IpAddr, IpAddr)) -> (u8, Vec<u8>) {
    let ports = |source: u16, destination: u16| [source.to_be_bytes(), destination.to_be_bytes()].concat();
    match *transport {
        Transport::Tcp { source, destination, begins } => {
            let flags = match (flow, begins) {
                (Flow::Invalid, _) => 4, // a reset of nothing
                (_, true) => 2,
                (_, false) => 16,
            };
            let mut bytes = ports(source, destination);
            bytes.extend([0, 0, 0, 1, 0, 0, 0, 1, 0x50, flags, 0x10, 0, 0, 0, 0, 0]);
            (6, summed(bytes, 16, 6, ends))
        }
        Transport::Udp { source, destination, vni } => {
            let mut bytes = ports(source, destination);
            bytes.extend([0, 24, 0, 0, 8, 0, 0, 0]);
            bytes.extend((vni << 8).to_be_bytes());
            bytes.extend([0; 8]);
            (17, summed(bytes, 6, 17, ends))
        }
        Transport::Sctp { source, destination } => (132, init(ports(source, destination))),
        Transport::Icmpv6(message) => (58, summed(icmpv6(message, id, ends.0), 2, 58, ends)),
        Transport::Esp => (50, [&[0, 0, 1, 0, 0, 0, 0, 1][..], &[0; 16]].concat()),
        Transport::Other(1) if ends.0.is_ipv4() => {
            let mut bytes = vec![8, 0, 0, 0];
            bytes.extend(id.to_be_bytes());
            bytes.extend([0, 1]);
            let sum = checksum(0, &bytes);
            bytes[2..4].copy_from_slice(&sum.to_be_bytes());
            (1, bytes)
        }
        Transport::IcmpRouter => (1, vec![9, 0, 0xf6, 0xff, 0, 0, 0, 0]),
        Transport::Headless => {
            (44, vec![60, 0, 0, 1, 0, 0, id.to_be_bytes()[0], id.to_be_bytes()[1], 58, 0, 1, 4, 0, 0, 0, 0])
        }
        Transport::Other(protocol) => (protocol, vec![0; 16]),
    }
}

fn icmpv6(message: Icmpv6, id: u16, source: IpAddr) -> Vec<u8> {
    let (kind, target) = match (message, source) {
        (Icmpv6::Router, _) => (134, Ipv6Addr::UNSPECIFIED),
        (Icmpv6::Improper, IpAddr::V6(own)) => (136, own),
        (Icmpv6::Improper, IpAddr::V4(_)) => (136, Ipv6Addr::UNSPECIFIED),
        (Icmpv6::Advertisement(target), _) => (136, target),
        (Icmpv6::Probe(target), _) => (135, target),
        (Icmpv6::Solicitation, _) => return vec![133, 0, 0, 0, 0, 0, 0, 0],
        (Icmpv6::Other, _) => (128, Ipv6Addr::UNSPECIFIED),
    };
    let mut bytes = vec![kind, 0, 0, 0];
    bytes.extend(if message == Icmpv6::Other { id.to_be_bytes() } else { [0; 2] });
    bytes.extend([0, 0]);
    bytes.extend(target.octets());
    if message == Icmpv6::Improper {
        bytes.extend([2, 1, 2, 0, 0, 0, 0, 0xee]); // another station's address (RFC 4861 §4.6.1)
    }
    bytes
}

/// An INIT chunk (RFC 9260 §3.3.2), with the checksum that SCTP has.
fn init(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.extend([0; 8]);
    bytes.extend([1, 0, 0, 20, 0, 0, 0, 9, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1]);
    let sum = crc32c(&bytes);
    bytes[8..12].copy_from_slice(&sum.to_le_bytes());
    bytes
}

fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| if sum & 1 == 1 { sum >> 1 ^ 0x82f6_3b78 } else { sum >> 1 })
    })
}

/// With the checksum over it and a pseudo header (RFC 9293 §3.1, RFC 8200 §8.1) at `at`.
fn summed(mut bytes: Vec<u8>, at: usize, protocol: u8, ends: (IpAddr, IpAddr)) -> Vec<u8> {
    let octets = |address: IpAddr| match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let pseudo = [octets(ends.0), octets(ends.1)].concat();
    let start = pseudo.chunks(2).map(|two| u32::from(two[0]) << 8 | u32::from(two[1])).sum::<u32>();
    let sum = checksum(start + u32::from(protocol) + bytes.len() as u32, &bytes);
    bytes[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    bytes
}

fn checksum(start: u32, bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|two| u32::from(two[0]) << 8 | u32::from(two.get(1).copied().unwrap_or(0)));
    let mut sum = start + words.sum::<u32>();
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// The number that an Ethernet address is asked for with, in [`frame`].
pub(crate) const fn arp_id(asked: Mac) -> u16 {
    let [.., high, low] = asked.octets();
    u16::from_be_bytes([high, low])
}
