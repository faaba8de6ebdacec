//! IPv4 and IPv6, so that what holds for both is written once.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use ipnet::IpNet;
use overlay_core::IpFamily;
use overlay_kernel::nft::{CtDirection, Field, IpProtocol, Mark, NatTarget, Rule, Scalar, Value, ct, ip, ip6};

/// A version of IP: how its addresses are written in rules and sets.
pub(super) trait Version {
    type Address: Scalar + NatTarget + 'static;
    /// An address and a port.
    type Target: NatTarget + Copy;
    /// A place and a slot.
    type Slot: Value + Copy;
    /// A place, and who drains behind it.
    type Drain: Value;
    /// A place of the machine's own, and a replica behind it.
    type Published: Value;

    const FAMILY: IpFamily;
    /// Addresses of the machine's own at which nothing is published: what is sent there goes no further than the machine, or a link.
    const NEAR: &'static [RangeInclusive<Self::Address>];

    fn source() -> Field<Self::Address>;
    fn destination() -> Field<Self::Address>;
    /// The destination before it was translated.
    fn original_destination() -> Field<Self::Address>;
    fn address(of: IpAddr) -> Option<Self::Address>;
    fn range(of: IpNet) -> Option<RangeInclusive<Self::Address>>;
    fn target(address: Self::Address, port: u16) -> Self::Target;
    fn slot(place: (Self::Address, IpProtocol, u16), slot: Mark) -> Self::Slot;
    fn drain(place: (Self::Address, IpProtocol, u16), replica: (Self::Address, u16)) -> Self::Drain;
    fn published(place: (IpProtocol, u16), replica: (Self::Address, u16)) -> Self::Published;

    /// The name of one of a pair of sets.
    fn named(name: &str) -> String;

    /// A rule about packets of this version only.
    fn only(rule: Rule) -> Rule {
        rule.family(Self::FAMILY)
    }
}

/// A protocol and a port of the machine's own, and a replica's address and port.
pub(in crate::kernel) type Published<A> = (IpProtocol, u16, A, u16);

pub(super) struct V4;
pub(super) struct V6;

macro_rules! version {
    ($version:ident, $address:ty, $number:literal, $fields:ident, $original:path, $variant:ident, $near:expr) => {
        impl Version for $version {
            type Address = $address;
            type Target = ($address, u16);
            type Slot = ($address, IpProtocol, u16, Mark);
            type Drain = ($address, IpProtocol, u16, $address, u16);
            type Published = Published<$address>;

            const FAMILY: IpFamily = IpFamily::$version;
            const NEAR: &'static [RangeInclusive<$address>] = &$near;

            fn source() -> Field<$address> {
                $fields::SADDR
            }

            fn destination() -> Field<$address> {
                $fields::DADDR
            }

            fn original_destination() -> Field<$address> {
                $original(CtDirection::Original)
            }

            fn address(of: IpAddr) -> Option<$address> {
                match of {
                    IpAddr::$version(address) => Some(address),
                    IpAddr::$variant(_) => None,
                }
            }

            fn range(of: IpNet) -> Option<RangeInclusive<$address>> {
                match of {
                    IpNet::$version(net) => Some(net.network()..=net.broadcast()),
                    IpNet::$variant(_) => None,
                }
            }

            fn target(address: $address, port: u16) -> Self::Target {
                (address, port)
            }

            fn slot((address, protocol, port): ($address, IpProtocol, u16), slot: Mark) -> Self::Slot {
                (address, protocol, port, slot)
            }

            fn drain(
                (address, protocol, port): ($address, IpProtocol, u16),
                (replica, target): ($address, u16),
            ) -> Self::Drain {
                (address, protocol, port, replica, target)
            }

            fn published((protocol, port): (IpProtocol, u16), (replica, target): ($address, u16)) -> Self::Published {
                (protocol, port, replica, target)
            }

            fn named(name: &str) -> String {
                format!(concat!("{}", $number), name)
            }
        }
    };
}

version!(V4, Ipv4Addr, "4", ip, ct::daddr_ip, V6, [Ipv4Addr::new(127, 0, 0, 0)..=Ipv4Addr::new(127, 255, 255, 255)]);
version!(V6, Ipv6Addr, "6", ip6, ct::daddr_ip6, V4, [Ipv6Addr::LOCALHOST..=Ipv6Addr::LOCALHOST, LINK_LOCAL]);

/// What no router forwards (RFC 4291 §2.5.6).
const LINK_LOCAL: RangeInclusive<Ipv6Addr> =
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0)..=Ipv6Addr::from_bits((0xfec0 << 112) - 1);
