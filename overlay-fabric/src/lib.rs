#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]

mod chaos;
mod check;
mod cluster;
mod config;
mod container;
mod control;
mod error;
mod explain;
mod node;
mod observed;
mod places;
mod plane;
mod poll;
mod probe;
mod seal;
mod signed;
mod station;
mod trace;
mod watch;

pub use check::{Checked, Violation};
pub use cluster::Cluster;
pub use config::ClusterConfig;
pub use container::{Answer, Container, Unanswered};
pub use error::FabricError;
pub use observed::{Observed, ObservedNode, ObservedPlace};
pub use plane::{Capture, Captured, Link, UnderlayCounts};
pub use station::UpkeepCounts;
pub use trace::{Broken, Hop, Trace};
