//! When keys are changed for others, without a packet lost.

mod config;
mod machine;
#[cfg(test)]
mod model;

pub use config::{RotationConfig, RotationConfigError};
pub use machine::{Cause, Causes, Rotation, RotationCounts, RotationEvent, Stage, Usage};
