//! The list of what passes and what does not, carried by the kernel; overlay-fabric plays the same on datapaths.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use overlay_core::testing::{Kernel, kernel_test};
use overlay_core::{EndpointId, IpFamily, Port, ServiceId};
use overlay_dns::Health;
use overlay_driver::Attach;
use overlay_driver::testing::{Carried, Container, Lab, date, ping, resolve};
use overlay_kernel::Namespace;
use overlay_node::Service;
use overlay_node::testing::parity::{
    Ask, By, CLIENT, CONTAINERS, Change, Ground, Home, NETWORKS, NODES, Need, OUTSIDE, Outcome, PUBLISHED, SERVICES,
    To, home, play, scenarios, seen_as,
};

use crate::replica::{Answer, PATIENCE, TARGET, asks_over_tcp, asks_over_udp, serve};
use crate::world::World;

/// The town, in this kernel.
struct Real {
    world: World,
    services: BTreeMap<&'static str, Service>,
    inhabitants: BTreeMap<&'static str, (Container, Vec<EndpointId>)>,
    end: Arc<AtomicBool>,
    served: Vec<JoinHandle<()>>,
}

impl Real {
    fn new(carried: Carried) -> Self {
        let world = World::carried(NODES, carried);
        NETWORKS.iter().for_each(|net| drop(world.network(net.spec())));
        let service = |number: usize| {
            let served = SERVICES[number];
            let network = world.wait(world.manager().network(&served.network.into())).unwrap().id;
            let (id, spec) = (ServiceId::from_bytes([number as u8 + 1; 16]), served.spec(network, target()));
            (served.name, world.wait(world.manager().create_service(id, spec, date())).unwrap())
        };
        let services = (0..SERVICES.len()).map(service).collect();
        let mut ground =
            Self { world, services, inhabitants: BTreeMap::new(), end: Arc::default(), served: Vec::new() };
        for home in
            CONTAINERS.iter().filter(|home| !home.later && (home.on != ["secret"] || carried == Carried::InUserSpace))
        {
            ground.settle_in(home);
        }
        ground
    }

    fn settle_in(&mut self, home: &'static Home) {
        let world = &self.world;
        let container = world.hosts().lab.container(home.name).unwrap();
        let service = home.service.map(|service| self.services[service].id);
        let attach = |network: &&str| {
            let attach = Attach::new(container.name.clone(), container.source.clone(), *network);
            let attach = Attach { service, addresses: home.addresses(network).into(), ..attach };
            world.wait(world.driver(home.node).attach(attach)).unwrap().endpoint.id
        };
        let endpoints = home.on.iter().map(attach).collect();
        self.served.extend(serve(&container.namespace, home.name, &self.end));
        self.inhabitants.insert(home.name, (container, endpoints));
    }

    fn namespace(&self, name: &str) -> &Namespace {
        if name == OUTSIDE { self.world.hosts().lab.outside() } else { &self.inhabitants[name].0.namespace }
    }

    fn say(&self, name: &str, health: Health) {
        let (of, endpoint) = (home(name).node, self.inhabitants[name].1[0]);
        self.world.wait(self.world.driver(of).set_health(endpoint, health)).unwrap();
    }

    fn address(&self, ask: &Ask) -> Option<SocketAddr> {
        let (address, port) = match ask.to {
            To::At(container, network, family) => (seen_as(container, network, family), TARGET),
            To::Vip(service, _, family) => {
                let mut vips = self.services[service].vips.values().flatten().copied();
                (vips.find(|vip| IpFamily::of(*vip) == family)?, TARGET)
            }
            To::Named(name, family) => {
                let found = resolve(self.namespace(ask.from), name, PATIENCE).unwrap_or_default();
                (found.into_iter().find(|address| IpFamily::of(*address) == family)?, TARGET)
            }
            To::Node(node) => (self.world.hosts().lab.address(node), PUBLISHED),
        };
        Some(SocketAddr::new(address, port))
    }
}

fn target() -> Port {
    Port::new(TARGET).unwrap()
}

impl Ground for Real {
    fn lacks(&self, need: Need) -> Option<&'static str> {
        match need {
            Need::Encryption if self.world.hosts().carried() == Carried::InUserSpace => None,
            Need::Encryption => Some(
                "the host's kernel of these tests has no ESP; that of the lab has: driver::what_agents_agree_on_is_carried_in_esp",
            ),
            Need::Outside => None,
        }
    }

    fn change(&mut self, change: Change) {
        match change {
            Change::Drains(name) => self.say(name, Health::Draining),
            Change::Heals(name) => self.say(name, Health::Healthy),
            Change::Departs(name) => {
                for endpoint in &self.inhabitants[name].1 {
                    self.world.wait(self.world.driver(home(name).node).detach(*endpoint)).unwrap();
                }
            }
            Change::Comes(name) => self.settle_in(home(name)),
            Change::Cuts(node) => self.world.hosts_mut().lab.cut(node).unwrap(),
            Change::Mends(node) => self.world.hosts_mut().lab.mend(node).unwrap(),
        }
    }

    fn ask(&mut self, ask: &Ask) -> Outcome {
        let from = self.namespace(ask.from);
        if let (By::Name, To::Named(name, _)) = (ask.by, ask.to) {
            return match resolve(from, name, PATIENCE) {
                Ok(addresses) if addresses.is_empty() => Outcome::NoName,
                Ok(addresses) => Outcome::Has(addresses.into_iter().collect()),
                Err(error) => panic!("{ask}: {error}"),
            };
        }
        let Some(to) = self.address(ask) else { return Outcome::NoName };
        match ask.by {
            By::Ping => pong(ping(from, to.ip(), PATIENCE / 2).is_ok_and(|took| took.is_some())),
            By::Whole(size) => pong(whole(from, to.ip(), size)),
            By::Udp => outcome(ask, asks_over_udp(from, to)),
            By::Tcp | By::Name => outcome(ask, asks_over_tcp(from, to)),
        }
    }

    fn wait(&mut self, waited: usize) -> bool {
        std::thread::sleep(Duration::from_millis(100));
        waited < 80
    }
}

fn outcome(ask: &Ask, answer: Answer) -> Outcome {
    match answer {
        Ok((name, seen)) => Outcome::answered(&name, seen),
        Err(ErrorKind::ConnectionRefused) => Outcome::Refused,
        Err(
            ErrorKind::TimedOut | ErrorKind::WouldBlock | ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable,
        ) => Outcome::Unanswered,
        Err(other) => panic!("{ask}: {other:?}"),
    }
}

const fn pong(heard: bool) -> Outcome {
    if heard { Outcome::Pong } else { Outcome::Unanswered }
}

/// One ping of so many bytes in all, which nobody may take apart.
fn whole(from: &Namespace, to: IpAddr, size: u32) -> bool {
    let payload = (size - if to.is_ipv4() { 28 } else { 48 }).to_string();
    let arguments = ["-c", "1", "-W", "1", "-M", "do", "-s", &payload, &to.to_string()];
    from.run(|| Command::new("ping").args(arguments).output()).unwrap().unwrap().status.success()
}

impl Drop for Real {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        self.served.drain(..).for_each(|served| drop(served.join()));
    }
}

#[test]
fn each_scenario_of_the_list_comes_to_the_same_on_a_kernel_as_on_datapaths() {
    kernel_test(Kernel::Host, "driver::each_scenario_of_the_list_comes_to_the_same", || {
        assert_eq!(Lab::outside_addresses()[0], CLIENT);
        let played = play(&mut Real::new(Carried::InKernel));
        println!("{played:?}");
        assert_eq!((played.held.len(), played.skipped.len()), (scenarios().len() - 1, 1), "{played:?}");
        assert!(played.held.len() >= 20 && played.asked > 300, "{played:?}");
    });
}

#[test]
fn each_scenario_of_the_list_comes_to_the_same_in_user_space_encrypted_networks_too() {
    kernel_test(Kernel::Host, "driver::each_scenario_of_the_list_comes_to_the_same_in_user_space", || {
        let played = play(&mut Real::new(Carried::InUserSpace));
        println!("{played:?}");
        assert_eq!((played.held.len(), played.skipped.len()), (scenarios().len(), 0), "{played:?}");
    });
}
