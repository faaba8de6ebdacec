//! Segments in a Linux kernel (feature `kernel`): bridges, VXLAN devices and veth pairs.

mod lower;
mod sandbox;

pub use sandbox::Sandbox;
