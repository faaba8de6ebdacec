//! Local networks in a Linux kernel (feature `kernel`): bridges, veth pairs, taps and macvlan devices.

mod local_networks;
mod lower;
mod obstacle;

pub use local_networks::LocalNetworks;
pub use obstacle::Obstacle;
