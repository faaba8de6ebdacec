//! Whole nodes in this machine's kernel: hosts of namespaces on one wire.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail loudly too")]
#![expect(clippy::disallowed_methods, reason = "tests measure time and wait")]

mod deaf;
mod direct;
mod drain;
mod encrypted;
mod faults;
mod haproxy;
mod joined;
mod killed;
mod left;
mod machine;
mod masquerade;
mod matrix;
mod mesh;
mod ordinary;
mod outside;
mod parity;
#[expect(dead_code, reason = "the soak needs more of it")]
mod process;
mod published;
mod refusals;
mod replica;
mod rolling;
mod sctp;
mod services;
mod town;
mod userspace;
mod walk;
mod world;
