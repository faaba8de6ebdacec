//! `gossip`: membership and tables on a virtual network with the LAN preset; plain foca on the same network beside it where
//! it has the same to do.
//!
//! Times are the virtual network's, so they are the same on every machine: medians over seeds. Only `sim`, `rss`, and what signatures
//! cost are this machine's.

mod membership;
mod plain_foca;
mod rest;
mod signed;
mod tables;

use std::io;
use std::time::Duration;

use overlay_bench::{Bench, Pace};
use overlay_gossip::testing::{Conditions, Net};
use overlay_gossip::{Config, Gossip};

pub(crate) fn run(bench: &mut Bench<'_>) -> io::Result<()> {
    rest::memory(bench)?; // before others have left memory behind
    membership::run(bench)?;
    tables::run(bench)?;
    signed::run(bench)?;
    rest::traffic(bench)
}

/// A cluster of `size` nodes in which everybody knows everybody.
fn cluster(size: usize, seed: u64) -> Net<Gossip> {
    let mut net = started(size, seed);
    net.run_until(Duration::from_secs(60), Net::is_complete);
    net.run_for(Duration::from_secs(3));
    net
}

/// A cluster of `size` nodes that begin to join at once.
fn started(size: usize, seed: u64) -> Net<Gossip> {
    let mut net = Net::new(Conditions::lan(), seed);
    net.keep_events(|_| false); // a million of joining nodes would be most of the memory
    for _ in 0..size {
        net.add_gossip(&Config::lan());
    }
    net.join_all();
    net
}

/// The middle of what `measure` gives for this many seeds.
fn median(bench: &Bench<'_>, full: u64, mut measure: impl FnMut(u64) -> f64) -> f64 {
    let seeds = match bench.pace() {
        Pace::Full => full,
        Pace::Quick => 1,
    };
    middle(&mut (1..=seeds).map(&mut measure).collect::<Vec<f64>>())
}

fn middle(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The sizes to measure of figures that are called `name` and the size: the small ones only where it has to be quick.
fn sizes(bench: &Bench<'_>, name: &str, sizes: &[usize]) -> Vec<usize> {
    let most = if bench.pace() == Pace::Quick { 50 } else { usize::MAX };
    let wanted = |size: &usize| *size <= most && bench.wants(&format!("{name}{size}-"));
    sizes.iter().copied().filter(wanted).collect()
}

fn millis(span: Duration) -> f64 {
    span.as_secs_f64() * 1e3
}
