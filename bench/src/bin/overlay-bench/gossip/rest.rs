//! What a cluster costs that is at rest, traffic and memory; and how one entry spreads in it.

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use overlay_bench::Bench;
use overlay_gossip::Gossip;
use overlay_gossip::testing::{Conditions, Machine, Net};

use super::membership::foca_cluster;
use super::tables::{put, spread, subscribed};
use super::{cluster, sizes};

/// Of each node that knows all others, alone and when all subscribe to a network as well.
pub(super) fn memory(bench: &mut Bench<'_>) -> io::Result<()> {
    for size in sizes(bench, "gossip/rss-per-node-", &[50, 1_000]) {
        let before = resident();
        let each = |now: f64| ((now - before) / size as f64).max(0.0);
        let net = cluster(size, 1);
        bench.figure(format!("gossip/rss-per-node-{size}"), "KiB").value(each(resident())).report()?;
        drop(net);
        let net = subscribed(size, 1);
        bench.figure(format!("gossip/rss-per-node-{size}-subscribed"), "KiB").value(each(resident())).report()?;
        drop(net);
    }
    Ok(())
}

/// Traffic at rest, and how one entry spreads: on the same cluster, since thousands of nodes take minutes to join. All of n nodes
/// together keep n² members: 5,000 take 12 GB, and more than a quarter of an hour of a processor that others use too.
pub(super) fn traffic(bench: &mut Bench<'_>) -> io::Result<()> {
    let [idles, spreads] = [
        ("gossip/idle-bytes-", vec![20, 100, 1_000, 2_500, 5_000]),
        ("gossip/spread-", vec![5, 20, 50, 200, 1_000, 2_500, 5_000]),
    ]
    .map(|(name, all)| sizes(bench, name, &all));
    let all: BTreeSet<usize> = idles.iter().chain(&spreads).copied().collect();
    for size in all {
        let mut net = subscribed(size, 1);
        if idles.contains(&size) {
            idle(bench, &mut net)?;
        }
        if spreads.contains(&size) {
            spread(bench, &mut net)?;
        }
    }
    Ok(())
}

/// Bytes that each node sends in a second when nothing happens, all nodes subscribing to a network with some entries.
fn idle(bench: &mut Bench<'_>, net: &mut Net<Gossip>) -> io::Result<()> {
    let size = net.len();
    (0..20).for_each(|number| put(net, number as usize * 7 % size, 1 << 48 | number));
    net.run_for(Duration::from_secs(20));
    net.take_events();
    let mut figure = bench.figure(format!("gossip/idle-bytes-{size}"), "B/s").value(rate(net));
    if size <= 1_000 {
        let mut net = foca_cluster(size, Conditions::lan(), 1);
        figure = figure.yardstick_value("plain foca, without tables", rate(&mut net));
    }
    figure.report()
}

fn rate<M: Machine>(net: &mut Net<M>) -> f64 {
    let sent = |net: &Net<M>| net.running().map(|node| net.sent(node).bytes).sum::<u64>();
    let before = sent(net);
    net.run_for(Duration::from_secs(20));
    (sent(net) - before) as f64 / net.len() as f64 / 20.0
}

/// The process's memory in KiB; 0 where there is no /proc.
fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0.0)
}
