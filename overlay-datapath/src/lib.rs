#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]

mod addresses;
mod bucket;
mod buffer;
mod checksum;
mod content;
mod datapath;
mod guards;
mod header;
mod icmp;
mod neighbour;
pub mod offload;
mod protection;
mod reason;
mod tables;
mod trace;
mod track;
mod tunnel;
mod wanted;

pub use bucket::Rate;
pub use buffer::{Buffer, Fate, TooLong};
pub use datapath::{Config, Datapath};
pub use reason::{Counts, Reason};
pub use tables::Tables;
pub use trace::{Hop, Trace};
pub use wanted::{Sandbox, Wanted};
