//! Whole nodes in this machine's kernel: hosts of namespaces on one wire.

#![expect(clippy::disallowed_methods, reason = "tests measure time and end processes")]

mod faults;
mod refusals;
mod walk;
mod world;
