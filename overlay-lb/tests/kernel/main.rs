//! Virtual services on a real kernel, through the gate of `overlay_core::testing`; sockets, `nft`, `ip` and `ping` are the judges.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail loudly too")]
#![expect(
    clippy::disallowed_methods,
    reason = "servers are threads, and tests are told by the environment how much to do"
)]

mod ipvs;
mod laws;
mod marks;
mod memory;
mod nftables;
mod published;
mod suite;
mod town;
mod turnover;
