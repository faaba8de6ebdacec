//! States on a real kernel, through the gate of `overlay_core::testing`; `nft`, `ip`, `ping` and sockets are the judges.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail loudly too")]
#![expect(clippy::disallowed_methods, reason = "tests are told by the environment how much to do")]
#![expect(clippy::print_stdout, reason = "what was tried is worth seeing")]

mod conformance;
mod parity;
mod spoof;
mod taps;
mod town;
mod trouble;
mod wire;
