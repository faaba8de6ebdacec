//! Who reaches whom: containers on every kind of network, on three hosts, by TCP, UDP and ICMP of both families.

#![expect(clippy::needless_collect, reason = "all are asked before the first answer is waited for")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use overlay_core::EndpointId;
use overlay_core::testing::{Kernel, kernel_test};
use overlay_driver::Attach;
use overlay_driver::testing::{Container, Lab, date, node, ping_all};
use overlay_ipam::{AddressRange, SubnetRequest};
use overlay_kernel::Namespace;
use overlay_kernel::testing::judge;
use overlay_link::MacvlanMode;
use overlay_node::{Encryption, EndpointSpec, Kind, NetworkSpec};

use crate::world::World;

/// The networks; the number makes their subnets.
const NETWORKS: [&str; 6] = ["front", "back", "vault", "local", "lan", "secret"];
/// On which host the containers of each network are.
const HOSTS: [usize; 4] = [0, 0, 1, 2];
/// How long an answer may take; what is blocked takes as long.
const PATIENCE: Duration = Duration::from_millis(500);
const SERVICE: u16 = 7777;

/// A container, and where it is found.
struct Spot {
    network: &'static str,
    host: usize,
    container: Container,
    addresses: Vec<IpAddr>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum By {
    Tcp,
    Udp,
    Icmp,
}

fn spec(name: &str) -> NetworkSpec {
    let parent = "eth0".parse().unwrap();
    let kind = match name {
        "local" => Kind::Bridge,
        "lan" => Kind::Macvlan { parent, mode: MacvlanMode::Bridge },
        _ => Kind::Overlay,
    };
    let number = NETWORKS.iter().position(|network| *network == name).unwrap();
    let subnets = match kind {
        Kind::Macvlan { .. } => {
            let v4 = SubnetRequest::this("192.0.2.0/24".parse().unwrap());
            let v6 = SubnetRequest::this("2001:db8::/64".parse().unwrap());
            let [router_v4, router_v6] = Lab::outside_addresses().map(overlay_ipam::Gateway::This);
            let range = |first: &str, last: &str| AddressRange::new(first.parse().unwrap(), last.parse().unwrap()).ok();
            let (range_v4, range_v6) = (range("192.0.2.128", "192.0.2.191"), range("2001:db8::8000", "2001:db8::8fff"));
            vec![
                SubnetRequest { gateway: router_v4, endpoints: range_v4, ..v4 },
                SubnetRequest { gateway: router_v6, endpoints: range_v6, ..v6 },
            ]
        }
        _ => [format!("10.20.{number}.0/24"), format!("fd20:{number}::/64")]
            .map(|net| SubnetRequest::this(net.parse().unwrap()))
            .into(),
    };
    let encryption = if name == "secret" { Encryption::Shared } else { Encryption::None };
    let (internal, attachable) = (name == "vault", true);
    NetworkSpec { subnets, internal, encryption, attachable, ..NetworkSpec::of(kind, name.parse().unwrap()) }
}

/// Six networks with four containers each.
fn settle(world: &World) -> Vec<Spot> {
    let mut spots = Vec::new();
    for network in NETWORKS {
        let of = world.network(spec(network));
        for (number, host) in HOSTS.into_iter().enumerate() {
            let container = world.hosts().lab.container(&format!("{network}-{number}")).unwrap();
            let endpoint = match network {
                // What an encrypted network carries is nothing, in this release, so an attachment would be taken back.
                "secret" => {
                    let id = EndpointId::from_bytes([number as u8 + 1; 16]);
                    let wanted = EndpointSpec::new(of.id, container.name.clone(), node(host));
                    let endpoint = world.wait(world.manager().attach(id, wanted, date())).unwrap();
                    let (name, source) = (container.name.clone(), container.source.clone());
                    world.wait(world.driver(host).plug(id, name, source, None)).unwrap();
                    endpoint
                }
                _ => world.attach(host, &container, network).endpoint,
            };
            let addresses = endpoint.addresses.iter().map(|own| own.addr()).collect();
            spots.push(Spot { network, host, container, addresses });
        }
    }
    spots
}

/// Answers, until it is told to end.
fn serve(at: &Namespace, end: &AtomicBool) {
    let bound = || {
        let tcp: Vec<TcpListener> = ["0.0.0.0", "::"].map(|any| tcp(any.parse().unwrap())).into();
        let udp: Vec<UdpSocket> = ["0.0.0.0", "::"].map(|any| udp(any.parse().unwrap(), SERVICE)).into();
        (tcp, udp)
    };
    let (tcp, udp) = at.run(bound).unwrap();
    let mut buffer = [0; 16];
    while !end.load(Ordering::Relaxed) {
        for listener in &tcp {
            let _ = listener.accept(); // the kernel has answered already
        }
        for socket in &udp {
            if let Ok((length, from)) = socket.recv_from(&mut buffer) {
                let _ = socket.send_to(&buffer[..length], from);
            }
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn tcp(any: IpAddr) -> TcpListener {
    let socket =
        socket2::Socket::new(socket2::Domain::for_address((any, 0).into()), socket2::Type::STREAM, None).unwrap();
    if any.is_ipv6() {
        socket.set_only_v6(true).unwrap();
    }
    socket.bind(&SocketAddr::new(any, SERVICE).into()).unwrap();
    socket.listen(64).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket.into()
}

fn udp(any: IpAddr, port: u16) -> UdpSocket {
    let socket =
        socket2::Socket::new(socket2::Domain::for_address((any, 0).into()), socket2::Type::DGRAM, None).unwrap();
    if any.is_ipv6() {
        socket.set_only_v6(true).unwrap();
    }
    socket.bind(&SocketAddr::new(any, port).into()).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket.into()
}

/// Which of these addresses answer somebody, by each protocol. All are asked at once.
fn reached(from: &Namespace, to: &[IpAddr]) -> BTreeSet<(IpAddr, By)> {
    from.run(|| {
        let mut answered = BTreeSet::new();
        std::thread::scope(|scope| {
            let by_tcp: Vec<_> = to
                .iter()
                .map(|ip| (*ip, scope.spawn(|| TcpStream::connect_timeout(&(*ip, SERVICE).into(), PATIENCE).is_ok())))
                .collect();
            let by_udp = scope.spawn(|| asked_by_udp(to));
            let by_icmp = scope.spawn(|| pinged(from, to));
            answered.extend(by_udp.join().unwrap().into_iter().map(|ip| (ip, By::Udp)));
            answered.extend(by_icmp.join().unwrap().into_iter().map(|ip| (ip, By::Icmp)));
            answered
                .extend(by_tcp.into_iter().filter_map(|(ip, asked)| asked.join().unwrap().then_some((ip, By::Tcp))));
        });
        answered
    })
    .unwrap()
}

fn asked_by_udp(to: &[IpAddr]) -> BTreeSet<IpAddr> {
    let [v4, v6] = ["0.0.0.0", "::"].map(|any| udp(any.parse().unwrap(), 0));
    let mut answered = BTreeSet::new();
    let mut buffer = [0; 16];
    for _ in 0..PATIENCE.as_millis() / 20 {
        for ip in to.iter().filter(|ip| !answered.contains(*ip)) {
            let socket = if ip.is_ipv4() { &v4 } else { &v6 };
            let _ = socket.send_to(b"question", (*ip, SERVICE)); // there may be no way
        }
        std::thread::sleep(Duration::from_millis(20));
        for socket in [&v4, &v6] {
            loop {
                match socket.recv_from(&mut buffer) {
                    Ok((_, who)) => drop(answered.insert(who.ip())),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(_) => {} // an ICMP error of another
                }
            }
        }
    }
    answered
}

/// Each by itself: where there is no way to one, the others are asked all the same.
fn pinged(from: &Namespace, to: &[IpAddr]) -> BTreeSet<IpAddr> {
    std::thread::scope(|scope| {
        let asked: Vec<_> = to
            .iter()
            .map(|ip| (*ip, scope.spawn(|| ping_all(from, &[*ip], PATIENCE).is_ok_and(|silent| silent.is_empty()))))
            .collect();
        asked.into_iter().filter_map(|(ip, asked)| asked.join().unwrap().then_some(ip)).collect()
    })
}

/// What the rules are.
fn may_reach(from: &Spot, to: &Spot) -> bool {
    match (from.network, to.network) {
        ("secret", _) | (_, "secret") => false, // nothing passes in the clear
        ("local", "local") => from.host == to.host,
        (own, other) if own == other => true,
        // The physical network is outside: reached as the host, which its own stations there do not hear.
        ("front" | "back" | "local", "lan") => from.host != to.host,
        _ => false,
    }
}

/// The tables of a host, by their heads: ours, and others'.
fn tables(host: &Namespace) -> (BTreeSet<String>, BTreeMap<String, String>) {
    let text = judge(host, "nft", &["list", "ruleset"]);
    let blocks = text.split("\ntable ").map(|block| block.trim_start_matches("table ").trim().to_owned());
    let all = blocks
        .filter(|block| !block.is_empty())
        .map(|block| (block.lines().next().unwrap_or_default().to_owned(), block));
    let (ours, others): (Vec<_>, Vec<_>) =
        all.partition(|(head, _)| head.split(' ').nth(1).is_some_and(|name| name.starts_with("ov-")));
    (ours.into_iter().map(|(head, _)| head).collect(), others.into_iter().collect())
}

#[test]
fn who_reaches_whom_is_as_the_rules_say_by_every_protocol_and_family() {
    kernel_test(Kernel::Host, "driver::who_reaches_whom_is_as_the_rules_say", || {
        let mut world = World::new(3);
        let foreign = "nft 'add table inet other; add chain inet other input { type filter hook input priority 0; policy accept; }; \
                       add rule inet other input tcp dport 9 drop'";
        let before: Vec<_> = (0..3)
            .map(|host| {
                judge(world.hosts().lab.host(host), "sh", &["-c", foreign]);
                tables(world.hosts().lab.host(host))
            })
            .collect();
        let spots = settle(&world);
        let all = spots.iter().map(|spot| &spot.container.namespace).chain([world.hosts().lab.outside()]);
        while_served(&all.collect::<Vec<_>>(), || {
            settled(&world, &spots);
            between(&spots);
            out(&world, &spots);
            coming_in(&world, &spots);
        });
        for (host, (ours, others)) in before.iter().enumerate() {
            let (ours_now, others_now) = tables(world.hosts().lab.host(host));
            assert!(ours.len() < ours_now.len() && *others == others_now, "host {host}: {others_now:?}");
        }
        for (host, (_, others)) in before.iter().enumerate() {
            let driver = world.hosts_mut().take(host).unwrap();
            world.wait(driver.tear_down()).unwrap();
            assert_eq!(
                tables(world.hosts().lab.host(host)),
                (BTreeSet::new(), others.clone()),
                "after it was torn down"
            );
        }
    });
}

/// Waits until those who may reach each other have been told of each other.
fn settled(world: &World, spots: &[Spot]) {
    let last = spots.iter().rfind(|spot| spot.network == "lan").unwrap();
    let of = |network| spots.iter().filter(move |spot| spot.network == network);
    for network in ["front", "back", "vault"] {
        let to = of(network).next_back().unwrap();
        world.until(Duration::from_secs(10), |_| {
            of(network).all(|from| to.host == from.host || reached(&from.container.namespace, &to.addresses).len() == 6)
        });
    }
    world.until(Duration::from_secs(10), |_| {
        reached(&of("lan").next().unwrap().container.namespace, &last.addresses).len() == 6
    });
}

/// Every ordered pair of containers.
fn between(spots: &[Spot]) {
    let everywhere: Vec<IpAddr> = spots.iter().flat_map(|spot| spot.addresses.iter().copied()).collect();
    let (mut allowed, mut blocked) = (0, 0);
    for from in spots {
        let seen = reached(&from.container.namespace, &everywhere);
        for to in spots.iter().filter(|to| to.container.name != from.container.name) {
            for ip in &to.addresses {
                for by in [By::Tcp, By::Udp, By::Icmp] {
                    let (may, does) = (may_reach(from, to), seen.contains(&(*ip, by)));
                    assert_eq!(
                        does, may,
                        "{} of host {} to {} ({ip}) of host {} by {by:?}",
                        from.container.name, from.host, to.container.name, to.host
                    );
                    *(if may { &mut allowed } else { &mut blocked }) += 1;
                }
            }
        }
    }
    // 4 networks of 12 pairs that reach each other, 2 on one bridge, and 3 networks whose containers reach the physical one but their host's.
    assert_eq!((allowed, allowed + blocked), ((4 * 12 + 2 + 3 * 10) * 6, 24 * 23 * 6));
}

/// To the outside, and back.
fn out(world: &World, spots: &[Spot]) {
    let to = Lab::outside_addresses();
    for from in spots {
        let all = reached(&from.container.namespace, &to);
        let may = !matches!(from.network, "vault" | "secret");
        assert_eq!(all.len(), if may { 6 } else { 0 }, "{}: {all:?}", from.container.name);
        if !may {
            continue;
        }
        let asks = |ip: IpAddr| {
            let listener = udp(if ip.is_ipv4() { "0.0.0.0" } else { "::" }.parse().unwrap(), 7779);
            from.container
                .namespace
                .run(|| {
                    udp(if ip.is_ipv4() { "0.0.0.0" } else { "::" }.parse().unwrap(), 0).send_to(b"who?", (ip, 7779))
                })
                .unwrap()
                .unwrap();
            listener.set_nonblocking(false).unwrap();
            listener.set_read_timeout(Some(PATIENCE)).unwrap();
            listener.recv_from(&mut [0; 8]).unwrap().1.ip()
        };
        let seen = to.map(|ip| world.hosts().lab.outside().run(|| asks(ip)).unwrap());
        let host = [world.hosts().lab.address(from.host), format!("2001:db8::{}", from.host + 1).parse().unwrap()];
        let own = if from.network == "lan" { from.addresses.clone() } else { host.into() };
        assert_eq!(seen.to_vec(), own, "{} is seen as", from.container.name);
    }
}

/// From the outside, which knows the way to every address there is, also at the gateway bridges.
fn coming_in(world: &World, spots: &[Spot]) {
    let outside = world.hosts().lab.outside();
    for spot in spots {
        let gateway =
            judge(&spot.container.namespace, "sh", &["-c", "ip -o addr show dev gw0 scope global 2>/dev/null || true"]);
        let words = gateway.lines().filter_map(|line| line.split_whitespace().nth(3));
        let at_gateway = words.map(|net| net.split('/').next().unwrap().parse().unwrap());
        let addresses: Vec<IpAddr> = spot.addresses.iter().copied().chain(at_gateway).collect();
        if spot.network != "lan" {
            for ip in &addresses {
                let via = if ip.is_ipv4() {
                    format!("192.0.2.{}", spot.host + 1)
                } else {
                    format!("2001:db8::{}", spot.host + 1)
                };
                judge(outside, "ip", &["route", "replace", &ip.to_string(), "via", &via]);
            }
        }
        let expected = if spot.network == "lan" { 6 } else { 0 };
        let seen = reached(outside, &addresses);
        assert_eq!(seen.len(), expected, "{}: {seen:?}", spot.container.name);
    }
}

/// Runs `judges` while each of these answers.
fn while_served(at: &[&Namespace], judges: impl FnOnce()) {
    let end = AtomicBool::new(false);
    std::thread::scope(|scope| {
        at.iter().for_each(|namespace| drop(scope.spawn(|| serve(namespace, &end))));
        let judged = std::panic::catch_unwind(std::panic::AssertUnwindSafe(judges));
        end.store(true, Ordering::Relaxed);
        judged.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

/// Whether somebody at this address of his reaches another by TCP, whose answers are from the address that was asked.
fn connects(from: IpAddr, to: IpAddr) -> bool {
    let domain = socket2::Domain::for_address((to, 0).into());
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(from, 0).into()).unwrap();
    socket.connect_timeout(&SocketAddr::new(to, SERVICE).into(), PATIENCE).is_ok()
}

#[test]
fn a_container_on_a_bridge_an_overlay_and_a_physical_network_answers_by_the_way_it_was_asked() {
    kernel_test(Kernel::Host, "driver::a_container_on_a_bridge_an_overlay_and_a_physical_network", || {
        let mut world = World::new(2);
        for network in ["front", "local", "lan"] {
            world.network(spec(network));
        }
        let (web, _) = world.run(0, "web", "front");
        let lan = world.attach(0, &web, "lan");
        let preferred = Attach { priority: 10, ..Attach::new(web.name.clone(), web.source.clone(), "local") };
        let local = world.wait(world.driver(0).attach(preferred)).unwrap();
        let by = format!("dev {} ", local.interface);
        let default = || judge(&web.namespace, "ip", &["route", "show", "default"]);
        world.until(Duration::from_secs(5), |_| default().contains(&by));
        // A machine behind the router, to which web has a default route only: by the bridge, which is masqueraded.
        let outside = world.hosts().lab.outside();
        judge(outside, "sh", &["-c", "ip addr add 198.51.100.1/32 dev lo; ip -6 addr add 2001:db8:1::1/128 dev lo"]);
        let far: [IpAddr; 2] = ["198.51.100.1".parse().unwrap(), "2001:db8:1::1".parse().unwrap()];
        while_served(&[&web.namespace, outside], || {
            // What answers a datagram there does it from the machine's first address.
            let out = || reached(&web.namespace, &far).into_iter().filter(|(_, by)| *by != By::Udp).count();
            world.until(Duration::from_secs(5), |_| out() == 4);
            // Asked from there at its address on the physical network, it must not answer by the bridge.
            let asked = |world: &World| {
                let outside = world.hosts().lab.outside();
                let own = lan.endpoint.addresses.iter().map(|own| own.addr());
                own.zip(far).all(|(to, from)| outside.run(|| connects(from, to)).unwrap())
            };
            world.until(Duration::from_secs(5), asked);
            // Somebody's tool takes the rules away.
            let flush = "ip rule flush && ip rule add priority 32766 table main && ip -6 rule flush && ip -6 rule add priority 32766 table main";
            judge(&web.namespace, "sh", &["-c", flush]);
            world.until(Duration::from_secs(5), asked);
        });
        // All goes, but what was the container's.
        let driver = world.hosts_mut().take(0).unwrap();
        world.wait(driver.tear_down()).unwrap();
        let all =
            "ip -o link | grep -v ' lo:'; ip rule; ip -6 rule; ip route show table all | grep -v 'table local'; true";
        let left = judge(&web.namespace, "sh", &["-c", all]);
        assert!(["eth", "gw0", "32000", "default"].iter().all(|ours| !left.contains(ours)), "{left}");
    });
}
