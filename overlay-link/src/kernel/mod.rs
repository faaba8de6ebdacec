//! Local networks in a Linux kernel (feature `kernel`): bridges, veth pairs, taps and macvlan devices, and the routes of containers.

mod container_routes;
mod local_networks;
mod lower;
mod obstacle;

pub use container_routes::ContainerRoutes;
pub use local_networks::LocalNetworks;
pub use obstacle::Obstacle;
