//! Why a manager did not do what it was told.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use overlay_core::{
    EndpointId, IpFamily, Mac, Mtu, Name, NetworkId, NodeId, Port, PortRange, Protocol, ServiceId, StoreError, Vni,
};
use overlay_ipam::{ClaimRefusal, SubnetError};
use serde::{Deserialize, Serialize};

use super::remote::Told;
use super::word::{self, Word};
use crate::{Kind, PublishMode, TooLong};

/// Why a call of [`Control`](crate::Control) failed. Nothing was changed unless it [is in doubt](Self::is_in_doubt).
///
/// It can be told to another process (serde): what is refused is the same there, text and all; the sources of the others become texts.
#[derive(Debug, Clone, Serialize, Deserialize, thiserror::Error)]
#[serde(into = "Told", from = "Told")]
#[non_exhaustive]
pub enum ControlError {
    /// The caller's to mend.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The store could not be used. Nothing was changed; try again.
    #[error("the store could not be used")]
    Store(#[source] Arc<StoreError>),
    /// Others were faster, every time. Nothing was changed; try again after a while.
    #[error("gave up after {attempts} attempts: others were faster")]
    Contended {
        /// How many commits were tried.
        attempts: u32,
    },
    /// An answer was lost, or the manager got stuck half-way: repeat the call with the same id. What is half-done is finished or
    /// undone by the next call, or by a manager's own settling.
    #[error("it may be done or not: repeat it with the same id")]
    InDoubt(#[source] Arc<dyn std::error::Error + Send + Sync>),
    /// The manager is in another process, and could not be asked: the source says why. Nothing was changed; try again.
    #[error("the manager could not be asked")]
    Unreachable(#[source] Arc<dyn std::error::Error + Send + Sync>),
    /// A record cannot be read: something else wrote it, or a later release.
    #[error("the record {key} cannot be read: {flaw}")]
    Corrupt {
        /// Its key.
        key: String,
        /// What is wrong with it.
        flaw: String,
    },
}

impl ControlError {
    /// Whether it may have been done all the same.
    pub const fn is_in_doubt(&self) -> bool {
        matches!(self, Self::InDoubt(_))
    }

    /// What is wrong with the request, if that is what it is.
    pub const fn refusal(&self) -> Option<&Refused> {
        match self {
            Self::Refused(refused) => Some(refused),
            _ => None,
        }
    }
}

/// What is wrong with a request, or in its way. Its text says what would be right.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Refused {
    /// Nothing is called so.
    #[error("{what} {reference} not found")]
    NotFound {
        /// `network`, `service`, `endpoint`, `node`.
        #[serde(deserialize_with = "word::read")]
        what: Word,
        /// What was given.
        reference: String,
    },
    /// The caller is a worker.
    #[error("only managers may {call}, and node {node} is a worker: ask at a manager, or have the node promoted")]
    OnlyManagers {
        /// What was asked for.
        call: String,
        /// Who asked.
        node: NodeId,
    },
    /// A worker speaks for itself alone.
    #[error("node {node} is a worker and may not {call} for {whom}: a worker speaks for itself alone")]
    NotItself {
        /// What was asked for.
        call: String,
        /// Who asked.
        node: NodeId,
        /// For whom.
        whom: String,
    },
    /// A cluster has one manager at least.
    #[error("node {node} is the last manager: promote another first")]
    LastManager {
        /// Which.
        node: NodeId,
    },
    /// Several ids begin so.
    #[error("{what} {reference} is ambiguous: {matches} ids begin so; give more of it, or the name")]
    Ambiguous {
        /// `network`, `service`, `node`.
        #[serde(deserialize_with = "word::read")]
        what: Word,
        /// What was given.
        reference: String,
        /// How many.
        matches: usize,
    },
    /// A name that every machine has a network of: `bridge`, `host`, `none`.
    #[error("{name} is a pre-defined network: it can be neither created nor removed; choose another name")]
    Predefined {
        /// The name.
        name: Name,
    },
    /// Another has the name, capitals or not.
    #[error("{what} {name} already exists, with id {id}: choose another name")]
    NameTaken {
        /// `network`, `service`, `node`.
        #[serde(deserialize_with = "word::read")]
        what: Word,
        /// The name.
        name: Name,
        /// Who has it.
        id: String,
    },
    /// The id is that of something else.
    #[error("{what} {id} exists and is not what is asked for: choose another id, or remove it first")]
    Differs {
        /// `network`, `service`, `endpoint`.
        #[serde(deserialize_with = "word::read")]
        what: Word,
        /// The id.
        id: String,
    },
    /// An option that a network has for good.
    #[error("a network's {option} cannot be changed: leave it as it is, or create another network")]
    Fixed {
        /// `name`, `kind`, `ingress`, `internal`, `encrypted`, `VNI`.
        #[serde(deserialize_with = "word::read")]
        option: Word,
    },
    /// A network loses no subnet that it has, nor gets another in its place.
    #[error(
        "a network keeps its subnets, in their order: name them as they were asked for, and those to add behind them"
    )]
    SubnetsKept,
    /// A network of this id was there and was removed: an id names one network for good.
    #[error("{what} {id} was removed: choose another id")]
    Spent {
        /// `network`.
        #[serde(deserialize_with = "word::read")]
        what: Word,
        /// The id.
        id: String,
    },
    /// It is being removed.
    #[error("{what} {id} is being removed")]
    Removing {
        /// `network`, `service`, `endpoint`, `node`.
        #[serde(deserialize_with = "word::read")]
        what: Word,
        /// Its id.
        id: String,
    },
    /// It was removed while it was being created.
    #[error("{what} {id} was removed before it was complete")]
    Withdrawn {
        /// `network`, `service`, `endpoint`.
        #[serde(deserialize_with = "word::read")]
        what: Word,
        /// Its id.
        id: String,
    },
    /// It has not got what it needs yet: another manager is at it, or has died at it.
    #[error("{what} {id} is not allocated yet: try again")]
    NotAllocated {
        /// `network`, `endpoint`.
        #[serde(deserialize_with = "word::read")]
        what: Word,
        /// Its id.
        id: String,
    },
    /// The record is larger than the store takes.
    #[error("{size} {what} are more than the store takes, {limit}: give fewer labels, names or ports")]
    TooLarge {
        /// What there is too much of.
        what: String,
        /// How much there is.
        size: usize,
        /// How much there may be.
        limit: usize,
    },

    /// No container is attached to the ingress network.
    #[error("ingress network cannot be attachable: leave out one of the two")]
    IngressAttachable,
    /// The ingress network is there for what comes in.
    #[error("ingress network cannot be internal: leave out one of the two")]
    IngressInternal,
    /// A cluster has one ingress network.
    #[error("ingress network ({id}) is already present: remove it first")]
    IngressPresent {
        /// Which is.
        id: NetworkId,
    },
    /// Networks of this kind have no such thing.
    #[error("a network of kind {kind} has no {option}: leave it out, or choose another kind")]
    KindLacks {
        /// Its kind.
        kind: Kind,
        /// `ingress`, `encrypted`, `VNI`, `internal`, `external subnets`.
        #[serde(deserialize_with = "word::read")]
        option: Word,
    },
    /// Every node has one network of this kind from its beginning.
    #[error("there is one network of kind {kind} on every node: create one of another kind")]
    OnePerNode {
        /// The kind.
        kind: Kind,
    },
    /// The subnets of a macvlan network are not ours to choose.
    #[error(
        "a macvlan network has the physical network's subnets: name them, and the range of them that is for containers"
    )]
    PhysicalSubnet,
    /// IPv6 needs larger packets (RFC 8200 §5).
    #[error("a network with IPv6 subnets needs an MTU of {} or more, not {mtu}", Mtu::IPV6_MIN)]
    MtuBelowIpv6 {
        /// What was asked for.
        mtu: Mtu,
    },
    /// The subnets cannot be had.
    #[error(transparent)]
    Subnet(#[from] SubnetError),
    /// The VNI cannot be had.
    #[error("VNI {0}")]
    Vni(ClaimRefusal<Vni>),
    /// No port of its own can be had for the network.
    #[error(
        "no UDP port of its own is left for the network: {0}; share the others', or give managers and nodes a larger range"
    )]
    OwnPort(ClaimRefusal<Port>),
    /// Ports of which networks would have their own are something else's.
    #[error(
        "networks cannot have ports of their own among {range}: nodes need {port}/udp otherwise; give managers and nodes another range"
    )]
    OwnPorts {
        /// The range.
        range: PortRange,
        /// The first of it that is something else's.
        port: Port,
    },
    /// Somebody uses the network.
    #[error("network {network} is in use by {user}: remove that first")]
    NetworkInUse {
        /// Its name.
        network: Name,
        /// Who.
        user: User,
    },
    /// A service publishes ports through the ingress network.
    #[error("ingress network {network} cannot be removed because service {service} depends on it: remove that first")]
    IngressInUse {
        /// The network's name.
        network: Name,
        /// The service's.
        service: Name,
    },
    /// The network could not be allocated.
    #[error("network {network} has failed: {reason}")]
    NetworkFailed {
        /// Its name.
        network: Name,
        /// Why.
        reason: String,
    },

    /// A service has its ports through the ingress network without being on it.
    #[error("service cannot be explicitly attached to the ingress network {network}: leave it out")]
    ServiceOnIngress {
        /// Its name.
        network: Name,
    },
    /// Ports are published and nothing is there to publish them on.
    #[error("service needs ingress network, but no ingress network is present: create one, or publish in host mode")]
    NoIngress,
    /// The routing mesh needs a VIP.
    #[error("a port published with ingress mode can't be used with dnsrr mode: publish in host mode, or use mode vip")]
    IngressWithRoundRobin,
    /// Who asks for a service of mode `dnsrr` chooses himself.
    #[error("a service of mode dnsrr has no scheduler, affinity or timeouts: leave them out, or use mode vip")]
    BalancingWithRoundRobin,
    /// The work cannot be shared so, or nodes cannot do it.
    #[error("service {service}: {wanted}: {reason}")]
    Balancing {
        /// Its name.
        service: Name,
        /// What was asked for.
        wanted: String,
        /// Why that cannot be, and what could.
        reason: String,
    },
    /// One port is published twice.
    #[error("duplicate published ports provided: {port}/{protocol}")]
    DuplicatePort {
        /// The port.
        port: Port,
        /// Its protocol.
        protocol: Protocol,
    },
    /// Two ports of the containers have one name.
    #[error("{protocol} ports {} and {} are both called {name}: by a name, one port is found", targets[0], targets[1])]
    DuplicatePortName {
        /// The name.
        name: Name,
        /// Of both.
        protocol: Protocol,
        /// The containers' ports.
        targets: [Port; 2],
    },
    /// Another service has published the port.
    #[error("port '{port}' is already in use by service '{service}' ({id}) as {}", PortUse(*mode))]
    PortInUse {
        /// The port.
        port: Port,
        /// Its protocol.
        protocol: Protocol,
        /// Who has it.
        service: Name,
        /// Its id.
        id: ServiceId,
        /// How it publishes it.
        mode: PublishMode,
    },
    /// A published port is reached at places, or by clients, that make no sense.
    #[error("port {target}/{protocol} cannot be published so: {reason}")]
    Access {
        /// The container's port.
        target: Port,
        /// Its protocol.
        protocol: Protocol,
        /// What is wrong, and what would be right.
        reason: String,
    },
    /// A port that nodes need themselves cannot be published away.
    #[error(
        "port {port}/{protocol} is kept for the nodes themselves: publish another, or change what managers and nodes keep"
    )]
    PortKept {
        /// The port.
        port: Port,
        /// Its protocol.
        protocol: Protocol,
    },
    /// What is the same on all nodes cannot be on a network that is each node's own.
    #[error(
        "a service cannot be on network {network}, of kind {kind}, which each node has for itself: name overlay networks"
    )]
    ServiceOnLocal {
        /// Its name.
        network: Name,
        /// Its kind.
        kind: Kind,
    },
    /// No port is left to be chosen, or that one cannot be had.
    #[error("port {0}")]
    Port(ClaimRefusal<Port>),
    /// A service has more of something than can be written in one commit.
    #[error("a service has at most {most} {what}, not {found}")]
    TooMany {
        /// `networks`, `published ports`.
        #[serde(deserialize_with = "word::read")]
        what: Word,
        /// How many were given.
        found: usize,
        /// How many there may be.
        most: usize,
    },
    /// Endpoints serve it still.
    #[error("service {service} is served by {user} still: detach that first")]
    ServiceInUse {
        /// Its name.
        service: Name,
        /// By whom.
        user: User,
    },

    /// The network takes containers of services only.
    #[error("network {network} not manually attachable: name a service, or create it attachable")]
    NotAttachable {
        /// Its name.
        network: Name,
    },
    /// Nothing is made for a container on this network.
    #[error("nothing is attached to network {network}: {}", unattached(*kind))]
    NothingToAttach {
        /// Its name.
        network: Name,
        /// Its kind: [`Host`](Kind::Host) or [`None`](Kind::None).
        kind: Kind,
    },
    /// The routing mesh has its network for itself, and for those that serve a published port.
    #[error(
        "only containers of a service that publishes a port in mode ingress or local are attached to the ingress network {network}: name such a service, or choose another network"
    )]
    OnIngress {
        /// Its name.
        network: Name,
    },
    /// The endpoint on the ingress network that a container has by its service goes where that goes by which it serves.
    #[error(
        "endpoint {endpoint} is what container {container} has by its service: move the endpoint by which it serves, and it goes along"
    )]
    GoesAlong {
        /// The endpoint.
        endpoint: EndpointId,
        /// The container.
        container: Name,
    },
    /// The container is on the network.
    #[error("container {container} is already attached to network {network}, by endpoint {endpoint}")]
    AlreadyAttached {
        /// The container.
        container: Name,
        /// The network's name.
        network: Name,
        /// By which endpoint.
        endpoint: EndpointId,
    },
    /// The service is not on the network.
    #[error("service {service} is not on network {network}: attach to one of its networks")]
    ServiceElsewhere {
        /// The service's name.
        service: Name,
        /// The network's.
        network: Name,
    },
    /// The address cannot be had.
    #[error("address {0}")]
    Address(ClaimRefusal<IpAddr>),
    /// One endpoint has one address of a family.
    #[error("two {family} addresses for one endpoint: give one")]
    TwoAddresses {
        /// The family.
        family: IpFamily,
    },
    /// No station can have the Ethernet address.
    #[error("{mac} is a group's address or zero: give a station's")]
    NoStation {
        /// The address.
        mac: Mac,
    },
    /// The segment itself has the Ethernet address: those from `02:6f:76` and `06:6f:76` on are its bridges' and ports'.
    #[error("{mac} is a segment's own: give one that does not begin with 02:6f:76 or 06:6f:76")]
    MacReserved {
        /// The address.
        mac: Mac,
    },
    /// Its node could not tell the others of it.
    #[error("{0}: give fewer or shorter names and labels")]
    TooLong(TooLong),
    /// Another endpoint of the network has the Ethernet address.
    #[error("{mac} is the Ethernet address of endpoint {endpoint}: give another, or none")]
    MacTaken {
        /// The address.
        mac: Mac,
        /// Who has it.
        endpoint: EndpointId,
    },
}

/// Who uses something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum User {
    /// A service.
    Service {
        /// Its name.
        name: Name,
        /// Its id.
        id: ServiceId,
    },
    /// A container, by an endpoint.
    Container {
        /// The container.
        container: Name,
        /// Where it runs.
        node: NodeId,
        /// By which endpoint.
        endpoint: EndpointId,
    },
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service { name, .. } => write!(f, "service {name}"),
            Self::Container { container, node, .. } => write!(f, "container {container} on node {}", node.short()),
        }
    }
}

/// What to do instead of attaching to it.
const fn unattached(kind: Kind) -> &'static str {
    match kind {
        Kind::Host => "start the container in its node's namespace",
        _ => "start the container with a namespace of its own, and leave it as it is",
    }
}

struct PortUse(PublishMode);

impl fmt::Display for PortUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            PublishMode::Ingress | PublishMode::Local => "an ingress port",
            PublishMode::Host => "a host-published port",
        })
    }
}
