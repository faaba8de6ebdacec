//! Netlink as the kernel speaks it: requests, replies, dumps, batches, notifications.
//!
//! Synchronous, one socket per user, no third-party type in sight. A socket belongs to the namespace of the thread
//! that opened it, so open it by [`Namespace::netlink`](crate::Namespace::netlink), or inside
//! [`Namespace::run`](crate::Namespace::run), and use it anywhere.
//!
//! ```no_run
//! use overlay_kernel::Namespace;
//! use overlay_kernel::netlink::{Family, Flags, Requests};
//!
//! const RTM_GETLINK: u16 = 18;
//!
//! let namespace = Namespace::create()?;
//! let mut socket = namespace.netlink(Family::Route)?;
//! let everything = Requests::one(RTM_GETLINK, Flags::NONE, |body| {
//!     body.raw(&[0; 16]); // struct ifinfomsg
//! });
//! let names = socket.dump(&everything, |link| {
//!     let name = link.attributes(16)?.find(3)?; // after ifinfomsg; IFLA_IFNAME
//!     name.map(|name| name.text().map(str::to_owned)).transpose()
//! })?;
//! assert_eq!(names, ["lo"]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod attribute;
mod batch;
mod buffer;
mod deadline;
mod encode;
mod error;
mod generic;
mod message;
mod notices;
mod socket;

pub use attribute::{Attribute, Attributes};
pub use batch::BatchError;
pub use buffer::Buffers;
pub use encode::{Body, Flags, Requests};
pub use error::{Malformed, NetlinkError};
pub use generic::GenericFamily;
pub use message::{Message, Messages};
pub use notices::{Drained, Notices};
pub use socket::Socket;

/// The part of the kernel a socket speaks with (`linux/netlink.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// Links, addresses, routes, rules, neighbours, forwarding entries.
    Route,
    /// IPsec: security associations and policies.
    Xfrm,
    /// nf_tables, conntrack.
    Netfilter,
    /// The machine's sockets.
    SockDiag,
    /// Families that have names: IPVS and others, see [`GenericFamily`].
    Generic,
}

impl Family {
    const fn protocol(self) -> isize {
        match self {
            Self::Route => netlink_sys::protocols::NETLINK_ROUTE,
            Self::Xfrm => netlink_sys::protocols::NETLINK_XFRM,
            Self::Netfilter => netlink_sys::protocols::NETLINK_NETFILTER,
            Self::SockDiag => netlink_sys::protocols::NETLINK_SOCK_DIAG,
            Self::Generic => netlink_sys::protocols::NETLINK_GENERIC,
        }
    }
}
