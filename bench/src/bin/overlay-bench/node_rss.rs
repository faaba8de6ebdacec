//! `node/rss-10k`: resident memory of a process in which an agent knows the [town](crate::node_town), 100 of whose endpoints are
//! plugged in, and has derived what its node should hold, twice. The process is this program again. The endpoints elsewhere are told by
//! one gossip machine in the same process; what that took when it was made is not in the figure.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::Duration;

use overlay_bench::Bench;
use overlay_core::{Instant, Mtu};
use overlay_dns::Health;
use overlay_gossip::{Config, EntryKey, Gossip, Key, Member, Metadata, Role, TableId, Transmit};
use overlay_node::{Agent, AgentConfig, CatalogueChange, Input, Me, RemoteEndpoint, Underlay};

use crate::firewall::{Outcome, must};
use crate::node_town::{self, ENDPOINTS, NETWORKS, SERVICES, network_id, node_id, vtep};

const ASKED: &str = "OVERLAY_BENCH_NODE_RSS";

pub(crate) fn run(bench: &mut Bench<'_>) -> io::Result<()> {
    let child = Command::new(std::env::current_exe()?).env(ASKED, "1").stdin(Stdio::null()).output()?;
    if !child.status.success() {
        return Err(io::Error::other(String::from_utf8_lossy(&child.stderr).into_owned()));
    }
    let kib = String::from_utf8_lossy(&child.stdout).trim().parse::<f64>().map_err(io::Error::other)?;
    bench.figure("node/rss-10k", "MB").value(kib * 1024.0 / 1e6).report()
}

/// Is that process, if the environment says so.
#[expect(clippy::print_stdout, reason = "one number, for the parent")]
pub(crate) fn be_if_asked() -> Option<ExitCode> {
    #[expect(clippy::disallowed_methods, reason = "a benchmark tells itself by the environment what to be")]
    std::env::var(ASKED).ok()?;
    let before = resident();
    let mut other = must(other(Instant::ZERO));
    let others = resident() - before;
    let (agent, desired) = must(know(&mut other));
    println!("{}", resident() - others);
    assert_eq!(agent.metrics().remote + agent.metrics().local, usize::from(NETWORKS * ENDPOINTS));
    assert_eq!(desired.places.len(), 1 + 10 + 100);
    Some(ExitCode::SUCCESS)
}

/// The process's memory in KiB; 0 where there is no /proc.
fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0.0)
}

fn know(other: &mut Gossip) -> Outcome<(Agent, Arc<overlay_node::Desired>)> {
    let mut now = Instant::ZERO;
    let mut agent = agent(now)?;
    agent.handle(Input::Join(vec![(vtep(1), 7946).into()]), now)?;
    let mut under_way = VecDeque::new();
    let elsewhere = usize::from(NETWORKS * ENDPOINTS) - 100;
    while agent.knowledge().networks.values().map(|section| section.remote.len()).sum::<usize>() < elsewhere {
        now += Duration::from_millis(10);
        if now > Instant::ZERO + Duration::from_secs(600) {
            return Err("the tables never came".into());
        }
        agent.handle_timeout(now);
        other.handle_timeout(now);
        under_way.extend(std::iter::from_fn(|| agent.poll_transmit(now)).map(|transmit| (vtep(0), transmit)));
        under_way.extend(std::iter::from_fn(|| other.poll_transmit(now)).map(|transmit| (vtep(1), transmit)));
        while let Some((from, Transmit { class, payload, .. })) = under_way.pop_front() {
            let address = SocketAddr::from((from, 7946));
            match from == vtep(0) {
                true => other.handle(address, class, &payload, now)?,
                false => agent.handle(Input::Message { from: address, class, payload }, now)?,
            }
        }
        while other.poll_event().is_some() {}
        while agent.poll_event().is_some() {}
    }
    let first = agent.desired();
    agent.handle(Input::Health(node_town::endpoint_id(0, 0), Health::Suspect), now)?;
    let second = agent.desired();
    assert!(!Arc::ptr_eq(&first, &second));
    Ok((agent, second))
}

/// With the catalogue, and what is plugged in.
fn agent(now: Instant) -> Outcome<Agent> {
    let address = (vtep(0), 7946).into();
    let me = Me { id: node_id(0), incarnation: 1, address, role: Role::Worker, vtep: vtep(0), mtu: Mtu::ETHERNET };
    let mut agent = Agent::new(AgentConfig::lan(), me, [1; 32], now)?;
    for number in 0..NETWORKS {
        agent.handle(Input::Catalogue(CatalogueChange::Network(Arc::new(node_town::network(number)?))), now)?;
        for of in 0..SERVICES {
            let service = node_town::service(number, of)?;
            agent.handle(Input::Catalogue(CatalogueChange::Service(Arc::new(service))), now)?;
        }
        for of in 0..ENDPOINTS {
            let mut endpoint = node_town::endpoint(number, of)?;
            let (id, here) = (endpoint.id, endpoint.spec.node == node_id(0));
            if !here {
                endpoint.spec.node = node_id(1);
            }
            agent.handle(Input::Catalogue(CatalogueChange::Endpoint(Arc::new(endpoint))), now)?;
            if here {
                let namespace = Some(node_town::plug(number, of)?);
                let interface = "eth0".parse()?;
                agent.handle(Input::Plug { endpoint: id, namespace, interface, adopted: true }, now)?; // and in effect
            }
        }
    }
    Ok(agent)
}

/// Everybody else.
fn other(now: Instant) -> Outcome<Gossip> {
    let metadata = Metadata::new(Underlay { vtep: vtep(1), mtu: Mtu::ETHERNET }.encode())?;
    let member = Member { metadata, ..Member::new(node_id(1), 1, (vtep(1), 7946).into()) };
    let mut gossip = Gossip::new(Config::lan(), member, [2; 32], now)?;
    for number in 0..NETWORKS {
        gossip.subscribe(network_id(number), now)?;
        for of in 0..ENDPOINTS {
            let endpoint = node_town::endpoint(number, of)?;
            if endpoint.spec.node != node_id(0) {
                let fact = RemoteEndpoint { node: node_id(1), ..node_town::remote(&endpoint) }.encode()?;
                let key = Key::new(endpoint.id.to_bytes().to_vec())?;
                gossip.put(EntryKey { network: network_id(number), table: TableId(1), key }, fact.into(), now)?;
            }
        }
    }
    Ok(gossip)
}
