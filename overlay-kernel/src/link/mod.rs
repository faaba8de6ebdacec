//! Native state `link`: devices and what is on them, as rtnetlink has them.
//!
//! [`State`] mirrors the kernel's objects one to one. Area crates lower their values to it; it plans, and [`Links`]
//! reads it back and carries its steps out. The state is pure, so all of it but `Links` is tested without privilege.

mod carry;
mod check;
mod device;
mod door;
mod foreign;
mod interface;
mod kernel_ways;
mod links;
mod locals;
mod observe;
mod plan;
mod plug;
mod route;
mod route_socket;
mod routed;
mod setting;
mod solicit;
mod stand_in;
mod state;
mod step;
#[cfg(feature = "testing")]
pub mod testing;
mod watch;
mod ways;

pub use device::{Dev, Site};
pub use foreign::{device_with, devices, has_macvlans, own_device_with, raise_loopback, uplinks};
pub use interface::{BridgePort, Kind, Link, MacvlanMode, Tap, Vxlan};
pub use kernel_ways::KernelWays;
pub use links::Links;
pub use locals::{KernelLocals, LocalStep, Locals};
pub use plug::Plug;
pub use route::{MAIN_TABLE, Route, RouteKey, Rule};
pub use routed::routed;
pub use setting::Setting;
pub use solicit::Solicit;
pub use state::State;
pub use step::Step;
pub use ways::{MarkedWay, Way, WayStep, Ways};
