//! What somebody is told who watches a service.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use overlay_core::{ServiceId, UnixTime};
use overlay_dns::Health;
use overlay_gossip::testing::Net;
use overlay_lb::Weight;
use overlay_node::{
    CatalogueChange, Condition, Endpoint, EndpointChange, EndpointSpec, Input, Reference, Service, ServiceEndpoint,
    ServiceEndpoints, ServiceEvent, ServiceSpec,
};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::town::{self, NETWORK, Node, Town, container, id, node_id};

pub(crate) const WEB: ServiceId = ServiceId::from_bytes([7; 16]);

pub(crate) fn web() -> Service {
    Service {
        id: WEB,
        spec: ServiceSpec::new("Web".parse().unwrap(), [NETWORK]),
        vips: [(NETWORK, ["10.9.0.200".parse().unwrap()].into())].into(),
        ports: Vec::new(),
        created: UnixTime::from_millis(0),
        condition: Condition::Allocated,
    }
}

pub(crate) fn replica(number: u8, node: usize, moves: u64, weight: u16) -> Endpoint {
    let plain = town::endpoint(number, node, moves);
    let weight = Weight::new(weight).unwrap();
    Endpoint { spec: EndpointSpec { service: Some(WEB), weight, ..plain.spec }, ..plain }
}

pub(crate) fn put(town: &mut Town, endpoint: &Endpoint) {
    town.publish(&CatalogueChange::Endpoint(Arc::new(endpoint.clone())));
}

/// Somebody who watches on a node.
struct Watcher {
    node: usize,
    service: Reference,
    /// What the agent said last.
    said: Option<Option<Arc<ServiceEndpoints>>>,
    /// What the watcher was told of last, and what came of it by the events alone.
    told: Option<Option<Arc<ServiceEndpoints>>>,
    knows: Option<Arc<ServiceEndpoints>>,
}

impl Watcher {
    fn new(town: &mut Town, node: usize, service: &str) -> Self {
        let service = Reference::from(service);
        town.tell(node, Input::Watch(service.clone()));
        Self { node, service, said: None, told: None, knows: None }
    }

    fn look(&mut self, town: &mut Town) {
        let news = town.net.with(self.node, |agent, _| agent.0.watched()).unwrap();
        for (service, endpoints) in news {
            if service == self.service {
                assert_ne!(self.said.as_ref(), Some(&endpoints), "it is no news");
                self.said = Some(endpoints);
            }
        }
    }

    /// What it is told, if anything.
    fn read(&mut self) -> Option<ServiceEvent> {
        let said = self.said.clone()?;
        let event = ServiceEvent::between(self.told.as_ref(), &said)?;
        event.clone().heed(&mut self.knows);
        self.told = Some(said);
        Some(event)
    }

    fn changes(&mut self, town: &mut Town) -> Vec<EndpointChange> {
        self.look(town);
        match self.read() {
            Some(ServiceEvent::Changes(changes)) => changes,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn whoever_watches_is_told_of_each_endpoint_that_comes_drains_heals_and_goes() {
    let mut town = Town::new(31, 3);
    let mut watcher = Watcher::new(&mut town, 2, "web"); // a node that has no endpoint
    watcher.look(&mut town);
    assert_eq!(watcher.read(), Some(ServiceEvent::All(None)), "nothing is called so yet");
    town.publish(&CatalogueChange::Service(Arc::new(web())));
    watcher.look(&mut town);
    assert!(
        matches!(watcher.read(), Some(ServiceEvent::All(Some(all))) if all.service == WEB && all.endpoints.is_empty())
    );

    put(&mut town, &replica(2, 0, 0, 3));
    town.run(2);
    watcher.look(&mut town);
    assert_eq!(watcher.read(), None, "it is not plugged in");
    town.plug(2, 0);
    town.run(2);
    let there = ServiceEndpoint {
        network: NETWORK,
        container: container(2),
        node: node_id(0),
        node_address: Net::<Node>::address(0).ip(),
        addresses: ["10.9.0.2".parse().unwrap(), "fd00:9::2".parse().unwrap()].into(),
        weight: Weight::new(3).unwrap(),
        health: Health::Suspect,
    };
    assert_eq!(watcher.changes(&mut town), [EndpointChange::Added(id(2), there.clone())]);
    town.live(2);
    assert_eq!(watcher.changes(&mut town), [EndpointChange::Health(id(2), Health::Healthy)], "it is in effect");
    for health in [Health::Draining, Health::Healthy, Health::Suspect] {
        town.tell(0, Input::Health(id(2), health));
        town.run(2);
        assert_eq!(watcher.changes(&mut town), [EndpointChange::Health(id(2), health)]);
    }
    put(&mut town, &replica(2, 0, 0, 5));
    town.run(2);
    let heavier = ServiceEndpoint { weight: Weight::new(5).unwrap(), health: Health::Suspect, ..there };
    assert_eq!(watcher.changes(&mut town), [EndpointChange::Changed(id(2), heavier)]);
    town.tell(0, Input::Unplug(id(2)));
    town.run(2);
    assert_eq!(watcher.changes(&mut town), [EndpointChange::Removed(id(2))]);
    town.publish(&CatalogueChange::ServiceGone(WEB));
    watcher.look(&mut town);
    assert_eq!(watcher.read(), Some(ServiceEvent::All(None)));
}

#[test]
fn the_endpoints_of_a_node_that_fails_are_doubted_and_then_gone() {
    let mut town = Town::new(32, 3);
    town.publish(&CatalogueChange::Service(Arc::new(web())));
    put(&mut town, &replica(2, 0, 0, 1));
    town.plug(2, 0);
    let mut watcher = Watcher::new(&mut town, 2, "web");
    town.live(2);
    watcher.look(&mut town);
    assert!(matches!(watcher.read(), Some(ServiceEvent::All(Some(all))) if all.endpoints.len() == 1));
    town.net.crash(0);
    let mut told = Vec::new();
    for _ in 0..60 {
        town.run(1);
        watcher.look(&mut town);
        if let Some(ServiceEvent::Changes(changes)) = watcher.read() {
            told.extend(changes);
        }
    }
    assert_eq!(told, [EndpointChange::Health(id(2), Health::Suspect), EndpointChange::Removed(id(2))]);
}

#[test]
fn a_service_is_watched_by_name_by_id_and_by_the_beginning_of_its_id_if_that_is_no_others() {
    let mut town = Town::new(33, 1);
    town.publish(&CatalogueChange::Service(Arc::new(web())));
    let id = WEB.to_string();
    let calls = ["WEB", &id, &id[..5]];
    let mut watchers = calls.map(|service| Watcher::new(&mut town, 0, service));
    let mut knows = |town: &mut Town| {
        let news = town.net.with(0, |agent, _| agent.0.watched()).unwrap();
        for watcher in &mut watchers {
            let said = news.iter().find(|(service, _)| *service == watcher.service);
            watcher.said = said.map(|(_, endpoints)| endpoints.clone()).or_else(|| watcher.said.take());
        }
        watchers.each_ref().map(|it| it.said.clone().flatten().map(|all| all.service))
    };
    assert_eq!(knows(&mut town), [Some(WEB); 3]);
    // Another whose id begins so, and which is called as the first's id begins.
    let mut bytes = [7; 16];
    bytes[15] = 8;
    let other = Service {
        id: ServiceId::from_bytes(bytes),
        spec: ServiceSpec::new("other".parse().unwrap(), [NETWORK]),
        ..web()
    };
    town.publish(&CatalogueChange::Service(Arc::new(other)));
    assert_eq!(knows(&mut town), [Some(WEB), Some(WEB), None], "two begin so");
    town.publish(&CatalogueChange::Service(Arc::new(Service { condition: Condition::Accepted, ..web() })));
    assert_eq!(
        knows(&mut town),
        [None, None, Some(ServiceId::from_bytes(bytes))],
        "what is not allocated is not there"
    );
}

#[test]
fn a_network_is_followed_for_as_long_as_somebody_watches_a_service_on_it() {
    let mut town = Town::new(34, 2);
    town.publish(&CatalogueChange::Service(Arc::new(web())));
    let follows = |town: &mut Town| town.net.with(1, |agent, _| agent.0.knowledge().networks.contains_key(&NETWORK));
    assert_eq!(follows(&mut town), Some(false));
    let mut watcher = Watcher::new(&mut town, 1, "web");
    assert_eq!(follows(&mut town), Some(true));
    town.tell(1, Input::Unwatch(watcher.service.clone()));
    assert_eq!(follows(&mut town), Some(false));
    watcher.look(&mut town);
    assert_eq!(watcher.said, None, "nobody watches any more");
}

/// What happens in a cluster of three nodes. Endpoints are 2 to 5, on the first two.
#[derive(Debug, Clone)]
enum Happens {
    Assign(u8, usize, u16, bool),
    Gone(u8),
    Plug(u8),
    Unplug(u8),
    Health(u8, Health),
    Service(bool),
    Time,
    Read,
}

fn happens() -> impl Strategy<Value = Happens> {
    let number = || 2_u8..6;
    let health = prop_oneof![Just(Health::Healthy), Just(Health::Suspect), Just(Health::Draining)];
    prop_oneof![
        4 => (number(), 0_usize..2, 1_u16..3, any::<bool>()).prop_map(|(number, node, weight, serves)| {
            Happens::Assign(number, node, weight, serves)
        }),
        1 => number().prop_map(Happens::Gone),
        4 => number().prop_map(Happens::Plug),
        1 => number().prop_map(Happens::Unplug),
        3 => (number(), health).prop_map(|(number, health)| Happens::Health(number, health)),
        1 => any::<bool>().prop_map(Happens::Service),
        2 => Just(Happens::Time),
        2 => Just(Happens::Read),
    ]
}

/// What there is, by what was done.
#[derive(Default)]
struct Model {
    assigned: BTreeMap<u8, Endpoint>,
    plugged: BTreeMap<u8, Health>,
    has_service: bool,
}

impl Model {
    fn act(&mut self, happens: &Happens, town: &mut Town) {
        match *happens {
            Happens::Assign(number, node, weight, serves) => {
                let moves = self.assigned.get(&number).map_or(0, |was| was.moves + 1);
                let mut endpoint = replica(number, node, moves, weight);
                endpoint.spec.service = serves.then_some(WEB);
                put(town, &endpoint);
                let was = self.assigned.insert(number, endpoint);
                if was.is_some_and(|was| was.spec.node != node_id(node)) {
                    self.plugged.remove(&number);
                }
            }
            Happens::Gone(number) => {
                town.publish(&CatalogueChange::EndpointGone(id(number)));
                self.assigned.remove(&number);
                self.plugged.remove(&number);
            }
            Happens::Plug(number) => {
                if let Some(node) = self.node(number) {
                    town.plug(number, node);
                    self.plugged.entry(number).or_insert(Health::Healthy);
                }
            }
            Happens::Unplug(number) => {
                if let Some(node) = self.node(number) {
                    town.tell(node, Input::Unplug(id(number)));
                    self.plugged.remove(&number);
                }
            }
            Happens::Health(number, health) => {
                if let Some(node) = self.node(number) {
                    town.tell(node, Input::Health(id(number), health));
                    self.plugged.entry(number).and_modify(|was| *was = health);
                }
            }
            Happens::Service(there) => {
                let change =
                    if there { CatalogueChange::Service(Arc::new(web())) } else { CatalogueChange::ServiceGone(WEB) };
                town.publish(&change);
                self.has_service = there;
            }
            Happens::Time => town.run(1),
            Happens::Read => {}
        }
    }

    fn node(&self, number: u8) -> Option<usize> {
        let node = self.assigned.get(&number)?.spec.node;
        (0..2).find(|of| node_id(*of) == node)
    }

    fn expected(&self) -> Option<Arc<ServiceEndpoints>> {
        let serves = |(number, health): (&u8, &Health)| {
            let endpoint = &self.assigned[number];
            endpoint.spec.service?;
            let there = ServiceEndpoint {
                network: NETWORK,
                container: endpoint.spec.container.clone(),
                node: endpoint.spec.node,
                node_address: Net::<Node>::address(self.node(*number)?).ip(),
                addresses: endpoint.addresses.iter().map(|net| net.addr()).collect(),
                weight: endpoint.spec.weight,
                health: *health,
            };
            Some((endpoint.id, there))
        };
        self.has_service.then(|| {
            Arc::new(ServiceEndpoints {
                service: WEB,
                name: "Web".parse().unwrap(),
                ports: Vec::new(),
                unheard: BTreeSet::new(),
                endpoints: self.plugged.iter().filter_map(serves).collect(),
            })
        })
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn who_heeds_what_is_told_knows_what_there_is_however_seldom_it_reads(all in vec(happens(), 0..40), seed: u64) {
        let mut town = Town::new(seed, 3);
        let mut model = Model::default();
        // On a node that has endpoints, and on one that never has any.
        let mut watchers = [0, 2].map(|node| Watcher::new(&mut town, node, "web"));
        for happens in &all {
            model.act(happens, &mut town);
            for watcher in &mut watchers {
                watcher.look(&mut town);
                if matches!(happens, Happens::Read) {
                    let event = watcher.read();
                    prop_assert!(!matches!(event, Some(ServiceEvent::Changes(changes)) if changes.is_empty()));
                    prop_assert_eq!(Some(&watcher.knows), watcher.said.as_ref());
                }
            }
        }
        town.live(10);
        for watcher in &mut watchers {
            watcher.look(&mut town);
            watcher.read();
            prop_assert_eq!(&watcher.knows, &model.expected());
        }
    }
}
