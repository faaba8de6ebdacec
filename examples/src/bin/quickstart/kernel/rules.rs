//! Who may reach whom: attempts with real packets, what came of each, and which rule says so.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use ipnet::IpNet;
use overlay_core::{EndpointId, IfName, NetworkId, reconcile};
use overlay_driver::Attached;
use overlay_driver::testing::{Container, Lab, date, ping};
use overlay_firewall::{Flow, Ip, Judge, Packet, Transport};
use overlay_ipam::SubnetOptions;
use overlay_kernel::Namespace;
use overlay_kernel::link::{KernelWays, Way, Ways};
use overlay_link::MacvlanMode;
use overlay_node::{Control, Desired, Kind, NetworkSpec, Place, Target};

use super::town::{Town, fill};
use overlay_examples::listing;

use crate::Outcome;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_millis(250);
/// Nobody listens there: who is reached says so, which is an answer.
const CLOSED: u16 = 9;
/// Another network, which the first has nothing to do with.
const OTHER: &str = "backend";

/// A network whose containers are stations of the physical one.
const LAN: &str = "lan";

/// A row of the table.
struct Attempt {
    rule: &'static str,
    what: String,
    /// By which of ICMP, TCP and UDP it was answered.
    answered: [bool; 3],
    may: bool,
    why: String,
}

/// Shows the mission's four rules, between web on host-1, db on host-2, and a container of another network there.
pub(crate) fn show(town: &mut Town, web: (&Container, &Attached), db: &Attached) -> Outcome {
    town.typed(0, &format!("network create -d overlay --attachable {OTHER}"));
    let spec = NetworkSpec { attachable: true, ..NetworkSpec::overlay(OTHER.parse()?) };
    let network = town.wait(town.manager.create_network(NetworkId::generate(fill), spec, date()))?;
    town.shown(&network.id.to_string());
    let (api, its) = town.run(1, "api", OTHER)?;
    let mut attempts = vec![
        within(town, web, db)?,
        between(town, "web", (0, web), &its)?,
        between(town, "api", (1, (&api, &its)), web.1)?,
        out(town, web)?,
        coming_in(town, web.0)?,
    ];
    let lamp = physical(town)?;
    if let Some((_, lamp)) = &lamp {
        attempts.push(at_a_station(town, lamp)?);
    }
    println!("host-1 $ # who may reach whom, tried by ICMP, TCP and UDP");
    let head = ["RULE", "ATTEMPT", "VERDICT", "WHICH GAVE IT"].map(str::to_owned).to_vec();
    let row = |it: &Attempt| vec![it.rule.to_owned(), it.what.clone(), verdict(it), it.why.clone()];
    town.shown(&listing::table(&[head].into_iter().chain(attempts.iter().map(row)).collect::<Vec<_>>()));
    for Attempt { rule, what, answered, may, .. } in &attempts {
        town.check(format!("{rule}: {what}"), *answered == [*may; 3]);
    }
    if let Some((_, lamp)) = lamp {
        town.typed(0, &format!("rm -f lamp && network rm {LAN}"));
        town.detach(0, lamp.endpoint.id)?;
        town.wait(town.manager.remove_network(&LAN.into(), date()))?;
        town.shown(LAN);
    }
    town.typed(1, &format!("rm -f api && network rm {OTHER}"));
    town.detach(1, its.endpoint.id)?;
    town.wait(town.manager.remove_network(&OTHER.into(), date()))?;
    town.shown(OTHER);
    Ok(())
}

fn verdict(attempt: &Attempt) -> String {
    match attempt.answered {
        [true, true, true] => "allowed".to_owned(),
        [false, false, false] => "blocked".to_owned(),
        some => format!("ICMP, TCP, UDP: {some:?}"),
    }
}

fn within(town: &Town, (web, its): (&Container, &Attached), db: &Attached) -> Outcome<Attempt> {
    let to = address(db)?;
    let why = explained(town, 0, its.endpoint.id, to, "policy")?;
    let what = format!("web asks db, {to}");
    Ok(Attempt { rule: "within a network", what, answered: asked(&web.namespace, to)?, may: true, why })
}

fn between(
    town: &Town,
    name: &str,
    (host, (from, its)): (usize, (&Container, &Attached)),
    to: &Attached,
) -> Outcome<Attempt> {
    let to = address(to)?;
    let why = format!("no network in common: {}", explained(town, host, its.endpoint.id, to, "outside")?);
    let what = format!("{name} asks {to}, of another network");
    Ok(Attempt { rule: "between networks", what, answered: asked(&from.namespace, to)?, may: false, why })
}

fn out(town: &Town, (web, its): (&Container, &Attached)) -> Outcome<Attempt> {
    let [to, _] = Lab::outside_addresses();
    explained(town, 0, its.endpoint.id, to, "outside")?;
    let held = town.wait(town.driver(0)?.holds())?;
    let (bridge, own) = at_the_gateway(&held, web)?;
    let why = judged(&held, (bridge, uplink()?), (own, to))?;
    let what = format!("web asks {to}, outside");
    Ok(Attempt { rule: "out, and back", what, answered: asked(&web.namespace, to)?, may: true, why })
}

/// The machine outside is told the way to web's address at host-1's gateway bridge, which is no right of way.
fn coming_in(town: &Town, web: &Container) -> Outcome<Attempt> {
    let (outside, [from, _]) = (town.hosts.lab.outside(), Lab::outside_addresses());
    let held = town.wait(town.driver(0)?.holds())?;
    let (bridge, to) = at_the_gateway(&held, web)?;
    let mut ways = Ways::default();
    ways.to.insert(to.into(), Way { device: uplink()?, gateway: Some(town.hosts.lab.address(0)) });
    let mut kernel = KernelWays::open(outside.try_clone()?)?;
    reconcile(&mut kernel, &ways)?;
    let why = judged(&held, (uplink()?, bridge), (from, to))?;
    let answered = asked(outside, to)?;
    reconcile(&mut kernel, &Ways::default())?;
    let what = format!("somebody outside asks web, {to}");
    Ok(Attempt { rule: "in", what, answered, may: false, why })
}

/// A container on the physical network that the hosts' cables are; nothing where this kernel has no macvlan.
fn physical(town: &mut Town) -> Outcome<Option<(Container, Attached)>> {
    let [gateway, _] = Lab::outside_addresses();
    let (subnet, range) = ("192.0.2.0/24", "192.0.2.128/26");
    town.typed(
        0,
        &format!(
            "network create -d macvlan -o parent={} --subnet {subnet} --ip-range {range} --gateway {gateway} {LAN}",
            uplink()?
        ),
    );
    let (subnets, ranges) = (vec![subnet.parse()?], vec![range.parse()?]);
    let subnets = SubnetOptions { subnets, ranges, gateways: vec![gateway], ..SubnetOptions::default() }.requests()?;
    let kind = Kind::Macvlan { parent: uplink()?, mode: MacvlanMode::Bridge };
    let spec = NetworkSpec { subnets, ..NetworkSpec::of(kind, LAN.parse()?) };
    let network = town.wait(town.manager.create_network(NetworkId::generate(fill), spec, date()))?;
    town.shown(&network.id.to_string());
    match town.run(0, "lamp", LAN) {
        Ok(lamp) => {
            town.list()?;
            Ok(Some(lamp))
        }
        Err(error) => {
            town.shown(&format!("Error: {error}\n(a kernel without macvlan: the walk goes on without)"));
            town.wait(town.manager.remove_network(&LAN.into(), date()))?;
            Ok(None)
        }
    }
}

/// A station of the physical network is asked like any other.
fn at_a_station(town: &Town, lamp: &Attached) -> Outcome<Attempt> {
    let to = address(lamp)?;
    let [outside, _] = Lab::outside_addresses();
    let why = explained(town, 0, lamp.endpoint.id, outside, "physical")?;
    let answered = asked(town.hosts.lab.outside(), to)?;
    let what = format!("somebody outside asks lamp, {to}, on macvlan");
    Ok(Attempt { rule: "in", what, answered, may: true, why })
}

fn uplink() -> Outcome<IfName> {
    Ok("eth0".parse()?)
}

/// The bridge, and the container's address there.
fn at_the_gateway(held: &Desired, container: &Container) -> Outcome<(IfName, IpAddr)> {
    let host = held.places.get(&Place::Host).ok_or("host-1 holds nothing")?;
    let ports =
        host.link.bridges.iter().flat_map(|(name, bridge)| bridge.ports.values().map(move |port| (*name, port)));
    let mut own = ports.filter(|(_, port)| port.inside.as_ref().is_some_and(|it| it.namespace.name == container.name));
    let (bridge, port) = own.next().ok_or("web has no way out")?;
    let address = port.addresses.iter().map(IpNet::addr).find(IpAddr::is_ipv4).ok_or("web has no way out by IPv4")?;
    Ok((bridge, address))
}

/// The rule that the host's firewall has for a packet that passes.
fn judged(held: &Desired, (by, to): (IfName, IfName), (source, destination): (IpAddr, IpAddr)) -> Outcome<String> {
    let host = held.places.get(&Place::Host).ok_or("host-1 holds nothing")?;
    let ip = Ip::between(source, destination, Transport::tcp(40_000, CLOSED)).ok_or("two families")?;
    let judge = Judge::new(&host.firewall);
    Ok(judge.judge(&Packet::passing(by, to, ip), Flow::New).rule.to_string())
}

/// The hop of this kind, as the node explains it.
fn explained(town: &Town, host: usize, from: EndpointId, to: IpAddr, hop: &str) -> Outcome<String> {
    let explanation = town.wait(town.driver(host)?.explain(from, Target::Address(to)))?.to_string();
    let line = explanation.lines().find(|line| line.starts_with(hop));
    Ok(line.map_or_else(|| explanation.clone(), |line| line.split_whitespace().collect::<Vec<_>>().join(" ")))
}

fn address(of: &Attached) -> Outcome<IpAddr> {
    Ok(of.endpoint.addresses.first().ok_or("an endpoint has no address")?.addr())
}

/// Whether somebody answers, by ICMP, TCP and UDP. "Nobody listens here" is an answer.
fn asked(from: &Namespace, to: IpAddr) -> Outcome<[bool; 3]> {
    let by_icmp = ping(from, to, PATIENCE).is_ok_and(|took| took.is_some());
    let [by_tcp, by_udp] = from.run(|| [tcp(to), udp(to)])?;
    Ok([by_icmp, by_tcp, by_udp])
}

fn tcp(to: IpAddr) -> bool {
    match TcpStream::connect_timeout(&(to, CLOSED).into(), PATIENCE) {
        Ok(_) => true,
        Err(error) => error.kind() == io::ErrorKind::ConnectionRefused,
    }
}

fn udp(to: IpAddr) -> bool {
    let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    let asked = UdpSocket::bind(SocketAddr::new(any, 0)).and_then(|socket| {
        socket.connect((to, CLOSED))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.send(b"?")?;
        socket.recv(&mut [0])
    });
    asked.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}
