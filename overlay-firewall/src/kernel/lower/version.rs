//! IPv4 and IPv6, so that what holds for both is written once.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use ipnet::IpNet;
use overlay_core::IpFamily;
use overlay_kernel::nft::{Field, NatTarget, Rule, Scalar, ip, ip6};

/// A version of IP: how its addresses are written in rules and sets.
pub(super) trait Version {
    type Address: Scalar + Into<IpAddr> + 'static;
    /// What a destination can be translated to.
    type Target: NatTarget;

    const FAMILY: IpFamily;
    /// All loopback addresses.
    const LOOPBACK: RangeInclusive<Self::Address>;
    /// Addresses at which no port is published that is at every address: answers would not come back from an endpoint.
    const NEAR: &'static [RangeInclusive<Self::Address>];
    /// What an endpoint has for an address before it has one, and may have beside those it was given.
    const UNSETTLED: [RangeInclusive<Self::Address>; 2];

    fn source() -> Field<Self::Address>;
    fn destination() -> Field<Self::Address>;
    fn address(of: IpAddr) -> Option<Self::Address>;
    fn range(of: IpNet) -> Option<RangeInclusive<Self::Address>>;
    fn target(address: Self::Address, port: u16) -> Self::Target;

    /// The name of one of a pair of sets.
    fn named(name: &str) -> String;

    /// A rule about packets of this version only.
    fn only(rule: Rule) -> Rule {
        rule.family(Self::FAMILY)
    }
}

pub(super) struct V4;
pub(super) struct V6;

impl Version for V4 {
    type Address = Ipv4Addr;
    type Target = (Ipv4Addr, u16);

    const FAMILY: IpFamily = IpFamily::V4;
    const LOOPBACK: RangeInclusive<Ipv4Addr> = Ipv4Addr::new(127, 0, 0, 0)..=Ipv4Addr::new(127, 255, 255, 255);
    const NEAR: &'static [RangeInclusive<Ipv4Addr>] = &[];
    const UNSETTLED: [RangeInclusive<Ipv4Addr>; 2] =
        [Ipv4Addr::UNSPECIFIED..=Ipv4Addr::UNSPECIFIED, Ipv4Addr::UNSPECIFIED..=Ipv4Addr::UNSPECIFIED];

    fn source() -> Field<Ipv4Addr> {
        ip::SADDR
    }

    fn destination() -> Field<Ipv4Addr> {
        ip::DADDR
    }

    fn address(of: IpAddr) -> Option<Ipv4Addr> {
        match of {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => None,
        }
    }

    fn range(of: IpNet) -> Option<RangeInclusive<Ipv4Addr>> {
        match of {
            IpNet::V4(net) => Some(net.network()..=net.broadcast()),
            IpNet::V6(_) => None,
        }
    }

    fn target(address: Ipv4Addr, port: u16) -> (Ipv4Addr, u16) {
        (address, port)
    }

    fn named(name: &str) -> String {
        format!("{name}4")
    }
}

impl Version for V6 {
    type Address = Ipv6Addr;
    type Target = (Ipv6Addr, u16);

    const FAMILY: IpFamily = IpFamily::V6;
    const LOOPBACK: RangeInclusive<Ipv6Addr> = Ipv6Addr::LOCALHOST..=Ipv6Addr::LOCALHOST;
    const NEAR: &'static [RangeInclusive<Ipv6Addr>] = &[Ipv6Addr::LOCALHOST..=Ipv6Addr::LOCALHOST, LINK_LOCAL];
    const UNSETTLED: [RangeInclusive<Ipv6Addr>; 2] = [Ipv6Addr::UNSPECIFIED..=Ipv6Addr::UNSPECIFIED, LINK_LOCAL];

    fn source() -> Field<Ipv6Addr> {
        ip6::SADDR
    }

    fn destination() -> Field<Ipv6Addr> {
        ip6::DADDR
    }

    fn address(of: IpAddr) -> Option<Ipv6Addr> {
        match of {
            IpAddr::V4(_) => None,
            IpAddr::V6(address) => Some(address),
        }
    }

    fn range(of: IpNet) -> Option<RangeInclusive<Ipv6Addr>> {
        match of {
            IpNet::V4(_) => None,
            IpNet::V6(net) => Some(net.network()..=net.broadcast()),
        }
    }

    fn target(address: Ipv6Addr, port: u16) -> (Ipv6Addr, u16) {
        (address, port)
    }

    fn named(name: &str) -> String {
        format!("{name}6")
    }
}

const LINK_LOCAL: RangeInclusive<Ipv6Addr> = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0)
    ..=Ipv6Addr::new(0xfebf, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff);
