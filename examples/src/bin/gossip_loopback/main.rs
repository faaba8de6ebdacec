//! 20 nodes in this process gossip over real sockets, UDP and TCP on loopback: they join, one of them makes 1,000 and then
//! 10,000 entries, one is stopped, and each time it is measured when everybody knows.
//!
//! `cargo run --release --bin gossip_loopback [ENTRIES...]` ends with 1 if somebody does not get everything within 90 s.
//!
//! Each time stands beside the processor time that all nodes spent in it. That is the gap to the virtual network
//! (`overlay-bench -- gossip`), where a node takes no time to think: there, a burst takes as long as rounds and round trips do; here
//! 20 machines share one thread, every message costs system calls, and whoever waits for its turn answers later. Where the two times
//! are alike, twenty nodes on processors of their own would be as fast as the virtual network says.

#![expect(clippy::print_stdout, reason = "it talks to a person")]

mod node;
mod streams;

use std::error::Error;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use overlay_core::{NetworkId, NodeId};
use overlay_gossip::{EntryKey, Key, TableId};

use crate::node::{Node, Pulse};

const NODES: usize = 20;
const NETWORK: NetworkId = NetworkId::from_bytes([9; 16]);
const TABLE: TableId = TableId(1);
const PATIENCE: Duration = Duration::from_secs(90);

type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Outcome<ExitCode> {
    let bursts: Vec<usize> = match std::env::args().skip(1).map(|count| count.parse()).collect::<Result<Vec<_>, _>>()? {
        given if given.is_empty() => vec![1_000, 10_000],
        given => given,
    };
    let mut nodes = Vec::new();
    for number in 0..NODES {
        nodes.push(Node::start(number, NETWORK).await?);
    }
    let seeds: Vec<_> = nodes.iter().take(3).map(|node| node.address).collect();
    let start = Start::now();
    for node in &nodes {
        let seeds = seeds.clone();
        node.tell(move |gossip, now| gossip.join(&seeds, now));
    }
    let mut well = report("everybody knows everybody", start, &nodes, |pulse| pulse.live == NODES - 1).await;

    let mut total = 0;
    for (round, count) in bursts.into_iter().enumerate() {
        total += count;
        let start = Start::now();
        nodes[0].tell(move |gossip, now| {
            for number in 0..count {
                let key = [&[round as u8][..], &(number as u64).to_be_bytes()].concat();
                let Ok(key) = Key::new(key) else { continue };
                let _ = gossip.put(EntryKey { network: NETWORK, table: TABLE, key }, vec![7; 64].into(), now);
            }
        });
        let what = format!("a burst of {count} entries is everywhere");
        well &= report(&what, start, &nodes, |pulse| pulse.entries == total).await;
        let sent = |nodes: &[Node]| nodes.iter().map(|node| node.pulse().bytes).sum::<u64>();
        println!("  {:.2} MB sent by all since the start", sent(&nodes) as f64 / 1e6);
    }

    let start = Start::now();
    let lost = nodes.pop().ok_or("no nodes")?;
    let id: NodeId = lost.id;
    lost.stop();
    well &= report(&format!("{} is missed by everybody", id.short()), start, &nodes, |p| p.live == NODES - 2).await;
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// When something began, on the clock and in processor time.
struct Start {
    at: Instant,
    processor: Duration,
}

impl Start {
    fn now() -> Self {
        Self { at: now(), processor: processor_time() }
    }
}

/// Waits until all nodes are as wanted, and says how long it took.
async fn report(what: &str, start: Start, nodes: &[Node], is: impl Fn(Pulse) -> bool) -> bool {
    loop {
        let missing = nodes.iter().filter(|node| !is(node.pulse())).count();
        let took = start.at.elapsed();
        if missing == 0 {
            let processor = processor_time().saturating_sub(start.processor);
            println!("{:>6} ms, {:>6} ms of processor time: {what}", took.as_millis(), processor.as_millis());
            return true;
        }
        if took > PATIENCE {
            println!("FAILED: {what}: {missing} nodes are not so far after {} s", took.as_secs());
            return false;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// What this process has spent, to the hundredth of a second; nothing where there is no /proc.
fn processor_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks = fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum::<u64>();
    Duration::from_millis(ticks * 10)
}

#[expect(clippy::disallowed_methods, reason = "a program with sockets has a clock")]
fn now() -> Instant {
    Instant::now()
}
