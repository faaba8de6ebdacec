#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]

mod check;
mod flow;
mod segment;
mod state;
#[cfg(feature = "testing")]
pub mod testing;

pub use flow::SourcePorts;
pub use segment::{DontFragment, LocalPort, Peer, PortEnd, Segment, Ttl, Vtep};
pub use state::{SegmentStep, State, Step};
