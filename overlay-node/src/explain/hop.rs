//! Where a packet comes, and why it goes no further.

use std::fmt;
use std::net::IpAddr;

use overlay_core::{IfName, Mac, Name, NodeId, Port, Protocol, Vni};
use overlay_crypto::{Cause, EpochRecords, Spi};
use overlay_dns::DnsName;
use overlay_lb::Weight;
use serde::{Serialize, Serializer};

use crate::{PublishMode, PublishedPort, Standing};

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
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "hop", rename_all = "snake_case")]
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
        #[serde(serialize_with = "text")]
        name: DnsName,
        /// What it stands for; the first of a family that the container has is taken.
        addresses: Vec<IpAddr>,
        /// Why it does.
        of: NameOf,
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
        /// All that are known, those too that take none.
        backends: Vec<ServiceBackend>,
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
    /// The network is encrypted: what goes there is sealed, by keys that were agreed on with that node.
    Sealed {
        /// The UDP port that is guarded.
        port: Port,
        /// By how many associations.
        lanes: usize,
        /// The SPIs of those; what is sent carries one of them.
        spis: Vec<Spi>,
        /// What this node has published of its keys.
        here: Option<EpochRecords>,
        /// Why it changed them last.
        cause: Option<Cause>,
        /// What that node has published.
        there: EpochRecords,
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
    /// A client asks the node for a port.
    Client {
        /// Who asks.
        client: IpAddr,
        /// At which of the node's addresses.
        at: IpAddr,
        /// By which interface it comes in; `None` if it is on the node itself.
        by: Option<IfName>,
        /// Of TCP, UDP or SCTP.
        protocol: Protocol,
        /// For which port.
        port: Port,
    },
    /// A service publishes the port at this node.
    Published {
        /// Its name.
        service: Name,
        /// How, and where.
        port: Box<PublishedPort>,
    },
    /// The node gives each new flow to one of these. The hops that follow are the first one's.
    Replicas {
        /// Whose they are.
        service: Name,
        /// Their addresses; one at least.
        replicas: Vec<IpAddr>,
    },
    /// A program of the node listens at the port too, and is not asked.
    Unasked {
        /// Which.
        program: String,
    },
}

impl fmt::Display for Hop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::From { container, network } => write!(f, "from      {container}, plugged in to {network}"),
            Self::Name { name, addresses, of } => {
                let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
                write!(f, "name      {name} is {}{of}", addresses.join(", "))
            }
            Self::Route { to, interface, network } => write!(f, "route     {to} by {interface}, to {network}"),
            Self::Outside { to, interface, gateway } => {
                write!(f, "outside   {to} by {interface} via {gateway}, as this node")
            }
            Self::Service { service, vip, replicas, replica, backends } => {
                write!(f, "service   {vip} of {service} goes to one of {replicas}, say {replica}")?;
                let idle = backends.iter().filter(|it| it.condition != overlay_lb::Condition::Active);
                idle.take(SHOWN).try_for_each(|it| write!(f, "; not to {}, {}", Addresses(&it.addresses), it.why()))
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
            Self::Sealed { port, lanes, spis, here, cause, there } => {
                write!(f, "sealed    port {port} by {lanes} associations, ")?;
                if let Some(here) = here {
                    write!(f, "of epoch {} here ({}", here.current.epoch, here.stage())?;
                    cause.map_or(Ok(()), |cause| write!(f, ", changed last: {cause}"))?;
                    f.write_str(") and ")?;
                }
                write!(f, "of epoch {} there ({})", there.current.epoch, there.stage())?;
                spis.first().map_or(Ok(()), |first| write!(f, ", from SPI {:#x} on", first.get()))
            }
            Self::Entry { vni, mac, vtep } => write!(f, "entry     segment {vni} sends {mac} to {vtep}"),
            Self::Here { container } => write!(f, "here      {container} is on this node"),
            Self::Client { client, at, by, protocol, port } => {
                write!(f, "client    {client} asks for {protocol} {port} at {at}")?;
                match by {
                    Some(by) => write!(f, ", by {by}"),
                    None => f.write_str(", from the node itself"),
                }
            }
            Self::Published { service, port } => {
                write!(f, "published by {service}, to {} of its containers, {}", port.target, Manner(port))
            }
            Self::Replicas { service, replicas } => {
                let first: Vec<_> = replicas.iter().take(SHOWN).map(ToString::to_string).collect();
                write!(f, "replicas  {} of {service}: {}", replicas.len(), first.join(", "))?;
                if replicas.len() > SHOWN { f.write_str(", …") } else { Ok(()) }
            }
            Self::Unasked { program } => write!(f, "unasked   {program} listens there too"),
        }
    }
}

/// Why a name stands for what it does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum NameOf {
    /// It is an endpoint's: its container's name, or another that it has there.
    Endpoint,
    /// It is a service's of mode `vip`: its VIPs.
    Vip(Name),
    /// It is a service's of mode `dnsrr`: the endpoints that take work, in another order each time. The first that is named here is one of them.
    RoundRobin(Name),
    /// It is `tasks.` and a service's: all endpoints that take work, whatever the mode.
    Tasks(Name),
}

impl fmt::Display for NameOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Endpoint => Ok(()),
            Self::Vip(service) => write!(f, ", the VIP of service {service}"),
            Self::RoundRobin(service) => write!(f, ", of service {service} in turn"),
            Self::Tasks(service) => write!(f, ", the endpoints of service {service}"),
        }
    }
}

/// A replica of a service, as the balancer there has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ServiceBackend {
    /// Where it is reached.
    pub addresses: Vec<IpAddr>,
    /// What it gets.
    pub condition: overlay_lb::Condition,
    /// Its share.
    pub weight: Weight,
}

impl ServiceBackend {
    const fn why(&self) -> &'static str {
        match self.condition {
            overlay_lb::Condition::Active => "which takes work",
            overlay_lb::Condition::Draining => "which gets no new flows",
            overlay_lb::Condition::Down => "which is down",
        }
    }
}

struct Addresses<'a>(&'a [IpAddr]);

impl fmt::Display for Addresses<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<_> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&texts.join(" and "))
    }
}

fn text<S: Serializer>(name: &DnsName, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(name)
}

/// So many replicas are shown by their addresses.
const SHOWN: usize = 8;

/// How a port is published.
struct Manner<'p>(&'p PublishedPort);

impl fmt::Display for Manner<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PublishedPort { mode, source, access, .. } = self.0;
        f.write_str(match mode {
            PublishMode::Ingress => "in mode ingress",
            PublishMode::Local => "in mode local",
            PublishMode::Host => "in mode host",
        })?;
        f.write_str(if source.is_kept() { "" } else { ", masqueraded: they see the node" })?;
        access.addresses.iter().try_for_each(|it| write!(f, ", at {it}"))?;
        access.interfaces.iter().try_for_each(|it| write!(f, ", by {it}"))?;
        access.nodes.iter().try_for_each(|it| write!(f, ", at node {}", it.short()))?;
        access.sources.iter().try_for_each(|it| write!(f, ", for {it}"))
    }
}

/// Why it goes no further.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
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
