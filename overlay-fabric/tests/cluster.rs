//! Clusters that do what they should.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail loudly too")]

use std::time::Duration;

use overlay_fabric::Cluster;
use overlay_node::NetworkSpec;

const LIMIT: Duration = Duration::from_secs(30);

fn attachable(name: &str) -> NetworkSpec {
    NetworkSpec { attachable: true, ..NetworkSpec::overlay(name.parse().unwrap()) }
}

#[test]
fn containers_of_one_network_reach_each_other_by_name_and_the_network_is_only_where_they_are() {
    let mut cluster = Cluster::new(1, 3);
    cluster.create_network(attachable("front")).unwrap();
    cluster.attach("web", 0, "front").unwrap();
    cluster.attach("db", 1, "front").unwrap();
    let checked = cluster.settle(LIMIT).unwrap_or_else(|violation| panic!("{violation}"));
    assert_eq!((checked.endpoints, checked.peers, checked.answered), (2, 2, 2));
    assert!(cluster.probe("web", "db").arrives());
    assert!(cluster.places(2).unwrap().places().is_empty());
}
