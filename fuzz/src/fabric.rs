//! A body for overlay-fabric: what happens to a whole cluster, and when.

use std::time::Duration;

use overlay_core::IpFamily;
use overlay_fabric::{Cluster, ClusterConfig, FabricError};
use overlay_ipam::SubnetRequest;
use overlay_node::{Encryption, NetworkSpec, UpkeepConfig};

use crate::Body;

pub(crate) const TARGETS: &[(&str, Body)] = &[("fabric_schedule", schedule)];

/// The most that happens: a body is to be done in a moment.
const MOST: usize = 24;
const NETWORKS: [&str; 2] = ["front", "vault"];
const CONTAINERS: u8 = 6;

/// The first byte is the run's seed and says how many nodes there are; then three bytes are one thing that happens each: what, to whom, and how. Nothing is
/// ever open that should not be; and once all is mended, all comes to be as it should.
fn schedule(bytes: &[u8]) {
    let Some((first, things)) = bytes.split_first() else { return };
    let upkeep = UpkeepConfig { drift: Some(Duration::from_secs(5)), ..UpkeepConfig::default() };
    let config = ClusterConfig { upkeep, history: 16, ..ClusterConfig::default() };
    let mut cluster = match Cluster::with(config, u64::from(*first), 3 + usize::from(first % 3)) {
        Ok(cluster) => cluster,
        Err(error) => panic!("{error}"),
    };
    for network in NETWORKS {
        found(&mut cluster, network);
    }
    for thing in things.as_chunks().0.iter().take(MOST) {
        bear(happen(&mut cluster, *thing), thing);
        if let Err(violation) = cluster.check_always() {
            panic!("{violation}");
        }
    }
    calm(&mut cluster);
    if let Err(violation) = cluster.settle(Duration::from_secs(90)) {
        panic!("{violation}");
    }
}

/// A network that is encrypted if its name says so.
fn found(cluster: &mut Cluster, name: &str) {
    let Ok(parsed) = name.parse() else { return };
    let encryption = if name == "vault" { Encryption::Own } else { Encryption::None };
    let subnets = vec![SubnetRequest::any(IpFamily::V4)];
    let spec = NetworkSpec { attachable: true, encryption, subnets, ..NetworkSpec::overlay(parsed) };
    let created = cluster.create_network(spec);
    assert!(created.is_ok(), "{created:?}");
}

/// What the catalogue refuses, and what it takes a manager for that runs, is refused.
fn bear(happened: Result<(), FabricError>, thing: &[u8]) {
    match happened {
        Ok(()) | Err(FabricError::NoManager | FabricError::NoContainer(_) | FabricError::Elsewhere { .. }) => {}
        Err(FabricError::Control(error)) if error.refusal().is_some() => {}
        Err(error) => panic!("{thing:?}: {error}"),
    }
}

fn happen(cluster: &mut Cluster, [what, whom, how]: [u8; 3]) -> Result<(), FabricError> {
    let (node, other) = (usize::from(whom) % cluster.len(), usize::from(how) % cluster.len());
    let container = format!("c{}", whom % CONTAINERS);
    let rate = usize::from(how % 3) * 4;
    match what % 16 {
        0 | 1 => return cluster.attach(&container, other, NETWORKS[usize::from(what >> 4) % 2]).map(drop),
        2 => return cluster.relocate(&container, other).map(drop),
        3 => return cluster.stop(&container),
        4 => cluster.crash(node),
        5 => cluster.power_off(node),
        6 => return cluster.restart(node),
        7 => cluster.cut(node, other),
        8 => cluster.partition([node]),
        9 => cluster.heal(),
        10 => cluster.fail_places(node, rate),
        11 => cluster.fail_store(rate),
        12 => cluster.break_calls(rate),
        13 => cluster.pause(node, Duration::from_millis(u64::from(how) * 16)),
        14 => cluster.rotate_keys(node),
        _ => cluster.run_for(Duration::from_millis(u64::from(how) * 16)),
    }
    Ok(())
}

fn calm(cluster: &mut Cluster) {
    cluster.heal();
    cluster.fail_store(0);
    cluster.break_calls(0);
    for node in 0..cluster.len() {
        cluster.fail_places(node, 0);
        let restarted = cluster.restart(node);
        assert!(restarted.is_ok(), "{restarted:?}");
    }
}
