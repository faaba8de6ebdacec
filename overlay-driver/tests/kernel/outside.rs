//! Containers and the world outside: out by the gateway bridge, back by what they asked for, and not in.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use overlay_core::IpFamily;
use overlay_core::testing::{Kernel, kernel_test};
use overlay_driver::testing::{Container, Lab};
use overlay_ipam::SubnetRequest;
use overlay_kernel::Namespace;
use overlay_kernel::testing::judge;
use overlay_node::{GatewayBridge, NetworkSpec};

use crate::world::{World, attachable, pings};

const PATIENCE: Duration = Duration::from_secs(2);

/// Of both families.
fn dual(name: &str) -> NetworkSpec {
    let v6 = format!("fd00:{:x}::/64", name.as_bytes()[0]).parse().unwrap();
    let subnets = [SubnetRequest::any(IpFamily::V4), SubnetRequest::this(v6)];
    NetworkSpec { subnets: subnets.into(), ..attachable(name) }
}

/// Who asks over TCP, as seen by who answers; `None` if nobody is there in time.
fn asks_over_tcp(from: &Namespace, at: &Namespace, to: SocketAddr) -> Option<IpAddr> {
    let listener = at.run(|| TcpListener::bind(to)).unwrap().unwrap();
    let answers = std::thread::spawn(move || {
        let (mut stream, from) = listener.accept().ok()?;
        stream.write_all(b"answer").ok()?;
        Some(from.ip())
    });
    let Ok(mut stream) = from.run(|| TcpStream::connect_timeout(&to, PATIENCE)).unwrap() else {
        drop(at.run(|| TcpStream::connect(to)).unwrap()); // so that nobody waits for ever
        answers.join().unwrap();
        return None;
    };
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut read = [0; 6];
    stream.read_exact(&mut read).unwrap();
    assert_eq!(&read, b"answer");
    answers.join().unwrap()
}

/// The same over UDP.
fn asks_over_udp(from: &Namespace, at: &Namespace, to: SocketAddr) -> Option<IpAddr> {
    let server = at.run(|| UdpSocket::bind(to)).unwrap().unwrap();
    let any: SocketAddr = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }.parse().unwrap();
    let client = from.run(|| UdpSocket::bind(any)).unwrap().unwrap();
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.send_to(b"question", to).ok()?;
    let mut buffer = [0; 16];
    let (_, asked_by) = server.recv_from(&mut buffer).ok()?;
    server.send_to(b"answer", asked_by).unwrap();
    client.recv_from(&mut buffer).ok()?;
    Some(asked_by.ip())
}

/// The addresses a container has at the gateway bridge, of both families.
fn at_the_gateway(container: &Container) -> Vec<IpAddr> {
    let shown =
        judge(&container.namespace, "ip", &["-o", "addr", "show", "dev", GatewayBridge::INTERFACE, "scope", "global"]);
    let words = shown.lines().filter_map(|line| line.split_whitespace().nth(3));
    words.map(|net| net.split('/').next().unwrap().parse().unwrap()).collect()
}

fn interfaces(container: &Container) -> String {
    judge(&container.namespace, "ip", &["-o", "link"])
}

#[test]
fn containers_reach_the_outside_as_their_node_and_are_answered() {
    kernel_test(Kernel::Host, "driver::containers_reach_the_outside_as_their_node", || {
        let world = World::new(2);
        world.network(dual("front"));
        let (web, _) = world.run(0, "web", "front");
        let host = [world.hosts().lab.address(0), "2001:db8::1".parse().unwrap()];
        for (to, host) in Lab::outside_addresses().into_iter().zip(host) {
            world.until(PATIENCE, |_| pings(&web, to));
            let (outside, to) = (world.hosts().lab.outside(), SocketAddr::new(to, 7000));
            assert_eq!(asks_over_tcp(&web.namespace, outside, to), Some(host), "TCP to {to}");
            assert_eq!(asks_over_udp(&web.namespace, outside, to), Some(host), "UDP to {to}");
        }
    });
}

#[test]
fn nothing_comes_in_that_was_not_asked_for_nor_passes_between_containers_at_the_gateway() {
    kernel_test(Kernel::Host, "driver::nothing_comes_in_that_was_not_asked_for", || {
        let world = World::new(2);
        world.network(dual("front"));
        world.network(dual("back"));
        let ((web, _), (db, _)) = (world.run(0, "web", "front"), world.run(0, "db", "back"));
        let outside = world.hosts().lab.outside();
        world.until(PATIENCE, |_| pings(&web, Lab::outside_addresses()[0]));
        let (ours, theirs) = (at_the_gateway(&web), at_the_gateway(&db));
        assert_eq!([ours.len(), theirs.len()], [2, 2]);
        for address in &ours {
            // Who is outside may know the way, which is no right of way.
            let via = if address.is_ipv4() { "192.0.2.1" } else { "2001:db8::1" };
            judge(outside, "ip", &["route", "add", &address.to_string(), "via", via]);
            let to = SocketAddr::new(*address, 7001);
            assert_eq!(asks_over_tcp(outside, &web.namespace, to), None, "TCP to {to}");
            assert_eq!(asks_over_udp(outside, &web.namespace, to), None, "UDP to {to}");
        }
        for address in &theirs {
            assert!(!pings(&web, *address), "{address} is another container's");
            let to = SocketAddr::new(*address, 7002);
            assert_eq!(asks_over_udp(&web.namespace, &db.namespace, to), None, "UDP to {to}");
        }
    });
}

#[test]
fn an_internal_network_has_no_way_out_and_a_way_out_goes_with_the_network_that_gave_it() {
    kernel_test(Kernel::Host, "driver::an_internal_network_has_no_way_out", || {
        let world = World::new(1);
        world.network(NetworkSpec { internal: true, ..dual("vault") });
        world.network(dual("front"));
        let (web, _) = world.run(0, "web", "vault");
        let out = |container: &Container| Lab::outside_addresses().map(|to| pings(container, to));
        assert_eq!(out(&web), [false; 2]);
        assert!(!interfaces(&web).contains(GatewayBridge::INTERFACE), "{}", interfaces(&web));
        let front = world.attach(0, &web, "front");
        world.until(PATIENCE, |_| out(&web) == [true; 2]);
        let before = at_the_gateway(&web);
        world.wait(world.driver(0).detach(front.endpoint.id)).unwrap();
        world.until(PATIENCE, |_| !interfaces(&web).contains(GatewayBridge::INTERFACE));
        assert_eq!(out(&web), [false; 2]);
        assert!(!judge(world.hosts().lab.host(0), "ip", &["-o", "link"]).contains("gw-"), "nobody leaves any more");
        world.attach(0, &web, "front");
        world.until(PATIENCE, |_| out(&web) == [true; 2]);
        assert_eq!(at_the_gateway(&web), before, "it was plugged in all the while, and has its port still");
    });
}

#[test]
fn a_way_out_outlives_its_driver_and_is_repaired() {
    kernel_test(Kernel::Host, "driver::a_way_out_outlives_its_driver", || {
        let mut world = World::new(1);
        world.network(dual("front"));
        let (web, _) = world.run(0, "web", "front");
        let [to, _] = Lab::outside_addresses();
        world.until(PATIENCE, |_| pings(&web, to));
        let before = at_the_gateway(&web);
        let stopped = world.hosts_mut().take(0).unwrap();
        world.wait(stopped.stop());
        assert!(pings(&web, to), "the data path stays");
        world.start(0);
        world.until(Duration::from_secs(10), |world| world.status(0).places.iter().all(|place| place.holds));
        assert!(pings(&web, to));
        assert_eq!(at_the_gateway(&web), before);
        let host = world.hosts().lab.host(0);
        for damage in ["ip link del $(ip -o link | sed -n 's/.* \\(gw-[0-9a-z]*\\):.*/\\1/p')", "nft flush ruleset"] {
            judge(host, "sh", &["-c", damage]);
            world.until(Duration::from_secs(5), |_| pings(&web, to));
        }
        judge(&web.namespace, "ip", &["link", "del", GatewayBridge::INTERFACE]);
        world.until(Duration::from_secs(5), |_| pings(&web, to));
    });
}
