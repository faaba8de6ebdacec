#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]

mod capabilities;
mod check;
mod replica;
mod schedule;
mod service;
mod state;
mod step;
#[cfg(feature = "testing")]
pub mod testing;

pub use capabilities::{Capabilities, TimeoutScope};
pub use replica::{Condition, Replica, Weight, WeightError};
pub use schedule::{Clue, Maglev, MaglevError, Schedule, Scheduler, SmoothWeighted, TableSize, TableSizeError};
pub use service::{Affinity, Ports, ServedPort, Service, Timeouts};
pub use state::State;
pub use step::Step;
