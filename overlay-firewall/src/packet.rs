//! Packets, as far as rules look at them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use overlay_core::{IfName, IpFamily, Mac, Protocol};

/// A packet on its way through a place, with what is known of it there.
///
/// ```
/// use overlay_firewall::{Ip, Packet, Transport};
///
/// let asked = Transport::tcp(40_000, 8080);
/// let packet = Packet::arriving("eth0".parse()?, Ip::v4([192, 0, 2, 7].into(), [192, 0, 2, 1].into(), asked));
/// assert!(packet.to.is_none()); // it is for this machine
/// # Ok::<(), overlay_core::IfNameError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet {
    /// The frame it came in, if that was at a port of a bridge.
    pub frame: Option<Frame>,
    /// The interface that IP sees it come in by; `None` if this machine sends it.
    pub from: Option<IfName>,
    /// The interface that the routes lead it to; `None` if it is for this machine.
    pub to: Option<IfName>,
    /// What it carries.
    pub content: Content,
    /// Whether it came in ESP, or will leave in it.
    pub secured: bool,
}

impl Packet {
    /// A packet for this machine.
    pub const fn arriving(from: IfName, ip: Ip) -> Self {
        Self { frame: None, from: Some(from), to: None, content: Content::Ip(ip), secured: false }
    }

    /// A packet that is forwarded.
    pub const fn passing(from: IfName, to: IfName, ip: Ip) -> Self {
        Self { frame: None, from: Some(from), to: Some(to), content: Content::Ip(ip), secured: false }
    }

    /// A packet that this machine sends, to another by an interface or to itself.
    pub const fn leaving(to: Option<IfName>, ip: Ip) -> Self {
        Self { frame: None, from: None, to, content: Content::Ip(ip), secured: false }
    }

    /// A frame that goes from one port of the bridge `bridge` to another.
    pub const fn bridged(bridge: IfName, frame: Frame, content: Content) -> Self {
        Self { frame: Some(frame), from: Some(bridge), to: Some(bridge), content, secured: false }
    }

    /// The same, inside ESP.
    #[must_use]
    pub fn secured(self) -> Self {
        Self { secured: true, ..self }
    }
}

/// A frame at a bridge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// The port it comes in by.
    pub port: IfName,
    /// The port it leaves by, past all rules of IP but a policy's; `None` if it is for the bridge itself, whose IP packets
    /// then come in by its device.
    pub out: Option<IfName>,
    /// The Ethernet address it says it is from.
    pub source: Mac,
}

/// What a frame carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// An IP packet.
    Ip(Ip),
    /// ARP (RFC 826).
    Arp {
        /// The sender's Ethernet address.
        sender: Mac,
        /// The sender's address; 0.0.0.0 in a probe (RFC 5227 §2.1.1).
        address: Ipv4Addr,
        /// The address that it is about: whoever probes for another's keeps it from having it.
        target: Ipv4Addr,
    },
    /// Anything else, ARP of other than IPv4 over Ethernet included.
    Other,
}

/// An IP packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ip {
    /// From where to where.
    pub ends: Ends,
    /// What it carries.
    pub transport: Transport,
}

impl Ip {
    /// An IPv4 packet.
    pub const fn v4(source: Ipv4Addr, destination: Ipv4Addr, transport: Transport) -> Self {
        Self { ends: Ends::V4 { source, destination }, transport }
    }

    /// An IPv6 packet.
    pub const fn v6(source: Ipv6Addr, destination: Ipv6Addr, transport: Transport) -> Self {
        Self { ends: Ends::V6 { source, destination }, transport }
    }

    /// A packet between two addresses; `None` if they are of two families.
    pub const fn between(source: IpAddr, destination: IpAddr, transport: Transport) -> Option<Self> {
        match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => Some(Self::v4(source, destination, transport)),
            (IpAddr::V6(source), IpAddr::V6(destination)) => Some(Self::v6(source, destination, transport)),
            _ => None,
        }
    }

    /// Its family.
    pub const fn family(&self) -> IpFamily {
        match self.ends {
            Ends::V4 { .. } => IpFamily::V4,
            Ends::V6 { .. } => IpFamily::V6,
        }
    }

    /// Where it says it is from.
    pub const fn source(&self) -> IpAddr {
        match self.ends {
            Ends::V4 { source, .. } => IpAddr::V4(source),
            Ends::V6 { source, .. } => IpAddr::V6(source),
        }
    }

    /// Where it goes.
    pub const fn destination(&self) -> IpAddr {
        match self.ends {
            Ends::V4 { destination, .. } => IpAddr::V4(destination),
            Ends::V6 { destination, .. } => IpAddr::V6(destination),
        }
    }
}

/// From where to where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "they say what they are")]
pub enum Ends {
    /// IPv4.
    V4 { source: Ipv4Addr, destination: Ipv4Addr },
    /// IPv6.
    V6 { source: Ipv6Addr, destination: Ipv6Addr },
}

/// What an IP packet carries; ports are as they are on the wire, where 0 may stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// TCP (RFC 9293).
    Tcp {
        /// The sender's port.
        source: u16,
        /// The receiver's port.
        destination: u16,
        /// Whether a connection is asked for: SYN is set, and ACK, RST and FIN are not.
        begins: bool,
    },
    /// UDP (RFC 768).
    Udp {
        /// The sender's port.
        source: u16,
        /// The receiver's port.
        destination: u16,
        /// The 24 bits of its payload where VXLAN has the network (RFC 7348 §5).
        vni: u32,
    },
    /// SCTP (RFC 9260).
    Sctp {
        /// The sender's port.
        source: u16,
        /// The receiver's port.
        destination: u16,
    },
    /// ICMP for IPv6 (RFC 4443); in IPv4 it is something else.
    Icmpv6(Icmpv6),
    /// A router advertisement (RFC 1256 §3) or a redirect (RFC 792) of IPv4's ICMP; in IPv6 it is something else.
    IcmpRouter,
    /// The first fragment of an IPv6 packet, if it ends before the header of what the packet carries: nobody can tell what that
    /// will be (RFC 7112 §5). In IPv4 there is none.
    Headless,
    /// ESP (RFC 4303).
    Esp,
    /// Anything else, and what is cut off before its ports, by protocol number.
    Other(u8),
}

impl Transport {
    /// A TCP packet that asks for a connection.
    pub const fn tcp(source: u16, destination: u16) -> Self {
        Self::Tcp { source, destination, begins: true }
    }

    /// A UDP datagram that is no VXLAN.
    pub const fn udp(source: u16, destination: u16) -> Self {
        Self::Udp { source, destination, vni: 0 }
    }

    /// The sender's port and the receiver's.
    #[inline]
    pub const fn ports(&self) -> Option<(u16, u16)> {
        match *self {
            Self::Tcp { source, destination, .. }
            | Self::Udp { source, destination, .. }
            | Self::Sctp { source, destination } => Some((source, destination)),
            _ => None,
        }
    }

    /// The protocol and the receiver's port.
    pub const fn port(&self) -> Option<(Protocol, u16)> {
        match *self {
            Self::Tcp { destination, .. } => Some((Protocol::Tcp, destination)),
            Self::Udp { destination, .. } => Some((Protocol::Udp, destination)),
            Self::Sctp { destination, .. } => Some((Protocol::Sctp, destination)),
            _ => None,
        }
    }
}

/// An ICMPv6 message, as far as it can do harm (RFC 4861 §4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Icmpv6 {
    /// A router advertisement, or a redirect: from nobody but routers.
    Router,
    /// A neighbour advertisement, for this address.
    Advertisement(Ipv6Addr),
    /// A neighbour solicitation for this address; from no address, it asks whether the address is free, and whoever asks
    /// for another's keeps it from having it (RFC 4862 §5.4.3).
    Probe(Ipv6Addr),
    /// A router solicitation, or a multicast listener's report: they too come from no address at first.
    Solicitation,
    /// Neighbour discovery out of form: behind another header, such as a fragment's (RFC 6980 §5), with another Ethernet
    /// address in it than the frame's, or with more than one option.
    Improper,
    /// Any other, an echo request say.
    Other,
}

/// What is known of the flow that a packet belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Flow {
    /// It begins one, as far as anybody knows.
    New,
    /// Packets were seen in both directions, and none of them forbidden.
    Established,
    /// It tells of a known flow: an ICMP error, or a connection that a known one announced.
    Related,
    /// It fits into no flow and begins none.
    Invalid,
}
