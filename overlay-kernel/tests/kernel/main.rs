//! Tests on a real kernel, through the gate of `overlay_core::testing`.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "helpers of tests fail loudly too, show what they found, and are told by the environment that they are children"
)]

mod conntrack;
mod ipvs;
mod killed;
mod lab;
mod links;
mod links_bared;
mod links_faults;
mod links_foreign;
mod links_mtu;
mod listeners;
mod locals;
mod namespace;
mod netlink;
mod nft;
mod nft_laws;
mod nft_text;
mod nft_trouble;
mod notices;
mod ordinary;
mod probe;
mod route;
mod scratch;
mod sock_diag;
mod sockets;
mod sysctl;
mod taps;
mod ways;
mod xfrm;
mod xfrm_traffic;

/// Whether time is no object: in CI, which requires these tests, but not for somebody who tries the whole workspace.
fn is_thorough() -> bool {
    std::env::var("OVERLAY_REQUIRE_KERNEL").is_ok_and(|required| required == "1")
}
