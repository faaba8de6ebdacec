//! A lab on this machine (feature `testing`): hosts and containers of namespaces, with cables that can be cut, and how to look at them
//! from within.

mod formed;
mod hosts;
mod lab;
mod ping;
mod resolve;

pub use hosts::{Carried, Hosts, HostsError, date, node};
pub use lab::{Container, Lab, LabError};
pub use ping::{ping, ping_all};
pub use resolve::resolve;
