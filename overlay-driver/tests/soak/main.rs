//! Three nodes that work for long: containers and services come and go, keys change, cables are cut, and one node is killed. After each round all is
//! taken away, and then nothing may be more than after the first. For as many seconds as `OVERLAY_SOAK_SECONDS` says.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail loudly too")]
#![expect(clippy::disallowed_methods, reason = "tests measure time and wait")]

mod held;
mod live;
#[path = "../kernel/process.rs"]
#[expect(dead_code, reason = "other tests need more of it")]
mod process;
#[path = "../kernel/replica.rs"]
#[expect(dead_code, reason = "other tests need more of it")]
mod replica;
#[path = "../kernel/world.rs"]
#[expect(dead_code, reason = "other tests need more of it")]
mod world;

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use overlay_core::testing::{Dice, Kernel, kernel_test};
use overlay_core::{EndpointId, Protocol, ServiceId};
use overlay_driver::control::Serving;
use overlay_driver::testing::{Carried, Container, date};
use overlay_kernel::NamespaceDir;
use overlay_kernel::link::devices;
use overlay_kernel::testing::judge;
use overlay_node::{Encryption, NetworkSpec, PublishMode, Service, ServiceSpec};
use tokio::runtime::Runtime;

use crate::held::Rest;
use crate::process::{Asked, Process, Resident, prepare};
use crate::replica::{Replica, asks_over_tcp, publishes};
use crate::world::{World, attachable};

const PATIENCE: Duration = Duration::from_secs(60);
const SEED: [u8; 32] = [0x50; 32];
const HOSTS: usize = 3;
/// How long CI has for each form.
const SHORT: Duration = Duration::from_secs(30);
const FAULTS: usize = 6;

/// What happened how often.
type Seen = BTreeMap<&'static str, usize>;

struct Soak {
    world: World,
    dice: Dice,
    asked: Asked,
    process: Option<Process>,
    serving: Option<(Serving, Runtime)>,
    /// What the killed node has.
    residents: Vec<Resident>,
    /// What the others have: host, container, endpoint.
    others: Vec<(usize, Container, EndpointId)>,
    replicas: Vec<(usize, Replica)>,
    service: Option<Service>,
    made: u64,
    seen: Seen,
    /// What happened last.
    past: Vec<String>,
}

impl Soak {
    fn new(carried: Carried) -> Self {
        let mut world = World::carried(HOSTS, carried);
        let (asked, serving, runtime) = prepare(&mut world);
        let process = Some(Process::start(&asked));
        Self {
            world,
            dice: Dice::new(SEED),
            asked,
            process,
            serving: Some((serving, runtime)),
            residents: Vec::new(),
            others: Vec::new(),
            replicas: Vec::new(),
            service: None,
            made: 0,
            seen: Seen::new(),
            past: Vec::new(),
        }
    }

    fn count(&mut self, what: &'static str) {
        *self.seen.entry(what).or_default() += 1;
        self.past.push(format!("{what} before {}", self.made));
        self.past.drain(..self.past.len().saturating_sub(20));
    }

    /// A number that nothing had, and an id: its first bytes name devices.
    fn number(&mut self) -> (u64, [u8; 16]) {
        self.made += 1;
        (self.made, *self.dice.seed().first_chunk().unwrap())
    }

    fn attach(&mut self) {
        let (number, id) = self.number();
        let (host, name) = (self.dice.below(HOSTS), format!("c{number}"));
        self.count("attached");
        if host > 0 {
            let (container, attached) = self.world.run(host, &name, "front");
            return self.others.push((host, container, attached.endpoint.id));
        }
        let container = self.world.hosts().lab.container(&name).unwrap();
        self.residents.push(Resident { id: EndpointId::from_bytes(id), container });
        let process = self.process.as_mut().unwrap();
        process.attach(&self.residents[self.residents.len() - 1..]);
        process.await_attached(&name.parse().unwrap());
    }

    fn detach(&mut self) {
        self.count("detached");
        let (own, others) = (self.residents.len(), self.others.len());
        match self.dice.below((own + others).max(1)) {
            at if at < own => self.leave(at),
            at if at < own + others => self.part(at - own),
            _ => {}
        }
    }

    /// One of the killed node's containers is gone.
    fn leave(&mut self, at: usize) {
        let Resident { id, container } = self.residents.remove(at);
        self.past.push(format!("{} leaves", container.name));
        self.world.wait(self.world.manager().detach(id, date())).unwrap();
        let begun = Instant::now();
        while devices(&container.namespace).unwrap().len() > 1 {
            let there = devices(&container.namespace).unwrap();
            assert!(begun.elapsed() < PATIENCE, "{} has {there:?}: {:?}, {:?}", container.name, self.seen, self.past);
            std::thread::sleep(Duration::from_millis(5));
        }
        self.world.hosts().lab.end(&container.name).unwrap();
    }

    fn part(&mut self, at: usize) {
        let (host, container, id) = self.others.remove(at);
        self.world.wait(self.world.driver(host).detach(id)).unwrap();
        self.world.hosts().lab.end(&container.name).unwrap();
    }

    fn publish(&mut self, encryption: Encryption) {
        let front = self.world.network(NetworkSpec { encryption, ..attachable("front") });
        let ports = publishes(PublishMode::Ingress, &[(Protocol::Tcp, 80)]);
        let spec = ServiceSpec { ports, ..ServiceSpec::new("web".parse().unwrap(), [front.id]) };
        let (_, id) = self.number();
        let created = self.world.manager().create_service(ServiceId::from_bytes(id), spec, date());
        let service = self.world.wait(created).unwrap();
        for host in 1..HOSTS {
            let (number, _) = self.number();
            let replica = Replica::new(&self.world, host, &format!("r{number}"), &service, &["front", "ingress"]);
            self.replicas.push((host, replica));
        }
        self.service = Some(service);
        self.count("published");
    }

    fn kill(&mut self) {
        self.count("killed");
        self.process.take().unwrap().kill();
        let mut process = Process::start(&self.asked);
        process.attach(&self.residents);
        // Who is asked to attach a container, and hears later that it is gone, attaches it anew.
        process.await_all(self.residents.iter().map(|resident| &resident.container.name));
        self.process = Some(process);
    }

    /// A node stops as it should, and starts again.
    fn restart(&mut self) {
        self.count("restarted");
        let host = 1 + self.dice.below(HOSTS - 1);
        let driver = self.world.hosts_mut().take(host).unwrap();
        self.world.wait(driver.stop());
        self.world.start(host);
    }

    fn happen(&mut self) {
        let host = self.dice.below(HOSTS);
        match self.dice.below(9) {
            0 | 1 => self.kill(),
            2 => self.restart(),
            3 | 4 => {
                self.count("cut");
                self.world.hosts_mut().lab.cut(host).unwrap();
            }
            5 => self.world.hosts_mut().lab.mend(host).unwrap(),
            6 if host > 0 => {
                self.count("keys");
                self.world.wait(self.world.driver(host).rotate_keys()).unwrap();
            }
            6 => {
                self.count("keys");
                self.process.as_mut().unwrap().rotate_keys();
            }
            7 => self.attach(),
            _ => self.detach(),
        }
        std::thread::sleep(Duration::from_millis(self.dice.below(400) as u64));
    }

    /// All that should reach each other do, and the port that is published leads somewhere at each node.
    fn reach(&self) {
        let own = self.residents.iter().map(|it| &it.container);
        let all: Vec<&Container> = own
            .chain(self.others.iter().map(|(_, container, _)| container))
            .chain(self.replicas.iter().map(|(_, replica)| &replica.container))
            .collect();
        for from in &all {
            for to in all.iter().filter(|to| to.name != from.name) {
                self.world.until(PATIENCE, |world| world.reaches(from, to.name.as_str()));
            }
        }
        let lab = &self.world.hosts().lab;
        for host in 0..HOSTS {
            let at = SocketAddr::new(lab.address(host), 80);
            self.world.until(PATIENCE, |_| asks_over_tcp(lab.outside(), at).is_ok());
        }
    }

    /// Everything is taken away.
    fn clear(&mut self) {
        while !self.residents.is_empty() {
            self.leave(0);
        }
        while !self.others.is_empty() {
            self.part(0);
        }
        for (host, replica) in std::mem::take(&mut self.replicas) {
            for endpoint in &replica.endpoints {
                self.world.wait(self.world.driver(host).detach(*endpoint)).unwrap();
            }
            self.world.hosts().lab.end(&replica.container.name).unwrap();
        }
        let service = self.service.take().unwrap();
        self.world.wait(self.world.manager().remove_service(&service.id.into(), date())).unwrap();
        self.world.wait(self.world.manager().remove_network(&"front".into(), date())).unwrap();
        self.world.until(PATIENCE, |world| (1..HOSTS).all(|host| world.status(host).places.is_empty()));
        let dir = self.world.hosts().lab.dir(0);
        let none_in = |of: &str| fs::read_dir(dir.join(of)).map_or(0, Iterator::count) == 0;
        let bare = || judge(self.world.hosts().lab.host(0), "nft", &["list", "ruleset"]).is_empty();
        self.world.until(PATIENCE, |_| none_in("networks") && none_in("carried") && bare());
    }

    fn rest(&self) -> Rest {
        Rest::by(&self.world, HOSTS, self.process.as_ref().unwrap().id())
    }

    /// Waits until no more is there than at first. Managers give back once a minute what was claimed for somebody who went meanwhile.
    fn quiet(&mut self, first: &Rest) -> Rest {
        let begun = Instant::now();
        loop {
            let now = self.rest();
            if now.is_as(first) {
                return now;
            }
            let strange = now.strange(first);
            let past = (&self.seen, &self.past);
            assert!(begun.elapsed() < PATIENCE, "{now:?}, strange {strange:?}; at first {first:?}; {past:?}");
            if !strange.is_empty() {
                let settled = self.world.wait(self.world.hosts().manager.settle(date())).unwrap();
                self.past.push(format!("{strange:?}, {settled:?}"));
                self.count("settled");
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn round(&mut self, number: usize) {
        let may_be_sealed = self.world.hosts().carried() == Carried::InUserSpace;
        self.publish(if may_be_sealed && number % 2 == 1 { Encryption::Shared } else { Encryption::None });
        (0..4).for_each(|_| self.attach());
        (0..FAULTS).for_each(|_| self.happen());
        (0..HOSTS).for_each(|host| self.world.hosts_mut().lab.mend(host).unwrap());
        self.reach();
        self.clear();
    }

    fn end(mut self) {
        self.process.take().unwrap().tear_down();
        NamespaceDir::new(&self.asked.hosts).remove(&"host".parse().unwrap()).unwrap();
        let (serving, runtime) = self.serving.take().unwrap();
        runtime.block_on(serving.stop());
    }
}

#[expect(clippy::print_stdout, reason = "the figures of a long run are what it is run for")]
fn soak(carried: Carried, span: Duration) {
    let (begun, mut soak) = (Instant::now(), Soak::new(carried));
    let (mut first, mut warm, mut number) = (None, None, 0);
    while number < 2 || begun.elapsed() < span {
        number += 1;
        soak.round(number);
        let first = first.get_or_insert_with(|| soak.rest());
        let rest = soak.quiet(first);
        println!("{:?} {number}: {rest:?}, strange {:?}; {:?}", begun.elapsed(), rest.strange(first), soak.seen);
        match &warm {
            Some(warm) => assert!(rest.is_no_larger_than(warm), "{rest:?}; when it was warm {warm:?}"),
            None if begun.elapsed() > span / 4 => warm = Some(rest),
            None => {}
        }
    }
    soak.end();
}

/// What is held is of the whole process: no two at once.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// So long as `OVERLAY_SOAK_SECONDS` says, or for some rounds, as a kernel test, which may not take longer.
#[expect(clippy::disallowed_methods, reason = "longer tests are asked for by the environment")]
fn kept_at(name: &str, carried: Carried) {
    let _alone = alone();
    match std::env::var("OVERLAY_SOAK_SECONDS") {
        Ok(seconds) => soak(carried, Duration::from_secs(seconds.parse().unwrap())),
        Err(_) => kernel_test(Kernel::Host, name, || soak(carried, SHORT)),
    }
}

#[test]
fn however_long_nodes_work_nothing_is_left_of_it() {
    kept_at("driver::however_long_nodes_work", Carried::InKernel);
}

#[test]
fn however_long_nodes_carry_packets_themselves_nothing_is_left_of_it() {
    kept_at("driver::however_long_nodes_carry_packets_themselves", Carried::InUserSpace);
}
