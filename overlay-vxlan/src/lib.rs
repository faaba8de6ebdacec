#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]

mod check;
mod flow;
mod header;
#[cfg(feature = "kernel")]
mod kernel;
mod malformed;
pub mod names;
mod outer;
mod packet;
mod segment;
mod state;
#[cfg(feature = "testing")]
pub mod testing;
mod wire;

pub use flow::Flow;
pub use header::Header;
pub use ipnet::IpNet;
#[cfg(feature = "kernel")]
pub use kernel::{Ends, Sandbox};
pub use malformed::{Flaw, Layer, Malformed};
pub use outer::{Addresses, Macs, Outer, OuterError};
pub use packet::{Frame, Packet};
pub use segment::{LocalPort, Peer, PortEnd, Segment, Vtep};
pub use state::{SegmentStep, State, Step};
pub use wire::{Ethernet, Icmp, Ip, Ipv4, Ipv6, Sctp, Tcp, Transport, Udp};
