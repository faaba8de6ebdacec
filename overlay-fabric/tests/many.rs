//! A cluster of many nodes comes to be, carries packets, and loses a tenth of its nodes: some dozens of nodes in a plain run, as many as
//! `OVERLAY_FABRIC_NODES` says in a longer one.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail loudly too")]

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use overlay_core::{EndpointId, NodeId};
use overlay_fabric::{Checked, Cluster, ClusterConfig, Unanswered};
use overlay_gossip::{Standing, TableId};
use overlay_node::{Encryption, EndpointSpec, NetworkSpec, ServiceSpec};

/// Nodes of a plain run.
const NODES: usize = 40;
/// The longest that each thing may take, in virtual time.
const LIMIT: Duration = Duration::from_secs(60);
/// Containers of each network, on nodes all over the cluster; those of the first network serve.
const CONTAINERS: usize = 20;
/// The second is encrypted.
const NETWORKS: [&str; 2] = ["front", "back"];
/// Of so many nodes one is lost.
const SHARE: usize = 10;
/// The patience with who is not there any more.
const SOON: Duration = Duration::from_millis(300);

struct Large {
    cluster: Cluster,
    living: BTreeSet<usize>,
}

/// A container that was lost: its name, network and addresses.
struct Lost {
    name: String,
    network: &'static str,
    addresses: Vec<IpAddr>,
}

#[test]
fn a_large_cluster_forms_carries_packets_and_forgets_a_tenth_that_dies_everywhere() {
    let mut large = Large::formed(nodes());
    large.until_agreed();
    large.furnish();
    let before = large.checked();
    assert_eq!(before.endpoints, CONTAINERS * NETWORKS.len());
    assert!(before.peers > CONTAINERS * (CONTAINERS - 1), "{before:?}");
    let carried = large.talk();
    assert_eq!(carried, CONTAINERS * (NETWORKS.len() + 1));

    let (lost, ids) = large.lose();
    assert_eq!(lost.len(), CONTAINERS * NETWORKS.len() / SHARE, "some of each network");
    large.until_agreed();
    let after = large.checked();
    assert!(after.peers > 0 && after.peers < before.peers && after.answered > 0, "{after:?}");
    large.know_nothing_of(&ids);
    large.reach_none_of(&lost);
    assert_eq!(large.talk(), carried - carried / SHARE);
    let sealed: u64 =
        large.living.iter().filter_map(|node| large.cluster.packet_counts(*node)).map(|it| it.sealed).sum();
    assert!(sealed > 0, "nothing was encrypted");
    println!("{:?}, {} of them alive; checked {before:?}, then {after:?}", large.cluster, large.living.len());
}

/// How many nodes there are.
#[expect(clippy::disallowed_methods, reason = "longer tests are asked for by the environment")]
fn nodes() -> usize {
    std::env::var("OVERLAY_FABRIC_NODES")
        .ok()
        .and_then(|nodes| nodes.parse().ok())
        .map_or(NODES, |it: usize| it.max(NODES))
}

fn name(network: &str, number: usize) -> String {
    format!("{network}-{number}")
}

impl Large {
    fn formed(count: usize) -> Self {
        let config = ClusterConfig { watched: false, ..ClusterConfig::default() };
        Self { cluster: Cluster::with(config, 1_000, count).unwrap(), living: (0..count).collect() }
    }

    /// Where the container of this number of each network runs: on two nodes of a container's share of them, so that of ten one is lost.
    fn home(&self, network: usize, number: usize) -> usize {
        let place = number % SHARE + SHARE * (number / SHARE + 2 * network);
        place % self.cluster.len()
    }

    /// Networks, containers and a service that all of the first network serve.
    fn furnish(&mut self) {
        for (network, of) in NETWORKS.into_iter().enumerate() {
            let encryption = if network == 1 { Encryption::Shared } else { Encryption::None };
            let spec = NetworkSpec { attachable: true, encryption, ..NetworkSpec::overlay(of.parse().unwrap()) };
            let id = self.cluster.create_network(spec).unwrap().id;
            let web = (network == 0).then(|| ServiceSpec::new("web".parse().unwrap(), [id]));
            let web = web.map(|web| self.cluster.create_service(web).unwrap().id);
            for number in 0..CONTAINERS {
                let node = self.home(network, number);
                let container = name(of, number).parse().unwrap();
                let spec = EndpointSpec::new(id, container, self.cluster.node_id(node).unwrap());
                self.cluster.attach_as(node, EndpointSpec { service: web, ..spec }).unwrap();
            }
        }
    }

    /// All that must hold of a cluster that is at rest.
    fn checked(&mut self) -> Checked {
        self.cluster.settle(LIMIT).unwrap_or_else(|violation| panic!("{violation}"))
    }

    /// Lets time pass until each living node knows the others that live as living, and nobody else.
    fn until_agreed(&mut self) {
        let ids: BTreeSet<NodeId> = self.living.iter().filter_map(|node| self.cluster.node_id(*node)).collect();
        let agrees = |cluster: &Cluster, node: &usize| {
            let Some(agent) = cluster.agent(*node) else { return false };
            let alive = agent.gossip().members().filter(|(_, standing)| *standing == Standing::Alive);
            alive.map(|(member, _)| member.id).chain(cluster.node_id(*node)).collect::<BTreeSet<_>>() == ids
        };
        let end = self.cluster.now() + LIMIT;
        while !self.living.iter().all(|node| agrees(&self.cluster, node)) {
            assert!(self.cluster.now() < end, "{:?}: not all agree on who lives", self.cluster);
            self.cluster.run_for(Duration::from_millis(500));
        }
    }

    fn runs(&self, name: &str) -> bool {
        self.cluster.node_of(&name.parse().unwrap()).is_some_and(|node| self.living.contains(&node))
    }

    /// Each container that runs says something to the next that does of its network, and each of the first network to the service.
    /// How many were answered.
    fn talk(&mut self) -> usize {
        let mut answered = 0;
        for (network, of) in NETWORKS.into_iter().enumerate() {
            let mut run: Vec<String> = (0..CONTAINERS).map(|number| name(of, number)).collect();
            run.retain(|name| self.runs(name));
            for (from, to) in run.iter().zip(run.iter().cycle().skip(1)) {
                let answer = self.cluster.container(from).tcp(to, b"who?");
                assert!(answer.as_ref().is_ok_and(|it| it.by == *to), "{:?}: {from} to {to}: {answer:?}", self.cluster);
                answered += 1;
                if network == 0 {
                    let answer = self.cluster.container(from).tcp("web", b"who?");
                    let by = answer.as_ref().map(|it| it.by.clone()).unwrap_or_default();
                    assert!(run.contains(&by), "{:?}: {from} to the service: {answer:?}", self.cluster);
                    answered += 1;
                }
            }
        }
        answered
    }

    /// A tenth of all nodes loses its power at once, a manager too. What ran there, and the endpoints' ids.
    fn lose(&mut self) -> (Vec<Lost>, BTreeSet<EndpointId>) {
        let gone: BTreeSet<usize> = self.living.iter().copied().filter(|node| node % SHARE == 1).collect();
        assert_eq!(gone.len(), self.living.len().div_ceil(SHARE));
        self.living.retain(|node| !gone.contains(node));
        gone.iter().for_each(|node| self.cluster.power_off(*node));
        let (mut lost, mut ids) = (Vec::new(), BTreeSet::new());
        for network in NETWORKS {
            let id = self.cluster.network(network).unwrap().id;
            for endpoint in self.cluster.endpoints(id).unwrap() {
                let name = endpoint.spec.container.to_string();
                if !self.runs(&name) {
                    let addresses = endpoint.addresses.iter().map(|net| net.addr()).collect();
                    lost.push(Lost { name, network, addresses });
                    ids.insert(endpoint.id);
                }
            }
        }
        (lost, ids)
    }

    /// No living node has an entry of theirs, neither told nor in a place: and some have others'.
    fn know_nothing_of(&self, ids: &BTreeSet<EndpointId>) {
        let mut others = 0;
        for node in &self.living {
            let agent = self.cluster.agent(*node).unwrap();
            for network in agent.knowledge().networks.keys() {
                for (_, key, _, _) in agent.gossip().entries(*network, TableId(1)) {
                    let theirs = ids.iter().any(|id| key.as_bytes().windows(16).any(|bytes| *bytes == id.to_bytes()));
                    assert!(!theirs, "{:?}: node {node} knows an endpoint that is lost", self.cluster);
                    others += 1;
                }
            }
        }
        assert!(others > CONTAINERS, "{others}");
    }

    /// Those that run on their network find neither their names nor anybody at their addresses.
    fn reach_none_of(&mut self, lost: &[Lost]) {
        for Lost { name: gone, network, addresses } in lost {
            let from = (0..CONTAINERS).map(|number| name(network, number)).find(|name| self.runs(name)).unwrap();
            let named = self.cluster.container(&from).resolve(gone);
            assert!(matches!(named, Err(Unanswered::UnknownName(_))), "{gone}: {named:?}");
            assert!(!addresses.is_empty(), "{gone}");
            for address in addresses {
                let answer = self.cluster.container(&from).patience(SOON).ping(&address.to_string());
                assert!(matches!(answer, Err(Unanswered::Silent(_))), "{gone} at {address}: {answer:?}");
            }
        }
    }
}
