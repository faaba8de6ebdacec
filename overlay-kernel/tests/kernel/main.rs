//! Tests on a real kernel, through the gate of `overlay_core::testing`.

mod killed;
mod lab;
mod namespace;
mod netlink;
mod notices;
mod ordinary;
mod probe;
mod route;
mod scratch;
mod sockets;
mod sysctl;
