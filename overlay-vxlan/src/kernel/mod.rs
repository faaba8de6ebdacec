//! Segments in a Linux kernel (feature `kernel`): bridges, VXLAN devices and veth pairs; or what of them is in containers alone.

mod carried;
mod ends;
mod lower;
mod sandbox;

pub use ends::Ends;
pub use sandbox::Sandbox;
