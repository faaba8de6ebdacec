//! A lab on this machine (feature `testing`): hosts and containers of namespaces, with cables that can be cut, and how to look at them
//! from within; a ground that differs from another; and who speaks to a node as anybody may.

mod altered;
mod formed;
mod hosts;
mod lab;
mod ping;
mod resolve;
mod stranger;

pub use altered::Altered;
pub use hosts::{Carried, Hosts, HostsError, date, node};
pub use lab::{Container, Lab, LabError};
pub use ping::{ping, ping_all};
pub use resolve::resolve;
pub use stranger::{credulous, exchange};
