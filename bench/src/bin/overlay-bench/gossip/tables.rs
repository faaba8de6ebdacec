//! What everybody is told: one entry, bursts, a newcomer, a node that was cut off.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use overlay_bench::{Bench, Pace};
use overlay_core::NetworkId;
use overlay_gossip::testing::{Conditions, Net};
use overlay_gossip::{EntryKey, Event, Gossip, Key, TableEvent, TableId};

use super::plain_foca;
use super::{median, middle, millis, sizes, started};

const NETWORK: NetworkId = NetworkId::from_bytes([9; 16]);
const TABLE: TableId = TableId(1);
/// Bytes of a key and a value, as they count for an entry's size.
const KEY: usize = 8;
const VALUE: usize = 64;

pub(super) fn run(bench: &mut Bench<'_>) -> io::Result<()> {
    let most = if bench.pace() == Pace::Quick { 1_000 } else { usize::MAX };
    for size in sizes(bench, "gossip/burst-", &[20, 50]) {
        for entries in [1_000, 10_000].into_iter().filter(|entries| *entries <= most) {
            burst(bench, size, entries)?;
        }
    }
    if bench.wants("gossip/join-sync-") {
        join_sync(bench, 10_000.min(most))?;
    }
    if bench.wants("gossip/heal-20-60s") {
        heal(bench)?;
    }
    Ok(())
}

/// A cluster in which everybody subscribes to the network, and knows everybody and that everybody does.
pub(super) fn subscribed(size: usize, seed: u64) -> Net<Gossip> {
    let mut net = started(size, seed);
    for node in 0..size {
        net.with(node, |gossip, now| gossip.subscribe(NETWORK, now));
    }
    let all = |net: &Net<Gossip>| {
        let mut machines = net.running().filter_map(|node| net.machine(node));
        machines.all(|gossip| gossip.live() + 1 == size && gossip.subscribers(NETWORK).len() + 1 == size)
    };
    net.keep_events(|event| matches!(event, Event::Table(TableEvent::Put { .. } | TableEvent::Reread { .. })));
    net.run_until(Duration::from_secs(60), all);
    net.run_for(Duration::from_secs(3));
    net.take_events();
    net
}

pub(super) fn put(net: &mut Net<Gossip>, node: usize, number: u64) {
    let Ok(key) = Key::new(number.to_be_bytes().to_vec()) else { return };
    let at = EntryKey { network: NETWORK, table: TABLE, key };
    net.with(node, |gossip, now| gossip.put(at, Bytes::from_static(&[7; VALUE]), now));
}

/// One entry, with 0, 10 and 30 % of all packets lost: when 99 in 100 have it, and when all do.
pub(super) fn spread(bench: &mut Bench<'_>, net: &mut Net<Gossip>) -> io::Result<()> {
    let size = net.len();
    let entries = if size >= 1_000 { 5 } else { 21 };
    for loss in [0, 10, 30] {
        net.conditions.loss = f64::from(loss) / 100.0;
        let (mut p99, mut all) = (Vec::new(), Vec::new());
        for entry in 0..entries {
            let times = times(net, size, u64::from(loss) << 32 | entry);
            let of = |count: usize| times.get(count - 1).copied().unwrap_or(30_000.0);
            p99.push(of(((size - 1) * 99).div_ceil(100)));
            all.push(of(size - 1));
        }
        let foca = (size < 5_000).then(|| foca_spread(size, loss)); // it does not join so many
        let name = |what| format!("gossip/spread-{size}-loss{loss}-{what}");
        bench.figure(name("p99"), "ms").value(middle(&mut p99)).report()?;
        let figure = bench.figure(name("all"), "ms").value(middle(&mut all));
        match foca {
            Some(foca) => figure.yardstick_value("plain foca (30,000 is never)", foca).report()?,
            None => figure.report()?,
        }
    }
    Ok(())
}

/// When each other node has an entry, in order, within 30 s.
fn times(net: &mut Net<Gossip>, size: usize, number: u64) -> Vec<f64> {
    let start = net.now();
    put(net, number as usize * 7 % size, number);
    let mut times: Vec<f64> = Vec::new();
    for _ in 0..300 {
        net.run_for(Duration::from_millis(100));
        times.extend(net.take_events().iter().map(|(at, ..)| millis(*at - start)));
        if times.len() + 1 >= size {
            break;
        }
    }
    net.run_for(Duration::from_secs(3));
    times.sort_by(f64::total_cmp);
    times
}

fn foca_spread(size: usize, loss: u32) -> f64 {
    let conditions = Conditions::lan();
    let mut net = plain_foca::network(Net::new(conditions, 1), size);
    net.run_for(Duration::from_secs(20));
    net.conditions.loss = f64::from(loss) / 100.0;
    net.take_events();
    let start = net.now();
    net.with(0, |foca, now| foca.put(1, now));
    net.run_for(Duration::from_secs(30));
    let is_entry = |event: &plain_foca::Event| matches!(event, plain_foca::Event::Entry(_));
    let events = net.take_events();
    let got: Vec<f64> =
        events.iter().filter(|(.., event)| is_entry(event)).map(|(at, ..)| millis(*at - start)).collect();
    let everybody = got.len() + 1 >= net.running().count();
    if everybody { got.into_iter().fold(0.0, f64::max) } else { 30_000.0 }
}

/// Entries that one node makes at once: when all have all, and what each node sends for it.
fn burst(bench: &mut Bench<'_>, size: usize, entries: usize) -> io::Result<()> {
    let mut bytes = Vec::new();
    let took = median(bench, 5, |seed| {
        let mut net = subscribed(size, seed);
        let before = sent(&net);
        (0..entries as u64).for_each(|number| put(&mut net, 0, number));
        let took = net.run_until(Duration::from_secs(120), |net| have(net, entries));
        net.run_for(Duration::from_secs(2));
        bytes.push((sent(&net) - before) as f64 / size as f64 / (entries * (KEY + VALUE)) as f64);
        took.map_or(f64::INFINITY, millis)
    });
    bench.figure(format!("gossip/burst-{size}-{entries}"), "ms").value(took).report()?;
    let bytes = bytes.iter().sum::<f64>() / bytes.len() as f64;
    bench.figure(format!("gossip/burst-{size}-{entries}-bytes"), "x size").value(bytes).report()
}

fn sent(net: &Net<Gossip>) -> u64 {
    net.running().map(|node| net.sent(node).bytes).sum()
}

/// Whether everybody has so many entries.
fn have(net: &Net<Gossip>, entries: usize) -> bool {
    let count = |node| net.machine(node).map_or(0, |gossip| gossip.entries(NETWORK, TABLE).count());
    net.running().all(|node| count(node) == entries)
}

/// A node that subscribes to a network of ten that has these entries.
fn join_sync(bench: &mut Bench<'_>, entries: usize) -> io::Result<()> {
    let mut bytes = Vec::new();
    let took = median(bench, 5, |seed| {
        let mut net = subscribed(10, seed);
        for number in 0..entries as u64 {
            put(&mut net, number as usize % 10, number);
        }
        net.run_until(Duration::from_secs(60), |net| have(net, entries));
        net.run_for(Duration::from_secs(5));
        let newcomer = net.add_gossip(&overlay_gossip::Config::lan());
        net.with(newcomer, |gossip, now| gossip.subscribe(NETWORK, now));
        let before = sent(&net);
        net.with(newcomer, |gossip, now| gossip.join(&[Net::<Gossip>::address(0)], now));
        let took = net.run_until(Duration::from_secs(60), |net| have(net, entries));
        bytes.push((sent(&net) - before) as f64 / (entries * (KEY + VALUE)) as f64);
        took.map_or(f64::INFINITY, millis)
    });
    bench.figure(format!("gossip/join-sync-{entries}"), "ms").value(took).report()?;
    let bytes = bytes.iter().sum::<f64>() / bytes.len() as f64;
    bench.figure(format!("gossip/join-sync-{entries}-bytes"), "x size").value(bytes).report()
}

/// One of 20 nodes is cut off for a minute, in which both sides make entries: when all have all again.
fn heal(bench: &mut Bench<'_>) -> io::Result<()> {
    let took = median(bench, 21, |seed| {
        let mut net = subscribed(20, seed);
        (0..100).for_each(|number| put(&mut net, number as usize % 20, number));
        net.run_for(Duration::from_secs(5));
        net.isolate([7]);
        net.run_for(Duration::from_secs(30));
        (100..120).for_each(|number| put(&mut net, number as usize % 20, number));
        net.run_for(Duration::from_secs(30));
        net.heal();
        net.run_until(Duration::from_secs(60), |net| have(net, 120)).map_or(f64::INFINITY, millis)
    });
    bench.figure("gossip/heal-20-60s", "ms").value(took).report()
}
