//! What goes wrong.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use overlay_core::{BackendError, EndpointId, IfName, Name};
use overlay_crypto::gossip::KeyringError;
use overlay_node::{AgentError, ControlError, GossipKeyError, InputError};

/// Why a driver did not start. Nothing is left of it, but for a node that the catalogue has.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The gossip port is taken, or the host does not have the address.
    #[error("the gossip port at {address} cannot be bound: free it, or give an address that this host has")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        source: BackendError,
    },
    /// A socket cannot be given to the runtime: start it within one that does I/O and time.
    #[error("a socket cannot be served")]
    Runtime(#[source] io::Error),
    /// No device of the host has the address of the tunnels' end.
    #[error("no device of this host has {vtep}: give an address that it has")]
    Vtep {
        /// The address.
        vtep: std::net::IpAddr,
    },
    /// The underlay cannot be looked at.
    #[error("the underlay cannot be looked at")]
    Underlay(#[source] BackendError),
    /// Something of the configuration is out of range.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// The directory cannot be used.
    #[error("the directory {} cannot be used", dir.display())]
    Dir {
        /// Which.
        dir: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// What is plugged in is written down as another release does it, and what it has in the kernel would be taken away: it stays as it is.
    #[error(
        "what is plugged in cannot be read from {}: {reason}; start the release that wrote it, or remove the file: then its container has no network until it is attached again", file.display()
    )]
    Plug {
        /// Where.
        file: PathBuf,
        /// What is not understood.
        reason: String,
    },
    /// Another process runs this node.
    #[error("a node runs with the directory {} already: stop it first, or give this one another", dir.display())]
    Running {
        /// Which.
        dir: PathBuf,
    },
    /// No subnet is free for the gateway bridge.
    #[error(
        "the host has routes to all subnets that a gateway bridge could have: say which it is to have, or that containers have no way out"
    )]
    NoSubnet,
    /// The host's routes cannot be read.
    #[error("the host's routes cannot be read")]
    Routes(#[source] BackendError),
    /// The places that are there cannot be found out.
    #[error("the node's places cannot be listed")]
    Places(#[source] BackendError),
    /// The node could not be added to the catalogue.
    #[error("the node could not be added to the catalogue")]
    Control(#[from] ControlError),
    /// The system gives no random numbers.
    #[error("the system gives no random numbers")]
    Seed(#[source] io::Error),
    /// The keys of gossip make no keyring.
    #[error("the keys of gossip make no keyring")]
    Keys(#[source] KeyringError),
    /// The file with the keys of gossip that an earlier start has written cannot be read.
    #[error("the keys of gossip in {} cannot be read; without the file the node begins with those it is started with", file.display())]
    KeyFile {
        /// Which.
        file: PathBuf,
        /// Why.
        source: crate::KeyFileError,
    },
}

/// Why the keys that gossip is sealed with were not changed. They are as they were.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GossipKeysError {
    /// They cannot be changed so.
    #[error(transparent)]
    Keys(#[from] GossipKeyError),
    /// The driver has stopped.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// Why a container was not plugged in. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlugError {
    /// Its namespace is not there, or may not be entered.
    #[error("container {container} cannot be reached")]
    Namespace {
        /// The container.
        container: Name,
        /// Why.
        source: BackendError,
    },
    /// The interface is there already.
    #[error("container {container} has an interface {interface} already: choose another name")]
    InterfaceTaken {
        /// The container.
        container: Name,
        /// The interface.
        interface: IfName,
    },
    /// No name is free.
    #[error("container {container} has no name free for an interface: choose one")]
    NoInterface {
        /// The container.
        container: Name,
    },
    /// All ports of the gateway bridge are taken.
    #[error("the gateway bridge has room for {room} containers, and has as many: give it larger subnets")]
    GatewayFull {
        /// How many there is room for.
        room: u32,
    },
    /// It could not be written down, so a restart would forget it.
    #[error("it could not be written down")]
    Book(#[source] io::Error),
    /// It makes no sense.
    #[error(transparent)]
    Refused(#[from] InputError),
    /// It was unplugged before it was in.
    #[error("it was unplugged meanwhile")]
    Withdrawn,
    /// All is being removed.
    #[error("the node is being torn down")]
    TearingDown,
    /// The driver has stopped.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// Why a container was not attached. It is not plugged in, and the catalogue does not have it, unless it
/// [is left](Self::is_left), or was attached before: then that stands.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AttachError {
    /// The manager refused, or could not be asked.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// It could not be plugged in.
    #[error(transparent)]
    Plug(#[from] PlugError),
    /// It was plugged in, and could not be brought into effect.
    #[error("endpoint {endpoint} is not in effect: {reason}")]
    NotInEffect {
        /// The endpoint.
        endpoint: EndpointId,
        /// Why.
        reason: String,
    },
    /// It was plugged in, and is not in effect in time.
    #[error("endpoint {endpoint} is not in effect after {} s: look at the node's status", after.as_secs_f64())]
    Late {
        /// The endpoint.
        endpoint: EndpointId,
        /// How long it was waited for.
        after: std::time::Duration,
    },
    /// It failed, and then could not be taken back: the catalogue has the endpoint still, to be detached later.
    #[error("endpoint {endpoint} could not be attached, and is left in the catalogue: detach it")]
    Left {
        /// The endpoint.
        endpoint: EndpointId,
        /// Why it was not attached.
        source: Box<Self>,
    },
}

impl AttachError {
    /// Whether the catalogue has the endpoint still.
    pub fn is_left(&self) -> bool {
        match self {
            Self::Left { .. } => true,
            Self::Control(error) => error.is_in_doubt(),
            _ => false,
        }
    }
}

/// Why a drain did not come to its end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DrainError {
    /// Nothing was done.
    #[error("endpoint {endpoint} is not plugged in here: drain it at the node that has it")]
    NotHere {
        /// The endpoint.
        endpoint: EndpointId,
    },
    /// The endpoint was taken away meanwhile, or its container ended or began anew: what flows it had are cut.
    #[error("endpoint {endpoint} is not there any more")]
    Gone {
        /// The endpoint.
        endpoint: EndpointId,
    },
    /// Somebody said meanwhile that it is not draining: it gets new flows again.
    #[error("endpoint {endpoint} was told to go on")]
    Revived {
        /// The endpoint.
        endpoint: EndpointId,
    },
    /// The other nodes cannot be told of it. It stays draining here, and they lead new flows there still.
    #[error("the other nodes cannot be told that endpoint {endpoint} is draining: {reason}")]
    Untold {
        /// The endpoint.
        endpoint: EndpointId,
        /// Why.
        reason: String,
    },
    /// The driver has stopped. The others take the endpoint for draining until another start of this node says otherwise.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// Why not all of a node was removed: what is left is named. Calling it again goes on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TearDownError {
    /// Places could not be emptied in time.
    #[error("not all could be removed: {}", left.join("; "))]
    Left {
        /// Which, and why.
        left: Vec<String>,
    },
    /// Its places are empty, but the catalogue has the node still.
    #[error("the node could not be removed from the catalogue")]
    Control(#[from] ControlError),
    /// The driver has stopped.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// The driver has stopped: start another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the driver has stopped")]
pub struct Stopped;
