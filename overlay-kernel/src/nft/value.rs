//! What rules compare and sets hold: typed values and their bytes.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use overlay_core::{IfName, IpFamily, Mac};
use smallvec::SmallVec;

/// What a value means, as nf_tables' own tool numbers it. The kernel keeps the number with a set and does not look at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Type {
    /// The family of a packet in `inet`: one byte.
    NfProto,
    /// An IPv4 address.
    Ipv4,
    /// An IPv6 address.
    Ipv6,
    /// An Ethernet address.
    Mac,
    /// An EtherType: two bytes.
    EtherType,
    /// An ARP operation: two bytes.
    ArpOp,
    /// A protocol above IP: one byte.
    IpProtocol,
    /// A transport port: two bytes.
    Port,
    /// An ICMP type: one byte.
    IcmpType,
    /// TCP flags: one byte of bits.
    TcpFlags,
    /// A mark of a packet or a flow; any 32-bit number of this machine's byte order.
    Mark,
    /// A device's index: 32 bits in this machine's order.
    IfIndex,
    /// Bits of a flow's state: 32 bits in this machine's order.
    CtState,
    /// A flow's direction: one byte.
    CtDirection,
    /// Bits of a flow's status: 32 bits in this machine's order.
    CtStatus,
    /// An ICMPv6 type: one byte.
    Icmp6Type,
    /// To whom a frame is: one byte.
    PacketType,
    /// What an address is to this host: 32 bits in this machine's order.
    AddressType,
    /// Yes or no: one byte.
    Bool,
    /// A device's name: 16 bytes.
    IfName,
}

impl Type {
    const ALL: [(Self, u32, usize, &'static str); 20] = [
        (Self::NfProto, 2, 1, "nf_proto"),
        (Self::Ipv4, 7, 4, "ipv4_addr"),
        (Self::Ipv6, 8, 16, "ipv6_addr"),
        (Self::Mac, 9, 6, "ether_addr"),
        (Self::EtherType, 10, 2, "ether_type"),
        (Self::ArpOp, 11, 2, "arp_op"),
        (Self::IpProtocol, 12, 1, "inet_proto"),
        (Self::Port, 13, 2, "inet_service"),
        (Self::IcmpType, 14, 1, "icmp_type"),
        (Self::TcpFlags, 15, 1, "tcp_flag"),
        (Self::Mark, 19, 4, "mark"),
        (Self::IfIndex, 20, 4, "iface_index"),
        (Self::CtState, 26, 4, "ct_state"),
        (Self::CtDirection, 27, 1, "ct_dir"),
        (Self::CtStatus, 28, 4, "ct_status"),
        (Self::Icmp6Type, 29, 1, "icmpv6_type"),
        (Self::PacketType, 31, 1, "pkt_type"),
        (Self::AddressType, 38, 4, "fib_addrtype"),
        (Self::Bool, 39, 1, "boolean"),
        (Self::IfName, 41, 16, "ifname"),
    ];

    fn row(self) -> (u32, usize, &'static str) {
        let row = Self::ALL.iter().find(|row| row.0 == self);
        row.map_or((0, 0, ""), |row| (row.1, row.2, row.3))
    }

    /// Its length in bytes.
    pub fn size(self) -> usize {
        self.row().1
    }

    /// The name that `nft` has for it.
    pub fn name(self) -> &'static str {
        self.row().2
    }

    pub(super) fn id(self) -> u32 {
        self.row().0
    }

    pub(super) fn by_id(id: u32) -> Option<Self> {
        Self::ALL.iter().find(|row| row.1 == id).map(|row| row.0)
    }

    /// Whether its bytes are in this machine's order, so that ranges of them need another one.
    pub(super) const fn is_host_order(self) -> bool {
        matches!(self, Self::Mark | Self::IfIndex | Self::CtState | Self::CtStatus | Self::AddressType)
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A few bytes, kept in place.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(super) struct Bytes(SmallVec<[u8; 32]>);

impl Bytes {
    pub(super) fn new(bytes: &[u8]) -> Self {
        Self(SmallVec::from_slice(bytes))
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    pub(super) fn pad(&mut self) {
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }
}

impl std::ops::Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A value that a rule compares or a set holds: a [`Scalar`], or up to five of them in a tuple, which nf_tables calls a
/// concatenation.
pub trait Value: sealed::Sealed {
    /// What it is made of.
    const TYPES: &'static [Type];

    #[doc(hidden)]
    fn write(&self, out: &mut sealed::Writer);
}

/// A value of one [`Type`].
pub trait Scalar: Value + Copy {
    /// What it is.
    const TYPE: Type;
}

pub(super) fn bytes_of<V: Value>(value: &V) -> Bytes {
    let mut writer = sealed::Writer { bytes: Bytes::default(), padded: V::TYPES.len() > 1 };
    value.write(&mut writer);
    writer.bytes
}

/// How long values of these types are in a set or in registers.
pub(super) fn length(types: &[Type]) -> usize {
    match types {
        [one] => one.size(),
        many => many.iter().map(|part| part.size().next_multiple_of(4)).sum(),
    }
}

mod sealed {
    #[expect(unnameable_types, reason = "so that nobody else can write a value")]
    pub trait Sealed {}

    /// Takes the bytes of a value's parts.
    #[derive(Debug)]
    #[expect(unnameable_types, reason = "it is what sealed traits speak of")]
    pub struct Writer {
        pub(in super::super) bytes: super::Bytes,
        pub(in super::super) padded: bool,
    }

    impl Writer {
        pub(super) fn put(&mut self, bytes: &[u8]) {
            self.bytes.push(bytes);
            if self.padded {
                self.bytes.pad();
            }
        }
    }
}

macro_rules! scalars {
    ($($kind:ty => $variant:ident, |$value:ident| $bytes:expr;)*) => { $(
        impl sealed::Sealed for $kind {}

        impl Value for $kind {
            const TYPES: &'static [Type] = &[Type::$variant];

            fn write(&self, out: &mut sealed::Writer) {
                let $value = self;
                out.put(&$bytes);
            }
        }

        impl Scalar for $kind {
            const TYPE: Type = Type::$variant;
        }
    )* };
}

scalars! {
    Ipv4Addr => Ipv4, |ip| ip.octets();
    Ipv6Addr => Ipv6, |ip| ip.octets();
    Mac => Mac, |mac| mac.octets();
    u16 => Port, |port| port.to_be_bytes();
    IpFamily => NfProto, |family| [if matches!(family, IpFamily::V4) { 2 } else { 10 }];
    EtherType => EtherType, |kind| kind.0.to_be_bytes();
    ArpOp => ArpOp, |op| op.0.to_be_bytes();
    IpProtocol => IpProtocol, |protocol| [protocol.0];
    IcmpType => IcmpType, |kind| [kind.0];
    Icmp6Type => Icmp6Type, |kind| [kind.0];
    TcpFlags => TcpFlags, |flags| [flags.0];
    Mark => Mark, |mark| mark.0.to_ne_bytes();
    IfIndex => IfIndex, |index| index.0.to_ne_bytes();
    CtState => CtState, |state| state.0.to_ne_bytes();
    CtStatus => CtStatus, |status| status.0.to_ne_bytes();
    CtDirection => CtDirection, |direction| [*direction as u8];
    PacketType => PacketType, |kind| [kind.0];
    AddressType => AddressType, |kind| kind.0.to_ne_bytes();
    bool => Bool, |yes| [u8::from(*yes)];
    IfName => IfName, |name| {
        let mut padded = [0; 16];
        padded[..name.as_str().len()].copy_from_slice(name.as_str().as_bytes());
        padded
    };
}

macro_rules! tuples {
    ($($($name:ident)+;)*) => { $(
        impl<$($name: Scalar),+> sealed::Sealed for ($($name,)+) {}

        impl<$($name: Scalar),+> Value for ($($name,)+) {
            const TYPES: &'static [Type] = &[$($name::TYPE),+];

            #[allow(non_snake_case, reason = "one name for a type and its value")]
            fn write(&self, out: &mut sealed::Writer) {
                let ($($name,)+) = self;
                $($name.write(out);)+
            }
        }
    )* };
}

tuples! {
    A B;
    A B C;
    A B C D;
    A B C D E;
}

impl Mark {
    /// A zone of flows, as [`set_zone_by`](super::Rule::set_zone_by) has it: the kernel takes the first two bytes of a number for it.
    pub const fn zone(zone: u16) -> Self {
        let [first, second] = zone.to_ne_bytes();
        Self(u32::from_ne_bytes([first, second, 0, 0]))
    }
}

macro_rules! numbers {
    ($($(#[$doc:meta])* $name:ident($inner:ty) { $($(#[$about:meta])* $constant:ident = $number:expr;)* })*) => { $(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl $name {
            $($(#[$about])* pub const $constant: Self = Self($number);)*
        }
    )* };
}

numbers! {
    /// What follows an Ethernet header.
    EtherType(u16) {
        /// IPv4.
        IPV4 = 0x0800;
        /// ARP (RFC 826).
        ARP = 0x0806;
        /// IPv6.
        IPV6 = 0x86dd;
    }
    /// What an ARP packet is (RFC 826).
    ArpOp(u16) {
        /// Who has an address.
        REQUEST = 1;
        /// The one who has it.
        REPLY = 2;
    }
    /// What follows an IP header.
    IpProtocol(u8) {
        /// ICMP.
        ICMP = 1;
        /// TCP.
        TCP = 6;
        /// UDP.
        UDP = 17;
        /// ESP (RFC 4303).
        ESP = 50;
        /// ICMPv6.
        ICMPV6 = 58;
        /// A fragment of IPv6 (RFC 8200 §4.5).
        FRAGMENT = 44;
        /// SCTP.
        SCTP = 132;
    }
    /// An ICMP message's type.
    IcmpType(u8) {
        /// Echo request.
        ECHO_REQUEST = 8;
        /// Redirect (RFC 792).
        REDIRECT = 5;
        /// Router advertisement (RFC 1256 §3).
        ROUTER_ADVERTISEMENT = 9;
    }
    /// An ICMPv6 message's type (RFC 4861 §4).
    Icmp6Type(u8) {
        /// Echo request.
        ECHO_REQUEST = 128;
        /// Router solicitation.
        ROUTER_SOLICITATION = 133;
        /// Router advertisement.
        ROUTER_ADVERTISEMENT = 134;
        /// Neighbour solicitation.
        NEIGHBOUR_SOLICITATION = 135;
        /// Neighbour advertisement.
        NEIGHBOUR_ADVERTISEMENT = 136;
        /// Redirect.
        REDIRECT = 137;
    }
    /// Bits of a TCP header.
    TcpFlags(u8) {
        /// The sender has finished.
        FIN = 1;
        /// A connection opens.
        SYN = 2;
        /// A connection is cut.
        RST = 4;
        /// The acknowledgement counts.
        ACK = 16;
    }
    /// A mark of a packet or a flow, or any other number that a rule computes.
    Mark(u32) {
        /// No mark.
        NONE = 0;
    }
    /// A device by its index.
    IfIndex(u32) {
        /// The loopback device of every namespace.
        LOOPBACK = 1;
    }
    /// Bits of a flow's state, for [`Rule::any`](super::Rule::any).
    CtState(u32) {
        /// The packet belongs to no flow and begins none.
        INVALID = 1;
        /// Packets were seen in both directions.
        ESTABLISHED = 2;
        /// It belongs to another flow: an ICMP error, say.
        RELATED = 4;
        /// It begins a flow.
        NEW = 8;
        /// It is not tracked.
        UNTRACKED = 64;
    }
    /// Bits of a flow's status.
    CtStatus(u32) {
        /// Its source is translated.
        SNAT = 16;
        /// Its destination is translated.
        DNAT = 32;
    }
    /// To whom a frame is, seen from this host.
    PacketType(u8) {
        /// To this host.
        HOST = 0;
        /// To all.
        BROADCAST = 1;
        /// To a group.
        MULTICAST = 2;
        /// To another host.
        OTHER = 3;
    }
    /// What an address is to this host.
    AddressType(u32) {
        /// Another host's.
        UNICAST = 1;
        /// This host's.
        LOCAL = 2;
        /// A subnet's broadcast address.
        BROADCAST = 3;
        /// A group's.
        MULTICAST = 5;
    }
}

impl std::ops::BitOr for CtState {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// A flow's two directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CtDirection {
    /// As its first packet went.
    Original = 0,
    /// As the answers go.
    Reply = 1,
}
