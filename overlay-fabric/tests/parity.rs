//! The list of what passes and what does not, carried by datapaths; overlay-driver plays the same on a kernel.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail loudly too")]

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use overlay_core::{IpFamily, Port};
use overlay_dns::Health;
use overlay_fabric::{Answer, Cluster, Unanswered};
use overlay_node::testing::parity::{
    Ask, By, CONTAINERS, Change, Ground, Home, NETWORKS, NODES, Need, Outcome, SERVICES, To, home, play, scenarios,
    seen_as,
};
use overlay_node::{EndpointSpec, Service};

const LIMIT: Duration = Duration::from_secs(30);
/// How long somebody who is asked may take.
const PATIENCE: Duration = Duration::from_secs(5);

struct Simulated {
    cluster: Cluster,
    services: BTreeMap<&'static str, Service>,
}

impl Simulated {
    fn new(seed: u64) -> Self {
        let mut cluster = Cluster::new(seed, NODES);
        for net in NETWORKS {
            cluster.create_network(net.spec()).unwrap();
        }
        let mut ground = Self { cluster, services: BTreeMap::new() };
        for served in SERVICES.iter().filter(|served| !served.published) {
            let network = ground.cluster.network(served.network).unwrap().id;
            let service = ground.cluster.create_service(served.spec(network, Port::new(80).unwrap())).unwrap();
            ground.services.insert(served.name, service);
        }
        for home in CONTAINERS.iter().filter(|home| !home.later) {
            ground.settle_in(home);
        }
        ground.settle();
        ground
    }

    fn settle_in(&mut self, home: &Home) {
        let service = home.service.map(|service| self.services.get(service).map(|service| service.id));
        if service == Some(None) {
            return; // of a service that is published
        }
        for network in home.on {
            let id = self.cluster.network(network).unwrap().id;
            let spec = EndpointSpec::new(id, home.name.parse().unwrap(), self.cluster.node_id(home.node).unwrap());
            let spec = home.endpoint(network, EndpointSpec { service: service.flatten(), ..spec });
            self.cluster.attach_as(home.node, spec).unwrap();
        }
    }

    fn settle(&mut self) {
        self.cluster.settle(LIMIT).unwrap_or_else(|violation| panic!("{violation}"));
    }

    fn vip(&self, service: &str, network: &str, family: IpFamily) -> IpAddr {
        let id = self.cluster.network(network).unwrap().id;
        let vips = self.services[service].vips.get(&id).into_iter().flatten().copied();
        vips.into_iter().find(|vip| IpFamily::of(*vip) == family).unwrap()
    }

    fn address(&mut self, from: &str, to: To) -> Option<IpAddr> {
        match to {
            To::At(container, network, family) => Some(seen_as(container, network, family)),
            To::Vip(service, network, family) => Some(self.vip(service, network, family)),
            To::Named(name, family) => {
                let found = self.cluster.container(from).resolve(name).unwrap_or_default();
                found.into_iter().find(|address| IpFamily::of(*address) == family)
            }
            To::Node(_) => None,
        }
    }
}

impl Ground for Simulated {
    fn lacks(&self, need: Need) -> Option<&'static str> {
        match need {
            Need::Encryption => None,
            Need::Outside => Some(
                "nodes of datapaths have no addresses that clients outside reach: `Tables` refuses a service that is published",
            ),
        }
    }

    fn change(&mut self, change: Change) {
        match change {
            Change::Drains(name) => self.cluster.set_health(name, home(name).on[0], Health::Draining).unwrap(),
            Change::Heals(name) => self.cluster.set_health(name, home(name).on[0], Health::Healthy).unwrap(),
            Change::Departs(name) => self.cluster.stop(name).unwrap(),
            Change::Comes(name) => self.settle_in(home(name)),
            Change::Cuts(node) => self.cluster.partition([node]),
            Change::Mends(_) => self.cluster.heal(),
        }
        self.cluster.run_for(LIMIT); // what drains has no name, so this is nothing that settles
    }

    fn ask(&mut self, ask: &Ask) -> Outcome {
        if let (By::Name, To::Named(name, _)) = (ask.by, ask.to) {
            return match self.cluster.container(ask.from).resolve(name) {
                Ok(addresses) => Outcome::Has(addresses.into_iter().collect()),
                Err(Unanswered::UnknownName(_)) => Outcome::NoName,
                Err(other) => panic!("{ask}: {other}"),
            };
        }
        let Some(to) = self.address(ask.from, ask.to) else { return Outcome::NoName };
        let text = to.to_string();
        let headers = if to.is_ipv4() { 28 } else { 48 };
        let asker = self.cluster.container(ask.from).patience(PATIENCE);
        let answer = match ask.by {
            By::Ping => { asker }.ping(&text),
            By::Whole(size) => asker.size(size as usize - headers).ping(&text),
            By::Udp => { asker }.udp(&text, b"who?"),
            By::Tcp | By::Name => { asker }.tcp(&text, b"who?"),
        };
        match answer {
            Ok(Answer { by, seen, .. }) if !by.is_empty() => Outcome::answered(&by, seen.ip()),
            Ok(Answer { seen, .. }) if seen.ip() == to => Outcome::Pong,
            Err(Unanswered::Silent(_) | Unanswered::NoRoute(_)) => Outcome::Unanswered,
            Err(Unanswered::Refused(_)) => Outcome::Refused,
            other => panic!("{ask}: {other:?}"),
        }
    }

    /// All has settled already.
    fn wait(&mut self, _: usize) -> bool {
        false
    }
}

#[test]
fn each_scenario_of_the_list_comes_to_the_same_on_datapaths_as_on_a_kernel() {
    let played = play(&mut Simulated::new(70));
    println!("{played:?}");
    assert_eq!((played.held.len(), played.skipped.len()), (scenarios().len() - 1, 1), "{played:?}");
    assert!(played.held.len() >= 20 && played.asked > 300, "{played:?}");
}
