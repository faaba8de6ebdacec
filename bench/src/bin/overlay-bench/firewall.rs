//! `firewall/judge-{10,1k,100k}`: one verdict in a network of so many endpoints, from a port of this node (up to 1,000 are)
//! to a random endpoint, by its pin and a policy of eight rules. `firewall/judge-host-100k`: one verdict on a host with
//! 100,000 published ports and 10,000 gateways, for a random one. The yardstick is a lookup of a random one of as many
//! addresses in a `HashMap`.

use std::collections::HashMap;
use std::hint::black_box;
use std::io;
use std::net::Ipv4Addr;

use overlay_bench::Bench;
use overlay_core::{EndpointId, IfName, Mac, Port, Protocol};
use overlay_firewall::{
    Bind, BridgePort, Content, Flow, Frame, Gateway, Ip, Judge, Member, Packet, Pin, PolicyRule, Ports, Published,
    Selector, State, Strangers, Transport,
};

use crate::firewall_kernel;

pub(crate) fn run(bench: &mut Bench<'_>) -> io::Result<()> {
    network(bench, "firewall/judge-10", 10)?;
    network(bench, "firewall/judge-1k", 1_000)?;
    network(bench, "firewall/judge-100k", 100_000)?;
    host(bench)?;
    firewall_kernel::run(bench)
}

fn network(bench: &mut Bench<'_>, name: &'static str, endpoints: u32) -> io::Result<()> {
    let here = endpoints.min(1_000);
    let judge = Judge::new(&must(sandbox(endpoints, here)));
    let ports: Vec<IfName> = (0..here).map(|number| must(port_name(number))).collect();
    let bridge = must("br-4096".parse().map_err(Box::from));
    let map: HashMap<Ipv4Addr, u32> = (0..endpoints).map(|number| (address(number), number)).collect();
    bench
        .figure(name, "ns")
        .each(|n| {
            let (from, to) = (random(n) % here, random(!n) % endpoints);
            let frame = Frame { port: ports[from as usize], out: None, source: Mac::from_ipv4(address(from)) };
            let ip = Ip::v4(address(from), address(to), Transport::tcp(40_000, [80, 5432][n % 2]));
            let packet = Packet::bridged(bridge, frame, Content::Ip(ip));
            black_box(judge.judge(black_box(&packet), Flow::New));
        })
        .yardstick("HashMap lookup", |n| {
            black_box(map.get(black_box(&address(random(!n) % endpoints))));
        })
        .report()
}

fn host(bench: &mut Bench<'_>) -> io::Result<()> {
    let judge = Judge::new(&must(published(10_000, 10)));
    let lan = must("eth0".parse().map_err(Box::from));
    let map: HashMap<Ipv4Addr, u32> = (0..100_000).map(|number| (address(number), number)).collect();
    bench
        .figure("firewall/judge-host-100k", "ns")
        .each(|n| {
            let to = random(n) % 100_000;
            let asks = Transport::tcp(40_000, 1 + (to / 10_000) as u16);
            let ip = Ip::v4([198, 51, 100, 7].into(), bound(to % 10_000), asks);
            black_box(judge.judge(black_box(&Packet::arriving(lan, ip)), Flow::New));
        })
        .yardstick("HashMap lookup", |n| {
            black_box(map.get(black_box(&address(random(!n) % 100_000))));
        })
        .report()
}

/// One node's part of a network: so many members in ten groups, and so many of them pinned to ports here.
pub(crate) fn sandbox(endpoints: u32, here: u32) -> Outcome<State> {
    let mut state = State { strangers: Strangers::Drop, ..State::default() };
    for number in 0..endpoints {
        let labels = [("app".to_owned(), format!("app-{}", number % 10))].into();
        let mut id = [0; 16];
        id[..4].copy_from_slice(&number.to_be_bytes());
        let member = Member { addresses: [address(number).into()].into(), labels };
        state.policy.members.insert(EndpointId::from_bytes(id), member);
        if number < here {
            let pin = Pin::new(Mac::from_ipv4(address(number)), [address(number).into()]);
            state.ports.insert(port_name(number)?, BridgePort::Pinned(pin));
        }
    }
    let port = Ports::one(Protocol::Tcp, Port::new(5432)?);
    for number in 0..8 {
        let [from, to] = [number, number + 1].map(|app| Selector::labels([("app", format!("app-{app}").as_str())]));
        state.policy.rules.insert(format!("rule-{number}").parse()?, PolicyRule::deny(from, to).on(port));
    }
    Ok(state)
}

/// A host with so many gateways and so many ports published for each, at addresses of their own.
fn published(gateways: u32, ports: u16) -> Outcome<State> {
    let mut state = State::default();
    for number in 0..gateways {
        let subnet = ipnet::Ipv4Net::new(Ipv4Addr::from(0x6440_0000 | number << 6), 26)?;
        state.gateways.insert(format!("gw-{number}").parse()?, Gateway::new([subnet.into()]));
        for port in 1..=ports {
            let target = (Ipv4Addr::from(u32::from(subnet.network()) | 2), 80);
            let published = Published::new(Protocol::Tcp, Port::new(port)?).at(Bind::Address(bound(number).into()));
            state.published.insert(format!("p-{number}-{port}").parse()?, published.to(target.into()));
        }
    }
    Ok(state)
}

pub(crate) type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

pub(crate) fn address(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(0x0a00_0002 + number)
}

fn bound(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(0xc612_0000 | number)
}

fn port_name(number: u32) -> Outcome<IfName> {
    Ok(format!("p-{number}").parse()?)
}

/// A number that looks like none before it, by Fibonacci hashing.
fn random(n: usize) -> u32 {
    ((n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32
}

pub(crate) fn must<T>(result: Outcome<T>) -> T {
    result.unwrap_or_else(|error| panic!("{error}"))
}
