//! Where a packet comes, and why it goes no further.

use std::fmt;
use std::net::IpAddr;

use overlay_core::{IfName, Mac, Name, NodeId, Vni};
use overlay_dns::DnsName;

use crate::Standing;

/// Whom an explanation is to lead to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// As the container would call it.
    Name(DnsName),
    /// An address.
    Address(IpAddr),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => name.fmt(f),
            Self::Address(address) => address.fmt(f),
        }
    }
}

/// Something that is as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Hop {
    /// The endpoint is plugged in.
    From {
        /// Its container.
        container: Name,
        /// Its network.
        network: Name,
    },
    /// The container's resolver has the name.
    Name {
        /// What was asked for.
        name: DnsName,
        /// What it stands for; the first of a family that the container has is taken.
        addresses: Vec<IpAddr>,
    },
    /// The container's routes lead out by this interface.
    Route {
        /// To where.
        to: IpAddr,
        /// By which interface.
        interface: IfName,
        /// Of which network.
        network: Name,
    },
    /// No network has it: the container's default route leads to a bridge of the node, its gateway bridge mostly, and out.
    Outside {
        /// To where.
        to: IpAddr,
        /// By which interface.
        interface: IfName,
        /// Through the bridge's address.
        gateway: IpAddr,
    },
    /// The container is a station of the physical network, where it leaves by this interface of the node. What becomes of it there is not seen from
    /// here.
    Physical {
        /// To where.
        to: IpAddr,
        /// By which of the node's interfaces.
        parent: IfName,
    },
    /// The address is a service's VIP: the container's own tables give each new flow to one of the replicas. The hops that follow are the first
    /// one's.
    Service {
        /// Its name.
        service: Name,
        /// The VIP.
        vip: IpAddr,
        /// How many replicas take work.
        replicas: usize,
        /// The address of the first.
        replica: IpAddr,
    },
    /// The sandbox's firewall lets it pass the bridge.
    Policy {
        /// By which rule.
        rule: String,
    },
    /// An endpoint of the network has the address.
    Peer {
        /// Its container.
        container: Name,
        /// The Ethernet address that is answered for it.
        mac: Mac,
    },
    /// That endpoint is on another node, which others may send to.
    Vtep {
        /// The node.
        node: NodeId,
        /// Where datagrams to it are sent.
        vtep: IpAddr,
        /// What is believed of it.
        standing: Standing,
    },
    /// The segment sends frames for the Ethernet address there. What becomes of them is that node's to explain.
    Entry {
        /// The segment.
        vni: Vni,
        /// The Ethernet address.
        mac: Mac,
        /// Where they are sent.
        vtep: IpAddr,
    },
    /// That endpoint is on this node, and its port is there.
    Here {
        /// Its container.
        container: Name,
    },
}

impl fmt::Display for Hop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::From { container, network } => write!(f, "from      {container}, plugged in to {network}"),
            Self::Name { name, addresses } => {
                let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
                write!(f, "name      {name} is {}", addresses.join(", "))
            }
            Self::Route { to, interface, network } => write!(f, "route     {to} by {interface}, to {network}"),
            Self::Outside { to, interface, gateway } => {
                write!(f, "outside   {to} by {interface} via {gateway}, as this node")
            }
            Self::Service { service, vip, replicas, replica } => {
                write!(f, "service   {vip} of {service} goes to one of {replicas}, say {replica}")
            }
            Self::Physical { to, parent } => write!(f, "physical  {to} by {parent}, as itself"),
            Self::Policy { rule } => write!(f, "policy    accepted by {rule}"),
            Self::Peer { container, mac } => write!(f, "peer      {container} at {mac}"),
            Self::Vtep { node, vtep, standing } => {
                let standing = match standing {
                    Standing::Alive => "alive",
                    Standing::Suspected => "suspected to have failed",
                    Standing::Suspended => "believed failed",
                };
                write!(f, "vtep      {vtep} of node {}, {standing}", node.short())
            }
            Self::Entry { vni, mac, vtep } => write!(f, "entry     segment {vni} sends {mac} to {vtep}"),
            Self::Here { container } => write!(f, "here      {container} is on this node"),
        }
    }
}

/// Why it goes no further.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Break {
    /// What is not as it should be, or missing.
    pub missing: String,
    /// What would repair it.
    pub repair: String,
}

impl fmt::Display for Break {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BROKEN    {}\nrepair    {}", self.missing, self.repair)
    }
}
