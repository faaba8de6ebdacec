//! Fuzz bodies: functions of bytes that panic only if a promise is broken.
//!
//! [`TARGETS`] is the one list of them. `tests/replay.rs` gives each body its corpus (`corpus/NAME/`) and seeded
//! mutations of it, on stable and in every run of the tests; `libfuzzer/` drives the same bodies by coverage.
//!
//! A new body: a function in its area's file, a line in [`TARGETS`], a folder of entries, a file and a `[[bin]]`
//! in `libfuzzer/`. The tests say which of them is missing.

#![forbid(unsafe_code)]

mod catalogue;
mod core;
mod crypto;
mod datapath;
mod dns;
mod driver;
mod fabric;
mod gossip;
mod ipam;
mod lb;
mod mutation;
mod node;
mod nodes;
mod vxlan;

pub use mutation::mutate;

/// Takes any bytes, and panics only if a promise is broken.
pub type Body = fn(&[u8]);

/// Every body by its name, `AREA_WHAT`.
pub const TARGETS: &[&[(&str, Body)]] = &[
    catalogue::TARGETS,
    core::TARGETS,
    crypto::TARGETS,
    datapath::TARGETS,
    dns::TARGETS,
    driver::TARGETS,
    fabric::TARGETS,
    gossip::TARGETS,
    ipam::TARGETS,
    lb::TARGETS,
    node::TARGETS,
    nodes::TARGETS,
    vxlan::TARGETS,
];

/// Every body by its name.
pub fn targets() -> impl Iterator<Item = (&'static str, Body)> {
    TARGETS.iter().flat_map(|area| area.iter().copied())
}

/// Gives `bytes` to the body called `name`.
///
/// # Panics
/// If there is no such body, and as the body does.
pub fn run(name: &str, bytes: &[u8]) {
    let body = targets().find_map(|(of, body)| (of == name).then_some(body));
    assert!(body.is_some(), "TARGETS has no {name}");
    body.into_iter().for_each(|body| body(bytes));
}
