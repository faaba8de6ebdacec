//! Encrypted networks: what crosses the underlay, and what becomes of it.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail loudly too")]

use std::time::Duration;

use overlay_crypto::Reason;
use overlay_fabric::{Broken, Cluster, ClusterConfig, Hop, Trace};
use overlay_node::{Condition, Encryption, NetworkSpec, Place};

const LIMIT: Duration = Duration::from_secs(30);

/// A cluster of three with an encrypted network, web on node 0 and db on node 1.
fn web_and_db(seed: u64, config: ClusterConfig) -> Cluster {
    encrypted(Encryption::Shared, seed, config)
}

fn encrypted(encryption: Encryption, seed: u64, config: ClusterConfig) -> Cluster {
    let mut cluster = Cluster::with(config, seed, 3).unwrap();
    let spec = NetworkSpec::overlay("secret".parse().unwrap());
    cluster.create_network(NetworkSpec { encryption, attachable: true, ..spec }).unwrap();
    cluster.attach("web", 0, "secret").unwrap();
    cluster.attach("db", 1, "secret").unwrap();
    cluster
}

fn settle(cluster: &mut Cluster) {
    cluster.settle(LIMIT).unwrap_or_else(|violation| panic!("{violation}"));
}

/// How many datagrams crossed the underlay, all of them sealed.
fn sealed(trace: &Trace) -> usize {
    let hops = trace.request.iter().chain(&trace.reply);
    let crossed =
        hops.filter_map(|hop| if let Hop::Tunnel { sealed, .. } = hop { Some(sealed.unwrap()) } else { None });
    crossed.count()
}

#[test]
fn containers_reach_each_other_sealed_both_ways_once_their_nodes_have_keys_and_never_otherwise() {
    for (encryption, port) in [(Encryption::Shared, 4793), (Encryption::Own, 29_200)] {
        reach_sealed(encryption, port);
    }
}

fn reach_sealed(encryption: Encryption, port: u16) {
    let mut cluster = encrypted(encryption, 40, ClusterConfig::default());
    let reached = cluster.run_until(LIMIT, |cluster| {
        cluster.check_always().unwrap();
        let trace = cluster.probe("web", "db");
        let crossed = sealed(&trace);
        trace.arrives() && crossed == 2
    });
    assert!(reached.is_some(), "{}", cluster.probe("web", "db"));
    settle(&mut cluster);
    let said = cluster.explain("web", "db").unwrap().to_string();
    assert!(said.contains(&format!("sealed    port {port}")), "{said}");
    assert_eq!(cluster.places(2).unwrap().places().len(), 0, "and the third node has nothing of it");
}

#[test]
fn a_node_that_starts_again_has_other_keys_and_is_reached_again() {
    let mut cluster = web_and_db(41, ClusterConfig::default());
    settle(&mut cluster);
    let host =
        |cluster: &Cluster, node: usize| cluster.places(node).unwrap().place(&Place::Host).unwrap().crypto.state();
    let before = host(&cluster, 1);
    cluster.crash(1);
    cluster.run_for(Duration::from_secs(1));
    cluster.restart(1).unwrap();
    cluster.run_until(Duration::from_secs(5), |cluster| {
        cluster.check_always().unwrap();
        sealed(&cluster.probe("web", "db"));
        false
    });
    settle(&mut cluster);
    assert!(cluster.probe("web", "db").arrives() && cluster.probe("db", "web").arrives());
    let after = host(&cluster, 1);
    assert!(after.sas.len() == 2 && after.sas.keys().all(|id| !before.sas.contains_key(id)));
}

#[test]
fn a_tunnel_that_somebody_took_away_carries_nothing_rather_than_cleartext() {
    let mut cluster = web_and_db(42, ClusterConfig::default());
    settle(&mut cluster);
    let host = |node: usize| cluster.places(node).unwrap().place(&Place::Host).unwrap().crypto;
    host(0).update(|state| state.tunnels.clear());
    let dropped = |node, reason| Some(Broken::Unprotected { node, reason });
    assert_eq!(cluster.probe("web", "db").broken, dropped(0, Reason::NoTunnel));
    assert!(cluster.explain("web", "db").unwrap().to_string().contains("is not protected"));
    assert_eq!(cluster.probe("db", "web").broken, dropped(0, Reason::NoTunnel), "what came sealed finds no tunnel");
    assert!(cluster.check().is_err());
    assert!(cluster.check_always().is_ok(), "it is guarded all the same");
    host(0).update(|state| *state = overlay_crypto::State::default());
    assert_eq!(cluster.probe("db", "web").broken, dropped(0, Reason::ForeignSpi));
    let in_depth =
        |broken| matches!(broken, Some(Broken::Dropped { node: 0, rule }) if rule == "tunnel/4793/cleartext");
    assert!(in_depth(cluster.probe("web", "db").broken), "the firewall guards in depth");
    cluster.places(0).unwrap().place(&Place::Host).unwrap().firewall.update(|state| state.tunnels.clear());
    assert_eq!(cluster.probe("web", "db").broken, dropped(1, Reason::Clear), "cleartext is not taken in");
    assert!(cluster.check_always().unwrap_err().to_string().contains("is clear"), "and it is seen that there was some");
}

#[test]
fn an_encrypted_network_carries_nothing_on_a_node_that_lacks_esp_and_its_endpoint_says_so() {
    let config = ClusterConfig { without_esp: [1].into(), ..ClusterConfig::default() };
    let mut cluster = web_and_db(43, config);
    cluster.attach("app", 2, "secret").unwrap();
    cluster.run_for(Duration::from_secs(5));
    assert!(!cluster.probe("web", "db").arrives() && !cluster.probe("db", "web").arrives());
    assert!(cluster.probe("web", "app").arrives());
    for endpoint in cluster.endpoints(cluster.network("secret").unwrap().id).unwrap() {
        let fails = endpoint.spec.container.as_str() == "db";
        let said = matches!(&endpoint.condition, Condition::Failed { reason } if reason.contains("has no ESP"));
        assert_eq!((said, endpoint.condition == Condition::Ready), (fails, !fails), "{endpoint:?}");
    }
    cluster.check_always().unwrap();
}

#[test]
fn nodes_that_were_apart_find_their_tunnels_as_they_were() {
    let mut cluster = web_and_db(44, ClusterConfig::default());
    settle(&mut cluster);
    let host = |cluster: &Cluster| cluster.places(0).unwrap().place(&Place::Host).unwrap().crypto.state();
    let before = host(&cluster);
    cluster.partition([1]);
    cluster.run_for(Duration::from_secs(20));
    cluster.heal();
    settle(&mut cluster);
    assert!(cluster.probe("web", "db").arrives());
    assert_eq!(host(&cluster), before, "no key was put to work twice, and none was given up");
}

#[test]
fn networks_with_ports_of_their_own_have_nothing_of_each_others_and_come_and_go_alone() {
    let mut cluster = web_and_db(45, ClusterConfig::default());
    for (name, [here, there]) in [("one", ["web-1", "db-1"]), ("two", ["web-2", "db-2"])] {
        let spec = NetworkSpec::overlay(name.parse().unwrap());
        cluster.create_network(NetworkSpec { encryption: Encryption::Own, attachable: true, ..spec }).unwrap();
        cluster.attach(here, 0, name).unwrap();
        cluster.attach(there, 1, name).unwrap();
    }
    settle(&mut cluster);
    let host = |cluster: &Cluster| cluster.places(0).unwrap().place(&Place::Host).unwrap().crypto;
    let state = host(&cluster).state();
    assert_eq!((state.ports.len(), state.tunnels.len(), state.sas.len()), (3, 3, 6));
    for (from, to) in [("web", "db"), ("web-1", "db-1"), ("web-2", "db-2")] {
        let trace = cluster.probe(from, to);
        assert!(trace.arrives() && sealed(&trace) == 2, "{trace}");
    }
    let one = cluster.network("one").unwrap().port.unwrap();
    host(&cluster).update(|state| state.tunnels.retain(|tunnel, _| tunnel.port != one));
    let dropped = Some(Broken::Unprotected { node: 0, reason: Reason::NoTunnel });
    assert_eq!(cluster.probe("web-1", "db-1").broken, dropped);
    assert!(cluster.probe("web", "db").arrives() && cluster.probe("web-2", "db-2").arrives());
    host(&cluster).update(|held| *held = state.clone());
    cluster.detach("web-1", "one").unwrap();
    cluster.run_until(LIMIT, |cluster| {
        cluster.check_always().unwrap();
        false
    });
    settle(&mut cluster);
    let left = host(&cluster).state();
    assert!(!left.ports.contains(&one) && left.ports.len() == 2 && left.sas.len() == 4);
    assert!(left.sas.keys().all(|id| state.sas.contains_key(id)), "the others' stay as they were");
}
