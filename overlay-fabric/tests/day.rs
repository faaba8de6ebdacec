//! A long time of everything that can happen to twenty nodes: minutes in a plain run, as many hours as `OVERLAY_FABRIC_HOURS` says in a
//! longer one. After each round all is removed, and then nothing may be more than after the first.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail loudly too")]

mod storm;

use std::time::Duration;

use overlay_fabric::Cluster;

use storm::{Seen, Storm};

const NODES: usize = 20;
const SEED: u64 = 24;
/// By how much the process may grow, from a sixth of a long run to its end: an allocator's pages are not all given back.
const SLACK: usize = 32 << 20;

/// How long it all takes.
#[derive(Clone, Copy)]
struct Length {
    rounds: u32,
    /// Of each round, that in which things happen, and the rest after it.
    storm: Duration,
    rest: Duration,
}

const PLAIN: Length = Length { rounds: 3, storm: Duration::from_secs(60), rest: Duration::from_secs(10) };
/// Two hours, and as long as gossip keeps a tombstone that not all have confirmed (30 minutes), and the catalogue the id of what is gone (an hour).
const LONG: Length = Length { rounds: 1, storm: Duration::from_secs(2 * 3_600), rest: Duration::from_secs(62 * 60) };

/// What there is of a cluster in which nothing is.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Sizes {
    /// None while some may say what is gone.
    records: Option<usize>,
    places: usize,
    /// Of each agent: nodes, networks, its own endpoints, others', contested ones.
    agents: Vec<[usize; 5]>,
    /// Of each one's gossip: members, entries but for tombstones, changes under way, pulls, confirmations, what waits to be acted upon.
    gossip: Vec<[usize; 6]>,
}

impl Sizes {
    fn of(cluster: &Cluster, rest: Duration) -> Self {
        let metrics: Vec<_> = (0..NODES).map(|node| cluster.agent(node).unwrap().metrics()).collect();
        let agents = metrics.iter().map(|it| [it.nodes, it.networks, it.local, it.remote, it.contested]);
        let gossip = metrics.iter().map(|it| {
            let (members, tables) = (it.gossip.membership, it.gossip.tables);
            let waits = [tables.fresh, tables.pulls, tables.confirmations, tables.unacted];
            let [fresh, pulls, confirmations, unacted] = waits;
            [members.alive, tables.entries - tables.tombstones, fresh, pulls, confirmations, unacted]
        });
        Self {
            records: (rest >= LONG.rest).then(|| cluster.records()),
            places: (0..NODES).map(|node| cluster.places(node).unwrap().places().len()).sum(),
            agents: agents.collect(),
            gossip: gossip.collect(),
        }
    }
}

/// As long as was asked for.
#[expect(clippy::disallowed_methods, reason = "longer tests are asked for by the environment")]
fn length() -> Length {
    let Ok(hours) = std::env::var("OVERLAY_FABRIC_HOURS") else { return PLAIN };
    Length { rounds: hours.parse::<u32>().unwrap().div_ceil(2), ..LONG }
}

/// The most tombstones that any node's gossip keeps. Of each owner one may stay: its last change, by which it is known how far it is.
fn tombstones(cluster: &Cluster) -> usize {
    (0..NODES).map(|node| cluster.agent(node).unwrap().metrics().gossip.tables.tombstones).max().unwrap()
}

/// Bytes of this process in memory.
fn resident() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

/// Things happen for so long; then all is mended, and removed.
fn round(storm: &mut Storm, seen: &mut Seen, length: Length) -> u64 {
    let (mut struck, mut left) = (0, length.storm);
    while !left.is_zero() {
        storm.strike(seen);
        struck += 1;
        if struck % 20 == 0 {
            (0..NODES).for_each(|node| storm.cluster.restart(node).unwrap());
        }
        let span = Duration::from_millis(storm.dice.below(20_000) as u64).min(left);
        left -= span;
        storm.pass(span);
    }
    storm.calm();
    seen.checked = seen.checked.plus(storm.settled());
    storm.remove_all();
    let after = storm.settled();
    assert_eq!((after.endpoints, after.places), (0, 0), "something is left");
    storm.pass(length.rest);
    struck
}

#[test]
fn however_long_everything_happens_nothing_is_left_of_it_and_nothing_grows() {
    let length = length();
    let (mut storm, mut seen) = (Storm::of(SEED, |_| NODES), Seen::default());
    let (mut first, mut warm, mut struck) = (None, None, 0);
    for number in 1..=length.rounds {
        struck += round(&mut storm, &mut seen, length);
        let (sizes, bytes) = (Sizes::of(&storm.cluster, length.rest), resident());
        println!(
            "{number}: {struck} things, {} records, {} KiB, now {:?}",
            storm.cluster.records(),
            bytes >> 10,
            storm.cluster.now()
        );
        assert!(length.rest < LONG.rest || tombstones(&storm.cluster) <= NODES, "after round {number}");
        assert_eq!(&sizes, first.get_or_insert_with(|| sizes.clone()), "after round {number}");
        if number > length.rounds / 6 {
            let warm = *warm.get_or_insert(bytes);
            assert!(bytes <= warm + SLACK, "{bytes} bytes after round {number}, {warm} when it was warm");
        }
    }
    storm.tally(&mut seen);
    println!("{seen:?}");
    assert!(struck > 0 && seen.checked.endpoints > 0, "nothing happened: {seen:?}");
}
