//! `datapath/tcp1-…`, `tcp4-…`, `udp64-…`, `rtt-…`, `cpu-per-gbit-…`: what is carried in user space between the taps of two containers on two hosts of
//! namespaces, by iperf3 and ping, all on this machine's cores. `-sealed` is in ESP in UDP (AES-256-GCM); `-nogso` is over a cable that takes one packet at a time.
//! The yardstick is the kernel's VXLAN, in the clear, over the same cable.

use std::fs;
use std::io;
use std::net::{IpAddr, UdpSocket};
use std::process::Command;
use std::sync::Arc;

use overlay_bench::{Bench, Pace};
use overlay_core::{EndpointId, Mac, Mtu, NetworkId, Port, Vni};
use overlay_crypto::{
    Cipher, Direction, Epoch, Epochs, Numbers, Sa, SaId, SaKey, Spi, Tunnel, UdpEncapsulation, WindowSize,
};
use overlay_datapath::{Sandbox, Tables, Wanted};
use overlay_driver::packets::{Carrier, CarrierConfig};
use overlay_kernel::{Namespace, QueueFlags, TapQueue};
use overlay_vxlan::{LocalPort, Peer, PortEnd, Segment, Vtep};

use crate::vxlan_kernel::{Outcome, must, shell};
use crate::vxlan_tcp::{Pair, inner, vtep};

pub(crate) fn run(bench: &mut Bench<'_>) -> io::Result<()> {
    let tools = ["iperf3", "ethtool", "ping"];
    if !NAMES.iter().any(|name| bench.wants(name)) {
        return Ok(());
    }
    if let Some(tool) = tools.iter().find(|tool| Command::new(tool).arg("--version").output().is_err()) {
        eprintln!("SKIPPED datapath/tcp1-plain and its kin: {tool} is not installed, and it is what measures");
        return Ok(());
    }
    if Namespace::create().is_err() {
        eprintln!("SKIPPED datapath/tcp1-plain and its kin: namespaces are root's to make");
        return Ok(());
    }
    for sealed in [false, true] {
        tcp(bench, sealed)?;
        without_offload(bench, sealed)?;
        datagrams(bench, sealed)?;
    }
    round_trips(bench)
}

const NAMES: &[&str] = &["datapath/tcp", "datapath/udp64", "datapath/rtt", "datapath/cpu-per-gbit"];
const KERNEL: &str = "the kernel's VXLAN";

const fn kind(sealed: bool) -> &'static str {
    if sealed { "sealed" } else { "plain" }
}

/// How much is sent, as iperf3 is told.
fn amount(bench: &Bench<'_>, quick: &'static str) -> [&'static str; 2] {
    if bench.pace() == Pace::Quick { ["-n", quick] } else { ["-t", "2"] }
}

fn tcp(bench: &mut Bench<'_>, sealed: bool) -> io::Result<()> {
    let (mut ours, mut theirs) = (must(Taps::new(sealed)), must(Pair::ours()));
    let [how, much] = amount(bench, "64M");
    for streams in ["1", "4"] {
        bench
            .figure(format!("datapath/tcp{streams}-{}", kind(sealed)), "Gb/s")
            .reading(|| must(gigabits(&mut ours.pair, &["-P", streams, how, much])))
            .yardstick_reading(KERNEL, || must(gigabits(&mut theirs, &["-P", streams, how, much])))
            .report()?;
    }
    let cost = || {
        let before = cpu_of_carriers();
        let report = must(ours.pair.measures(&[how, much]));
        let bytes = report["end"]["sum_received"]["bytes"].as_f64().unwrap_or_default();
        (cpu_of_carriers() - before) / (bytes * 8.0 / 1e9)
    };
    bench.figure(format!("datapath/cpu-per-gbit-{}", kind(sealed)), "cores").reading(cost).report()
}

fn without_offload(bench: &mut Bench<'_>, sealed: bool) -> io::Result<()> {
    let (mut ours, mut theirs) = (must(Taps::new(sealed)), must(Pair::ours()));
    [&ours.pair, &theirs].iter().for_each(|pair| must(one_at_a_time(pair)));
    let amount = amount(bench, "64M");
    bench
        .figure(format!("datapath/tcp1-{}-nogso", kind(sealed)), "Gb/s")
        .reading(|| must(gigabits(&mut ours.pair, &amount)))
        .yardstick_reading(KERNEL, || must(gigabits(&mut theirs, &amount)))
        .report()
}

fn datagrams(bench: &mut Bench<'_>, sealed: bool) -> io::Result<()> {
    let (mut ours, mut theirs) = (must(Taps::new(sealed)), must(Pair::ours()));
    let amount = amount(bench, "4M");
    bench
        .figure(format!("datapath/udp64-{}", kind(sealed)), "per s")
        .reading(|| must(packets(&mut ours.pair, amount)))
        .yardstick_reading(KERNEL, || must(packets(&mut theirs, amount)))
        .report()
}

fn round_trips(bench: &mut Bench<'_>) -> io::Result<()> {
    let (ours, theirs) = (must(Taps::new(false)), must(Pair::ours()));
    let count = if bench.pace() == Pace::Quick { "200" } else { "5000" };
    for (name, share) in [("datapath/rtt-p50", 0.5), ("datapath/rtt-p99", 0.99)] {
        bench
            .figure(name, "us")
            .reading(|| must(pings(&ours.pair, count, share)))
            .yardstick_reading(KERNEL, || must(pings(&theirs, count, share)))
            .report()?;
    }
    Ok(())
}

fn gigabits(pair: &mut Pair, arguments: &[&str]) -> Outcome<f64> {
    let report = pair.measures(arguments)?;
    let bits = report["end"]["sum_received"]["bits_per_second"].as_f64();
    Ok(bits.ok_or_else(|| format!("iperf3: {report}"))? / 1e9)
}

/// Datagrams of 64 bytes that arrive in a second, as many as are sent.
fn packets(pair: &mut Pair, [how, much]: [&str; 2]) -> Outcome<f64> {
    let report = pair.measures(&["-u", "-b", "0", "-l", "64", how, much])?;
    let sum = &report["end"]["sum"];
    let number = |name: &str| sum[name].as_f64().ok_or_else(|| format!("iperf3: {report}"));
    Ok((number("packets")? - number("lost_packets")?) / number("seconds")?)
}

/// The microseconds that this share of round trips take at most.
fn pings(pair: &Pair, count: &str, share: f64) -> Outcome<f64> {
    let target = inner(1).to_string();
    let mut ping = Command::new("ping");
    ping.args(["-n", "-c", count, "-i", "0.0005", &target]);
    let output = pair.containers[0].run(|| ping.output())??;
    let said = String::from_utf8_lossy(&output.stdout);
    let took = said.lines().filter_map(|line| line.rsplit_once("time=")?.1.strip_suffix(" ms")?.parse::<f64>().ok());
    let mut took: Vec<f64> = took.collect();
    took.sort_by(f64::total_cmp);
    let at = ((took.len() as f64 * share) as usize).min(took.len().saturating_sub(1));
    Ok(took.get(at).ok_or_else(|| format!("ping: {said}"))? * 1e3)
}

/// Seconds that the threads of carriers have had a core.
fn cpu_of_carriers() -> f64 {
    let tasks = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let spent = tasks.filter_map(|task| {
        let is_ours = fs::read_to_string(task.path().join("comm")).ok()?.trim() == "packets";
        let spent = fs::read_to_string(task.path().join("schedstat")).ok()?;
        is_ours.then(|| spent.split(' ').next()?.parse::<f64>().ok())?
    });
    spent.sum::<f64>() / 1e9
}

fn one_at_a_time(pair: &Pair) -> Outcome<()> {
    pair.hosts
        .iter()
        .try_for_each(|host| shell(host, "ethtool -K u0 tso off gso off gro off tx-udp-segmentation off >&2"))
}

/// Two hosts that carry in user space.
struct Taps {
    pair: Pair,
    _carriers: Vec<Carrier>,
}

impl Taps {
    fn new(sealed: bool) -> Outcome<Self> {
        let (pair, mut carriers) = (Pair::new()?, Vec::new());
        for host in [0, 1] {
            let (mac, address) = (Mac::from_ipv4(inner(host)), inner(host));
            let tap = format!(
                "ip tuntap add dev eth1 mode tap vnet_hdr; ip link set eth1 address {mac} mtu {MTU}
                 ip addr add {address}/24 dev eth1; ip link set eth1 up",
            );
            shell(&pair.containers[host], &tap)?;
            let ports = [Some(Port::VXLAN.get()), sealed.then_some(ESP)];
            let open = |port| pair.hosts[host].run(|| UdpSocket::bind((vtep(host), port)));
            let sockets: Vec<_> = ports.into_iter().flatten().map(open).collect::<Result<_, _>>()?;
            let sockets = sockets.into_iter().collect::<io::Result<_>>()?;
            let carrier = Carrier::start(&CarrierConfig::default(), [host as u8; 32], sockets)?;
            let flags = QueueFlags { vnet_hdr: true, ..QueueFlags::default() };
            carrier.plug(HERE, TapQueue::open(&pair.containers[host], "eth1".parse()?, flags)?)?;
            carrier.publish(Arc::new(Tables::new(&wanted(host, sealed)?)?));
            carriers.push(carrier);
        }
        Ok(Self { pair: pair.serve()?, _carriers: carriers })
    }
}

const HERE: EndpointId = EndpointId::from_bytes([7; 16]);
/// Of ESP in UDP.
const ESP: u16 = 4_500;
/// What ESP leaves of 1,500 bytes, too.
const MTU: u16 = 1_400;

fn wanted(host: usize, sealed: bool) -> Outcome<Wanted> {
    let mut segment = Segment::new(Vtep::new(vtep(host).into()), Mtu::new(MTU.into())?);
    let addresses = [format!("{}/24", inner(host)).parse()?].into();
    let end = PortEnd::Tap { interface: "eth1".parse()? };
    segment.ports.insert(HERE, LocalPort { mac: Mac::from_ipv4(inner(host)), addresses, end });
    let peer = Peer { vtep: vtep(1 - host).into(), addresses: [IpAddr::from(inner(1 - host))].into() };
    segment.peers.insert(Mac::from_ipv4(inner(1 - host)), peer);
    let mut sandbox = Sandbox::default();
    sandbox.vxlan.segments.insert(Vni::new(4_096)?, segment);
    let mut wanted = Wanted { networks: [(NetworkId::from_bytes([9; 16]), sandbox)].into(), ..Wanted::default() };
    if !sealed {
        return Ok(wanted);
    }
    wanted.crypto.ports.insert(Port::VXLAN);
    let ends = [vtep(host), vtep(1 - host)].map(IpAddr::from);
    for (direction, source, destination, sender) in
        [(Direction::Out, ends[0], ends[1], host), (Direction::In, ends[1], ends[0], 1 - host)]
    {
        let sa = Sa {
            direction,
            source,
            port: Port::VXLAN,
            numbers: Numbers::Extended,
            window: WindowSize::default(),
            limits: None,
            udp: Some(UdpEncapsulation { source: Port::new(ESP)?, destination: Port::new(ESP)? }),
            epochs: Epochs { sender: Epoch::FIRST, receiver: Epoch::FIRST },
            key: SaKey::new(Cipher::Aes256Gcm, &[sender as u8; 36])?,
        };
        wanted.crypto.add(SaId { destination, spi: spi(sender)? }, sa)?;
    }
    wanted.crypto.tunnels.insert(Tunnel { port: Port::VXLAN, local: ends[0], peer: ends[1] }, vec![spi(host)?]);
    Ok(wanted)
}

fn spi(sender: usize) -> Outcome<Spi> {
    Ok(Spi::new(0x1000 + sender as u32)?)
}
