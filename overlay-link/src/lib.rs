#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]

mod bridge;
mod check;
#[cfg(feature = "kernel")]
pub mod kernel;
mod macvlan;
mod routes;
mod state;
mod step;
#[cfg(feature = "testing")]
pub mod testing;

pub use bridge::{Bridge, Inside, Port};
pub use ipnet::IpNet;
#[cfg(feature = "kernel")]
pub use kernel::{ContainerRoutes, LocalNetworks, Obstacle};
pub use macvlan::{Macvlan, MacvlanMode};
pub use routes::{Marked, Route, Routes, RoutesStep};
pub use state::State;
pub use step::{BridgeStep, Step};
