//! Links: what `ip link` shows.

use std::fmt;
use std::net::IpAddr;

use overlay_core::{DontFragment, Encapsulation, IfName, IpFamily, Mac, Mtu, Port, PortRange, Ttl, Vni};
use serde::{Deserialize, Serialize};

use super::{Dev, Site, Solicit};

/// A network device as the kernel has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// What kind of device, and what only that kind has. Fixed for its life: another kind is another device.
    pub kind: Kind,
    /// Largest IP packet.
    pub mtu: Mtu,
    /// Ethernet address.
    pub mac: Mac,
    /// Whether the device is administratively up. What is wanted always is.
    pub up: bool,
    /// Whether it carries the owner's mark whole, and a bridge the entry for its own address. A creation that was broken
    /// off leaves it half-marked, and a flush takes the entry.
    pub marked: bool,
    /// The bridge it is a port of, if any.
    pub port: Option<BridgePort>,
    /// Whether IPv4 packets that arrive here are forwarded (`net.ipv4.conf.DEV.forwarding`).
    pub ipv4_forwarding: bool,
    /// Whether IPv4 loopback addresses are like others here (`net.ipv4.conf.DEV.route_localnet`): what this host sends from one may leave by the device,
    /// and what comes in for one gets to who listens there, unless a firewall keeps it out.
    pub ipv4_localnet: bool,
    /// Whether IPv6 router advertisements that arrive here are believed (`net.ipv6.conf.DEV.accept_ra`).
    pub accept_ra: bool,
    /// Whether the kernel gives the device an IPv6 link-local address of its own (`addr_gen_mode`). It would detect
    /// duplicates of that first, which takes 2 s.
    pub link_local: bool,
    /// How it asks for neighbours. Only of devices in other namespaces: those at home are left alone, and said to be as the kernel has it.
    pub solicit: Solicit,
}

impl Link {
    /// A device of `kind` that is up, on no bridge, forwards nothing and has only the IPv6 addresses it is given.
    pub const fn new(kind: Kind, mtu: Mtu, mac: Mac) -> Self {
        Self {
            kind,
            mtu,
            mac,
            up: true,
            marked: true,
            port: None,
            ipv4_forwarding: false,
            ipv4_localnet: false,
            accept_ra: false,
            link_local: false,
            solicit: Solicit::KERNEL,
        }
    }

    /// The bridge it is a port of now and no longer is once it is like `new`.
    pub(super) fn left_for(&self, new: &Self) -> Option<IfName> {
        let bridge = |link: &Self| link.port.map(|port| port.bridge);
        bridge(self).filter(|left| bridge(new) != Some(*left))
    }

    /// The same as a port of a bridge.
    #[must_use]
    pub fn on_bridge(self, port: BridgePort) -> Self {
        Self { port: Some(port), ..self }
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} mtu {}", self.kind, self.mac, self.mtu)?;
        self.port.iter().try_for_each(|port| write!(f, " on {}", port.bridge))
    }
}

/// A device's place on a bridge (`bridge -d link`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct BridgePort {
    /// The bridge, in the same namespace.
    pub bridge: IfName,
    /// Whether the bridge learns stations behind the port.
    pub learning: bool,
    /// Whether frames for unknown stations are sent out of the port.
    pub flood: bool,
    /// Whether the port reaches ports that are not isolated only.
    pub isolated: bool,
    /// Whether the bridge answers ARP and neighbour discovery for stations behind the port.
    pub neigh_suppress: bool,
}

impl BridgePort {
    /// A port as the kernel makes it: learning, flooding, neither isolated nor suppressing.
    pub const fn new(bridge: IfName) -> Self {
        Self { bridge, learning: true, flood: true, isolated: false, neigh_suppress: false }
    }

    /// A port behind which stations are said, not learned, and that gets nothing for unknown ones.
    pub const fn quiet(bridge: IfName) -> Self {
        Self { learning: false, flood: false, ..Self::new(bridge) }
    }
}

/// Kinds of devices, and what is theirs alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Kind {
    /// An Ethernet bridge without VLANs or spanning tree.
    Bridge {
        /// Whether multicast goes only to ports that joined the group.
        multicast_snooping: bool,
    },
    /// A device that drops what is sent on it.
    Dummy,
    /// One end of a pair; what goes in at one comes out of the other. Both ends are in the state.
    Veth {
        /// The other end.
        peer: Dev,
    },
    /// A VXLAN tunnel end point.
    Vxlan(Vxlan),
    /// Another station on a physical network.
    Macvlan {
        /// The interface to that network.
        parent: Dev,
        /// Who hears whom.
        mode: MacvlanMode,
    },
    /// A port for a virtual machine, or whatever program opens it.
    Tap(Tap),
    /// Only ever observed: carries our mark but is of no kind above, or a pair's end whose other is out of sight.
    Stray(String),
}

impl Kind {
    /// The device's other end, or what it stands on: what it does not outlive.
    pub(super) fn leans_on(&self) -> Option<Dev> {
        match self {
            Self::Veth { peer } => Some(peer.clone()),
            Self::Macvlan { parent, .. } => Some(parent.clone()),
            Self::Vxlan(vxlan) => vxlan.device.map(|name| Dev { site: vxlan.underlay.clone(), name }),
            Self::Bridge { .. } | Self::Dummy | Self::Tap(_) | Self::Stray(_) => None,
        }
    }

    /// Whether it may need another device before it.
    pub(super) const fn stands_on_another(&self) -> bool {
        matches!(self, Self::Macvlan { .. } | Self::Vxlan(_))
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bridge { .. } => f.write_str("bridge"),
            Self::Dummy => f.write_str("dummy"),
            Self::Veth { peer } => write!(f, "veth to {peer}"),
            Self::Vxlan(vxlan) => write!(f, "vxlan {} from {} port {}", vxlan.vni, vxlan.local, vxlan.port),
            Self::Macvlan { parent, .. } => write!(f, "macvlan on {parent}"),
            Self::Tap(tap) => fmt::Display::fmt(tap, f),
            Self::Stray(kind) => write!(f, "stray {kind}"),
        }
    }
}

/// What a VXLAN device has of its own (`ip -d link`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vxlan {
    /// The network's identifier.
    pub vni: Vni,
    /// The namespace its UDP socket is in, so the one whose routes datagrams take.
    pub underlay: Site,
    /// Source address of its datagrams; decides the family of the underlay.
    pub local: IpAddr,
    /// Interface of the underlay its datagrams leave by.
    pub device: Option<IfName>,
    /// UDP port it listens at and sends to.
    pub port: Port,
    /// UDP ports it sends from; two at least, of which the kernel never chooses the last.
    pub source_ports: PortRange,
    /// Time to live of its datagrams.
    pub ttl: Ttl,
    /// DF bit of its datagrams, IPv4 only.
    pub dont_fragment: DontFragment,
    /// Whether its datagrams have a UDP checksum.
    pub udp_checksum: bool,
    /// Whether it learns from datagrams behind which VTEP a station is.
    pub learning: bool,
    /// Whether it answers ARP and neighbour discovery from its neighbour entries.
    pub proxy: bool,
}

impl Vxlan {
    /// Whether packets of `wanted` fit an interface of MTU `mtu` in its datagrams; if not, what would.
    pub(super) fn room_inside(&self, mtu: Mtu, wanted: Mtu) -> Result<(), String> {
        let device = self.device.map_or_else(String::new, |device| device.to_string());
        match Encapsulation::vxlan(IpFamily::of(self.local)).inner_mtu(mtu) {
            Ok(most) if wanted <= most => Ok(()),
            Ok(most) => Err(format!("{device} has MTU {mtu}, which leaves {most} inside")),
            Err(_) => Err(format!("{device} has MTU {mtu}, which leaves nothing inside")),
        }
    }

    /// A device with the usual settings: port 4789, all dynamic source ports, DF unset, no checksum; it learns nothing,
    /// and answers from its neighbour entries.
    pub const fn new(vni: Vni, underlay: Site, local: IpAddr) -> Self {
        Self {
            vni,
            underlay,
            local,
            device: None,
            port: Port::VXLAN,
            source_ports: PortRange::DYNAMIC,
            ttl: Ttl::Auto,
            dont_fragment: DontFragment::Unset,
            udp_checksum: false,
            learning: false,
            proxy: true,
        }
    }
}

/// What a tap has of its own (`ip -d link`). Whether frames have a header for offloads (`vnet_hdr`) is not among it: that
/// is as who opens it first says.
///
/// Beside those with `CAP_NET_ADMIN` over the namespace, a tap is opened by who is its owner, if it has one, *and* of its
/// group, if it has one. Without either it is opened by everybody who comes into the namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Tap {
    /// Whether it can be opened several times, a queue each; else once at a time.
    pub multi_queue: bool,
    /// The user who may open it, by number.
    pub owner: Option<u32>,
    /// The group whose members may open it, by number.
    pub group: Option<u32>,
}

impl Tap {
    /// A tap of one queue, for root alone.
    pub const fn new() -> Self {
        Self { multi_queue: false, owner: Some(0), group: None }
    }
}

impl Default for Tap {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for Tap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("tap")?;
        self.owner.iter().try_for_each(|owner| write!(f, " of user {owner}"))?;
        self.group.iter().try_for_each(|group| write!(f, " of group {group}"))?;
        f.write_str(if self.multi_queue { " with several queues" } else { "" })
    }
}

/// Who hears whom among the macvlan devices of one parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MacvlanMode {
    /// They never hear each other.
    Private,
    /// They hear each other by way of an external switch that sends frames back.
    Vepa,
    /// They hear each other directly.
    Bridge,
    /// The one device takes the parent over.
    Passthru,
}
