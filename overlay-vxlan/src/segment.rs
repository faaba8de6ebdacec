//! One overlay segment as one node has it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use overlay_core::{AddressSet, DontFragment, EndpointId, IfName, IpFamily, Mac, Mtu, NsKey, Port, PortRange, Ttl};
use serde::{Deserialize, Serialize};

/// One VNI on one node: the tunnel's end, the endpoints here, and where the others are.
///
/// Nothing is learned from traffic and nothing is flooded but to [`flood`](Self::flood): what is not in here is
/// not reachable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// This node's end of the tunnel.
    pub vtep: Vtep,
    /// Largest IP packet inside, what [`Encapsulation::inner_mtu`](overlay_core::Encapsulation::inner_mtu) leaves.
    pub mtu: Mtu,
    /// Addresses of the segment's gateway, each with its subnet's prefix length; the same on every node.
    pub gateways: BTreeSet<IpNet>,
    /// The endpoints on this node.
    pub ports: BTreeMap<EndpointId, LocalPort>,
    /// The endpoints on other nodes, by their Ethernet address.
    pub peers: BTreeMap<Mac, Peer>,
    /// VTEPs that get a copy of every broadcast and multicast frame; empty unless a network opted in. ARP and neighbour
    /// discovery are not among them: they are answered on the node.
    pub flood: BTreeSet<IpAddr>,
}

impl Segment {
    /// A segment without gateways, ports or peers.
    pub const fn new(vtep: Vtep, mtu: Mtu) -> Self {
        Self {
            vtep,
            mtu,
            gateways: BTreeSet::new(),
            ports: BTreeMap::new(),
            peers: BTreeMap::new(),
            flood: BTreeSet::new(),
        }
    }
}

/// A VXLAN tunnel end point (RFC 7348 §4): how this node's datagrams look from outside.
///
/// ```
/// use overlay_core::DontFragment;
/// use overlay_vxlan::Vtep;
///
/// let vtep = Vtep { dont_fragment: DontFragment::Set, ..Vtep::new([192, 0, 2, 1].into()) };
/// assert_eq!(vtep.to_string(), "192.0.2.1 port 4789, DF set");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Vtep {
    /// The address datagrams are sent from and received at; also decides the family of the underlay. It is always
    /// given: a host with several addresses would otherwise send from whichever its routes prefer.
    /// A link-local VTEP, here or there, needs `device`.
    pub local: IpAddr,
    /// The interface datagrams leave by; by the routes where `None`. Its MTU must leave room for the segment's.
    pub device: Option<IfName>,
    /// UDP port that all nodes of the network listen at.
    pub port: Port,
    /// Range of UDP source ports, chosen in it by the inner flow. A kernel needs two at least.
    pub source_ports: PortRange,
    /// Time to live, or hop limit, of the outer header.
    pub ttl: Ttl,
    /// The outer IPv4 header's DF bit.
    pub dont_fragment: DontFragment,
    /// Whether datagrams carry a UDP checksum. RFC 7348 §5 wants zero; NICs and tunnels below may handle only non-zero well.
    pub udp_checksum: bool,
}

impl Vtep {
    /// An end point at `local` with the usual settings: port 4789, all dynamic source ports, DF unset, no checksum.
    pub const fn new(local: IpAddr) -> Self {
        Self {
            local,
            device: None,
            port: Port::VXLAN,
            source_ports: PortRange::DYNAMIC,
            ttl: Ttl::Auto,
            dont_fragment: DontFragment::Unset,
            udp_checksum: false,
        }
    }

    /// The family of the underlay.
    pub const fn underlay(&self) -> IpFamily {
        IpFamily::of(self.local)
    }
}

/// Address and port, then each setting that differs from [`Vtep::new`]'s, so that a dry run shows what changes.
impl fmt::Display for Vtep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} port {}", self.local, self.port)?;
        self.device.iter().try_for_each(|device| write!(f, " by {device}"))?;
        if self.source_ports != PortRange::DYNAMIC {
            write!(f, " from {}", self.source_ports)?;
        }
        match self.ttl {
            Ttl::Auto => {}
            Ttl::Inherit => f.write_str(", ttl inherited")?,
            Ttl::Hops(hops) => write!(f, ", ttl {hops}")?,
        }
        f.write_str(match self.dont_fragment {
            DontFragment::Unset => "",
            DontFragment::Set => ", DF set",
            DontFragment::Inherit => ", DF inherited",
        })?;
        f.write_str(if self.udp_checksum { ", UDP checksum" } else { "" })
    }
}

/// An endpoint on this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalPort {
    /// Its Ethernet address.
    pub mac: Mac,
    /// Its IP addresses, each with its subnet's prefix length.
    pub addresses: BTreeSet<IpNet>,
    /// What is plugged in.
    pub end: PortEnd,
}

/// What is plugged into a port of the segment's bridge; no two ports of a [`State`](crate::State) have the same.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PortEnd {
    /// An interface in a container's namespace, which gets the port's addresses. In the namespace that tunnels end in, the host's, it forwards what comes
    /// out of it (IPv4; forwarding of IPv6 is one switch for a whole namespace, and the host's).
    Namespace {
        /// The container's namespace.
        namespace: NsKey,
        /// The interface's name there.
        interface: IfName,
    },
    /// A tap in the sandbox, for a virtual machine that sets its own addresses.
    Tap {
        /// The tap's name.
        interface: IfName,
    },
}

impl fmt::Display for PortEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Namespace { namespace, interface } => write!(f, "{interface} in {}", namespace.name),
            Self::Tap { interface } => write!(f, "tap {interface}"),
        }
    }
}

/// An endpoint on another node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// The VTEP of the node it is on.
    pub vtep: IpAddr,
    /// Its IP addresses, for which ARP and neighbour discovery are answered on this node.
    pub addresses: AddressSet,
}
