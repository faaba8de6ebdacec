//! Services: one address, many containers behind it.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use overlay_core::testing::{Kernel, kernel_test};
use overlay_core::{IpFamily, ServiceId};
use overlay_dns::Health;
use overlay_driver::testing::{Container, date, resolve};
use overlay_driver::{Attach, Attached};
use overlay_ipam::SubnetRequest;
use overlay_lb::{Affinity, Scheduler, Weight};
use overlay_node::{Balancing, EndpointMode, NetworkSpec, Service, ServiceSpec};

use crate::world::{World, attachable, pings};

const PATIENCE: Duration = Duration::from_secs(1);
const SOON: Duration = Duration::from_secs(5);
const PORT: u16 = 8080;

/// A container that tells everybody its name, and from where it was asked; and then repeats what it is told.
struct Replica {
    container: Container,
    attached: Attached,
    end: Arc<AtomicBool>,
    served: Vec<JoinHandle<()>>,
}

impl Replica {
    fn new(world: &World, host: usize, name: &str, service: &Service) -> Self {
        Self::weighing(Weight::ONE, world, host, (name, service))
    }

    fn weighing(weight: Weight, world: &World, host: usize, (name, service): (&str, &Service)) -> Self {
        let container = world.hosts().lab.container(name).unwrap();
        let end = Arc::new(AtomicBool::new(false));
        let bind = |any: &str| {
            let any: IpAddr = any.parse().unwrap();
            let listener = container.namespace.run(|| TcpListener::bind((any, PORT))).unwrap().unwrap();
            listener.set_nonblocking(true).unwrap();
            listener
        };
        let listener = bind("::"); // of both families
        let (name, ended) = (name.to_owned(), Arc::clone(&end));
        let served = vec![std::thread::spawn(move || serve(&listener, &name, &ended))];
        let attach = Attach {
            service: Some(service.id),
            weight,
            ..Attach::new(container.name.clone(), container.source.clone(), "front")
        };
        let attached = world.wait(world.driver(host).attach(attach)).unwrap();
        Self { container, attached, end, served }
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        self.served.drain(..).for_each(|served| drop(served.join()));
    }
}

fn serve(listener: &TcpListener, name: &str, end: &AtomicBool) {
    std::thread::scope(|scope| {
        while !end.load(Ordering::Relaxed) {
            match listener.accept() {
                Ok((stream, from)) => drop(scope.spawn(move || repeat(stream, name, from, end))),
                Err(_) => std::thread::sleep(Duration::from_millis(1)),
            }
        }
    });
}

fn repeat(mut stream: TcpStream, name: &str, from: SocketAddr, end: &AtomicBool) {
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let _ = stream.write_all(format!("{name} {}\n", from.ip().to_canonical()).as_bytes());
    let mut buffer = [0; 64];
    while !end.load(Ordering::Relaxed) {
        match stream.read(&mut buffer) {
            Ok(0) => return,
            Ok(length) => drop(stream.write_all(&buffer[..length])),
            Err(_) => {}
        }
    }
}

/// Connects, and gives the stream with who answered and from where that was asked.
fn asks(from: &Container, to: IpAddr) -> Option<(TcpStream, String, IpAddr)> {
    let connected = from.namespace.run(|| TcpStream::connect_timeout(&(to, PORT).into(), PATIENCE)).unwrap();
    let mut stream = connected.ok()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut line = String::new();
    while !line.ends_with('\n') {
        let mut byte = [0];
        if stream.read(&mut byte).ok()? == 0 {
            return None;
        }
        line.push(char::from(byte[0]));
    }
    let (name, seen) = line.trim().split_once(' ')?;
    Some((stream, name.to_owned(), seen.parse().ok()?))
}

/// Who answers how often, of so many.
fn answers(from: &Container, to: IpAddr, times: usize) -> BTreeMap<String, usize> {
    let mut all = BTreeMap::new();
    for _ in 0..times {
        let name = asks(from, to).map_or_else(|| "nobody".to_owned(), |(_, name, _)| name);
        *all.entry(name).or_default() += 1;
    }
    all
}

fn front() -> NetworkSpec {
    let subnets = ["10.30.0.0/24", "fd30::/64"].map(|net| SubnetRequest::this(net.parse().unwrap()));
    NetworkSpec { subnets: subnets.into(), ..attachable("front") }
}

fn service(world: &World, mode: EndpointMode) -> Service {
    balanced(world, mode, Balancing::default())
}

fn balanced(world: &World, mode: EndpointMode, balancing: Balancing) -> Service {
    let network = world.network(front());
    let spec = ServiceSpec { mode, balancing, ..ServiceSpec::new("web".parse().unwrap(), [network.id]) };
    world.wait(world.manager().create_service(ServiceId::from_bytes([7; 16]), spec, date())).unwrap()
}

fn vip(service: &Service, family: IpFamily) -> IpAddr {
    let mut vips = service.vips.values().flatten().copied();
    vips.find(|vip| IpFamily::of(*vip) == family).unwrap()
}

#[test]
fn behind_one_address_containers_of_all_hosts_share_the_work_and_see_who_asks() {
    kernel_test(Kernel::Host, "driver::behind_one_address_containers_share_the_work", || {
        let world = World::new(3);
        let web = service(&world, EndpointMode::Vip);
        let (client, attached) = world.run(0, "client", "front");
        let replicas: Vec<Replica> =
            (0..3).map(|host| Replica::new(&world, host, &format!("web-{host}"), &web)).collect();
        for family in [IpFamily::V4, IpFamily::V6] {
            let vip = vip(&web, family);
            world.until(SOON, |_| answers(&client, vip, 12).len() == 3);
            assert!(resolve(&client.namespace, "web", PATIENCE).unwrap().contains(&vip));
            let shares = answers(&client, vip, 300);
            assert!(shares.len() == 3 && shares.values().all(|share| (60..=140).contains(share)), "{shares:?}");
            let own = attached.endpoint.addresses.iter().map(|own| own.addr()).find(|own| IpFamily::of(*own) == family);
            assert_eq!(asks(&client, vip).map(|(_, _, seen)| seen), own, "a replica sees who asks");
            assert!(pings(&client, vip), "the VIP answers");
            // Who serves may ask too, and be the one who answers.
            world.until(SOON, |_| answers(&replicas[0].container, vip, 12).len() == 3);
            let hairpin = answers(&replicas[0].container, vip, 60);
            assert!(hairpin.len() == 3 && !hairpin.contains_key("nobody"), "{hairpin:?}");
        }

        // Who ends keeps what it has, and gets nothing new.
        let vip = vip(&web, IpFamily::V4);
        let mut kept = loop {
            let (stream, name, _) = asks(&client, vip).unwrap();
            if name == "web-1" {
                break stream;
            }
        };
        let ending = replicas[1].attached.endpoint.id;
        world.wait(world.driver(1).set_health(ending, Health::Draining)).unwrap();
        world.until(SOON, |_| !answers(&client, vip, 20).contains_key("web-1"));
        kept.write_all(b"still there?").unwrap();
        kept.read_exact(&mut [0; 12]).unwrap();

        // One is taken away while it is asked: from then on nobody is led to where nobody is.
        world.wait(world.driver(2).detach(replicas[2].attached.endpoint.id)).unwrap();
        world.until(SOON, |_| answers(&client, vip, 10) == BTreeMap::from([("web-0".to_owned(), 10)]));
        // Nobody is left: who asks is told at once.
        world.wait(world.driver(0).detach(replicas[0].attached.endpoint.id)).unwrap();
        let refused = || {
            let asked = client.namespace.run(|| TcpStream::connect_timeout(&(vip, PORT).into(), PATIENCE)).unwrap();
            asked.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
        };
        world.until(SOON, |_| refused());
    });
}

#[test]
fn a_host_that_fails_takes_no_more_of_a_services_work_within_seconds() {
    kernel_test(Kernel::Host, "driver::a_host_that_fails_takes_no_more_of_a_services_work", || {
        let mut world = World::new(3);
        let web = service(&world, EndpointMode::Vip);
        let (client, _) = world.run(0, "client", "front");
        let _replicas: Vec<Replica> =
            (0..3).map(|host| Replica::new(&world, host, &format!("web-{host}"), &web)).collect();
        let vip = vip(&web, IpFamily::V4);
        world.until(SOON, |_| answers(&client, vip, 12).len() == 3);
        world.hosts_mut().lab.cut(2).unwrap();
        // Suspected first: then the others have it all.
        world.until(Duration::from_secs(10), |_| {
            let shares = answers(&client, vip, 20);
            !shares.contains_key("web-2") && !shares.contains_key("nobody")
        });
        world.hosts_mut().lab.mend(2).unwrap();
        world.until(Duration::from_secs(15), |_| answers(&client, vip, 20).len() == 3);
    });
}

#[test]
fn in_mode_dnsrr_a_services_name_is_all_its_containers_addresses() {
    kernel_test(Kernel::Host, "driver::in_mode_dnsrr_a_services_name_is_all_its_containers", || {
        let world = World::new(2);
        let web = service(&world, EndpointMode::RoundRobin);
        assert!(web.vips.is_empty());
        let (client, _) = world.run(0, "client", "front");
        let replicas: Vec<Replica> =
            (0..2).map(|host| Replica::new(&world, host, &format!("web-{host}"), &web)).collect();
        let mut all: Vec<IpAddr> =
            replicas.iter().flat_map(|it| &it.attached.endpoint.addresses).map(|own| own.addr()).collect();
        all.sort();
        world.until(SOON, |_| {
            let mut found = resolve(&client.namespace, "web", PATIENCE).unwrap_or_default();
            found.sort();
            found == all
        });
        let shares: BTreeMap<String, usize> =
            all.iter().flat_map(|to| answers(&client, *to, 1)).fold(BTreeMap::new(), |mut shares, (name, count)| {
                *shares.entry(name).or_default() += count;
                shares
            });
        assert_eq!(shares, [("web-0".to_owned(), 2), ("web-1".to_owned(), 2)].into());
    });
}

#[test]
fn a_services_scheduler_and_its_endpoints_weights_hold_on_all_hosts_and_it_is_said_what_balances() {
    kernel_test(Kernel::Host, "driver::a_services_scheduler_and_weights_hold_on_all_hosts", || {
        let world = World::new(2);
        let balancing = Balancing { scheduler: Scheduler::WeightedRoundRobin, ..Balancing::default() };
        let web = balanced(&world, EndpointMode::Vip, balancing);
        let (near, _) = world.run(0, "near", "front");
        let (far, _) = world.run(1, "far", "front");
        let heavy = Weight::new(3).unwrap();
        let _replicas = [
            Replica::weighing(heavy, &world, 0, ("web-0", &web)),
            Replica::weighing(Weight::ONE, &world, 1, ("web-1", &web)),
        ];
        for client in [&near, &far] {
            let vip = vip(&web, IpFamily::V4);
            world.until(SOON, |_| answers(client, vip, 8).len() == 2);
            assert_eq!(answers(client, vip, 80), [("web-0".to_owned(), 60), ("web-1".to_owned(), 20)].into());
        }
        let places = world.status(0).places;
        let said = places.iter().find(|it| it.place == "container near").and_then(|it| it.balancer.clone());
        assert_eq!(
            said.as_deref(),
            Some("nf_tables (IPVS cannot have flows from balancers elsewhere: IPVS knows no ways back)")
        );
    });
}

#[test]
fn a_client_of_a_service_with_affinity_comes_back_until_its_container_ends() {
    kernel_test(Kernel::Host, "driver::a_client_of_a_service_with_affinity_comes_back", || {
        let world = World::new(2);
        let affinity = Some(Affinity { timeout: Duration::from_secs(60) });
        let web = balanced(&world, EndpointMode::Vip, Balancing { affinity, ..Balancing::default() });
        let (client, _) = world.run(0, "client", "front");
        let replicas: Vec<Replica> =
            (0..2).map(|host| Replica::new(&world, host, &format!("web-{host}"), &web)).collect();
        for family in [IpFamily::V4, IpFamily::V6] {
            let vip = vip(&web, family);
            world.until(SOON, |_| !answers(&client, vip, 1).contains_key("nobody"));
            assert_eq!(answers(&client, vip, 20).len(), 1);
        }
        let vip = vip(&web, IpFamily::V4);
        let (had, _) = answers(&client, vip, 1).pop_first().unwrap();
        let host = usize::from(had == "web-1");
        world.wait(world.driver(host).set_health(replicas[host].attached.endpoint.id, Health::Draining)).unwrap();
        world.until(SOON, |_| answers(&client, vip, 20) == [(format!("web-{}", 1 - host), 20)].into());
    });
}
