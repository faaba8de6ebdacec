//! A node's bridge to the outside, and who is at it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU32;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use overlay_core::{IfName, IpFamily, Mac, NodeId, is_of_all_hosts};
use serde::{Deserialize, Serialize};

/// The subnets of a node's gateway bridge, by which its containers reach the outside. They are the node's own: those of other nodes may be the same.
///
/// A container on a network that is not internal has an interface there, [`INTERFACE`](Self::INTERFACE), with its default routes. It reaches
/// the bridge and what is behind the node by it, masqueraded, and no other container.
///
/// ```
/// use overlay_core::IpFamily;
/// use overlay_node::{GatewayBridge, GatewayPort};
///
/// let bridge = GatewayBridge { v4: Some("172.18.0.0/16".parse()?), v6: None };
/// let port = GatewayPort::new(1).ok_or("zero")?;
/// assert_eq!(bridge.gateway(IpFamily::V4), Some("172.18.0.1/16".parse()?));
/// assert_eq!(bridge.address(IpFamily::V4, port), Some("172.18.0.2/16".parse()?));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayBridge {
    /// Of IPv4; without one containers have no way out by IPv4.
    pub v4: Option<Ipv4Net>,
    /// Of IPv6; without one containers have no way out by IPv6.
    pub v6: Option<Ipv6Net>,
}

/// Which of the node's containers it is at the gateway bridge: from 1 on. Who has one keeps it, also when the node starts again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GatewayPort(NonZeroU32);

impl GatewayPort {
    /// `None` for zero.
    pub fn new(number: u32) -> Option<Self> {
        NonZeroU32::new(number).map(Self)
    }

    /// The number.
    pub const fn get(self) -> u32 {
        self.0.get()
    }
}

impl GatewayBridge {
    /// What the interface is called in a container.
    pub const INTERFACE: &'static str = "gw0";

    /// The bridge's own address, the first of its subnet. `None` if it has no subnet of the family.
    pub fn gateway(&self, family: IpFamily) -> Option<IpNet> {
        self.host(family, 1)
    }

    /// A container's address. `None` if the bridge has no subnet of the family, or none so large.
    pub fn address(&self, family: IpFamily, port: GatewayPort) -> Option<IpNet> {
        self.host(family, port.get().checked_add(1)?)
    }

    /// How many containers there is room for: as many as have addresses of all its families.
    pub fn room(&self) -> u32 {
        let families = [IpFamily::V4, IpFamily::V6].into_iter().filter_map(|family| self.net(family));
        let hosts = families.map(|net| match net {
            IpNet::V4(net) => (1_u64 << (32 - net.prefix_len())).saturating_sub(3), // its own, broadcast, the gateway's
            IpNet::V6(net) => {
                1_u64.checked_shl(128 - u32::from(net.prefix_len())).map_or(u64::MAX, |all| all.saturating_sub(2))
            }
        });
        hosts.min().map_or(0, |least| u32::try_from(least).unwrap_or(MOST).min(MOST))
    }

    fn net(&self, family: IpFamily) -> Option<IpNet> {
        match family {
            IpFamily::V4 => self.v4.map(|net| IpNet::V4(net.trunc())),
            IpFamily::V6 => self.v6.map(|net| IpNet::V6(net.trunc())),
        }
    }

    fn host(&self, family: IpFamily, number: u32) -> Option<IpNet> {
        let net = self.net(family)?;
        let address: IpAddr = match net.addr() {
            IpAddr::V4(first) => Ipv4Addr::from_bits(first.to_bits().checked_add(number)?).into(),
            IpAddr::V6(first) => Ipv6Addr::from_bits(first.to_bits().checked_add(number.into())?).into(),
        };
        let host = IpNet::new(address, net.prefix_len()).ok()?;
        (net.contains(&address) && !is_of_all_hosts(host)).then_some(host)
    }
}

/// As many as the names of ports tell apart.
const MOST: u32 = 0x00ff_ffff;

/// What a node's gateway bridge is called: `gw-` and the node's first 12 characters, so that nodes of one machine do not share it.
pub(crate) fn bridge(node: NodeId) -> Option<IfName> {
    IfName::new(&format!("gw-{}", node.short())).ok()
}

/// What a port's device is called: `g`, the node's first 7 characters, and the number in six hexadecimal digits.
pub(crate) fn port(node: NodeId, port: GatewayPort) -> Option<IfName> {
    let node = node.short().to_string();
    IfName::new(&format!("g{}-{:06x}", node.get(..7)?, port.get().min(MOST))).ok()
}

/// The bridge's Ethernet address. No endpoint of a network is on the bridge, so only that of its ports must be another.
pub(crate) fn bridge_mac(node: NodeId) -> Mac {
    let [a, b, ..] = node.to_bytes();
    Mac::new([0x02, 0x6f, 0x77, 0xff, a, b])
}

/// A container's Ethernet address at the bridge.
pub(crate) const fn port_mac(port: GatewayPort) -> Mac {
    let [_, a, b, c] = port.get().to_be_bytes();
    Mac::new([0x02, 0x6f, 0x78, a, b, c])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port_of(number: u32) -> GatewayPort {
        GatewayPort::new(number).unwrap()
    }

    #[test]
    fn every_container_there_is_room_for_has_addresses_and_no_more() {
        for (v4, v6, room) in [
            (Some("172.18.0.0/16"), None, 65_533),
            (Some("172.18.0.0/29"), Some("fd00:18::/64"), 5),
            (None, Some("fd00:18::/126"), 2),
            (Some("10.0.0.0/30"), None, 1),
            (Some("10.0.0.0/31"), None, 0),
            (None, Some("fd00:18::/64"), MOST),
            (None, None, 0),
        ] {
            let bridge =
                GatewayBridge { v4: v4.map(|net| net.parse().unwrap()), v6: v6.map(|net| net.parse().unwrap()) };
            assert_eq!(bridge.room(), room, "{bridge:?}");
            for family in [IpFamily::V4, IpFamily::V6].into_iter().filter(|family| bridge.net(*family).is_some()) {
                if room > 0 {
                    assert!(bridge.gateway(family).is_some() && bridge.address(family, port_of(1)).is_some());
                    assert!(bridge.address(family, port_of(room)).is_some());
                }
            }
            let families = [IpFamily::V4, IpFamily::V6].into_iter().filter(|family| bridge.net(*family).is_some());
            let one_more = families.map(|family| bridge.address(family, port_of(room + 1)));
            assert!(
                room == MOST
                    || one_more.into_iter().any(|address| address.is_none())
                    || bridge == GatewayBridge::default()
            );
        }
    }

    #[test]
    fn names_fit_and_tell_ports_apart() {
        let node = NodeId::from_bytes([0xff; 16]);
        assert_eq!(bridge(node).unwrap().as_str().len(), 15);
        assert_ne!(port(node, port_of(1)), port(node, port_of(MOST)));
        assert!(
            port(node, port_of(MOST)).is_some() && bridge_mac(node).is_station() && port_mac(port_of(1)).is_station()
        );
    }
}
