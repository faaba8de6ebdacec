//! What an agent is told, and what it tells.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use overlay_core::{EndpointId, IfName, Mtu, Name, NodeId, NsKey, Port, Protocol};
use overlay_crypto::gossip::KeyId;
use overlay_crypto::{SaId, Usage};
use overlay_dns::Health;
use overlay_gossip::Class;

use super::UnderlayError;
use crate::{CatalogueChange, GatewayPort, Place, PlaceState, Reference};

/// Something that happened, outside of the machine.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// A message of another node arrived, its seal opened.
    Message {
        /// From where: a datagram's source, or the far end of a stream.
        from: SocketAddr,
        /// In a datagram, or on a stream.
        class: Class,
        /// What.
        payload: Bytes,
    },
    /// Something in the catalogue is other than before.
    Catalogue(CatalogueChange),
    /// Call these addresses until a node answers.
    Join(Vec<SocketAddr>),
    /// The container of an endpoint is there. It may come before the catalogue knows of the endpoint; again, with another namespace,
    /// when the container was started anew; then say also that its place holds nothing any more, by [`Applied`](Self::Applied).
    Plug {
        /// The endpoint.
        endpoint: EndpointId,
        /// The container's namespace; none for a virtual machine, which has a tap in the sandbox.
        namespace: Option<NsKey>,
        /// What the endpoint's interface is to be called there; or the tap.
        interface: IfName,
        /// Whether it is as an earlier start of this node has left it: then one that the catalogue has as ready is in effect already. Any other is once its
        /// places hold it.
        adopted: bool,
    },
    /// A container has a port of the node's [gateway bridge](crate::GatewayBridge) from now on, which no other has; or none any more.
    GatewayPort {
        /// The container.
        container: Name,
        /// Its port.
        port: Option<GatewayPort>,
    },
    /// The container of an endpoint is gone. Nothing happens if it is not plugged in.
    Unplug(EndpointId),
    /// Whether an endpoint that is plugged in should be sent to. Nothing happens if it is not.
    Health(EndpointId, Health),
    /// The endpoints of a service are wanted, whether or not there is one that is called so: see [`Agent::watched`](crate::Agent::watched). Its networks are
    /// followed for that, be there an endpoint here or not.
    Watch(Reference),
    /// They are not any more. Nothing happens if they were not.
    Unwatch(Reference),
    /// The underlay is otherwise from now on.
    Underlay {
        /// Where datagrams are sent from and received at.
        vtep: IpAddr,
        /// Largest packet.
        mtu: Mtu,
    },
    /// A place was given a state.
    Applied {
        /// The place.
        place: Place,
        /// What it was given, of [`Desired`](crate::Desired); `None` if it was to hold nothing.
        state: Option<Arc<PlaceState>>,
        /// Whether it holds that now, or why not.
        result: Result<(), String>,
    },
    /// The ports of the node's host that services publish and that other programs of it listen at, and which: all there are.
    Taken(BTreeMap<(Protocol, Port), String>),
    /// An association was lost that was put to work, so its key is spent: all tunnels get others, of a new epoch; once in ten seconds at most, so
    /// whoever finds something lost again and again may say so each time. Nothing happens while none is protected.
    Rekey,
    /// What was sealed so far by associations that the host holds, or opened; of all or of some. When a key was used for as much as it may be, all get others, without a packet lost.
    Used(BTreeMap<SaId, Usage>),
    /// The keys of encrypted networks are to be changed for others now, without a packet lost. Nothing happens while none is protected.
    RotateKeys,
    /// All nodes are to change to a new key of gossip, without losing each other, which the nodes `without` do not get. Nothing happens where gossip is not sealed.
    RotateGossipKeys {
        /// Nodes that are the cluster's no more.
        without: BTreeSet<NodeId>,
    },
    /// A node is the cluster's no more: gossip gets a new key that it does not have. All nodes may be told so; one of them sees to it.
    GossipWithout(NodeId),
    /// The [keys of gossip](crate::Agent::gossip_keys) are written down as they were at that [event](AgentEvent::GossipKeys).
    GossipKeysKept {
        /// Its version.
        version: u64,
    },
    /// What this node shows of the key that it signs with is another, see [`Vouch::voucher`](crate::Vouch::voucher): its certificate was renewed. Nothing happens where gossip is not signed.
    Vouch,
    /// Say goodbye; ends with [`AgentEvent::Gone`].
    Leave,
}

/// Something that an agent tells.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum AgentEvent {
    /// What is [`desired`](crate::Agent::desired) may be other than before, or what is [watched](crate::Agent::watched).
    Changed,
    /// What became of an endpoint, to be passed on to [`Control::report`](crate::Control::report).
    Report {
        /// The endpoint.
        endpoint: EndpointId,
        /// Of which of its stays here that is true: [`Stay::moves`](crate::Stay).
        moves: u64,
        /// In effect, or why not.
        result: Result<(), String>,
    },
    /// An endpoint that was plugged in is not this node's any more: it ended or moved, and is unplugged.
    Withdrawn(EndpointId),
    /// A cluster has answered.
    Joined,
    /// Another start of this very node is in the cluster, or another node with its id: [begin anew](crate::Agent::begin_anew) with a greater
    /// incarnation.
    Superseded {
        /// The greatest that was heard of.
        incarnation: u64,
    },
    /// These nodes have not confirmed in time that they can open what is sealed with this node's next key, or that they seal with it: they are not waited for any more.
    LeftBehind {
        /// Which, as far as they are still behind.
        nodes: BTreeSet<NodeId>,
    },
    /// The [keys of gossip](crate::Agent::gossip_keys) are other than before: to be written down, and then told by [`Input::GossipKeysKept`]. Others hear of them after that.
    GossipKeys {
        /// Counts these events.
        version: u64,
    },
    /// Others seal with a key that this node lacks: see [`Agent::lacking_gossip_key`](crate::Agent::lacking_gossip_key). Told once a minute at most.
    LackingGossipKey {
        /// Its name.
        key: KeyId,
    },
    /// The goodbye is said: this machine does nothing more.
    Gone,
}

/// An input that makes no sense. Nothing has changed but a count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InputError {
    /// A message that nobody sealed who has a key.
    #[error(transparent)]
    Unopened(#[from] overlay_crypto::gossip::OpenError),
    /// Bytes that are no message.
    #[error(transparent)]
    Malformed(#[from] overlay_gossip::Malformed),
    /// Another endpoint is plugged in there.
    #[error("endpoint {by} is plugged in at {interface} there; unplug it first, or take another interface")]
    Occupied {
        /// The other.
        by: EndpointId,
        /// Where.
        interface: IfName,
    },
    /// The name of the interface by which containers reach the outside.
    #[error("{interface} is what a container's interface to the outside is called; take another name")]
    Reserved {
        /// The name.
        interface: IfName,
    },
    /// Another container has that port of the gateway bridge.
    #[error("container {by} has that port of the gateway bridge; give each its own")]
    GatewayPortTaken {
        /// The other.
        by: Name,
    },
    /// An end of the underlay that cannot be used.
    #[error(transparent)]
    Underlay(#[from] UnderlayError),
}
