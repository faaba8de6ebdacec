//! `datapath/fabric-packets`: datagrams of 1,000 bytes from a container to one on another node, through a simulated cluster: both IP stacks, both data
//! planes, and the underlay between them, on one core. The yardstick: both data planes alone.

use std::io;

use overlay_bench::{Bench, Pace};
use overlay_fabric::Cluster;
use overlay_node::NetworkSpec;

use crate::crypto::now;
use crate::datapath::alone;
use crate::firewall::must;

const SIZE: usize = 1_000;
const FIGURE: &str = "datapath/fabric-packets";

pub(crate) fn run(bench: &mut Bench<'_>) -> io::Result<()> {
    if !bench.wants(FIGURE) {
        return Ok(());
    }
    let count = if bench.pace() == Pace::Quick { 2_000 } else { 20_000 };
    let (mut cluster, to) = cluster();
    let alone = alone(SIZE, bench.pace());
    bench
        .figure(FIGURE, "packets/s")
        .measured(move || {
            let start = now();
            let came = must(cluster.container("a").pour(&to, SIZE, count).map_err(Into::into));
            assert_eq!(came, count as u64, "all come");
            came as f64 / start.elapsed().as_secs_f64()
        })
        .yardstick_measured("data planes alone", alone)
        .report()
}

/// Two containers on two nodes, and the address of the second.
fn cluster() -> (Cluster, String) {
    let mut cluster = Cluster::new(18, 2);
    let front = NetworkSpec::overlay(must("front".parse().map_err(|_| "a name".into())));
    must(cluster.create_network(NetworkSpec { attachable: true, ..front }).map_err(Into::into));
    for (node, name) in ["a", "b"].into_iter().enumerate() {
        must(cluster.attach(name, node, "front").map_err(Into::into));
    }
    must(cluster.settle(std::time::Duration::from_secs(30)).map_err(|violation| violation.to_string().into()));
    let to = must(cluster.container("a").resolve("b").map_err(Into::into));
    must(cluster.container("a").ping("b").map_err(Into::into)); // each has found the other
    let to = to.first().map(ToString::to_string).unwrap_or_default();
    (cluster, to)
}
