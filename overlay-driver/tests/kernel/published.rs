//! Where published ports are reached, and by whom.

use std::io::{ErrorKind, Read as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use ipnet::IpNet;
use overlay_core::testing::{Kernel, kernel_test};
use overlay_core::{EndpointId, Port, Protocol, ServiceId};
use overlay_driver::Attach;
use overlay_driver::testing::{Lab, date};
use overlay_kernel::testing::judge;
use overlay_lb::Ask;
use overlay_node::{
    Access, Condition, Control as _, Explanation, NetworkSpec, PublishMode, PublishedPort, ServiceSpec,
};
use socket2::{Domain, Socket, Type};

use crate::mesh::{SOON, addresses, names, service, shares, world};
use crate::replica::{Answer, PATIENCE, Replica, TARGET, asks_over_tcp, asks_over_udp, publishes};
use crate::world::{World, attachable};

const REFUSED: Answer = Err(ErrorKind::ConnectionRefused);

/// A TCP port that is reached so.
fn port(number: u16, mode: PublishMode, access: Access) -> PublishedPort {
    let published = Port::new(number).ok();
    PublishedPort { published, mode, access, ..PublishedPort::new(Protocol::Tcp, Port::new(TARGET).unwrap()) }
}

fn only<T: Ord>(one: T) -> std::collections::BTreeSet<T> {
    [one].into()
}

/// What who asks from outside hears at a host's port, of IPv4 and of IPv6: a name, or why not.
fn heard(world: &World, host: usize, port: u16) -> [String; 2] {
    let text = |answer: Answer| answer.map_or_else(|error| format!("{error:?}"), |(name, _)| name);
    addresses(host).map(|to| text(asks_over_tcp(world.hosts().lab.outside(), SocketAddr::new(to, port))))
}

#[test]
fn in_local_mode_a_node_leads_to_its_own_replicas_and_refuses_where_it_has_none() {
    kernel_test(Kernel::Host, "driver::in_local_mode_a_node_leads_to_its_own_replicas", || {
        let world = world();
        let ports = publishes(PublishMode::Local, &[(Protocol::Tcp, 80), (Protocol::Udp, 53)]);
        let web = service(&world, "web", ports);
        let replica = |host: usize| Replica::new(&world, host, &format!("web-{host}"), &web, &["front", "ingress"]);
        let replicas = [0, 1].map(replica);
        let lab = &world.hosts().lab;
        for host in [0, 1] {
            for (to, client) in addresses(host).into_iter().zip(Lab::outside_addresses()) {
                let tcp = || asks_over_tcp(lab.outside(), (to, 80).into());
                let udp = || asks_over_udp(lab.outside(), (to, 53).into());
                world.until(SOON, |_| tcp().is_ok() && udp().is_ok());
                let expected = [format!("web-{host}")];
                assert_eq!(names(&shares(20, client, tcp)), expected, "TCP to {to}");
                assert_eq!(names(&shares(20, client, udp)), expected, "UDP to {to}");
            }
        }
        for to in addresses(2) {
            let refused = || asks_over_tcp(lab.outside(), (to, 80).into());
            world.until(SOON, |_| refused() == REFUSED);
            assert_eq!((refused(), asks_over_udp(lab.outside(), (to, 53).into())), (REFUSED, REFUSED), "{to}");
        }
        // With its last replica a node refuses too, whoever is left elsewhere.
        for endpoint in &replicas[0].endpoints {
            world.wait(world.driver(0).detach(*endpoint)).unwrap();
        }
        let refused = [(); 2].map(|()| "ConnectionRefused");
        world.until(SOON, |world| heard(world, 0, 80) == refused);
        assert_eq!(heard(&world, 1, 80), ["web-1", "web-1"]);
    });
}

#[test]
fn a_port_is_reached_where_it_is_said_to_be_and_by_whom() {
    kernel_test(Kernel::Host, "driver::a_port_is_reached_where_it_is_said_to_be_and_by_whom", || {
        let world = world();
        let ([at, _], node) = (addresses(2), world.status(2).node);
        let [client, _] = Lab::outside_addresses();
        let mesh = |number, access| port(number, PublishMode::Ingress, access);
        let by = |name: &str| Access { interfaces: only(name.parse().unwrap()), ..Access::default() };
        let web = service(
            &world,
            "web",
            vec![
                mesh(80, Access::default()),
                mesh(81, Access { addresses: only(at), ..Access::default() }),
                mesh(82, by("eth0")),
                mesh(83, by("eth9")),
                mesh(84, Access { nodes: only(node), ..Access::default() }),
                mesh(85, Access { sources: only(IpNet::from(client)), ..Access::default() }),
            ],
        );
        let _replica = Replica::new(&world, 0, "web-0", &web, &["front", "ingress"]);
        let (served, refused, dropped) = ("web-0", "ConnectionRefused", "TimedOut");
        for host in [0, 1, 2] {
            world.until(SOON, |world| heard(world, host, 80) == [served; 2]);
            let here = if host == 2 { served } else { refused };
            assert_eq!(heard(&world, host, 81), [here, refused], "an address, at host {host}");
            assert_eq!(heard(&world, host, 82), [served; 2], "an interface, at host {host}");
            assert_eq!(heard(&world, host, 83), [refused; 2], "another, at host {host}");
            assert_eq!(heard(&world, host, 84), [here; 2], "a node, at host {host}");
            assert_eq!(heard(&world, host, 85), [served, dropped], "a client, at host {host}");
        }
        // Whoever is on the node itself may ask, but comes in by no interface.
        let itself = |port| asks_over_tcp(world.hosts().lab.host(2), SocketAddr::new(addresses(2)[1], port));
        assert_eq!(itself(85), Ok(("web-0".to_owned(), addresses(2)[1])));
        assert_eq!(itself(82), REFUSED);
    });
}

#[test]
fn in_host_mode_too_a_port_is_reached_where_it_is_said_to_be_and_by_whom() {
    kernel_test(Kernel::Host, "driver::in_host_mode_too_a_port_is_reached_where_it_is_said_to_be", || {
        let world = world();
        let ([at, _], [client, _]) = (addresses(1), Lab::outside_addresses());
        let host = |number, access| port(number, PublishMode::Host, access);
        let any = PublishedPort { published: None, ..host(1, Access::default()) };
        let web = service(
            &world,
            "web",
            vec![
                host(80, Access { addresses: only(at), ..Access::default() }),
                host(81, Access { interfaces: only("eth0".parse().unwrap()), ..Access::default() }),
                host(82, Access { nodes: only(world.status(0).node), ..Access::default() }),
                host(83, Access { sources: only(IpNet::from(client)), ..Access::default() }),
                host(84, Access { addresses: only(at), sources: only(IpNet::from(at)), ..Access::default() }),
                any,
            ],
        );
        let _replica = Replica::new(&world, 1, "web-1", &web, &["front"]);
        let (served, refused, dropped) = ("web-1", "ConnectionRefused", "TimedOut");
        world.until(SOON, |world| heard(world, 1, 80) == [served, refused]);
        assert_eq!(heard(&world, 1, 81), [served; 2], "an interface");
        assert_eq!(heard(&world, 1, 82), [refused; 2], "another node");
        assert_eq!(heard(&world, 1, 83), [served, dropped], "a client");
        assert_eq!(heard(&world, 1, 84), [dropped, refused], "the node itself, from outside");
        let itself = asks_over_tcp(world.hosts().lab.host(1), SocketAddr::new(at, 84));
        assert_eq!(itself.map(|(name, _)| name), Ok(served.to_owned()));
        // A port that nobody named has a number all the same.
        let drawn = world.wait(world.manager().service(&"web".into())).unwrap().ports[5].published.unwrap();
        assert!((30_000..=32_767).contains(&drawn.get()), "{drawn}");
        assert_eq!(heard(&world, 1, drawn.get()), [served; 2], "a drawn port");
        assert_eq!(heard(&world, 0, drawn.get()), [refused; 2], "a drawn port, elsewhere");
    });
}

/// Connects to a place from an address and port that others of the same client have too.
fn connects(client: SocketAddr, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&client.into())?;
    socket.connect_timeout(&to.into(), PATIENCE)?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

#[test]
fn two_flows_of_a_client_that_differ_only_in_the_node_they_came_by_are_two() {
    kernel_test(Kernel::Host, "driver::two_flows_that_differ_only_in_the_node_they_came_by_are_two", || {
        let world = world();
        let web = service(&world, "web", publishes(PublishMode::Ingress, &[(Protocol::Tcp, 80), (Protocol::Udp, 53)]));
        let _replica = Replica::new(&world, 0, "web-0", &web, &["front", "ingress"]);
        let outside = world.hosts().lab.outside();
        for (family, client) in Lab::outside_addresses().into_iter().enumerate() {
            let nodes = [0, 1, 2].map(|host| addresses(host)[family]);
            for to in nodes {
                world.until(SOON, |_| asks_over_tcp(outside, (to, 80).into()).is_ok());
            }
            // All are open at once, from one port of the client.
            let from = SocketAddr::new(client, 40_000);
            let mut streams = nodes.map(|to| outside.run(|| connects(from, (to, 80).into())).unwrap().unwrap());
            for stream in &mut streams {
                let mut said = [0; 64];
                let length = stream.read(&mut said).unwrap();
                assert_eq!(str::from_utf8(&said[..length]).unwrap(), format!("web-0 {client}\n"));
            }
            let socket = outside.run(|| UdpSocket::bind(from)).unwrap().unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            // Each is asked again after the others, and answers from where it was asked.
            for to in [nodes, nodes].concat() {
                socket.send_to(b"?", (to, 53)).unwrap();
                let mut said = [0; 64];
                let (length, by) = socket.recv_from(&mut said).unwrap();
                assert_eq!((by, &said[..length]), ((to, 53).into(), format!("web-0 {client}\n").as_bytes()));
            }
        }
    });
}

/// What the catalogue says of an endpoint.
fn condition(world: &World, endpoint: EndpointId) -> Condition {
    world.wait(world.manager().endpoint(endpoint)).unwrap().unwrap().condition
}

/// What keeps clients from published ports of a host.
fn hindrances(world: &World, host: usize) -> Vec<String> {
    world.status(host).places.into_iter().flat_map(|place| place.hindrances).collect()
}

#[test]
fn whoever_else_has_a_published_port_of_a_host_is_named_to_the_node_and_to_managers() {
    kernel_test(Kernel::Host, "driver::whoever_else_has_a_published_port_is_named", || {
        let world = world();
        let host = world.hosts().lab.host(1);
        let ports = publishes(PublishMode::Host, &[(Protocol::Tcp, 80), (Protocol::Tcp, 81)]);
        let web = service(&world, "web", ports);
        let first = Replica::new(&world, 1, "web-1", &web, &["front"]);
        let me = std::fs::read_to_string("/proc/self/comm").unwrap();
        let who = format!("{} (pid {})", me.trim_end(), std::process::id());
        let listener = host.run(|| TcpListener::bind("0.0.0.0:80")).unwrap().unwrap();
        // The port is in the way of the one who listens, which is found by and by, and both are told of.
        world.until(Duration::from_secs(20), |world| {
            let said = Condition::Failed {
                reason: format!("tcp 80 of the host is not the container's alone: {who} listens there"),
            };
            condition(world, first.endpoints[0]) == said
        });
        let told = format!(
            "{who} listens at the host's tcp 80, and is not asked while a service publishes it: publish another port, or end that program"
        );
        assert_eq!(hindrances(&world, 1), [told]);
        drop(listener);
        world.until(Duration::from_secs(20), |world| condition(world, first.endpoints[0]) == Condition::Ready);
        assert!(hindrances(&world, 1).is_empty());
        // A second container of the node cannot have the port too, whatever it is called, and is not attached; elsewhere it can.
        for name in ["web-2", "a-web"] {
            let container = world.hosts().lab.container(name).unwrap();
            let attach = Attach::new(container.name.clone(), container.source.clone(), "front");
            let attached = world.wait(world.driver(1).attach(Attach { service: Some(web.id), ..attach }));
            let refused = attached.unwrap_err().to_string();
            let said = "tcp 80 of the host is not the container's: another container of this node publishes it";
            assert!(refused.ends_with(said), "{refused}");
        }
        let third = Replica::new(&world, 0, "web-3", &web, &["front"]);
        world.until(SOON, |world| condition(world, third.endpoints[0]) == Condition::Ready);
        assert_eq!(
            (heard(&world, 1, 80), heard(&world, 0, 80)),
            (["web-1"; 2].map(str::to_owned), ["web-3"; 2].map(str::to_owned))
        );
        // When the first goes, it is another's.
        world.wait(world.driver(1).detach(first.endpoints[0])).unwrap();
        let _fourth = Replica::new(&world, 1, "web-4", &web, &["front"]);
        world.until(SOON, |world| heard(world, 1, 80) == ["web-4"; 2]);
    });
}

#[test]
fn a_host_port_that_leads_to_a_container_without_a_way_out_is_told_of() {
    kernel_test(Kernel::Host, "driver::a_host_port_that_leads_to_a_container_without_a_way_out", || {
        let world = world();
        let vault = world.network(NetworkSpec { internal: true, ..attachable("vault") });
        let spec = ServiceSpec {
            ports: vec![port(83, PublishMode::Host, Access::default())],
            ..ServiceSpec::new("inner".parse().unwrap(), [vault.id])
        };
        let inner = world.wait(world.manager().create_service(ServiceId::from_bytes([1; 16]), spec, date())).unwrap();
        let container = world.hosts().lab.container("inner-1").unwrap();
        let attach = Attach::new("inner-1".parse().unwrap(), container.source, "vault");
        world.wait(world.driver(1).attach(Attach { service: Some(inner.id), ..attach })).unwrap();
        let told = "tcp 83 of service inner does not lead to inner-1, as it has no way out: attach it to a network that is not internal";
        assert_eq!(hindrances(&world, 1), [told]);
        assert_eq!(heard(&world, 1, 83), ["ConnectionRefused"; 2]);
    });
}

#[test]
fn a_host_that_does_not_forward_is_told_that_its_published_ports_are_not_reached() {
    kernel_test(Kernel::Host, "driver::a_host_that_does_not_forward_is_told_so", || {
        let world = world();
        let off = "for f in ipv4 ipv6; do echo 0 > /proc/sys/net/$f/conf/all/forwarding; done";
        judge(world.hosts().lab.host(2), "sh", &["-c", off]);
        let web = service(&world, "web", publishes(PublishMode::Ingress, &[(Protocol::Tcp, 80)]));
        let _replica = Replica::new(&world, 0, "web-0", &web, &["front", "ingress"]);
        world.until(SOON, |world| hindrances(world, 2).len() == 2);
        let told = hindrances(&world, 2);
        let v4 = "the host does not forward IPv4 packets that come in by eth0, so no client from there reaches";
        assert!(told[0].starts_with(v4), "{told:?}");
        assert!(
            told[1].starts_with("the host does not forward IPv6 packets, so no client of IPv6 reaches"),
            "{told:?}"
        );
        assert!(hindrances(&world, 1).is_empty());
        // What is told mends it.
        for remedy in &told {
            judge(world.hosts().lab.host(2), "sh", &["-c", remedy.rsplit_once(": ").unwrap().1]);
        }
        world.until(SOON, |world| heard(world, 2, 80) == ["web-0"; 2]);
        world.until(Duration::from_secs(20), |world| hindrances(world, 2).is_empty());
    });
}

/// What becomes of a client who asks a host for a TCP port, and comes in by the wire.
fn explained(world: &World, host: usize, (from, to): (IpAddr, IpAddr), port: u16) -> Explanation {
    let (by, port) = ("eth0".parse().ok(), Port::new(port).unwrap());
    let ask = Ask { by, from, to, protocol: Protocol::Tcp, port };
    world.wait(world.driver(host).explain_published(ask)).unwrap()
}

#[test]
fn what_becomes_of_a_client_of_a_published_port_is_explained() {
    kernel_test(Kernel::Host, "driver::what_becomes_of_a_client_of_a_published_port_is_explained", || {
        let world = world();
        let ([at, at6], [client, client6]) = (addresses(2), Lab::outside_addresses());
        let mesh = |number, access| port(number, PublishMode::Ingress, access);
        let ports = vec![
            mesh(80, Access::default()),
            mesh(81, Access { addresses: only(at), ..Access::default() }),
            mesh(82, Access { nodes: only(world.status(0).node), ..Access::default() }),
            mesh(83, Access { sources: only(IpNet::from(client)), ..Access::default() }),
            port(84, PublishMode::Host, Access::default()),
            port(85, PublishMode::Local, Access::default()),
        ];
        let web = service(&world, "web", ports);
        let _replica = Replica::new(&world, 0, "web-0", &web, &["front", "ingress"]);
        let here = addresses(0)[0];
        world.until(SOON, |world| heard(world, 2, 80) == ["web-0"; 2] && heard(world, 0, 84) == ["web-0"; 2]);
        // Ways that are whole, and are so.
        for (host, who, port, last) in [
            (2, (client, at), 80, "entry     segment "),
            (2, (client6, at6), 80, "entry     segment "),
            (2, (client, at), 81, "entry     segment "),
            (2, (client, at), 83, "entry     segment "),
            (0, (client, here), 80, "here      web-0 is on this node"),
            (0, (client, here), 82, "here      web-0 is on this node"),
            (0, (client, here), 84, "here      web-0 is on this node"),
            (0, (client, here), 85, "here      web-0 is on this node"),
        ] {
            let whole = explained(&world, host, who, port);
            assert!(
                whole.broken.is_none() && whole.to_string().lines().last().unwrap().starts_with(last),
                "{port}: {whole}"
            );
            assert_eq!(
                asks_over_tcp(world.hosts().lab.outside(), (who.1, port).into()),
                Ok(("web-0".to_owned(), who.0))
            );
        }
        // Others that are not.
        for (host, who, port, missing) in [
            (2, (client, at), 79, "no service on the networks of this node publishes tcp 79"),
            (2, (client6, at6), 81, "web is not published at 2001:db8::3"),
            (2, (client, at), 82, "web publishes tcp 82 at other nodes only"),
            (2, (client6, at6), 83, "web is not for "),
            (2, (client, at), 84, "no container of web is on this node, which refuses who asks"),
            (2, (client, at), 85, "no endpoint of service web on this node takes work"),
        ] {
            let explanation = explained(&world, host, who, port);
            let broken = explanation.broken.as_ref().unwrap();
            assert!(broken.missing.starts_with(missing) && !broken.repair.is_empty(), "{explanation}");
            assert!(asks_over_tcp(world.hosts().lab.outside(), (who.1, port).into()).is_err(), "{port} at {}", who.1);
        }
    });
}

#[test]
fn what_of_a_host_is_in_the_way_of_its_published_ports_is_explained_with_its_remedy() {
    kernel_test(Kernel::Host, "driver::what_of_a_host_is_in_the_way_of_its_published_ports", || {
        let world = world();
        let web = service(&world, "web", publishes(PublishMode::Ingress, &[(Protocol::Tcp, 80)]));
        let _replica = Replica::new(&world, 0, "web-0", &web, &["front", "ingress"]);
        world.until(SOON, |world| heard(world, 2, 80) == ["web-0"; 2]);
        let host = world.hosts().lab.host(2);
        let shut = "nft add table inet other; nft add chain inet other forward '{ type filter hook forward priority 0; policy drop; }'";
        for (damage, family, told) in [
            (shut, 0, "inet other forward of another program drops packets from and to m"),
            (
                "echo 0 > /proc/sys/net/ipv4/conf/eth0/forwarding",
                0,
                "the host does not forward IPv4 packets that come in by eth0",
            ),
            ("echo 0 > /proc/sys/net/ipv6/conf/all/forwarding", 1, "the host does not forward IPv6 packets"),
        ] {
            judge(host, "sh", &["-c", damage]);
            assert_ne!(heard(&world, 2, 80)[family], "web-0", "{damage}");
            let who = (Lab::outside_addresses()[family], addresses(2)[family]);
            let broken = explained(&world, 2, who, 80).broken.unwrap();
            assert!(broken.missing.starts_with(told), "{broken}");
            judge(host, "sh", &["-c", &broken.repair]);
            assert_eq!(heard(&world, 2, 80)[family], "web-0", "{} mends {damage}", broken.repair);
            assert_eq!(explained(&world, 2, who, 80).broken, None, "{damage}");
        }
        // Who else listens there is in nobody's way, and is told of.
        let _listener = host.run(|| TcpListener::bind("0.0.0.0:80")).unwrap().unwrap();
        let told = explained(&world, 2, (Lab::outside_addresses()[0], addresses(2)[0]), 80);
        let last = told.to_string().lines().last().unwrap().to_owned();
        assert!(last.starts_with("unasked   ") && last.ends_with(" listens there too"), "{told}");
    });
}

#[test]
fn what_a_node_needs_itself_it_does_not_publish_whatever_the_catalogue_says() {
    kernel_test(Kernel::Host, "driver::what_a_node_needs_itself_it_does_not_publish", || {
        let world = world();
        let manager = &world.hosts().manager;
        let ports = publishes(PublishMode::Ingress, &[(Protocol::Tcp, 22), (Protocol::Tcp, 80)]);
        let front = world.wait(manager.network(&"front".into())).unwrap();
        let spec = ServiceSpec { ports, ..ServiceSpec::new("ssh".parse().unwrap(), [front.id]) };
        let id = ServiceId::from_bytes([9; 16]);
        let refused = world.wait(manager.create_service(id, spec.clone(), date())).unwrap_err().to_string();
        assert!(refused.starts_with("port 22/tcp is kept for the nodes themselves"), "{refused}");
        // A manager that was told otherwise.
        let careless = world.hosts().another_manager().unwrap().with_kept([]);
        let ssh = world.wait(careless.create_service(id, spec, date())).unwrap();
        let listener = world.hosts().lab.host(2).run(|| TcpListener::bind("[::]:22")).unwrap().unwrap();
        let _replica = Replica::new(&world, 0, "ssh-0", &ssh, &["front", "ingress"]);
        world.until(SOON, |world| heard(world, 2, 80) == ["ssh-0"; 2]);
        let connects = world.hosts().lab.outside().run(|| TcpStream::connect((addresses(2)[0], 22))).unwrap();
        assert!(connects.is_ok() && listener.accept().is_ok(), "{connects:?}");
        let told = "tcp 22 of service ssh is not published here, as the node keeps it for itself: publish another port";
        assert_eq!(hindrances(&world, 2), [told]);
    });
}
