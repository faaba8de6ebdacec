//! Taking an endpoint's work away before it ends.

mod flows;
mod machine;
mod rollout;

pub use flows::{Flow, Flows, LeftFlows};
pub use machine::{Drain, Drained};
pub use rollout::{Order, Rollout, Step};
