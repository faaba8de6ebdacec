//! Native state `link`: devices and what is on them, as rtnetlink has them.
//!
//! [`State`] mirrors the kernel's objects one to one. Area crates lower their values to it; it plans, and a backend
//! reads it back and carries its steps out. It is pure, so all of it is tested without privilege.

mod check;
mod device;
mod interface;
mod plan;
mod route;
mod state;
mod step;
mod sysctl;
#[cfg(feature = "testing")]
pub mod testing;

pub use device::{Dev, Site};
pub use interface::{BridgePort, Kind, Link, MacvlanMode, Vxlan};
pub use route::{MAIN_TABLE, Route, RouteKey, Rule};
pub use state::State;
pub use step::Step;
pub use sysctl::Sysctl;
