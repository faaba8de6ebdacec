//! `node/sim-100x60s`: how long one core simulates 100 nodes with 10 networks for 60 virtual seconds, in which containers come, go and
//! move, and agents die and come back.

use std::hint::black_box;
use std::io;
use std::time::Duration;

use overlay_bench::{Bench, Pace};
use overlay_core::testing::Dice;
use overlay_fabric::{Cluster, ClusterConfig, FabricError};
use overlay_node::NetworkSpec;

use crate::dns::must;

const NETWORKS: usize = 10;
/// Containers at the start; ten of them end and ten others begin in each second.
const CONTAINERS: usize = 200;

pub(crate) fn run(bench: &mut Bench<'_>) -> io::Result<()> {
    let (nodes, seconds) = match bench.pace() {
        Pace::Full => (100, 60),
        Pace::Quick => (20, 10),
    };
    bench
        .figure(format!("node/sim-{nodes}x{seconds}s"), "s")
        .once(|| (), |()| black_box(simulate(nodes, seconds)))
        .report()
}

/// Simulates, and gives how many endpoints there are when all has come to rest.
fn simulate(nodes: usize, seconds: usize) -> usize {
    let config = ClusterConfig { watched: false, ..ClusterConfig::default() };
    let mut town = Town {
        cluster: must(Cluster::with(config, 7, nodes)),
        dice: Dice::new([7; 32]),
        containers: Vec::new(),
        made: 0,
    };
    for network in 0..NETWORKS {
        let name = must(format!("net-{network}").parse());
        must(town.cluster.create_network(NetworkSpec { attachable: true, ..NetworkSpec::overlay(name) }));
    }
    (0..CONTAINERS).for_each(|_| must(town.begin()));
    for second in 0..seconds {
        must(town.churn(second));
        town.cluster.run_for(Duration::from_secs(1));
    }
    (0..nodes).for_each(|node| must(town.cluster.restart(node)));
    must(town.cluster.settle(Duration::from_secs(30))).endpoints
}

struct Town {
    cluster: Cluster,
    dice: Dice,
    containers: Vec<String>,
    made: usize,
}

impl Town {
    fn begin(&mut self) -> Result<(), FabricError> {
        self.made += 1;
        let (name, node) = (format!("c-{}", self.made), self.dice.below(self.cluster.len()));
        let network = format!("net-{}", self.dice.below(NETWORKS));
        self.cluster.attach(&name, node, &network)?;
        self.containers.push(name);
        Ok(())
    }

    /// What happens in a second: ten containers end, ten begin, two move; every tenth, an agent dies, and comes back after five.
    fn churn(&mut self, second: usize) -> Result<(), FabricError> {
        for _ in 0..10 {
            let at = self.dice.below(self.containers.len());
            self.cluster.stop(&self.containers.swap_remove(at))?;
            self.begin()?;
        }
        for _ in 0..2 {
            let (at, node) = (self.dice.below(self.containers.len()), self.dice.below(self.cluster.len()));
            self.cluster.relocate(&self.containers[at], node)?;
        }
        let victim = 3 + second / 10 % (self.cluster.len() - 3); // not a manager
        match second % 10 {
            2 => self.cluster.crash(victim),
            7 => self.cluster.restart(victim)?,
            _ => {}
        }
        Ok(())
    }
}
