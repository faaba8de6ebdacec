//! What can be seen of a driver from outside.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use overlay_core::{EndpointId, NodeId};
use overlay_gossip::Role;
use overlay_node::{Agent, Standing};
use serde::{Deserialize, Serialize};

use crate::{Plugged, SignedStatus};

/// How a node is doing, at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The node.
    pub node: NodeId,
    /// Where its gossip port is reached.
    pub address: SocketAddr,
    /// The nodes it knows of, itself included.
    pub members: Vec<MemberStatus>,
    /// Its places, and how far they are.
    pub places: Vec<PlaceStatus>,
    /// What is plugged in.
    pub plugged: Vec<Plugged>,
    /// How many endpoints it knows of on other nodes: those of the networks that something is plugged into here.
    pub known: usize,
    /// Why the catalogue cannot be heard, while it cannot.
    pub catalogue: Option<String>,
    /// Its keys for encrypted networks; `None` while it is on none.
    #[serde(default)]
    pub keys: Option<KeysStatus>,
    /// What gossip is sealed with; `None` if it is not.
    #[serde(default)]
    pub seal: Option<SealStatus>,
    /// What was not taken since its owner has not signed it; `None` where gossip is not signed.
    #[serde(default)]
    pub signed: Option<SignedStatus>,
    /// Files of what was plugged in that are damaged, and what is wrong with them: their containers are to be attached again.
    #[serde(default)]
    pub unreadable: Vec<String>,
    /// What nodes say of endpoints that they were not given, and what of it; 64 at most. What comes or moves is among them for a moment.
    #[serde(default)]
    pub contested: Vec<String>,
}

/// A node's own keys for encrypted networks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeysStatus {
    /// The epoch of those that it seals by.
    pub epoch: u64,
    /// `steady`, or how far they are changed: `installing`, `promoted`.
    pub stage: String,
    /// Why they were changed last, in words.
    pub cause: Option<String>,
    /// How often they were.
    pub rotations: u64,
    /// How often a node was not waited for any more.
    pub left_behind: u64,
}

/// The keys that a node's gossip is sealed with, by their names, and what it did not open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealStatus {
    /// What it seals with.
    pub primary: String,
    /// The number of that key; a later one has a higher.
    #[serde(default)]
    pub number: u64,
    /// What it opens with, oldest first.
    pub keys: Vec<String>,
    /// How far the change to a new key is that this node makes: `steady` while it makes none.
    #[serde(default)]
    pub stage: String,
    /// A key that others seal with and that is not here: it was changed while this node was away, and comes by another way than gossip.
    #[serde(default)]
    pub lacking: Option<String>,
    /// Messages that nobody sealed who has one of the keys.
    pub refused: u64,
}

/// A node as another sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberStatus {
    /// The node.
    pub node: NodeId,
    /// Where its gossip port is reached.
    pub address: SocketAddr,
    /// Its end of tunnels.
    pub vtep: IpAddr,
    /// The largest packet of its underlay.
    pub mtu: u32,
    /// `alive`, `suspected` or `suspended`.
    pub standing: String,
    /// Whether it says that it is a manager.
    #[serde(default)]
    pub manager: bool,
}

/// A place, and whether it holds what it should.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlaceStatus {
    /// Which: `host`, `network …`, `container …`.
    pub place: String,
    /// Whether it does, as far as is known.
    pub holds: bool,
    /// Why it could not be brought to it, last.
    pub failure: Option<String>,
    /// What balances services there, and in brackets why it is not what would come before it: IPVS before nf_tables.
    #[serde(default)]
    pub balancer: Option<String>,
    /// Of the host, what keeps clients from ports that services publish there, and what would be right: other programs that listen, switches
    /// that are off, ports that the node needs itself.
    #[serde(default)]
    pub hindrances: Vec<String>,
    /// Of the host, the published ports whose containers see the node in place of who asks, as their services declare it.
    #[serde(default)]
    pub masqueraded: Vec<String>,
}

/// Something that happened, for a log.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum DriverEvent {
    /// A cluster has answered.
    Joined,
    /// A place was changed: the steps, one a line.
    Changed {
        /// Which.
        place: String,
        /// What was done.
        steps: String,
    },
    /// A place could not be brought to what it should hold. It is tried again.
    Failed {
        /// Which.
        place: String,
        /// Why.
        reason: String,
    },
    /// A container is not where it was: its endpoint was unplugged.
    Vanished(EndpointId),
    /// The catalogue has an endpoint no more on this node: it was unplugged, or its damaged file erased.
    Withdrawn(EndpointId),
    /// The catalogue cannot be heard. It is tried again; what is there stays.
    Deaf {
        /// Why.
        reason: String,
    },
    /// Names cannot be answered at a place. It is tried again.
    Nameless {
        /// Which.
        place: String,
        /// Why.
        reason: String,
    },
    /// What became of an endpoint could not be written into the catalogue. It is tried again.
    Unreported {
        /// Which.
        endpoint: EndpointId,
        /// Why.
        reason: String,
    },
    /// Something keeps clients from a port that a service publishes at this node.
    Hindered {
        /// What, and what would be right.
        reason: String,
    },
    /// These nodes have not followed in time as this one changed its keys: what they seal with the old ones is lost until they do.
    LeftBehind {
        /// Which, as far as they are still behind.
        nodes: BTreeSet<NodeId>,
    },
    /// Gossip is sealed with this key from now on.
    GossipKey {
        /// Its name.
        key: String,
        /// Its number.
        number: u64,
    },
    /// Others seal with a key that this node lacks: it was away as the key was changed.
    LackingGossipKey {
        /// Its name.
        key: String,
    },
    /// The keys of gossip could not be written down. It is tried again; until then this node confirms none to others.
    GossipKeysUnwritten {
        /// Why.
        reason: String,
    },
    /// Something that this node keeps, or is told, cannot be read, as that of a later release. What it says is overlooked; what was known of it stays.
    Unreadable {
        /// What it is: a file, a record's key, or a kind of change.
        what: String,
        /// What is wrong with it, and what would be right.
        reason: String,
    },
    /// Another start of this node is in the cluster: this one goes on as a later one.
    Superseded,
}

impl fmt::Display for DriverEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Joined => f.write_str("joined the cluster"),
            Self::Changed { place, steps } => {
                write!(f, "{place}: {} steps", steps.lines().count())?;
                steps.lines().try_for_each(|step| write!(f, "\n    {step}"))
            }
            Self::Failed { place, reason } => write!(f, "{place} does not hold what it should: {reason}"),
            Self::Vanished(endpoint) => write!(f, "the container of endpoint {} has ended", endpoint.short()),
            Self::Withdrawn(endpoint) => write!(f, "endpoint {} is not on this node any more", endpoint.short()),
            Self::Deaf { reason } => write!(f, "the catalogue cannot be heard: {reason}"),
            Self::Nameless { place, reason } => write!(f, "no names at {place}: {reason}"),
            Self::Unreported { endpoint, reason } => {
                write!(f, "endpoint {} is not reported: {reason}", endpoint.short())
            }
            Self::Hindered { reason } => f.write_str(reason),
            Self::LeftBehind { nodes } => {
                let nodes: Vec<String> = nodes.iter().map(|node| node.short().to_string()).collect();
                write!(f, "not waited for any more as keys are changed: {}", nodes.join(", "))
            }
            Self::GossipKey { key, number } => {
                write!(f, "gossip is sealed with key {key}, the cluster's number {number}")
            }
            Self::LackingGossipKey { key } => write!(
                f,
                "others seal gossip with key {key}, which is not here; it does not come by gossip: start the node again with it in a --gossip-key file, or install and promote it"
            ),
            Self::GossipKeysUnwritten { reason } => write!(f, "the keys of gossip are not written down: {reason}"),
            Self::Unreadable { what, reason } => write!(f, "{what} cannot be read: {reason}"),
            Self::Superseded => f.write_str("another start of this node is in the cluster"),
        }
    }
}

pub(crate) fn keys(agent: &Agent) -> Option<KeysStatus> {
    let metrics = agent.metrics();
    Some(KeysStatus {
        epoch: metrics.epoch?.get(),
        stage: metrics.stage?.to_string(),
        cause: agent.knowledge().rotated.map(|cause| cause.to_string()),
        rotations: metrics.rotations.ended,
        left_behind: metrics.rotations.left_behind,
    })
}

pub(crate) fn members(agent: &Agent) -> Vec<MemberStatus> {
    let managers: BTreeSet<NodeId> =
        agent.gossip().members().filter(|(it, _)| it.role == Role::Manager).map(|(it, _)| it.id).collect();
    let own = (agent.gossip().me().role == Role::Manager).then(|| agent.gossip().me().id);
    let member = |(node, facts): (&NodeId, &overlay_node::NodeFacts)| MemberStatus {
        node: *node,
        address: facts.address,
        vtep: facts.vtep,
        mtu: facts.mtu.get(),
        standing: match facts.standing {
            Standing::Alive => "alive",
            Standing::Suspected => "suspected",
            Standing::Suspended => "suspended",
        }
        .to_owned(),
        manager: managers.contains(node) || own == Some(*node),
    };
    agent.knowledge().nodes.iter().map(member).collect()
}
