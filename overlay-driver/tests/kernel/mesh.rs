//! Published ports: reached at every node, or at the node that runs the container.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use overlay_core::testing::{Kernel, kernel_test};
use overlay_core::{Protocol, ServiceId};
use overlay_driver::Attach;
use overlay_driver::testing::{Lab, date};
use overlay_ipam::SubnetRequest;
use overlay_kernel::Namespace;
use overlay_kernel::testing::judge;
use overlay_node::{NetworkSpec, PublishMode, PublishedPort, Service, ServiceSpec};

use crate::replica::{Answer, PATIENCE, Replica, STRICT, TARGET, asks_over_tcp, asks_over_udp, heard, publishes};
use crate::world::{World, attachable};

pub(crate) const SOON: Duration = Duration::from_secs(8);

/// A connection, and to whom.
fn standing(from: &Namespace, to: IpAddr) -> (String, TcpStream) {
    let mut stream = from.run(|| TcpStream::connect_timeout(&(to, 80).into(), PATIENCE)).unwrap().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut buffer = [0; 64];
    let length = stream.read(&mut buffer).unwrap();
    let (name, _) = heard(str::from_utf8(&buffer[..length]).unwrap()).unwrap();
    (name, stream)
}

/// How often who answers, of so many, and that all say that this is who asked.
pub(crate) fn shares(times: usize, client: IpAddr, ask: impl Fn() -> Answer) -> BTreeMap<String, usize> {
    let mut all = BTreeMap::new();
    for _ in 0..times {
        let name = match ask() {
            Ok((name, seen)) if seen == client => name,
            Ok((name, seen)) => format!("{name} for {seen}"),
            Err(error) => format!("{error:?}"),
        };
        *all.entry(name).or_default() += 1;
    }
    all
}

pub(crate) fn names(shares: &BTreeMap<String, usize>) -> Vec<&str> {
    shares.keys().map(String::as_str).collect()
}

/// Waits until both replicas answer, however they are asked.
pub(crate) fn until_both_answer(world: &World, client: IpAddr, asks: [&dyn Fn() -> Answer; 2]) {
    world.until(SOON, |_| asks.iter().all(|ask| ask().is_ok()));
    world.until(SOON, |_| asks.iter().all(|ask| names(&shares(12, client, ask)) == ["web-0", "web-1"]));
}

/// A cluster whose ingress network has both families, and a network for services.
pub(crate) fn world() -> World {
    let world = World::new(3);
    let gone = world.wait(world.manager().remove_network(&"ingress".into(), date())).unwrap();
    assert!(gone.spec.ingress);
    for (name, nets) in [("ingress", ["10.40.0.0/24", "fd40::/64"]), ("front", ["10.41.0.0/24", "fd41::/64"])] {
        let subnets = nets.map(|net| SubnetRequest::this(net.parse().unwrap())).into();
        let ingress = name == "ingress";
        world.network(NetworkSpec { subnets, ingress, attachable: !ingress, ..attachable(name) });
    }
    for host in 0..3 {
        judge(world.hosts().lab.host(host), "sh", &["-c", STRICT]);
    }
    world
}

pub(crate) fn service(world: &World, name: &str, ports: Vec<PublishedPort>) -> Service {
    let front = world.wait(world.manager().network(&"front".into())).unwrap();
    let spec = ServiceSpec { ports, ..ServiceSpec::new(name.parse().unwrap(), [front.id]) };
    let id = ServiceId::from_bytes([name.as_bytes()[0]; 16]);
    world.wait(world.manager().create_service(id, spec, date())).unwrap()
}

/// A host's addresses on the wire.
pub(crate) fn addresses(host: usize) -> [IpAddr; 2] {
    let last = 1 + host as u8;
    [[192, 0, 2, last].into(), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last.into()).into()]
}

#[test]
fn a_published_port_is_reached_at_every_node_and_who_serves_sees_who_asks() {
    kernel_test(Kernel::Host, "driver::a_published_port_is_reached_at_every_node", || {
        let world = world();
        let ports = publishes(PublishMode::Ingress, &[(Protocol::Tcp, 80), (Protocol::Udp, 53)]);
        let web = service(&world, "web", ports);
        let mut replicas: Vec<Replica> = (0..2)
            .map(|host| Replica::new(&world, host, &format!("web-{host}"), &web, &["front", "ingress"]))
            .collect();
        let lab = &world.hosts().lab;
        // At a node without a replica, and at one with one; from outside, and from the node itself.
        for (host, families) in [2, 0].map(|host| (host, addresses(host))) {
            for (to, outside) in families.into_iter().zip(Lab::outside_addresses()) {
                for (from, client) in [(lab.outside(), outside), (lab.host(host), to)] {
                    let tcp = || asks_over_tcp(from, (to, 80).into());
                    let udp = || asks_over_udp(from, (to, 53).into());
                    until_both_answer(&world, client, [&tcp, &udp]);
                    for (what, shares) in [("TCP", shares(60, client, tcp)), ("UDP", shares(60, client, udp))] {
                        assert_eq!(names(&shares), ["web-0", "web-1"], "{what} from {client} to {to}: {shares:?}");
                        assert!(shares.values().all(|share| *share >= 15), "{what} to {to}: {shares:?}");
                    }
                }
            }
        }
        // What is not published is not open, and the network behind it is closed to who knows the way.
        let [v4, _] = addresses(2);
        let refused = |port: u16| asks_over_tcp(lab.outside(), (v4, port).into()) == Err(ErrorKind::ConnectionRefused);
        assert!(refused(TARGET) && refused(81));
        judge(lab.outside(), "ip", &["route", "add", "10.40.0.0/24", "via", &v4.to_string()]);
        let endpoint = replicas[0].endpoints[1];
        let inside = world.wait(world.manager().endpoint(endpoint)).unwrap().unwrap();
        for own in inside.addresses.iter().filter(|own| own.addr().is_ipv4()) {
            let asked = asks_over_tcp(lab.outside(), (own.addr(), TARGET).into());
            assert_eq!(asked, Err(ErrorKind::TimedOut), "routed to {own}");
        }
        // Nor is it a way between those who serve.
        for own in inside.addresses.iter().map(|own| own.addr()) {
            let asked = asks_over_tcp(&replicas[1].container.namespace, (own, TARGET).into());
            assert_eq!(asked, Err(ErrorKind::TimedOut), "another replica to {own}");
        }
        // A container reaches it too, as its node.
        let (client, _) = world.run(2, "client", "front");
        for to in addresses(2) {
            world.until(SOON, |_| asks_over_tcp(&client.namespace, (to, 80).into()).is_ok());
        }
        // Who goes gets nothing more; with the last, who asks is refused at once.
        for (left, gone) in [(1, 0), (0, 1)] {
            let replica = replicas.iter().find(|it| it.container.name.as_str() == format!("web-{gone}")).unwrap();
            for endpoint in &replica.endpoints {
                world.wait(world.driver(gone).detach(*endpoint)).unwrap();
            }
            let expected = if left == 1 { "web-1" } else { "ConnectionRefused" };
            let outside = Lab::outside_addresses()[0];
            let ask = || asks_over_tcp(lab.outside(), (v4, 80).into());
            world.until(SOON, |_| names(&shares(20, outside, ask)) == [expected]);
        }
        // Who comes back by its name has the work again, though it is attached to the service's own network alone.
        let container = &replicas[0].container;
        let attach = Attach::new(container.name.clone(), container.source.clone(), "front");
        let again = world.wait(world.driver(0).attach(Attach { service: Some(web.id), ..attach })).unwrap();
        world.until(SOON, |_| asks_over_tcp(lab.outside(), (v4, 80).into()).is_ok());
        world.wait(world.driver(0).detach(again.endpoint.id)).unwrap();
        replicas.clear();
        // Without the service nothing is left of it.
        world.wait(world.manager().remove_service(&"web".into(), date())).unwrap();
        world.until(SOON, |_| !judge(lab.host(2), "nft", &["list", "ruleset"]).contains("published4"));
        world.until(SOON, |_| !judge(lab.host(2), "ip", &["-o", "link"]).contains(": m"));
    });
}

#[test]
fn of_a_node_that_fails_its_own_connections_are_lost_and_new_ones_come_to_others() {
    kernel_test(Kernel::Host, "driver::of_a_node_that_fails_its_own_connections_are_lost", || {
        let mut world = world();
        let web = service(&world, "web", publishes(PublishMode::Ingress, &[(Protocol::Tcp, 80), (Protocol::Udp, 53)]));
        let _replicas: Vec<Replica> = (0..2)
            .map(|host| Replica::new(&world, host, &format!("web-{host}"), &web, &["front", "ingress"]))
            .collect();
        let [to, _] = addresses(2);
        let ask = |world: &World| asks_over_tcp(world.hosts().lab.outside(), (to, 80).into());
        world.until(SOON, |world| names(&shares(20, Lab::outside_addresses()[0], || ask(world))) == ["web-0", "web-1"]);
        // A UDP client that goes on asking from one port.
        let client = world.hosts().lab.outside().run(|| UdpSocket::bind("0.0.0.0:5300")).unwrap().unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut standing: Vec<(String, TcpStream)> =
            (0..40).map(|_| standing(world.hosts().lab.outside(), to)).collect();
        assert!(standing.iter().filter(|(name, _)| name == "web-1").count() >= 5);
        world.hosts_mut().lab.cut(1).unwrap();
        let cut = Instant::now();
        world.until(Duration::from_secs(10), |world| {
            names(&shares(20, Lab::outside_addresses()[0], || ask(world))) == ["web-0"]
        });
        let took = cut.elapsed();
        eprintln!("new connections succeed, all of them, {took:?} after a node was cut off");
        let mut buffer = [0; 64];
        client.send_to(b"who?", (to, 53)).unwrap();
        let (length, _) = client.recv_from(&mut buffer).unwrap();
        assert!(buffer[..length].starts_with(b"web-0"));
        // Of the connections that stood, those are lost that were to the node that failed, and no other.
        for (name, stream) in &mut standing {
            let patience = if name == "web-0" { PATIENCE } else { Duration::from_millis(20) };
            stream.set_read_timeout(Some(patience)).unwrap();
            let answers = stream.write_all(b"?").and_then(|()| stream.read(&mut buffer));
            assert_eq!(answers.is_ok_and(|length| length > 0), name == "web-0", "a connection to {name}");
        }
    });
}

#[test]
fn in_host_mode_a_port_is_reached_where_the_container_runs_and_refused_elsewhere() {
    kernel_test(Kernel::Host, "driver::in_host_mode_a_port_is_reached_where_the_container_runs", || {
        let world = world();
        let dns = service(&world, "dns", publishes(PublishMode::Host, &[(Protocol::Tcp, 5353), (Protocol::Udp, 5353)]));
        let _replica = Replica::new(&world, 1, "dns-1", &dns, &["front"]);
        let lab = &world.hosts().lab;
        for (to, client) in addresses(1).into_iter().zip(Lab::outside_addresses()) {
            let at = SocketAddr::new(to, 5353);
            world.until(SOON, |_| asks_over_tcp(lab.outside(), at).is_ok());
            let seen = Ok(("dns-1".to_owned(), client));
            assert_eq!((asks_over_tcp(lab.outside(), at), asks_over_udp(lab.outside(), at)), (seen.clone(), seen));
        }
        // On the host itself, its IPv4 loopback addresses lead there too. IPv6's cannot: whoever listens is asked, or nobody.
        let host = lab.host(1);
        let named = |answer: Answer| answer.map(|(name, _)| name);
        for at in ["127.0.0.1:5353", "127.3.2.1:5353"].map(|at| at.parse().unwrap()) {
            let answers = (named(asks_over_tcp(host, at)), named(asks_over_udp(host, at)));
            assert_eq!(answers, (Ok("dns-1".to_owned()), Ok("dns-1".to_owned())), "{at}");
        }
        let at: SocketAddr = "[::1]:5353".parse().unwrap();
        let refused = Err(ErrorKind::ConnectionRefused);
        assert_eq!((asks_over_tcp(host, at), asks_over_udp(host, at)), (refused.clone(), refused));
        let listener = host.run(|| TcpListener::bind(at)).unwrap().unwrap();
        let asked = host.run(|| TcpStream::connect_timeout(&at, PATIENCE)).unwrap();
        assert!(asked.is_ok() && listener.accept().is_ok());
        for to in addresses(0) {
            let at = SocketAddr::new(to, 5353);
            let refused = (Err(ErrorKind::ConnectionRefused), Err(ErrorKind::ConnectionRefused));
            assert_eq!((asks_over_tcp(lab.outside(), at), asks_over_udp(lab.outside(), at)), refused);
        }
    });
}
