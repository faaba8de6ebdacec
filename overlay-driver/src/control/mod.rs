//! A node's [`Control`](overlay_node::Control) over a Unix socket: for a command line, and for a second process on the machine.
//!
//! [`ControlServer`] serves it at a path, [`ControlClient`] *is* it in another process, and [`RemoteFeed`] follows the
//! catalogue from there; whoever needs a catalogue's changes takes any [`Follow`]. A [`RemoteWatch`] follows the endpoints of one service. A process may answer [`Question`]s of its own besides.
//!
//! Callers are known by what the kernel says of them ([`Caller`], [`Access`]), and bear with [`Limits`]: nobody keeps others waiting or
//! makes the server's memory grow, whatever it sends or leaves unread. The protocol is versioned: one JSON value a line.

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
mod question;
mod remote_feed;
mod remote_watch;
mod server;
mod slots;
mod socket;
mod tls;
mod transport;
mod watcher;

pub use access::{Access, Caller};
pub use client::ControlClient;
pub use cluster::{
    Admitted, Cluster, ClusterError, ClusterRefusal, JoinError, Joined, RefusalKind, Ring, Stands, found, join,
};
pub use error::{AskError, BindError, ListenError, RemoteError, Unwelcome};
pub use follow::{Follow, FollowError};
pub use limits::Limits;
pub use question::{Local, Question};
pub use remote_feed::RemoteFeed;
pub use remote_watch::RemoteWatch;
pub use server::{ControlServer, Serving};
pub use tls::{Credentials, CredentialsError, Managers, NodeLimits};
