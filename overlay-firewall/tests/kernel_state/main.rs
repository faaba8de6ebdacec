//! States on a real kernel, through the gate of `overlay_core::testing`; `nft`, `ip`, `ping` and sockets are the judges.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail loudly too")]

mod conformance;
mod parity;
mod town;
mod trouble;
mod wire;
