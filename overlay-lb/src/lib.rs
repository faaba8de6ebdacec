#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]

mod arrivals;
mod asked;
mod balancer;
mod capabilities;
mod check;
mod flow;
#[cfg(feature = "kernel")]
pub mod kernel;
mod packet;
mod readings;
mod replica;
mod schedule;
mod service;
mod state;
mod step;
#[cfg(feature = "testing")]
pub mod testing;

pub use arrivals::Arrivals;
pub use asked::{Ask, Asked};
pub use balancer::{Balancer, ChoiceKey, Config, Counts, Reason, Verdict};
pub use capabilities::{Capabilities, TimeoutScope};
pub use flow::{Flow, FlowId, FlowTable, Signal, Stage, TableError, Tuple, Way};
pub use packet::{Untranslatable, translate};
pub use readings::Readings;
pub use replica::{Condition, Replica, Weight, WeightError};
pub use schedule::{Clue, Maglev, MaglevError, Schedule, Scheduler, SmoothWeighted, TableSize, TableSizeError};
pub use service::{Affinity, Bind, Ports, ServedPort, Service, Timeouts};
pub use state::State;
pub use step::Step;
