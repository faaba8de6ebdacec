//! States in a Linux kernel (feature `kernel`): nf_tables, conntrack, and what bridges hand to them.

mod amend;
mod bridge_nf;
mod firewall;
mod lower;
mod native;
mod obstacle;
mod passage;
mod standing;

pub use bridge_nf::BridgeNf;
pub use firewall::{Counts, Firewall};
pub use native::{Meaning, Native, NativeStep, Withdrawn};
pub use obstacle::{Obstacle, Program};
pub use passage::{Let, Passage, Passing};
