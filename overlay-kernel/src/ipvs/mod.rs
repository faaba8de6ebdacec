//! Native state `ipvs`: virtual services of the kernel's own balancer.
//!
//! [`State`] mirrors the kernel's objects one to one. The kernel keeps no mark of who made a service, so all of a namespace's
//! are one state's: it belongs in namespaces where nobody else uses IPVS. It is pure, so all of it but [`Ipvs`] is tested
//! without privilege.

mod check;
mod kernel;
mod service;
mod state;
mod step;
#[cfg(feature = "testing")]
pub mod testing;
mod wire;

pub use kernel::{Ipvs, Reading, Readings};
pub use service::{Destination, Forward, Key, Options, Scheduler, Service};
pub use state::{Setting, State, Timeouts};
pub use step::Step;
