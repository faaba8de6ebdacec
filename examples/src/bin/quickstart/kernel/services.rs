//! Services: one name, several containers behind it, in both modes, and a port that is published at every node.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use overlay_core::{EndpointId, ServiceId};
use overlay_driver::testing::{Container, Lab, date, resolve};
use overlay_driver::{Attach, Attached};
use overlay_kernel::Namespace;
use overlay_node::{Control, Drained, EndpointMode, PublishedPort, Service, ServiceSpec};

use super::town::{Town, fill};

use crate::Outcome;

const PORT: u16 = 8080;
/// What is published of it.
const PUBLISHED: u16 = 80;
const PATIENCE: Duration = Duration::from_millis(500);
const DRAINED: Duration = Duration::from_secs(10);

/// Shows a service whose name is a virtual address, and one whose name is its containers' addresses.
pub(crate) fn show(town: &mut Town, network: &str, (web, its): (&Container, &Attached)) -> Outcome {
    let own = its.endpoint.addresses.first().ok_or("web has no address")?.addr();
    let nginx = Running::start(town, network, "nginx", EndpointMode::Vip)?;
    let found = named(town, web, "nginx", 1);
    town.typed(0, "exec web curl http://nginx:8080      # ten times");
    let ask = |_: &Town| found.first().and_then(|vip| asked(&web.namespace, *vip, PORT));
    until_both_answer(town, ask);
    let mut told = BTreeSet::new();
    for _ in 0..10 {
        told.extend(asked(&web.namespace, *found.first().ok_or("nginx has no address")?, PORT));
    }
    told.iter().for_each(|(name, seen)| println!("I am {name}, asked by {seen}"));
    println!();
    let names: BTreeSet<&str> = told.iter().map(|(name, _)| name.as_str()).collect();
    let its = town.wait(town.manager.network(&network.into()))?.id;
    let vips: Vec<IpAddr> = nginx.service.vips.get(&its).into_iter().flatten().copied().collect();
    town.check("a service's name is its virtual address, on every host", found == vips);
    town.check("its containers on two hosts share the work", names == BTreeSet::from(["nginx-1", "nginx-2"]));
    town.check("and see who asks them", told.iter().all(|(_, seen)| *seen == own));
    published(town)?;
    nginx.drain(town)?;
    nginx.end(town)?;

    let api = Running::start(town, network, "api", EndpointMode::RoundRobin)?;
    let found = named(town, web, "api", 2);
    town.typed(0, "exec web getent ahosts api");
    town.shown(&found.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"));
    let answered = found.iter().filter_map(|address| asked(&web.namespace, *address, PORT)).count();
    town.check("in mode dnsrr it is its containers' addresses", found.len() == 2 && answered == 2);
    api.end(town)
}

/// Who asks a host that runs no container of the service, from outside.
fn published(town: &mut Town) -> Outcome {
    let (host, [client, _]) = (town.hosts.lab.address(0), Lab::outside_addresses());
    println!("$ curl http://{host}      # from outside, ten times: host-1 runs no container of nginx");
    let ask = |town: &Town| asked(town.hosts.lab.outside(), host, PUBLISHED);
    until_both_answer(town, ask);
    let told: Vec<_> = (0..10).map(|_| ask(town)).collect();
    let shown: BTreeSet<_> = told.iter().flatten().collect();
    shown.iter().for_each(|(name, seen)| println!("I am {name}, asked by {seen}"));
    println!();
    town.check("a published port is reached at a node that runs no container of it", told.iter().all(Option::is_some));
    town.check(
        "and its containers see who asks, outside",
        shown.len() == 2 && shown.iter().all(|(_, seen)| *seen == client),
    );
    Ok(())
}

/// Waits until both containers have answered: the host has heard that they are in effect.
fn until_both_answer(town: &Town, ask: impl Fn(&Town) -> Option<(String, IpAddr)>) {
    let answered = RefCell::new(BTreeSet::new());
    town.until(|town| {
        let mut answered = answered.borrow_mut();
        answered.extend(ask(town).map(|(name, _)| name));
        Ok(answered.len() == 2)
    });
}

/// A service with a container on host-2 and one on host-3.
struct Running {
    service: Service,
    replicas: Vec<(usize, Attached)>,
    end: Arc<AtomicBool>,
    responders: Vec<JoinHandle<()>>,
}

impl Running {
    fn start(town: &Town, on: &str, name: &str, mode: EndpointMode) -> Outcome<Self> {
        let option = if mode == EndpointMode::Vip { "vip" } else { "dnsrr" };
        let ports =
            if mode == EndpointMode::Vip { PublishedPort::read(&format!("{PUBLISHED}:{PORT}"))? } else { Vec::new() };
        let typed = if ports.is_empty() { String::new() } else { format!(" -p {PUBLISHED}:{PORT}") };
        town.typed(
            0,
            &format!("service create --name {name} --network {on} --replicas 2 --endpoint-mode {option}{typed}"),
        );
        let network = town.wait(town.manager.network(&on.into()))?.id;
        let spec = ServiceSpec { mode, ports, ..ServiceSpec::new(name.parse()?, [network]) };
        let service = town.wait(town.manager.create_service(ServiceId::generate(fill), spec, date()))?;
        println!("{}", service.id);
        let end = Arc::new(AtomicBool::new(false));
        let (mut replicas, mut responders) = (Vec::new(), Vec::new());
        for number in 1..=2 {
            let container = town.hosts.lab.container(&format!("{name}-{number}"))?;
            responders.push(respond(&container, &end)?);
            let attach = Attach::new(container.name.clone(), container.source.clone(), on);
            let attach = Attach { service: Some(service.id), ..attach };
            replicas.push((number, town.wait(town.driver(number)?.attach(attach))?));
            println!("overall progress: {number} out of 2 tasks");
        }
        town.shown("verify: Service converged");
        Ok(Self { service, replicas, end, responders })
    }

    /// Takes the work from the container on host-2, while it is asked for from outside.
    fn drain(&self, town: &mut Town) -> Outcome {
        let ending = self.replicas.iter().filter(|(host, _)| *host == 1).map(|(_, attached)| attached.endpoint.id);
        let ending: Vec<EndpointId> = ending.collect();
        let (over, host) = (AtomicBool::new(false), town.hosts.lab.address(0));
        let (drained, told) = std::thread::scope(|scope| -> Outcome<_> {
            let asking = scope.spawn(|| {
                let mut told = Vec::new();
                while !over.load(Ordering::Relaxed) {
                    told.push(asked(town.hosts.lab.outside(), host, PUBLISHED));
                }
                told
            });
            let drained = ending.iter().try_fold(Vec::new(), |mut all, endpoint| -> Outcome<_> {
                town.typed(1, &format!("drain {endpoint}"));
                all.push(town.wait(town.driver(1)?.drain(*endpoint, DRAINED))?);
                println!("{}", all.last().map(ToString::to_string).unwrap_or_default());
                Ok(all)
            });
            over.store(true, Ordering::Relaxed);
            Ok((drained?, asking.join().map_err(|_| "who asks has failed")?))
        })?;
        println!("{} requests from outside meanwhile\n", told.len());
        town.check("a container is drained, and then has no flow left", drained.iter().all(Drained::is_complete));
        town.check("and no request fails meanwhile", told.len() > 10 && told.iter().all(Option::is_some));
        let after: BTreeSet<_> = (0..10).filter_map(|_| asked(town.hosts.lab.outside(), host, PUBLISHED)).collect();
        town.check("after which the other has all the work", after.iter().all(|(name, _)| name == "nginx-2"));
        Ok(())
    }

    fn end(self, town: &Town) -> Outcome {
        let name = &self.service.spec.name;
        town.typed(0, &format!("rm -f {name}-1 {name}-2 && service rm {name}"));
        self.end.store(true, Ordering::Relaxed);
        for responder in self.responders {
            responder.join().map_err(|_| "a responder has failed")?;
        }
        for (host, replica) in &self.replicas {
            town.detach(*host, replica.endpoint.id)?;
        }
        town.wait(town.manager.remove_service(&self.service.id.into(), date()))?;
        town.shown(name.as_str());
        Ok(())
    }
}

/// Tells whoever asks the container's name, and from where it was asked.
#[expect(clippy::disallowed_methods, reason = "somebody must answer meanwhile")]
fn respond(container: &Container, end: &Arc<AtomicBool>) -> Outcome<JoinHandle<()>> {
    let listener = container.namespace.run(|| TcpListener::bind(("0.0.0.0", PORT)))??;
    listener.set_nonblocking(true)?;
    let (name, end) = (container.name.clone(), Arc::clone(end));
    Ok(std::thread::spawn(move || {
        while !end.load(Ordering::Relaxed) {
            match listener.accept() {
                Ok((mut stream, from)) => drop(stream.write_all(format!("{name} {}", from.ip()).as_bytes())),
                Err(_) => std::thread::sleep(Duration::from_millis(1)),
            }
        }
    }))
}

/// Who answers, and whom it saw.
fn asked(from: &Namespace, to: IpAddr, port: u16) -> Option<(String, IpAddr)> {
    let mut stream = from.run(|| TcpStream::connect_timeout(&(to, port).into(), PATIENCE)).ok()?.ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let mut said = String::new();
    stream.read_to_string(&mut said).ok()?;
    let (name, seen) = said.split_once(' ')?;
    Some((name.to_owned(), seen.parse().ok()?))
}

/// What a name stands for, once it is so many addresses.
fn named(town: &Town, from: &Container, name: &str, count: usize) -> Vec<IpAddr> {
    let find = || resolve(&from.namespace, name, PATIENCE).unwrap_or_default();
    town.until(|_| Ok(find().len() == count));
    let mut found = find();
    found.sort();
    found
}
