//! Where the headers of a frame are.

use overlay_core::IpFamily;
use overlay_vxlan::{Frame, Ip, Transport};

use crate::checksum;

/// The headers of a frame that carries TCP or UDP over IP, whole and of exact lengths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) family: IpFamily,
    pub(super) protocol: Protocol,
    /// Where the IP header begins.
    pub(super) ip: usize,
    /// Where the transport header begins.
    pub(super) transport: usize,
    /// Where the payload begins.
    pub(super) payload: usize,
    /// Where the packet ends; what is behind it is padding.
    pub(super) end: usize,
    /// Whether there is nothing between IP's header and the transport's, nor in front of IP's but Ethernet's.
    pub(super) plain: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Tcp,
    Udp,
}

impl Protocol {
    pub(super) const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }

    /// From the transport header's begin to its checksum.
    pub(super) const fn checksum_at(self) -> usize {
        match self {
            Self::Tcp => 16,
            Self::Udp => 6,
        }
    }
}

impl Shape {
    /// That of a frame; none if it carries something else.
    pub(super) fn of(bytes: &[u8]) -> Option<Self> {
        let frame = Frame::parse(bytes).ok()?;
        let ip = frame.ethernet.header_len();
        let (family, end, header_len) = match frame.ip? {
            Ip::V4(v4) => (IpFamily::V4, ip + v4.total_len(), v4.header_len()),
            Ip::V6(v6) => (IpFamily::V6, ip + IPV6 + v6.payload_len(), IPV6),
        };
        let payload = frame.payload.as_ptr().addr() - bytes.as_ptr().addr();
        let (protocol, transport) = match frame.transport? {
            Transport::Tcp(tcp) => (Protocol::Tcp, payload.checked_sub(tcp.header_len())?),
            Transport::Udp(udp) => {
                let transport = payload.checked_sub(UDP)?;
                (udp.datagram_len() == end - transport).then_some((Protocol::Udp, transport))?
            }
            _ => return None,
        };
        let options = family == IpFamily::V4 && header_len != IPV4;
        let plain = frame.ethernet.vlan().is_none() && !options && transport == ip + header_len;
        Some(Self { family, protocol, ip, transport, payload, end, plain })
    }

    /// The sender's and the receiver's address.
    pub(super) fn addresses<'b>(&self, bytes: &'b [u8]) -> &'b [u8] {
        let range = match self.family {
            IpFamily::V4 => self.ip + 12..self.ip + 20,
            IpFamily::V6 => self.ip + 8..self.ip + 40,
        };
        bytes.get(range).unwrap_or_default()
    }

    /// The sum of the pseudo-header for a datagram of so many bytes (RFC 9293 §3.1, RFC 8200 §8.1).
    pub(super) fn pseudo_header(&self, bytes: &[u8], len: usize) -> u64 {
        checksum::sum(self.addresses(bytes)) + u64::from(self.protocol.number()) + len as u64
    }

    /// Writes how long the IP packet is, whose headers `bytes` begin with, and mends IPv4's checksum.
    pub(super) fn set_len(&self, bytes: &mut [u8], len: usize) -> Option<()> {
        let ip = bytes.get_mut(self.ip..self.transport)?;
        match self.family {
            IpFamily::V4 => {
                ip.get_mut(2..4)?.copy_from_slice(&u16::try_from(len - self.ip).ok()?.to_be_bytes());
                ip.get_mut(10..12)?.fill(0);
                let sum = checksum::finish(checksum::sum(ip)).to_be_bytes();
                ip.get_mut(10..12)?.copy_from_slice(&sum);
            }
            IpFamily::V6 => {
                let len = u16::try_from(len - self.ip - IPV6).ok()?;
                ip.get_mut(4..6)?.copy_from_slice(&len.to_be_bytes());
            }
        }
        Some(())
    }
}

const IPV4: usize = 20;
const IPV6: usize = 40;
const UDP: usize = 8;
