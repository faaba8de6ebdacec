//! Who is there: found, lost, wrongly lost, and what that costs.

use std::io;
use std::time::Duration;

use overlay_bench::{Bench, Pace};
use overlay_core::testing::Dice;
use overlay_core::{Instant, NodeId};
use overlay_gossip::testing::{Conditions, Machine, Net};
use overlay_gossip::{Event, Gossip};

use super::plain_foca::{self, PlainFoca};
use super::{cluster, median, middle, millis, sizes, started};

pub(super) fn run(bench: &mut Bench<'_>) -> io::Result<()> {
    if bench.wants("gossip/sim-") {
        simulation(bench)?;
    }
    for size in sizes(bench, "gossip/join-converge-", &[20, 100, 1_000]) {
        join(bench, size)?;
    }
    for size in sizes(bench, "gossip/detect-", &[20, 100, 1_000]) {
        detect(bench, size)?;
    }
    for loss in [0, 5, 20] {
        if bench.wants(&format!("gossip/false-positives-slow-members-loss{loss}")) {
            false_positives(bench, loss)?;
        }
    }
    Ok(())
}

fn detect(bench: &mut Bench<'_>, size: usize) -> io::Result<()> {
    let seeds = if size > 500 { 5 } else { 21 };
    let mut first = Vec::new();
    let everywhere = median(bench, seeds, |seed| {
        let mut net = cluster(size, seed);
        net.keep_events(|event| matches!(event, Event::Suspended(_) | Event::Suspected(_)));
        let mut everywhere = Vec::new();
        for lost in 7..12 {
            let (suspected, dead) = lose(&mut net, lost, seed);
            first.push(suspected);
            everywhere.push(dead);
        }
        middle(&mut everywhere)
    });
    let first = first.iter().sum::<f64>() / first.len() as f64; // a mean, as in the paper
    let foca = median(bench, if size > 500 { 1 } else { 5 }, |seed| lose_one_of_foca(size, seed));
    bench.figure(format!("gossip/detect-{size}-first"), "periods").value(first).report()?;
    bench
        .figure(format!("gossip/detect-{size}-everywhere"), "ms")
        .value(everywhere)
        .yardstick_value("plain foca", foca)
        .report()
}

/// Probe periods until the first suspicion, and milliseconds until all have suspended a node that crashed.
fn lose(net: &mut Net<Gossip>, node: usize, seed: u64) -> (f64, f64) {
    net.run_for(Duration::from_millis(seed * 137 % 1_000));
    net.take_events();
    let lost: NodeId = Net::<Gossip>::node_id(node);
    let start = net.now();
    net.crash(node);
    let left = net.running().count();
    let mut log: Vec<(Instant, Event)> = Vec::new();
    for _ in 0..300 {
        net.run_for(Duration::from_millis(100));
        log.extend(net.take_events().into_iter().map(|(at, _, event)| (at, event)));
        if log.iter().filter(|(_, event)| *event == Event::Suspended(lost)).count() == left {
            break;
        }
    }
    let of = |wanted: Event| log.iter().filter(move |(_, event)| *event == wanted).map(move |(at, _)| *at - start);
    let first = of(Event::Suspected(lost)).min().unwrap_or(Duration::MAX);
    let last = of(Event::Suspended(lost)).max().unwrap_or(Duration::MAX);
    (first.as_secs_f64(), millis(last))
}

fn lose_one_of_foca(size: usize, seed: u64) -> f64 {
    let mut net = foca_cluster(size, Conditions::lan(), seed);
    net.take_events();
    let start = net.now();
    net.crash(7);
    let lost = plain_foca::Event::Down(Net::<PlainFoca>::address(7));
    net.run_for(Duration::from_secs(20));
    let events = net.take_events();
    let last = events.iter().filter(|(_, _, event)| *event == lost).map(|(at, ..)| *at - start).max();
    last.map_or(f64::NAN, millis)
}

/// Plain foca after 20 s, in which not everybody may have got to know everybody.
pub(super) fn foca_cluster(size: usize, conditions: Conditions, seed: u64) -> Net<PlainFoca> {
    let mut net = plain_foca::network(Net::new(conditions, seed), size);
    net.run_until(Duration::from_secs(20), |net| foca_is_complete(net, size));
    net
}

fn foca_is_complete(net: &Net<PlainFoca>, size: usize) -> bool {
    net.running().all(|node| net.machine(node).is_some_and(|foca| foca.live() + 1 == size))
}

fn join(bench: &mut Bench<'_>, size: usize) -> io::Result<()> {
    let seeds = if size > 500 { 3 } else { 11 };
    let limit = Duration::from_secs(30);
    let ours = median(bench, seeds, |seed| {
        started(size, seed).run_until(limit, Net::is_complete).map_or(f64::INFINITY, millis)
    });
    let foca = median(bench, 1, |seed| {
        let mut net = plain_foca::network(Net::new(Conditions::lan(), seed), size);
        net.run_until(limit, |net| foca_is_complete(net, size)).unwrap_or(limit).as_secs_f64() * 1e3
    });
    let figure = bench.figure(format!("gossip/join-converge-{size}"), "ms").value(ours);
    figure.yardstick_value("plain foca (30,000 is not in time)", foca).report()
}

const MEMBERS: usize = 100;
const SLOW: usize = 10;

/// Members that answer and are declared failed by another that is well itself, while a tenth of the nodes stop for 4 to
/// 20 s again and again, and run for up to 1 s between (Lifeguard's workload): per hour and node.
fn false_positives(bench: &mut Bench<'_>, loss: usize) -> io::Result<()> {
    let minutes = if bench.pace() == Pace::Quick { 1 } else { 30 };
    let conditions = Conditions { loss: loss as f64 / 100.0, ..Conditions::lan() };
    let mut net = cluster(MEMBERS, 3);
    net.conditions = conditions.clone();
    net.keep_events(|event| matches!(event, Event::Suspended(_)));
    let wronged: Vec<NodeId> = (SLOW..MEMBERS).map(Net::<Gossip>::node_id).collect();
    let events = with_slow_members(&mut net, minutes);
    let ours = events
        .iter()
        .filter(|(node, event)| *node >= SLOW && matches!(event, Event::Suspended(lost) if wronged.contains(lost)));
    let mut foca = foca_cluster(MEMBERS, Conditions::lan(), 3);
    foca.conditions = conditions;
    let wronged: Vec<_> = (SLOW..MEMBERS).map(Net::<PlainFoca>::address).collect();
    let foca_minutes = if loss > 10 { minutes.min(3) } else { minutes };
    let events = with_slow_members(&mut foca, foca_minutes);
    let focas = events.iter().filter(|(node, event)| {
        *node >= SLOW && matches!(event, plain_foca::Event::Down(lost) if wronged.contains(lost))
    });
    let per_node_hour = |count: usize, minutes: usize| count as f64 / (MEMBERS - SLOW) as f64 * 60.0 / minutes as f64;
    let name = format!("gossip/false-positives-slow-members-loss{loss}");
    let figure = bench.figure(name, "/node-hour").value(per_node_hour(ours.count(), minutes));
    match per_node_hour(focas.count(), foca_minutes) {
        0.0 => figure.report(), // no yardstick to divide by
        focas => figure.yardstick_value("plain foca", focas).report(),
    }
}

fn with_slow_members<M: Machine>(net: &mut Net<M>, minutes: usize) -> Vec<(usize, M::Event)> {
    net.run_for(Duration::from_secs(5));
    net.take_events();
    let mut events = Vec::new();
    let mut stops = [0_u64; SLOW]; // when each stops next, in tenths of a second
    let mut dice = Dice::new([3; 32]);
    for tenth in 0..minutes as u64 * 600 {
        for (node, stop) in stops.iter_mut().enumerate().filter(|(_, stop)| **stop == tenth) {
            let (pause, run) = (40 + dice.below(160) as u64, 1 + dice.below(10) as u64);
            net.pause(node, Duration::from_millis(pause * 100));
            *stop = tenth + pause + run;
        }
        net.run_for(Duration::from_millis(100));
        events.extend(net.take_events().into_iter().map(|(_, node, event)| (node, event)));
    }
    events
}

/// A minute of 1,000 nodes that know each other: this machine's processor time, so that whatever else runs does not count.
fn simulation(bench: &mut Bench<'_>) -> io::Result<()> {
    let size = if bench.pace() == Pace::Quick { 50 } else { 1_000 };
    let took = median(bench, 3, |seed| {
        let mut net = cluster(size, seed);
        let before = processor_time();
        net.run_for(Duration::from_secs(60));
        processor_time() - before
    });
    bench.figure(format!("gossip/sim-{size}x60s"), "s").value(took).report()
}

/// Seconds of processor time of this process, to the hundredth; 0 where there is no /proc.
fn processor_time() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}
