//! Real packets while nodes, links and places fail: what must never be seen on a link, and what must be reached again.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail loudly too")]

use std::time::Duration;

use overlay_core::IpFamily;
use overlay_core::testing::Dice;
use overlay_fabric::{Captured, Cluster, ClusterConfig, Link};
use overlay_gossip::testing::{Conditions, seeds};
use overlay_ipam::SubnetRequest;
use overlay_node::{Encryption, EndpointSpec, NetworkSpec, ServiceSpec};

/// Seeds of a plain run.
const SEEDS: u64 = 10;
const NODES: usize = 10;
/// How long things happen.
const STORM: Duration = Duration::from_secs(300);
/// The longest from one thing that happens to the next.
const CALM: Duration = Duration::from_secs(6);
const SEED: [u8; 32] = [0x5a; 32];
/// What the containers of each network send, and nobody else: the last is encrypted.
const NETWORKS: [(&str, &str); 3] =
    [("plain", "of-the-plain-one"), ("other", "of-the-other-one"), ("hidden", "of-the-hidden")];

/// How often what happened, over all seeds: so that nobody can say that nothing did.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    answered: u64,
    unanswered: u64,
    /// Attempts at an address of another network.
    crossing: u64,
    crossing_v6: u64,
    crashes: u64,
    moves: u64,
    rotations: u64,
    cut: u64,
    sealed: u64,
    /// Packets of the networks that are not encrypted, in which the search finds what it looks for.
    found_outside: u64,
    found_inside: u64,
    vips: u64,
}

struct Storm {
    cluster: Cluster,
    dice: Dice,
    seen: Seen,
}

fn name(network: usize, number: usize) -> String {
    format!("{}-{number}", NETWORKS[network].0)
}

impl Storm {
    /// Three containers on each network, and a service of two replicas on the first.
    fn new(seed: u64) -> Self {
        let mut dice = Dice::new(SEED.map(|byte| byte ^ seed as u8));
        let lossy = Conditions { loss: 0.02, duplication: 0.02, reordering: 0.05, ..Conditions::lan() };
        let conditions = if dice.one_in(2) { lossy } else { Conditions::lan() };
        let config = ClusterConfig { conditions, ..ClusterConfig::default() };
        let mut cluster = Cluster::with(config, seed, NODES).unwrap();
        for (network, _) in NETWORKS {
            let encryption = if network == "hidden" { Encryption::Shared } else { Encryption::None };
            let mut subnets = vec![SubnetRequest::any(IpFamily::V4)];
            if network != "plain" {
                subnets.push(SubnetRequest::this(format!("fd00:{}::/64", network.len()).parse().unwrap()));
            }
            let spec = NetworkSpec::overlay(network.parse().unwrap());
            cluster.create_network(NetworkSpec { attachable: true, encryption, subnets, ..spec }).unwrap();
        }
        for number in 0..3 {
            for (network, (of, _)) in NETWORKS.iter().enumerate() {
                let container = name(network, number);
                cluster.attach(&container, dice.below(NODES), of).unwrap();
                cluster.capture(Link::Container(container.parse().unwrap()));
            }
        }
        let plain = cluster.network("plain").unwrap().id;
        let web = cluster.create_service(ServiceSpec::new("web".parse().unwrap(), [plain])).unwrap();
        for node in 0..2 {
            let spec = EndpointSpec::new(plain, format!("web-{node}").parse().unwrap(), cluster.node_id(node).unwrap());
            cluster.attach_as(node, EndpointSpec { service: Some(web.id), ..spec }).unwrap();
        }
        (0..NODES).for_each(|node| cluster.capture(Link::Node(node)));
        Self { cluster, dice, seen: Seen::default() }
    }

    fn happen(&mut self) {
        let node = self.dice.below(NODES);
        match self.dice.below(8) {
            0 if self.cluster.agent(node).is_some() && node != 0 => {
                self.seen.crashes += 1;
                if self.dice.one_in(2) { self.cluster.crash(node) } else { self.cluster.power_off(node) }
            }
            1 | 2 => self.cluster.restart(node).unwrap(),
            3 => self.cluster.partition([node]),
            4 => self.cluster.heal(),
            5 => {
                let container = name(self.dice.below(NETWORKS.len()), self.dice.below(3));
                // A manager may be out of reach of its store's news: then it is refused.
                self.seen.moves += u64::from(self.cluster.relocate(&container, node).is_ok());
            }
            6 => {
                self.seen.rotations += 1;
                self.cluster.rotate_keys(node);
            }
            _ => self.cluster.fail_places(node, [0, 4][self.dice.below(2)]),
        }
    }

    /// Each container says something to another of its network; one, to one of another's.
    fn talk(&mut self) {
        let patience = Duration::from_millis(20);
        for (network, (_, marker)) in NETWORKS.iter().enumerate() {
            let (from, to) = (self.dice.below(3), self.dice.below(3));
            let (from, to) = (name(network, from), name(network, to));
            let said = self.cluster.container(&from).patience(patience).udp(&to, marker.as_bytes());
            match said {
                Ok(answer) => {
                    assert_eq!(answer.by, to, "{:?}", self.cluster);
                    self.seen.answered += 1;
                }
                Err(_) => self.seen.unanswered += 1,
            }
            let theirs = name((network + 1) % NETWORKS.len(), 0);
            let Ok(addresses) = self.cluster.container(&theirs).resolve(&theirs) else { continue };
            let to = addresses[self.dice.below(addresses.len())];
            self.seen.crossing_v6 += u64::from(to.is_ipv6());
            let to = to.to_string();
            let crossed = self.cluster.container(&from).patience(Duration::ZERO).udp(&to, marker.as_bytes());
            assert!(crossed.is_err(), "{:?}: {crossed:?}", self.cluster);
            self.seen.crossing += 1;
        }
    }

    fn calm(&mut self) {
        self.cluster.heal();
        for node in 0..NODES {
            self.cluster.fail_places(node, 0);
            self.cluster.restart(node).unwrap();
        }
        self.cluster.settle(Duration::from_secs(60)).unwrap_or_else(|violation| panic!("{violation}"));
    }

    /// All that should be reached is: each container of each other's network, and the VIP of each.
    fn reach(&mut self) {
        for (network, (_, marker)) in NETWORKS.iter().enumerate() {
            for (from, to) in [(0, 1), (1, 2), (2, 0)] {
                let (from, to) = (name(network, from), name(network, to));
                let answer = self.cluster.container(&from).tcp(&to, marker.as_bytes());
                assert!(answer.as_ref().is_ok_and(|it| it.by == to), "{:?}: {from} to {to}: {answer:?}", self.cluster);
            }
        }
        for from in 0..3 {
            let answer = self.cluster.container(&name(0, from)).tcp("web", b"?");
            let led = answer.as_ref().is_ok_and(|it| it.by.starts_with("web-"));
            assert!(led, "{:?}: a VIP leads nowhere: {answer:?}", self.cluster);
            self.seen.vips += 1;
        }
    }

    /// Looks through all that passed any link.
    fn look(&mut self) {
        let captured = self.cluster.captured().unwrap();
        assert_eq!(captured.missed(), 0, "not all was kept");
        for packet in captured.packets() {
            for (network, marker) in NETWORKS.into_iter().filter(|(_, marker)| contains(packet, marker)) {
                match &packet.link {
                    Link::Node(_) => {
                        assert!(network != "hidden", "{:?}: in the clear at {}", self.cluster, packet.at);
                        self.seen.found_outside += 1;
                    }
                    Link::Container(at) => {
                        assert!(at.as_str().starts_with(network), "{:?}: {marker} at {at}", self.cluster);
                        self.seen.found_inside += 1;
                    }
                }
            }
        }
        self.seen.cut += self.cluster.underlay_counts().cut;
        self.seen.sealed += (0..NODES).filter_map(|it| self.cluster.packet_counts(it)).map(|it| it.sealed).sum::<u64>();
    }
}

fn contains(packet: &Captured, marker: &str) -> bool {
    packet.bytes.windows(marker.len()).any(|window| window == marker.as_bytes())
}

fn run(seed: u64) -> Seen {
    let mut storm = Storm::new(seed);
    storm.cluster.run_for(Duration::from_secs(2));
    let mut left = STORM;
    while !left.is_zero() {
        storm.happen();
        storm.talk();
        let span = CALM.mul_f64(storm.dice.below(1000) as f64 / 1000.0).min(left);
        left -= span;
        storm.cluster.run_for(span);
        storm.cluster.check_always().unwrap_or_else(|violation| panic!("{violation}"));
    }
    storm.calm();
    storm.reach();
    storm.look();
    storm.seen
}

#[test]
fn whatever_happens_no_packet_is_seen_where_it_should_not_be_and_all_that_should_be_is_reached_again() {
    let mut sums = [0; 12];
    for seed in seeds(SEEDS) {
        let it = run(seed);
        let counts = [it.answered, it.unanswered, it.crossing, it.crashes, it.moves, it.rotations, it.cut, it.sealed];
        let counts = counts.into_iter().chain([it.crossing_v6, it.found_outside, it.found_inside, it.vips]);
        sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
    }
    println!("{sums:?}");
    assert!(sums.iter().all(|count| *count > 0), "something never happened: {sums:?}");
}
