//! Which addresses an endpoint of a network can have.

use std::net::IpAddr;

use overlay_core::{IpFamily, is_host_address};
use overlay_ipam::{Subnet, SubnetKind};

use crate::Section;

/// What [`Subnet::reserved`] says of the network's subnets, worked out once for all endpoints: most of what they say is one look at
/// numbers.
#[derive(Debug)]
pub(super) struct Free<'k> {
    own: Vec<Hosts>,
    /// Those whose addresses are the physical network's.
    external: Vec<&'k Subnet>,
}

/// The addresses of a subnet that a host may have, as [numbers](number).
#[derive(Debug)]
struct Hosts {
    family: IpFamily,
    first: u128,
    last: u128,
    /// But for these: its gateway, and its auxiliary addresses.
    except: Vec<u128>,
}

impl<'k> Free<'k> {
    pub(super) fn of(section: &'k Section) -> Self {
        Self::of_subnets(&section.network.subnets)
    }

    fn of_subnets(subnets: &'k [Subnet]) -> Self {
        let (own, external): (Vec<_>, Vec<_>) = subnets.iter().partition(|subnet| subnet.kind() == SubnetKind::Own);
        Self { own: own.into_iter().map(Hosts::of).collect(), external }
    }

    /// Whether an endpoint can have an address.
    pub(super) fn has(&self, address: IpAddr) -> bool {
        let (family, is) = (IpFamily::of(address), number(address));
        let free = self.own.iter().any(|hosts| hosts.family == family && hosts.have(is))
            || self.external.iter().any(|subnet| subnet.reserved(address).is_none());
        free && is_host_address(address) && !address.is_loopback()
    }
}

impl Hosts {
    fn of(subnet: &Subnet) -> Self {
        let hosts = subnet.hosts();
        let except = subnet.gateway().into_iter().chain(subnet.auxiliary().values().copied());
        let (first, last) = (number(hosts.first()), number(hosts.last()));
        Self { family: subnet.family(), first, last, except: except.map(number).collect() }
    }

    fn have(&self, address: u128) -> bool {
        self.first <= address && address <= self.last && !self.except.contains(&address)
    }
}

/// Which of all addresses this is: of IPv4, the number that its form in IPv6 has, which is no host's.
pub(super) fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => MAPPED | u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// `::ffff:0:0`.
const MAPPED: u128 = 0xffff << 32;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::{Ipv4Addr, Ipv6Addr};

    use ipnet::IpNet;
    use overlay_core::Name;
    use overlay_ipam::SubnetRequest;

    use super::*;

    fn subnet(net: &str, auxiliary: BTreeMap<Name, IpAddr>, kind: SubnetKind) -> Subnet {
        let net: IpNet = net.parse().unwrap();
        SubnetRequest { auxiliary, kind, ..SubnetRequest::this(net) }.place(net).unwrap()
    }

    fn all() -> Vec<Subnet> {
        let printer: (Name, IpAddr) = ("printer".parse().unwrap(), [10, 0, 0, 9].into());
        let nets = ["10.0.1.0/30", "10.0.2.0/31", "10.0.3.7/32", "fd00::/124", "fd00:1::/127", "::ffff:10.0.4.0/124"];
        let others = nets.map(|net| subnet(net, BTreeMap::new(), SubnetKind::Own));
        let external = subnet("10.0.2.64/28", BTreeMap::new(), SubnetKind::External);
        [subnet("10.0.0.0/28", [printer].into(), SubnetKind::Own), external].into_iter().chain(others).collect()
    }

    #[test]
    fn what_is_free_is_a_hosts_and_what_a_subnet_does_not_reserve() {
        let v4 = (0..0x500).map(|host| IpAddr::from(Ipv4Addr::from_bits(0x0a00_0000 + host)));
        let v6 = ["fd00::", "fd00:1::", "::ffff:10.0.0.0", "::ffff:10.0.4.0"].into_iter().flat_map(|first| {
            let first: Ipv6Addr = first.parse().unwrap();
            (0..32).map(move |host| IpAddr::from(Ipv6Addr::from_bits(first.to_bits() + host)))
        });
        let odd = ["127.0.0.1", "255.255.255.255", "0.0.0.0", "::", "224.0.0.1"].map(|odd| odd.parse().unwrap());
        let subnets = all();
        let free = Free::of_subnets(&subnets);
        for address in v4.chain(v6).chain(odd) {
            let reserved = subnets.iter().all(|subnet| subnet.reserved(address).is_some());
            let is = is_host_address(address) && !address.is_loopback() && !reserved;
            assert_eq!(free.has(address), is, "{address}");
        }
    }
}
