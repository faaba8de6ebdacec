//! The way of a packet, hop by hop.

use std::fmt;
use std::net::IpAddr;

use overlay_core::{IfName, Mac, Name, Vni};
use overlay_crypto::{Reason, Spi};

/// What became of a packet from one container to another, and of the answer to it, by what the places on its way hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trace {
    /// Where the packet came.
    pub request: Vec<Hop>,
    /// Where the answer came; nothing if the packet did not arrive.
    pub reply: Vec<Hop>,
    /// Why it, or the answer, went no further; `None` if both arrived.
    pub broken: Option<Broken>,
}

impl Trace {
    /// Whether the packet arrived, and its answer.
    pub const fn arrives(&self) -> bool {
        self.broken.is_none()
    }

    /// Whether the packet arrived, and its answer did not.
    pub const fn is_one_way(&self) -> bool {
        self.broken.is_some() && !self.reply.is_empty()
    }
}

/// Somewhere a packet came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hop {
    /// The container's resolver knows the name.
    Name {
        /// What was asked for.
        name: String,
        /// What it stands for; the first is taken.
        address: IpAddr,
    },
    /// The address is a virtual service's: the container's own tables choose a replica. Here it is always the first that takes work; the answer is
    /// from the VIP to who asks.
    Service {
        /// The VIP.
        vip: IpAddr,
        /// The replica's address.
        replica: IpAddr,
    },
    /// The container's routes lead it out.
    Route {
        /// To where.
        to: IpAddr,
        /// By which of its interfaces.
        interface: IfName,
        /// Through which router, if it is not on the link.
        via: Option<IpAddr>,
    },
    /// The sandbox answers ARP, or neighbour discovery, for that address.
    Neighbour {
        /// Of the next hop.
        address: IpAddr,
        /// Its Ethernet address.
        mac: Mac,
    },
    /// It passes a bridge, as the sandbox's firewall allows.
    Bridge {
        /// The node it is on.
        node: usize,
        /// The bridge.
        bridge: IfName,
        /// The port it comes in by.
        from: IfName,
        /// The port it leaves by.
        to: IfName,
    },
    /// It is sent to another node, whose host firewall lets it in.
    Tunnel {
        /// In which segment.
        vni: Vni,
        /// From which VTEP.
        from: IpAddr,
        /// To which.
        to: IpAddr,
        /// By which association, if not in the clear.
        sealed: Option<Spi>,
    },
    /// It is there.
    Container(Name),
}

/// Why a packet goes no further.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Broken {
    /// There is no such container, or it is on no network.
    NoContainer(String),
    /// The agent of the container's node is down, so nobody answers its resolver.
    NoResolver,
    /// The container's resolver has not been told any names yet.
    NoNames,
    /// The name is none of the container's networks'. It would be asked for outside.
    UnknownName(String),
    /// The name has no address now.
    NoAddress(String),
    /// It is for a VIP, and no replica takes work.
    NoReplica(IpAddr),
    /// The container has no route there.
    NoRoute(IpAddr),
    /// Nobody in the segment has this address, as far as the sandbox knows.
    NoNeighbour(IpAddr),
    /// It reached the gateway, and nothing leads on from there.
    Gateway(IpAddr),
    /// A firewall drops it.
    Dropped {
        /// At which node.
        node: usize,
        /// By which rule: its stable id.
        rule: String,
    },
    /// No node is at this VTEP.
    NoVtep(IpAddr),
    /// The protection of tunnels lets it neither pass nor seals or opens it.
    Unprotected {
        /// At which node.
        node: usize,
        /// Why.
        reason: Reason,
    },
    /// It came sealed with another key than that node opens it with.
    ForeignKey {
        /// At which node.
        node: usize,
        /// By which association.
        spi: Spi,
    },
    /// The underlay is cut between these nodes.
    Underlay {
        /// From here.
        from: usize,
        /// To there.
        to: usize,
    },
    /// That node has no such segment.
    NoSegment {
        /// The node.
        node: usize,
        /// The segment.
        vni: Vni,
    },
    /// That node's segment has no port for this Ethernet address.
    NoPort {
        /// The node.
        node: usize,
        /// The Ethernet address.
        mac: Mac,
    },
    /// It came to a container that does not have this address.
    Stranger {
        /// The container; `None` for a virtual machine's tap.
        container: Option<Name>,
        /// The address it was sent to.
        address: IpAddr,
    },
}

impl fmt::Display for Trace {
    /// One hop a line, then why it ends.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.request.iter().try_for_each(|hop| writeln!(f, "-> {hop}"))?;
        self.reply.iter().try_for_each(|hop| writeln!(f, "<- {hop}"))?;
        match &self.broken {
            Some(why) => writeln!(f, "lost: {why}"),
            None => writeln!(f, "answered"),
        }
    }
}

impl fmt::Display for Hop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name { name, address } => write!(f, "{name} is {address}"),
            Self::Service { vip, replica } => write!(f, "{vip} is balanced, to {replica} among others"),
            Self::Route { to, interface, via: None } => write!(f, "{to} is on the link of {interface}"),
            Self::Route { to, interface, via: Some(via) } => write!(f, "{to} by {interface} through {via}"),
            Self::Neighbour { address, mac } => write!(f, "{address} is at {mac}"),
            Self::Bridge { node, bridge, from, to } => write!(f, "node {node}: {bridge} from {from} to {to}"),
            Self::Tunnel { vni, from, to, sealed } => {
                write!(f, "VNI {vni} from {from} to {to}")?;
                sealed.iter().try_for_each(|spi| write!(f, ", sealed by {spi}"))
            }
            Self::Container(name) => write!(f, "container {name}"),
        }
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoContainer(name) => write!(f, "no container {name} is on a network"),
            Self::NoResolver => f.write_str("the node's agent is down, so nobody answers for names"),
            Self::NoNames => f.write_str("the container's resolver has no names yet"),
            Self::UnknownName(name) => write!(f, "{name} is no name of the container's networks"),
            Self::NoAddress(name) => write!(f, "{name} has no address now"),
            Self::NoReplica(vip) => write!(f, "no replica behind {vip} takes work"),
            Self::NoRoute(to) => write!(f, "no route to {to}"),
            Self::NoNeighbour(address) => write!(f, "nobody here is known to have {address}"),
            Self::Gateway(address) => write!(f, "nothing leads from the gateway {address} on"),
            Self::Dropped { node, rule } => write!(f, "dropped at node {node} by {rule}"),
            Self::NoVtep(vtep) => write!(f, "no node is at {vtep}"),
            Self::Unprotected { node, reason } => write!(f, "dropped at node {node}: {reason}"),
            Self::ForeignKey { node, spi } => write!(f, "node {node} has another key for {spi}"),
            Self::Underlay { from, to } => write!(f, "the underlay is cut from node {from} to node {to}"),
            Self::NoSegment { node, vni } => write!(f, "node {node} has no segment {vni}"),
            Self::NoPort { node, mac } => write!(f, "node {node} has no port for {mac}"),
            Self::Stranger { container: Some(name), address } => write!(f, "container {name} does not have {address}"),
            Self::Stranger { container: None, address } => write!(f, "what is plugged in does not have {address}"),
        }
    }
}
