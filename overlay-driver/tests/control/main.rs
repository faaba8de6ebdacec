//! A node's control in another process: what a client has of it, and what a server bears.

#![allow(clippy::unwrap_used, reason = "tests, whose helpers clippy does not take for such")]

mod calls;
mod cluster;
mod crude;
mod faults;
mod follow;
mod hostile;
mod intruders;
mod kit;
mod parity;
mod parts;
mod secure;
mod socket;
