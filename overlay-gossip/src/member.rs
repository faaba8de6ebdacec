//! Who is in the cluster.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use overlay_core::NodeId;

/// One node as the others know it. Only the node itself changes what is said here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Names the node for good.
    pub id: NodeId,
    /// Which start of the node this is: greater at each. A counter on disk does, so does the date in milliseconds.
    pub incarnation: u64,
    /// Where its gossip port is reached by the others, for datagrams and streams: not what it is bound to, such as 0.0.0.0. An IPv6
    /// address has no scope here.
    pub address: SocketAddr,
    /// What it is.
    pub role: Role,
    /// What the application wants the others to know of it.
    pub metadata: Metadata,
}

impl Member {
    /// A worker without metadata.
    ///
    /// ```
    /// use overlay_core::NodeId;
    /// use overlay_gossip::{Member, Role};
    ///
    /// let me = Member { role: Role::Manager, ..Member::new(NodeId::from_bytes([7; 16]), 1, ([192, 0, 2, 1], 7946).into()) };
    /// assert_eq!(me.incarnation, 1);
    /// ```
    pub fn new(id: NodeId, incarnation: u64, address: SocketAddr) -> Self {
        Self { id, incarnation, address: plain(address), role: Role::Worker, metadata: Metadata::default() }
    }
}

/// The address without IPv6 flow and scope, which do not travel.
pub(crate) fn plain(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V6(ip) => SocketAddr::new(ip.to_canonical(), address.port()),
        ip @ IpAddr::V4(_) => SocketAddr::new(ip, address.port()),
    }
}

/// A node's part in the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Role {
    /// Keeps the catalogue.
    Manager,
    /// Runs containers.
    #[default]
    Worker,
}

/// Up to 256 bytes that a node tells about itself: they travel with every news of it, so they are short.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Metadata(Option<Arc<[u8]>>); // mostly none

impl Metadata {
    /// The most, in bytes.
    pub const MAX_LEN: usize = 256;

    /// Metadata of these bytes.
    ///
    /// # Errors
    /// Above 256 bytes.
    pub fn new(bytes: impl Into<Bytes>) -> Result<Self, MetadataError> {
        let bytes = bytes.into();
        match bytes.len() {
            0 => Ok(Self(None)),
            1..=Self::MAX_LEN => Ok(Self(Some(bytes[..].into()))),
            found => Err(MetadataError { found }),
        }
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_deref().unwrap_or_default()
    }
}

impl fmt::Debug for Metadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Metadata({})", self.as_bytes().escape_ascii())
    }
}

/// Bytes that are too many for [`Metadata`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("metadata has at most 256 bytes, this has {found}")]
pub struct MetadataError {
    /// Bytes given.
    pub found: usize,
}

/// What this node believes about a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Standing {
    /// It answers.
    Alive,
    /// Somebody's probes of it failed; it is given time to object and still counts as alive.
    Suspected,
    /// Believed failed. It is still called now and then, and back as it was when it answers.
    Suspended,
    /// It said goodbye.
    Left,
}
