//! `node/join`: a host joins a cluster that runs, by a token and over TLS, until its node is in the catalogue and both hosts know each other by gossip. Needs root; without, no figure. The yardstick is what it may
//! take.

#![expect(clippy::disallowed_methods, reason = "a benchmark measures time, and waits")]

use std::io;
use std::time::{Duration, Instant};

use overlay_bench::Bench;
use overlay_core::ErrorKind;
use overlay_crypto::pki::Role;
use overlay_driver::testing::Hosts;
use overlay_kernel::Namespace;
use overlay_node::Control as _;
use tokio::runtime::Runtime;

use crate::firewall::{Outcome, must};

const LIMIT: Duration = Duration::from_secs(10);

pub(crate) fn run(bench: &mut Bench<'_>) -> io::Result<()> {
    if !bench.wants("node/join") {
        return Ok(());
    }
    match Namespace::create() {
        Err(error) if error.kind() == ErrorKind::Permission => return Ok(()), // it was said before
        other => drop(other.map_err(io::Error::other)?),
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut number = 0;
    bench
        .figure("node/join", "s")
        .measured(|| {
            number += 1;
            must(join(&runtime, number))
        })
        .yardstick_value("what it may take", 0.3)
        .report()
}

/// Seconds.
fn join(runtime: &Runtime, number: usize) -> Outcome<f64> {
    let dir = format!("/run/overlay-bench-join-{}-{number}", std::process::id());
    let mut hosts = runtime.block_on(Hosts::found(2, dir))?;
    let token = runtime.block_on(hosts.token(Role::Worker))?;
    let begun = Instant::now();
    runtime.block_on(hosts.join(1, &token))?;
    while !is_ready(runtime, &hosts)? {
        if begun.elapsed() > LIMIT {
            return Err("it has not joined".into());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let took = begun.elapsed().as_secs_f64();
    runtime.block_on(hosts.tear_down())?;
    Ok(took)
}

fn is_ready(runtime: &Runtime, hosts: &Hosts) -> Outcome<bool> {
    let known = |host| -> Outcome<usize> { Ok(runtime.block_on(hosts.driver(host)?.status())?.members.len()) };
    Ok(runtime.block_on(hosts.manager.nodes())?.len() == 2 && known(0)? == 2 && known(1)? == 2)
}
