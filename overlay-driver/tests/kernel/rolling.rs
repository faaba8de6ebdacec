//! A service whose replicas are all replaced while it is used.

#![expect(clippy::print_stderr, reason = "when what happened is what tells why a request failed")]

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use overlay_core::testing::{Kernel, kernel_test};
use overlay_core::{EndpointId, Port, Protocol, ServiceId};
use overlay_driver::testing::{Container, Lab, date, resolve};
use overlay_driver::{Attach, AttachError, DrainError, Driver, Replace, replace};
use overlay_ipam::SubnetRequest;
use overlay_kernel::Namespace;
use overlay_node::{Drained, EndpointMode, NetworkSpec, Order, PublishedPort, Rollout, Service, ServiceSpec};
use tokio::task::{JoinError, JoinSet};

use crate::world::{World, attachable};

const REQUESTS: usize = 20_000;
const HOSTS: usize = 3;
const REPLICAS: usize = 6;
/// Threads that ask in each way.
const ASKING: usize = 2;
const PATIENCE: Duration = Duration::from_secs(5);
const DRAINED: Duration = Duration::from_secs(20);
const TARGET: u16 = 8080;
const PUBLISHED: u16 = 80;

/// A container that tells whoever asks something its name, and who that was. It is not attached yet.
struct Replica {
    host: usize,
    container: Container,
    end: Arc<AtomicBool>,
    served: Option<JoinHandle<()>>,
    endpoints: Mutex<Vec<EndpointId>>,
}

impl Replica {
    fn new(world: &World, host: usize, name: &str) -> Self {
        let container = world.hosts().lab.container(name).unwrap();
        let listener = container.namespace.run(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, TARGET))).unwrap().unwrap();
        listener.set_nonblocking(true).unwrap();
        let end = Arc::new(AtomicBool::new(false));
        let (name, ended) = (name.to_owned(), Arc::clone(&end));
        let served = Some(std::thread::spawn(move || serve(&listener, &name, &ended)));
        Self { host, container, end, served, endpoints: Mutex::default() }
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        self.served.take().into_iter().for_each(|served| drop(served.join()));
    }
}

fn serve(listener: &TcpListener, name: &str, end: &AtomicBool) {
    while !end.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((stream, from)) => drop(answer(stream, name, from)),
            Err(_) => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}

fn answer(mut stream: TcpStream, name: &str, from: SocketAddr) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.read_exact(&mut [0])?;
    stream.write_all(format!("{name} {}", from.ip()).as_bytes())
}

/// Since this was asked first.
fn since() -> Duration {
    static BEGUN: OnceLock<Instant> = OnceLock::new();
    BEGUN.get_or_init(Instant::now).elapsed()
}

/// Asks once, from the namespace of the thread.
fn ask(to: SocketAddr) -> io::Result<(String, IpAddr)> {
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"?")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (name, seen) = text.split_once(' ').ok_or(io::ErrorKind::UnexpectedEof)?;
    Ok((name.to_owned(), seen.parse().map_err(io::Error::other)?))
}

/// What was asked in one way.
#[derive(Debug, Default)]
struct Asked {
    times: AtomicUsize,
    /// Who answered how often; or what went wrong.
    answers: Mutex<BTreeMap<String, usize>>,
    wrong: Mutex<Vec<String>>,
}

/// Asks on and on, as `client`, whatever address is next.
fn keep_asking(
    (from, client): (&Namespace, IpAddr),
    over: &AtomicBool,
    asked: &Asked,
    next: impl Fn(usize) -> io::Result<SocketAddr> + Sync,
) {
    let asks = || {
        while !over.load(Ordering::Relaxed) {
            let (number, begun) = (asked.times.fetch_add(1, Ordering::Relaxed), since());
            match next(number).and_then(ask) {
                Ok((name, seen)) if seen == client => *asked.answers.lock().unwrap().entry(name).or_default() += 1,
                other => asked.wrong.lock().unwrap().push(format!("{number}, {begun:?} to {:?}: {other:?}", since())),
            }
        }
    };
    from.run(asks).unwrap();
}

/// What goes wrong in a step.
#[derive(Debug)]
#[expect(dead_code, reason = "shown where a test fails")]
enum Wrong {
    Attach(AttachError),
    Drain(DrainError),
    Lost(JoinError),
}

impl From<JoinError> for Wrong {
    fn from(lost: JoinError) -> Self {
        Self::Lost(lost)
    }
}

/// The replicas that serve, and those that come in their places.
struct Steps {
    drivers: Vec<Driver>,
    services: [Service; 2],
    old: Vec<Replica>,
    new: Vec<Replica>,
}

impl Steps {
    /// Attaches a replica in all ways in which it is reached.
    async fn attach(&self, replica: &Replica) -> Result<(), AttachError> {
        let [web, names] = &self.services;
        for (network, service) in [("front", web), ("ingress", web), ("back", names)] {
            let (name, source) = (replica.container.name.clone(), replica.container.source.clone());
            let attach = Attach { service: Some(service.id), ..Attach::new(name, source, network) };
            let attached = self.drivers[replica.host].attach(attach).await?;
            eprintln!("{:?}: {} is on {network}", since(), replica.container.name);
            replica.endpoints.lock().unwrap().push(attached.endpoint.id);
        }
        Ok(())
    }

    fn endpoints(&self, old: usize) -> Vec<EndpointId> {
        self.old[old].endpoints.lock().unwrap().clone()
    }
}

#[async_trait]
impl Replace<usize> for Steps {
    type Error = Wrong;

    async fn start(&self, old: &usize) -> Result<(), Wrong> {
        self.attach(&self.new[*old]).await.map_err(Wrong::Attach)
    }

    async fn drain(&self, old: &usize) -> Result<Drained, Wrong> {
        let mut all = JoinSet::new();
        for endpoint in self.endpoints(*old) {
            let driver = self.drivers[self.old[*old].host].clone();
            all.spawn(async move { driver.drain(endpoint, DRAINED).await });
        }
        let (took, behind, left, arrived) = Default::default();
        let mut sum = Drained { took, behind, left, arrived, uncounted: None };
        while let Some(drained) = all.join_next().await {
            sum = sum.and(drained?.map_err(Wrong::Drain)?);
        }
        eprintln!("{:?}: {} {sum}", since(), self.old[*old].container.name);
        Ok(sum)
    }

    async fn stop(&self, old: &usize) -> Result<(), Wrong> {
        for endpoint in self.endpoints(*old) {
            self.drivers[self.old[*old].host].detach(endpoint).await.map_err(Wrong::Attach)?;
        }
        eprintln!("{:?}: {} is detached", since(), self.old[*old].container.name);
        self.old[*old].end.store(true, Ordering::Relaxed);
        Ok(())
    }
}

/// A cluster with a service that has a VIP and a published port, and one that has names.
fn scene() -> (World, [Service; 2]) {
    let world = World::new(HOSTS);
    let network = |name: &str, net: &str| {
        let subnets = vec![SubnetRequest::this(net.parse().unwrap())];
        world.network(NetworkSpec { subnets, ..attachable(name) })
    };
    let (front, back) = (network("front", "10.61.0.0/24"), network("back", "10.62.0.0/24"));
    let port = PublishedPort {
        published: Some(Port::new(PUBLISHED).unwrap()),
        ..PublishedPort::new(Protocol::Tcp, Port::new(TARGET).unwrap())
    };
    let web = ServiceSpec { ports: vec![port], ..ServiceSpec::new("web".parse().unwrap(), [front.id]) };
    let names = ServiceSpec { mode: EndpointMode::RoundRobin, ..ServiceSpec::new("names".parse().unwrap(), [back.id]) };
    let mut number = 0;
    let services = [web, names].map(|spec| {
        number += 1;
        world.wait(world.manager().create_service(ServiceId::from_bytes([number; 16]), spec, date())).unwrap()
    });
    (world, services)
}

#[test]
fn while_all_replicas_are_replaced_no_request_by_vip_name_or_published_port_fails() {
    kernel_test(Kernel::Host, "driver::while_all_replicas_are_replaced_no_request_fails", || {
        let (world, services) = scene();
        let front = world.wait(world.manager().network(&"front".into())).unwrap();
        let vip = *services[0].vips[&front.id].iter().next().unwrap();
        let replicas = |name: &str| -> Vec<Replica> {
            (0..REPLICAS).map(|number| Replica::new(&world, number % HOSTS, &format!("{name}-{number}"))).collect()
        };
        let drivers = (0..HOSTS).map(|host| world.driver(host)).collect();
        let steps = Arc::new(Steps { drivers, services, old: replicas("old"), new: replicas("new") });
        for replica in &steps.old {
            world.wait(steps.attach(replica)).unwrap();
        }
        let (client, near) = world.run(0, "client", "front");
        world.attach(0, &client, "back");
        let near = near.endpoint.addresses.iter().next().unwrap().addr();
        let names = |_| {
            let all = resolve(&client.namespace, "names", PATIENCE)?;
            all.first().map(|at| SocketAddr::new(*at, TARGET)).ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
        };
        let far = |number: usize| Ok(SocketAddr::new(world.hosts().lab.address(number % HOSTS), PUBLISHED));
        let outside = (world.hosts().lab.outside(), Lab::outside_addresses()[0]);
        let is_ready = |from: &Namespace, to: SocketAddr| from.run(|| ask(to).is_ok()).unwrap();
        world.until(PATIENCE, |_| is_ready(&client.namespace, (vip, TARGET).into()));
        world.until(PATIENCE, |_| names(0).is_ok_and(|to| is_ready(&client.namespace, to)));
        world.until(PATIENCE, |_| (0..HOSTS).all(|host| is_ready(outside.0, far(host).unwrap())));
        let own = client.namespace.run(|| names(0).and_then(ask)).unwrap().unwrap().1;

        let (over, begun) = (AtomicBool::new(false), Instant::now());
        let asked: [Asked; 3] = Default::default();
        let replaced = std::thread::scope(|scope| {
            for _ in 0..ASKING {
                scope.spawn(|| keep_asking((&client.namespace, near), &over, &asked[0], |_| Ok((vip, TARGET).into())));
                scope.spawn(|| keep_asking((&client.namespace, own), &over, &asked[1], names));
                scope.spawn(|| keep_asking(outside, &over, &asked[2], far));
            }
            let rollout = Rollout::new(0..REPLICAS, Order::StartFirst, NonZeroUsize::new(2).unwrap());
            let replaced = world.wait(replace(rollout, Arc::clone(&steps)));
            eprintln!("replaced after {:?}", begun.elapsed());
            let times = || asked.iter().map(|it| it.times.load(Ordering::Relaxed)).sum::<usize>();
            while times() < REQUESTS && begun.elapsed() < 12 * PATIENCE {
                std::thread::sleep(Duration::from_millis(20));
            }
            over.store(true, Ordering::Relaxed);
            replaced
        });
        let took: Vec<Duration> = replaced.drained.values().map(|it| it.took).collect();
        eprintln!("after {:?}, drains {took:?}: {asked:#?}", begun.elapsed());
        assert!(replaced.is_complete(), "{replaced:#?}");
        for asked in &asked {
            assert_eq!(*asked.wrong.lock().unwrap(), Vec::<String>::new());
            let answers = asked.answers.lock().unwrap();
            let both = |name: &str| answers.keys().filter(|key| key.starts_with(name)).count();
            assert_eq!((both("old"), both("new")), (REPLICAS, REPLICAS), "{answers:?}");
        }
        let all: usize = asked.iter().map(|it| it.times.load(Ordering::Relaxed)).sum();
        assert!(all >= REQUESTS, "{all} requests");
    });
}
