//! A node's [`Control`](overlay_node::Control) over a Unix socket, for a command line and for a second process on the machine; and a manager's over mutual TLS, for the other nodes.
//!
//! [`ControlServer`] serves it at a path, [`ControlClient`] *is* it in another process, and [`RemoteFeed`] follows the
//! catalogue from there; whoever needs a catalogue's changes takes any [`Follow`]. A [`RemoteWatch`] follows the endpoints of one service. A process may answer [`Question`]s of its own besides.
//!
//! Callers are known by what the kernel says of them ([`Caller`], [`Access`]), and bear with [`Limits`]: nobody keeps others waiting or
//! makes the server's memory grow, whatever it sends or leaves unread. The protocol is versioned: one JSON value a line.
//!
//! # Between nodes
//!
//! A manager [listens](ControlServer::listen) at TCP port 2377 and speaks the same protocol in TLS 1.3 (RFC 8446) and no other version, with its and the caller's [`Credentials`]; a node calls
//! [`Managers`]. What is spoken is agreed upon in the handshake (ALPN, RFC 7301): `overlay-control/1` where both show certificates, `overlay-join/1` where the caller has none yet. Sessions are
//! not taken up again and nothing is sent early, so each connection has proved who both are. A node is believed by the roots of its cluster, and as long as it was not removed: in the handshake, and
//! again at each call, so that a connection that stands ends when its node is removed or its certificate expires. [`NodeLimits`] bound what all of them can cost.
//!
//! Whoever is refused in the handshake learns why by the alert, and [`Unwelcome`] has a name for each. What a node may do follows from the role that its certificate names:
//!
//! | call | open to |
//! |---|---|
//! | create a network | managers |
//! | change a network | managers |
//! | remove a network | managers |
//! | read networks | nodes |
//! | create a service | managers |
//! | remove a service | managers |
//! | read services | nodes |
//! | attach a container | itself |
//! | move an endpoint | managers |
//! | detach an endpoint | itself |
//! | read endpoints | nodes |
//! | report on an endpoint | itself |
//! | add a node | itself |
//! | remove a node | itself |
//! | read nodes | nodes |
//! | follow the catalogue | nodes |
//! | watch a service | managers |
//! | ask the node itself | machine |
//! | join | strangers |
//! | be rescued | strangers |
//! | renew the own certificate | nodes |
//! | ask how one stands | nodes |
//! | see join tokens | managers |
//! | rotate join tokens | managers |
//! | make join tokens | managers |
//! | list members | managers |
//! | promote and demote nodes | managers |
//! | remove a node, and hear what it knew | managers |
//! | rotate the root | managers |
//! | take the root's rotation back | managers |
//! | see the root's rotation | managers |
//! | be given the sealing key | managers |
//!
//! *itself*: managers, and a worker for itself alone; *strangers*: who shows no certificate, and nobody else; *machine*: processes that may open the node's Unix socket, which may do all else, too.
//!
//! A node that is no manager [follows and reads](crate#who-follows-the-catalogue-and-what-he-is-told) what it [needs](overlay_node::View) of the catalogue, and no more: so who has taken a worker over learns nothing of networks that
//! it has no part in and that he cannot name.
//!
//! A [`Cluster`] answers what is asked of the cluster itself. A node [joins](join()) by a token: it names the digest of the root's key, so the manager proves itself in the handshake before it is told
//! anything; the answer is a certificate, the roots, the keys of gossip and where managers are. A [`Membership`](crate::Membership) keeps it one. A manager that does not
//! [lead](crate::Leading) says so where something is to be signed, and the client asks the next.

mod access;
mod allow;
mod call;
mod client;
mod cluster;
mod connection;
mod dial;
mod error;
mod feeder;
mod follow;
mod frame;
mod hearing;
mod limits;
mod lines;
mod link;
mod mirror;
mod misread;
mod question;
mod reading;
mod remote_feed;
mod remote_watch;
mod server;
mod shower;
mod slots;
mod socket;
mod tls;
mod transport;
mod watcher;
mod whole;

pub use access::{Access, Caller};
pub use client::ControlClient;
pub use cluster::{
    Admitted, Cluster, ClusterError, ClusterRefusal, Gone, JoinError, Joined, RefusalKind, Ring, Stands, found, join,
    reissue,
};
pub use error::{AskError, BindError, ListenError, RemoteError, Unwelcome};
pub use follow::{Follow, FollowError};
pub use limits::Limits;
pub use question::{Local, Question};
pub use remote_feed::RemoteFeed;
pub use remote_watch::RemoteWatch;
pub use server::{ControlServer, Serving};
pub use tls::{Credentials, CredentialsError, Managers, NodeLimits};
