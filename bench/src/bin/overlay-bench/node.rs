//! `node/derive-10k-cold`: all that a node should hold, from all that it knows of a [town](crate::node_town).
//! `node/derive-10k-one-change`: the same after one endpoint elsewhere changed, by a `Deriver` that keeps what did not.
//! The yardstick is to clone the tables of all places.

use std::hint::black_box;
use std::io;
use std::sync::Arc;

use overlay_bench::Bench;
use overlay_node::{Deriver, Desired, Knowledge, PlaceState, derive};

use crate::firewall::must;
use crate::node_town::{self, NETWORKS, endpoint, endpoint_id, knowledge, network_id};
use crate::{node_agent, node_hosts, node_rss};

pub(crate) fn run(bench: &mut Bench<'_>) -> io::Result<()> {
    let knowledge = knowledge();
    let desired = derive(&knowledge);
    assert_eq!(desired.places.len(), 1 + 10 + 100, "the host, the networks, the containers");
    bench
        .figure("node/derive-10k-cold", "ms")
        .once(|| (), |()| derive(black_box(&knowledge)))
        .yardstick_once("clone the tables", || (), |()| tables(black_box(&desired)))
        .report()?;
    one_change(bench, knowledge, &desired)?;
    drop(desired);
    node_rss::run(bench)?;
    node_agent::run(bench)?;
    node_hosts::run(bench)
}

/// Endpoints elsewhere end and others begin, in turn: each changes a segment, a zone, and what ten containers see.
fn one_change(bench: &mut Bench<'_>, mut knowledge: Knowledge, desired: &Desired) -> io::Result<()> {
    let mut deriver = Deriver::default();
    let mut held = deriver.derive(&knowledge);
    let mut turn = 0_u16;
    bench
        .figure("node/derive-10k-one-change", "ms")
        .each(|_| {
            change(&mut knowledge, turn);
            turn = turn.wrapping_add(1);
            held = deriver.derive(black_box(&knowledge));
        })
        .yardstick("clone the tables", |_| drop(black_box(tables(desired))))
        .report()?;
    assert_eq!(*held, derive(&knowledge), "what was derived step by step");
    Ok(())
}

fn change(knowledge: &mut Knowledge, turn: u16) {
    let (network, number) = (turn / 2 % NETWORKS, turn / 20 % 990 + 1);
    let Some(section) = knowledge.networks.get_mut(&network_id(network)) else { return };
    let remote = &mut Arc::make_mut(section).remote;
    match turn % 2 {
        0 => drop(remote.remove(&endpoint_id(network, number))),
        _ => drop(
            remote.insert(endpoint_id(network, number), Arc::new(node_town::remote(&must(endpoint(network, number))))),
        ),
    }
}

fn tables(desired: &Desired) -> Vec<PlaceState> {
    desired.places.values().map(|state| PlaceState::clone(state)).collect()
}
