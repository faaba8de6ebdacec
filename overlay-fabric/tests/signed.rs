//! A node that was taken over, among nodes that sign what they say.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail loudly too")]

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use overlay_core::testing::Dice;
use overlay_core::{EndpointId, NetworkId};
use overlay_fabric::{Cluster, ClusterConfig};
use overlay_gossip::testing::{Conditions, Forgery, seeds};
use overlay_gossip::{EntryKey, Key, RefusedMetrics, TableId};
use overlay_node::{Contest, NetworkSpec, RemoteEndpoint};

/// Seeds of a plain run. `.ci/run full` asks for more.
const SEEDS: u64 = 20;
const LIMIT: Duration = Duration::from_secs(60);
/// Where agents tell of endpoints, and of their keys.
const TABLES: [TableId; 2] = [TableId(1), TableId(2)];
const DIRECTORY: NetworkId = NetworkId::from_bytes([0; 16]);
/// Where nodes tell of the keys of gossip.
const CLUSTER: NetworkId = NetworkId::from_bytes([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);

/// A cluster in which each node has a container on one network, and what is refused there.
struct Town {
    cluster: Cluster,
    network: NetworkId,
    dice: Dice,
}

impl Town {
    fn new(seed: u64) -> Self {
        let mut dice = Dice::new([seed as u8 ^ 0x51; 32]);
        let lossy = Conditions { loss: 0.05, duplication: 0.05, reordering: 0.1, ..Conditions::lan() };
        let conditions = if dice.one_in(2) { lossy } else { Conditions::lan() };
        let config = ClusterConfig { conditions, ..ClusterConfig::default() };
        let nodes = 3 + dice.below(3);
        let mut cluster = Cluster::with(config, seed, nodes).unwrap();
        let spec = NetworkSpec { attachable: true, ..NetworkSpec::overlay("front".parse().unwrap()) };
        let network = cluster.create_network(spec).unwrap().id;
        for node in 0..nodes {
            cluster.attach(&format!("c{node}"), node, "front").unwrap();
        }
        let mut town = Self { cluster, network, dice };
        town.settle(seed);
        town
    }

    fn settle(&mut self, seed: u64) {
        self.cluster.settle(LIMIT).unwrap_or_else(|violation| panic!("seed {seed}: {violation}"));
    }

    fn refused(&self) -> RefusedMetrics {
        let mut sum = RefusedMetrics::default();
        for node in 0..self.cluster.len() {
            let Some(agent) = self.cluster.agent(node) else { continue };
            let refused = agent.metrics().gossip.tables.refused;
            sum.signature += refused.signature;
            sum.unsigned += refused.unsigned;
            sum.unvouched += refused.unvouched;
        }
        sum
    }

    /// What an honest node says of its own container, as the liar has heard it.
    fn said_by(&self, victim: usize) -> (EndpointId, RemoteEndpoint) {
        let endpoints = self.cluster.endpoints(self.network).unwrap();
        let of_victim = |id| self.cluster.node_id(victim) == Some(id);
        let endpoint = endpoints.into_iter().find(|endpoint| of_victim(endpoint.spec.node)).unwrap();
        let said = (0..self.cluster.len()).filter_map(|node| self.cluster.agent(node)).find_map(|agent| {
            agent.knowledge().networks.get(&self.network)?.remote.get(&endpoint.id).map(|said| (**said).clone())
        });
        (endpoint.id, said.unwrap())
    }

    /// Something in another's name, signed with the liar's key or not at all.
    fn forgery(&mut self, liar: usize, victim: usize) -> Forgery {
        let (id, mut said) = self.said_by(victim);
        said.addresses = [IpAddr::from([10, 9, 9, self.dice.below(250) as u8])].into_iter().collect();
        let owner = self.cluster.node_id(victim).unwrap();
        let incarnation = self.cluster.agent(victim).map_or(1, |agent| agent.gossip().me().incarnation);
        let (network, table, key) = match self.dice.below(5) {
            0 => (DIRECTORY, TableId(0), Key::new(self.network.to_bytes().to_vec()).unwrap()), // it has left the network
            1 => (DIRECTORY, TableId(1), Key::new("voucher").unwrap()),
            2 => (CLUSTER, TableId(1), Key::new(vec![0]).unwrap()),
            3 => (self.network, TABLES[1], Key::new(vec![0]).unwrap()),
            _ => (self.network, TABLES[0], Key::new(id.to_bytes().to_vec()).unwrap()),
        };
        let value = (!self.dice.one_in(3)).then(|| Bytes::from(said.encode().unwrap()));
        let at = EntryKey { network, table, key };
        let sequence = 1_000 + self.dice.below(1_000) as u64;
        let mut forgery = Forgery { owner, incarnation, sequence, at, value, signature: Bytes::new() };
        if !self.dice.one_in(4) {
            self.cluster.sign_as(liar, &mut forgery);
        }
        forgery
    }
}

#[test]
fn nobody_believes_what_a_node_that_was_taken_over_says_in_anothers_name_and_all_goes_on() {
    let (mut lies, mut refused) = (0, 0);
    for seed in seeds(SEEDS) {
        let mut town = Town::new(seed);
        let nodes = town.cluster.len();
        let liar = town.dice.below(nodes);
        let before = town.refused();
        for _ in 0..40 {
            let (victim, to) = (town.dice.below(nodes), town.dice.below(nodes));
            if victim == liar || to == liar || victim == to {
                continue;
            }
            let forgery = town.forgery(liar, victim);
            town.cluster.lie(liar, to, &forgery);
            lies += 1;
            town.cluster.run_for(Duration::from_millis(town.dice.below(200) as u64));
            if town.dice.one_in(20) {
                town.cluster.crash(victim);
                town.cluster.run_for(Duration::from_secs(1));
                town.cluster.restart(victim).unwrap();
                town.cluster.run_for(Duration::from_secs(3));
            }
            town.cluster.check_always().unwrap();
        }
        town.settle(seed);
        let after = town.refused();
        refused += (after.signature + after.unsigned).saturating_sub(before.signature + before.unsigned);
    }
    assert!(lies > 10 * SEEDS && refused > lies / 2, "{refused} of {lies}");
}

#[test]
fn what_a_node_was_not_given_is_nowhere_though_it_says_so_itself_and_why_is_told() {
    for seed in seeds(SEEDS) {
        let mut town = Town::new(seed);
        let (liar, victim) = (0, 1);
        let (victims, of_victim) = town.said_by(victim);
        let (own, of_liar) = town.said_by(liar);
        let vip = IpAddr::from([10, 200, 0, 1]);
        let other = of_victim.addresses.iter().next().copied().unwrap();
        let at = |network, id: EndpointId| EntryKey {
            network,
            table: TABLES[0],
            key: Key::new(id.to_bytes().to_vec()).unwrap(),
        };
        let invented = EndpointId::from_bytes([0xee; 16]);
        let with =
            |addresses: &[IpAddr]| RemoteEndpoint { addresses: addresses.iter().copied().collect(), ..of_liar.clone() };
        let taken = Contest::Owner { node: of_victim.node, network: town.network };
        let lies = [
            (victims, of_victim.clone(), taken),
            (own, with(&[other]), Contest::Address { address: other }),
            (own, with(&[vip]), Contest::Address { address: vip }),
            (own, RemoteEndpoint { mac: of_victim.mac, ..of_liar.clone() }, Contest::Mac { allotted: of_liar.mac }),
            (invented, with(&[other]), Contest::Unknown),
            (own, RemoteEndpoint { container: of_victim.container.clone(), ..of_liar.clone() }, Contest::Names),
            (own, RemoteEndpoint { names: vec!["db".parse().unwrap()], ..of_liar.clone() }, Contest::Names),
            (own, RemoteEndpoint { labels: [("tier".into(), "db".into())].into(), ..of_liar.clone() }, Contest::Labels),
        ];
        for (id, lie, why) in lies {
            assert!(town.cluster.say(liar, at(town.network, id), lie.encode().unwrap()), "seed {seed}");
            town.cluster.run_for(Duration::from_secs(5));
            let mut believed = 0;
            for node in 2..town.cluster.len() {
                let agent = town.cluster.agent(node).unwrap();
                let section = &agent.knowledge().networks[&town.network];
                let shown = section
                    .remote
                    .get(&id)
                    .is_some_and(|shown| **shown == RemoteEndpoint { weight: shown.weight, ..lie.clone() });
                believed += usize::from(shown && id != victims);
                let told: Vec<Contest> = agent
                    .contested()
                    .filter(|(_, of, by, _)| (*of, *by) == (id, of_liar.node))
                    .map(|it| it.3)
                    .collect();
                assert_eq!(told, [why], "seed {seed}, node {node}");
                assert!(agent.metrics().contested_for != overlay_node::Contested::default());
            }
            assert_eq!(believed, 0, "seed {seed}: {why}");
            town.cluster.check_always().unwrap();
        }
    }
}

#[test]
fn a_run_with_signatures_is_the_same_each_time() {
    let run = |seed| {
        let mut town = Town::new(seed);
        town.cluster.run_for(Duration::from_secs(5));
        (0..town.cluster.len()).map(|node| town.cluster.agent(node).unwrap().metrics().gossip).collect::<Vec<_>>()
    };
    assert_eq!(run(7), run(7));
}
