#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]

mod check;
mod segment;
mod state;
#[cfg(feature = "testing")]
pub mod testing;

pub use segment::{LocalPort, Peer, PortEnd, Segment, Vtep};
pub use state::{SegmentStep, State, Step};
