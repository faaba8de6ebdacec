//! Three hosts, one overlay network, in memory: what each host should hold is computed, shown, applied, broken and
//! repaired, and a frame crosses it byte by byte.
//!
//! `cargo run --release --bin quickstart` ends with a table of checks, and with 1 if one of them fails.

#![expect(clippy::print_stdout, reason = "it talks to a person")]

use std::collections::BTreeMap;
use std::error::Error;
use std::net::{IpAddr, Ipv4Addr};
use std::process::ExitCode;

use overlay_core::{
    Encapsulation, EndpointId, IfName, IpFamily, Mac, Memory, Mtu, Port, PortRange, Table, Vni, reconcile,
};
use overlay_vxlan::{Addresses, Flow, LocalPort, Outer, Packet, Peer, PortEnd, Segment, State, Vtep};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// A container as the cluster knows it: its id, its address, the number of the host it is on.
#[derive(Debug, Clone, Copy)]
struct Container {
    id: EndpointId,
    address: Ipv4Addr,
    host: usize,
}

/// Everything that is known; what each host should hold follows from it.
#[derive(Debug)]
struct Cluster {
    vni: Vni,
    mtu: Mtu,
    containers: BTreeMap<&'static str, Container>,
}

fn main() -> Outcome<ExitCode> {
    let mut cluster = cluster()?;
    let hosts: [Memory<State>; 3] = Default::default();
    let mut checks = Vec::new();

    create(&cluster, &hosts, &mut checks)?;
    deliver(&cluster, &hosts, &mut checks)?;
    damage_and_repair(&cluster, &hosts, &mut checks)?;
    move_a_container(&mut cluster, &hosts, &mut checks)?;

    println!("\n== checks");
    for (what, holds) in &checks {
        println!("{}  {what}", if *holds { "ok    " } else { "FAILED" });
    }
    Ok(if checks.iter().all(|(_, holds)| *holds) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

type Checks = Vec<(&'static str, bool)>;

fn cluster() -> Outcome<Cluster> {
    let container = |number: u8, host| Container {
        id: EndpointId::from_bytes([number * 37; 16]),
        address: [10, 0, 9, number].into(),
        host,
    };
    Ok(Cluster {
        vni: Vni::new(4096)?,
        mtu: Encapsulation::vxlan(IpFamily::V4).inner_mtu(Mtu::ETHERNET)?,
        containers: [("web", container(2, 0)), ("db", container(3, 1))].into(),
    })
}

/// The VTEP's address of a host.
const fn underlay(host: usize) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, host as u8 + 1)
}

/// What `host` should hold: nothing, unless a container of the network is on it.
fn desired(cluster: &Cluster, host: usize) -> Outcome<State> {
    if !cluster.containers.values().any(|container| container.host == host) {
        return Ok(State::default());
    }
    let mut segment = Segment::new(Vtep::new(underlay(host).into()), cluster.mtu);
    segment.gateways.insert("10.0.9.1/24".parse()?);
    for (name, container) in &cluster.containers {
        let mac = Mac::from_ipv4(container.address);
        if container.host == host {
            let end = PortEnd::Tap { interface: IfName::new(name)? };
            let addresses = [format!("{}/24", container.address).parse()?].into();
            segment.ports.insert(container.id, LocalPort { mac, addresses, end });
        } else {
            let vtep = underlay(container.host).into();
            segment.peers.insert(mac, Peer { vtep, addresses: [container.address.into()].into() });
        }
    }
    Ok(State { segments: [(cluster.vni, segment)].into() })
}

fn create(cluster: &Cluster, hosts: &[Memory<State>; 3], checks: &mut Checks) -> Outcome {
    println!("== three hosts, VNI {}, web on host 1, db on host 2\n", cluster.vni);
    let (mut dry, mut reached, mut settled) = (true, true, true);
    for (host, memory) in hosts.iter().enumerate() {
        let mut table = memory.clone();
        let wanted = desired(cluster, host)?;
        let plan = table.plan(&wanted)?;
        println!("host {}, dry run (phase, then step):", host + 1);
        print!("{}", if plan.is_empty() { "nothing to do\n".to_owned() } else { plan.to_string() });
        dry &= memory.state() == State::default();
        reconcile(&mut table, &wanted)?;
        reached &= memory.state() == wanted;
        settled &= reconcile(&mut table, &wanted)?.is_empty();
    }
    checks.push(("a dry run changes nothing", dry));
    checks.push(("what was wanted is there", reached));
    checks.push(("a second reconcile has nothing to do", settled));
    checks.push(("the network is absent where no container needs it", hosts[2].state() == State::default()));
    Ok(())
}

/// Sends a frame from web to db: what host 1 holds decides where to, what host 2 holds whether it arrives.
fn deliver(cluster: &Cluster, hosts: &[Memory<State>; 3], checks: &mut Checks) -> Outcome {
    let (web, db) = (cluster.containers["web"], cluster.containers["db"]);
    let mut frame = Vec::new();
    frame.extend(Mac::from_ipv4(db.address).octets());
    frame.extend(Mac::from_ipv4(web.address).octets());
    frame.extend(0x88b5_u16.to_be_bytes()); // an EtherType for experiments (IEEE 802)
    frame.extend(b"hello, db");

    let from = hosts[web.host].state();
    let peer = &from.segments[&cluster.vni].peers[&Mac::from_ipv4(db.address)];
    let IpAddr::V4(destination) = peer.vtep else { return Err("the underlay is IPv4".into()) };
    let source_port = PortRange::DYNAMIC.pick(Flow::of(&frame).hash(7));
    let outer = Outer::new(Addresses::V4 { source: underlay(web.host), destination }, source_port, cluster.vni);
    let mut packet = vec![0; outer.header_len()];
    outer.prepend(&mut packet, frame.len())?;
    packet.extend(&frame);
    println!("\n== web sends db a frame of {} bytes; on the wire:\n{}", frame.len(), hex(&packet));

    let received = Packet::parse_ip(&packet, Port::VXLAN)?.ok_or("not for VXLAN's port")?;
    let (to, vni) = (received.ip.destination(), received.header.vni);
    println!(
        "{} -> {to} port {}, VNI {vni}, payload {:?}",
        received.ip.source(),
        Port::VXLAN,
        received.inner.payload.escape_ascii().to_string()
    );
    let there = hosts[db.host].state();
    let station = received.inner.ethernet.destination();
    let port = there.segments[&vni].ports.values().find(|port| port.mac == station);
    checks.push(("the packet goes to the host that db is on", to == IpAddr::from(underlay(db.host))));
    checks.push(("the frame comes out as it went in", received.frame() == frame));
    checks.push(("and there is a port for it", port.is_some()));
    Ok(())
}

fn damage_and_repair(cluster: &Cluster, hosts: &[Memory<State>; 3], checks: &mut Checks) -> Outcome {
    println!("\n== somebody flushes the forwarding entries of host 1; reconciled:");
    hosts[0].update(|state| state.segments.values_mut().for_each(|segment| segment.peers.clear()));
    let wanted = desired(cluster, 0)?;
    let repaired = reconcile(&mut hosts[0].clone(), &wanted)?;
    print!("{repaired}");
    checks.push(("a repair does only what is missing", repaired.len() == 1));
    checks.push(("and then all is there", hosts[0].state() == wanted));
    Ok(())
}

fn move_a_container(cluster: &mut Cluster, hosts: &[Memory<State>; 3], checks: &mut Checks) -> Outcome {
    println!("\n== db moves to host 3");
    if let Some(db) = cluster.containers.get_mut("db") {
        db.host = 2;
    }
    for (host, memory) in hosts.iter().enumerate() {
        println!("host {}:", host + 1);
        print!("{}", reconcile(&mut memory.clone(), &desired(cluster, host)?)?);
    }
    let peers: Vec<_> = hosts[0].state().segments[&cluster.vni].peers.values().map(|peer| peer.vtep).collect();
    checks.push(("host 1 sends to host 3 now", peers == [IpAddr::from(underlay(2))]));
    checks.push(("nothing is left on host 2", hosts[1].state() == State::default()));
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    let line = |line: &[u8]| line.iter().map(|byte| format!("{byte:02x} ")).collect::<String>();
    bytes.chunks(16).map(|chunk| format!("  {}", line(chunk).trim_end())).collect::<Vec<_>>().join("\n")
}
