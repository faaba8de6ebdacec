//! `node/derive-10k-cold`: all that a node should hold, from all that it knows of a [town](crate::node_town).
//! `node/derive-10k-one-change`: the same after one endpoint elsewhere changed, by a `Deriver` that keeps what did not.
//! The yardstick is to clone the tables of all places.

use std::hint::black_box;
use std::io;
use std::sync::Arc;

use overlay_bench::Bench;
use overlay_dns::Health;
use overlay_node::{Deriver, Desired, Knowledge, PlaceState, derive};

use crate::firewall::must;
use crate::node_town::{endpoint, endpoint_id, knowledge, network_id, remote};

pub(crate) fn run(bench: &mut Bench<'_>) -> io::Result<()> {
    let knowledge = knowledge();
    let desired = derive(&knowledge);
    assert_eq!(desired.places.len(), 1 + 10 + 100, "the host, the networks, the containers");
    bench
        .figure("node/derive-10k-cold", "ms")
        .once(|| (), |()| derive(black_box(&knowledge)))
        .yardstick_once("clone the tables", || (), |()| tables(black_box(&desired)))
        .report()?;
    one_change(bench, knowledge, &desired)
}

fn one_change(bench: &mut Bench<'_>, mut knowledge: Knowledge, desired: &Desired) -> io::Result<()> {
    let mut deriver = Deriver::default();
    let mut held = deriver.derive(&knowledge);
    let mut turn = 0;
    bench
        .figure("node/derive-10k-one-change", "ms")
        .each(|n| {
            turn += usize::from(n == 0);
            change(&mut knowledge, n, turn);
            held = deriver.derive(black_box(&knowledge));
        })
        .yardstick("clone the tables", |_| drop(black_box(tables(desired))))
        .report()
}

/// An endpoint elsewhere becomes suspect, or healthy again.
fn change(knowledge: &mut Knowledge, n: usize, turn: usize) {
    let (network, number) = ((n % 10) as u16, (n % 999 + 1) as u16);
    let Some(section) = knowledge.networks.get_mut(&network_id(network)) else { return };
    let mut remote = remote(&must(endpoint(network, number)));
    remote.health = [Health::Healthy, Health::Suspect][(n / 999 + turn) % 2];
    remote.moves = n as u64;
    Arc::make_mut(section).remote.entry(endpoint_id(network, number)).and_modify(|held| *held = Arc::new(remote));
}

fn tables(desired: &Desired) -> Vec<PlaceState> {
    desired.places.values().map(|state| PlaceState::clone(state)).collect()
}
