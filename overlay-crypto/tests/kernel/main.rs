//! States on a real kernel, through the gate of `overlay_core::testing`; `ip`, `ping` and sockets are the judges.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail loudly too")]
#![expect(clippy::disallowed_methods, reason = "tests are told by the environment how much to do")]

mod damaged;
mod guards;
mod keys;
mod laws;
mod parity;
mod town;
