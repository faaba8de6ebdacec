//! What a rule can look at: fields of packets, of flows, and numbers computed of them.

use std::fmt;
use std::marker::PhantomData;
use std::net::{Ipv4Addr, Ipv6Addr};

use overlay_core::{IfName, IpFamily, Mac};

use super::value::{Bytes, Scalar, Value, bytes_of};
use super::{
    AddressType, ArpOp, CtDirection, CtState, CtStatus, EtherType, Icmp6Type, IcmpType, IfIndex, IpProtocol, Mark,
    PacketType, TcpFlags,
};

/// Something a rule can look at that is a `T`: [`ip::SADDR`], [`meta::MARK`], [`jhash`]…
///
/// A field of a header is whatever stands at its place: check first that the packet has that header
/// ([`meta::NFPROTO`], [`meta::PROTOCOL`], [`meta::L4PROTO`]).
pub struct Field<T> {
    pub(super) part: Part,
    kind: PhantomData<fn() -> T>,
}

impl<T> Clone for Field<T> {
    fn clone(&self) -> Self {
        Self { part: self.part.clone(), kind: PhantomData }
    }
}

impl<T> fmt::Debug for Field<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Field").field(&self.part).finish()
    }
}

/// One value in registers: whence, and which bits of it.
#[derive(Debug, Clone)]
#[expect(unnameable_types, reason = "it is what sealed traits speak of")]
pub struct Part {
    pub(super) load: Load,
    pub(super) mask: Option<Bytes>,
    pub(super) size: usize,
}

/// Where a value comes from.
#[derive(Debug, Clone)]
pub(super) enum Load {
    Payload { base: Base, offset: u32 },
    Meta(u32),
    Ct(u32, Option<CtDirection>),
    Fib { flags: u32 },
    Route(u32),
    Numgen { random: bool, modulus: u32 },
    Jhash { of: Vec<Part>, modulus: u32, seed: u32 },
    Symhash { modulus: u32 },
    Value(Bytes),
}

/// The header that an offset counts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Base {
    Link = 0,
    Network = 1,
    Transport = 2,
}

impl<T> Field<T> {
    const fn new(load: Load, size: usize) -> Self {
        Self { part: Part { load, mask: None, size }, kind: PhantomData }
    }

    const fn payload(base: Base, offset: u32, size: usize) -> Self {
        Self::new(Load::Payload { base, offset }, size)
    }
}

impl<T: Scalar> Field<T> {
    /// Only the bits of it that are set in `mask`.
    #[must_use]
    pub fn masked(mut self, mask: T) -> Self {
        self.part.mask = Some(bytes_of(&mask));
        self
    }

    /// This value itself, where a rule computes with one.
    pub fn value(value: T) -> Self {
        Self::new(Load::Value(bytes_of(&value)), T::TYPE.size())
    }
}

/// One field or a tuple of two to five: what is compared with, or looked up as, a [`Value`].
pub trait Operand {
    /// What it is.
    type Value: Value;

    #[doc(hidden)]
    fn parts(&self) -> Vec<Part>;
}

impl<T: Scalar> Operand for Field<T> {
    type Value = T;

    fn parts(&self) -> Vec<Part> {
        vec![self.part.clone()]
    }
}

macro_rules! tuples {
    ($($($name:ident)+;)*) => { $(
        impl<$($name: Scalar),+> Operand for ($(Field<$name>,)+) {
            type Value = ($($name,)+);

            #[allow(non_snake_case, reason = "one name for a type and its field")]
            fn parts(&self) -> Vec<Part> {
                let ($($name,)+) = self;
                vec![$($name.part.clone()),+]
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

/// The next of the numbers 0 to `modulus` - 1, packet by packet: round robin.
pub const fn numgen_increment(modulus: u32) -> Field<Mark> {
    Field::new(Load::Numgen { random: false, modulus }, 4)
}

/// A random number of 0 to `modulus` - 1.
pub const fn numgen_random(modulus: u32) -> Field<Mark> {
    Field::new(Load::Numgen { random: true, modulus }, 4)
}

/// Jenkins' hash of some fields, from 0 to `modulus` - 1. A seed of 0 is one too: the kernel's own is never asked for.
pub fn jhash(of: &impl Operand, modulus: u32, seed: u32) -> Field<Mark> {
    Field::new(Load::Jhash { of: of.parts(), modulus, seed }, 4)
}

/// The kernel's own hash of a flow, the same for both directions, from 0 to `modulus` - 1.
pub const fn symhash(modulus: u32) -> Field<Mark> {
    Field::new(Load::Symhash { modulus }, 4)
}

/// Fields of an Ethernet header. Only in `bridge` and `netdev`, or where a frame came in.
pub mod ether {
    use super::{Base, EtherType, Field, Mac};

    /// Destination.
    pub const DADDR: Field<Mac> = Field::payload(Base::Link, 0, 6);
    /// Source.
    pub const SADDR: Field<Mac> = Field::payload(Base::Link, 6, 6);
    /// What follows.
    pub const TYPE: Field<EtherType> = Field::payload(Base::Link, 12, 2);
}

/// Fields of an ARP packet for IPv4 over Ethernet (RFC 826): check first that it is for these.
pub mod arp {
    use super::{ArpOp, Base, EtherType, Field, Ipv4Addr, Mac};

    /// The kind of stations; 1 for Ethernet.
    pub const HARDWARE: Field<u16> = Field::payload(Base::Network, 0, 2);
    /// What the addresses are of.
    pub const PROTOCOL: Field<EtherType> = Field::payload(Base::Network, 2, 2);
    /// How many bytes a station's address has, and behind it how many the other; 0x0604 for IPv4 over Ethernet.
    pub const LENGTHS: Field<u16> = Field::payload(Base::Network, 4, 2);
    /// What it is.
    pub const OPERATION: Field<ArpOp> = Field::payload(Base::Network, 6, 2);
    /// The sender's Ethernet address.
    pub const SADDR_ETHER: Field<Mac> = Field::payload(Base::Network, 8, 6);
    /// The sender's IPv4 address.
    pub const SADDR_IP: Field<Ipv4Addr> = Field::payload(Base::Network, 14, 4);
    /// The target's Ethernet address.
    pub const DADDR_ETHER: Field<Mac> = Field::payload(Base::Network, 18, 6);
    /// The target's IPv4 address.
    pub const DADDR_IP: Field<Ipv4Addr> = Field::payload(Base::Network, 24, 4);
}

/// Fields of an IPv4 header (RFC 791 §3.1).
pub mod ip {
    use super::{Base, Field, IpProtocol, Ipv4Addr};

    /// What follows.
    pub const PROTOCOL: Field<IpProtocol> = Field::payload(Base::Network, 9, 1);
    /// Source.
    pub const SADDR: Field<Ipv4Addr> = Field::payload(Base::Network, 12, 4);
    /// Destination.
    pub const DADDR: Field<Ipv4Addr> = Field::payload(Base::Network, 16, 4);
}

/// Fields of an IPv6 header (RFC 8200 §3).
pub mod ip6 {
    use super::{Base, Field, IpProtocol, Ipv6Addr};

    /// How many bytes follow the header.
    pub const LENGTH: Field<u16> = Field::payload(Base::Network, 4, 2);
    /// What follows next: [`meta::L4PROTO`](super::meta::L4PROTO) looks behind extension headers.
    pub const NEXT_HEADER: Field<IpProtocol> = Field::payload(Base::Network, 6, 1);
    /// Source.
    pub const SADDR: Field<Ipv6Addr> = Field::payload(Base::Network, 8, 16);
    /// Destination.
    pub const DADDR: Field<Ipv6Addr> = Field::payload(Base::Network, 24, 16);
    /// Where a fragment belongs, and behind it three bits of others' (RFC 8200 §4.5): where the fragment header follows next.
    pub const FRAGMENT: Field<u16> = Field::payload(Base::Network, 42, 2);
}

/// Fields of transport headers.
pub mod th {
    use super::{Base, Field, Icmp6Type, IcmpType, Ipv6Addr, Mac, TcpFlags};

    /// The source port of TCP, UDP and SCTP.
    pub const SPORT: Field<u16> = Field::payload(Base::Transport, 0, 2);
    /// The destination port of TCP, UDP and SCTP.
    pub const DPORT: Field<u16> = Field::payload(Base::Transport, 2, 2);
    /// TCP's flags.
    pub const TCP_FLAGS: Field<TcpFlags> = Field::payload(Base::Transport, 13, 1);
    /// ICMP's type.
    pub const ICMP_TYPE: Field<IcmpType> = Field::payload(Base::Transport, 0, 1);
    /// ICMPv6's type.
    pub const ICMP6_TYPE: Field<Icmp6Type> = Field::payload(Base::Transport, 0, 1);
    /// The target of a neighbour solicitation or advertisement (RFC 4861 §4.3).
    pub const ND_TARGET: Field<Ipv6Addr> = Field::payload(Base::Transport, 8, 16);
    /// The kind of the first option behind it, and its length in units of eight bytes (RFC 4861 §4.6).
    pub const ND_OPTION: Field<u16> = Field::payload(Base::Transport, 24, 2);
    /// The Ethernet address in that option.
    pub const ND_STATION: Field<Mac> = Field::payload(Base::Transport, 26, 6);
    /// The kind and length of the first option of a router solicitation (RFC 4861 §4.1).
    pub const RS_OPTION: Field<u16> = Field::payload(Base::Transport, 8, 2);
    /// The Ethernet address in that option.
    pub const RS_STATION: Field<Mac> = Field::payload(Base::Transport, 10, 6);
}

/// What the kernel knows of a packet besides its bytes.
pub mod meta {
    use super::{EtherType, Field, IfIndex, IfName, IpFamily, IpProtocol, Load, Mark, PacketType};

    /// The EtherType: in `bridge` and `netdev`.
    pub const PROTOCOL: Field<EtherType> = Field::new(Load::Meta(1), 2);
    /// The packet's mark.
    pub const MARK: Field<Mark> = Field::new(Load::Meta(3), 4);
    /// The device it came in by, by index.
    pub const IIF: Field<IfIndex> = Field::new(Load::Meta(4), 4);
    /// The device it leaves by, by index.
    pub const OIF: Field<IfIndex> = Field::new(Load::Meta(5), 4);
    /// The device it came in by.
    pub const IIFNAME: Field<IfName> = Field::new(Load::Meta(6), 16);
    /// The device it leaves by.
    pub const OIFNAME: Field<IfName> = Field::new(Load::Meta(7), 16);
    /// IPv4 or IPv6: in `inet`.
    pub const NFPROTO: Field<IpFamily> = Field::new(Load::Meta(15), 1);
    /// The protocol above IP, behind all extension headers.
    pub const L4PROTO: Field<IpProtocol> = Field::new(Load::Meta(16), 1);
    /// To whom the frame is.
    pub const PKTTYPE: Field<PacketType> = Field::new(Load::Meta(19), 1);
    /// Whether it came in ESP or AH: at prerouting, input and forward.
    pub const SECPATH: Field<bool> = Field::new(Load::Meta(25), 1);
}

/// What is known of the route that a packet leaves by: at forward, output and postrouting of `ip`, `ip6` and `inet`.
pub mod rt {
    use super::{Field, Load};

    /// Whether a policy of IPsec will take hold of it.
    pub const IPSEC: Field<bool> = Field::new(Load::Route(4), 1);
}

/// What stands behind a UDP header, to VXLAN's port (RFC 7348 §5).
pub mod vxlan {
    use overlay_core::Vni;

    use super::{Base, Bytes, Field};

    /// The network: its first 16 bits, and the others with a zero behind them. (`nft` knows no type of 24 bits.)
    pub fn vni() -> (Field<u16>, Field<u16>) {
        let mut low = Field::payload(Base::Transport, 14, 2);
        low.part.mask = Some(Bytes::new(&[0xff, 0]));
        (Field::payload(Base::Transport, 12, 2), low)
    }

    /// A network as [`vni`] has it.
    pub const fn key(vni: Vni) -> (u16, u16) {
        ((vni.get() >> 8) as u16, (vni.get() << 8) as u16)
    }
}

/// What the kernel knows of a packet's flow. Not in `netdev`, and in `bridge` only where the kernel tracks flows there.
pub mod ct {
    use super::{CtDirection, CtState, CtStatus, Field, IpProtocol, Ipv4Addr, Ipv6Addr, Load, Mark};

    /// Bits of its state: ask for [`any`](crate::nft::Rule::any) of them.
    pub const STATE: Field<CtState> = Field::new(Load::Ct(0, None), 4);
    /// Which way this packet goes.
    pub const DIRECTION: Field<CtDirection> = Field::new(Load::Ct(1, None), 1);
    /// Bits of its status.
    pub const STATUS: Field<CtStatus> = Field::new(Load::Ct(2, None), 4);
    /// Its mark.
    pub const MARK: Field<Mark> = Field::new(Load::Ct(3, None), 4);
    /// Its protocol.
    pub const fn protocol(direction: CtDirection) -> Field<IpProtocol> {
        Field::new(Load::Ct(10, Some(direction)), 1)
    }
    /// Its source port in one direction.
    pub const fn proto_src(direction: CtDirection) -> Field<u16> {
        Field::new(Load::Ct(11, Some(direction)), 2)
    }
    /// Its destination port in one direction: of the original, that before translation.
    pub const fn proto_dst(direction: CtDirection) -> Field<u16> {
        Field::new(Load::Ct(12, Some(direction)), 2)
    }
    /// Its IPv4 source in one direction.
    pub const fn saddr_ip(direction: CtDirection) -> Field<Ipv4Addr> {
        Field::new(Load::Ct(19, Some(direction)), 4)
    }
    /// Its IPv4 destination in one direction: of the original, that before translation.
    pub const fn daddr_ip(direction: CtDirection) -> Field<Ipv4Addr> {
        Field::new(Load::Ct(20, Some(direction)), 4)
    }
    /// Its IPv6 source in one direction.
    pub const fn saddr_ip6(direction: CtDirection) -> Field<Ipv6Addr> {
        Field::new(Load::Ct(21, Some(direction)), 16)
    }
    /// Its IPv6 destination in one direction: of the original, that before translation.
    pub const fn daddr_ip6(direction: CtDirection) -> Field<Ipv6Addr> {
        Field::new(Load::Ct(22, Some(direction)), 16)
    }
}

/// What the routing tables say. Not in `bridge` and `netdev`.
pub mod fib {
    use super::{AddressType, Field, Load};

    /// What the destination is to this host.
    pub const DADDR_TYPE: Field<AddressType> = Field::new(Load::Fib { flags: 2 }, 4);
    /// What the source is to this host.
    pub const SADDR_TYPE: Field<AddressType> = Field::new(Load::Fib { flags: 1 }, 4);
}
